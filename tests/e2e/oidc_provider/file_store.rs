//! `FileStore` against a real authorization server (see `tokens.rs`), which rotates refresh
//! tokens, and revokes the whole grant when one is used a second time.

use std::{path::Path, time::Duration};

use bearer_auth::{
    AuthorizationCode, TokenCache,
    store::{FileStore, SealingKey},
    testing::ManualClock,
};
use serde_json::json;

use crate::{
    harness::tests,
    programs::oidc_provider::OidcProvider,
    support::{
        process::{Process, role, say, told},
        sessions::directory,
    },
};

tests! {
    needs: [OidcProvider];
    #[threads(2)] child,
    eight_processes_share_one_session_and_the_grant_survives,
    a_refresh_token_that_is_used_twice_ends_the_grant,
}

const PROCESSES: usize = 8;
/// How often the access token ends.
const ENDS: u64 = 6;
/// Of an access token. It ends on the clock of the test alone.
const LIFETIME: Duration = Duration::from_secs(600);

fn client(issuer: &str, path: impl AsRef<Path>) -> AuthorizationCode {
    let store = FileStore::new(path).sealed_with(SealingKey::new([7; 32]));
    let urls = [format!("{issuer}/auth"), format!("{issuer}/token")];
    let [authorization_url, token_url] = urls;
    AuthorizationCode::builder(authorization_url, token_url, "native-client")
        .redirect_uri("http://127.0.0.1/callback")
        .issuer_always_sent(issuer)
        .scope("openid offline_access")
        .param("prompt", "consent")
        .store(store)
        .on_store_error(|error| panic!("{error}: {}", error.cause))
        .build()
        .unwrap()
}

fn cache(client: &AuthorizationCode) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = TokenCache::builder(client.session()).clock(clock.clone());
    (cache.build(), clock)
}

/// Not a test: what the other processes do.
async fn child() {
    if role().is_none() {
        return;
    }
    let (cache, clock) = cache(&client(&told("ISSUER"), told("PATH")));
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

async fn eight_processes_share_one_session_and_the_grant_survives() {
    let config = json!({ "sign_in": true, "ttl": LIFETIME.as_secs() });
    let idp = OidcProvider::start_with(config);
    let directory = directory();
    let path = directory.path().join("session");
    let client = client(idp.issuer(), &path);
    let login = client.start().await.unwrap();
    let callback = idp.sign_in(login.url()).await;
    login.finish(&callback).await.unwrap();

    let told = [
        ("ISSUER", idp.issuer().to_owned()),
        ("PATH", path.to_str().unwrap().to_owned()),
    ];
    let told = told.each_ref().map(|(what, value)| (*what, value.as_str()));
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
        assert!(answers.iter().all(|other| *other == answers[0]));
        assert_ne!(token, before, "a new one each time");
        assert_eq!(idp.status_with(token).await, 200);
        // One for the code, and one for each end: the others have used what the first one got.
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

/// What the test above is about: without the store's lock, this is what happens.
async fn a_refresh_token_that_is_used_twice_ends_the_grant() {
    let idp = OidcProvider::start_with(json!({ "sign_in": true }));
    let directory = directory();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    let login = client(idp.issuer(), &one).start().await.unwrap();
    let callback = idp.sign_in(login.url()).await;
    login.finish(&callback).await.unwrap();
    std::fs::copy(&one, &other).unwrap();

    let renew = async |path: &Path| {
        let (cache, clock) = cache(&client(idp.issuer(), path));
        cache.token().await.unwrap();
        clock.advance(LIFETIME);
        cache.token().await
    };
    let token = renew(&one).await.unwrap();
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    renew(&other).await.unwrap_err();
    assert_eq!(idp.status_with(token.expose_secret()).await, 401);
}
