//! A fleet of processes against a real authorization server (see `tokens.rs`), which rotates
//! refresh tokens, and revokes the whole grant when one is used a second time. Their session is in a
//! real Redis.

use std::time::{Duration, Instant};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, TokenCache, fleet::RedisStore, store::SealingKey,
    testing::ManualClock,
};
use http::Method;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tower::{Layer as _, ServiceExt as _};
use url::Url;

use crate::{
    harness::tests,
    programs::{
        oidc_provider::OidcProvider,
        redis::{Redis, until},
    },
    support::process::{Process, role, say, told},
};

tests! {
    needs: [OidcProvider, Redis];
    #[threads(2)] child,
    eight_processes_live_on_short_tokens_and_the_grant_survives,
    eight_processes_share_one_session_in_redis_and_the_grant_survives,
}

const PROCESSES: usize = 8;
/// How often the access token ends.
const ENDS: u64 = 6;
/// Of an access token. It ends on the clock of the test alone.
const LIFETIME: Duration = Duration::from_secs(600);

fn client(issuer: &str, redis: &str) -> AuthorizationCode {
    let urls = [format!("{issuer}/auth"), format!("{issuer}/token")];
    let [authorization_url, token_url] = urls;
    let client = AuthorizationCode::builder(authorization_url, token_url, "native-client")
        .redirect_uri("http://127.0.0.1/callback")
        .issuer_always_sent(issuer)
        .scope("openid offline_access")
        .param("prompt", "consent")
        .on_store_error(|error| panic!("{error}: {}", error.cause))
        .build()
        .unwrap();
    let redis = redis::Client::open(redis).unwrap();
    let store = RedisStore::sealed(redis, SealingKey::new([7; 32]));
    let store = store.timeout(Duration::from_secs(10));
    client.with_store(store.session(client.token_key("me")))
}

/// Somebody has signed in, and gets access tokens of so many seconds.
async fn signed_in(seconds: u64) -> (Redis, OidcProvider, AuthorizationCode) {
    let config = json!({ "sign_in": true, "ttl": seconds });
    let (redis, idp) = (Redis::start().await, OidcProvider::start_with(config));
    let client = client(idp.issuer(), &redis.url());
    let login = client.start().await.unwrap();
    let callback = idp.sign_in(login.url()).await;
    login.finish(&callback).await.unwrap();
    (redis, idp, client)
}

fn cache(client: &AuthorizationCode) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = TokenCache::builder(client.session()).clock(clock.clone());
    (cache.build(), clock)
}

/// Not a test: what the other processes do.
async fn child() {
    match role().as_deref() {
        Some("share") => share().await,
        Some("live") => live().await,
        _ => {}
    }
}

async fn share() {
    let (cache, clock) = cache(&client(&told("ISSUER"), &told("REDIS")));
    say("ready");
    for line in std::io::stdin().lines() {
        if line.unwrap() == "later" {
            clock.advance(LIFETIME);
        }
        match cache.token().await {
            Ok(token) => say(&format!("token {}", token.expose_secret())),
            Err(error) => say(&format!("token: {error}")),
        }
    }
}

/// Requests of the API, on the clock of the world, until there is nothing more to read.
async fn live() {
    let session = client(&told("ISSUER"), &told("REDIS")).session();
    let api: Url = told("API").parse().unwrap();
    let auth = BearerAuthLayer::for_api(api.as_str(), session).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = auth.layer(client);
    let ends = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut good, mut bad) = (0, Vec::new());
    say("ready");
    while !ends.is_finished() {
        let request = reqwest::Request::new(Method::GET, api.join("resource").unwrap());
        match client.clone().oneshot(request).await {
            Ok(response) if response.status() == 200 => good += 1,
            Ok(response) => bad.push(response.status().to_string()),
            Err(error) => bad.push(error.to_string()),
        }
        pace.tick().await;
    }
    say(&format!("good {good}"));
    say(&format!("bad {bad:?}"));
}

/// How often the session goes on in that, which takes some 4 s each: some, or as many as the
/// environment says.
fn renewals() -> u64 {
    let renewals = std::env::var("FLEET_RENEWALS");
    renewals.map_or(5, |renewals| renewals.parse().unwrap())
}

/// For minutes, and with a line for each renewal: `FLEET_RENEWALS=100 cargo test --all-features
/// --test e2e -- eight_processes_live`
async fn eight_processes_live_on_short_tokens_and_the_grant_survives() {
    let (redis, idp, client) = signed_in(6).await;
    let (redis_url, api) = (redis.url(), idp.api_url());
    let told = [
        ("ISSUER", idp.issuer()),
        ("REDIS", &redis_url),
        ("API", &api),
    ];
    let mut processes: Vec<_> = (0..PROCESSES)
        .map(|_| Process::start(module_path!(), "live", &told))
        .collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    #[allow(clippy::disallowed_methods, reason = "this test is in real time")]
    let began = Instant::now();
    let mut all = idp.stats().await;
    for renewal in 1..=renewals() {
        until("the session goes on", async || {
            all = idp.stats().await;
            all.token_requests > renewal
        })
        .await;
        let took = began.elapsed().as_secs();
        println!("{took:4} s: {all:?}, {} scripts", redis.scripts_run().await);
    }
    for mut process in processes {
        process.go();
        let good: u64 = process.answer("good ").unwrap().parse().unwrap();
        assert!(good > 0);
        assert_eq!(process.answer("bad ").unwrap(), "[]");
        assert!(process.succeeds());
    }
    // None was refused, so no refresh token was sent twice, and the session goes on.
    let stats = idp.stats().await;
    assert_eq!(stats.token_requests_failed, 0);
    let last = TokenCache::new(client.session());
    let last = last.refresh().await.unwrap();
    assert_eq!(idp.status_with(last.expose_secret()).await, 200);
}

async fn eight_processes_share_one_session_in_redis_and_the_grant_survives() {
    let (redis, idp, client) = signed_in(LIFETIME.as_secs()).await;
    let redis = redis.url();
    let told = [("ISSUER", idp.issuer()), ("REDIS", &redis)];
    let start = |_| Process::start(module_path!(), "share", &told);
    let mut processes: Vec<_> = (0..PROCESSES).map(start).collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    let mut before = String::new();
    for ends in 0..=ENDS {
        for process in &mut processes {
            process.tell(if ends == 0 { "now" } else { "later" });
        }
        let answers = processes.iter_mut().map(|p| p.answer("token").unwrap());
        let answers: Vec<_> = answers.collect();
        let token = answers[0].strip_prefix(' ').expect(&answers[0]);
        assert!(
            answers.iter().all(|other| *other == answers[0]),
            "{answers:?}"
        );
        assert_ne!(token, before, "a new one each time");
        assert_eq!(idp.status_with(token).await, 200);
        // One for the code, and one for each end. None failed: no refresh token was sent twice.
        let stats = idp.stats().await;
        assert_eq!(stats.token_requests, 1 + ends);
        assert_eq!(stats.token_requests_failed, 0);
        token.clone_into(&mut before);
    }
    for process in processes {
        process.kill();
    }

    // The session outlives them all.
    let (cache, clock) = cache(&client);
    assert_eq!(cache.token().await.unwrap().expose_secret(), before);
    clock.advance(LIFETIME);
    let token = cache.token().await.unwrap();
    assert_ne!(token.expose_secret(), before);
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    assert_eq!(idp.stats().await.token_requests, ENDS + 2);
}
