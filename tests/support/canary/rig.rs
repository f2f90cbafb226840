//! Servers that send canaries, and echo everything that they received.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientCredentials, ClientCredentialsBuilder,
    TokenCache, TokenSource,
    testing::{Answer, ManualClock, MockIdp},
};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::support::canary::{
    canaries::Secret::{self, *},
    watch::Watch,
};

pub(crate) const REDIRECT: &str = "https://app.example/callback";

/// A server whose client credentials and tokens are canaries.
pub(crate) async fn idp() -> MockIdp {
    let builder = MockIdp::builder().client(ClientId.text(), ClientSecret.text());
    let idp = builder.start().await.unwrap();
    idp.always(token());
    idp.api_answers("/api/", Answer::json(200, json!({"orders": []})));
    idp
}

pub(crate) fn token() -> Answer {
    answer(AccessToken, Session)
}

pub(crate) fn second_token() -> Answer {
    answer(SecondAccessToken, SecondRefreshToken)
}

fn answer(access: Secret, refresh: Secret) -> Answer {
    let body = json!({
        "access_token": access.text(),
        "refresh_token": refresh.text(),
        "id_token": IdToken.text(),
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "orders:read",
        "account": Cookie.text(),
    });
    Answer::json(200, body).header("set-cookie", &format!("session={}", Cookie.text()))
}

/// All secrets at once, like the debug page of a server.
pub(crate) fn echo() -> String {
    let all = Secret::FIXED.map(|secret| format!("{secret:?}={}", secret.text()));
    all.join("; ")
}

/// The secrets that are valid in a header, which must be ASCII.
fn echo_in_header() -> String {
    let all = [AccessToken, Session, Code, State, Header, Cookie];
    all.map(Secret::text).join(", ")
}

/// Responses that echo all secrets, in each part of a response. None is a valid token response.
pub(crate) fn echoes() -> Vec<(&'static str, Answer)> {
    let echo = echo();
    let error = |status, error: &str| {
        let description = json!({
            "error": error, "error_description": echo, "error_uri": echo, "debug": echo,
        });
        Answer::json(status, description)
    };
    let text = |status, kind: &str| Answer::bytes(status, kind, echo.clone());
    let location = format!(
        "https://else.example/?code={}",
        Code.text().replace('"', "")
    );
    let broken = json!({"access_token": AccessToken.text(), "refresh_token": Session.text()});
    let broken = broken.to_string();
    vec![
        ("invalid_grant", error(400, "invalid_grant")),
        ("invalid_client", error(401, "invalid_client")),
        ("an error with status 200", error(200, "invalid_request")),
        ("an error as code", error(400, &echo)),
        ("unavailable", error(503, "temporarily_unavailable")),
        ("a page", text(500, "text/html")),
        ("a page with status 200", text(200, "text/html")),
        ("a text", text(400, "text/plain")),
        (
            "JSON that is none",
            Answer::bytes(200, "application/json", broken.clone() + "}"),
        ),
        (
            "half a document",
            Answer::bytes(
                200,
                "application/json",
                broken[..broken.len() - 9].to_owned(),
            ),
        ),
        ("a list", Answer::json(200, json!([echo]))),
        (
            "a token that is none",
            Answer::json(200, json!({"access_token": [echo], "x": echo})),
        ),
        (
            "a token that no header can carry",
            Answer::json(200, json!({"access_token": echo})),
        ),
        (
            "a token twice",
            Answer::bytes(
                200,
                "application/json",
                format!("{},{}", &broken[..broken.len() - 1], &broken[1..]),
            ),
        ),
        (
            "a type",
            Answer::json(
                200,
                json!({"access_token": AccessToken.text(), "token_type": echo}),
            ),
        ),
        (
            "a lifetime",
            Answer::json(400, json!({"expires_in": echo, "error": {"x": echo}})),
        ),
        (
            "headers",
            Answer::status(400)
                .header("error", &echo_in_header())
                .header("error_description", &echo_in_header())
                .header(
                    "www-authenticate",
                    &format!("Bearer realm=\"{}\"", Header.text().replace('"', "")),
                )
                .header("retry-after", &echo_in_header())
                .header("set-cookie", &format!("session={}", Cookie.text())),
        ),
        ("a redirect", Answer::redirect(&location)),
        ("not HTTP", Answer::raw(echo.clone())),
        (
            "a header that is none",
            Answer::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", echo)),
        ),
        (
            "a length that is none",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                echo_in_header()
            )),
        ),
        (
            "half an answer",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{echo}"
            )),
        ),
        (
            "a broken chunk",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{echo}\r\n"
            )),
        ),
        ("no answer", Answer::drop_connection()),
        ("a reset", Answer::reset_before_reading()),
        (
            "too long an answer",
            Answer::bytes(
                200,
                "application/json",
                format!("{{\"access_token\":\"{}", echo.repeat(2_000)),
            ),
        ),
    ]
}

/// Client credentials with every optional setting.
pub(crate) fn credentials(url: impl Into<String>) -> ClientCredentialsBuilder {
    ClientCredentials::builder(url, ClientId.text(), ClientSecret.text())
        .scope("orders:read")
        .audience("https://api.example/")
        .param("account_key", Param.text())
        .header("x-account", Header.text())
}

pub(crate) fn sign_in(idp: &MockIdp) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(idp.authorization_url(), idp.token_url(), ClientId.text())
        .client_secret(ClientSecret.text())
        .redirect_uri(REDIRECT)
        .scope("openid offline_access")
        .param("account_key", Param.text())
        .token_param("account_key", Param.text())
        .header("x-account", Header.text())
}

/// A private key as PEM and as JWK. Adds its private part to the watch.
pub(crate) struct Key {
    pub(crate) pem: String,
    pub(crate) jwk: String,
}

impl Key {
    /// EC on P-256.
    pub(crate) fn new(watch: &Watch) -> Self {
        let pair = KeyPair::generate().unwrap();
        let jwk = secret_part(&pair, watch);
        Self {
            pem: pair.serialize_pem(),
            jwk: jwk.to_string(),
        }
    }
}

/// Returns the JWK.
fn secret_part(pair: &KeyPair, watch: &Watch) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let der = pair.serialize_der();
    // SEC1's version and the octets of the scalar (RFC 5915).
    let before = b"\x02\x01\x01\x04\x20";
    let at = der
        .windows(before.len())
        .position(|window| window == before)
        .unwrap();
    let scalar = &der[at + before.len()..][..32];
    watch.secret(PrivateKey, scalar);
    let point = pair.public_key_raw();
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    json!({
        "kty": "EC", "crv": "P-256", "d": encode(scalar),
        "x": encode(&point[1..33]), "y": encode(&point[33..65]),
    })
}

/// A certificate with its private key, in PEM.
pub(crate) struct Certified {
    pub(crate) pem: String,
    pub(crate) root: CertificateDer<'static>,
}

impl Certified {
    pub(crate) fn new(watch: &Watch) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        secret_part(&certified.signing_key, watch);
        Self {
            pem: certified.cert.pem() + &certified.signing_key.serialize_pem(),
            root: certified.cert.der().clone(),
        }
    }
}

/// A TLS proxy in front of a server.
pub(crate) struct Tls {
    port: u16,
    /// The server's certificate.
    pub(crate) root: String,
    _server: JoinSet<()>,
}

impl Tls {
    /// Starts the proxy. With `client`, only clients with its certificate may connect.
    pub(crate) async fn before(
        watch: &Watch,
        server: SocketAddr,
        protocol: &[u8],
        client: Option<&Certified>,
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names = ["localhost", "idp.example"].map(str::to_owned);
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        secret_part(&key.signing_key, watch);
        let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match client {
            None => config.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.root.clone()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![key.cert.der().clone()];
        let mut config = config
            .with_single_cert(chain, PrivateKeyDer::from(private))
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut behind = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
        Self {
            port,
            root: key.cert.pem(),
            _server: running,
        }
    }

    /// The URL's path at this proxy.
    pub(crate) fn at(&self, url: &str) -> String {
        let url: http::Uri = url.parse().unwrap();
        format!("https://localhost:{}{}", self.port, url.path())
    }
}

/// The socket address in a URL.
pub(crate) fn address(url: &str) -> SocketAddr {
    let url: http::Uri = url.parse().unwrap();
    url.authority().unwrap().as_str().parse().unwrap()
}

/// A cache with a manual clock, for [`hurried`].
pub(crate) fn cache(source: impl TokenSource) -> (TokenCache, ManualClock) {
    let clock = ManualClock::new();
    let cache = TokenCache::builder(source)
        .name("orders")
        .clock(clock.clone());
    (cache.on_event(Watch::event).build(), clock)
}

/// Runs a future, and advances the clock through the pauses between attempts.
pub(crate) async fn hurried<T>(clock: &ManualClock, done: impl Future<Output = T>) -> T {
    let pauses = async {
        loop {
            // Not the timeouts of requests, which are longer.
            let pause = clock
                .next_wakeup()
                .filter(|wait| *wait < Duration::from_secs(5));
            clock.advance(pause.unwrap_or_default());
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = done => done,
        () = pauses => unreachable!("the loop never ends"),
    }
}

/// Form-encodes a text.
pub(crate) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A parameter of a URL's query.
pub(crate) fn parameter(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let found = url.query_pairs().find(|(known, _)| known == name);
    found.unwrap().1.into_owned()
}
