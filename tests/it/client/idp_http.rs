//! The clients that ask for tokens, against identity providers that misbehave, on real sockets.

use std::error::Error as _;

use bearer_auth::{
    ClientCredentials, Error, ErrorKind, TokenCache, TokenRequest, TokenResponse, TokenSource,
    endpoint::{HttpClient, HttpError, MAX_BODY, ReqwestClient, TowerClient},
    source_fn,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    self,
    http::{http1, http2, nobody, soon},
};

/// What must not show in any error.
const CANARY: &str = "s3cr3t-canary";

fn over_http1() -> impl HttpClient {
    TowerClient::new(http1())
}

/// The grant over each of the clients.
fn sources(token_url: &str) -> [(&'static str, ClientCredentials); 3] {
    let builder = || {
        ClientCredentials::builder(token_url, "client-id", CANARY)
            .param("p", CANARY)
            .scope("a b")
    };
    [
        ("reqwest", builder().build().unwrap()),
        (
            "http1",
            builder().http_client(over_http1()).build().unwrap(),
        ),
        (
            "http2",
            builder()
                .http_client(TowerClient::new(http2()))
                .build()
                .unwrap(),
        ),
    ]
}

async fn ask(source: &ClientCredentials) -> Result<TokenResponse, Error> {
    soon(source.fetch(TokenRequest::new())).await
}

async fn fails(name: &str, source: &ClientCredentials) -> Error {
    let error = ask(source).await.unwrap_err();
    assert_says_nothing(name, &error);
    error
}

/// Neither the secret, nor the query, in the error or its causes.
fn assert_says_nothing(name: &str, error: &Error) {
    let text = support::errors::text(error);
    for forbidden in [CANARY, "tenant=", "grant_type", "trunc", "s3cr3t"] {
        assert!(!text.contains(forbidden), "{name}: {text}");
    }
}

async fn idp() -> MockIdp {
    let builder = MockIdp::builder().client("client-id", CANARY);
    builder.start().await.unwrap()
}

#[tokio::test]
async fn every_client_gets_a_token() {
    let idp = idp().await;
    for (name, source) in sources(&(idp.token_url() + "?tenant=1")) {
        let token = ask(&source).await.unwrap();
        assert_eq!(token.scope(), Some("a b"), "{name}");
    }
    let log = idp.token_log();
    assert_eq!(log.len(), 3);
    for request in log {
        assert_eq!(request.target, "/oauth2/v1/token?tenant=1");
        assert_eq!(request.header("accept"), Some("application/json"));
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("bearer-auth/"), "{agent}");
        assert_eq!(
            request.form()[0],
            ("grant_type".into(), "client_credentials".into())
        );
    }
}

#[tokio::test]
async fn p208_p238_no_redirect_is_followed() {
    let idp = idp().await;
    let other = self::idp().await;
    let to = [
        other.token_url(),
        other.token_url().replace("127.0.0.1", "localhost"),
        idp.token_url(),
    ];
    for status in [301, 302, 303, 307, 308] {
        for to in &to {
            idp.always(Answer::status(status).header("location", to));
            for (name, source) in sources(&(idp.token_url() + "?tenant=1")) {
                let before = idp.token_requests();
                let error = fails(name, &source).await;
                assert_eq!(error.kind(), ErrorKind::Status, "{name} {status}");
                assert_eq!(error.status().unwrap().as_u16(), status);
                assert!(!error.is_retryable());
                assert_eq!(idp.token_requests(), before + 1, "{name} {status}");
            }
        }
    }
    assert_eq!(other.token_requests() + other.api_requests(), 0);
}

#[tokio::test]
async fn no_connection_is_an_error_of_its_own() {
    let (origin, _held) = nobody();
    let url = origin + "/token?tenant=1";
    for (name, source) in sources(&url) {
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{name}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn broken_answers_are_typed_errors() {
    for (answer, kinds) in [
        (Answer::drop_connection(), &[ErrorKind::Transport][..]),
        (Answer::garbage(), &[ErrorKind::Transport]),
        (Answer::raw(""), &[ErrorKind::Transport]),
        (Answer::raw("HTTP/1.1 200 OK\r\n"), &[ErrorKind::Transport]),
        (
            Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{"),
            &[ErrorKind::Transport],
        ),
        (
            Answer::raw("HTTP/9.9 999 s3cr3t\r\n\r\n"),
            &[ErrorKind::Transport],
        ),
        (Answer::truncated(), &[ErrorKind::Transport]),
        (
            Answer::json(200, serde_json::json!({})),
            &[ErrorKind::InvalidResponse],
        ),
        (
            Answer::bytes(200, "application/json", "{\"access_token\":\"s3cr3t"),
            &[ErrorKind::InvalidResponse],
        ),
        (
            Answer::bytes(200, "text/html", "<html>s3cr3t"),
            &[ErrorKind::InvalidResponse],
        ),
        (
            Answer::bytes(200, "application/json", vec![0xff; 100]),
            &[ErrorKind::InvalidResponse],
        ),
        (
            Answer::status(204),
            &[ErrorKind::InvalidResponse, ErrorKind::Status],
        ),
        (Answer::status(404), &[ErrorKind::Status]),
        (
            Answer::bytes(500, "text/plain", "s3cr3t"),
            &[ErrorKind::Status],
        ),
    ] {
        let idp = idp().await;
        idp.always(answer.clone());
        for (name, source) in sources(&(idp.token_url() + "?tenant=1")) {
            let error = fails(name, &source).await;
            assert!(
                kinds.contains(&error.kind()),
                "{name} {answer:?}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_reset_connection_may_have_delivered_the_request() {
    let idp = idp().await;
    for (name, source) in sources(&idp.token_url()) {
        ask(&source).await.unwrap();
        idp.then(Answer::reset_before_reading());
        idp.then(Answer::reset_before_reading());
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::Transport, "{name}");
        idp.recover();
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_a_failed_connection() {
    use http_body_util::{BodyExt as _, StreamBody};
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};

    for (cause, kind) in [
        (ConnectionRefused, ErrorKind::Transport),
        (HostUnreachable, ErrorKind::Transport),
        (NetworkUnreachable, ErrorKind::Transport),
        (TimedOut, ErrorKind::Timeout),
    ] {
        let service = tower::service_fn(move |_: http::Request<Full<Bytes>>| async move {
            let broken = futures_util::stream::iter([Err(std::io::Error::from(cause))]);
            let body = StreamBody::new(broken).map_frame(|frame: http_body::Frame<Bytes>| frame);
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let source = ClientCredentials::builder("https://idp.example/token", "id", CANARY)
            .http_client(TowerClient::new(service))
            .build()
            .unwrap();
        let error = fails("tower", &source).await;
        assert_eq!(error.kind(), kind, "{cause:?}");
    }
}

#[tokio::test]
async fn a_service_can_say_that_nothing_was_sent() {
    type Said = fn(&'static str) -> HttpError;
    for (said, kind) in [
        (HttpError::connect as Said, ErrorKind::Connect),
        (HttpError::timeout, ErrorKind::Timeout),
        (HttpError::other, ErrorKind::Transport),
    ] {
        let service = tower::service_fn(move |_: http::Request<Full<Bytes>>| async move {
            Err::<http::Response<Full<Bytes>>, _>(said("no such host"))
        });
        let source = ClientCredentials::builder("https://idp.example/token", "id", CANARY)
            .http_client(TowerClient::new(service))
            .build()
            .unwrap();
        assert_eq!(fails("tower", &source).await.kind(), kind);
    }
}

#[tokio::test]
async fn a_timeout_of_reqwest_is_one_of_ours() {
    let idp = idp().await;
    let _hold = idp.hold();
    let url = idp.token_url();
    let service = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
        let timeout = std::time::Duration::from_millis(1);
        let asked = support::http::reqwest().get(&url).timeout(timeout).send();
        async { Ok::<_, reqwest::Error>(http::Response::<reqwest::Body>::from(asked.await?)) }
    });
    let source = ClientCredentials::builder("https://idp.example/token", "id", CANARY)
        .http_client(TowerClient::new(service))
        .build()
        .unwrap();
    let error = ask(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// A server of its own, of which MockIdp has no equal: an answer without an end. Returns its URL
/// and, when it is cut off, how much of the body it got rid of.
async fn endless() -> (String, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut sent = 0;
        while stream.write_all(&[b' '; 16 * 1024]).await.is_ok() {
            sent += 16 * 1024;
        }
        sent
    });
    (url, server)
}

#[tokio::test]
async fn an_answer_is_read_up_to_a_mebibyte() {
    for at in [0, 1] {
        let (url, server) = endless().await;
        let [reqwest, http1, _] = sources(&url);
        let (name, source) = [reqwest, http1].into_iter().nth(at).unwrap();
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{name}");
        assert!(error.to_string().contains("1 MiB"), "{error}");
        drop(source);
        // The rest is in the buffers of the system and of hyper.
        let sent = soon(server).await.unwrap();
        assert!(sent < 64 * MAX_BODY, "{name}: {sent}");
    }

    // With its length said beforehand, and just below the cap.
    let idp = idp().await;
    let padded = |pad: usize| {
        let start = r#"{"access_token":"t","token_type":"Bearer"}"#;
        Answer::bytes(
            200,
            "application/json",
            start.to_owned() + &" ".repeat(pad - start.len()),
        )
    };
    for (name, source) in sources(&idp.token_url()) {
        idp.then(padded(MAX_BODY));
        assert!(ask(&source).await.is_ok(), "{name}");
        idp.then(padded(MAX_BODY + 1));
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{name}");
    }
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_also_by_hand() {
    let bad = "http://192.0.2.1/token?tenant=1";
    let error = ClientCredentials::builder(bad, "id", CANARY)
        .build()
        .unwrap_err();
    assert_eq!(error.field(), "token_url");

    fn by_hand(client: impl HttpClient) -> impl TokenSource {
        let client = std::sync::Arc::new(client);
        source_fn(move |_| {
            let client = client.clone();
            async move {
                let request = http::Request::post("http://192.0.2.1/token?tenant=1");
                let request = request.body(Bytes::from(CANARY)).unwrap();
                let response = client.send(request).await.map_err(Error::from_source)?;
                panic!("it was sent: {}", response.status())
            }
        })
    }

    let reqwest = TokenCache::new(by_hand(ReqwestClient::new()));
    let tower = TokenCache::new(by_hand(over_http1()));
    for cache in [reqwest, tower] {
        let error = soon(cache.token()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let cause = error.source().unwrap().source().unwrap().to_string();
        assert!(cause.contains("plain http"), "{cause}");
        assert_says_nothing("by hand", &error);
    }
}

#[tokio::test]
async fn an_error_of_the_server_reaches_everybody_who_waits() {
    let idp = idp().await;
    let description = format!("no such client, or wrong secret {CANARY}");
    let refusal = serde_json::json!({"error": "invalid_client", "error_description": description});
    idp.always(Answer::json(401, refusal));
    let cache = TokenCache::new(sources(&idp.token_url()).into_iter().next().unwrap().1);
    let hold = idp.hold();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await })
        })
        .collect();
    soon(idp.token_requests_reach(1)).await;
    hold.release();
    for task in waiting {
        let error = soon(task).await.unwrap().unwrap_err();
        assert_says_nothing("shared", &error);
        let oauth = error.oauth_error().unwrap();
        assert_eq!(oauth.code().as_str(), "invalid_client");
        assert_eq!(oauth.description(), Some(description.as_str()));
    }
    assert_eq!(idp.token_requests(), 1);
}

#[tokio::test]
async fn a_lost_connection_in_the_pool_is_replaced() {
    let idp = idp().await;
    for (name, source) in sources(&idp.token_url()) {
        ask(&source).await.unwrap();
        // Answered, and the connection closed under the client.
        let body = r#"{"access_token":"t","token_type":"Bearer"}"#;
        let answer = Answer::bytes(200, "application/json", body).header("connection", "close");
        if name != "http2" {
            idp.then(answer);
            ask(&source).await.unwrap();
        }
        assert!(ask(&source).await.is_ok(), "{name}");
    }
}

/// A connection kept since the last token request, minutes ago, is more often dead than useful:
/// balancers and frozen processes close it just when it is used again.
#[tokio::test]
async fn the_default_client_keeps_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    // Answers the first request of a connection, and closes it at the second.
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = connection.read(&mut request).await;
                let body = r#"{"access_token":"t","token_type":"Bearer"}"#;
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                let _ = connection.write_all((head + body).as_bytes()).await;
                let _ = connection.read(&mut request).await;
            });
        }
    });
    let source = ClientCredentials::builder(url, "id", "secret")
        .build()
        .unwrap();
    for _ in 0..3 {
        ask(&source).await.unwrap();
    }
}
