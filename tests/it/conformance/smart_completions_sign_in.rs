//! Hexagon Smart Completions 6.0 (`S1`) and 5.3.17 (`S2`), authorization code: the requirements that
//! go beyond the RFCs. `sign_in` and `refresh_token` have the others.

use bearer_auth::{
    AuthorizationCode, OAuthErrorCode, TokenCache,
    testing::{Answer, ManualClock, MockIdp},
};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{
    rig::*,
    sign_in::{REDIRECT, idp, public, refresh, signed_in},
};

/// A callback as another server would send it, with its additional parameters.
fn callback(login: &bearer_auth::PendingLogin, more: &str) -> String {
    let state = login.state().expose_secret();
    format!("{}?code=a.code&state={state}{more}", login.redirect_uri())
}

#[tokio::test]
async fn s1_5_s1_7_s2_3_all_urls_and_the_client_id_are_configurable() {
    for (path, id, uri) in [
        ("/token", "one", "https://one.example/cb"),
        (
            "/sc/6.0/auth/v1/token",
            "two",
            "https://two.example:8443/a/b",
        ),
        ("/realms/a%20b/token/", "three", "http://127.0.0.1:8080/"),
    ] {
        let idp = MockIdp::start().await.unwrap();
        idp.always(token("t"));
        // Also on another port.
        let token_url = idp.issuer() + path;
        let page = format!("https://login.example:9443{path}/authorize");
        let auth = AuthorizationCode::builder(&page, token_url, id).redirect_uri(uri);
        let login = auth.build().unwrap().start().await.unwrap();
        let start = format!("{page}?response_type=code&client_id={id}&redirect_uri=");
        assert!(login.url().starts_with(&start), "{}", login.url());
        let callback = callback(&login, "");
        login.finish(&callback).await.unwrap();
        let sent = only(idp.token_log());
        assert_eq!(sent.target, path);
        let host = idp.issuer().replace("http://", "");
        assert_eq!(sent.header("host"), Some(host.as_str()));
        assert_eq!(value(&sent.form(), "client_id"), Some(id));
        assert_eq!(value(&sent.form(), "redirect_uri"), Some(uri));
    }
}

#[test]
fn s1_8_s2_3_missing_client_id_is_a_configuration_error() {
    for secret in ["", "secret"] {
        let auth = AuthorizationCode::builder("https://sc.example/a", "https://sc.example/t", "")
            .client_secret(secret)
            .redirect_uri(REDIRECT);
        assert_eq!(auth.build().unwrap_err().field(), "client_id");
    }
}

#[tokio::test]
async fn s1_12_s2_7_scopes_are_sent_and_invalid_scope_is_returned() {
    let idp = idp().await;
    let auth = public(&idp).scope("openid profile email api");
    let auth = auth.build().unwrap();
    signed_in(&auth).await;
    let asked = only(idp.authorization_log()).query();
    assert_eq!(value(&asked, "scope"), Some("openid profile email api"));
    let login = auth.start().await.unwrap();
    let sent = "&scope=openid+profile+email+api&";
    assert!(login.url().contains(sent), "{}", login.url());

    // For example, scopes of two APIs. The error may come from either endpoint, after one request.
    idp.refuse_sign_in(Some("invalid_scope"));
    let login = auth.start().await.unwrap();
    let callback = browse(login.url()).await;
    let error = login.finish(&callback).await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidScope);
    assert_eq!(idp.token_requests(), 1);
    idp.refuse_sign_in(None);
    idp.then(Answer::oauth_error("invalid_scope"));
    let login = auth.start().await.unwrap();
    let callback = browse(login.url()).await;
    let error = login.finish(&callback).await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidScope);
    assert!(!error.is_retryable());
    assert_eq!(idp.token_requests(), 2);
}

#[tokio::test]
async fn s1_15_openid_offline_access_is_sent_as_configured() {
    for scope in ["openid offline_access", "openid_offline_access"] {
        let idp = idp().await;
        let auth = public(&idp).scope(scope).build().unwrap();
        let session = signed_in(&auth).await;
        let asked = only(idp.authorization_log()).query();
        assert_eq!(value(&asked, "scope"), Some(scope));
        // The response has a refresh token, which the session uses.
        refresh(&session).await.unwrap();
        let sent = idp.token_log().pop().unwrap().form();
        assert_eq!(value(&sent, "grant_type"), Some("refresh_token"));
        assert_eq!(value(&sent, "refresh_token"), Some("refresh-1"));
    }
}

/// As with an API testing tool, which has a callback page of its own.
#[tokio::test]
async fn s1_19_callback_can_be_passed_in_manually() {
    for uri in [
        "https://oauth.pstmn.io/v1/callback",
        "https://oauth.pstmn.io/v1/browser-callback",
        "https://localhost/",
    ] {
        let builder = MockIdp::builder().client("app", "").redirect_uri(uri);
        let idp = builder.start().await.unwrap();
        let auth = public(&idp).redirect_uri(uri).build().unwrap();
        let login = auth.start().await.unwrap();
        let callback = browse(login.url()).await;
        assert!(callback.starts_with(&format!("{uri}?code=")), "{callback}");
        let session = login.finish(&callback).await.unwrap();
        TokenCache::new(session).token().await.unwrap();
    }
}

#[tokio::test]
async fn s2_2_identity_providers_differ_only_in_configuration() {
    struct Profile {
        page: &'static str,
        token: &'static str,
        secret: Option<&'static str>,
        scope: &'static str,
        token_scope: &'static str,
        param: Option<(&'static str, &'static str)>,
        /// The callback's parameters in addition to code and state.
        more: &'static str,
        answer: serde_json::Value,
    }
    let plain = json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": "r", "scope": "openid api"});
    for profile in [
        // The product's own authorization server.
        Profile {
            page: "/sc/v1/authorize",
            token: "/sc/v1/token",
            secret: None,
            scope: "openid_offline_access",
            token_scope: "",
            param: None,
            more: "",
            answer: plain.clone(),
        },
        // Its API manager: a registered application with a secret.
        Profile {
            page: "/sam/oauth2/authorize?installation=1",
            token: "/sam/oauth2/token?installation=1",
            secret: Some("secret"),
            scope: "openid profile",
            token_scope: "",
            param: None,
            more: "&session_state=a.b",
            answer: plain.clone(),
        },
        // Okta, a custom authorization server.
        Profile {
            page: "/oauth2/default/v1/authorize",
            token: "/oauth2/default/v1/token",
            secret: Some("secret"),
            scope: "openid offline_access api",
            token_scope: "",
            param: Some(("prompt", "login")),
            more: "",
            answer: json!({"token_type": "Bearer", "expires_in": 3600, "access_token": "t",
                "scope": "offline_access openid api", "refresh_token": "r", "id_token": "e.y.J"}),
        },
        // Azure AD, now Entra ID: the token request repeats the scope; numbers are strings.
        Profile {
            page: "/a-tenant/oauth2/v2.0/authorize",
            token: "/a-tenant/oauth2/v2.0/token",
            secret: None,
            scope: "openid offline_access api://an-app/.default",
            token_scope: "api://an-app/.default",
            param: Some(("domain_hint", "organizations")),
            more: "&session_state=0a-1b",
            answer: json!({"token_type": "Bearer", "scope": "api://an-app/read",
                "expires_in": "3599", "ext_expires_in": "3599", "not_before": "1700000000",
                "access_token": "t", "refresh_token": "r"}),
        },
    ] {
        let idp = MockIdp::start().await.unwrap();
        idp.always(Answer::json(200, profile.answer));
        let (page, token) = (idp.issuer() + profile.page, idp.issuer() + profile.token);
        let mut auth = AuthorizationCode::builder(&page, token, "app")
            .client_secret(profile.secret.unwrap_or_default())
            .redirect_uri(REDIRECT)
            .scope(profile.scope)
            .token_scope(profile.token_scope);
        if let Some((name, value)) = profile.param {
            auth = auth.param(name, value);
        }
        // The rest is the same for all servers.
        let login = auth.build().unwrap().start().await.unwrap();
        assert!(login.url().starts_with(&page));
        let asked = parameters(login.url());
        assert_eq!(value(&asked, "scope"), Some(profile.scope));
        if let Some((name, expected)) = profile.param {
            assert_eq!(value(&asked, name), Some(expected));
        }
        let callback = callback(&login, profile.more);
        let session = login.finish(&callback).await.unwrap();
        let cache = TokenCache::new(session);
        assert_eq!(cache.token().await.unwrap().expose_secret(), "t");
        assert!(cache.token().await.unwrap().expires_at().is_some());
        cache.refresh().await.unwrap();

        let [code, refreshed] = <[_; 2]>::try_from(idp.token_log()).unwrap();
        for sent in [&code, &refreshed] {
            assert_eq!(sent.target, profile.token);
            assert_eq!(
                sent.header("authorization").is_some(),
                profile.secret.is_some()
            );
            let id = value(&sent.form(), "client_id").map(str::to_owned);
            assert_eq!(id.is_some(), profile.secret.is_none());
        }
        let scope = value(&code.form(), "scope").unwrap_or_default().to_owned();
        assert_eq!(scope, profile.token_scope);
        assert_eq!(value(&refreshed.form(), "refresh_token"), Some("r"));
    }
}

#[tokio::test]
async fn s2_9_long_access_tokens_are_sent_intact() {
    for size in [8 * 1024, 12 * 1024, 16 * 1024] {
        let clock = ManualClock::new();
        let builder = MockIdp::builder().clock(clock.clone()).client("app", "");
        let idp = builder.start().await.unwrap();
        idp.set_token_size(size);
        let session = signed_in(&public(&idp).build().unwrap()).await;
        let cache = TokenCache::builder(session).clock(clock.clone()).build();
        let rig = rig_of(clock, idp, cache);
        assert_eq!(rig.get("orders").await.status(), 200);
        assert_eq!(rig.seen()[0].len(), "Bearer ".len() + size);
        // The refresh token has this size, too.
        rig.clock.advance(3600 * SECOND);
        assert_eq!(rig.get("orders").await.status(), 200);
        let sent = rig.idp.token_log().pop().unwrap().form();
        assert_eq!(value(&sent, "refresh_token").unwrap().len(), size);
        assert_eq!(rig.idp.api_unauthorized(), 0);
    }
}
