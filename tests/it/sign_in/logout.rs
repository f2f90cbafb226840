//! Signing out (RFC 7009): MockIdp signs people in, and a client beside it answers for the
//! revocation endpoint.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, ClientAuth, ErrorKind, OAuthErrorCode, Session, TokenCache,
    endpoint::{HttpClient, HttpError, HttpFuture, ReqwestClient},
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

/// Sends token requests to the identity provider, and answers the others: 200, or what stands in
/// its script.
#[derive(Clone, Default)]
struct Server {
    http: Arc<ReqwestClient>,
    script: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    told: Arc<Mutex<Vec<Form>>>,
    /// The `Authorization` headers beside them.
    proofs: Arc<Mutex<Vec<Option<String>>>>,
}

impl HttpClient for Server {
    fn send(&self, request: Request<Bytes>) -> HttpFuture<'_> {
        if request.uri().path() != REVOKE {
            return self.http.send(request);
        }
        assert_eq!(request.method(), http::Method::POST);
        let proof = request.headers().get(http::header::AUTHORIZATION);
        let proof = proof.map(|proof| proof.to_str().unwrap().to_owned());
        self.proofs.lock().unwrap().push(proof);
        let form = url::form_urlencoded::parse(request.body());
        self.told.lock().unwrap().push(form.into_owned().collect());
        let scripted = self.script.lock().unwrap().pop_front();
        if scripted == Some(HANGS) {
            return Box::pin(std::future::pending());
        }
        let (status, body) = scripted.unwrap_or((200, "<html>whatever</html>"));
        let response = Response::builder().status(status).body(Bytes::from(body));
        Box::pin(async move { response.map_err(HttpError::other) })
    }
}

impl Server {
    /// What was revoked: hint and token.
    fn told(&self) -> Vec<(String, String)> {
        let told = self.told.lock().unwrap();
        let pair = |form: &Form| {
            let value = |name: &str| form.iter().find(|(n, _)| n == name).unwrap().1.clone();
            assert_eq!(value("client_id"), "app");
            (value("token_type_hint"), value("token"))
        };
        told.iter().map(pair).collect()
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
async fn p191_p192_p195_both_tokens_are_revoked_and_nothing_is_left() {
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
    let [refresh, revoked] = &server.told()[..] else {
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

    // Once more is as good.
    session.logout().await.unwrap();
    assert_eq!(server.told().len(), 2);
}

#[tokio::test]
async fn p191_a_client_proves_itself_as_at_the_token_endpoint() {
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
        let proofs = server.proofs.lock().unwrap().clone();
        assert_eq!(
            proofs,
            [header, header].map(|proof| proof.map(str::to_owned))
        );
        for form in server.told.lock().unwrap().iter() {
            assert_eq!(form.len(), parameters, "{form:?}");
        }
    }
}

#[tokio::test]
async fn p195_the_next_request_does_not_carry_the_old_token() {
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
async fn p193_a_server_that_is_not_ready_is_told_again() {
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
    // Here it is over all the same.
    assert!(is_empty(&store).await);
    let error = TokenCache::new(session.clone()).token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);

    session.logout().await.unwrap();
    let told = server.told();
    assert_eq!(told.len(), 4);
    assert_eq!(told[..2], told[2..]);
}

#[tokio::test]
async fn p194_a_kind_of_token_that_is_not_revoked_is_typed_and_forgotten() {
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
async fn p195_an_exchange_under_way_does_not_bring_the_session_back() {
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
    // What the exchange brought is what was revoked.
    let sent = &idp.token_log()[1].form();
    let old = sent
        .iter()
        .find(|(name, _)| name == "refresh_token")
        .unwrap();
    assert_ne!(server.told()[0].1, old.1);
    assert!(is_empty(&store).await);
    assert!(cache.try_token().is_none());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

#[tokio::test]
async fn p190_a_revocation_url_without_tls_is_refused() {
    let built = AuthorizationCode::builder("https://idp.example/a", "https://idp.example/t", "app")
        .revocation_url("http://idp.example/revoke")
        .build();
    let error = built.unwrap_err().to_string();
    assert!(error.contains("revocation_url"), "{error}");
}

/// Not about signing out, but with the same store: a browser that goes away.
#[tokio::test]
async fn p27_a_login_whose_caller_goes_is_finished() {
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
    // Server and exchange run on this thread, too: each turn is one of theirs.
    for _ in 0..1_000_000 {
        if !is_empty(&store).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    TokenCache::new(auth.session()).token().await.unwrap();
    assert_eq!(idp.token_requests(), 1);
}

/// Others wait for the store's lock, maybe in other processes.
#[tokio::test]
async fn p195_a_server_that_hangs_keeps_neither_the_lock_nor_the_caller() {
    let SignedIn {
        server,
        store,
        session,
        ..
    } = signed_in().await;
    server.say(&[HANGS, HANGS]);
    tokio::time::pause();
    let logout = tokio::spawn(async move { session.logout().await });
    while server.told().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(is_empty(&store).await);
    assert!(!logout.is_finished());
    let error = logout.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
}
