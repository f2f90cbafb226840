//! [`AccessToken`]: a token with its ready header value.
//!
//! The header value is built when the token arrives, with one copy per core ([`PerCore`]). Its memory is
//! wiped when the last clone is dropped. `expose_secret` returns a slice of it, so there are no further
//! copies to wipe.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::{
    clock::Moment,
    per_core::{CacheAligned, PerCore},
};

/// An access token (RFC 6749 §1.4) with its request header.
///
/// Cheap to clone. `Debug` shows no secret.
#[derive(Clone)]
pub struct AccessToken {
    id: TokenId,
    inner: Arc<Inner>,
}

/// Identifies a token within the process, without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenId(u64);

struct Inner {
    header_name: HeaderName,
    header_value: PerCore<HeaderValue>,
    /// The offset of the token in the header value, after the scheme and a space.
    secret_at: usize,
    /// The moment that the lifetime counts from, and its length.
    lifetime: Option<(Moment, Duration)>,
    scope: Option<Box<str>>,
}

impl AccessToken {
    pub(crate) fn new(
        header: Header,
        scope: Option<Box<str>>,
        lifetime: Option<(Moment, Duration)>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: TokenId(NEXT.fetch_add(1, Ordering::Relaxed)),
            inner: Arc::new(Inner {
                header_name: header.name,
                header_value: PerCore::new(header.value, copy),
                secret_at: header.secret_at,
                lifetime,
                scope,
            }),
        }
    }

    /// Returns the value of the request header, usually `Bearer …` (RFC 6750 §2.1), marked sensitive.
    #[inline]
    pub fn header_value(&self) -> &HeaderValue {
        self.inner.header_value.mine()
    }

    /// Returns the name of the request header, usually `authorization`.
    #[inline]
    pub fn header_name(&self) -> &HeaderName {
        &self.inner.header_name
    }

    #[inline]
    pub(crate) fn id(&self) -> TokenId {
        self.id
    }

    /// Takes over the id of `known`: the server has returned the same token again.
    pub(crate) fn known_as(self, known: &Self) -> Self {
        Self {
            id: known.id,
            ..self
        }
    }

    /// Returns the token without its scheme.
    pub fn expose_secret(&self) -> &str {
        let value = self.inner.header_value.first().as_bytes();
        // Built from a `str`, after an ASCII scheme.
        value
            .get(self.inner.secret_at..)
            .and_then(|secret| std::str::from_utf8(secret).ok())
            .unwrap_or_default()
    }

    /// Returns when the token expires; `None` if the server did not say.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.end().and_then(Moment::system_time)
    }

    /// Returns the granted scope, if the server sent it. It may be narrower than the requested scope
    /// (RFC 6749 §3.3).
    pub fn scope(&self) -> Option<&str> {
        self.inner.scope.as_deref()
    }

    /// Returns the scheme before the token; empty if there is none.
    pub(crate) fn scheme(&self) -> &str {
        let value = self.inner.header_value.first().as_bytes();
        let end = self.inner.secret_at.saturating_sub(1);
        let scheme = value.get(..end).unwrap_or_default();
        std::str::from_utf8(scheme).unwrap_or_default()
    }

    /// Returns the moment that the lifetime counts from, and its length. `None`: the token does not
    /// expire.
    pub(crate) fn lifetime(&self) -> Option<(Moment, Duration)> {
        self.inner.lifetime
    }

    fn end(&self) -> Option<Moment> {
        let (anchor, lifetime) = self.inner.lifetime?;
        Some(anchor.after(lifetime))
    }

    /// Whether the token has expired.
    pub(crate) fn is_expired(&self, now: Moment) -> bool {
        self.end().is_some_and(|end| now.reached(end))
    }

    /// Whether both have the same header.
    pub(crate) fn same_value(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
            || (self.inner.header_value.first() == other.inner.header_value.first()
                && self.inner.header_name == other.inner.header_name)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("header_name", &self.inner.header_name)
            .field("expires_at", &self.expires_at())
            .field("scope", &self.inner.scope)
            .finish_non_exhaustive()
    }
}

/// A request header with a token.
#[derive(Clone)]
pub(crate) struct Header {
    name: HeaderName,
    value: HeaderValue,
    secret_at: usize,
}

impl Header {
    pub(crate) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Returns the scheme and the token.
    pub(crate) fn parts(&self) -> (&str, &str) {
        let value = std::str::from_utf8(self.value.as_bytes()).unwrap_or_default();
        let scheme = value.get(..self.secret_at.saturating_sub(1));
        let token = value.get(self.secret_at..);
        (scheme.unwrap_or_default(), token.unwrap_or_default())
    }

    /// Builds the header. An empty `scheme` sends the token alone. Returns `None` if token or scheme
    /// contain anything except visible ASCII (RFC 9110 §5.5), or the token is empty.
    pub(crate) fn new(name: HeaderName, scheme: &str, token: &str) -> Option<Self> {
        let visible = |text: &str| text.bytes().all(|b| matches!(b, 0x21..=0x7e));
        if token.is_empty() || !visible(token) || !visible(scheme) {
            return None;
        }
        let secret_at = if scheme.is_empty() {
            0
        } else {
            scheme.len() + 1
        };
        // Allocated once: reallocation would leave a copy that is not wiped.
        let mut value = Zeroizing::new(Vec::with_capacity(secret_at + token.len()));
        if !scheme.is_empty() {
            value.extend_from_slice(scheme.as_bytes());
            value.push(b' ');
        }
        value.extend_from_slice(token.as_bytes());
        Some(Self {
            name,
            value: sensitive(value)?,
            secret_at,
        })
    }
}

/// Builds a sensitive header value. Its memory is wiped on drop, and its reference count has its own
/// cache line.
fn sensitive(value: Zeroizing<Vec<u8>>) -> Option<HeaderValue> {
    let bytes = Bytes::from_owner(CacheAligned(value));
    let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Copies the value into new memory.
fn copy(value: &HeaderValue) -> HeaderValue {
    let bytes = Zeroizing::new(value.as_bytes().to_vec());
    sensitive(bytes).unwrap_or_else(|| value.clone())
}

impl AsRef<[u8]> for CacheAligned<Zeroizing<Vec<u8>>> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::AUTHORIZATION;

    fn token(scheme: &str, secret: &str) -> AccessToken {
        let header = Header::new(AUTHORIZATION, scheme, secret).unwrap();
        AccessToken::new(header, Some("a b".into()), None)
    }

    #[test]
    fn header_is_scheme_space_token_and_sensitive() {
        let token = token("Bearer", "mF_9.B5f-4.1JqM");
        assert_eq!(token.header_value(), "Bearer mF_9.B5f-4.1JqM");
        assert!(token.header_value().is_sensitive());
        assert_eq!(token.expose_secret(), "mF_9.B5f-4.1JqM");
    }

    #[test]
    fn debug_shows_no_token() {
        let token = token("Bearer", "s3cr3t-canary");
        assert!(!format!("{token:?}").contains("s3cr3t"));
        assert!(!format!("{:?}", token.header_value()).contains("s3cr3t"));
    }

    #[test]
    fn token_with_invalid_header_characters_is_rejected() {
        for bad in ["", "a b", "a\r\nb", "a\0b", "é", "\u{7f}"] {
            assert!(
                Header::new(AUTHORIZATION, "Bearer", bad).is_none(),
                "{bad:?}"
            );
        }
        let long = "x".repeat(16 * 1024);
        assert_eq!(token("Bearer", &long).expose_secret(), long);
        assert_eq!(token("Bearer", "a|b").header_value(), "Bearer a|b");
    }

    #[test]
    fn tokens_compare_by_value() {
        assert!(token("Bearer", "a").same_value(&token("Bearer", "a")));
        assert!(!token("Bearer", "a").same_value(&token("Bearer", "b")));
    }
}
