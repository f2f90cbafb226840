//! Token requests (RFC 6749 §2.3, §3.2, §3.3, §4.4, §4.5).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bearer_auth::{
    BearerAuthLayer, ClientAuth, ClientCredentials, ClientCredentialsBuilder, ErrorKind,
    ServiceError, StaticToken, TokenCache,
    endpoint::ReqwestClient,
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};
use tower::{Layer as _, ServiceExt as _};

use super::rig::*;

/// Client credentials of the mock, for the token endpoint at `url`.
fn at(url: impl Into<String>) -> ClientCredentialsBuilder {
    ClientCredentials::builder(url, "client-id", "client-secret")
}

#[tokio::test]
async fn p2_query_of_the_token_url_is_kept() {
    for query in ["p=b2c_1", "tenant=x%20y&a=%C3%A4+b", ""] {
        let idp = MockIdp::start().await.unwrap();
        fetch(at(format!("{}?{query}", idp.token_url())))
            .await
            .unwrap();
        let request = only(idp.token_log());
        assert_eq!(request.target, format!("/oauth2/v1/token?{query}"));
        assert_eq!(body(&request), "grant_type=client_credentials");
    }
    assert_eq!(refused(at("https://as.example/token#f")), "token_url");
}

#[tokio::test]
async fn p3_token_request_is_a_post() {
    for auth in [ClientAuth::basic(), ClientAuth::post()] {
        let request = sent(|source| source.client_auth(auth)).await;
        assert_eq!(request.method, "POST");
    }
    let extension = sent(|source| source.grant_type("urn:x:grant")).await;
    assert_eq!(extension.method, "POST");
    // GET is an explicit setting.
    assert_eq!(sent(|source| source.use_get()).await.method, "GET");
}

#[tokio::test]
async fn p4_c9_repeated_parameter_is_a_configuration_error() {
    for name in [
        "grant_type",
        "scope",
        "audience",
        "resource",
        "client_id",
        "client_secret",
        "client_assertion",
    ] {
        let source = at("https://as.example/token").param(name, "x");
        assert_eq!(refused(source), "param", "{name}");
    }
    let twice = at("https://as.example/token")
        .param("a", "1")
        .param("a", "2");
    assert_eq!(refused(twice), "param");
    for query in ["scope=x", "grant_type=x", "client_secret=x", "a=1", "%61=1"] {
        let url = format!("https://as.example/token?{query}");
        let source = at(url).scope("s").param("a", "2");
        assert_eq!(refused(source), "token_url", "{query}");
    }
    // `resource` may be repeated (RFC 8707 §2).
    let request = sent(|source| {
        source
            .resource("https://a.example/")
            .resource("https://b.example")
    })
    .await;
    assert_eq!(
        body(&request),
        "grant_type=client_credentials&resource=https%3A%2F%2Fa.example%2F\
         &resource=https%3A%2F%2Fb.example"
    );
}

#[tokio::test]
async fn p5_empty_parameter_is_not_sent() {
    let empty = |source: ClientCredentialsBuilder| source.scope("").audience("").param("x", "");
    assert_eq!(body(&sent(empty).await), "grant_type=client_credentials");
    let in_query = sent(|source| empty(source).params_in_query()).await;
    assert_eq!(
        in_query.target,
        "/oauth2/v1/token?grant_type=client_credentials"
    );
    let spaces = sent(|source| source.scope("  a   b ")).await;
    assert_eq!(body(&spaces), "grant_type=client_credentials&scope=a+b");
}

#[tokio::test]
async fn p6_p70_plain_http_is_an_error_before_any_io() {
    for url in ["http://as.example/token", "http://10.0.0.1/token"] {
        assert_eq!(refused(at(url)), "token_url");
        let layer = BearerAuthLayer::for_api(url, StaticToken::new("t"));
        assert_eq!(layer.unwrap_err().field(), "api");
    }
    // Without a base URL, the layer checks the request's URL.
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let inner = tower::service_fn(move |_: Request<Full<Bytes>>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, String>(Response::new(())) }
    });
    let api = BearerAuthLayer::builder(StaticToken::new("t"))
        .any_api()
        .build()
        .unwrap()
        .layer(inner);
    for (url, sent) in [
        ("http://api.example/", false),
        ("http://api.example:443/", false),
        ("https://api.example/", true),
        ("http://127.0.0.1:1/", true),
        ("http://[::1]:1/", true),
    ] {
        let request = Request::get(url).body(Full::default()).unwrap();
        let before = calls.load(Ordering::Relaxed);
        match api.clone().oneshot(request).await {
            Ok(_) => assert!(sent, "{url}"),
            Err(ServiceError::Token(error)) => {
                assert!(!sent, "{url}");
                assert_eq!(error.kind(), ErrorKind::Target);
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(calls.load(Ordering::Relaxed) - before, usize::from(sent));
    }
}

/// A token endpoint over TLS, with a self-signed certificate.
struct TlsIdp {
    /// URLs at 127.0.0.1, which is in the certificate, and at `localhost`, which is not.
    url: String,
    other_name: String,
    root: String,
    /// The number of token requests that the server decrypted.
    requests: Arc<AtomicUsize>,
    _server: tokio::task::JoinSet<()>,
}

impl TlsIdp {
    async fn start() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new([]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).unwrap().pem();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut read = vec![0; 4096];
                if !matches!(stream.read(&mut read).await, Ok(1..)) {
                    continue;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let body = r#"{"access_token":"t","token_type":"Bearer","scope":"over TLS"}"#;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        Self {
            url: format!("https://127.0.0.1:{port}/token"),
            other_name: format!("https://localhost:{port}/token"),
            root,
            requests,
            _server: server,
        }
    }
}

#[tokio::test]
async fn s4_10_p7_server_certificate_is_verified_and_roots_can_be_added() {
    let idp = TlsIdp::start().await;
    let trusting = || {
        ReqwestClient::new()
            .root_certificate_pem(idp.root.as_bytes())
            .unwrap()
    };
    for (url, http) in [
        (&idp.url, ReqwestClient::new()),
        (&idp.other_name, trusting()),
    ] {
        let error = fetch(at(url).http_client(http)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{url}");
    }
    assert_eq!(idp.requests.load(Ordering::Relaxed), 0, "nothing was sent");

    let response = fetch(at(&idp.url).http_client(trusting())).await.unwrap();
    assert_eq!(response.scope(), Some("over TLS"));
}

#[tokio::test]
async fn p8_p10_p11_p12_p13_basic_credentials_are_decoded_correctly_by_the_server() {
    let (id, secret) = ("a:b c~ü", "p%5^g+&=:/€ -_.*");
    let builder = MockIdp::builder().client(id, secret);
    let idp = builder.start().await.unwrap();
    for auth in [ClientAuth::basic(), ClientAuth::post()] {
        let source = ClientCredentials::builder(idp.token_url(), id, secret);
        fetch(source.client_auth(auth)).await.unwrap();
    }
    let [basic, post] = <[_; 2]>::try_from(idp.token_log()).unwrap();
    assert_eq!(
        credentials(&basic),
        "a%3Ab%20c%7E%C3%BC:p%255%5Eg%2B%26%3D%3A%2F%E2%82%AC%20-_.*"
    );
    assert_eq!(
        body(&post),
        "grant_type=client_credentials&client_id=a%3Ab+c%7E%C3%BC\
         &client_secret=p%255%5Eg%2B%26%3D%3A%2F%E2%82%AC+-_.*"
    );
    let with_colon = ClientCredentials::builder(idp.token_url(), "a:b", "s");
    assert_eq!(
        refused(with_colon.client_auth(ClientAuth::basic_raw())),
        "client_id"
    );
}

#[tokio::test]
async fn p14_secret_is_never_in_the_url() {
    for configure in [
        |source: ClientCredentialsBuilder| source,
        |source: ClientCredentialsBuilder| source.client_auth(ClientAuth::post()),
        |source: ClientCredentialsBuilder| source.params_in_query(),
        |source: ClientCredentialsBuilder| source.use_get(),
        |source: ClientCredentialsBuilder| source.use_get().client_auth(ClientAuth::basic_raw()),
    ] {
        let request = sent(configure).await;
        assert!(!request.target.contains("secret"), "{}", request.target);
    }
    let post = || at("https://as.example/token").client_auth(ClientAuth::post());
    assert_eq!(refused(post().params_in_query()), "client_auth");
    assert_eq!(refused(post().use_get()), "client_auth");
    let in_url = at("https://as.example/token?client_secret=client-secret");
    assert_eq!(refused(in_url), "token_url");
    let in_userinfo = at("https://client-id:client-secret@as.example/token");
    assert_eq!(refused(in_userinfo), "token_url");
}

#[tokio::test]
async fn p15_request_has_exactly_one_authentication_method() {
    let basic = sent(|source| source).await;
    assert_eq!(basic.headers.get_all("authorization").iter().count(), 1);
    assert_eq!(body(&basic), "grant_type=client_credentials");

    let post = sent(|source| source.client_auth(ClientAuth::post())).await;
    assert!(!post.headers.contains_key("authorization"));
    assert_eq!(
        body(&post),
        "grant_type=client_credentials&client_id=client-id&client_secret=client-secret"
    );

    let two = at("https://as.example/token")
        .client_auth(ClientAuth::basic())
        .client_auth(ClientAuth::post());
    assert_eq!(refused(two), "client_auth");
    let own_header = at("https://as.example/token").header("authorization", "Basic x");
    assert_eq!(refused(own_header), "header");
}

#[tokio::test]
async fn p16_c8_empty_secret_is_omitted_from_the_body() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(token("t"));
    for auth in [ClientAuth::basic(), ClientAuth::post()] {
        let source = ClientCredentials::builder(idp.token_url(), "id", "");
        fetch(source.client_auth(auth)).await.unwrap();
    }
    let [basic, post] = <[_; 2]>::try_from(idp.token_log()).unwrap();
    assert_eq!(credentials(&basic), "id:");
    assert_eq!(body(&post), "grant_type=client_credentials&client_id=id");
}

#[tokio::test]
async fn p17_every_token_request_is_authenticated() {
    for grant in ["client_credentials", "urn:x:grant"] {
        for auth in [ClientAuth::basic, ClientAuth::basic_raw, ClientAuth::post] {
            let rig = rig_with(|source| source.grant_type(grant).client_auth(auth())).await;
            rig.idp.set_lifetime(60 * SECOND);
            // The first request with its retry, a refresh after expiry, an explicit refresh.
            rig.idp.then(Answer::status(503));
            rig.idp.always(token("t"));
            let first = rig.spawn_token();
            rig.pass_pauses(first).await.unwrap();
            rig.clock.advance(3600 * SECOND);
            rig.cache.token().await.unwrap();
            rig.cache.refresh().await.unwrap();
            let log = rig.idp.token_log();
            assert_eq!(log.len(), 4);
            for request in log {
                if request.headers.contains_key("authorization") {
                    assert_eq!(credentials(&request), "client-id:client-secret");
                } else {
                    let sent = "&client_id=client-id&client_secret=client-secret";
                    assert!(body(&request).ends_with(sent));
                }
            }
        }
    }
}

#[test]
fn p19_client_credentials_without_authentication_is_a_configuration_error() {
    let none = at("https://as.example/token").client_auth(ClientAuth::none());
    assert_eq!(refused(none), "client_auth");
}

#[tokio::test]
async fn p20_p33_body_is_a_form_with_scopes_joined_by_spaces() {
    let request = sent(|source| source.scope("a").scope("b")).await;
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(body(&request), "grant_type=client_credentials&scope=a+b");
    // Case, order and punctuation are kept.
    let odd = "B a https://x.example/.default offline.access a:b[c]!";
    let request = sent(|source| source.scope(odd)).await;
    assert!(request.form().contains(&("scope".into(), odd.into())));

    for wrong in ["a\"b", "a\\b", "a\tb", "a\nb", "\u{7f}", "ü", "a\u{a0}b"] {
        let source = at("https://as.example/token").scope(wrong);
        assert_eq!(refused(source), "scope", "{wrong:?}");
    }
}

#[tokio::test]
async fn p56_extension_grant_has_its_type_and_parameters() {
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    let request = sent(|source| source.grant_type(device).param("device_code", "d c")).await;
    assert_eq!(
        body(&request),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d+c"
    );
    let request = sent(|source| {
        source
            .grant_type("account_credentials")
            .param("account_id", "42")
    })
    .await;
    assert_eq!(
        body(&request),
        "grant_type=account_credentials&account_id=42"
    );
    assert_eq!(
        refused(at("https://as.example/token").grant_type("")),
        "grant_type"
    );
}

#[tokio::test]
async fn c7_credentials_with_question_marks_are_encoded() {
    let idp = MockIdp::start().await.unwrap();
    idp.always(token("t"));
    let source = ClientCredentials::builder(idp.token_url(), "CLIENT_ID??", "CLIENT_SECRET??");
    fetch(source).await.unwrap();
    assert_eq!(
        only(idp.token_log()).header("authorization"),
        Some("Basic Q0xJRU5UX0lEJTNGJTNGOkNMSUVOVF9TRUNSRVQlM0YlM0Y=")
    );
}

#[tokio::test]
async fn c10_failed_authentication_is_not_retried_with_another_method() {
    for status in [400, 401] {
        let rig = rig().await;
        let error = serde_json::json!({"error": "invalid_client"});
        rig.idp.always(Answer::json(status, error));
        rig.cache.token().await.unwrap_err();
        let request = only(rig.idp.token_log());
        assert_eq!(credentials(&request), "client-id:client-secret");
    }
}

#[tokio::test]
async fn c11_caches_with_other_scopes_have_other_tokens() {
    let idp = MockIdp::start().await.unwrap();
    idp.repeat_token(true);
    let cache = |configure: fn(ClientCredentialsBuilder) -> ClientCredentialsBuilder| {
        TokenCache::new(configure(client(&idp)).build().unwrap())
    };
    let caches = [
        cache(|source| source.scope("a")),
        cache(|source| source.scope("A")),
        cache(|source| source.scope("a").audience("x")),
        cache(|source| source.scope("a").resource("https://x.example")),
    ];
    for _ in 0..2 {
        for (number, cache) in (1..).zip(&caches) {
            let token = cache.token().await.unwrap();
            assert_eq!(token.expose_secret(), format!("token-{number}"));
        }
    }
    assert_eq!(idp.token_requests(), 4, "two calls of each, one request");
}
