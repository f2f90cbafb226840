//! Processes that share a session, in any store.

use std::time::Duration;

use bearer_auth::{AuthorizationCode, TokenCache, testing::ManualClock};

use crate::{
    programs::oidc_provider::OidcProvider,
    support::process::{Process, say},
};

pub(crate) const PROCESSES: usize = 8;
/// How often the access token expires.
const EXPIRIES: u64 = 6;
/// The lifetime of an access token, which expires on the test's clock only.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// Signs a user in.
pub(crate) async fn sign_in(idp: &OidcProvider, client: &AuthorizationCode) {
    let login = client.start().await.unwrap();
    let callback = idp.sign_in(login.url()).await;
    login.finish(&callback).await.unwrap();
}

pub(crate) fn cache(client: &AuthorizationCode) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = TokenCache::builder(client.session()).clock(clock.clone());
    (cache.build(), clock)
}

/// The code of one of the processes.
pub(crate) async fn share(client: &AuthorizationCode) {
    let (cache, clock) = cache(client);
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

/// Asserts that the processes send each refresh token once, in order.
pub(crate) async fn grant_survives(
    idp: &OidcProvider,
    client: &AuthorizationCode,
    start: impl Fn() -> Process,
) {
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    for process in &mut processes {
        assert!(process.says("ready"));
    }
    let mut before = String::new();
    for expiries in 0..=EXPIRIES {
        for process in &mut processes {
            process.tell(if expiries == 0 { "now" } else { "later" });
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
        // One token request for the code, and one for each expiry: the other processes share the new
        // token. None failed, so no refresh token was sent twice.
        let stats = idp.stats().await;
        assert_eq!(stats.token_requests, 1 + expiries);
        assert_eq!(stats.token_requests_failed, 0);
        token.clone_into(&mut before);
    }
    for process in processes {
        process.kill();
    }

    // The session outlives its processes.
    let (cache, clock) = cache(client);
    assert_eq!(cache.token().await.unwrap().expose_secret(), before);
    clock.advance(LIFETIME);
    let token = cache.token().await.unwrap();
    assert_ne!(token.expose_secret(), before);
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    assert_eq!(idp.stats().await.token_requests, EXPIRIES + 2);
}
