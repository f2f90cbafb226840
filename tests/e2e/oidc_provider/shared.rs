//! Processes that share a session, whatever it is in.

use std::time::Duration;

use bearer_auth::{AuthorizationCode, TokenCache, testing::ManualClock};

use crate::{
    programs::oidc_provider::OidcProvider,
    support::process::{Process, say},
};

pub(crate) const PROCESSES: usize = 8;
/// How often the access token ends.
const ENDS: u64 = 6;
/// Of an access token. It ends on the clock of the test alone.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// Signs a person in.
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

/// What one of the processes does.
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

/// They use one refresh token after the other, and none twice.
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
        // One for the code, and one for each end: the others have used what the first one got. None
        // failed: no refresh token was sent twice.
        let stats = idp.stats().await;
        assert_eq!(stats.token_requests, 1 + ends);
        assert_eq!(stats.token_requests_failed, 0);
        token.clone_into(&mut before);
    }
    for process in processes {
        process.kill();
    }

    // The session outlives them all.
    let (cache, clock) = cache(client);
    assert_eq!(cache.token().await.unwrap().expose_secret(), before);
    clock.advance(LIFETIME);
    let token = cache.token().await.unwrap();
    assert_ne!(token.expose_secret(), before);
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    assert_eq!(idp.stats().await.token_requests, ENDS + 2);
}
