//! The configurations of `provider` for users and for discovered servers. The mock answers as the
//! vendors' manuals say.

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientCredentials, ErrorKind, OAuthErrorCode,
    TokenCache, provider,
    testing::{Answer, MockIdp},
};
use serde_json::json;

use super::rig::{browse, fetch, parameters, refused, rig, value};

const CALLBACK: &str = "https://app.example/callback";
const TENANT: &str = "/11111111-2222-3333-4444-555555555555";

fn paths(idp: &MockIdp) -> Vec<String> {
    let log = idp.token_log();
    log.iter().map(|sent| sent.target.clone()).collect()
}

/// Signs in and refreshes once. Returns the authorization request and both token requests.
async fn session(
    idp: &MockIdp,
    auth: AuthorizationCodeBuilder,
) -> (Vec<(String, String)>, [Vec<(String, String)>; 2]) {
    let login = auth.build().unwrap().start().await.unwrap();
    let pushed = idp.token_log().pop();
    let asked = match pushed.filter(|sent| sent.path().ends_with("/par")) {
        Some(pushed) => pushed.form(),
        None => parameters(login.url()),
    };
    let callback = browse(login.url()).await;
    let session = login.finish(&callback).await.unwrap();
    let cache = TokenCache::new(session);
    cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    let mut log = idp.token_log();
    let renewed = log.pop().unwrap().form();
    (asked, [log.pop().unwrap().form(), renewed])
}

async fn public(id: &str, path: &str) -> MockIdp {
    let builder = MockIdp::builder().client(id, "").issuer_path(path);
    builder.start().await.unwrap()
}

fn smart_completions(idp: &MockIdp) -> AuthorizationCodeBuilder {
    let (auth_url, token_url) = (idp.authorization_url(), idp.token_url());
    provider::smart_completions_sign_in(auth_url, token_url, "app")
        .redirect_uri(CALLBACK)
        .scope("openid ingr.api")
}

#[tokio::test]
async fn s1_3_s1_12_s2_3_smart_completions_builds_with_the_required_settings() {
    let idp = public("app", "").await;
    let (asked, [code, renewed]) = session(&idp, smart_completions(&idp)).await;
    assert_eq!(value(&asked, "redirect_uri"), Some(CALLBACK));
    assert_eq!(value(&asked, "scope"), Some("openid ingr.api"));
    assert_eq!(value(&asked, "code_challenge_method"), Some("S256"));
    assert_eq!(value(&code, "grant_type"), Some("authorization_code"));
    assert_eq!(value(&code, "redirect_uri"), Some(CALLBACK));
    assert_eq!(value(&renewed, "grant_type"), Some("refresh_token"));
}

#[tokio::test]
async fn s1_3_s1_8_s1_12_smart_completions_requires_redirect_uri_client_id_and_scope() {
    let at = |id: &str, callback: &str, scope: &str| {
        let (auth, token) = ("https://sc.example/a", "https://sc.example/t");
        let auth = provider::smart_completions_sign_in(auth, token, id)
            .redirect_uri(callback)
            .scope(scope);
        auth.build().unwrap_err().field()
    };
    assert_eq!(at("app", "", "openid"), "redirect_uri");
    assert_eq!(at("app", CALLBACK, ""), "scope");
    assert_eq!(at("app", CALLBACK, "  "), "scope");
    assert_eq!(at("", CALLBACK, "openid"), "client_id");
    // Each endpoint is checked.
    for (auth, token, field) in [
        ("", "https://sc.example/t", "authorization_url"),
        ("https://sc.example/a", "", "token_url"),
    ] {
        let auth = provider::smart_completions_sign_in(auth, token, "app")
            .redirect_uri(CALLBACK)
            .scope("openid");
        assert_eq!(auth.build().unwrap_err().field(), field);
    }
}

#[tokio::test]
async fn s2_2_smart_api_manager_endpoints_are_below_the_base_url() {
    let base = "https://sam.example:8443/sam/";
    let auth = provider::smart_api_manager_sign_in(base, "app")
        .redirect_uri(CALLBACK)
        .scope("openid api");
    let login = auth.build().unwrap().start().await.unwrap();
    let endpoint = "https://sam.example:8443/sam/oauth/connect/authorize?";
    assert!(login.url().starts_with(endpoint), "{}", login.url());
    let none = provider::smart_api_manager_sign_in(base, "app")
        .redirect_uri(CALLBACK)
        .scope("");
    assert_eq!(none.build().unwrap_err().field(), "scope");
    let none = provider::smart_api_manager_sign_in(base, "app")
        .redirect_uri("")
        .scope("api");
    assert_eq!(none.build().unwrap_err().field(), "redirect_uri");
    let wrong = provider::smart_api_manager_sign_in("sam", "app")
        .redirect_uri(CALLBACK)
        .scope("api");
    assert_eq!(wrong.build().unwrap_err().field(), "base");
    // Client credentials.
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::json(
        200,
        json!({"access_token": "t", "expires_in": 86400, "token_type": "Bearer"}),
    ));
    let base = format!("{}/sam", idp.issuer());
    let service = |secret: &str, scope: &str| {
        provider::smart_api_manager(&base, "client-id", secret).scope(scope)
    };
    fetch(service("client-secret", "fedcba98")).await.unwrap();
    assert_eq!(paths(&idp), ["/sam/oauth/connect/token"]);
    assert_eq!(value(&idp.token_log()[0].form(), "scope"), Some("fedcba98"));
    assert_eq!(refused(service("", "api")), "client_secret");
    assert_eq!(refused(service("secret", "")), "scope");
}

#[tokio::test]
#[cfg(feature = "jwt")]
async fn q14_okta_org_server_requires_private_key_jwt() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use bearer_auth::{ClientAuth, SigningKey};
    let idp = public("0oa1", "").await;
    idp.set_metadata(
        "token_endpoint_auth_methods_supported",
        json!(["client_secret_basic", "private_key_jwt"]),
    );
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = SigningKey::from_pem(key).unwrap().key_id("kid-1");
    // With or without a trailing slash.
    for org in [idp.issuer(), idp.issuer() + "/"] {
        let source = ClientCredentials::discover(provider::okta(org), "0oa1", "")
            .client_auth(ClientAuth::private_key_jwt(key.clone()))
            .scope("okta.users.read");
        fetch(source).await.unwrap();
    }
    let well_known = "/.well-known/oauth-authorization-server";
    assert_eq!(paths(&idp)[..2], [well_known, "/oauth2/v1/token"]);
    let form = idp.token_log()[1].form();
    let assertion = value(&form, "client_assertion").unwrap();
    let claims = assertion.split('.').nth(1).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    // The full URL of the endpoint, as in Okta's documentation.
    assert_eq!(claims["aud"], json!(idp.token_url()));
    assert_eq!(claims["sub"], "0oa1");
    assert_eq!(value(&form, "scope"), Some("okta.users.read"));
}

#[tokio::test]
async fn s2_2_q14_okta_custom_servers_have_their_own_metadata() {
    let idp = public("0oa1", "/oauth2/default").await;
    idp.set_iss(Some(&idp.issuer()));
    let org = idp.issuer().replace("/oauth2/default", "");
    let server = provider::okta_server(&org, "default");
    let auth = AuthorizationCode::discover(server, "0oa1")
        .redirect_uri(CALLBACK)
        .scope("openid offline_access orders:read");
    let (asked, [_, renewed]) = session(&idp, auth).await;
    let well_known = "/oauth2/default/.well-known/oauth-authorization-server";
    assert_eq!(paths(&idp)[0], well_known);
    let scope = Some("openid offline_access orders:read");
    assert_eq!(value(&asked, "scope"), scope);
    assert_eq!(value(&renewed, "client_id"), Some("0oa1"));
    // Another custom server of the same org is another issuer.
    let other = provider::okta_server(&org, "other");
    let source = ClientCredentials::discover(other, "0oa1", "secret");
    let error = fetch(source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Discovery);
    // Okta's error text.
    idp.then(Answer::ok());
    idp.then(Answer::json(
        401,
        json!({"error": "invalid_client", "error_description":
            "The client secret supplied for a confidential client is invalid."}),
    ));
    let server = provider::okta_server(&org, "default");
    let error = fetch(ClientCredentials::discover(server, "0oa1", "wrong"));
    let error = error.await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::InvalidClient);
}

/// Entra ID's response to client credentials.
fn entra_token(token: &str, expires_in: serde_json::Value) -> Answer {
    Answer::json(
        200,
        json!({
            "token_type": "Bearer",
            "expires_in": expires_in,
            "ext_expires_in": 7199,
            "access_token": token,
        }),
    )
}

#[tokio::test]
async fn q1_q2_q4_entra_client_credentials_of_versions_1_and_2() {
    let idp = public("app", &format!("{TENANT}/v2.0")).await;
    let authority = idp.issuer().replace("/v2.0", "");
    let source = || {
        let issuer = provider::entra_id(&authority);
        let source = ClientCredentials::discover(issuer, "app", "secret");
        source.scope("https://graph.microsoft.com/.default")
    };
    for expires_in in [json!(3599), json!("3599")] {
        idp.then(Answer::ok());
        idp.then(entra_token("t", expires_in));
        let response = fetch(source()).await.unwrap();
        // `ext_expires_in`, two hours for outages, does not count.
        assert_eq!(response.expires_in().unwrap().as_secs(), 3599);
    }
    let well_known = format!("{TENANT}/v2.0/.well-known/openid-configuration");
    assert_eq!(paths(&idp)[0], well_known);
    let scope = "scope=https%3A%2F%2Fgraph.microsoft.com%2F.default";
    let body = String::from_utf8(idp.token_log()[1].body.to_vec()).unwrap();
    assert!(body.contains(scope), "{body}");
    // Entra ID's error text.
    idp.then(Answer::ok());
    idp.then(Answer::json(
        401,
        json!({
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client secret provided.",
            "error_codes": [7_000_215],
            "timestamp": "2026-11-21 12:00:00Z",
            "trace_id": "11111111-2222-3333-4444-555555555555",
            "correlation_id": "11111111-2222-3333-4444-555555555555",
            "error_uri": "https://login.microsoftonline.com/error?code=7000215",
        }),
    ));
    let before = idp.token_requests();
    let error = fetch(source()).await.unwrap_err();
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.code(), &OAuthErrorCode::InvalidClient);
    assert!(oauth.description().unwrap().starts_with("AADSTS7000215"));
    assert!(!error.is_retryable());
    assert_eq!(idp.token_requests(), before + 2);
    // Version 1: `resource` names the API.
    let v1 = ClientCredentials::builder(idp.token_url(), "app", "secret")
        .resource("https://graph.microsoft.com");
    idp.then(entra_token("t", json!("3599")));
    fetch(v1).await.unwrap();
    let form = idp.token_log().pop().unwrap().form();
    let api = Some("https://graph.microsoft.com");
    assert_eq!(value(&form, "resource"), api);
}

#[tokio::test]
async fn s2_2_q8_entra_login_for_one_tenant_and_for_all_tenants() {
    let pattern = |host: &str| format!("{host}/{{tenantid}}/v2.0");
    for (tenant, named) in [
        ("/common", pattern as fn(&str) -> String),
        ("/organizations", pattern),
        (TENANT, |host| format!("{host}{TENANT}/v2.0")),
    ] {
        let idp = public("app", &format!("{tenant}/v2.0")).await;
        let authority = idp.issuer().replace("/v2.0", "");
        let host = authority.strip_suffix(tenant).unwrap();
        idp.set_metadata("issuer", named(host).into());
        // Entra ID has no pushed authorization requests.
        let push = "pushed_authorization_request_endpoint";
        idp.set_metadata(push, serde_json::Value::Null);
        for behind in ["", "/", "/v2.0", "/v2.0/"] {
            let authority = authority.clone() + behind;
            let auth = AuthorizationCode::discover(provider::entra_id(authority), "app")
                .redirect_uri(CALLBACK)
                .scope("openid offline_access api://orders/read api://users/read")
                .token_scope("api://orders/read");
            let (asked, [code, _]) = session(&idp, auth).await;
            let scopes = "openid offline_access api://orders/read api://users/read";
            assert_eq!(value(&asked, "scope"), Some(scopes), "{tenant}");
            assert_eq!(value(&code, "scope"), Some("api://orders/read"));
        }
    }
    // The metadata have the tenant's id, not its name.
    let idp = public("app", "/contoso.example/v2.0").await;
    let named = idp.issuer().replace("/contoso.example", TENANT);
    idp.set_metadata("issuer", named.into());
    let authority = idp.issuer().replace("/v2.0", "");
    let auth = AuthorizationCode::discover(provider::entra_id(authority), "app");
    let error = auth.build().unwrap().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Discovery);
}

#[tokio::test]
async fn q6_entra_claims_challenge_is_passed_on_without_a_token_request() {
    let rig = rig().await;
    let claims = "eyJhY2Nlc3NfdG9rZW4iOnt9fQ==";
    let challenge = format!(
        r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", error="insufficient_claims", claims="{claims}""#
    );
    let answer = Answer::status(401).header("www-authenticate", &challenge);
    rig.idp.api_answers("/api/claims", answer);
    let response = rig.get("claims").await;
    assert_eq!(response.status(), 401);
    let given = response.headers().get("www-authenticate").unwrap();
    assert_eq!(given.to_str().unwrap(), challenge);
    // The API would reject another token of the same kind, too.
    assert_eq!((rig.idp.token_requests(), rig.idp.api_requests()), (1, 1));
}

#[tokio::test]
async fn q10_q11_azure_ad_b2c_keeps_the_policy_and_rejects_an_id_token_alone() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.token_url() + "?p=b2c_1_x";
    idp.then(Answer::json(
        200,
        json!({"id_token": "x.y.z", "token_type": "Bearer", "not_before": 1, "profile_info": "e30"}),
    ));
    let source = ClientCredentials::builder(url, "client-id", "client-secret");
    let error = fetch(source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.to_string().contains("access_token"), "{error}");
    assert_eq!(paths(&idp), ["/oauth2/v1/token?p=b2c_1_x"]);
}

#[tokio::test]
async fn q13_entra_scope_without_openid_is_accepted() {
    let idp = public("app", "").await;
    let token = json!({"access_token": "t", "token_type": "Bearer", "scope": "api://orders/read"});
    idp.then(Answer::json(200, token));
    let source = ClientCredentials::builder(idp.token_url(), "app", "secret");
    let response = fetch(source.scope("openid api://orders/read"))
        .await
        .unwrap();
    assert_eq!(response.scope(), Some("api://orders/read"));
}
