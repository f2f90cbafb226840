//! Which `WWW-Authenticate` headers of a 401 cause a token request (RFC 9110 §11).
//!
//! `src/token/challenge/tests.rs` has the parser's tables.

use bearer_auth::testing::Answer;

use super::rig::*;

/// Whether a 401 with these header lines causes a token request.
async fn renews(lines: &[&str]) -> bool {
    let rig = rig().await;
    let mut answer = Answer::status(401);
    for line in lines {
        answer = answer.header("www-authenticate", line);
    }
    rig.idp.api_answers("/api/x", answer);
    let response = rig.get("x").await;
    assert_eq!(response.status(), 401);
    assert_eq!(
        response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .count(),
        lines.len()
    );
    rig.landed().await;
    rig.idp.token_requests() == 2
}

#[tokio::test]
async fn p220_scheme_is_case_insensitive_and_its_spelling_can_be_set() {
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let line = format!(r#"{scheme} error="invalid_token""#);
        assert!(renews(&[&line]).await, "{line}");
    }
    let rig = rig_with(|source| source.scheme("bearer")).await;
    assert_eq!(rig.get("a").await.status(), 200);
    assert_eq!(rig.seen(), ["bearer token-1"]);
}

#[tokio::test]
async fn p221_p222_p223_p224_challenge_parameters_decide_about_the_refresh() {
    for (line, expected) in [
        // Case-insensitive, and not repeated (P221).
        (r#"Bearer ERROR="insufficient_scope""#, false),
        (r#"Bearer error="insufficient_scope", ERROR="x""#, true),
        // A token or a quoted string (P222).
        ("Bearer error=insufficient_scope", false),
        // Escapes, and separators within quotes (P223).
        (r#"Bearer error="insufficient\_scope""#, false),
        (
            r#"Bearer error_description="say \"hi\", Bearer error=insufficient_scope""#,
            true,
        ),
        // Whitespace around the equals sign (P224).
        (r#"Bearer error  =  "insufficient_scope""#, false),
    ] {
        assert_eq!(renews(&[line]).await, expected, "{line}");
    }
}

#[tokio::test]
async fn p225_p226_p227_p228_bearer_challenge_is_found_among_others() {
    for lines in [
        &[r#"Basic realm="simple", Bearer realm="apps", type=1"#][..],
        &["Negotiate", r#"Bearer error="invalid_token""#],
        &[r#"Bearer error="invalid_token""#, "Negotiate"],
        &["Negotiate YIIabc==, Bearer realm=x"],
        &[r#"Bearer, DPoP algs="ES256 PS256""#],
        &[r#", Bearer realm="x",, error="invalid_token" ,"#],
    ] {
        assert!(renews(lines).await, "{lines:?}");
    }
    for lines in [
        &[r#"Basic realm="simple", Newauth realm="apps", title="Bearer""#][..],
        &["Negotiate YIIabc==", "NTLM"],
    ] {
        assert!(!renews(lines).await, "{lines:?}");
    }
}

#[tokio::test]
async fn p229_c24_garbage_neither_hides_nor_adds_a_challenge() {
    let long = format!("Foo {}, Bearer realm=x", "a=b,".repeat(2_000));
    for (lines, expected) in [
        (&[r#"Foo $$$, Bearer error="invalid_token""#][..], true),
        (&[r#"Basic realm=,Bearer error=invalid_token"#], true),
        (&[&long], true),
        // Not a challenge: the same as no challenge.
        (&["error=invalid_request,error_description=nonsense"], true),
        (&[r#"Basic realm="Bearer error=invalid_token"#], false),
    ] {
        assert_eq!(renews(lines).await, expected, "{lines:?}");
    }
}
