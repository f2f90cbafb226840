//! A login on loopback in headless Chromium, with the pages of `oidc-provider` (see
//! `../oidc_provider/tokens.rs`) and the crate's own page at the end.
//!
//! Needs `chromium` in the PATH, and the programs that `../oidc_provider/tokens.rs` needs. Without them,
//! the tests are ignored.

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, BearerAuthLayer, Error, ErrorKind, OAuthErrorCode,
    Session, testing::MockIdp,
};
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::oneshot};
use tower::{Layer as _, ServiceExt as _};

use crate::{
    harness::tests,
    programs::{
        chromium::{Browser, Chromium},
        oidc_provider::{OidcProvider, native_client},
    },
    support::alone::alone,
};

tests! {
    needs: [Chromium, OidcProvider];
    p32_p82_p83_p87_user_signs_in_with_chromium_and_the_api_accepts_the_token,
    p28_p32_p84_login_cancelled_in_chromium_is_access_denied,
    mock_idp_pages_work_in_chromium,
}

fn idp() -> OidcProvider {
    OidcProvider::start_with(json!({ "sign_in": true }))
}

fn client(idp: &OidcProvider) -> AuthorizationCodeBuilder {
    native_client(idp.issuer())
}

/// Runs a login in which the user takes these steps.
///
/// Returns the program's result, what the user saw, and the URL that the browser opened.
async fn login(
    chromium: &Chromium,
    auth: AuthorizationCode,
    steps: Value,
) -> (Result<Session, Error>, Value, Url) {
    let chromium = chromium.clone();
    let (opened, browser) = oneshot::channel::<(Browser, Url)>();
    let login = tokio::spawn(async move {
        auth.login_on_loopback(|url| {
            let browser = chromium.open(url, &steps);
            let _ = opened.send((browser, Url::parse(url).unwrap()));
        })
        .await
    });
    let (browser, url) = browser.await.unwrap();
    let seen = browser.seen().await;
    (login.await.unwrap(), seen, url)
}

fn redirect_uri(url: &Url) -> Url {
    let mut parameters = url.query_pairs();
    let found = parameters.find(|(name, _)| name == "redirect_uri");
    Url::parse(&found.unwrap().1).unwrap()
}

/// Asserts that the crate's page is complete: its style applies, its script has removed the code from the
/// address, and there were no further requests and no errors.
fn assert_final_page(seen: &Value, heading: &str, redirect_uri: &Url) {
    assert_eq!(seen["problems"], json!([]));
    assert_eq!(seen["heading"], heading, "{seen:#}");
    assert_eq!(seen["title"], heading);
    assert_eq!(seen["status"], 200);
    assert_eq!(seen["address"], redirect_uri.as_str());
    assert_eq!(seen["sign"], "50%", "a disc");
    assert_eq!(
        seen["requests"],
        json!([format!("200 {}", redirect_uri.path())])
    );
    let of = |scheme: &str, what: &str| seen["colours"][scheme][what].as_str().unwrap().to_owned();
    assert_eq!(of("light", "background"), of("dark", "text"));
    assert_ne!(of("dark", "background"), of("dark", "text"));
}

async fn p32_p82_p83_p87_user_signs_in_with_chromium_and_the_api_accepts_the_token() {
    let (idp, chromium) = (idp(), Chromium::find());
    let steps = json!([
        { "fill": { "login": "ada", "password": "secret" }, "click": "form:has([value=login]) button" },
        { "click": "form:has([value=consent]) button" },
    ]);
    let auth = client(&idp).build().unwrap();
    let (session, seen, url) = login(&chromium, auth, steps).await;
    let session = session.unwrap();
    assert_final_page(&seen, "You are signed in", &redirect_uri(&url));
    assert_eq!(seen["titles"], json!(["Sign-in", "Authorize"]));
    assert!(seen["text"].as_str().unwrap().contains("close this window"));

    let auth = BearerAuthLayer::for_api(idp.api_url(), session).unwrap();
    let api = auth.layer(Client::builder().no_proxy().build().unwrap());
    let request = api.get_ref().get(idp.resource()).build().unwrap();
    let response = api.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(idp.stats().await.token_requests, 1);
}

async fn p28_p32_p84_login_cancelled_in_chromium_is_access_denied() {
    // A child process of another test inherits the open port until it executes its program.
    alone!();
    let (idp, chromium) = (idp(), Chromium::find());
    // No other test opens ports at this address.
    let auth = client(&idp).redirect_uri("http://[::1]/callback");
    let steps = json!([{ "click": "text=Cancel" }]);
    let (session, seen, url) = login(&chromium, auth.build().unwrap(), steps).await;
    let redirect_uri = redirect_uri(&url);
    let address = redirect_uri.socket_addrs(|| None).unwrap()[0];
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    assert_final_page(&seen, "You are not signed in", &redirect_uri);
    assert!(seen["text"].as_str().unwrap().contains("try again"));
    let error = session.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::AccessDenied);
    assert_eq!(idp.stats().await.token_requests, 0);
}

async fn mock_idp_pages_work_in_chromium() {
    let chromium = Chromium::find();
    for (decision, heading) in [
        ("sign-in", "You are signed in"),
        ("refuse", "You are not signed in"),
    ] {
        let idp = MockIdp::builder().client("app", "").sign_in_page();
        let idp = idp.start().await.unwrap();
        let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app");
        let button = format!("[name=decision][value={decision}]");
        let steps = json!([{ "fill": { "user": "ada" }, "click": button }]);
        let (session, seen, url) = login(&chromium, auth.build().unwrap(), steps).await;
        assert_eq!(session.is_ok(), decision == "sign-in");
        assert_final_page(&seen, heading, &redirect_uri(&url));
    }
}
