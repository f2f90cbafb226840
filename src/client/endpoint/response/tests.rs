use std::time::UNIX_EPOCH;

use http::HeaderValue;

use super::*;

const INFO: RequestInfo = RequestInfo {
    endpoint: "the token endpoint",
    grant_is_assertion: false,
    auth_is_assertion: false,
};

fn read_response(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<TokenResponse, Error> {
    let mut response = Response::new(Bytes::copy_from_slice(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(content_type) = content_type {
        let value = HeaderValue::from_str(content_type).unwrap();
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    Leniency::default().read(response, None, INFO)
}

fn json(body: &str) -> Result<TokenResponse, Error> {
    read_response(200, Some("application/json"), body.as_bytes())
}

/// Returns the header value of the token.
fn sent(response: TokenResponse) -> String {
    use crate::clock::Clock;
    let now = Clock::default().now();
    let token = response.into_token(now, now, None);
    token.header_value().to_str().unwrap().to_owned()
}

/// Returns everything that an error and its causes show.
fn shown(error: &Error) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        shown += &format!(" {error} {error:?}");
        cause = error.source();
    }
    shown
}

#[test]
fn c1_p42_expires_in_is_parsed_from_any_json_value() {
    let unknown = None;
    let malformed = Some(300);
    let max = Some(u64::MAX);
    for (expires_in, expected) in [
        ("86400", Some(86_400)),
        (r#""86400""#, Some(86_400)),
        (r#""86400.92""#, Some(86_400)),
        ("3599.7", Some(3599)),
        ("3.6e3", Some(3600)),
        ("0", Some(0)),
        ("-0", Some(0)),
        ("0.9", Some(0)),
        (r#""0""#, Some(0)),
        ("null", unknown),
        ("false", malformed),
        ("true", malformed),
        ("{}", malformed),
        ("[3600]", malformed),
        ("-1", malformed),
        ("-0.5", malformed),
        (r#""-60""#, malformed),
        (r#""""#, malformed),
        (r#"" ""#, malformed),
        (r#""zzz""#, malformed),
        (r#""3600abc""#, malformed),
        (r#""3600.""#, malformed),
        (r#"".5""#, malformed),
        (r#""+5""#, malformed),
        (r#""1e3""#, malformed),
        (r#""0x10""#, malformed),
        (r#""inf""#, malformed),
        (r#""NaN""#, malformed),
        (r#""٣""#, malformed),
        ("2147483648", Some(2_147_483_648)),
        ("18446744073709551615", max),
        ("18446744073709551616", max),
        (r#""99999999999999999999999999""#, max),
        ("1e400", max),
    ] {
        let body = format!(r#"{{"access_token":"x","expires_in":{expires_in}}}"#);
        let lifetime = json(&body).unwrap().expires_in();
        let expected = expected.map(Duration::from_secs);
        assert_eq!(lifetime, expected, "{expires_in}");
    }
    assert_eq!(json(r#"{"access_token":"x"}"#).unwrap().expires_in(), None);
    let many_digits = format!(
        r#"{{"access_token":"x","expires_in":"{}"}}"#,
        "9".repeat(1000)
    );
    assert_eq!(
        json(&many_digits).unwrap().expires_in(),
        Some(Duration::from_secs(u64::MAX))
    );
}

#[test]
fn c2_p45_content_type_matters_for_forms_only() {
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=utf-8");
    let body = b"access_token=a%2Fb%2B&token_type=bearer&expires_in=60&scope=a+b&x=%FF";
    for content_type in [FORM, Some("TEXT/PLAIN"), None] {
        let response = read_response(200, content_type, body).unwrap();
        assert_eq!(response.scope(), Some("a b"));
        assert_eq!(response.expires_in(), Some(Duration::from_secs(60)));
        assert_eq!(sent(response), "Bearer a/b+");
    }
    // A form with the content type of JSON is invalid.
    for content_type in ["application/json", "text/html", "image/png", ";", ""] {
        let error = read_response(200, Some(content_type), body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{content_type}");
    }
    // JSON is parsed with any content type.
    for content_type in [
        Some("application/json;charset=UTF-8"),
        Some("application/json; charset=utf-16"),
        Some("text/html"),
        Some("text/plain"),
        FORM,
        None,
    ] {
        for before in ["", "\u{feff}", " \r\n\t", "\u{feff}\n"] {
            let body = format!("{before}{{\"access_token\":\"x\"}}\n");
            assert!(
                read_response(200, content_type, body.as_bytes()).is_ok(),
                "{body:?}"
            );
        }
    }
    let error = read_response(400, FORM, b"error=invalid_grant&error_description=a+b").unwrap_err();
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.code(), &OAuthErrorCode::InvalidGrant);
    assert_eq!(oauth.description(), Some("a b"));
}

/// Descriptions are in the language and the encoding of the server.
#[test]
fn p45_response_that_is_not_utf8_is_decoded_lossily() {
    let latin1 = b"{\"error\":\"invalid_client\",\"error_description\":\"ung\xfcltig\"}";
    let error =
        read_response(400, Some("application/json;charset=ISO-8859-1"), latin1).unwrap_err();
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.code(), &OAuthErrorCode::InvalidClient);
    assert_eq!(oauth.description(), Some("ung\u{fffd}ltig"));

    assert!(json_bytes(b"{\"access_token\":\"x\",\"user\":\"J\xfcrgen\"}").is_ok());
    let error = json_bytes(b"{\"access_token\":\"x\xfc\"}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
}

fn json_bytes(body: &[u8]) -> Result<TokenResponse, Error> {
    read_response(200, Some("application/json"), body)
}

#[test]
fn p44_duplicate_members_are_an_error_and_null_means_absent() {
    for body in [
        r#"{"access_token":"a","access_token":"b"}"#,
        r#"{"access_token":"a","access_token":"a"}"#,
        r#"{"access_token":null,"access_token":"b"}"#,
        r#"{"access_token":"a","access\u005ftoken":"b"}"#,
        r#"{"access_token":"a","expires_in":1,"expires_in":2}"#,
        r#"{"access_token":"a","token_type":"Bearer","token_type":"mac"}"#,
        r#"{"error":"a","error":"b","access_token":"c"}"#,
    ] {
        let error = json(body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{body}");
    }
    let form = b"access_token=a&access_token=b";
    let error = read_response(200, Some("text/plain"), form).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    // Duplicates of unknown members are ignored.
    assert!(json(r#"{"access_token":"a","x":1,"x":2}"#).is_ok());

    let nulls = r#"{"access_token":"a","refresh_token":null,"scope":null,"expires_in":null,
        "token_type":null,"error":null}"#;
    let response = json(nulls).unwrap();
    assert!(response.refresh_token().is_none());
    assert_eq!((response.scope(), response.expires_in()), (None, None));
    assert_eq!(sent(response), "Bearer a");
}

#[test]
fn p36_p38_c4_invalid_token_or_type_is_an_error() {
    for (body, kind) in [
        (r#"{}"#, ErrorKind::InvalidResponse),
        (r#"{"access_token":""}"#, ErrorKind::InvalidResponse),
        (r#"{"access_token":null}"#, ErrorKind::InvalidResponse),
        (r#"{"access_token":123}"#, ErrorKind::InvalidResponse),
        (
            r#"{"access_token":{"canary":1}}"#,
            ErrorKind::InvalidResponse,
        ),
        (r#"{"access_token":"can\nary"}"#, ErrorKind::InvalidResponse),
        (
            r#"{"access_token":"canary\ud800"}"#,
            ErrorKind::InvalidResponse,
        ),
        (
            r#"{"access_token":"canary","token_type":"mac"}"#,
            ErrorKind::UnsupportedTokenType,
        ),
        (
            r#"{"access_token":"canary","token_type":""}"#,
            ErrorKind::UnsupportedTokenType,
        ),
        (
            r#"{"access_token":"canary","token_type":["Bearer"]}"#,
            ErrorKind::UnsupportedTokenType,
        ),
    ] {
        let error = json(body).unwrap_err();
        assert_eq!(error.kind(), kind, "{body}");
        assert!(!shown(&error).contains("canary"));
    }
}

#[test]
fn p5_empty_error_with_a_token_is_ignored() {
    assert!(json(r#"{"access_token":"a","token_type":"Bearer","error":""}"#).is_ok());
    assert!(json(r#"{"access_token":"a","token_type":"Bearer","error":null}"#).is_ok());
}

#[test]
fn p50_c3_error_bodies_are_typed_errors_without_body_text() {
    let malformed = || Some(OAuthErrorCode::Malformed);
    let grant = || Some(OAuthErrorCode::InvalidGrant);
    for (status, body, code) in [
        (200, r#"{"error":"invalid_grant"}"#, grant()),
        (400, r#"{"error":"invalid_grant"}"#, grant()),
        (403, r#"{"error":"invalid_grant"}"#, grant()),
        // An error takes precedence over a token.
        (
            200,
            r#"{"error":"invalid_grant","access_token":"canary"}"#,
            grant(),
        ),
        (400, r#"{"error":429}"#, malformed()),
        (400, r#"{"error":{"canary":1}}"#, malformed()),
        (400, r#"{"error":""}"#, malformed()),
        (400, r#"{"error":"canary with spaces"}"#, malformed()),
        (200, r#"{"ok":false,"error":"invalid_grant"}"#, grant()),
        (500, r#"{"confusing":"canary"}"#, None),
        (400, r#"{"error":null,"message":"canary"}"#, None),
        (200, r#"{"id_token":"canary"}"#, None),
        (200, "null", None),
        (200, "[]", None),
        (200, r#""canary""#, None),
        (200, "42", None),
        (200, r#"{"access_token":"canary"#, None),
        (200, r#"{"access_token":"canary"} {"#, None),
        (200, "<html>canary</html>", None),
        (200, "", None),
        (204, "", None),
        (404, "canary", None),
        (502, "<html>canary</html>", None),
    ] {
        let error = json_with_status(status, body).unwrap_err();
        assert_eq!(
            error.oauth_error().map(|e| e.code().clone()),
            code,
            "{body}"
        );
        let success = (200..300).contains(&status);
        let expected = match code {
            Some(_) => ErrorKind::OAuth,
            None if success => ErrorKind::InvalidResponse,
            None => ErrorKind::Status,
        };
        assert_eq!(error.kind(), expected, "{status} {body}");
        assert!(!shown(&error).contains("canary"), "{body}");
    }
    let deep = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    assert!(json(&deep).is_err());
}

fn json_with_status(status: u16, body: &str) -> Result<TokenResponse, Error> {
    read_response(status, Some("application/json"), body.as_bytes())
}

#[test]
fn p51_status_and_error_code_decide_about_retries() {
    for (status, body, expected) in [
        (500, "", Retry::Soon),
        (503, "", Retry::Soon),
        (429, "", Retry::Soon),
        (408, "", Retry::Soon),
        (400, r#"{"error":"temporarily_unavailable"}"#, Retry::Soon),
        (400, r#"{"error":"server_error"}"#, Retry::Soon),
        (400, r#"{"error":"internal_failure"}"#, Retry::Soon),
        (429, r#"{"error":"too_many_requests"}"#, Retry::Soon),
        // A rate limit, whatever the error code.
        (429, r#"{"error":"invalid_request"}"#, Retry::Soon),
        (429, r#"{"error":"access_denied"}"#, Retry::Soon),
        (500, r#"{"error":"unknown_error"}"#, Retry::Soon),
        (500, r#"{"error":"invalid_grant"}"#, Retry::Never),
        (400, r#"{"error":"invalid_scope"}"#, Retry::Never),
        (400, r#"{"error":"something_new"}"#, Retry::Never),
        (400, r#"{"error":{}}"#, Retry::Never),
        (401, "", Retry::Never),
        (404, "", Retry::Never),
        (302, "", Retry::Never),
        (200, "{}", Retry::Later),
    ] {
        let error = json_with_status(status, body).unwrap_err();
        assert_eq!(error.retry(), expected, "{status} {body}");
    }
}

#[test]
fn p236_retry_after_is_parsed_as_seconds_or_date() {
    // One second before 1994-11-06T08:49:37Z, the example of RFC 9110 §5.6.7.
    let now = UNIX_EPOCH + Duration::from_secs(784_111_776);
    let parse = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        retry_after(&headers, Some(now)).map(|wait| wait.as_secs())
    };
    assert_eq!(parse("120"), Some(120));
    assert_eq!(parse(" 120 "), Some(120));
    assert_eq!(parse("0"), Some(0));
    let max = Some(MAX_RETRY_AFTER.as_secs());
    assert_eq!(parse("99999999999999999999999"), max);
    assert_eq!(parse("Fri, 31 Dec 9999 23:59:59 GMT"), max);
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(1));
    assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), Some(1));
    assert_eq!(parse("Sun Nov  6 08:49:37 1994"), Some(1));
    assert_eq!(parse("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
    assert_eq!(parse("Fri, 31 Dec 1993 23:59:59 GMT"), Some(0));
    for garbage in ["-1", "+1", "1.5", "abc", "", "1 2", "1s", "Sun, 06 Nov"] {
        assert_eq!(parse(garbage), None, "{garbage:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), Some(now)), None);
}

#[test]
fn s4_13_error_description_header_may_be_utf8() {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert("error", HeaderValue::from_static("invalid_grant"));
    let text = HeaderValue::from_bytes("ungültig".as_bytes()).unwrap();
    headers.insert("error_description", text);
    let error = Leniency::default().read(response, None, INFO).unwrap_err();
    let oauth = error.oauth_error().unwrap();
    assert_eq!(oauth.code(), &OAuthErrorCode::InvalidGrant);
    assert_eq!(oauth.description(), Some("ungültig"));
}

#[test]
fn c20_unexpected_values_of_unused_members_are_ignored() {
    let body = r#"{"access_token":"x","scope":{"a":1},"refresh_token":7,"x":"\ud800","y":1e999,
        "error_description":[1],"z":{"deep":[[[[[[null]]]]]]}}"#;
    let response = json(body).unwrap();
    assert_eq!(response.scope(), None);
    assert!(response.refresh_token().is_none());
    assert_eq!(sent(response), "Bearer x");
    // Twitch sends a list.
    let list = json(r#"{"access_token":"x","scope":["a","b"]}"#).unwrap();
    assert_eq!(list.scope(), Some("a b"));
}
