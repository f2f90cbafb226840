//! User sign-in: the checks of the authorization endpoint and of the two grants.

use super::*;
use crate::testing::RefreshTokens;

// RFC 7636, Appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str =
    "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
const CB: &str = "https://app.example/cb";

async fn idp() -> MockIdp {
    let builder = MockIdp::builder().client("app", "").client("id", "secret");
    builder.redirect_uri(CB).start().await.unwrap()
}

fn url(idp: &MockIdp, more: &str) -> String {
    let url = idp.authorization_url();
    format!("{url}?response_type=code&client_id=app&redirect_uri={CB}&state=s+1&{more}")
}

async fn browse(idp: &MockIdp, more: &str) -> Http {
    send(&url(idp, more), "GET", "", "").await
}

/// `code-1`, `code-2` …
fn consent(idp: &MockIdp) {
    let back = idp.sign_in(&url(idp, CHALLENGE)).unwrap();
    assert!(back.starts_with(CB), "{back}");
}

async fn redeem(idp: &MockIdp, code: &str, more: &str) -> Http {
    let form = format!("grant_type=authorization_code&code={code}&{more}");
    post(idp, &form).await
}

fn right() -> String {
    format!("client_id=app&redirect_uri={CB}&code_verifier={VERIFIER}")
}

async fn refresh(idp: &MockIdp, token: &str) -> Http {
    let form = format!("grant_type=refresh_token&client_id=app&refresh_token={token}");
    post(idp, &form).await
}

#[tokio::test]
async fn browser_is_redirected_with_a_code_or_the_configured_error() {
    let idp = idp().await;
    let answer = browse(&idp, CHALLENGE).await;
    assert_eq!(answer.status(), 302);
    let expected = format!("{CB}?code=code-1&state=s+1");
    assert_eq!(answer.headers("location"), [expected.as_str()]);
    idp.set_iss(Some("https://idp"));
    idp.refuse_sign_in(Some("access_denied"));
    let back = idp.sign_in(&url(&idp, CHALLENGE)).unwrap();
    let query = "error=access_denied&state=s+1&iss=https%3A%2F%2Fidp";
    assert_eq!(back, format!("{CB}?{query}"));
    assert_eq!((idp.authorization_requests(), idp.token_requests()), (2, 0));
    assert_eq!(idp.authorization_log().len(), 2);
    // Scripted answers are for the token endpoint.
    idp.refuse_sign_in(None);
    idp.then(Answer::status(500));
    assert_eq!(browse(&idp, CHALLENGE).await.status(), 302);
    assert_eq!(redeem(&idp, "code-2", &right()).await.status(), 500);
}

#[tokio::test]
async fn unknown_client_or_redirect_uri_is_not_redirected() {
    let idp = idp().await;
    let base = idp.authorization_url();
    for query in [
        format!("response_type=code&redirect_uri={CB}"),
        format!("response_type=code&client_id=other&redirect_uri={CB}"),
        format!("response_type=code&client_id=app&redirect_uri={CB}/"),
        format!("response_type=code&client_id=app&redirect_uri={CB}&redirect_uri={CB}"),
        "response_type=code&client_id=app&redirect_uri=https://evil.example".to_owned(),
    ] {
        let answer = send(&format!("{base}?{query}&{CHALLENGE}"), "GET", "", "").await;
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.headers("location").is_empty());
    }
    assert!(idp.sign_in("https://elsewhere.example/").is_err());
    let answer = send(&base, "DELETE", "", "").await;
    assert_eq!(answer.status(), 405);
}

#[tokio::test]
async fn other_errors_are_redirected_to_the_client() {
    let idp = idp().await;
    for (more, error) in [
        ("", "invalid_request"),
        (
            "code_challenge=short&code_challenge_method=S256",
            "invalid_request",
        ),
        ("code_challenge=short", "invalid_request"),
        ("code_challenge_method=S256", "invalid_request"),
        (&format!("{CHALLENGE}&scope=a&scope=b"), "invalid_request"),
        (&format!("{CHALLENGE}&client_secret=x"), "invalid_request"),
    ] {
        let back = idp.sign_in(&url(&idp, more)).unwrap();
        let expected = format!("{CB}?error={error}&");
        assert!(back.starts_with(&expected), "{more}: {back}");
        assert!(back.ends_with("&state=s+1"));
    }
    let token = url(&idp, CHALLENGE).replace("=code&", "=token&");
    let back = idp.sign_in(&token).unwrap();
    assert!(back.contains("error=unsupported_response_type"));
}

#[tokio::test]
async fn code_is_bound_to_client_redirect_uri_and_verifier() {
    let idp = idp().await;
    for wrong in [
        format!("client_id=id&client_secret=secret&redirect_uri={CB}&code_verifier={VERIFIER}"),
        format!("client_id=app&redirect_uri={CB}/&code_verifier={VERIFIER}"),
        format!("client_id=app&code_verifier={VERIFIER}"),
        format!("client_id=app&redirect_uri={CB}"),
        format!(
            "client_id=app&redirect_uri={CB}&code_verifier={}",
            "x".repeat(43)
        ),
    ] {
        consent(&idp);
        let code = format!("code-{}", idp.authorization_requests());
        let answer = redeem(&idp, &code, &wrong).await;
        answer.is_error(400, "invalid_grant");
    }
    redeem(&idp, "code-99", &right())
        .await
        .is_error(400, "invalid_grant");
    assert_eq!(idp.tokens_issued(), 0);
    // A `plain` challenge is the verifier itself.
    let plain = format!("code_challenge={VERIFIER}");
    idp.sign_in(&url(&idp, &plain)).unwrap();
    let code = format!("code-{}", idp.authorization_requests());
    let answer = redeem(&idp, &code, &right()).await;
    assert_eq!(answer.json()["refresh_token"], "refresh-1");
}

#[tokio::test]
async fn reused_code_revokes_the_tokens_of_its_grant() {
    let idp = idp().await;
    consent(&idp);
    let answer = redeem(&idp, "code-1", &right()).await;
    assert_eq!(answer.json()["access_token"], "token-1");
    let api = get(&idp, "orders", "token-1").await;
    assert_eq!((api.status(), &api.json()["user"]), (200, &json!("alice")));
    redeem(&idp, "code-1", &right())
        .await
        .is_error(400, "invalid_grant");
    assert_eq!(get(&idp, "orders", "token-1").await.status(), 401);
    refresh(&idp, "refresh-1")
        .await
        .is_error(400, "invalid_grant");
}

#[tokio::test]
async fn code_expires_after_ten_minutes() {
    let clock = ManualClock::new();
    let builder = MockIdp::builder().client("app", "").clock(clock.clone());
    let idp = builder.start().await.unwrap();
    consent(&idp);
    clock.advance(Duration::from_secs(600));
    redeem(&idp, "code-1", &right())
        .await
        .is_error(400, "invalid_grant");
}

#[tokio::test]
async fn reused_refresh_token_revokes_its_grant() {
    let idp = idp().await;
    for _ in 0..2 {
        consent(&idp);
    }
    redeem(&idp, "code-1", &right()).await;
    redeem(&idp, "code-2", &right()).await;
    let answer = refresh(&idp, "refresh-1").await.json();
    assert_eq!(answer["refresh_token"], "refresh-3");
    assert_eq!(answer["access_token"], "token-3");
    refresh(&idp, "refresh-1")
        .await
        .is_error(400, "invalid_grant");
    refresh(&idp, "refresh-3")
        .await
        .is_error(400, "invalid_grant");
    for (token, status) in [("token-1", 401), ("token-3", 401), ("token-2", 200)] {
        assert_eq!(get(&idp, "orders", token).await.status(), status, "{token}");
    }
    idp.sign_out_all_users();
    assert_eq!(get(&idp, "orders", "token-2").await.status(), 401);
    refresh(&idp, "refresh-2")
        .await
        .is_error(400, "invalid_grant");
}

#[tokio::test]
async fn refresh_tokens_can_be_kept_or_absent() {
    let idp = idp().await;
    idp.set_refresh_tokens(RefreshTokens::Kept);
    consent(&idp);
    redeem(&idp, "code-1", &right()).await;
    for _ in 0..2 {
        let answer = refresh(&idp, "refresh-1").await;
        assert_eq!(
            (answer.status(), &answer.json()["refresh_token"]),
            (200, &Value::Null)
        );
    }
    idp.set_refresh_tokens(RefreshTokens::Absent);
    consent(&idp);
    let answer = redeem(&idp, "code-2", &right()).await;
    assert_eq!(
        (answer.status(), &answer.json()["refresh_token"]),
        (200, &Value::Null)
    );
}

#[tokio::test]
async fn sign_in_page_asks_for_the_user() {
    let builder = MockIdp::builder().client("<app>", "").sign_in_page();
    let idp = builder.start().await.unwrap();
    let url = url(&idp, CHALLENGE).replace("=app&", "=%3Capp%3E&");
    let page = send(&url, "GET", "", "").await;
    assert_eq!(page.status(), 200);
    assert!(page.body().contains("&lt;app&gt;") && !page.body().contains("<app>"));
    assert!(idp.sign_in(&url).is_err(), "the page waits for input");
    for (form, status, code) in [
        ("decision=sign-in&user=", 200, None),
        ("decision=refuse", 303, Some("error=access_denied")),
        ("decision=sign-in&user=J%C3%B6rg", 303, Some("code=code-1")),
    ] {
        let answer = send(&url, "POST", FORM, form).await;
        assert_eq!(answer.status(), status, "{form}");
        let location = answer
            .headers("location")
            .first()
            .copied()
            .map(str::to_owned);
        let expected = code.map(|code| format!("{CB}?{code}&state=s+1"));
        assert_eq!(location, expected);
    }
    let right = right().replace("=app&", "=%3Capp%3E&");
    assert_eq!(redeem(&idp, "code-1", &right).await.status(), 200);
    assert_eq!(get(&idp, "me", "token-1").await.json()["user"], "Jörg");
}
