//! Errors: [`ConfigError`] before any I/O, [`Error`] at run time.
//!
//! Invariant: neither `Display` nor `Debug` of an error shows a secret or text of a response body,
//! except the OAuth error *code*, which is checked and bounded.

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::task::JoinError;

use crate::work_counter::looked_at;

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error of a token request, or of a request that could not be sent with a token.
///
/// Cheap to clone: every caller that waited for the same token request gets the same error.
/// [`kind`](Self::kind) is its category, [`is_retryable`](Self::is_retryable) tells transient errors
/// from permanent ones, and [`retry_after`](Self::retry_after) says when the cache retries.
///
/// `Display` is safe to log. So is `Debug`, unless a source of your own puts secrets into its errors:
/// `Debug` shows the cause. [`oauth_error`](Self::oauth_error) has the server's description, and
/// `source()` the cause.
///
/// A tower stack returns it in [`ServiceError::Token`](crate::ServiceError::Token), and
/// reqwest-middleware in `reqwest_middleware::Error::Middleware`: use
/// `downcast_ref::<bearer_auth::Error>()` there.
///
/// ```
/// use bearer_auth::{Error, OAuthErrorCode};
///
/// fn advice(error: &Error) -> String {
///     match error.oauth_error().map(|oauth| oauth.code()) {
///         Some(OAuthErrorCode::InvalidClient) => "check the client's id and secret".to_owned(),
///         Some(OAuthErrorCode::InvalidScope) => "check the requested scope".to_owned(),
///         _ if error.is_retryable() => format!("retry in {:?}", error.retry_after()),
///         _ => format!("permanent error: {error}"),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
    retry_after: Option<Duration>,
}

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    retry: Retry,
    /// The server's `Retry-After`.
    server_wait: Option<Duration>,
    status: Option<StatusCode>,
    oauth: Option<OAuthError>,
    source: Option<BoxError>,
}

/// The category of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection to the authorization server could not be established: nothing was sent.
    Connect,
    /// The connection to the authorization server failed after the request may have been sent.
    Transport,
    /// The token request timed out.
    Timeout,
    /// The server returned an OAuth error code (RFC 6749 §5.2): see [`Error::oauth_error`].
    OAuth,
    /// The server returned an unexpected HTTP status, and no OAuth error code.
    Status,
    /// The server's response is not a token response (RFC 6749 §5.1).
    InvalidResponse,
    /// The client cannot use tokens of this type (RFC 6749 §7.1).
    UnsupportedTokenType,
    /// The server's metadata (RFC 8414) could not be fetched, or is unusable: see
    /// [`Issuer`](crate::Issuer).
    Discovery,
    /// A [`TokenSource`](crate::TokenSource) of your own failed.
    Source,
    /// The sign-in failed: the server refused it, or the callback is not the server's response.
    SignIn,
    /// The session has ended, or there is none: the user has to sign in.
    SignInRequired,
    /// The token request ended without a result: its runtime was shut down, or the source panicked.
    Interrupted,
    /// There is no tokio runtime to run the token request on.
    NoRuntime,
    /// The request's target may not get a token: plain `http`, or a URI without a host.
    Target,
    /// The request's body could not be buffered.
    RequestBody,
}

/// When to retry a failed token request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Within the same flight: nothing was sent, or the server's status invites a retry.
    Soon,
    /// After a backoff.
    Later,
    /// Permanent error: not until an operator or a user has acted.
    Never,
}

impl Error {
    /// Returns a retryable error for a [`TokenSource`](crate::TokenSource) of your own: the cache
    /// retries after the usual backoff. `source()` returns `cause`. `Display` does not show it, since
    /// it may contain secrets.
    pub fn from_source(cause: impl Into<BoxError>) -> Self {
        Self::build(ErrorKind::Source, Retry::Later, "the token source failed")
            .caused_by(cause)
            .done()
    }

    /// Like [`from_source`](Self::from_source), for a permanent error (a revoked credential, for
    /// example): the cache retries after five minutes.
    pub fn from_source_permanent(cause: impl Into<BoxError>) -> Self {
        Self::build(ErrorKind::Source, Retry::Never, "the token source failed")
            .caused_by(cause)
            .done()
    }

    /// Like [`from_source`](Self::from_source), for a server that sent `Retry-After`: the cache
    /// retries after `wait` (10 minutes at most), or after its backoff if that is longer.
    pub fn from_source_retry_after(cause: impl Into<BoxError>, wait: Duration) -> Self {
        Self::build(ErrorKind::Source, Retry::Later, "the token source failed")
            .caused_by(cause)
            .server_wait(Some(wait))
            .done()
    }

    pub(crate) fn build(
        kind: ErrorKind,
        retry: Retry,
        message: impl Into<Cow<'static, str>>,
    ) -> ErrorBuilder {
        ErrorBuilder(Inner {
            kind,
            message: message.into(),
            retry,
            server_wait: None,
            status: None,
            oauth: None,
            source: None,
        })
    }

    pub(crate) fn no_runtime() -> Self {
        Self::build(
            ErrorKind::NoRuntime,
            Retry::Later,
            "no tokio runtime: call from within one, or set the one of a cache \
             with `TokenCache::builder(…).runtime(…)`",
        )
        .done()
    }

    /// Returns the category of the error.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns whether the same call can succeed later, without a change.
    ///
    /// `false` for a permanent error: wrong credentials, an unknown scope, a refused target.
    pub fn is_retryable(&self) -> bool {
        self.inner.retry != Retry::Never
    }

    /// Returns how long, from the return of this error, until the cache retries. Until then, calls
    /// return the same error at once.
    ///
    /// Without a cache, it is the server's `Retry-After` (RFC 9110 §10.2.3), if there was one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after.or(self.inner.server_wait)
    }

    /// Returns the OAuth error (RFC 6749 §5.2) of the response, if there was one.
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        self.inner.oauth.as_ref()
    }

    /// Returns the HTTP status of the response, if that status is the reason for the error.
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    pub(crate) fn retry(&self) -> Retry {
        self.inner.retry
    }

    pub(crate) fn server_wait(&self) -> Option<Duration> {
        self.inner.server_wait
    }

    pub(crate) fn with_retry_after(&self, wait: Duration) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            retry_after: Some(wait),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(oauth) = &self.inner.oauth {
            write!(f, ": {}", oauth.code)?;
        }
        if let Some(status) = self.inner.status {
            write!(f, " (HTTP {})", status.as_u16())?;
        }
        if let Some(wait) = self.retry_after {
            write!(
                f,
                "; the next attempt is in {} s",
                wait.as_secs_f32().ceil()
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("retry", &self.inner.retry)
            .field("retry_after", &self.retry_after())
            .field("status", &self.inner.status)
            .field("oauth", &self.inner.oauth)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

pub(crate) struct ErrorBuilder(Inner);

impl ErrorBuilder {
    /// Sets the cause. `Debug` prints it, so it must not contain a part of a response, or a URL with a
    /// query.
    pub(crate) fn caused_by(mut self, cause: impl Into<BoxError>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// Sets a failed task as the cause, without the message of a panic, which may contain secrets.
    pub(crate) fn interrupted_by(self, cause: JoinError) -> Self {
        self.caused_by(io::Error::from(cause))
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn oauth(mut self, oauth: OAuthError) -> Self {
        self.0.oauth = Some(oauth);
        self
    }

    pub(crate) fn server_wait(mut self, wait: Option<Duration>) -> Self {
        self.0.server_wait = wait;
        self
    }

    pub(crate) fn done(self) -> Error {
        Error {
            inner: Arc::new(self.0),
            retry_after: None,
        }
    }
}

/// An error response of the token endpoint (RFC 6749 §5.2).
///
/// `Debug` shows only the code: the description may repeat parts of the request.
#[derive(Clone, PartialEq, Eq)]
pub struct OAuthError {
    code: OAuthErrorCode,
    description: Option<String>,
    uri: Option<String>,
}

impl OAuthError {
    /// Removes control characters from the texts, so that they cannot control a terminal.
    pub(crate) fn new(code: &str, description: Option<&str>, uri: Option<&str>) -> Self {
        let clean = |text: &str| {
            looked_at(text.len());
            text.chars().filter(|c| !c.is_control()).collect()
        };
        Self {
            code: OAuthErrorCode::parse(code),
            description: description.map(clean),
            uri: uri.map(clean),
        }
    }

    /// Returns the `error` code.
    pub fn code(&self) -> &OAuthErrorCode {
        &self.code
    }

    /// Returns `error_description`, without control characters. It may repeat secrets of the request:
    /// log it with care.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Returns `error_uri`, without control characters. It may be an invalid URI.
    pub fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }
}

impl fmt::Debug for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthError")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// An OAuth error code (RFC 6749 §5.2, and its registry).
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OAuthErrorCode {
            $($(#[$doc])* $variant,)*
            /// Any other code of at most 64 characters of `A-Z a-z 0-9 - . _`.
            Other(String),
            /// An invalid code: not a string, empty, too long, or with other characters.
            Malformed,
        }

        impl OAuthErrorCode {
            /// Returns the code as sent by the server; `(malformed)` for [`Malformed`](Self::Malformed).
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(code) => code,
                    Self::Malformed => "(malformed)",
                }
            }

            fn known(code: &str) -> Option<Self> {
                match code {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// RFC 6749 §5.2.
    InvalidRequest = "invalid_request",
    /// RFC 6749 §5.2: unknown client, or wrong credentials.
    InvalidClient = "invalid_client",
    /// RFC 6749 §5.2: the grant (code, refresh token, assertion) is invalid, expired or revoked.
    InvalidGrant = "invalid_grant",
    /// RFC 6749 §5.2: this client may not use this grant type.
    UnauthorizedClient = "unauthorized_client",
    /// RFC 6749 §5.2.
    UnsupportedGrantType = "unsupported_grant_type",
    /// RFC 6749 §5.2.
    InvalidScope = "invalid_scope",
    /// RFC 7009 §2.2.1: the server does not revoke tokens of this kind.
    UnsupportedTokenType = "unsupported_token_type",
    /// RFC 8707 §2: the `resource` or `audience` is not accepted.
    InvalidTarget = "invalid_target",
    /// RFC 6749 §4.1.2.1.
    AccessDenied = "access_denied",
    /// RFC 6749 §4.1.2.1, used by token endpoints as well.
    ServerError = "server_error",
    /// RFC 6749 §4.1.2.1, used by token endpoints as well.
    TemporarilyUnavailable = "temporarily_unavailable",
    /// RFC 9449 §8.
    UseDpopNonce = "use_dpop_nonce",
}

impl OAuthErrorCode {
    pub(crate) fn parse(code: &str) -> Self {
        const MAX_LENGTH: usize = 64;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        Self::known(code).unwrap_or_else(|| {
            if !code.is_empty() && code.len() <= MAX_LENGTH && code.bytes().all(plain) {
                Self::Other(code.to_owned())
            } else {
                Self::Malformed
            }
        })
    }
}

impl fmt::Display for OAuthErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An invalid configuration, reported before any I/O.
///
/// `Display` names the setting and the remedy, and shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    field: &'static str,
    problem: Cow<'static, str>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }

    /// Returns the name of the invalid setting.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for ConfigError {}
