//! Signing in, refreshing and signing out, and their failures.

use std::time::Duration;

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientAuth, Error, ErrorKind, Login, PendingLogin,
    Session, SigningKey, TokenRequest, TokenSource as _,
    testing::{Answer, MockIdp},
};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::sync::oneshot;

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::*,
        rig::{
            Key, REDIRECT, Tls, address, cache, echo, echoes, encoded, hurried, idp, parameter,
            second_token, sign_in, token,
        },
        watch::Watch,
    },
    http::closed_port,
};

fn login() -> Login {
    Login::new()
        .state(State.text())
        .code_verifier(Verifier.text())
        .param("login_hint", Hint.text())
}

/// The URL that the browser is redirected to.
fn callback(query: &str) -> String {
    format!("{REDIRECT}?{query}&state={}", encoded(&State.text()))
}

fn good_callback() -> String {
    callback(&format!("code={}", encoded(&Code.text())))
}

async fn start(watch: &Watch, auth: &AuthorizationCode) -> PendingLogin {
    let pending = auth.start_with(login()).await.unwrap();
    watch.debug(&pending);
    pending
}

fn show<T: std::fmt::Debug>(watch: &Watch, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => {
            watch.debug(&value);
            Some(value)
        }
        Err(error) => {
            watch.error(&error);
            None
        }
    }
}

#[tokio::test]
async fn p55_login_refresh_and_logout_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let key = Key::new(&watch);
    let tls = Tls::before(&watch, address(&idp.token_url()), b"h2", None).await;
    let revoke = idp.issuer() + "/oauth2/v1/revoke";
    let methods = [
        ClientAuth::basic(),
        ClientAuth::basic_raw(),
        ClientAuth::post(),
        ClientAuth::none(),
        ClientAuth::client_secret_jwt(),
        ClientAuth::private_key_jwt(SigningKey::from_pem(key.pem.as_str()).unwrap()),
    ];
    for method in methods {
        for over_tls in [false, true] {
            let at = |url: &str| {
                if over_tls {
                    tls.at(url)
                } else {
                    url.to_owned()
                }
            };
            let http = bearer_auth::endpoint::ReqwestClient::new();
            let auth = AuthorizationCode::builder(
                at(&idp.authorization_url()),
                at(&idp.token_url()),
                ClientId.text(),
            )
            .client_secret(ClientSecret.text())
            .redirect_uri(REDIRECT)
            .revocation_url(at(&revoke))
            .client_auth(method.clone())
            .http_client(http.root_certificate_pem(tls.root.as_bytes()).unwrap());
            watch.debug(&auth);
            let auth = auth.build().unwrap();
            watch.debug(&auth);
            idp.then(token());
            let pending = start(&watch, &auth).await;
            let session = show(&watch, pending.finish(&good_callback()).await).unwrap();
            use_and_end(&watch, &idp, session).await;
        }
    }
    // A generated state and verifier are secrets, too.
    let auth = sign_in(&idp).build().unwrap();
    let pending = auth
        .start_with(Login::new().payload("/orders"))
        .await
        .unwrap();
    watch.secret(State, pending.state().expose_secret());
    let saved: serde_json::Value = serde_json::from_str(pending.save().expose_secret()).unwrap();
    watch.secret(Verifier, saved["verifier"].as_str().unwrap());
    watch.debug(&pending);
    let callback = idp.sign_in(pending.url()).unwrap();
    idp.then(token());
    let session = show(&watch, pending.finish(&callback).await).unwrap();
    use_and_end(&watch, &idp, session).await;
    for request in [idp.token_log(), idp.authorization_log()].concat() {
        watch.debug(&request);
    }
    watch.heard(&[
        "tracing h2",
        "tracing hyper_util",
        "log reqwest",
        "tracing bearer_auth",
    ]);
    watch.end();
}

/// Refreshes, rotates and signs out.
async fn use_and_end(watch: &Watch, idp: &MockIdp, session: Session) {
    let (cache, clock) = cache(session.clone());
    show(watch, cache.token().await);
    idp.then(second_token());
    let token = show(watch, hurried(&clock, cache.refresh()).await).unwrap();
    assert_eq!(token.expose_secret(), SecondAccessToken.text());
    cache.reject(&token);
    watch.debug(&cache);
    for answer in [
        Answer::oauth_error("server_error"),
        Answer::drop_connection(),
    ] {
        // A session retries once after either.
        idp.then(answer);
        show(watch, hurried(&clock, cache.refresh()).await);
    }
    idp.then(Answer::json(
        400,
        json!({"error": "invalid_grant", "error_description": echo()}),
    ));
    for _ in 0..2 {
        assert!(show(watch, cache.refresh().await).is_none());
    }
    idp.then(Answer::json(
        503,
        json!({"error": "unavailable", "error_description": echo()}),
    ));
    idp.then(Answer::bytes(500, "text/html", echo()));
    for _ in 0..2 {
        show(watch, session.logout().await);
    }
    watch.debug(&session);
    watch.debug(&cache);
}

#[tokio::test]
async fn p55_responses_to_a_session_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let auth = sign_in(&idp).revocation_url(idp.issuer() + "/oauth2/v1/revoke");
    let auth = auth.build().unwrap();
    for (name, answer) in echoes() {
        // For the code, for the refresh token, for the revocation.
        idp.always(answer.clone());
        let pending = start(&watch, &auth).await;
        let failed = show(&watch, pending.finish(&good_callback()).await).is_none();
        assert!(failed, "{name}");
        idp.always(token());
        let pending = start(&watch, &auth).await;
        let session = pending.finish(&good_callback()).await.unwrap();
        idp.always(answer);
        let (cache, clock) = cache(session.clone());
        show(&watch, cache.token().await);
        let failed = hurried(&clock, cache.refresh()).await;
        assert!(show(&watch, failed).is_none(), "{name}");
        show(&watch, session.logout().await);
        watch.debug(&cache);
        idp.always(token());
    }
    watch.end();
}

#[tokio::test]
async fn p55_rejected_callbacks_do_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let issuer = idp.issuer();
    let auth = sign_in(&idp)
        .issuer_always_sent(issuer.as_str())
        .build()
        .unwrap();
    let iss = format!("iss={}", encoded(&issuer));
    let [code, state, all] = [Code.text(), State.text(), echo()].map(|text| encoded(&text));
    for callback in [
        // Another login's.
        format!(
            "{REDIRECT}?code={code}&{iss}&state={}",
            encoded(&Hint.text())
        ),
        format!("{REDIRECT}?code={code}&{iss}"),
        // From another server, or without an issuer.
        callback(&format!("code={code}")),
        callback(&format!("code={code}&iss=https://{}.example", Query.text())),
        // To another redirect URI.
        format!("https://else.example/?code={code}&state={state}&{iss}"),
        format!(
            "https://u:{}@app.example/callback?code={code}&state={state}",
            Userinfo.text()
        ),
        format!("/else/{code}?state={state}"),
        // Neither code nor error, both, or one twice.
        callback(&iss),
        callback(&format!("code=&{iss}")),
        callback(&format!("code={code}&code={code}&{iss}")),
        callback(&format!("code={code}&error=access_denied&{iss}")),
        callback(&format!("state={state}&code={code}&{iss}")),
        callback(&format!("{iss}&{iss}&code={code}")),
        // Errors, and tokens in the fragment.
        callback(&format!(
            "error=access_denied&error_description={all}&error_uri={all}&{iss}"
        )),
        callback(&format!("error={all}&{iss}")),
        format!(
            "{REDIRECT}#access_token={}&state={state}",
            encoded(&AccessToken.text())
        ),
        "x".repeat(100_000) + &code,
        echo(),
    ] {
        let pending = start(&watch, &auth).await;
        let error = pending.finish(&callback).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn, "{callback}");
        watch.error(&error);
    }
    assert_eq!(idp.token_requests(), 0);
    // Invalid logins.
    for login in [
        Login::new().state(""),
        Login::new().code_verifier(Verifier.text() + "+"),
        Login::new().code_verifier("short"),
        Login::new().state(State.text()).payload("/orders"),
        Login::new().param("code", Code.text()),
        Login::new().param("state", State.text()),
        Login::new().param("password", Hint.text()),
    ] {
        watch.debug(&login);
        watch.error(&auth.start_with(login).await.unwrap_err());
    }
    // Damaged saved logins.
    let pending = start(&watch, &auth).await;
    let saved = pending.save().expose_secret().to_owned();
    let other = saved.replace("\"version\":1", "\"version\":9");
    let quoted = saved.replace("\"version\":1", &format!("\"version\":{:?}", State.text()));
    let verifier = saved.replace(&Verifier.text(), "too short");
    for damaged in [
        &saved[1..],
        &saved[..saved.len() - 1],
        &other,
        &quoted,
        &verifier,
        "",
        &echo(),
    ] {
        let error = auth.resume(damaged).unwrap_err();
        watch.text(
            "Display of a damaged login",
            format!("{error} {error:?} {:?}", error.source()),
        );
    }
    watch.end();
}

#[tokio::test]
async fn p55_pushed_authorization_request_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let auth = sign_in(&idp).pushed_request_url(idp.issuer() + "/oauth2/v1/par");
    let auth = auth.build().unwrap();
    let reference = format!("urn:x:{}", Query.text());
    let answer = |expires_in: serde_json::Value| {
        Answer::json(
            201,
            json!({"request_uri": reference, "expires_in": expires_in, "x": echo()}),
        )
    };
    idp.then(answer(60.into()));
    let pending = start(&watch, &auth).await;
    assert_eq!(parameter(pending.url(), "request_uri"), reference);
    for bad in [json!(0), json!(echo()), json!([echo()])] {
        idp.then(answer(bad));
        watch.error(&auth.start_with(login()).await.unwrap_err());
    }
    for (name, answer) in echoes() {
        idp.then(answer);
        let failed = auth.start_with(login()).await;
        assert!(show(&watch, failed).is_none(), "{name}");
    }
    watch.end();
}

/// A login with a listener on loopback: the pages that the browser shows, and the listener's log.
#[tokio::test]
async fn p55_loopback_login_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    let auth = || -> AuthorizationCodeBuilder {
        AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), ClientId.text())
            .client_secret(ClientSecret.text())
    };
    let browser = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    for query in [
        format!("code={}", encoded(&Code.text())),
        format!("code={0}&code={0}", encoded(&Code.text())),
        format!("error=access_denied&error_description={}", encoded(&echo())),
    ] {
        for refused in [false, true] {
            idp.then(match refused {
                true => Answer::json(
                    400,
                    json!({"error": "invalid_grant", "error_description": echo()}),
                ),
                false => token(),
            });
            let (opened, url) = oneshot::channel();
            let auth = auth().build().unwrap();
            let signing_in = tokio::spawn(async move {
                let open = move |url: &str| opened.send(url.to_owned()).unwrap();
                auth.login_on_loopback_with(login(), Duration::from_secs(60), open)
                    .await
            });
            let redirect = parameter(&url.await.unwrap(), "redirect_uri");
            let state = encoded(&State.text());
            for (method, path) in [
                (
                    "GET",
                    format!("?{query}&state=another-{}", encoded(&Hint.text())),
                ),
                ("POST", format!("?{query}&state={state}")),
                ("GET", format!("/{}?{query}", encoded(&Code.text()))),
                ("GET", format!("?{query}&state={state}")),
            ] {
                let method = method.parse().unwrap();
                let asked = browser.request(method, redirect.clone() + &path);
                let page = asked.header("cookie", Cookie.text()).send().await.unwrap();
                watch.text("page", format!("{:?}", page.headers()));
                watch.text("page", page.text().await.unwrap());
            }
            show(&watch, signing_in.await.unwrap());
            idp.recover();
            idp.always(token());
        }
    }
    // The port is in use, or the login times out.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let uri = format!("http://127.0.0.1:{port}/callback?account={}", Query.text());
    let auth_ = auth().redirect_uri(uri).build().unwrap();
    watch.error(&auth_.login_on_loopback(|_| ()).await.unwrap_err());
    let auth = auth().build().unwrap();
    let soon = auth.login_on_loopback_with(login(), Duration::from_millis(10), |_| ());
    watch.error(&soon.await.unwrap_err());
    watch.end();
}

#[tokio::test]
async fn p55_unreachable_server_of_a_login_does_not_leak() {
    alone!();
    let watch = Watch::new().await;
    let (closed, _port) = closed_port();
    let auth = AuthorizationCode::builder(
        format!("{closed}/authorize?account={}", Query.text()),
        format!("{closed}/token?account={}", Query.text()),
        ClientId.text(),
    );
    let auth = auth
        .client_secret(ClientSecret.text())
        .redirect_uri(REDIRECT);
    let auth = auth.pushed_request_url(format!("{closed}/par?account={}", Query.text()));
    watch.debug(&auth);
    let pushing = auth.build().unwrap();
    watch.debug(&pushing);
    watch.error(&pushing.start_with(login()).await.unwrap_err());
    let discovered = AuthorizationCode::discover(closed.as_str(), ClientId.text())
        .build()
        .unwrap();
    watch.debug(&discovered);
    watch.error(&discovered.start_with(login()).await.unwrap_err());
    watch.error(
        &discovered
            .session()
            .fetch(TokenRequest::new())
            .await
            .unwrap_err(),
    );
    watch.end();
}
