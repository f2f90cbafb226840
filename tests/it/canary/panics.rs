//! Panics in the application's code, with a secret in the message: callers get an error without the
//! message, and the crate itself does not panic.

use bearer_auth::{
    AuthorizationCode, BoxError, Error, ErrorKind, TokenCache, TokenRequest, TokenResponse,
    TokenSource,
    endpoint::{HttpClient, HttpError, ReqwestClient},
    source_fn,
    store::{LockedSession, StoredSession, TokenStore},
};
use bytes::Bytes;
use http::Request;

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::*,
        rig::{REDIRECT, credentials, echo, encoded, idp},
        watch::{ON_PURPOSE, Watch},
    },
};

/// Panics with everything that it knows, if the request or the operation matches.
struct Panics(&'static str);

impl HttpClient for Panics {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        if request.uri().path().ends_with(self.0) {
            panic!("{ON_PURPOSE} {request:?} {:?} {}", request.body(), echo());
        }
        ReqwestClient::new().send(request).await
    }
}

impl TokenStore for Panics {
    type Locked = Panics;

    async fn lock(&self) -> Result<Panics, BoxError> {
        match self.0 {
            "lock" => panic!("{ON_PURPOSE} {}", echo()),
            at => Ok(Panics(at)),
        }
    }
}

impl LockedSession for Panics {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        match self.0 {
            "load" => panic!("{ON_PURPOSE} {}", echo()),
            _ => Ok(Some(session())),
        }
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        panic!(
            "{ON_PURPOSE} {:?} {}",
            session.map(StoredSession::to_json),
            echo()
        );
    }
}

fn session() -> StoredSession {
    let json = serde_json::json!({"version": 1, "refresh_token": Session.text()});
    StoredSession::from_json(&json.to_string()).unwrap()
}

async fn interrupted(watch: &Watch, source: impl TokenSource) {
    let cache = TokenCache::builder(source).on_event(Watch::event).build();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    watch.error(&error);
    watch.debug(&cache);
}

#[tokio::test]
async fn p55_panic_message_is_not_in_the_error() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let source = source_fn(|_| async {
        if true {
            panic!("{ON_PURPOSE} {}", echo());
        }
        TokenResponse::builder("never").build()
    });
    interrupted(&watch, source).await;
    let source = credentials(idp.token_url()).http_client(Panics("token"));
    interrupted(&watch, source.build().unwrap()).await;

    let client = |http| {
        AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), ClientId.text())
            .client_secret(ClientSecret.text())
            .redirect_uri(REDIRECT)
            .revocation_url(idp.issuer() + "/oauth2/v1/revoke")
            .http_client(http)
    };
    // The authorization code grant.
    let login = client(Panics("token"))
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let state = parameter(login.url());
    let callback = format!("{REDIRECT}?code={}&state={state}", encoded(&Code.text()));
    let error = login.finish(&callback).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    watch.error(&error);
    // The refresh, in the HTTP client and in the store.
    for (http, store) in [("token", "save"), ("nothing", "lock"), ("nothing", "load")] {
        let auth = client(Panics(http)).store(Panics(store)).build().unwrap();
        let asked = auth.session().fetch(TokenRequest::new()).await;
        watch.error(&only_interrupted(asked));
        interrupted(&watch, auth.session()).await;
        // Signing out.
        watch.error(&only_interrupted(auth.session().logout().await));
    }
    // An event listener.
    let cache = TokenCache::builder(credentials(idp.token_url()).build().unwrap());
    let cache = cache
        .on_event(|_| panic!("{ON_PURPOSE} {}", echo()))
        .build();
    let token = cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), AccessToken.text());
    watch.debug(&cache);
    // An event listener that gets the event of a panic.
    let cache = TokenCache::builder(source_fn(|_| async {
        if true {
            panic!("{ON_PURPOSE} {}", echo());
        }
        TokenResponse::builder("never").build()
    }));
    let cache = cache
        .on_event(|_| panic!("{ON_PURPOSE} {}", echo()))
        .build();
    watch.error(&cache.token().await.unwrap_err());
    // The panics were recorded, and are the test's own.
    watch.heard(&["panic in tests/it/canary"]);
    watch.end();
}

fn only_interrupted<T>(result: Result<T, Error>) -> Error {
    let Err(error) = result else {
        panic!("no error");
    };
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    error
}

fn parameter(url: &str) -> String {
    encoded(&crate::support::canary::rig::parameter(url, "state"))
}
