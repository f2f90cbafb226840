//! Shows what the crate does, in ten seconds. The identity provider and the API run inside this program:
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! With `--features tracing`, and `RUST_LOG=bearer_auth=debug` in the environment, it also prints the
//! crate's log.
//!
//! With arguments, it gets a token from a real identity provider and sends ten requests to a real API.
//! Set the client's secret in the environment variable `CLIENT_SECRET`. If it gets no token, or no
//! request succeeds, it prints the reason and exits with 1:
//!
//! ```text
//! cargo run --example quickstart -- --token-url https://… --client-id … --api https://…
//! ```
#![allow(clippy::disallowed_methods, reason = "a demonstration in real time")]

use std::{
    env,
    error::Error,
    fmt,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bearer_auth::{
    BearerAuth, BearerAuthLayer, ClientCredentials, ErrorKind, OAuthErrorCode,
    testing::{Answer, MockIdp},
};
use reqwest::{Client, Method, Request, StatusCode, Url};
use tokio::{task::JoinSet, time};
use tower::{Layer as _, ServiceExt as _};

type BoxError = Box<dyn Error + Send + Sync>;
type Outcome<T> = Result<T, BoxError>;

/// The lifetime of the first tokens, and of the later ones.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(8);
/// How long the identity provider takes for the second token.
const SLOW: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "tracing")]
    log();
    let outcome = if env::args().len() > 1 {
        against_a_real_server().await
    } else {
        against_mock_idp().await
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// Prints the crate's log at the level of `RUST_LOG`. Defaults to off.
#[cfg(feature = "tracing")]
fn log() {
    let level = env::var("RUST_LOG").unwrap_or("off".to_owned());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(level);
    tracing_subscriber::fmt().with_env_filter(filter).init();
}

async fn against_mock_idp() -> Outcome<()> {
    let idp = MockIdp::start().await?;
    idp.set_lifetime(SHORT);

    // The three lines that a program needs.
    let source =
        ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;
    // (All servers are on this machine: no proxy, no certificates.)
    let client = Client::builder().no_proxy().tls_certs_only([]).build()?;
    let client = auth.layer(client);

    let show = Timeline::start();
    show.line("an identity provider (IdP) and an API are up; no token yet");
    let load = Load::new(client, format!("{}orders", idp.api_url()).parse()?);

    idp.then(Answer::ok().delay(Duration::from_millis(50)));
    load.burst(1_000).await;
    let first = idp.token_requests();
    show.line(format!(
        "1,000 requests at once, without a token; token requests: {first}"
    ));
    load.burst(1_000).await;
    show.line(format!(
        "1,000 more; token requests: {}, the token is cached",
        idp.token_requests() - first
    ));

    show.line(format!(
        "from now on 200 requests a second; the token lives for {} …",
        Seconds(SHORT)
    ));
    idp.then(Answer::ok().delay(SLOW));
    load.until(|| idp.tokens_issued() == 2).await;
    load.run(Duration::from_millis(250)).await;
    show.line(format!(
        "… it was refreshed before it expired; the token request took {}, the longest API request {}",
        Seconds(SLOW),
        Seconds(load.seen().longest)
    ));

    idp.set_lifetime(LONG);
    idp.revoke_all();
    load.run(Duration::from_millis(300)).await;
    show.line(format!(
        "the token was revoked; 401 answers: {}, resent with a new token, valid for {}; failures: {}",
        idp.api_unauthorized(),
        Seconds(LONG),
        load.seen().failures
    ));

    idp.always(Answer::unavailable(0));
    show.line("the IdP goes down; no request needs it, and the next refresh …");
    let failed = || auth.cache().status().last_error.is_some();
    load.until(failed).await;
    show.line("… fails (503); requests continue with the cached token …");
    load.run(Duration::from_millis(500)).await;
    idp.recover();
    load.until(|| !failed()).await;
    show.line("… the IdP is back, and the next attempt brings a new token");

    let seen = load.seen();
    let unauthorized = idp.api_unauthorized();
    let token_requests = idp.token_requests();
    let longest = Seconds(seen.longest);
    println!();
    println!("  requests       {:>7}", seen.requests);
    println!("  failures       {:>7}", seen.failures);
    println!(
        "  token requests {token_requests:>7}  (first, refresh, after the 401, failed, after the outage)"
    );
    println!("  401 answers    {unauthorized:>7}  (resent with a new token)");
    println!("  longest wait   {longest:>7}  (a whole request, without the two bursts)");
    if seen.failures > 0 {
        return Err(format!("{} requests failed, although none should", seen.failures).into());
    }
    Ok(())
}

async fn against_a_real_server() -> Outcome<()> {
    let arguments = Arguments::parse()?;
    let mut source = ClientCredentials::builder(
        &arguments.token_url,
        arguments.client_id,
        arguments.client_secret,
    );
    if let Some(scope) = arguments.scope {
        source = source.scope(scope);
    }
    if let Some(audience) = arguments.audience {
        source = source.audience(audience);
    }
    let auth = BearerAuthLayer::for_api(&arguments.api, source.build()?)?;
    let show = Timeline::start();
    let token = auth.cache().token().await;
    let token = token.map_err(|error| Failure::token(&arguments.token_url, error))?;
    let left = Seconds(auth.cache().status().expires_in.unwrap_or_default());
    let scope = token.scope().unwrap_or("as requested");
    show.line(format!("a token, valid for {left}; scope: {scope}"));

    let client = Client::builder()
        .redirect(auth.redirect_policy())
        .timeout(Duration::from_secs(30));
    let client = auth.layer(client.build()?);
    let url: Url = arguments.api.parse()?;
    let mut succeeded = false;
    for request in 1..=REQUESTS {
        let started = Instant::now();
        let answer = Request::new(Method::GET, url.clone());
        let answer = client.clone().oneshot(answer).await;
        let status = answer
            .map_err(|error| Failure::unanswered(&url, error))?
            .status();
        let took = Seconds(started.elapsed());
        show.line(format!("GET {url}: {status}, after {took}"));
        succeeded |= status.is_success();
        // Another request would get the same answer.
        if !succeeded && (request == REQUESTS || !may_change(status)) {
            return Err(Failure::answered(&url, status).into());
        }
        if request < REQUESTS {
            time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

const REQUESTS: usize = 10;

/// Whether the same request may get another answer later.
fn may_change(status: StatusCode) -> bool {
    let passing = [
        StatusCode::UNAUTHORIZED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_success() || status.is_server_error() || passing.contains(&status)
}

/// A request that failed, with a hint which argument to check.
#[derive(Debug)]
struct Failure {
    what: String,
    hint: &'static str,
    cause: Option<BoxError>,
}

impl Failure {
    /// The identity provider gave no token.
    fn token(url: &str, error: bearer_auth::Error) -> Self {
        let answer = match error.status() {
            Some(status) => format!("the answer is {status}"),
            None => "no token".to_owned(),
        };
        let code = error.oauth_error().map(|oauth| oauth.code());
        let hint = match (error.kind(), code) {
            (_, Some(OAuthErrorCode::InvalidClient | OAuthErrorCode::UnauthorizedClient)) => {
                "check --client-id and CLIENT_SECRET, and that the client may use client credentials"
            }
            (_, Some(OAuthErrorCode::InvalidScope)) => "check --scope",
            (_, Some(_)) => {
                "the error code names the argument that the identity provider does not accept"
            }
            (ErrorKind::Connect, _) => "no connection: check the host and port of --token-url",
            _ if error.is_retryable() => {
                "check --token-url; if it is correct, the identity provider has a problem: try later"
            }
            _ => {
                "check --token-url: it is the `token_endpoint` of the provider's metadata, \
                 not the issuer or a login page"
            }
        };
        Self {
            what: format!("POST {url}: {answer}"),
            hint,
            cause: Some(error.into()),
        }
    }

    /// The API could not be reached.
    fn unanswered(url: &Url, cause: impl Into<BoxError>) -> Self {
        Self {
            what: format!("GET {url}: no answer"),
            hint: "check the host and port of --api",
            cause: Some(cause.into()),
        }
    }

    /// The API answers no request with success.
    fn answered(url: &Url, status: StatusCode) -> Self {
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                "the API does not accept this token: check --scope and --audience, \
                 and that --api and --token-url belong together"
            }
            StatusCode::FORBIDDEN => "the token has too few rights: check --scope and --api",
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                "the API has nothing at this path: check the path of --api"
            }
            StatusCode::METHOD_NOT_ALLOWED => "give a URL as --api that accepts GET",
            _ if status.is_redirection() => {
                "the API redirects to another URL: give the final URL as --api"
            }
            _ if may_change(status) => "the API has a problem, or --api is not its URL",
            _ => "the API does not accept a plain GET: give a URL as --api that does",
        };
        Self {
            what: format!("GET {url}: no request succeeded, the last answer is {status}"),
            hint,
            cause: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  hint: {}", self.what, self.hint)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.cause.as_deref()?)
    }
}

/// Requests to one URL, and their outcomes.
struct Load {
    client: BearerAuth<Client>,
    url: Url,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Default)]
struct Seen {
    requests: usize,
    failures: usize,
    longest: Duration,
}

impl Load {
    fn new(client: BearerAuth<Client>, url: Url) -> Self {
        Self {
            client,
            url,
            seen: Arc::default(),
        }
    }

    async fn burst(&self, requests: usize) {
        let mut running = JoinSet::new();
        for _ in 0..requests {
            self.send(&mut running, false);
        }
        while running.join_next().await.is_some() {}
    }

    async fn run(&self, duration: Duration) {
        let end = Instant::now() + duration;
        self.until(|| Instant::now() >= end).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        let mut running = JoinSet::new();
        let mut ticks = time::interval(Duration::from_millis(5));
        while !done() {
            ticks.tick().await;
            self.send(&mut running, true);
        }
        while running.join_next().await.is_some() {}
    }

    fn send(&self, running: &mut JoinSet<()>, timed: bool) {
        let (client, seen) = (self.client.clone(), Arc::clone(&self.seen));
        let request = Request::new(Method::GET, self.url.clone());
        running.spawn(async move {
            let started = Instant::now();
            let answer = client.oneshot(request).await;
            let good = answer.is_ok_and(|response| response.status().is_success());
            let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            seen.requests += 1;
            seen.failures += usize::from(!good);
            if timed {
                seen.longest = seen.longest.max(started.elapsed());
            }
        });
    }

    fn seen(&self) -> Seen {
        let seen = self.seen.lock();
        seen.unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }
}

/// Prints lines with the time in front.
struct Timeline(Instant);

impl Timeline {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn line(&self, text: impl AsRef<str>) {
        println!("{:>8}  {}", Seconds(self.0.elapsed()), text.as_ref());
    }
}

/// A time, in the one format of this program.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.3} s", self.0.as_secs_f64()))
    }
}

struct Arguments {
    token_url: String,
    client_id: String,
    client_secret: String,
    api: String,
    scope: Option<String>,
    audience: Option<String>,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let mut given = env::args().skip(1);
        let (mut token_url, mut client_id, mut api) = (None, None, None);
        let (mut scope, mut audience) = (None, None);
        while let Some(name) = given.next() {
            let slot = match name.as_str() {
                "--token-url" => &mut token_url,
                "--client-id" => &mut client_id,
                "--api" => &mut api,
                "--scope" => &mut scope,
                "--audience" => &mut audience,
                _ => return Err(USAGE.into()),
            };
            *slot = given.next();
        }
        let client_secret = env::var("CLIENT_SECRET")
            .ok()
            .filter(|secret| !secret.is_empty());
        match (token_url, client_id, client_secret, api) {
            (Some(token_url), Some(client_id), Some(client_secret), Some(api)) => Ok(Self {
                token_url,
                client_id,
                client_secret,
                api,
                scope,
                audience,
            }),
            _ => Err(USAGE.into()),
        }
    }
}

const USAGE: &str = "usage, with the client's secret in the environment variable CLIENT_SECRET:
  quickstart --token-url URL --client-id ID --api URL [--scope SCOPE] [--audience AUDIENCE]";
