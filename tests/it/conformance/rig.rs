//! A client, an authorization server and an API, on one manual clock.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bearer_auth::{
    BearerAuth, BearerAuthLayer, ClientCredentialsBuilder, ConfigError, Error, ErrorKind,
    TokenCache, TokenRequest, TokenResponse, TokenSource as _,
    resend::InMemory,
    testing::{Answer, ManualClock, MockIdp, Recorded},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use tokio::task::JoinHandle;
use tower::{Layer as _, ServiceExt as _};

pub(crate) use crate::support::http::credentials as client;
use crate::support::{errors::text, http::http1};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const NANO: Duration = Duration::from_nanos(1);

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

pub(crate) fn http() -> Http {
    http1()
}

/// Sends one token request, without a cache.
pub(crate) async fn fetch(source: ClientCredentialsBuilder) -> Result<TokenResponse, Error> {
    let source = source.build().unwrap();
    source.fetch(TokenRequest::new()).await
}

/// Returns a client's token request as the server receives it.
pub(crate) async fn sent(
    configure: impl FnOnce(ClientCredentialsBuilder) -> ClientCredentialsBuilder,
) -> Recorded {
    let idp = MockIdp::start().await.unwrap();
    // Any response: the test looks at the request.
    idp.always(token("t"));
    fetch(configure(client(&idp))).await.unwrap();
    only(idp.token_log())
}

/// Returns the result of a token request that gets this response.
pub(crate) async fn answered(answer: Answer) -> Result<TokenResponse, Error> {
    let idp = MockIdp::start().await.unwrap();
    idp.always(answer);
    fetch(client(&idp)).await
}

/// Returns the setting that `build` rejects.
#[track_caller]
pub(crate) fn refused(source: ClientCredentialsBuilder) -> &'static str {
    let error: ConfigError = source.build().unwrap_err();
    error.field()
}

/// An ordinary response with this token.
pub(crate) fn token(token: &str) -> Answer {
    Answer::json(
        200,
        serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}),
    )
}

#[track_caller]
pub(crate) fn only(log: Vec<Recorded>) -> Recorded {
    let [request] = <[Recorded; 1]>::try_from(log).expect("one request");
    request
}

#[track_caller]
pub(crate) fn body(request: &Recorded) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

/// Returns the decoded credentials of an `Authorization: Basic` header.
#[track_caller]
pub(crate) fn credentials(request: &Recorded) -> String {
    let value = request.header("authorization").unwrap();
    let (scheme, encoded) = value.split_once(' ').unwrap();
    assert!(scheme.eq_ignore_ascii_case("basic"), "{scheme}");
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

/// Returns the error's kind, and checks that its texts do not contain `canary`.
#[track_caller]
pub(crate) fn kind(error: &Error, canary: &str) -> ErrorKind {
    let shown = text(error);
    assert!(!shown.contains(canary), "{shown}");
    error.kind()
}

/// A client, its cache, the authorization server and the API, on one clock.
pub(crate) struct Rig {
    pub(crate) clock: ManualClock,
    pub(crate) idp: MockIdp,
    pub(crate) cache: TokenCache,
    pub(crate) auth: BearerAuthLayer,
    pub(crate) api: BearerAuth<Http, InMemory>,
}

pub(crate) async fn rig() -> Rig {
    rig_with(|source| source).await
}

pub(crate) async fn rig_with(
    configure: impl FnOnce(ClientCredentialsBuilder) -> ClientCredentialsBuilder,
) -> Rig {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().clock(clock.clone());
    let idp = builder.start().await.unwrap();
    let source = configure(client(&idp)).build().unwrap();
    let cache = TokenCache::builder(source).clock(clock.clone()).build();
    rig_of(clock, idp, cache)
}

pub(crate) fn rig_of(clock: ManualClock, idp: MockIdp, cache: TokenCache) -> Rig {
    let auth = BearerAuthLayer::for_api(idp.api_url(), cache.clone()).unwrap();
    let api = auth.layer(http());
    Rig {
        clock,
        idp,
        cache,
        auth,
        api,
    }
}

pub(crate) type Failure = bearer_auth::ServiceError<hyper_util::client::legacy::Error>;

impl Rig {
    pub(crate) fn url(&self, path: &str) -> String {
        self.idp.api_url() + path
    }

    pub(crate) async fn try_get(&self, path: &str) -> Result<Response<Bytes>, Failure> {
        let request = Request::get(self.url(path)).body(Full::default()).unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response<Bytes> {
        self.try_get(path).await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Failure> {
        let (parts, body) = self.api.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    pub(crate) fn spawn_get(&self, path: &str) -> JoinHandle<Response<Bytes>> {
        let request = Request::get(self.url(path)).body(Full::default()).unwrap();
        let api = self.api.clone();
        tokio::spawn(async move {
            let (parts, body) = api.oneshot(request).await.unwrap().into_parts();
            Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
        })
    }

    pub(crate) fn spawn_token(&self) -> JoinHandle<Result<bearer_auth::AccessToken, Error>> {
        let cache = self.cache.clone();
        tokio::spawn(async move { cache.token().await })
    }

    /// Awaits `task` and advances the clock over pauses of up to three seconds: the pauses between
    /// retries, but not the time limit.
    pub(crate) async fn pass_pauses<T>(&self, task: JoinHandle<T>) -> T {
        while !task.is_finished() {
            if let Some(next) = self.clock.next_wakeup()
                && next <= 3 * SECOND
            {
                self.clock.advance(next);
            }
            tokio::task::yield_now().await;
        }
        task.await.unwrap()
    }

    /// Waits for the end of the token request in flight.
    pub(crate) async fn landed(&self) {
        while self.cache.status().fetching {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the `Authorization` header of each request to the API, in order.
    #[track_caller]
    pub(crate) fn seen(&self) -> Vec<String> {
        let value = |request: &Recorded| {
            assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
            request.header("authorization").unwrap().to_owned()
        };
        self.idp.api_log().iter().map(value).collect()
    }
}

/// Opens a login's URL as a browser does, and returns the redirect's target.
pub(crate) async fn browse(url: &str) -> String {
    let request = Request::get(url).body(Full::default()).unwrap();
    let response = http().request(request).await.unwrap();
    let status = response.status();
    assert_eq!(status, 302, "the server does not redirect the browser");
    let location = response.headers().get("location").unwrap();
    location.to_str().unwrap().to_owned()
}

/// Returns the decoded parameters of a URL's query, in order.
pub(crate) fn parameters(url: &str) -> Vec<(String, String)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// Returns a parameter's value. Panics if the parameter is repeated.
#[track_caller]
pub(crate) fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = parameters.iter().filter(|(known, _)| known == name);
    let value = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "`{name}` is repeated");
    value
}
