//! [`HttpClient`]: what sends token requests.
//!
//! Whatever the client, at most [`MAX_BODY`] bytes of a response are read, and no redirect is followed:
//! a token request carries credentials, and a redirect would send them elsewhere, or turn the POST into
//! a GET (RFC 9110 §15.4).

use std::{error::Error as StdError, fmt, future::Future, io, pin::Pin, sync::Arc};

use bytes::{Buf, Bytes};
use http::{Request, Response, uri::Scheme};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use zeroize::Zeroizing;

use crate::{
    error::{BoxError, Error, ErrorKind, Retry},
    secure_url,
};

/// The longest answer that is read: 1 MiB.
pub const MAX_BODY: usize = 1024 * 1024;

/// What an [`HttpClient`] returns.
pub type HttpFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

/// Sends token requests.
///
/// The default is [`ReqwestClient`](super::ReqwestClient) (feature `reqwest`); [`TowerClient`]
/// makes one of any HTTP service, and you can write your own. An implementation sends the request
/// once, **follows no redirect**, verifies the server's certificate, refuses plain `http` except to
/// loopback, and stops reading at [`MAX_BODY`] bytes.
pub trait HttpClient: Send + Sync + 'static {
    /// Sends one request. Its URI is absolute.
    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_>;

    /// Whether it presents a certificate of the client's to servers that ask for one (RFC 8705).
    /// Then requests go to the endpoints that a server has for such clients (§5), if its metadata
    /// name any; so they do with [`ClientAuth::tls`](crate::ClientAuth::tls). Default: no.
    fn presents_certificate(&self) -> bool {
        false
    }
}

impl<T: HttpClient + ?Sized> HttpClient for Arc<T> {
    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_> {
        (**self).send(request)
    }

    fn presents_certificate(&self) -> bool {
        (**self).presents_certificate()
    }
}

/// Why there was no answer.
///
/// `cause` is shown by `Debug` and by `source()` of the error that callers see: it must not show
/// secrets, nor URLs with a query.
pub struct HttpError {
    failure: Failure,
    cause: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    #[cfg(feature = "reqwest")]
    NoRuntime,
    Connect,
    Timeout,
    Oversized,
    Other,
}

impl HttpError {
    /// No connection: nothing was sent, so that the request may be sent again at once.
    pub fn connect(cause: impl Into<BoxError>) -> Self {
        Self::new(Failure::Connect, cause)
    }

    /// No answer in time.
    pub fn timeout(cause: impl Into<BoxError>) -> Self {
        Self::new(Failure::Timeout, cause)
    }

    /// The answer is longer than [`MAX_BODY`].
    pub fn oversized() -> Self {
        Self::new(Failure::Oversized, "the answer is longer than 1 MiB")
    }

    /// Anything else: the request may have reached the server.
    pub fn other(cause: impl Into<BoxError>) -> Self {
        Self::new(Failure::Other, cause)
    }

    fn new(failure: Failure, cause: impl Into<BoxError>) -> Self {
        Self {
            failure,
            cause: cause.into(),
        }
    }
}

impl HttpError {
    /// Outside a tokio runtime, which the client needs.
    #[cfg(feature = "reqwest")]
    pub(super) fn no_runtime() -> Self {
        Self::new(Failure::NoRuntime, "no tokio runtime")
    }

    /// The error of a request to `endpoint`, which is named for humans.
    pub(crate) fn into_error(self, endpoint: &str) -> Error {
        let (kind, retry, message) = match self.failure {
            #[cfg(feature = "reqwest")]
            Failure::NoRuntime => return Error::no_runtime(),
            Failure::Connect => (
                ErrorKind::Connect,
                Retry::Soon,
                format!("no connection to {endpoint}"),
            ),
            Failure::Timeout => (
                ErrorKind::Timeout,
                Retry::Later,
                format!("no answer in time from {endpoint}"),
            ),
            Failure::Oversized => (
                ErrorKind::InvalidResponse,
                Retry::Later,
                format!("an answer longer than 1 MiB from {endpoint}"),
            ),
            Failure::Other => (
                ErrorKind::Transport,
                Retry::Later,
                format!("the connection failed to {endpoint}"),
            ),
        };
        Error::build(kind, retry, message)
            .caused_by(self.cause)
            .done()
    }
}

/// For sources of your own that send requests over HTTP.
impl From<HttpError> for Error {
    fn from(error: HttpError) -> Self {
        error.into_error("the token endpoint")
    }
}

impl fmt::Debug for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpError")
            .field("failure", &self.failure)
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.failure {
            #[cfg(feature = "reqwest")]
            Failure::NoRuntime => "no tokio runtime",
            Failure::Connect => "could not connect",
            Failure::Timeout => "no answer in time",
            Failure::Oversized => "the answer is too long",
            Failure::Other => "the connection failed",
        })
    }
}

impl StdError for HttpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// A token request has secrets in it: over plain `http` it goes to this machine alone.
pub(crate) fn refuse_plaintext(request: &Request<Bytes>) -> Result<(), HttpError> {
    let uri = request.uri();
    let loopback = uri.host().is_some_and(secure_url::is_loopback_host);
    if uri.scheme() == Some(&Scheme::HTTPS) || loopback {
        return Ok(());
    }
    let cause = "plain http to another machine is refused";
    Err(HttpError::other(cause))
}

/// Reads a body up to the cap, into memory that is wiped: it may hold tokens.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, HttpError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(Limited::new(body, MAX_BODY));
    let mut read = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                HttpError::oversized()
            } else {
                broken_off(error)
            }
        })?;
        if let Ok(mut data) = frame.into_data() {
            while data.has_remaining() {
                let chunk = data.chunk();
                extend(&mut read, chunk);
                let length = chunk.len();
                data.advance(length);
            }
        }
    }
    Ok(Bytes::from_owner(read))
}

/// Grows by copying into fresh memory, so that the old is wiped too.
fn extend(read: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if read.capacity() - read.len() < chunk.len() {
        let capacity = (read.len() + chunk.len()).next_power_of_two();
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(read);
        *read = larger;
    }
    read.extend_from_slice(chunk);
}

/// An answer has begun: whatever its end is called, the request had arrived.
fn broken_off(error: BoxError) -> HttpError {
    let mut error = by_cause(error);
    if error.failure == Failure::Connect {
        error.failure = Failure::Other;
    }
    error
}

/// What the service says itself counts; else, a refused connection is found however deep the error
/// wraps it.
pub(super) fn by_cause(error: BoxError) -> HttpError {
    let error = match error.downcast::<HttpError>() {
        Ok(said) => return *said,
        Err(error) => error,
    };
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&*error);
    while let Some(error_) = cause {
        if let Some(io) = error_.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return HttpError::connect(error),
                io::ErrorKind::TimedOut => return HttpError::timeout(error),
                _ => {}
            }
        }
        #[cfg(feature = "reqwest")]
        if let Some(reqwest) = error_.downcast_ref::<reqwest::Error>()
            && reqwest.is_timeout()
        {
            return HttpError::timeout(error);
        }
        cause = error_.source();
    }
    HttpError::other(error)
}
