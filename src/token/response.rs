//! [`TokenResponse`]: what a source hands to the cache.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderName, header};
use secrecy::{ExposeSecret, SecretString};

use super::{
    access_token::{AccessToken, Header},
    lifetime::MAX_LIFETIME,
};
use crate::{
    clock::{Moment, nanos},
    error::{Error, ErrorKind, Retry},
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

    /// Returns the header, the scheme in front of the token, and the token.
    pub(crate) fn header(&self) -> (&HeaderName, &str, &str) {
        let (scheme, token) = self.header.parts();
        (self.header.name(), scheme, token)
    }

    /// Returns the lifetime: the moment it counts from, and its length; `None` if it is unknown.
    /// This is the one place that decides it. `requested_at` is when the source was called, `now`
    /// when it answered.
    pub(crate) fn lifetime(&self, requested_at: Moment, now: Moment) -> Option<(Moment, Duration)> {
        let (anchor, lifetime) = match self.expiry {
            Expiry::Unknown => return None,
            Expiry::In(lifetime) => (self.anchor(requested_at, now), lifetime),
            Expiry::At(end) => {
                let end = end
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                let left = Duration::from_nanos(nanos(end).saturating_sub(now.wall));
                (now, left)
            }
        };
        Some((anchor, lifetime.min(MAX_LIFETIME)))
    }

    fn anchor(&self, requested_at: Moment, now: Moment) -> Moment {
        self.age.map_or(requested_at, |age| now.before(age))
    }

    /// Returns the token with its lifetime. `default_lifetime` is that of a token whose lifetime is
    /// unknown; without it such a token does not expire.
    pub(crate) fn into_token(
        self,
        requested_at: Moment,
        now: Moment,
        default_lifetime: Option<Duration>,
    ) -> AccessToken {
        let lifetime = self.lifetime(requested_at, now).or_else(|| {
            let lifetime = default_lifetime?.min(MAX_LIFETIME);
            Some((self.anchor(requested_at, now), lifetime))
        });
        AccessToken::new(self.header, self.scope, lifetime)
    }
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
