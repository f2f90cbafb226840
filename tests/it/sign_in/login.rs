//! A login on loopback (RFC 8252), with a browser made of plain HTTP requests.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, BearerAuthLayer, Error, ErrorKind, Login,
    OAuthErrorCode, Session, TokenCache, endpoint::TowerClient, testing::MockIdp,
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use reqwest::{Client, Response, StatusCode, Url, redirect::Policy};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tower::{Layer as _, ServiceExt as _};

#[cfg(target_os = "linux")]
use crate::support::alone::alone;

const PATIENCE: Duration = Duration::from_secs(30);

async fn idp() -> MockIdp {
    MockIdp::builder().client("app", "").start().await.unwrap()
}

fn client(idp: &MockIdp) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
}

/// Starts a login, and returns the URL for the browser.
async fn start(auth: AuthorizationCode) -> (JoinHandle<Result<Session, Error>>, String) {
    let (opened, url) = oneshot::channel();
    let login = tokio::spawn(async move {
        let open = |url: &str| opened.send(url.to_owned()).unwrap();
        auth.login_on_loopback_with(Login::new(), PATIENCE, open)
            .await
    });
    (login, url.await.unwrap())
}

fn http() -> Client {
    let http = Client::builder().no_proxy().redirect(Policy::none());
    http.build().unwrap()
}

async fn get(url: &str) -> Response {
    http().get(url).send().await.unwrap()
}

fn redirect_uri(login_url: &str) -> Url {
    let url = Url::parse(login_url).unwrap();
    let found = url.query_pairs().find(|(name, _)| name == "redirect_uri");
    Url::parse(&found.unwrap().1).unwrap()
}

fn address(redirect_uri: &Url) -> SocketAddr {
    redirect_uri.socket_addrs(|| None).unwrap()[0]
}

#[cfg(target_os = "linux")]
async fn is_open(redirect_uri: &Url) -> bool {
    TcpStream::connect(address(redirect_uri)).await.is_ok()
}

#[tokio::test]
async fn p82_p83_p87_loopback_login_gets_a_token_for_the_api() {
    let idp = idp().await;
    let (login, url) = start(client(&idp).scope("openid").build().unwrap()).await;
    let redirect = redirect_uri(&url);
    assert_eq!(redirect.host_str(), Some("127.0.0.1"));
    assert_eq!(redirect.path(), "/callback");
    assert!(url.contains("code_challenge_method=S256"));

    let page = get(&idp.sign_in(&url).unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    assert!(page.text().await.unwrap().contains("You are signed in"));

    let session = login.await.unwrap().unwrap();
    let auth = BearerAuthLayer::for_api(idp.api_url(), session).unwrap();
    let api = auth.layer(Client::builder().no_proxy().build().unwrap());
    let request = api.get_ref().get(idp.api_url()).build().unwrap();
    let response = api.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    // Both requests contain the bound port.
    let sent = idp.token_log()[0].form();
    let sent = sent.iter().find(|(name, _)| name == "redirect_uri");
    assert_eq!(sent.unwrap().1, redirect.as_str());
}

/// The crate does not request the authorization URL itself.
#[tokio::test]
async fn p81_crate_does_not_request_the_authorization_url() {
    let idp = idp().await;
    let (login, url) = start(client(&idp).build().unwrap()).await;
    assert!(url.starts_with(&format!("{}?", idp.authorization_url())));
    let state = Url::parse(&url).unwrap();
    let state = state.query_pairs().find(|(name, _)| name == "state");
    let callback = format!(
        "{}?error=access_denied&state={}",
        redirect_uri(&url),
        state.unwrap().1
    );
    get(&callback).await;
    assert_eq!(login.await.unwrap().unwrap_err().kind(), ErrorKind::SignIn);
    assert_eq!((idp.authorization_requests(), idp.token_requests()), (0, 0));
}

/// The time limit includes discovery.
#[tokio::test(start_paused = true)]
async fn p84_login_timeout_includes_discovery() {
    let never =
        |_: Request<Full<Bytes>>| pending::<Result<http::Response<Full<Bytes>>, Infallible>>();
    let auth = AuthorizationCode::discover("https://idp.example", "app")
        .http_client(TowerClient::new(tower::service_fn(never)))
        .build()
        .unwrap();
    let open = |_: &str| unreachable!("there is nothing to open");
    let login = auth.login_on_loopback_with(Login::new(), Duration::from_secs(1), open);
    let error = login.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.is_retryable(), "{error}");
}

// Tests that expect a closed port use a loopback address of their own: on 127.0.0.1, another process
// might have got the port. They also run in a process of their own: a child process that another test
// starts inherits the open port until it executes its program.

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p84_s1_3_port_is_open_only_during_the_login() {
    alone!();
    let idp = idp().await;
    let port = {
        let listener = tokio::net::TcpListener::bind("127.84.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let uri = format!("http://127.84.0.1:{port}/cb");
    let redirect = Url::parse(&uri).unwrap();
    let auth = client(&idp).redirect_uri(&uri).build().unwrap();
    assert!(!is_open(&redirect).await);
    let (login, url) = start(auth).await;
    assert_eq!(redirect_uri(&url), redirect);
    assert!(is_open(&redirect).await);
    get(&idp.sign_in(&url).unwrap()).await;
    login.await.unwrap().unwrap();
    assert!(!is_open(&redirect).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p84_login_that_times_out_closes_the_port() {
    alone!();
    let idp = idp().await;
    let auth = client(&idp)
        .redirect_uri("http://127.84.0.2/cb")
        .build()
        .unwrap();
    let mut url = String::new();
    let open = |opened: &str| url = opened.to_owned();
    let login = auth
        .login_on_loopback_with(Login::new(), Duration::ZERO, open)
        .await;
    assert_eq!(login.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(!is_open(&redirect_uri(&url)).await);
    assert_eq!(idp.token_requests(), 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p84_dropped_login_closes_the_port() {
    alone!();
    let idp = idp().await;
    let (login, url) = start(
        client(&idp)
            .redirect_uri("http://127.84.0.3/cb")
            .build()
            .unwrap(),
    )
    .await;
    login.abort();
    assert!(login.await.unwrap_err().is_cancelled());
    assert!(!is_open(&redirect_uri(&url)).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p83_port_is_not_reachable_at_another_address() {
    let idp = idp().await;
    let auth = client(&idp).redirect_uri("http://127.84.0.4/cb");
    let (login, url) = start(auth.build().unwrap()).await;
    let mut elsewhere = redirect_uri(&url);
    assert!(is_open(&elsewhere).await);
    elsewhere.set_host(Some("127.84.0.5")).unwrap();
    assert!(!is_open(&elsewhere).await);
    login.abort();
}

#[tokio::test]
async fn p85_p24_stray_requests_get_404_and_the_login_continues() {
    let idp = idp().await;
    let (login, url) = start(client(&idp).build().unwrap()).await;
    let callback = idp.sign_in(&url).unwrap();
    let redirect = redirect_uri(&url);
    // A silent connection does not block the others.
    let _silent = TcpStream::connect(address(&redirect)).await.unwrap();
    for stray in [
        redirect.join("/favicon.ico").unwrap().to_string(),
        redirect.to_string(),
        format!("{redirect}?code=x"),
        format!("{redirect}?code=x&state=another-login-s"),
        callback.replace("/callback?", "/call?"),
    ] {
        assert_eq!(get(&stray).await.status(), StatusCode::NOT_FOUND, "{stray}");
    }
    let posted = http().post(&callback).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::NOT_FOUND);
    assert_eq!(idp.token_requests(), 0);
    assert_eq!(get(&callback).await.status(), StatusCode::OK);
    login.await.unwrap().unwrap();
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn p28_authorization_error_is_shown_and_returned() {
    let idp = idp().await;
    idp.refuse_sign_in(Some("access_denied"));
    let (login, url) = start(client(&idp).build().unwrap()).await;
    let page = get(&idp.sign_in(&url).unwrap()).await;
    assert!(page.text().await.unwrap().contains("You are not signed in"));
    let error = login.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::AccessDenied);
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn failed_code_exchange_is_shown_in_the_browser() {
    let idp = idp().await;
    let (login, url) = start(client(&idp).build().unwrap()).await;
    let callback = idp.sign_in(&url).unwrap();
    idp.sign_out_all_users();
    let forged = {
        let mut forged = Url::parse(&callback).unwrap();
        let others: Vec<(String, String)> = forged
            .query_pairs()
            .filter(|(name, _)| name != "code")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        forged
            .query_pairs_mut()
            .clear()
            .append_pair("code", "forged")
            .extend_pairs(others);
        forged
    };
    let page = get(forged.as_str()).await.text().await.unwrap();
    assert!(page.contains("You are not signed in"));
    let error = login.await.unwrap().unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::InvalidGrant);
}

#[tokio::test]
async fn p82_p83_other_loopback_addresses_can_be_configured() {
    let idp = idp().await;
    for (uri, host) in [
        ("http://[::1]/a/b", "[::1]"),
        ("http://localhost/", "localhost"),
        ("http://127.0.0.1/", "127.0.0.1"),
    ] {
        let auth = client(&idp).redirect_uri(uri).build().unwrap();
        let (login, url) = start(auth).await;
        let redirect = redirect_uri(&url);
        assert_eq!(redirect.host_str(), Some(host));
        assert!(redirect.port().is_some());
        let callback = idp.sign_in(&url).unwrap();
        assert_eq!(get(&callback).await.status(), StatusCode::OK);
        login.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn redirect_uri_outside_loopback_is_an_error() {
    let idp = idp().await;
    for uri in [
        "https://app.example/cb",
        "https://127.0.0.1/cb",
        "com.example.app:/cb",
    ] {
        let auth = client(&idp).redirect_uri(uri).build().unwrap();
        let login = auth
            .login_on_loopback(|_| unreachable!("nothing to open"))
            .await;
        assert_eq!(login.unwrap_err().kind(), ErrorKind::SignIn, "{uri}");
    }
}

#[tokio::test]
async fn p89_concurrent_loopback_logins_reject_each_other_s_callbacks() {
    let idp = Arc::new(idp().await);
    let (first, url_1) = start(client(&idp).build().unwrap()).await;
    let (second, url_2) = start(client(&idp).build().unwrap()).await;
    let query = |url: &str| {
        Url::parse(&idp.sign_in(url).unwrap())
            .unwrap()
            .query()
            .unwrap()
            .to_owned()
    };
    let (query_1, query_2) = (query(&url_1), query(&url_2));
    let (to_1, to_2) = (redirect_uri(&url_1), redirect_uri(&url_2));
    assert_eq!(
        get(&format!("{to_1}?{query_2}")).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&format!("{to_2}?{query_1}")).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        get(&format!("{to_1}?{query_1}")).await.status(),
        StatusCode::OK
    );
    assert_eq!(
        get(&format!("{to_2}?{query_2}")).await.status(),
        StatusCode::OK
    );
    let (first, second) = (
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    );
    let token = |session| async move { TokenCache::new(session).token().await.unwrap() };
    let (first, second) = (token(first).await, token(second).await);
    assert_ne!(first.expose_secret(), second.expose_secret());
}
