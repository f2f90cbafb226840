//! [`TowerClient`]: an [`HttpClient`] that wraps a tower service.

use std::{fmt, future::poll_fn};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::runtime::Handle;
use tower_service::Service;

use super::http_client::{HttpClient, HttpError, by_cause, read, refuse_plaintext};
use crate::error::BoxError;

/// An [`HttpClient`] that wraps a tower service: hyper-util's client, or a stack with your own timeouts.
///
/// The service must not follow redirects. Plain `http` is refused except to loopback. The cache's
/// [`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout) limits each token request. Outside a tokio
/// runtime, a token request is an error of the kind [`NoRuntime`](crate::ErrorKind::NoRuntime).
///
/// After a refused connection, the crate knows that nothing was sent. Any other error counts as a lost
/// response, and two of them end a [`Session`](crate::Session). For users who sign in, report every
/// failed connection as [`HttpError::connect`](super::HttpError::connect):
///
/// ```
/// use bearer_auth::endpoint::{HttpError, TowerClient};
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy::{Client, Error}, rt::TokioExecutor};
/// use tower::ServiceExt;
///
/// // For https, with hyper-rustls' connector in place of `build_http`.
/// let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let client = TowerClient::new(client.map_err(|error: Error| match error.is_connect() {
///     true => HttpError::connect(error),
///     false => HttpError::other(error),
/// }));
/// ```
#[derive(Clone)]
pub struct TowerClient<S>(S);

impl<S> TowerClient<S> {
    /// Wraps `service`. Each request clones it.
    pub fn new(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>>,
    {
        Self(service)
    }
}

impl<S> fmt::Debug for TowerClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TowerClient")
    }
}

impl<S, B> HttpClient for TowerClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if Handle::try_current().is_err() {
            return Err(HttpError::no_runtime());
        }
        let mut service = self.0.clone();
        refuse_plaintext(&request)?;
        let failed = |error: S::Error| by_cause(error.into());
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
        let response = service.call(request.map(Full::new)).await.map_err(failed)?;
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, read(body).await?))
    }
}
