//! What the crate does, in ten seconds, against an identity provider and an API inside this
//! program:
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! With `--features tracing`, and `RUST_LOG=bearer_auth=debug` in the environment, it shows what the
//! crate logs meanwhile.
//!
//! With arguments it asks a real identity provider for a token and sends ten requests to a real
//! API; the client's secret is in the environment variable `CLIENT_SECRET`:
//!
//! ```text
//! cargo run --example quickstart -- --token-url https://… --client-id … --api https://…
//! ```
#![allow(clippy::disallowed_methods, reason = "a demonstration in real time")]

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bearer_auth::{
    BearerAuth, BearerAuthLayer, ClientCredentials,
    testing::{Answer, MockIdp},
};
use reqwest::{Client, Method, Request, Url};
use tokio::{task::JoinSet, time};
use tower::{Layer as _, ServiceExt as _};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "tracing")]
    log();
    let outcome = if env::args().len() > 1 {
        against_a_real_server().await
    } else {
        against_ourselves().await
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

/// Nothing, unless `RUST_LOG` asks for it.
#[cfg(feature = "tracing")]
fn log() {
    let asked = env::var("RUST_LOG").unwrap_or("off".to_owned());
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(asked);
    tracing_subscriber::fmt().with_env_filter(filter).init();
}

async fn against_ourselves() -> Outcome<()> {
    let idp = MockIdp::start().await?;
    idp.set_lifetime(Duration::from_secs(2));

    // The three lines that a program needs.
    let source =
        ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;
    // (Everything is on this machine: no proxy, no certificates.)
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

    show.line("from now on 200 requests a second; the token lives for 2 s …");
    idp.then(Answer::ok().delay(Duration::from_millis(200)));
    load.until(|| idp.tokens_issued() == 2).await;
    load.run(Duration::from_millis(250)).await;
    show.line(format!(
        "… a new one came ahead of its end; asking took 200 ms, the longest request {:.0?}",
        load.seen().longest
    ));

    idp.set_lifetime(Duration::from_secs(8));
    idp.revoke_all();
    load.run(Duration::from_millis(300)).await;
    show.line(format!(
        "the token was revoked; 401s: {}, sent again with a new token, good for 8 s; failures: {}",
        idp.api_unauthorized(),
        load.seen().failures
    ));

    idp.always(Answer::unavailable(0));
    show.line("the IdP goes down; nobody notices until the renewal, 2 s before the token's end …");
    let failed = || auth.cache().status().last_error.is_some();
    load.until(failed).await;
    show.line("… which is refused (503); requests go on with the token in hand …");
    load.run(Duration::from_millis(500)).await;
    idp.recover();
    load.until(|| !failed()).await;
    show.line("… the IdP is back, and the next attempt brings a new token");

    let seen = load.seen();
    let healed = idp.api_unauthorized();
    let asked = idp.token_requests();
    let longest = format!("{:.0?}", seen.longest);
    println!();
    println!("  requests       {:>6}", seen.requests);
    println!("  failures       {:>6}", seen.failures);
    println!(
        "  token requests {asked:>6}  (first, renewal, after the 401, refused, after the outage)"
    );
    println!("  401s healed    {healed:>6}");
    println!("  longest wait   {longest:>6}  (a whole request, the two bursts aside)");
    if seen.failures > 0 {
        return Err("there should have been no failure".into());
    }
    Ok(())
}

async fn against_a_real_server() -> Outcome<()> {
    let arguments = Arguments::parse()?;
    let mut source = ClientCredentials::builder(
        arguments.token_url,
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
    let token = auth.cache().token().await?;
    let left = auth.cache().status().expires_in.unwrap_or_default();
    let scope = token.scope().unwrap_or("as asked");
    show.line(format!("a token, good for {left:.0?}; scope: {scope}"));

    let client = Client::builder().redirect(auth.redirect_policy());
    let client = auth.layer(client.build()?);
    let url: Url = arguments.api.parse()?;
    for _ in 0..10 {
        let started = Instant::now();
        let request = Request::new(Method::GET, url.clone());
        let status = client.clone().oneshot(request).await?.status();
        show.line(format!(
            "GET {url}: {status}, after {:.0?}",
            started.elapsed()
        ));
        time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Requests to one URL, and how they went.
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

/// Lines with the time in front.
struct Timeline(Instant);

impl Timeline {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn line(&self, text: impl AsRef<str>) {
        println!(
            "{:6.2} s  {}",
            self.0.elapsed().as_secs_f32(),
            text.as_ref()
        );
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
