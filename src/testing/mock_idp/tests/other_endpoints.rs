//! Metadata, pushed authorization requests and revocation.

use super::*;

const LOGIN: &str = "response_type=code&client_id=app&redirect_uri=https://app.example/cb\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

async fn idp() -> MockIdp {
    let builder = MockIdp::builder().client("app", "").client("other", "");
    builder.start().await.unwrap()
}

async fn post_to(idp: &MockIdp, path: &str, form: &str) -> Http {
    let url = idp.issuer() + path;
    send(&url, "POST", FORM, form).await
}

const PUSH: &str = "/oauth2/v1/par";
const REVOKE: &str = "/oauth2/v1/revoke";

#[tokio::test]
async fn metadata_names_the_endpoints_and_can_be_overridden() {
    let idp = idp().await;
    let url = idp.issuer() + "/.well-known/oauth-authorization-server";
    let document = send(&url, "GET", "", "").await.json();
    assert_eq!(document["issuer"], idp.issuer());
    assert_eq!(document["token_endpoint"], idp.token_url());
    assert_eq!(document["authorization_endpoint"], idp.authorization_url());
    idp.set_metadata("token_endpoint", Value::Null);
    idp.set_metadata("x", 1.into());
    let document = send(&url, "GET", "", "").await.json();
    assert_eq!(document.get("token_endpoint"), None);
    assert_eq!(document["x"], 1);
    assert_eq!(send(&url, "POST", "", "").await.status(), 405);
    let other = idp.issuer() + "/.well-known/oauth-authorization-server/t1";
    assert_eq!(send(&other, "GET", "", "").await.status(), 404);
}

#[tokio::test]
async fn pushed_request_is_valid_once_and_for_its_client() {
    let idp = idp().await;
    let pushed = post_to(&idp, PUSH, LOGIN).await;
    assert_eq!(pushed.status(), 201);
    let uri = pushed.json()["request_uri"].as_str().unwrap().to_owned();
    let url = |client: &str| {
        let url = idp.authorization_url();
        format!("{url}?client_id={client}&request_uri={uri}")
    };
    assert!(idp.sign_in(&url("other")).is_err());
    let back = idp.sign_in(&url("app")).unwrap();
    assert_eq!(back, "https://app.example/cb?code=code-1");
    assert!(idp.sign_in(&url("app")).is_err());
    for (form, status) in [
        ("client_id=unknown", 401),
        ("client_id=app&request_uri=urn:x", 400),
    ] {
        assert_eq!(post_to(&idp, PUSH, form).await.status(), status, "{form}");
    }
    let get = send(&(idp.issuer() + PUSH), "GET", "", "").await;
    assert_eq!(get.status(), 405);
}

#[tokio::test]
async fn revoked_refresh_token_revokes_its_grant() {
    let idp = idp().await;
    let url = format!("{}?{LOGIN}", idp.authorization_url());
    idp.sign_in(&url).unwrap();
    let form = "grant_type=authorization_code&code=code-1&client_id=app\
        &redirect_uri=https://app.example/cb\
        &code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(post(&idp, form).await.status(), 200);
    let revoke = async |form: &str| post_to(&idp, REVOKE, form).await.status();
    let refresh = "grant_type=refresh_token&client_id=app&refresh_token=refresh-";
    // Another client's token and an unknown one are ignored.
    assert_eq!(revoke("client_id=other&token=refresh-1").await, 200);
    assert_eq!(revoke("client_id=app&token=unknown").await, 200);
    assert_eq!(post(&idp, &format!("{refresh}1")).await.status(), 200);
    assert_eq!(revoke("client_id=app&token=refresh-2").await, 200);
    assert_eq!(post(&idp, &format!("{refresh}2")).await.status(), 400);
    assert_eq!(revoke("client_id=app").await, 400);
    assert_eq!(revoke("client_id=unknown&token=x").await, 401);
}
