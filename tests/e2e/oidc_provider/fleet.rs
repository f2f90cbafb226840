//! Processes that share a session in Redis, against an authorization server (see `tokens.rs`) that
//! rotates refresh tokens and revokes the grant when one is used twice.

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
    support::process::{Process, argument, role, say},
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

/// Signs a user in, whose access tokens live for so many seconds.
async fn signed_in(seconds: u64) -> (Redis, OidcProvider, AuthorizationCode) {
    let config = json!({ "sign_in": true, "ttl": seconds });
    let (redis, idp) = (Redis::start().await, OidcProvider::start_with(config));
    let client = client(idp.issuer(), &redis.url());
    sign_in(&idp, &client).await;
    (redis, idp, client)
}

/// Not a test: the code of the child processes.
async fn child() {
    match role().as_deref() {
        Some("share") => share(&client(&argument("ISSUER"), &argument("REDIS"))).await,
        Some("live") => live().await,
        _ => {}
    }
}

/// Sends requests to the API in real time, until standard input ends.
async fn live() {
    let session = client(&argument("ISSUER"), &argument("REDIS")).session();
    let api: Url = argument("API").parse().unwrap();
    let auth = BearerAuthLayer::for_api(api.as_str(), session).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = auth.layer(client);
    let stdin_ends = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut good, mut bad) = (0, Vec::new());
    say("ready");
    while !stdin_ends.is_finished() {
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

/// How many refreshes the test waits for, each about 4 s. Defaults to 5; `FLEET_RENEWALS` overrides it.
fn refreshes() -> u64 {
    let refreshes = std::env::var("FLEET_RENEWALS");
    refreshes.map_or(5, |refreshes| refreshes.parse().unwrap())
}

/// Prints a line for each refresh. To run it for minutes:
/// `FLEET_RENEWALS=100 cargo test --all-features --test e2e -- eight_processes_live`
async fn eight_processes_live_on_short_tokens_and_the_grant_survives() {
    let (redis, idp, client) = signed_in(6).await;
    let (redis_url, api) = (redis.url(), idp.api_url());
    let environment = [
        ("ISSUER", idp.issuer()),
        ("REDIS", &redis_url),
        ("API", &api),
    ];
    let mut processes: Vec<_> = (0..PROCESSES)
        .map(|_| Process::start(module_path!(), "live", &environment))
        .collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    #[allow(clippy::disallowed_methods, reason = "this test is in real time")]
    let began = Instant::now();
    let mut all = idp.stats().await;
    for refresh in 1..=refreshes() {
        until("the session is refreshed", async || {
            all = idp.stats().await;
            all.token_requests > refresh
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
    // No token request failed, so no refresh token was sent twice, and the session is still valid.
    let stats = idp.stats().await;
    assert_eq!(stats.token_requests_failed, 0);
    let last = TokenCache::new(client.session());
    let last = last.refresh().await.unwrap();
    assert_eq!(idp.status_with(last.expose_secret()).await, 200);
}

async fn eight_processes_share_one_session_in_redis_and_the_grant_survives() {
    let (redis, idp, client) = signed_in(LIFETIME.as_secs()).await;
    let redis = redis.url();
    let environment = [("ISSUER", idp.issuer()), ("REDIS", &redis)];
    let start = || Process::start(module_path!(), "share", &environment);
    grant_survives(&idp, &client, start).await;
}
