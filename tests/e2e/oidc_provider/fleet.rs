//! A fleet of processes against a real authorization server (see `tokens.rs`), which rotates
//! refresh tokens, and revokes the whole grant when one is used a second time. Their session is in a
//! real Redis.

use std::time::{Duration, Instant};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, TokenCache, redis::SharedRedis, store::SealingKey,
};
use http::Method;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tower::{Layer as _, ServiceExt as _};
use url::Url;

use super::shared::{LIFETIME, PROCESSES, grant_survives, share, sign_in};
use crate::{
    harness::tests,
    programs::{
        oidc_provider::{OidcProvider, native_client},
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

fn client(issuer: &str, redis: &str) -> AuthorizationCode {
    let client = native_client(issuer)
        .redirect_uri("http://127.0.0.1/callback")
        .on_store_error(|error| panic!("{error}: {}", error.cause))
        .build()
        .unwrap();
    let redis = redis::Client::open(redis).unwrap();
    let store = SharedRedis::sealed(redis, SealingKey::new([7; 32]));
    let store = store.timeout(Duration::from_secs(10));
    client.with_store(store.store(client.token_key("me")))
}

/// Somebody has signed in, and gets access tokens of so many seconds.
async fn signed_in(seconds: u64) -> (Redis, OidcProvider, AuthorizationCode) {
    let config = json!({ "sign_in": true, "ttl": seconds });
    let (redis, idp) = (Redis::start().await, OidcProvider::start_with(config));
    let client = client(idp.issuer(), &redis.url());
    sign_in(&idp, &client).await;
    (redis, idp, client)
}

/// Not a test: what the other processes do.
async fn child() {
    match role().as_deref() {
        Some("share") => share(&client(&told("ISSUER"), &told("REDIS"))).await,
        Some("live") => live().await,
        _ => {}
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
    let start = || Process::start(module_path!(), "share", &told);
    grant_survives(&idp, &client, start).await;
}
