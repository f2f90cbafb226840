//! [`TokenResponse`]: what a source hands to the cache.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderName, header};
use secrecy::{ExposeSecret, SecretString};

use super::access_token::{AccessToken, Header};
use crate::{
    clock::{Moment, nanos},
    error::{Error, ErrorKind, Retry},
    session::store::Access,
};

/// A token as it came from its [`TokenSource`](crate::TokenSource).
///
/// `Debug` shows no secret.
#[derive(Clone)]
pub struct TokenResponse {
    header: Header,
    expiry: Expiry,
    age: Option<Duration>,
    scope: Option<Box<str>>,
    refresh_token: Option<SecretString>,
}

/// How a source says when its token ends.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    Unknown,
    In(Duration),
    At(SystemTime),
}

impl TokenResponse {
    /// Starts with the token. Unless told otherwise it goes as `Authorization: Bearer …` and its
    /// end is unknown.
    pub fn builder(access_token: impl Into<SecretString>) -> TokenResponseBuilder {
        TokenResponseBuilder {
            access_token: access_token.into(),
            header_name: header::AUTHORIZATION,
            scheme: Box::from("Bearer"),
            expiry: Expiry::Unknown,
            age: None,
            scope: None,
            refresh_token: None,
        }
    }

    /// How long the token lives from when it was asked for (`expires_in`, RFC 6749 §5.1), if the
    /// source said so.
    pub fn expires_in(&self) -> Option<Duration> {
        match self.expiry {
            Expiry::In(lifetime) => Some(lifetime),
            Expiry::Unknown | Expiry::At(_) => None,
        }
    }

    /// The scope that was granted, if the server said so.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The refresh token (RFC 6749 §1.5) that came with it.
    pub fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref()
    }

    /// The header, the scheme in front of the token, and the token.
    #[cfg(feature = "redis")]
    pub(crate) fn header(&self) -> (&HeaderName, &str, &str) {
        let (scheme, token) = self.header.parts();
        (self.header.name(), scheme, token)
    }

    /// Its whole lifetime, and what is left of it at `now`; asked for at `asked_at`.
    #[cfg(feature = "redis")]
    pub(crate) fn life(
        &self,
        asked_at: Moment,
        now: Moment,
    ) -> (Option<Duration>, Option<Duration>) {
        let anchor = self.age.map_or(asked_at, |age| now.before(age));
        match self.expiry {
            Expiry::Unknown => (None, None),
            Expiry::In(lifetime) => {
                let lifetime = lifetime.min(LONGEST_LIFETIME);
                (Some(lifetime), Some(now.until(anchor.after(lifetime))))
            }
            Expiry::At(end) => {
                let end = end
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                let left = Duration::from_nanos(nanos(end).saturating_sub(now.wall));
                (Some(left), Some(left))
            }
        }
    }

    /// What a session keeps of it. `now`: when it was asked for, or a moment later.
    pub(crate) fn access(&self, now: SystemTime) -> Access {
        let expires_at = match self.expiry {
            Expiry::Unknown => None,
            Expiry::In(lifetime) => now.checked_add(lifetime.min(LONGEST_LIFETIME)),
            Expiry::At(end) => Some(end),
        };
        let (scheme, token) = self.header.parts();
        Access {
            token: token.into(),
            scheme: scheme.to_owned(),
            expires_at,
            since: now,
            scope: self.scope.as_deref().map(str::to_owned),
        }
    }

    /// The token and its lifetime: anchor and length, or `None` for a token that never ends by
    /// itself. `asked_at` is when the source was asked, `now` when it answered.
    pub(crate) fn arrive(
        self,
        asked_at: Moment,
        now: Moment,
        default_lifetime: Option<Duration>,
    ) -> Arrived {
        let anchor = match self.age {
            Some(age) => now.before(age),
            None => asked_at,
        };
        let lifetime = match self.expiry {
            Expiry::In(lifetime) => Some((anchor, lifetime)),
            Expiry::Unknown => default_lifetime.map(|lifetime| (anchor, lifetime)),
            Expiry::At(end) => {
                let end = end
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                let left = Duration::from_nanos(nanos(end).saturating_sub(now.wall));
                Some((now, left))
            }
        }
        .map(|(anchor, lifetime)| (anchor, lifetime.min(LONGEST_LIFETIME)));
        let expires_at = lifetime.map(|(anchor, lifetime)| anchor.after(lifetime));
        Arrived {
            token: AccessToken::new(self.header, self.scope, expires_at),
            lifetime,
        }
    }
}

/// A century: enough for anybody, and no sum with it overflows.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// See [`TokenResponse::arrive`].
pub(crate) struct Arrived {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Option<(Moment, Duration)>,
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("expiry", &self.expiry)
            .field("scope", &self.scope)
            .field("refresh_token", &self.refresh_token)
            .finish_non_exhaustive()
    }
}

/// See [`TokenResponse::builder`].
#[derive(Debug)]
pub struct TokenResponseBuilder {
    access_token: SecretString,
    header_name: HeaderName,
    scheme: Box<str>,
    expiry: Expiry,
    age: Option<Duration>,
    scope: Option<Box<str>>,
    refresh_token: Option<SecretString>,
}

impl TokenResponseBuilder {
    /// The token lives this long from when the source was asked (`expires_in`, RFC 6749 §5.1).
    /// Default: unknown; it is used until the API refuses it.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Expiry::In(lifetime);
        self
    }

    /// The token ends at this time of the wall clock.
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Expiry::At(end);
        self
    }

    /// The token was asked for this long ago: for sources that hand out what they have, or that
    /// waited before they asked. [`expires_in`](Self::expires_in) counts from then. Default: it
    /// counts from when the source was called.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// The scope that was granted.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into().into_boxed_str());
        self
    }

    /// The authentication scheme in front of the token. Default: `Bearer`. Empty: the token alone.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into().into_boxed_str();
        self
    }

    /// The request header that carries the token. Default: `Authorization`.
    ///
    /// **A client that follows redirects by itself, as reqwest does, sends any other header to every
    /// host that it is led to.** Give it
    /// [`redirect_policy`](crate::BearerAuthLayer::redirect_policy), or no redirects at all.
    ///
    /// Until the first token has come, requests whose caller has set `Authorization` are taken to
    /// need none: [`prefetch`](crate::TokenCache::prefetch) helps.
    pub fn header_name(mut self, name: HeaderName) -> Self {
        self.header_name = name;
        self
    }

    /// The refresh token (RFC 6749 §1.5) that came with it.
    pub fn refresh_token(mut self, refresh_token: impl Into<SecretString>) -> Self {
        self.refresh_token = Some(refresh_token.into());
        self
    }

    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] for a token, or a scheme, that cannot stand in a header:
    /// empty, or with anything but visible ASCII.
    pub fn build(self) -> Result<TokenResponse, Error> {
        let header = Header::new(
            self.header_name,
            &self.scheme,
            self.access_token.expose_secret(),
        )
        .ok_or_else(|| {
            Error::build(
                ErrorKind::InvalidResponse,
                Retry::Later,
                "the access token is empty or cannot stand in a header",
            )
            .done()
        })?;
        Ok(TokenResponse {
            header,
            expiry: self.expiry,
            age: self.age,
            scope: self.scope,
            refresh_token: self.refresh_token,
        })
    }
}
