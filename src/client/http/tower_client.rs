//! [`TowerClient`]: an [`HttpClient`] on top of a tower service.

use std::{fmt, future::poll_fn};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::http_client::{HttpClient, HttpFuture, by_cause, read, refuse_plaintext};
use crate::error::BoxError;

/// An [`HttpClient`] made of a tower service: hyper-util's client, a stack with your own
/// timeouts, anything.
///
/// The service must not follow redirects. Plain `http` is refused except to loopback. Token
/// requests end after the cache's
/// [`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout) in any case.
///
/// Of its errors, a refused connection is known to have sent nothing. Any other counts as an answer
/// that was lost, after two of which a session [is over](crate::Session). So where people sign
/// in, say it of all connections that fail:
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
    /// Wraps `service`, which is cloned for each request.
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
    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_> {
        let mut service = self.0.clone();
        Box::pin(async move {
            refuse_plaintext(&request)?;
            let failed = |error: S::Error| by_cause(error.into());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            let response = service.call(request.map(Full::new)).await.map_err(failed)?;
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, read(body).await?))
        })
    }
}
