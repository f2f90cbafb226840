//! The HTTP clients of token requests, against misbehaving servers, on real sockets.

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
    http::{closed_port, http1, http2, soon},
};

/// A secret that no error may show.
const CANARY: &str = "s3cr3t-canary";

fn over_http1() -> impl HttpClient {
    TowerClient::new(http1())
}

/// The client credentials grant over each HTTP client.
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

async fn fetch(source: &ClientCredentials) -> Result<TokenResponse, Error> {
    soon(source.fetch(TokenRequest::new())).await
}

async fn fails(name: &str, source: &ClientCredentials) -> Error {
    let error = fetch(source).await.unwrap_err();
    assert_shows_no_secret(name, &error);
    error
}

/// Neither the secret nor the query is in the error or its causes.
fn assert_shows_no_secret(name: &str, error: &Error) {
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
async fn each_http_client_gets_a_token() {
    let idp = idp().await;
    for (name, source) in sources(&(idp.token_url() + "?tenant=1")) {
        let token = fetch(&source).await.unwrap();
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
async fn p208_p238_redirect_of_a_token_request_is_not_followed() {
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
async fn refused_connection_is_a_connect_error() {
    let (origin, _held) = closed_port();
    let url = origin + "/token?tenant=1";
    for (name, source) in sources(&url) {
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{name}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn broken_responses_are_typed_errors() {
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
async fn connection_reset_is_not_a_connect_error() {
    let idp = idp().await;
    for (name, source) in sources(&idp.token_url()) {
        fetch(&source).await.unwrap();
        idp.then(Answer::reset_before_reading());
        idp.then(Answer::reset_before_reading());
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::Transport, "{name}");
        idp.recover();
    }
}

#[tokio::test]
async fn error_in_the_response_body_is_not_a_connect_error() {
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
async fn tower_service_can_classify_its_errors() {
    type New = fn(&'static str) -> HttpError;
    for (new, kind) in [
        (HttpError::connect as New, ErrorKind::Connect),
        (HttpError::timeout, ErrorKind::Timeout),
        (HttpError::other, ErrorKind::Transport),
    ] {
        let service = tower::service_fn(move |_: http::Request<Full<Bytes>>| async move {
            Err::<http::Response<Full<Bytes>>, _>(new("no such host"))
        });
        let source = ClientCredentials::builder("https://idp.example/token", "id", CANARY)
            .http_client(TowerClient::new(service))
            .build()
            .unwrap();
        assert_eq!(fails("tower", &source).await.kind(), kind);
    }
}

#[tokio::test]
async fn reqwest_timeout_is_a_timeout_error() {
    let idp = idp().await;
    let _hold = idp.hold();
    let url = idp.token_url();
    let service = tower::service_fn(move |_: http::Request<Full<Bytes>>| {
        let timeout = std::time::Duration::from_millis(1);
        let sent = support::http::reqwest().get(&url).timeout(timeout).send();
        async { Ok::<_, reqwest::Error>(http::Response::<reqwest::Body>::from(sent.await?)) }
    });
    let source = ClientCredentials::builder("https://idp.example/token", "id", CANARY)
        .http_client(TowerClient::new(service))
        .build()
        .unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// A server with an endless response body, which `MockIdp` cannot send. Returns its URL and, once the
/// client disconnects, the number of bytes sent.
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
async fn response_above_one_mebibyte_is_rejected() {
    for at in [0, 1] {
        let (url, server) = endless().await;
        let [reqwest, http1, _] = sources(&url);
        let (name, source) = [reqwest, http1].into_iter().nth(at).unwrap();
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{name}");
        assert!(error.to_string().contains("1 MiB"), "{error}");
        drop(source);
        // More than the limit was sent: buffers of the system and of hyper.
        let sent = soon(server).await.unwrap();
        assert!(sent < 64 * MAX_BODY, "{name}: {sent}");
    }

    // With a declared length, at the limit and one byte above.
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
        assert!(fetch(&source).await.is_ok(), "{name}");
        idp.then(padded(MAX_BODY + 1));
        let error = fails(name, &source).await;
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{name}");
    }
}

#[tokio::test]
async fn plain_http_to_another_host_is_refused_also_in_custom_sources() {
    let bad = "http://192.0.2.1/token?tenant=1";
    let error = ClientCredentials::builder(bad, "id", CANARY)
        .build()
        .unwrap_err();
    assert_eq!(error.field(), "token_url");

    fn custom_source(client: impl HttpClient) -> impl TokenSource {
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

    let reqwest = TokenCache::new(custom_source(ReqwestClient::new()));
    let tower = TokenCache::new(custom_source(over_http1()));
    for cache in [reqwest, tower] {
        let error = soon(cache.token()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        let cause = error.source().unwrap().source().unwrap().to_string();
        assert!(cause.contains("plain http"), "{cause}");
        assert_shows_no_secret("custom source", &error);
    }
}

#[tokio::test]
async fn closed_pooled_connection_is_replaced() {
    let idp = idp().await;
    for (name, source) in sources(&idp.token_url()) {
        fetch(&source).await.unwrap();
        // The server answers, and closes the connection in the client's pool.
        let body = r#"{"access_token":"t","token_type":"Bearer"}"#;
        let answer = Answer::bytes(200, "application/json", body).header("connection", "close");
        if name != "http2" {
            idp.then(answer);
            fetch(&source).await.unwrap();
        }
        assert!(fetch(&source).await.is_ok(), "{name}");
    }
}

/// Token requests are minutes apart. Load balancers close idle connections by then, so a pooled
/// connection often fails when it is used again.
#[tokio::test]
async fn default_client_keeps_no_idle_connections() {
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
        fetch(&source).await.unwrap();
    }
}
