//! One HTTP exchange with the authorization server, with limits on the response's size and time.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response,
    header::{ACCEPT, HeaderValue, USER_AGENT},
};
use tokio::runtime::Handle;

use super::http_client::{DynHttpClient, HttpError, MAX_BODY};
#[cfg(feature = "reqwest")]
use super::reqwest_client::ReqwestClient;
use crate::{
    clock::Clock,
    error::{ConfigError, Error, ErrorKind, Retry},
};

const USER_AGENT_VALUE: &str = concat!("bearer-auth/", env!("CARGO_PKG_VERSION"));

/// The time limit of a request that runs outside a cache, which would limit it. Longer than the limits
/// of HTTP clients.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Sends a request once. `endpoint` names the endpoint in errors.
pub(crate) async fn exchange(
    http: &dyn DynHttpClient,
    mut request: Request<Bytes>,
    endpoint: &str,
) -> Result<Response<Bytes>, Error> {
    let headers = request.headers_mut();
    for (name, value) in [(ACCEPT, "application/json"), (USER_AGENT, USER_AGENT_VALUE)] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    let response = http.send_boxed(request).await;
    let response = response.map_err(|error| error.into_error(endpoint))?;
    if response.body().len() > MAX_BODY {
        return Err(HttpError::oversized().into_error(endpoint));
    }
    Ok(response)
}

/// Limits the duration of `work`. Without a tokio runtime there is no timer, and the HTTP client's own
/// limit applies.
pub(crate) async fn limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
    let limited = Clock::default().timeout(limit, &runtime, work).await;
    limited.unwrap_or_else(|| {
        let message = "the request to the authorization server timed out";
        Err(Error::build(ErrorKind::Timeout, Retry::Later, message).done())
    })
}

/// Returns the default HTTP client, if the crate has one.
pub(crate) fn default_client() -> Result<Arc<dyn DynHttpClient>, ConfigError> {
    #[cfg(feature = "reqwest")]
    return Ok(Arc::new(ReqwestClient::new()));
    #[cfg(not(feature = "reqwest"))]
    Err(ConfigError::new(
        "http_client",
        "missing; set one, such as `endpoint::TowerClient`, or enable the feature `reqwest`",
    ))
}
