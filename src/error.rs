//! What can go wrong: [`ConfigError`] before any I/O, [`Error`] at run time.
//!
//! Invariant: neither `Display` nor `Debug` of an error shows a secret or any text of a response
//! body. The one thing of a response that is shown is the OAuth error *code*, checked and bounded.

use std::{borrow::Cow, fmt, io, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::task::JoinError;

use crate::work_counter::looked_at;

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no token, or why a request was not sent with one.
///
/// Cheap to clone: every caller that waited for the same token request gets the same error.
/// [`kind`](Self::kind) says what happened, [`is_retryable`](Self::is_retryable) whether the same
/// call can succeed later without anybody changing anything, and
/// [`retry_after`](Self::retry_after) when the cache asks again.
///
/// `Display` is safe to log, and `Debug` is as well unless a source of your own puts secrets into
/// its errors: it shows the cause. The server's own words are behind
/// [`oauth_error`](Self::oauth_error), what happened underneath behind `source()`.
///
/// Through a tower stack it arrives in a [`ServiceError::Token`](crate::ServiceError::Token),
/// through reqwest-middleware in a `reqwest_middleware::Error::Middleware`, from which
/// `downcast_ref::<bearer_auth::Error>()` takes it.
///
/// ```
/// use bearer_auth::{Error, OAuthErrorCode};
///
/// fn advice(error: &Error) -> String {
///     match error.oauth_error().map(|oauth| oauth.code()) {
///         Some(OAuthErrorCode::InvalidClient) => "check the client's id and secret".to_owned(),
///         Some(OAuthErrorCode::InvalidScope) => "ask for another scope".to_owned(),
///         _ if error.is_retryable() => format!("again in {:?}", error.retry_after()),
///         _ => format!("somebody has to look: {error}"),
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

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection to the authorization server: nothing was sent.
    Connect,
    /// The connection to the authorization server failed after the request may have been sent.
    Transport,
    /// The token request took too long.
    Timeout,
    /// The server answered with an OAuth error code (RFC 6749 §5.2): see [`Error::oauth_error`].
    OAuth,
    /// The server answered with an unexpected HTTP status and no OAuth error code.
    Status,
    /// The server's answer is not a token response (RFC 6749 §5.1).
    InvalidResponse,
    /// The token's type is not one that this client can use (RFC 6749 §7.1).
    UnsupportedTokenType,
    /// The server's metadata (RFC 8414) cannot be had, or are of no use: see
    /// [`Issuer`](crate::Issuer).
    Discovery,
    /// A [`TokenSource`](crate::TokenSource) of the caller's own failed.
    Source,
    /// A login failed: the server refused it, or what came back is not its answer.
    SignIn,
    /// The session is over, and nothing but the user can begin another: sign in again.
    SignInRequired,
    /// The token request ended without a result: its runtime was shut down, or the source panicked.
    Interrupted,
    /// There is no tokio runtime to run the token request on.
    NoRuntime,
    /// The request's target may not get a token: plain `http`, or a URI that names no host.
    Target,
    /// The request's body could not be buffered.
    RequestBody,
}

/// When the same token request makes sense again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// At once, within the same flight: nothing was sent, or the server says so.
    Soon,
    /// After a backoff.
    Later,
    /// Not before somebody changed something.
    Never,
}

impl Error {
    /// The error of a [`TokenSource`](crate::TokenSource) of your own: retryable, after the usual
    /// backoff. `cause` is what `source()` returns; `Display` does not show it, since nobody knows
    /// what is in it.
    pub fn from_source(cause: impl Into<BoxError>) -> Self {
        Self::build(ErrorKind::Source, Retry::Later, "the token source failed")
            .caused_by(cause)
            .done()
    }

    /// As [`from_source`](Self::from_source), for a failure that stays until somebody changes
    /// something (a revoked credential, say): the cache asks again after five minutes.
    pub fn from_source_permanent(cause: impl Into<BoxError>) -> Self {
        Self::build(ErrorKind::Source, Retry::Never, "the token source failed")
            .caused_by(cause)
            .done()
    }

    /// As [`from_source`](Self::from_source), for a server that said when to come back: the cache
    /// asks again after `wait` (10 minutes at most), or after its backoff if that is longer.
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
            "no tokio runtime to fetch a token on: call from within one, \
             or give the cache a handle with `TokenCache::builder(…).runtime(…)`",
        )
        .done()
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the same call can succeed later without anybody changing anything.
    ///
    /// `false` for what a human has to mend: wrong credentials, an unknown scope, a refused target.
    pub fn is_retryable(&self) -> bool {
        self.inner.retry != Retry::Never
    }

    /// How long, from when this error was returned, until the cache asks the server again. Calls
    /// before then return the same error at once.
    ///
    /// For an error that did not come through a cache, the server's `Retry-After` (RFC 9110
    /// §10.2.3), if it sent one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after.or(self.inner.server_wait)
    }

    /// The OAuth error (RFC 6749 §5.2) of the answer, if it had one.
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        self.inner.oauth.as_ref()
    }

    /// The HTTP status of the answer, if there was one and it is what failed.
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
    /// `cause` must show nothing of a response and no URL with a query: `Debug` prints it.
    pub(crate) fn caused_by(mut self, cause: impl Into<BoxError>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// By what became of a task, without the words of a panic: they are those of somebody else's
    /// code, and may show anything.
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

/// The error part of an answer of the token endpoint (RFC 6749 §5.2).
///
/// `Debug` shows the code alone: the description may repeat what was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct OAuthError {
    code: OAuthErrorCode,
    description: Option<String>,
    uri: Option<String>,
}

impl OAuthError {
    /// Control characters are taken out of the texts, so that they cannot drive a terminal.
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

    /// The `error` code.
    pub fn code(&self) -> &OAuthErrorCode {
        &self.code
    }

    /// `error_description`, without control characters. It may repeat what was sent: think before
    /// you log it.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// `error_uri`, without control characters, not checked to be a URI.
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
        /// An OAuth error code (RFC 6749 §5.2 and the registry it opened).
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum OAuthErrorCode {
            $($(#[$doc])* $variant,)*
            /// Any other code, when it is at most 64 characters of `A-Z a-z 0-9 - . _`.
            Other(String),
            /// An `error` that is no code: not a string, empty, too long, or with other characters.
            Malformed,
        }

        impl OAuthErrorCode {
            /// The code as it stands on the wire; `(malformed)` for [`Malformed`](Self::Malformed).
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
    /// RFC 6749 §5.2: the grant (code, refresh token, assertion) is not or no longer good.
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
        const LONGEST: usize = 64;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        Self::known(code).unwrap_or_else(|| {
            if !code.is_empty() && code.len() <= LONGEST && code.bytes().all(plain) {
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

/// A configuration that cannot work, found before any I/O.
///
/// `Display` names the field and the remedy, and never a secret.
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

    /// The setting that is wrong.
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
