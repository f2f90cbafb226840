//! [`TokenResponse`]: the token that a source returns to the cache.

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

/// The token that a [`TokenSource`](crate::TokenSource) returns, with its metadata.
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

/// The expiry of a token, in the form that the source knows it.
#[derive(Clone, Copy, Debug)]
enum Expiry {
    Unknown,
    In(Duration),
    At(SystemTime),
}

impl TokenResponse {
    /// Returns a builder for a response with this token. Defaults to `Authorization: Bearer …` and an
    /// unknown lifetime.
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

    /// Returns the lifetime, counted from the token request (`expires_in`, RFC 6749 §5.1), if it is
    /// known.
    pub fn expires_in(&self) -> Option<Duration> {
        match self.expiry {
            Expiry::In(lifetime) => Some(lifetime),
            Expiry::Unknown | Expiry::At(_) => None,
        }
    }

    /// Returns the granted scope, if the server sent it.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the refresh token (RFC 6749 §1.5), if there is one.
    pub fn refresh_token(&self) -> Option<&SecretString> {
        self.refresh_token.as_ref()
    }

    /// Returns the header name, the scheme, and the token.
    pub(crate) fn header(&self) -> (&HeaderName, &str, &str) {
        let (scheme, token) = self.header.parts();
        (self.header.name(), scheme, token)
    }

    /// Returns the moment that the lifetime counts from, and its length; `None` if it is unknown. Only
    /// this function decides it. `requested_at` is when the source was called, `now` when it returned.
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

    /// Returns the token with its lifetime. An unknown lifetime is `default_lifetime`; without that, the
    /// token does not expire.
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

/// Builds a [`TokenResponse`]: see [`TokenResponse::builder`].
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
    /// Sets the lifetime, counted from the token request (`expires_in`, RFC 6749 §5.1). Defaults to
    /// unknown: the token is used until the API rejects it.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expiry = Expiry::In(lifetime);
        self
    }

    /// Sets the time at which the token expires, by the wall clock. Replaces
    /// [`expires_in`](Self::expires_in).
    pub fn expires_at(mut self, end: SystemTime) -> Self {
        self.expiry = Expiry::At(end);
        self
    }

    /// Sets the time since the token request, from which [`expires_in`](Self::expires_in) counts. Use
    /// it in a source that returns stored tokens, or that waits before its request. By default, the
    /// lifetime counts from the call of the source.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Sets the granted scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into().into_boxed_str());
        self
    }

    /// Sets the authentication scheme before the token; if empty, the token is sent alone. Defaults to
    /// `Bearer`.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into().into_boxed_str();
        self
    }

    /// Sets the name of the request header. Defaults to `Authorization`.
    ///
    /// **A client that follows redirects, such as reqwest, sends any other header to every redirect
    /// target.** Set [`redirect_policy`](crate::BearerAuthLayer::redirect_policy), or disable redirects.
    ///
    /// Until the first token arrives, a request with the caller's own `Authorization` gets no token:
    /// call [`prefetch`](crate::TokenCache::prefetch) first.
    pub fn header_name(mut self, name: HeaderName) -> Self {
        self.header_name = name;
        self
    }

    /// Sets the refresh token (RFC 6749 §1.5).
    pub fn refresh_token(mut self, refresh_token: impl Into<SecretString>) -> Self {
        self.refresh_token = Some(refresh_token.into());
        self
    }

    /// Builds the response.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidResponse`] if the token is empty, or if token or scheme contain anything
    /// except visible ASCII, which a header cannot have.
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
                "the access token is empty, or contains characters not allowed in a header",
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
