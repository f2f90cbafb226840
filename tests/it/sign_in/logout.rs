//! Signing out (RFC 7009). `MockIdp` signs users in; [`Server`] is the revocation endpoint.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, ClientAuth, ErrorKind, OAuthErrorCode, Session, TokenCache,
    endpoint::{HttpClient, HttpError, ReqwestClient},
    store::{LockedSession as _, MemoryStore, TokenStore as _},
    testing::MockIdp,
};
use bytes::Bytes;
use http::{Request, Response};
use reqwest::Client;
use tower::{Layer as _, ServiceExt as _};

type Form = Vec<(String, String)>;

const REVOKE: &str = "/revoke";
const HANGS: (u16, &str) = (0, "no answer at all");

/// Sends token requests to the mock, and answers revocation requests itself: with the scripted
/// responses, then with 200.
#[derive(Clone, Default)]
struct Server {
    http: Arc<ReqwestClient>,
    script: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    revocations: Arc<Mutex<Vec<Form>>>,
    /// The `Authorization` headers of the revocation requests.
    authorizations: Arc<Mutex<Vec<Option<String>>>>,
}

impl HttpClient for Server {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        if request.uri().path() != REVOKE {
            return self.http.send(request).await;
        }
        assert_eq!(request.method(), http::Method::POST);
        let header = request.headers().get(http::header::AUTHORIZATION);
        let header = header.map(|header| header.to_str().unwrap().to_owned());
        self.authorizations.lock().unwrap().push(header);
        let form = url::form_urlencoded::parse(request.body());
        let form = form.into_owned().collect();
        self.revocations.lock().unwrap().push(form);
        let scripted = self.script.lock().unwrap().pop_front();
        if scripted == Some(HANGS) {
            return std::future::pending().await;
        }
        let (status, body) = scripted.unwrap_or((200, "<html>whatever</html>"));
        let response = Response::builder().status(status).body(Bytes::from(body));
        response.map_err(HttpError::other)
    }
}

impl Server {
    /// Returns hint and token of each revocation request.
    fn revoked(&self) -> Vec<(String, String)> {
        let revocations = self.revocations.lock().unwrap();
        let pair = |form: &Form| {
            let value = |name: &str| form.iter().find(|(n, _)| n == name).unwrap().1.clone();
            assert_eq!(value("client_id"), "app");
            (value("token_type_hint"), value("token"))
        };
        revocations.iter().map(pair).collect()
    }

    fn say(&self, answers: &[(u16, &'static str)]) {
        self.script.lock().unwrap().extend(answers.iter().copied());
    }
}

struct SignedIn {
    idp: MockIdp,
    server: Server,
    store: MemoryStore,
    session: Session,
}

async fn signed_in() -> SignedIn {
    let idp = MockIdp::builder().client("app", "").start().await.unwrap();
    let (server, store) = (Server::default(), MemoryStore::new());
    let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
        .redirect_uri("https://app.example/cb")
        .revocation_url(format!("{}{REVOKE}", idp.issuer()))
        .http_client(server.clone())
        .store(store.clone())
        .build()
        .unwrap();
    let login = auth.start().await.unwrap();
    let callback = idp.sign_in(login.url()).unwrap();
    let session = login.finish(&callback).await.unwrap();
    SignedIn {
        idp,
        server,
        store,
        session,
    }
}

async fn is_empty(store: &MemoryStore) -> bool {
    let mut locked = store.lock().await.unwrap();
    locked.load().await.unwrap().is_none()
}

#[tokio::test]
async fn p191_p192_p195_logout_revokes_both_tokens_and_empties_store_and_cache() {
    let SignedIn {
        idp,
        server,
        store,
        session,
    } = signed_in().await;
    let cache = TokenCache::new(session.clone());
    let access = cache.token().await.unwrap().expose_secret().to_owned();
    let requests = idp.token_requests();

    session.logout().await.unwrap();
    let [refresh, revoked] = &server.revoked()[..] else {
        panic!("two tokens");
    };
    assert_eq!(refresh.0, "refresh_token");
    assert_ne!(refresh.1, access);
    assert_eq!(revoked, &("access_token".to_owned(), access));
    assert!(is_empty(&store).await);
    assert!(cache.try_token().is_none());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(cache.status().needs_sign_in());
    assert_eq!(idp.token_requests(), requests);

    // A second logout succeeds and sends nothing.
    session.logout().await.unwrap();
    assert_eq!(server.revoked().len(), 2);
}

#[tokio::test]
async fn p191_client_authenticates_at_the_revocation_endpoint() {
    for (auth, header, parameters) in [
        (ClientAuth::basic(), Some("Basic YXBwOnNlY3JldA=="), 2),
        (ClientAuth::post(), None, 4),
    ] {
        let builder = MockIdp::builder().client("app", "secret");
        let idp = builder.start().await.unwrap();
        let server = Server::default();
        let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
            .client_secret("secret")
            .client_auth(auth)
            .redirect_uri("https://app.example/cb")
            .revocation_url(format!("{}{REVOKE}", idp.issuer()))
            .http_client(server.clone())
            .build()
            .unwrap();
        let login = auth.start().await.unwrap();
        let callback = idp.sign_in(login.url()).unwrap();
        login
            .finish(&callback)
            .await
            .unwrap()
            .logout()
            .await
            .unwrap();
        let sent = server.authorizations.lock().unwrap().clone();
        assert_eq!(
            sent,
            [header, header].map(|header| header.map(str::to_owned))
        );
        for form in server.revocations.lock().unwrap().iter() {
            assert_eq!(form.len(), parameters, "{form:?}");
        }
    }
}

#[tokio::test]
async fn p195_request_after_logout_fails_without_the_old_token() {
    let SignedIn { idp, session, .. } = signed_in().await;
    let auth = BearerAuthLayer::for_api(idp.api_url(), session.clone()).unwrap();
    let api = auth.layer(Client::builder().no_proxy().build().unwrap());
    let get = || api.get_ref().get(idp.api_url()).build().unwrap();
    assert!(
        api.clone()
            .oneshot(get())
            .await
            .unwrap()
            .status()
            .is_success()
    );
    session.logout().await.unwrap();
    let error = api.clone().oneshot(get()).await.unwrap_err();
    let error = error.token_error().unwrap();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn p193_logout_after_a_503_can_be_repeated() {
    let SignedIn {
        server,
        store,
        session,
        ..
    } = signed_in().await;
    server.say(&[(503, ""), (503, "")]);
    let error = session.logout().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.status().unwrap(), 503);
    // The session has ended locally nevertheless.
    assert!(is_empty(&store).await);
    let error = TokenCache::new(session.clone()).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);

    session.logout().await.unwrap();
    let revoked = server.revoked();
    assert_eq!(revoked.len(), 4);
    assert_eq!(revoked[..2], revoked[2..]);
}

#[tokio::test]
async fn p194_unsupported_token_type_is_a_typed_error_and_ends_the_session() {
    let SignedIn {
        server,
        store,
        session,
        ..
    } = signed_in().await;
    server.say(&[(200, ""), (400, r#"{"error":"unsupported_token_type"}"#)]);
    let error = session.logout().await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::UnsupportedTokenType);
    assert!(is_empty(&store).await);
}

#[tokio::test]
async fn p195_refresh_in_flight_does_not_restore_the_session() {
    let SignedIn {
        idp,
        server,
        store,
        session,
    } = signed_in().await;
    let cache = TokenCache::new(session.clone());
    cache.token().await.unwrap();
    let hold = idp.hold();
    let refresh = tokio::spawn({
        let cache = cache.clone();
        async move { cache.refresh().await }
    });
    idp.token_requests_reach(2).await;
    let logout = tokio::spawn(async move { session.logout().await });
    hold.release();
    logout.await.unwrap().unwrap();
    let _ = refresh.await.unwrap();
    // The logout revokes the new refresh token.
    let sent = &idp.token_log()[1].form();
    let old = sent
        .iter()
        .find(|(name, _)| name == "refresh_token")
        .unwrap();
    assert_ne!(server.revoked()[0].1, old.1);
    assert!(is_empty(&store).await);
    assert!(cache.try_token().is_none());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn p190_revocation_url_without_tls_is_a_configuration_error() {
    let built = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "app")
        .revocation_url("http://idp.example/revoke")
        .build();
    let error = built.unwrap_err().to_string();
    assert!(error.contains("revocation_url"), "{error}");
}

/// Not about signing out, but with the same store: the browser closes its connection.
#[tokio::test]
async fn p27_cancelled_login_still_stores_the_session() {
    let idp = MockIdp::builder().client("app", "").start().await.unwrap();
    let store = MemoryStore::new();
    let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
        .redirect_uri("https://app.example/cb")
        .store(store.clone())
        .build()
        .unwrap();
    let login = auth.start().await.unwrap();
    let callback = idp.sign_in(login.url()).unwrap();
    let hold = idp.hold();
    let caller = tokio::spawn(async move { login.finish(&callback).await });
    idp.token_requests_reach(1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    hold.release();
    // The server and the token request run on this thread, too: yield until they are done.
    for _ in 0..1_000_000 {
        if !is_empty(&store).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    TokenCache::new(auth.session()).token().await.unwrap();
    assert_eq!(idp.token_requests(), 1);
}

/// Other processes may wait for the store's lock.
#[tokio::test]
async fn p195_silent_revocation_endpoint_blocks_neither_store_nor_caller() {
    let SignedIn {
        server,
        store,
        session,
        ..
    } = signed_in().await;
    server.say(&[HANGS, HANGS]);
    tokio::time::pause();
    let logout = tokio::spawn(async move { session.logout().await });
    while server.revoked().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(is_empty(&store).await);
    assert!(!logout.is_finished());
    let error = logout.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
}
