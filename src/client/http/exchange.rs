//! One exchange with the authorization server: a request, and a response that is capped and in time.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response,
    header::{ACCEPT, HeaderValue, USER_AGENT},
};
use tokio::runtime::Handle;

use super::http_client::{HttpClient, HttpError, MAX_BODY};
#[cfg(feature = "reqwest")]
use super::reqwest_client::ReqwestClient;
use crate::{
    clock::Clock,
    error::{ConfigError, Error, ErrorKind, Retry},
};

const USER_AGENT_VALUE: &str = concat!("bearer-auth/", env!("CARGO_PKG_VERSION"));

/// How long a caller waits for a server where no cache sets a limit, if the HTTP client sets none of its
/// own: longer than the limits that clients set.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);

/// Sends a request once. `what` names the endpoint in errors.
pub(crate) async fn exchange(
    http: &dyn HttpClient,
    mut request: Request<Bytes>,
    what: &str,
) -> Result<Response<Bytes>, Error> {
    let headers = request.headers_mut();
    for (name, value) in [(ACCEPT, "application/json"), (USER_AGENT, USER_AGENT_VALUE)] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    let response = http.send(request).await;
    let response = response.map_err(|error| error.into_error(what))?;
    if response.body().len() > MAX_BODY {
        return Err(HttpError::oversized().into_error(what));
    }
    Ok(response)
}

/// Limits how long `work` may take. Without a runtime, which has the timers, the HTTP client's own limit
/// counts.
pub(crate) async fn limited<T>(
    longest: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return work.await;
    };
    let limited = Clock::default().timeout(longest, &runtime, work).await;
    limited.unwrap_or_else(|| {
        let message = "no answer in time from the authorization server";
        Err(Error::build(ErrorKind::Timeout, Retry::Later, message).done())
    })
}

/// Returns the default HTTP client, if the crate has one.
pub(crate) fn default_client() -> Result<Arc<dyn HttpClient>, ConfigError> {
    #[cfg(feature = "reqwest")]
    return Ok(Arc::new(ReqwestClient::new()));
    #[cfg(not(feature = "reqwest"))]
    Err(ConfigError::new(
        "http_client",
        "none; give one, such as `endpoint::TowerClient`, or enable the feature `reqwest`",
    ))
}
