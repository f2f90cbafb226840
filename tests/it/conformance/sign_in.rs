//! The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636), native apps (RFC 8252), the best
//! current practice (RFC 9700) and `iss` (RFC 9207).

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientAuth, ConfigError, Error, ErrorKind, Login,
    OAuthErrorCode, Session, TokenRequest, TokenSource as _,
    testing::{Answer, MockIdp, Recorded},
};
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::rig::*;

pub(crate) const REDIRECT: &str = "https://app.example/cb/";
const SECRETS: [&str; 2] = ["client-secret", "verifier-canary"];

/// A mock with the public client `app` and the confidential client `client-id`.
pub(crate) async fn idp() -> MockIdp {
    let clients = MockIdp::builder()
        .client("app", "")
        .client("client-id", "client-secret");
    clients.start().await.unwrap()
}

pub(crate) fn public(idp: &MockIdp) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app")
        .redirect_uri(REDIRECT)
}

pub(crate) fn confidential(idp: &MockIdp) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "client-id")
        .client_secret("client-secret")
        .redirect_uri(REDIRECT)
}

/// Runs a whole login.
pub(crate) async fn signed_in(auth: &AuthorizationCode) -> Session {
    let login = auth.start().await.unwrap();
    let callback = browse(login.url()).await;
    login.finish(&callback).await.unwrap()
}

/// Returns the setting that `build` rejects.
#[track_caller]
fn refused(auth: AuthorizationCodeBuilder) -> &'static str {
    let error: ConfigError = auth.build().unwrap_err();
    error.field()
}

/// Finishes a login with this callback and the right state.
async fn answered(
    idp: &MockIdp,
    auth: AuthorizationCodeBuilder,
    parameters: &str,
) -> Result<Session, Error> {
    let login = auth.build().unwrap().start().await.unwrap();
    browse(login.url()).await;
    let state = login.state().expose_secret();
    let before = idp.token_requests();
    let callback = format!("{REDIRECT}?{parameters}&state={state}");
    let result = login.finish(&callback).await;
    if let Err(error) = &result {
        assert_eq!(error.kind(), ErrorKind::SignIn, "{parameters}");
        assert!(!error.is_retryable());
        assert_eq!(idp.token_requests(), before, "{parameters}");
    }
    result
}

#[tokio::test]
async fn p1_p22_s1_5_s2_3_authorization_request_is_form_encoded_in_the_query() {
    let idp = idp().await;
    let url = idp.authorization_url() + "?tenant=a+b%2Fc";
    let auth = AuthorizationCode::builder(&url, idp.token_url(), "app")
        .redirect_uri("https://app.example/cb?x=1&y=%C3%BC")
        .scope("a:b c/d")
        .param("login_hint", "j@x.example & co");
    let login = auth.build().unwrap().start().await.unwrap();
    assert!(login.url().starts_with(&format!("{url}&")), "to the byte");
    assert!(!login.url().contains(' '));
    browse(login.url()).await;
    let sent = only(idp.authorization_log()).query();
    for (name, expected) in [
        ("tenant", "a b/c"),
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", "https://app.example/cb?x=1&y=%C3%BC"),
        ("scope", "a:b c/d"),
        ("state", login.state().expose_secret()),
        ("code_challenge_method", "S256"),
        ("login_hint", "j@x.example & co"),
    ] {
        assert_eq!(value(&sent, name), Some(expected), "{name}");
    }
    assert_eq!(sent.len(), 9, "and the challenge");
    let url = idp.authorization_url() + "#f";
    let auth = AuthorizationCode::builder(url, idp.token_url(), "app").redirect_uri(REDIRECT);
    assert_eq!(refused(auth), "authorization_url");
}

/// Returns the setting with which a login cannot be started.
#[track_caller]
fn unsendable(error: &Error) -> &'static str {
    assert_eq!(error.kind(), ErrorKind::SignIn);
    let cause = std::error::Error::source(error).unwrap();
    cause.downcast_ref::<ConfigError>().unwrap().field()
}

#[tokio::test]
async fn p4_repeated_parameter_of_a_login_is_an_error() {
    let idp = idp().await;
    let auth = public(&idp).param("prompt", "login").build().unwrap();
    let login = auth.start_with(Login::new().param("prompt", "none"));
    let login = login.await.unwrap();
    let sent = parameters(login.url());
    assert_eq!(value(&sent, "prompt"), Some("none"), "the login's own");
    let names = ["state", "client_id", "code_challenge", "response_type"];
    for name in names {
        assert_eq!(refused(public(&idp).param(name, "x")), "param");
        assert!(
            auth.start_with(Login::new().param(name, "x"))
                .await
                .is_err()
        );
        let url = format!("{}?{name}=x", idp.authorization_url());
        let auth = AuthorizationCode::builder(url, idp.token_url(), "app").redirect_uri(REDIRECT);
        assert_eq!(refused(auth), "authorization_url");
    }
    let url = idp.authorization_url() + "?prompt=login";
    let auth = AuthorizationCode::builder(url, idp.token_url(), "app").redirect_uri(REDIRECT);
    assert_eq!(refused(auth.param("prompt", "none")), "authorization_url");
}

#[tokio::test]
async fn p22_extra_parameters_are_sent_in_each_request() {
    let idp = idp().await;
    let auth = public(&idp)
        .param("audience", "https://api.example/")
        .token_param("resource", "https://api.example/");
    signed_in(&auth.build().unwrap()).await;
    let sent = only(idp.authorization_log()).query();
    assert_eq!(value(&sent, "audience"), Some("https://api.example/"));
    let sent = only(idp.token_log()).form();
    assert_eq!(value(&sent, "resource"), Some("https://api.example/"));
}

#[tokio::test]
async fn p18_s1_9_s2_4_p88_public_client_sends_its_id_with_the_code() {
    let idp = idp().await;
    signed_in(&public(&idp).build().unwrap()).await;
    let request = only(idp.token_log());
    assert_eq!(request.header("authorization"), None);
    let form = request.form();
    assert_eq!(value(&form, "client_id"), Some("app"));
    assert_eq!(value(&form, "client_secret"), None);
}

#[tokio::test]
async fn s1_1_s1_2_s1_9_s2_3_s2_4_p88_code_request_has_basic_auth_and_a_form_body() {
    let idp = idp().await;
    signed_in(&confidential(&idp).build().unwrap()).await;
    let request = only(idp.token_log());
    assert_eq!(credentials(&request), "client-id:client-secret");
    assert!(body(&request).starts_with("grant_type=authorization_code&code=code-1&"));
    let form = request.form();
    for secret in ["code", "code_verifier"].map(|name| value(&form, name).unwrap()) {
        let is_there = |header: &HeaderValue| header.to_str().unwrap().contains(secret);
        assert!(!request.headers.values().any(is_there));
    }
    let names: HashSet<_> = form.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["grant_type", "code", "redirect_uri", "code_verifier"];
    assert_eq!(names, HashSet::from(expected));
    assert_eq!(value(&form, "grant_type"), Some("authorization_code"));
    assert_eq!(request.target, "/oauth2/v1/token");
    // Or in the body, if configured.
    let auth = confidential(&idp).client_auth(ClientAuth::post());
    signed_in(&auth.build().unwrap()).await;
    let request = idp.token_log().pop().unwrap();
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        value(&request.form(), "client_secret"),
        Some("client-secret")
    );
}

#[tokio::test]
async fn s1_6_s2_3_endpoints_may_be_on_different_hosts() {
    let (front, back) = (idp().await, idp().await);
    back.always(token("t"));
    let auth = AuthorizationCode::builder(front.authorization_url(), back.token_url(), "app");
    signed_in(&auth.redirect_uri(REDIRECT).build().unwrap()).await;
    assert_eq!(
        (front.authorization_requests(), front.token_requests()),
        (1, 0)
    );
    assert_eq!(
        (back.authorization_requests(), back.token_requests()),
        (0, 1)
    );
}

#[tokio::test]
async fn p23_p86_redirect_uris_are_validated() {
    let idp = idp().await;
    let builder = || AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app");
    for good in [
        "https://app.example",
        "https://app.example/cb?x=y",
        "http://127.0.0.1:8080/cb",
        "http://[::1]/cb",
        "com.example.app:/oauth2redirect",
        "com.example.app://cb",
    ] {
        assert!(builder().redirect_uri(good).build().is_ok(), "{good}");
    }
    for bad in [
        "/cb",
        "app.example/cb",
        "//app.example/cb",
        "https://app.example/cb#",
        "https://app.example/cb#x",
        "com.example.app:/cb#x",
        "http://app.example/cb",
        "http://localhost.example/cb",
        "myapp:/cb",
        "myapp://cb",
        "javascript:alert(1)",
        "data:text/html,x",
        // URL parsers normalize these, so that the server would see another URI.
        " https://app.example/cb",
        "https://app.example/cb\n",
        "https://app.exa\tmple/cb",
        "https://app.example/ü",
        "https:app.example/cb",
        "https:\\\\app.example\\cb",
        // Parameters that callbacks have themselves.
        "https://app.example/cb?state=x",
        "https://app.example/cb?x=y&code=z",
    ] {
        assert_eq!(
            refused(builder().redirect_uri(bad)),
            "redirect_uri",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn p31_s1_3_both_requests_omit_an_unset_redirect_uri() {
    let idp = MockIdp::builder().client("app", "").start().await.unwrap();
    let auth = AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), "app");
    let login = auth.build().unwrap().start().await.unwrap();
    assert!(!login.url().contains("redirect_uri"));
    let query = format!("code=x&state={}", login.state().expose_secret());
    let callback = format!("https://wherever.example/it-is-registered?{query}");
    assert!(login.finish(&callback).await.is_err());
    let form = idp.token_log()[0].form();
    assert!(form.iter().all(|(name, _)| name != "redirect_uri"));
}

#[tokio::test]
async fn p24_s1_17_s2_8_p202_state_is_random_and_valid_for_one_login() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let mut logins = Vec::new();
    for _ in 0..1_000 {
        logins.push(auth.start().await.unwrap());
    }
    let states: HashSet<_> = logins.iter().map(|l| l.state().expose_secret()).collect();
    assert_eq!(states.len(), 1_000);
    let octets = |state: &str| URL_SAFE_NO_PAD.decode(state).unwrap().len();
    assert!(states.iter().all(|state| octets(state) * 8 >= 128));
    // The callback of one login does not finish another.
    let (first, second) = (auth.start().await.unwrap(), auth.start().await.unwrap());
    let callback = browse(first.url()).await;
    first.finish(&callback).await.unwrap();
    let error = second.finish(&callback).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn p25_callback_with_a_wrong_state_causes_no_request() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let other = auth.start().await.unwrap();
    for state in [
        String::new(),
        "&state=".to_owned(),
        "&state=x".to_owned(),
        format!("&state={}", other.state().expose_secret()),
        format!("&state={}", other.state().expose_secret().to_lowercase()),
    ] {
        for parameters in ["code=x", "error=access_denied"] {
            let login = auth.start().await.unwrap();
            let callback = format!("{REDIRECT}?{parameters}{state}");
            let error = login.finish(&callback).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SignIn);
            assert!(error.oauth_error().is_none(), "not to be believed");
        }
    }
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn p26_unknown_callback_parameters_are_ignored() {
    let idp = idp().await;
    let more = "code=code-1&session_state=a.b&authuser=0&authuser=1&scope=openid";
    assert!(answered(&idp, public(&idp), more).await.is_ok());
}

#[tokio::test]
async fn p27_c27_p78_code_is_sent_only_once() {
    for (answer, kind) in [
        (Answer::drop_connection(), ErrorKind::Transport),
        (Answer::truncated(), ErrorKind::Transport),
        (Answer::unavailable(0), ErrorKind::Status),
        (Answer::status(500), ErrorKind::Status),
        (
            Answer::status(429).header("Retry-After", "0"),
            ErrorKind::Status,
        ),
        (
            Answer::redirect("https://elsewhere.example/"),
            ErrorKind::Status,
        ),
        (
            Answer::oauth_error("temporarily_unavailable"),
            ErrorKind::OAuth,
        ),
        (Answer::oauth_error("invalid_grant"), ErrorKind::OAuth),
        (Answer::oauth_error("invalid_request"), ErrorKind::OAuth),
    ] {
        let idp = idp().await;
        idp.then(answer);
        let login = public(&idp).build().unwrap().start().await.unwrap();
        let callback = browse(login.url()).await;
        let error = login.finish(&callback).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(idp.token_requests(), 1, "{error}");
    }
}

#[tokio::test]
async fn p28_authorization_error_is_typed() {
    let idp = idp().await;
    idp.refuse_sign_in(Some("access_denied"));
    let login = public(&idp).build().unwrap().start().await.unwrap();
    let callback = browse(login.url()).await + "&error_description=no+thanks&error_uri=x";
    let error = login.finish(&callback).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert!(!error.is_retryable());
    let oauth = error.oauth_error().unwrap();
    assert_eq!(*oauth.code(), OAuthErrorCode::AccessDenied);
    assert_eq!(oauth.description(), Some("no thanks"));
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn p29_c27_callback_has_exactly_one_code_or_error() {
    let idp = idp().await;
    for parameters in [
        "x=y",
        "code=",
        "error=",
        "code=code-1&error=access_denied",
        "code=code-1&code=code-1",
        "code=code-1&code=code-2",
        "error=a&error=b",
        "code=code-1&iss=a&iss=a",
        "code=code-1&state=x",
    ] {
        let error = answered(&idp, public(&idp), parameters).await.unwrap_err();
        assert!(error.oauth_error().is_none_or(|_| parameters == "error="));
    }
}

#[tokio::test]
async fn p30_code_is_form_decoded_and_encoded_again() {
    let idp = idp().await;
    idp.always(token("t"));
    let code = "a%2Fb%2bc+d%26%3D%25%C3%BC%3F";
    assert!(
        answered(&idp, public(&idp), &format!("code={code}"))
            .await
            .is_ok()
    );
    let sent = only(idp.token_log()).form();
    assert_eq!(value(&sent, "code"), Some("a/b+c d&=%ü?"));
    // The query alone is accepted, with any characters.
    let login = public(&idp).build().unwrap().start().await.unwrap();
    let state = login.state().expose_secret();
    let query = format!("code=4/0a?b://c&state={state}");
    login.finish(&query).await.unwrap();
    let sent = idp.token_log().pop().unwrap().form();
    assert_eq!(value(&sent, "code"), Some("4/0a?b://c"));
}

#[tokio::test]
async fn p31_s1_3_s1_4_s2_3_redirect_uri_is_verbatim_in_both_requests() {
    for uri in [
        "https://app.example/cb",
        "https://app.example/cb/",
        "https://app.example",
        "https://APP.example:443/a/../cb?x=%2f%2F+y",
        "http://127.0.0.1:8080",
        "com.example.app:/cb",
    ] {
        let builder = MockIdp::builder().client("app", "").redirect_uri(uri);
        let idp = builder.start().await.unwrap();
        let auth = public(&idp).redirect_uri(uri).build().unwrap();
        let login = auth.start().await.unwrap();
        let encoded: String = url::form_urlencoded::byte_serialize(uri.as_bytes()).collect();
        let once = format!("&redirect_uri={encoded}&");
        assert!(login.url().contains(&once), "{}", login.url());
        let callback = browse(login.url()).await;
        assert!(callback.starts_with(uri), "{callback}");
        login.finish(&callback).await.unwrap();
        let sent = only(idp.token_log()).form();
        assert_eq!(value(&sent, "redirect_uri"), Some(uri));
    }
}

#[tokio::test]
async fn p71_p72_p73_p74_s1_11_s2_6_challenge_is_the_hash_of_the_verifier() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let mut verifiers = HashSet::new();
    for _ in 0..3 {
        signed_in(&auth).await;
        let asked = idp.authorization_log().pop().unwrap().query();
        let sent = idp.token_log().pop().unwrap().form();
        let verifier = value(&sent, "code_verifier").unwrap();
        assert!((43..=128).contains(&verifier.len()));
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        assert_eq!(value(&asked, "code_challenge"), Some(digest.as_str()));
        assert_eq!(digest.len(), 43, "no padding");
        assert!(verifiers.insert(verifier.to_owned()), "a new one each time");
    }
}

#[tokio::test]
async fn p71_p73_s1_11_s2_6_configured_verifier_is_validated_and_used() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    // RFC 7636, Appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let login = auth
        .start_with(Login::new().code_verifier(verifier))
        .await
        .unwrap();
    let callback = browse(login.url()).await;
    login.finish(&callback).await.unwrap();
    let asked = only(idp.authorization_log()).query();
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    assert_eq!(value(&asked, "code_challenge"), Some(challenge));
    let sent = only(idp.token_log()).form();
    assert_eq!(value(&sent, "code_verifier"), Some(verifier));
    for bad in [
        "x".repeat(42),
        "x".repeat(129),
        "x y".repeat(20),
        "ü".repeat(43),
    ] {
        let error = auth
            .start_with(Login::new().code_verifier(bad))
            .await
            .unwrap_err();
        assert_eq!(unsendable(&error), "code_verifier");
    }
}

#[tokio::test]
async fn p75_p76_s1_10_s2_5_p201_s256_is_the_default_and_plain_is_explicit() {
    let idp = idp().await;
    for auth in [public(&idp), confidential(&idp)] {
        let asked = parameters(auth.build().unwrap().start().await.unwrap().url());
        assert_eq!(value(&asked, "code_challenge_method"), Some("S256"));
        assert!(value(&asked, "code_challenge").is_some());
    }
    let auth = public(&idp).insecure_plain_challenge().build().unwrap();
    signed_in(&auth).await;
    let asked = only(idp.authorization_log()).query();
    assert_eq!(value(&asked, "code_challenge_method"), Some("plain"));
    let sent = only(idp.token_log()).form();
    let verifier = value(&sent, "code_verifier");
    assert_eq!(value(&asked, "code_challenge"), verifier);
}

#[tokio::test]
async fn p76_s1_10_s2_5_sha256_is_sent_as_s256() {
    let idp = idp().await;
    for spelling in ["S256", "s256", "SHA256", "SHA-256"] {
        let auth = public(&idp).code_challenge_method(spelling);
        signed_in(&auth.build().unwrap()).await;
        let asked = idp.authorization_log().pop().unwrap().query();
        assert_eq!(value(&asked, "code_challenge_method"), Some("S256"));
    }
    for other in ["plain", "S512", ""] {
        let auth = public(&idp).code_challenge_method(other);
        assert_eq!(refused(auth), "code_challenge_method");
    }
}

#[tokio::test]
async fn p77_verifier_is_sent_only_with_the_code() {
    let idp = idp().await;
    let verifier = "verifier-canary-0123456789-0123456789-0123456789";
    let auth = public(&idp).build().unwrap();
    let login = auth
        .start_with(Login::new().code_verifier(verifier))
        .await
        .unwrap();
    let callback = browse(login.url()).await;
    let session = login.finish(&callback).await.unwrap();
    session.fetch(TokenRequest::new()).await.unwrap();
    refresh(&session).await.unwrap();
    assert!(!only(idp.authorization_log()).target.contains("canary"));
    let [code, refreshed] = <[_; 2]>::try_from(idp.token_log()).unwrap();
    assert_eq!(value(&code.form(), "code_verifier"), Some(verifier));
    assert_eq!(
        value(&refreshed.form(), "grant_type"),
        Some("refresh_token")
    );
    assert!(!body(&refreshed).contains("canary"));
}

/// Refreshes the session.
pub(crate) async fn refresh(session: &Session) -> Result<(), Error> {
    let cache = bearer_auth::TokenCache::new(session.clone());
    cache.token().await?;
    cache.refresh().await.map(drop)
}

#[tokio::test]
async fn p78_p79_rejected_verifier_is_a_permanent_error_without_fallback_to_plain() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let (one, other) = (auth.start().await.unwrap(), auth.start().await.unwrap());
    let callback = browse(one.url()).await;
    browse(other.url()).await;
    // The second login's code in the callback of the first.
    let swapped = callback.replace("code-1", "code-2");
    let error = one.finish(&swapped).await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidGrant);
    assert!(!error.is_retryable());
    assert_eq!(idp.token_requests(), 1);
    // A server without S256 returns an error; the client does not fall back to `plain`.
    idp.refuse_sign_in(Some("invalid_request"));
    let login = auth.start().await.unwrap();
    let callback = browse(login.url()).await;
    assert!(login.finish(&callback).await.is_err());
    for request in idp.authorization_log() {
        assert_eq!(
            value(&request.query(), "code_challenge_method"),
            Some("S256")
        );
    }
    assert_eq!((idp.authorization_requests(), idp.token_requests()), (3, 1));
}

#[tokio::test]
async fn p80_p87_pkce_can_be_disabled_only_with_a_secret() {
    let idp = idp().await;
    assert_eq!(refused(public(&idp).without_pkce()), "without_pkce");
    let none = confidential(&idp).client_auth(ClientAuth::none());
    assert_eq!(refused(none.without_pkce()), "without_pkce");
    signed_in(&confidential(&idp).without_pkce().build().unwrap()).await;
    let asked = only(idp.authorization_log()).query();
    assert_eq!(value(&asked, "code_challenge"), None);
    assert_eq!(value(&asked, "code_challenge_method"), None);
    let sent = only(idp.token_log()).form();
    assert_eq!(value(&sent, "code_verifier"), None);
}

#[tokio::test]
async fn p81_authorization_url_is_not_requested_by_the_crate() {
    let idp = idp().await;
    idp.always(token("t"));
    for auth in [public(&idp), confidential(&idp)] {
        let login = auth.build().unwrap().start().await.unwrap();
        let state = login.state().expose_secret();
        let callback = format!("{REDIRECT}?code=x&state={state}");
        let session = login.finish(&callback).await.unwrap();
        session.fetch(TokenRequest::new()).await.unwrap();
    }
    assert_eq!(idp.authorization_requests(), 0);
    assert_eq!(idp.token_requests(), 2);
}

#[tokio::test]
async fn p89_callbacks_of_two_logins_are_separate() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let (one, other) = (auth.start().await.unwrap(), auth.start().await.unwrap());
    let (to_one, to_other) = (browse(one.url()).await, browse(other.url()).await);
    for (login, callback) in [(one, to_other), (other, to_one)] {
        let error = login.finish(&callback).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
    }
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn p90_callback_to_another_redirect_uri_is_rejected() {
    let idp = idp().await;
    for (registered, elsewhere) in [
        ("https://app.example/cb/", "https://app.example/cb"),
        ("https://app.example/cb", "https://app.example/cb/x"),
        ("https://app.example/cb", "https://evil.example/cb"),
        ("https://app.example/cb", "https://app.example:444/cb"),
        ("https://app.example/cb", "/other"),
        ("http://127.0.0.1:8080/cb", "http://127.0.0.1:8081/cb"),
        ("com.example.app:/cb", "com.example.app:/other"),
        ("com.example.app:/cb", "com.evil.app:/cb"),
        ("com.example.app://cb", "com.example.app://other"),
        // For example, a parameter that tells two servers apart.
        ("https://app.example/cb?at=a", "https://app.example/cb?at=b"),
        ("https://app.example/cb?at=a", "https://app.example/cb"),
    ] {
        let auth = public(&idp).redirect_uri(registered).build().unwrap();
        let login = auth.start().await.unwrap();
        let callback = browse(login.url()).await;
        let answer = callback.strip_prefix(registered).unwrap();
        let to = format!("{elsewhere}{answer}");
        let error = login.finish(&to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn, "{to}");
        let login = auth.start().await.unwrap();
        let callback = browse(login.url()).await;
        let before = idp.token_requests();
        login.finish(&callback).await.unwrap();
        assert_eq!(idp.token_requests(), before + 1);
    }
    // The path and query alone, as in HTTP handlers.
    let auth = public(&idp).build().unwrap();
    for from in [
        REDIRECT.len() + 1,
        REDIRECT.len(),
        "https://app.example".len(),
    ] {
        let login = auth.start().await.unwrap();
        let callback = browse(login.url()).await;
        login.finish(&callback[from..]).await.unwrap();
    }
}

#[tokio::test]
async fn p161_p162_p163_p164_p165_iss_of_the_callback_is_checked() {
    let idp = idp().await;
    let issuer = idp.issuer();
    let known = || public(&idp).issuer(&issuer);
    let always = || public(&idp).issuer_always_sent(&issuer);
    idp.set_iss(Some(&issuer));
    for auth in [public(&idp), known(), always()] {
        signed_in(&auth.build().unwrap()).await;
    }
    // A similar issuer is another issuer.
    let wrong = [
        format!("{issuer}/"),
        issuer.to_uppercase(),
        "https://evil.example".to_owned(),
        String::new(),
    ];
    for iss in wrong {
        let iss: String = url::form_urlencoded::byte_serialize(iss.as_bytes()).collect();
        for auth in [known(), always()] {
            let parameters = format!("code=code-1&iss={iss}");
            assert!(answered(&idp, auth, &parameters).await.is_err());
        }
        let parameters = format!("error=access_denied&iss={iss}");
        let error = answered(&idp, known(), &parameters).await.unwrap_err();
        assert!(error.oauth_error().is_none(), "another's error");
    }
    // A missing issuer is an error if the server always sends it.
    idp.set_iss(None);
    signed_in(&known().build().unwrap()).await;
    for parameters in ["code=code-1", "error=access_denied"] {
        let error = answered(&idp, always(), parameters).await.unwrap_err();
        assert!(error.oauth_error().is_none());
    }
}

#[tokio::test]
async fn p166_p205_check_together_rejects_ambiguous_clients() {
    let (a, b) = (idp().await, idp().await);
    let check = |one: AuthorizationCodeBuilder, other: AuthorizationCodeBuilder| {
        let clients = [one.build().unwrap(), other.build().unwrap()];
        AuthorizationCode::check_together(&clients)
    };
    let field = |result: Result<(), ConfigError>| result.unwrap_err().field();
    let elsewhere = || public(&b).redirect_uri("https://app.example/other");
    // Both share a redirect URI, and at least one does not send its issuer.
    assert_eq!(field(check(public(&a), public(&b))), "redirect_uri");
    let may_say = public(&a).issuer("https://a");
    assert_eq!(
        field(check(may_say, public(&b).issuer("https://b"))),
        "redirect_uri"
    );
    let says = public(&a).issuer_always_sent("https://a");
    assert_eq!(field(check(says, public(&b))), "redirect_uri");
    let says = || public(&a).issuer_always_sent("https://a");
    assert!(check(says(), public(&b).issuer_always_sent("https://b")).is_ok());
    assert!(check(public(&a), elsewhere()).is_ok());
    // Two servers with the same issuer are ambiguous.
    assert_eq!(
        field(check(says(), elsewhere().issuer_always_sent("https://a"))),
        "issuer"
    );
    assert_eq!(
        field(check(says(), elsewhere().issuer("https://a"))),
        "issuer"
    );
    // Two clients of the same server are allowed.
    assert!(check(public(&a), confidential(&a)).is_ok());
}

#[tokio::test]
async fn p167_p205_code_is_sent_only_to_the_server_of_the_login() {
    let (honest, evil) = (idp().await, idp().await);
    let at_honest = public(&honest).issuer_always_sent(honest.issuer());
    let at_evil = public(&evil).issuer_always_sent(evil.issuer());
    let (at_honest, at_evil) = (at_honest.build().unwrap(), at_evil.build().unwrap());
    AuthorizationCode::check_together(&[at_honest.clone(), at_evil.clone()]).unwrap();
    honest.set_iss(Some(&honest.issuer()));
    // The user chose the malicious server, which redirects the browser to the honest one.
    let login = at_evil.start().await.unwrap();
    let onward = login.url().replace(&evil.issuer(), &honest.issuer());
    let callback = browse(&onward).await;
    let saved = login.save();
    let error = login.finish(&callback).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    // The login cannot be finished with another server's client.
    assert!(at_honest.resume(saved.expose_secret()).is_err());
    assert_eq!((honest.token_requests(), evil.token_requests()), (0, 0));
}

#[tokio::test]
async fn p202_login_without_a_state_is_an_error() {
    let idp = idp().await;
    let no_pkce = || confidential(&idp).without_pkce();
    for auth in [public(&idp), confidential(&idp), no_pkce()] {
        let auth = auth.build().unwrap();
        let asked = parameters(auth.start().await.unwrap().url());
        assert_eq!(value(&asked, "state").unwrap().len(), 43);
        for (login, field) in [
            (Login::new().state(""), "state"),
            (Login::new().param("state", ""), "param"),
        ] {
            let error = auth.start_with(login).await.unwrap_err();
            assert_eq!(unsendable(&error), field);
        }
    }
    assert_eq!(refused(no_pkce().param("state", "")), "param");
}

#[tokio::test]
async fn p204_password_grant_has_no_setting_of_its_own() {
    let idp = idp().await;
    let session = signed_in(&public(&idp).build().unwrap()).await;
    refresh(&session).await.unwrap();
    let sent: Vec<_> = idp.token_log().iter().map(Recorded::form).collect();
    let grants: Vec<_> = sent.iter().map(|form| value(form, "grant_type")).collect();
    assert_eq!(grants, [Some("authorization_code"), Some("refresh_token")]);
    let odd = public(&idp).token_param("grant_type", "password");
    assert_eq!(refused(odd), "token_param");
    assert_eq!(refused(public(&idp).param("password", "p")), "param");
    // `grant_type` accepts any grant, by its full name.
    let odd = || client(&idp).grant_type("password").param("password", "p");
    assert!(odd().build().is_ok());
    assert_eq!(super::rig::refused(odd().params_in_query()), "param");
}

#[tokio::test]
async fn p203_tokens_in_a_callback_are_an_error() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let asked = parameters(auth.start().await.unwrap().url());
    assert_eq!(value(&asked, "response_type"), Some("code"));
    assert_eq!(
        refused(public(&idp).param("response_type", "token")),
        "param"
    );
    for callback in [
        "{uri}#access_token=x&token_type=bearer&state={state}",
        "{uri}?access_token=x&token_type=bearer&state={state}",
        "{uri}?code=code-1&state={state}#access_token=x",
    ] {
        let login = auth.start().await.unwrap();
        let callback = callback.replace("{state}", login.state().expose_secret());
        let error = login.finish(&callback.replace("{uri}", REDIRECT)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::SignIn);
    }
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn s1_13_s1_14_s2_7_authorization_and_token_request_have_their_own_scopes() {
    let idp = idp().await;
    // The authorization request has more scopes than the token request.
    let auth = public(&idp)
        .scope("openid profile")
        .scope(" a:read  b:read ")
        .token_scope("a:read openid");
    let session = signed_in(&auth.build().unwrap()).await;
    let asked = only(idp.authorization_log()).query();
    assert_eq!(value(&asked, "scope"), Some("openid profile a:read b:read"));
    let sent = only(idp.token_log()).form();
    assert_eq!(value(&sent, "scope"), Some("a:read openid"));
    drop(session);
    // By default, the token request has no scope.
    signed_in(&public(&idp).scope("a").build().unwrap()).await;
    let sent = idp.token_log().pop().unwrap().form();
    assert_eq!(value(&sent, "scope"), None);
    assert_eq!(refused(public(&idp).scope("a\"b")), "scope");
    assert_eq!(refused(public(&idp).token_scope("é")), "token_scope");
}

#[tokio::test]
async fn s1_12_s2_7_unset_scope_is_not_sent() {
    let idp = idp().await;
    let session = signed_in(&public(&idp).build().unwrap()).await;
    refresh(&session).await.unwrap();
    assert_eq!(value(&only(idp.authorization_log()).query(), "scope"), None);
    for request in idp.token_log() {
        assert_eq!(value(&request.form(), "scope"), None);
    }
}

#[tokio::test]
async fn s1_16_s2_8_configured_state_is_returned_verbatim() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    for state in ["a b&c=d+e%", "%2B%20+", "ü€/?#", "{\"a\":[1]}"] {
        let login = auth.start_with(Login::new().state(state)).await.unwrap();
        let callback = browse(login.url()).await;
        assert_eq!(value(&parameters(&callback), "state"), Some(state));
        login.finish(&callback).await.unwrap();
    }
    assert!(auth.start_with(Login::new().state("")).await.is_err());
    let login = auth.start_with(Login::new().state("a+b")).await.unwrap();
    let other = format!("{REDIRECT}?code=x&state=a+b");
    let error = login.finish(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert_eq!(idp.token_requests(), 4);
}

#[tokio::test]
async fn s1_18_s2_8_payload_is_part_of_the_state_and_protected_by_it() {
    let idp = idp().await;
    let auth = public(&idp).build().unwrap();
    let payload = "/orders?id=1&x=a b.c";
    let start = || auth.start_with(Login::new().payload(payload));
    let login = start().await.unwrap();
    let callback = browse(login.url()).await;
    let state = parameters(&callback);
    let (random, travelled) = value(&state, "state").unwrap().split_once('.').unwrap();
    assert_eq!((random.len(), travelled), (43, payload));
    // A changed payload is a changed state.
    let login = auth.resume(login.save().expose_secret()).unwrap();
    assert_eq!(login.payload(), Some(payload));
    let forged = callback.replace("orders", "evil");
    assert_ne!(forged, callback);
    let error = start().await.unwrap().finish(&forged).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    assert_eq!(idp.token_requests(), 0);
    login.finish(&callback).await.unwrap();
    let both = Login::new().payload("x").state("y");
    let error = auth.start_with(both).await.unwrap_err();
    assert_eq!(unsendable(&error), "payload");
}

#[tokio::test]
async fn p55_c21_login_shows_no_secret() {
    let idp = idp().await;
    let auth = confidential(&idp)
        .param("p", "param-canary")
        .token_param("q", "param-canary")
        .header("x", "header-canary");
    let shown = format!("{auth:?}");
    let auth = auth.build().unwrap();
    let state = "state-canary-0123456789-0123456789-0123456789";
    let verifier = "verifier-canary-0123456789-0123456789-0123456789";
    let login = Login::new().state(state).code_verifier(verifier);
    let login = login.param("r", "param-canary");
    let shown = format!("{shown} {auth:?} {login:?} {login:#?}");
    let login = auth.start_with(login).await.unwrap();
    let saved = login.save();
    let callback = browse(login.url()).await;
    let shown = format!("{shown} {login:?} {login:#?} {saved:?}");
    let session = login.finish(&callback).await.unwrap();
    let response = session.fetch(TokenRequest::new()).await.unwrap();
    let shown = format!("{shown} {auth:#?} {session:?} {session:#?} {response:?}");
    for secret in SECRETS
        .iter()
        .chain(&["canary", "code-1", "token-1", "refresh-1"])
    {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    // Nor in errors.
    let login = auth.resume(saved.expose_secret()).unwrap();
    let error = login.finish(&callback).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OAuth);
    kind(&error, "canary");
    kind(&error, "code-1");
    let error = auth.resume("canary").map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[tokio::test]
async fn p202_s1_11_saved_login_is_finished_in_another_process() {
    let idp = idp().await;
    let login = public(&idp).build().unwrap().start().await.unwrap();
    let saved = login.save();
    let callback = browse(login.url()).await;
    drop(login);
    // As in another process with the same settings.
    let auth = public(&idp).build().unwrap();
    let login = auth.resume(saved.expose_secret()).unwrap();
    login.finish(&callback).await.unwrap();
    let asked = only(idp.authorization_log()).query();
    let sent = only(idp.token_log()).form();
    let digest = Sha256::digest(value(&sent, "code_verifier").unwrap());
    let digest = URL_SAFE_NO_PAD.encode(digest);
    assert_eq!(value(&asked, "code_challenge"), Some(digest.as_str()));
    assert!(
        confidential(&idp)
            .build()
            .unwrap()
            .resume(saved.expose_secret())
            .is_err()
    );
    for damaged in ["", "{}", &saved.expose_secret()[1..]] {
        assert!(auth.resume(damaged).is_err());
    }
}
