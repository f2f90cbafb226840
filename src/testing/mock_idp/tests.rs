use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::testing::ManualClock;

mod other_endpoints;
mod sign_in;

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const CREDENTIALS: &str =
    "grant_type=client_credentials&client_id=client-id&client_secret=client-secret";

fn authority(url: &str) -> &str {
    url.split('/').nth(2).unwrap()
}

fn request(url: &str, method: &str, headers: &str, body: &str) -> String {
    let target = &url["http://".len() + authority(url).len()..];
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// Returns the bytes received until the connection ends, and how it ends.
async fn try_send(
    url: &str,
    method: &str,
    headers: &str,
    body: &str,
) -> (String, io::Result<usize>) {
    let mut stream = TcpStream::connect(authority(url)).await.unwrap();
    let headers = format!("{headers}connection: close\r\n");
    let request = request(url, method, &headers, body);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

async fn send(url: &str, method: &str, headers: &str, body: &str) -> Http {
    let (answer, end) = try_send(url, method, headers, body).await;
    end.unwrap();
    Http(answer)
}

async fn post(idp: &MockIdp, form: &str) -> Http {
    send(&idp.token_url(), "POST", FORM, form).await
}

async fn get(idp: &MockIdp, path: &str, token: &str) -> Http {
    let headers = format!("authorization: Bearer {token}\r\n");
    send(&(idp.api_url() + path), "GET", &headers, "").await
}

fn spawn_post(idp: &MockIdp) -> JoinHandle<Http> {
    let idp = idp.clone();
    tokio::spawn(async move {
        let url = idp.token_url();
        drop(idp);
        send(&url, "POST", FORM, CREDENTIALS).await
    })
}

fn basic(credentials: &str) -> String {
    let encoded = STANDARD.encode(credentials);
    format!("{FORM}authorization: bAsIc {encoded}\r\n")
}

/// A raw response.
#[derive(Debug)]
struct Http(String);

impl Http {
    fn status(&self) -> u16 {
        self.0[9..12].parse().unwrap()
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        let (head, _) = self.0.split_once("\r\n\r\n").unwrap();
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap()
    }

    #[track_caller]
    fn is_error(&self, status: u16, code: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.json()["error"], code);
        assert!(self.json()["error_description"].is_string());
    }
}

async fn http2(url: &str) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(authority(url)).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn http2_post(idp: &MockIdp) -> Request<Full<Bytes>> {
    Request::post(idp.token_url())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(CREDENTIALS))
        .unwrap()
}

// The token endpoint

#[tokio::test]
async fn token_response_has_the_standard_members_and_headers() {
    let idp = MockIdp::start().await.unwrap();
    assert!(idp.token_url().starts_with("http://127.0.0.1:"));
    assert!(idp.token_url().ends_with("/oauth2/v1/token"));
    assert!(idp.api_url().ends_with("/api/"));
    let answer = post(&idp, &format!("{CREDENTIALS}&scope=a+%22b%22")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.headers("content-type"),
        ["application/json;charset=UTF-8"]
    );
    assert_eq!(answer.headers("cache-control"), ["no-store"]);
    assert_eq!(
        answer.body(),
        r#"{"token_type":"Bearer","expires_in":3600,"access_token":"token-1","scope":"a \"b\""}"#
    );
    assert_eq!(
        post(&idp, CREDENTIALS).await.json(),
        json!({"token_type": "Bearer", "expires_in": 3600, "access_token": "token-2"})
    );
    assert_eq!(idp.issued(), ["token-1", "token-2"]);
    assert_eq!((idp.token_requests(), idp.tokens_issued()), (2, 2));
}

#[tokio::test]
async fn basic_credentials_are_form_decoded_except_by_terse_servers() {
    let start = |dialect| {
        MockIdp::builder()
            .client("an id", "p+q%&=:\u{e4}")
            .dialect(dialect)
            .start()
    };
    let idp = start(Dialect::Standard).await.unwrap();
    let url = idp.token_url();
    for (credentials, status) in [
        ("an+id:p%2Bq%25%26%3D%3A%C3%A4", 200),
        ("an%20id:p%2bq%25%26%3d%3a%c3%a4", 200),
        // Form decoding does not change these characters.
        ("an id:p%2Bq%25&=:\u{e4}", 200),
        ("an+id:p+q%25%26%3D%3A%C3%A4", 401),
        // Not encoded: `%&=` is not valid form encoding.
        ("an id:p+q%&=:\u{e4}", 400),
        ("an+id:%ff", 400),
        ("an+id:%+1", 400),
        ("an+id", 400),
    ] {
        let form = "grant_type=client_credentials";
        let answer = send(&url, "POST", &basic(credentials), form).await;
        assert_eq!(answer.status(), status, "{credentials}");
    }
    let idp = start(Dialect::Terse).await.unwrap();
    for (credentials, status) in [
        ("an id:p+q%&=:\u{e4}", 200),
        ("an+id:p%2Bq%25%26%3D%3A%C3%A4", 403),
    ] {
        let form = "grant_type=client_credentials";
        let answer = send(&idp.token_url(), "POST", &basic(credentials), form).await;
        assert_eq!(answer.status(), status, "{credentials}");
    }
}

#[tokio::test]
async fn invalid_token_requests_get_oauth_errors() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.token_url();
    let client = "client_id=client-id&client_secret=client-secret";

    for (form, code) in [
        (client.to_owned(), "invalid_request"),
        (format!("{client}&grant_type="), "invalid_request"),
        (format!("{client}&grant_type=pw"), "unsupported_grant_type"),
        (format!("{CREDENTIALS}&scope=a&scope=a"), "invalid_request"),
    ] {
        post(&idp, &form).await.is_error(400, code);
    }
    let targets = "&resource=a&resource=b&audience=c&audience=d&scope=&unknown=1";
    let answer = post(&idp, &format!("{CREDENTIALS}{targets}")).await;
    assert_eq!(answer.status(), 200);

    for form in [
        "grant_type=client_credentials",
        "grant_type=client_credentials&client_id=client-id",
        "grant_type=client_credentials&client_id=client-id&client_secret=wrong",
        "grant_type=client_credentials&client_id=wrong&client_secret=client-secret",
    ] {
        let answer = post(&idp, form).await;
        answer.is_error(401, "invalid_client");
        assert_eq!(
            answer.headers("www-authenticate"),
            [r#"Basic realm="token""#]
        );
    }

    let right = basic("client-id:client-secret");
    for (headers, form, status) in [
        (right.clone(), "grant_type=client_credentials", 200),
        (
            right.clone(),
            "grant_type=client_credentials&client_id=client-id",
            200,
        ),
        (
            right.clone(),
            "grant_type=client_credentials&client_id=other",
            400,
        ),
        (right.clone(), CREDENTIALS, 400),
        (
            format!("{right}authorization: Basic x\r\n"),
            "grant_type=client_credentials",
            400,
        ),
        (
            format!("{FORM}authorization: Basic ???\r\n"),
            "grant_type=client_credentials",
            400,
        ),
        (
            format!("{FORM}authorization: Bearer x\r\n"),
            "grant_type=client_credentials",
            401,
        ),
        ("content-type: application/json\r\n".into(), "{}", 400),
        (String::new(), CREDENTIALS, 400),
    ] {
        let answer = send(&url, "POST", &headers, form).await;
        assert_eq!(answer.status(), status, "{headers}{form}");
    }

    let answer = send(&format!("{url}?{CREDENTIALS}"), "GET", "", "").await;
    answer.is_error(405, "invalid_request");
    assert_eq!(answer.headers("allow"), ["POST"]);
    let elsewhere = url.replace("token", "elsewhere");
    assert_eq!(
        send(&elsewhere, "POST", FORM, CREDENTIALS).await.status(),
        404
    );
}

#[tokio::test]
async fn query_parameters_count_and_get_works_if_allowed() {
    let idp = MockIdp::builder().allow_get().start().await.unwrap();
    let url = format!("{}?{CREDENTIALS}", idp.token_url());
    assert_eq!(send(&url, "GET", "", "").await.status(), 200);
    assert_eq!(
        send(&url, "POST", FORM, "scope=a").await.json()["scope"],
        "a"
    );
    send(&url, "POST", FORM, "grant_type=client_credentials")
        .await
        .is_error(400, "invalid_request");
    assert_eq!(
        send(&url, "PUT", "", "").await.headers("allow"),
        ["GET, POST"]
    );
}

#[tokio::test]
async fn builder_adds_clients_and_grants() {
    let idp = MockIdp::builder()
        .client("a", "1")
        .client("public", "")
        .allow_grant("urn:x")
        .start()
        .await
        .unwrap();
    for (form, status) in [
        ("grant_type=urn:x&client_id=a&client_secret=1", 200),
        ("grant_type=urn:x&client_id=public", 200),
        (
            "grant_type=client_credentials&client_id=a&client_secret=1",
            200,
        ),
        (CREDENTIALS, 401),
        // A request with an assertion may omit the client.
        ("grant_type=urn:x&assertion=e", 200),
        ("grant_type=urn:x", 401),
        ("grant_type=urn:x&assertion=e&client_id=b", 401),
        ("grant_type=urn:x&assertion=e&client_secret=1", 401),
        ("grant_type=urn:x&assertion=e&client_assertion=e", 401),
        ("grant_type=client_credentials&assertion=e", 401),
    ] {
        assert_eq!(post(&idp, form).await.status(), status, "{form}");
    }
    let headers = basic("public:");
    let answer = send(&idp.token_url(), "POST", &headers, "grant_type=urn:x").await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn terse_dialect_answers_without_bodies_and_challenges() {
    let idp = MockIdp::builder()
        .dialect(Dialect::Terse)
        .start()
        .await
        .unwrap();
    assert_eq!(post(&idp, CREDENTIALS).await.json()["token_type"], "bearer");
    for (form, status) in [
        (
            "grant_type=client_credentials&client_id=client-id&client_secret=no",
            403,
        ),
        (
            "grant_type=x&client_id=client-id&client_secret=client-secret",
            400,
        ),
        ("client_id=client-id&client_secret=client-secret", 400),
    ] {
        let answer = post(&idp, form).await;
        assert_eq!((answer.status(), answer.body()), (status, ""));
        assert!(answer.headers("www-authenticate").is_empty());
    }
    assert_eq!(get(&idp, "", "token-1").await.status(), 200);
    let answer = get(&idp, "", "wrong").await;
    assert_eq!(answer.status(), 401);
    assert!(answer.headers("www-authenticate").is_empty());
}

// Tokens

#[tokio::test]
async fn expires_in_is_the_configured_text() {
    let idp = MockIdp::start().await.unwrap();
    for (json, expected) in [
        (Some("\"3600\""), r#","expires_in":"3600","#),
        (Some("1e400"), r#","expires_in":1e400,"#),
        (Some("null"), r#","expires_in":null,"#),
        (None, r#"{"token_type":"Bearer","access_token""#),
    ] {
        idp.set_expires_in(json);
        let answer = post(&idp, CREDENTIALS).await;
        assert!(answer.body().contains(expected), "{answer:?}");
    }
    idp.set_lifetime(Duration::from_millis(7_999));
    assert_eq!(post(&idp, CREDENTIALS).await.json()["expires_in"], 7);
    idp.set_lifetime(Duration::MAX);
    assert!(post(&idp, CREDENTIALS).await.json()["expires_in"].is_u64());
}

#[tokio::test]
async fn token_expires_exactly_at_its_lifetime() {
    let clock = ManualClock::new();
    let idp = MockIdp::builder()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    idp.set_lifetime(Duration::from_secs(10));
    post(&idp, CREDENTIALS).await;
    clock.advance(Duration::from_nanos(9_999_999_999));
    assert_eq!(get(&idp, "", "token-1").await.status(), 200);
    clock.advance(Duration::from_nanos(1));
    let answer = get(&idp, "", "token-1").await;
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.headers("www-authenticate"),
        [
            r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#
        ]
    );
}

#[tokio::test]
async fn repeated_token_has_the_remaining_lifetime() {
    let clock = ManualClock::new();
    let idp = MockIdp::builder()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let mut tokens = Vec::new();
    let mut token = async |form: &str| {
        let json = post(&idp, form).await.json();
        let token = json["access_token"].as_str().unwrap().to_owned();
        tokens.push((token, json["expires_in"].as_u64().unwrap()));
    };
    let scoped = format!("{CREDENTIALS}&scope=a");
    let targeted = format!("{CREDENTIALS}&audience=a");
    token(CREDENTIALS).await;
    idp.repeat_token(true);
    clock.advance(Duration::from_secs(100));
    token(CREDENTIALS).await;
    token(&scoped).await;
    token(&targeted).await;
    clock.advance(Duration::from_secs(3500));
    token(CREDENTIALS).await;
    token(&scoped).await;
    idp.revoke("token-4");
    token(CREDENTIALS).await;
    token(CREDENTIALS).await;
    idp.repeat_token(false);
    token(CREDENTIALS).await;
    let expected = [
        ("token-1", 3600),
        ("token-1", 3500),
        ("token-2", 3600),
        ("token-3", 3600),
        ("token-4", 3600),
        ("token-2", 100),
        ("token-5", 3600),
        ("token-5", 3600),
        ("token-6", 3600),
    ]
    .map(|(token, rest)| (token.to_owned(), rest));
    assert_eq!(tokens, expected);
    assert_eq!((idp.token_requests(), idp.tokens_issued()), (9, 6));
}

#[tokio::test]
async fn api_rejects_revoked_tokens() {
    let idp = MockIdp::start().await.unwrap();
    for _ in 0..3 {
        post(&idp, CREDENTIALS).await;
    }
    idp.revoke("token-2");
    idp.revoke("never issued");
    for (token, status) in [("token-1", 200), ("token-2", 401), ("token-3", 200)] {
        assert_eq!(get(&idp, "", token).await.status(), status, "{token}");
    }
    idp.revoke_all();
    assert_eq!(get(&idp, "", "token-3").await.status(), 401);
    post(&idp, CREDENTIALS).await;
    assert_eq!(get(&idp, "", "token-4").await.status(), 200);
    assert_eq!((idp.api_requests(), idp.api_unauthorized()), (5, 2));
}

#[tokio::test]
async fn tokens_are_padded_to_the_configured_size() {
    let idp = MockIdp::start().await.unwrap();
    idp.set_token_size(100_000);
    post(&idp, CREDENTIALS).await;
    let token = idp.issued().remove(0);
    assert!(token.starts_with("token-1."));
    assert_eq!(token.len(), 100_000);
    assert_eq!(get(&idp, "", &token).await.status(), 200);
    let request = Request::get(idp.api_url())
        .header("authorization", format!("Bearer {token}"))
        .body(Full::default())
        .unwrap();
    let mut client = http2(&idp.api_url()).await;
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    idp.set_token_size(3);
    post(&idp, CREDENTIALS).await;
    assert_eq!(idp.issued()[1], "token-2");
}

// The API

#[tokio::test]
async fn api_echoes_the_request_and_checks_the_token() {
    let idp = MockIdp::start().await.unwrap();
    post(&idp, CREDENTIALS).await;
    let url = idp.api_url() + "a%20b/c?d=e";
    let answer = send(&url, "PATCH", "authorization: bEaRer token-1\r\n", "h\"i").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.json(),
        json!({"path": "/api/a%20b/c", "method": "PATCH", "token": "token-1", "body": "h\"i"})
    );
    let outside = url.replace("/api/", "/");
    for (url, headers, status, challenge) in [
        (&url, "", 401, Some(r#"Bearer realm="api""#)),
        (
            &url,
            "authorization: Basic eA==\r\n",
            401,
            Some(r#"Bearer realm="api""#),
        ),
        (
            &url,
            "authorization: Bearer token-1\r\nauthorization: Bearer token-1\r\n",
            400,
            Some(r#"Bearer realm="api", error="invalid_request""#),
        ),
        (
            &url,
            "authorization: Bearer\r\n",
            400,
            Some(r#"Bearer realm="api", error="invalid_request""#),
        ),
        (&outside, "authorization: Bearer token-1\r\n", 404, None),
    ] {
        let answer = send(url, "GET", headers, "").await;
        assert_eq!(answer.status(), status, "{headers}");
        assert_eq!(
            answer.headers("www-authenticate"),
            challenge.into_iter().collect::<Vec<_>>()
        );
    }
    let answer = send(&url, "HEAD", "authorization: Bearer token-1\r\n", "").await;
    assert_eq!((answer.status(), answer.body()), (200, ""));
    assert_eq!((idp.api_requests(), idp.api_unauthorized()), (7, 2));
}

#[tokio::test]
async fn api_answer_is_that_of_the_longest_prefix() {
    let idp = MockIdp::start().await.unwrap();
    post(&idp, CREDENTIALS).await;
    let forbidden = r#"Bearer error="insufficient_scope", scope="write""#;
    idp.api_answers(
        "/api/forbidden",
        Answer::json(403, json!({"no": 1}))
            .header("WWW-Authenticate", "DPoP algs=\"ES256\"")
            .header("WWW-Authenticate", forbidden),
    );
    idp.api_answers("/api/forbidden/not", Answer::ok());
    idp.api_answers("/api/broken", Answer::status(401));
    idp.api_answers("/api/lost", Answer::drop_connection());
    let answer = get(&idp, "forbidden/x", "token-1").await;
    assert_eq!((answer.status(), answer.body()), (403, r#"{"no":1}"#));
    assert_eq!(
        answer.headers("www-authenticate"),
        ["DPoP algs=\"ES256\"", forbidden]
    );
    assert_eq!(get(&idp, "forbidden/not", "token-1").await.status(), 200);
    assert_eq!(get(&idp, "broken", "token-1").await.status(), 401);
    assert_eq!(get(&idp, "lost", "token-1").await.0, "");
    idp.api_answers("/api/broken", Answer::ok());
    assert_eq!(get(&idp, "broken", "token-1").await.status(), 200);
    assert_eq!((idp.api_requests(), idp.api_unauthorized()), (5, 1));
}

// Scripted answers

#[tokio::test]
async fn scripted_http_responses_are_sent_in_order() {
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::json(201, json!({"a": [1]})));
    idp.then(Answer::bytes(200, "text/plain", &b"\xef\xbb\xbf{}"[..]));
    idp.then(Answer::status(429).header("Retry-After", "7"));
    idp.then(Answer::oauth_error("invalid_client"));
    idp.then(Answer::unavailable(30));
    idp.then(Answer::redirect("http://127.0.0.1:1/elsewhere"));
    idp.then(Answer::ok().header("content-type", "text/html"));

    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!((answer.status(), answer.body()), (201, r#"{"a":[1]}"#));
    assert_eq!(
        answer.headers("content-type"),
        ["application/json;charset=UTF-8"]
    );
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!(answer.headers("content-type"), ["text/plain"]);
    assert_eq!(answer.body(), "\u{feff}{}");
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!((answer.status(), answer.body()), (429, ""));
    assert_eq!(answer.headers("retry-after"), ["7"]);
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json(), json!({"error": "invalid_client"}));
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers("retry-after"), ["30"]);
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers("location"), ["http://127.0.0.1:1/elsewhere"]);
    let answer = post(&idp, CREDENTIALS).await;
    assert_eq!(answer.headers("content-type"), ["text/html"]);
    assert_eq!(answer.json()["access_token"], "token-1");
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
}

#[tokio::test]
async fn scripted_non_http_answers_end_the_connection() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.token_url();
    let send = || try_send(&url, "POST", FORM, CREDENTIALS);

    idp.then(Answer::drop_connection());
    let (answer, end) = send().await;
    assert_eq!((answer.as_str(), end.unwrap()), ("", 0));
    assert_eq!(idp.token_log()[0].body, CREDENTIALS);

    idp.then(Answer::garbage());
    let (answer, end) = send().await;
    assert!(answer.starts_with('\u{15}') && end.is_ok(), "{answer:?}");

    let large = "x".repeat(1 << 22);
    idp.then(Answer::raw(large.clone()));
    let (answer, end) = send().await;
    assert!(answer == large && end.is_ok());

    idp.then(Answer::truncated());
    let (answer, end) = send().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && end.is_ok());
    assert!(answer.contains("\r\ncontent-length: 4096\r\n"));
    assert!(answer.ends_with(r#""access_token":"trunc"#), "{answer:?}");

    idp.then(Answer::ok().header("content-length", "20"));
    let (answer, end) = send().await;
    assert!(answer.ends_with("\r\n\r\n{\"token_type\":\"Beare") && end.is_ok());
    assert_eq!((idp.token_requests(), idp.token_log().len()), (5, 5));
}

#[tokio::test]
async fn reset_comes_before_reading_on_a_new_connection_only() {
    let idp = MockIdp::start().await.unwrap();
    let url = idp.token_url();
    let reset = io::ErrorKind::ConnectionReset;

    idp.then(Answer::reset_before_reading());
    let mut stream = TcpStream::connect(authority(&url)).await.unwrap();
    // Part of a request is enough.
    stream.write_all(b"POST /oau").await.unwrap();
    let end = stream.read(&mut [0]).await;
    assert_eq!(end.unwrap_err().kind(), reset);
    assert_eq!((idp.token_requests(), idp.token_log().len()), (1, 0));

    let mut stream = TcpStream::connect(authority(&url)).await.unwrap();
    let request = request(&url, "POST", FORM, CREDENTIALS);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    idp.then(Answer::reset_before_reading());
    stream.write_all(request.as_bytes()).await.unwrap();
    let end = stream.read(&mut [0]).await;
    assert_eq!(end.unwrap_err().kind(), reset);
    assert_eq!((idp.token_requests(), idp.token_log().len()), (3, 2));
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
}

#[tokio::test]
async fn silent_request_blocks_no_other_request() {
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::silence());
    let silent = spawn_post(&idp);
    idp.token_requests_reach(1).await;
    for _ in 0..10 {
        assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
    }
    assert!(!silent.is_finished());
    silent.abort();
}

#[tokio::test]
async fn always_answers_until_recover() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::status(500));
    idp.then(Answer::status(502));
    for status in [502, 500, 500] {
        assert_eq!(post(&idp, CREDENTIALS).await.status(), status);
    }
    idp.then(Answer::status(502));
    idp.recover();
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
    idp.always(Answer::reset_before_reading());
    for _ in 0..2 {
        let (_, end) = try_send(&idp.token_url(), "POST", FORM, CREDENTIALS).await;
        assert!(end.is_err());
    }
    assert_eq!((idp.token_requests(), idp.tokens_issued()), (6, 1));
}

#[tokio::test]
async fn delay_uses_the_configured_clock() {
    let clock = ManualClock::new();
    let idp = MockIdp::builder()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    idp.then(Answer::ok().delay(Duration::from_secs(30)));
    idp.then(Answer::drop_connection().delay(Duration::from_secs(10)));
    idp.then(Answer::reset_before_reading().delay(Duration::from_secs(20)));
    let url = idp.token_url();
    let mut slow = Vec::new();
    for count in 1..=3 {
        let url = url.clone();
        slow.push(tokio::spawn(async move {
            try_send(&url, "POST", FORM, CREDENTIALS).await
        }));
        idp.token_requests_reach(count).await;
    }
    assert_eq!(idp.tokens_issued(), 1, "decided on arrival");
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
    assert!(slow.iter().all(|answer| !answer.is_finished()));
    clock.advance(Duration::from_secs(10));
    let (answer, end) = slow.remove(1).await.unwrap();
    assert!(answer.is_empty() && end.is_ok());
    clock.advance(Duration::from_secs(10));
    let (_, end) = slow.remove(1).await.unwrap();
    assert!(end.is_err());
    assert!(!slow[0].is_finished());
    clock.advance(Duration::from_secs(10));
    let (answer, _) = slow.remove(0).await.unwrap();
    assert!(answer.contains(r#""expires_in":3600,"access_token":"token-1""#));
}

/// A 401 about a token that has been replaced meanwhile.
#[tokio::test]
async fn delayed_api_answer_is_decided_on_arrival() {
    let clock = ManualClock::new();
    let idp = MockIdp::builder()
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    idp.api_answers("/api/slow", Answer::ok().delay(Duration::from_secs(1)));
    post(&idp, CREDENTIALS).await;
    idp.revoke_all();
    let late = tokio::spawn({
        let idp = idp.clone();
        async move { get(&idp, "slow", "token-1").await }
    });
    idp.api_requests_reach(1).await;
    post(&idp, CREDENTIALS).await;
    assert_eq!(get(&idp, "", "token-2").await.status(), 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(late.await.unwrap().status(), 401);
}

#[tokio::test]
async fn held_requests_are_logged_and_wait_for_release() {
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    idp.then(Answer::status(500));
    let first = spawn_post(&idp);
    idp.token_requests_reach(1).await;
    let second = spawn_post(&idp);
    idp.token_requests_reach(2).await;
    assert_eq!(idp.token_log().len(), 2);
    assert_eq!(idp.tokens_issued(), 0);
    assert!(!first.is_finished() && !second.is_finished());

    // A request waits for the `Hold`s that exist on its arrival, not for later ones.
    let later = idp.hold();
    idp.then(Answer::reset_before_reading());
    let third = tokio::spawn({
        let url = idp.token_url();
        async move { try_send(&url, "POST", FORM, CREDENTIALS).await }
    });
    idp.token_requests_reach(3).await;
    hold.release();
    assert_eq!(first.await.unwrap().status(), 500);
    assert_eq!(second.await.unwrap().status(), 200);
    assert!(!third.is_finished());
    drop(later);
    assert!(third.await.unwrap().1.is_err());
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
}

// The log

#[tokio::test]
async fn request_is_logged_verbatim_and_debug_redacts_it() {
    let idp = MockIdp::start().await.unwrap();
    let url = format!("{}?tenant=a%20b", idp.token_url());
    let form = format!("{CREDENTIALS}&scope=a+b%2Fc");
    let headers = format!("{FORM}authorization: Secret-1\r\nauthorization: Secret-2\r\nx-a: 1\r\n");
    send(&url, "POST", &headers, &form).await;
    let [recorded] = &idp.token_log()[..] else {
        panic!("one request")
    };
    assert_eq!(recorded.method, Method::POST);
    assert_eq!(recorded.target, "/oauth2/v1/token?tenant=a%20b");
    assert_eq!(recorded.path(), "/oauth2/v1/token");
    assert_eq!(recorded.version, Version::HTTP_11);
    assert_eq!(recorded.header("X-A"), Some("1"));
    assert_eq!(recorded.header("x-b"), None);
    assert_eq!(recorded.body, form);
    assert_eq!(recorded.query(), [("tenant".into(), "a b".into())]);
    assert_eq!(recorded.form()[3], ("scope".into(), "a b/c".into()));

    let debug = format!("{recorded:?}");
    for shown in ["POST", "/oauth2/v1/token?[REDACTED]", "x-a"] {
        assert!(debug.contains(shown), "{debug}");
    }
    for hidden in ["Secret", "client-secret", "tenant", "scope"] {
        assert!(!debug.contains(hidden), "{debug}");
    }
}

#[tokio::test]
async fn debug_output_shows_no_secret() {
    let builder = MockIdp::builder().client("id", "hush");
    let debug = format!("{builder:?}");
    let idp = builder.start().await.unwrap();
    post(
        &idp,
        "grant_type=client_credentials&client_id=id&client_secret=hush",
    )
    .await;
    let answer = Answer::json(200, json!({"access_token": "hush"})).header("x", "hush");
    let debug = format!("{debug}{idp:?}{answer:?}{:?}", idp.token_log());
    assert!(debug.contains("tokens_issued: 1"));
    assert!(!debug.contains("hush") && !debug.contains("token-1"));
}

// Robustness

#[tokio::test]
async fn http2_requests_get_tokens_and_faults() {
    let idp = MockIdp::start().await.unwrap();
    let mut client = http2(&idp.token_url()).await;
    let answer = client.send_request(http2_post(&idp)).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{\"token_type\":\"Bearer\""));
    assert_eq!(idp.token_log()[0].version, Version::HTTP_2);

    idp.then(Answer::truncated());
    let answer = client.send_request(http2_post(&idp)).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "4096");
    assert!(answer.into_body().collect().await.is_err());

    // A disconnect also fails the other requests on the connection.
    idp.then(Answer::silence());
    idp.then(Answer::drop_connection());
    let silent = tokio::spawn(client.send_request(http2_post(&idp)));
    idp.token_requests_reach(3).await;
    assert!(client.send_request(http2_post(&idp)).await.is_err());
    assert!(silent.await.unwrap().is_err());

    for answer in [
        Answer::reset_before_reading(),
        Answer::garbage(),
        Answer::raw(""),
    ] {
        idp.then(answer);
        let mut client = http2(&idp.token_url()).await;
        assert!(client.send_request(http2_post(&idp)).await.is_err());
    }
}

#[tokio::test]
async fn malformed_requests_do_not_stop_the_servers() {
    let idp = MockIdp::start().await.unwrap();
    for url in [idp.token_url(), idp.api_url()] {
        for bytes in [
            &b"\x16\x03\x01 not HTTP\r\n\r\n"[..],
            b"GET\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\n\r\n",
            b"GET /api/\xff HTTP/1.1\r\nauthorization: Bearer \xff\r\n\r\n",
            b"GET /api/ HTTP/1.1\r\nauthorization: Bearer \xff\r\n\r\n",
            b"POST /oauth2/v1/token?%ff=%ff&%=& HTTP/1.1\r\nauthorization: Basic \xff\r\n\r\n",
            b"POST /oauth2/v1/token HTTP/1.1\r\nauthorization: Basic /w==\r\n\r\n",
            b"POST /oauth2/v1/token HTTP/1.1\r\ncontent-length: 100\r\n\r\ntoo short",
            b"POST /oauth2/v1/token HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame, though it looks like one",
            b"",
        ] {
            let mut stream = TcpStream::connect(authority(&url)).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            // Any end is acceptable.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    assert_eq!(post(&idp, CREDENTIALS).await.status(), 200);
    assert_eq!(get(&idp, "", "token-1").await.status(), 200);
}

#[tokio::test]
async fn body_above_the_limit_gets_a_413() {
    let idp = MockIdp::start().await.unwrap();
    post(&idp, CREDENTIALS).await;
    for (size, status) in [(1 << 20, 200), ((1 << 20) + 1, 413)] {
        let mut client = http2(&idp.api_url()).await;
        let request = Request::post(idp.api_url())
            .header("authorization", "Bearer token-1")
            .body(Full::from(vec![b'x'; size]))
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let sizes: Vec<_> = idp.api_log().iter().map(|seen| seen.body.len()).collect();
    assert_eq!(sizes, [1 << 20, 0]);
}

#[tokio::test]
async fn servers_stop_with_the_last_handle() {
    let idp = MockIdp::start().await.unwrap();
    let clone = idp.clone();
    let (token_url, api_url) = (idp.token_url(), idp.api_url());
    drop(idp);
    assert_eq!(post(&clone, CREDENTIALS).await.status(), 200);

    clone.always(Answer::silence());
    let silent = tokio::spawn({
        let url = token_url.clone();
        async move { try_send(&url, "POST", FORM, CREDENTIALS).await }
    });
    clone.token_requests_reach(2).await;
    let mut client = http2(&token_url).await;
    let request = http2_post(&clone);
    let silent2 = tokio::spawn(client.send_request(request));
    clone.token_requests_reach(3).await;
    let mut idle = TcpStream::connect(authority(&api_url)).await.unwrap();
    let alive = Arc::downgrade(&clone.0.shared);
    drop(clone);
    assert_eq!(silent.await.unwrap().0, "");
    assert!(silent2.await.unwrap().is_err());
    // The server may not have accepted this connection yet: then it is reset.
    assert!(matches!(idle.read(&mut [0]).await, Ok(0) | Err(_)));
    for url in [token_url, api_url] {
        let refused = TcpStream::connect(authority(&url)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
    ManualClock::new().settle().await;
    assert_eq!(alive.strong_count(), 0, "no task is left");
}

#[tokio::test]
async fn ten_thousand_concurrent_requests_are_answered_and_logged() {
    let idp = MockIdp::start().await.unwrap();
    post(&idp, CREDENTIALS).await;
    let mut tasks = task::JoinSet::new();
    for connection in 0..10 {
        let client = http2(&idp.api_url()).await;
        for number in 0..1_000 {
            let mut client = client.clone();
            let request = Request::get(format!("{}{connection}/{number}", idp.api_url()))
                .header("authorization", "Bearer token-1")
                .body(Full::default())
                .unwrap();
            tasks.spawn(async move { client.send_request(request).await.unwrap().status() });
        }
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(idp.api_requests(), 10_000);
    assert_eq!(idp.api_log().len(), 10_000);
}

#[test]
#[should_panic(expected = "not a valid header name")]
fn invalid_header_name_panics_at_the_caller() {
    let _ = Answer::ok().header("not a name", "");
}

#[test]
fn public_types_are_send_sync_and_static() {
    fn anywhere<T: Send + Sync + 'static>(_: T) {}
    anywhere(MockIdp::start());
    let _: fn(MockIdp) = anywhere::<MockIdp>;
    let _: fn(MockIdpBuilder) = anywhere::<MockIdpBuilder>;
    let _: fn(Answer) = anywhere::<Answer>;
    let _: fn(Hold) = anywhere::<Hold>;
    let _: fn(Recorded) = anywhere::<Recorded>;
}
