//! What the crate does, in ten seconds, against an identity provider and an API inside this
//! program:
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! The same against real ones, with the client's secret in the environment variable
//! `CLIENT_SECRET`:
//!
//! ```text
//! cargo run --example quickstart -- --token-url https://… --client-id … --api https://… [--scope …] [--audience …]
//! ```
#![allow(clippy::disallowed_methods, reason = "a demonstration in real time")]

use std::{
    env,
    error::Error,
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
async fn main() -> Outcome<()> {
    if env::args().len() > 1 {
        against_a_real_server(Arguments::parse()?).await
    } else {
        against_ourselves().await
    }
}

async fn against_ourselves() -> Outcome<()> {
    let idp = MockIdp::start().await?;
    idp.set_lifetime(Duration::from_secs(2));

    // The three lines that a program needs.
    let source =
        ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
    let auth = BearerAuthLayer::for_api(idp.api_url(), source)?;
    let client = auth.layer(Client::new());

    let show = Timeline::start();
    show.line("an identity provider (IdP) and an API are up; no token yet");
    let load = Load::new(client, format!("{}orders", idp.api_url()).parse()?);

    idp.then(Answer::ok().delay(Duration::from_millis(50)));
    load.burst(1_000).await;
    show.line(format!(
        "1,000 requests at once, without a token: {} token request",
        idp.token_requests()
    ));
    let before = idp.token_requests();
    load.burst(1_000).await;
    show.line(format!(
        "1,000 more: {} token requests, the token is cached",
        idp.token_requests() - before
    ));

    show.line("from now on 200 requests a second; the token lives for 2 s …");
    idp.then(Answer::ok().delay(Duration::from_millis(50)));
    load.until(|| idp.tokens_issued() == 2).await;
    load.run(Duration::from_millis(200)).await;
    show.line("… and was renewed ahead of its end, in the background: nobody waited");

    idp.set_lifetime(Duration::from_secs(8));
    idp.revoke_all();
    let refused = idp.api_unauthorized();
    load.run(Duration::from_millis(300)).await;
    show.line(format!(
        "the IdP revoked the token: {} answer(s) of 401, one new token, sent again: no failure",
        idp.api_unauthorized() - refused
    ));
    let healed = idp.api_unauthorized();

    idp.always(Answer::unavailable(0));
    show.line("the IdP goes down: 503 to every token request …");
    let failed = || auth.cache().status().last_error.is_some();
    load.until(failed).await;
    show.line("… renewal fails; requests go on with the token in hand …");
    load.run(Duration::from_millis(500)).await;
    idp.recover();
    load.until(|| !failed()).await;
    show.line("… the IdP is back, the next attempt brought a new token");

    let seen = load.seen();
    println!();
    println!("  requests       {:>7}", seen.requests);
    println!("  failures       {:>7}", seen.failures);
    println!("  token requests {:>7}", idp.token_requests());
    println!("  401s healed    {:>7}", healed);
    println!(
        "  longest wait   {:>7.0?} once the load was steady",
        seen.longest
    );
    if seen.failures > 0 {
        return Err("there should have been no failure".into());
    }
    Ok(())
}

async fn against_a_real_server(arguments: Arguments) -> Outcome<()> {
    let mut source = ClientCredentials::builder(
        arguments.token_url,
        arguments.client_id,
        env::var("CLIENT_SECRET").map_err(|_| "set the environment variable CLIENT_SECRET")?,
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
    show.line(format!(
        "a token, good for {left:.0?}; scope: {:?}",
        token.scope()
    ));

    let client = auth.layer(Client::new());
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
    api: String,
    scope: Option<String>,
    audience: Option<String>,
}

impl Arguments {
    fn parse() -> Outcome<Self> {
        let given: Vec<String> = env::args().skip(1).collect();
        let get = |name: &str| {
            let at = given.iter().position(|argument| argument == name)?;
            given.get(at + 1).cloned()
        };
        let need = |name: &str| get(name).ok_or(format!("{name} is missing"));
        Ok(Self {
            token_url: need("--token-url")?,
            client_id: need("--client-id")?,
            api: need("--api")?,
            scope: get("--scope"),
            audience: get("--audience"),
        })
    }
}
