//! [`HttpClient`]: the trait of HTTP clients for token requests.
//!
//! Every client reads at most [`MAX_BODY`] bytes of a response and follows no redirect. A redirect would
//! send the credentials elsewhere, or turn the POST into a GET (RFC 9110 §15.4).

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

/// The maximum length of a response body: 1 MiB.
pub const MAX_BODY: usize = 1024 * 1024;

/// Sends token requests.
///
/// The default is [`ReqwestClient`](super::ReqwestClient) (feature `reqwest`).
/// [`TowerClient`](super::TowerClient) wraps any HTTP service. Your own implementation must
///
/// - send the request once and **follow no redirect**,
/// - verify the server's certificate,
/// - refuse plain `http` except to loopback,
/// - stop reading at [`MAX_BODY`] bytes.
///
/// A client that counts the requests of another one:
///
/// ```
/// # #[cfg(feature = "reqwest")] {
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use bearer_auth::endpoint::{HttpClient, HttpError, ReqwestClient};
/// use bytes::Bytes;
/// use http::{Request, Response};
///
/// struct Counting {
///     http: ReqwestClient,
///     requests: AtomicUsize,
/// }
///
/// impl HttpClient for Counting {
///     async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
///         self.requests.fetch_add(1, Ordering::Relaxed);
///         self.http.send(request).await
///     }
/// }
/// # }
/// ```
pub trait HttpClient: Send + Sync + 'static {
    /// Sends one request. Its URI is absolute.
    ///
    /// # Errors
    ///
    /// No response arrived. The [`HttpError`] records whether the request may have reached the server.
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<Bytes>, HttpError>> + Send;

    /// Returns whether this client presents a TLS client certificate (RFC 8705). If so, or with
    /// [`ClientAuth::tls`](crate::ClientAuth::tls), requests go to the `mtls_endpoint_aliases` of the
    /// metadata (§5), if there are any. Defaults to `false`.
    fn presents_certificate(&self) -> bool {
        false
    }
}

impl<T: HttpClient> HttpClient for Arc<T> {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        (**self).send(request).await
    }

    fn presents_certificate(&self) -> bool {
        (**self).presents_certificate()
    }
}

/// [`HttpClient`] as a trait object.
pub(crate) trait DynHttpClient: Send + Sync {
    fn send_boxed(&self, request: Request<Bytes>) -> SendFuture<'_>;

    fn presents_certificate(&self) -> bool;
}

type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl<T: HttpClient> DynHttpClient for T {
    fn send_boxed(&self, request: Request<Bytes>) -> SendFuture<'_> {
        Box::pin(self.send(request))
    }

    fn presents_certificate(&self) -> bool {
        HttpClient::presents_certificate(self)
    }
}

/// An error of an HTTP request: there is no response.
///
/// `Debug` and `source()` of the error that callers see show the `cause`. It must not contain secrets
/// or URLs with a query.
pub struct HttpError {
    failure: Failure,
    cause: BoxError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    NoRuntime,
    Connect,
    Timeout,
    Oversized,
    Other,
}

impl HttpError {
    /// Creates the error of a failed connection. Nothing was sent, so the request is retried at once.
    pub fn connect(cause: impl Into<BoxError>) -> Self {
        Self::new(Failure::Connect, cause)
    }

    /// Creates the error of a timeout.
    pub fn timeout(cause: impl Into<BoxError>) -> Self {
        Self::new(Failure::Timeout, cause)
    }

    /// Creates the error of a response longer than [`MAX_BODY`].
    pub fn oversized() -> Self {
        Self::new(Failure::Oversized, "the response is longer than 1 MiB")
    }

    /// Creates any other error: the request may have reached the server.
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
    /// The client needs a tokio runtime, and was called outside one.
    pub(super) fn no_runtime() -> Self {
        Self::new(Failure::NoRuntime, "no tokio runtime")
    }

    /// Converts into the error of a request to `endpoint`, its name in the text.
    pub(crate) fn into_error(self, endpoint: &str) -> Error {
        let (kind, retry, message) = match self.failure {
            Failure::NoRuntime => return Error::no_runtime(),
            Failure::Connect => (
                ErrorKind::Connect,
                Retry::Soon,
                format!("cannot connect to {endpoint}"),
            ),
            Failure::Timeout => (
                ErrorKind::Timeout,
                Retry::Later,
                format!("the request to {endpoint} timed out"),
            ),
            Failure::Oversized => (
                ErrorKind::InvalidResponse,
                Retry::Later,
                format!("the response from {endpoint} is longer than 1 MiB"),
            ),
            Failure::Other => (
                ErrorKind::Transport,
                Retry::Later,
                format!("the connection to {endpoint} failed"),
            ),
        };
        Error::build(kind, retry, message)
            .caused_by(self.cause)
            .done()
    }
}

/// For your own sources that send token requests over HTTP.
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
            Failure::NoRuntime => "no tokio runtime",
            Failure::Connect => "cannot connect",
            Failure::Timeout => "the request timed out",
            Failure::Oversized => "the response is too long",
            Failure::Other => "the connection failed",
        })
    }
}

impl StdError for HttpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// Refuses plain `http` except to loopback: a token request contains secrets.
pub(crate) fn refuse_plaintext(request: &Request<Bytes>) -> Result<(), HttpError> {
    let uri = request.uri();
    let loopback = uri.host().is_some_and(secure_url::is_loopback_host);
    if uri.scheme() == Some(&Scheme::HTTPS) || loopback {
        return Ok(());
    }
    let cause = "plain http is allowed to loopback only";
    Err(HttpError::other(cause))
}

/// Reads a body up to [`MAX_BODY`], into memory that is wiped, as it may contain tokens.
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
                body_error(error)
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

/// Grows by copying into new memory, so that the old memory is wiped.
fn extend(read: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if read.capacity() - read.len() < chunk.len() {
        let capacity = (read.len() + chunk.len()).next_power_of_two();
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(read);
        *read = larger;
    }
    read.extend_from_slice(chunk);
}

/// The error of a response body. The request had arrived, so it is never [`Failure::Connect`].
fn body_error(error: BoxError) -> HttpError {
    let mut error = by_cause(error);
    if error.failure == Failure::Connect {
        error.failure = Failure::Other;
    }
    error
}

/// Classifies the error of a service: an [`HttpError`] as it is, others by the first cause that is a
/// refused connection or a timeout.
pub(super) fn by_cause(error: BoxError) -> HttpError {
    let error = match error.downcast::<HttpError>() {
        Ok(error) => return *error,
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
