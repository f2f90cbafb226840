//! Token requests over TLS to a server with a self-signed certificate.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bearer_auth::{
    BearerAuthLayer, ClientCredentials, Error, ErrorKind, TokenRequest, TokenResponse, TokenSource,
    endpoint::ReqwestClient, testing::MockIdp,
};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        version::TLS12,
    },
};
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use crate::support::http::{NoBody, get, http1, soon};

/// TLS in front of a [`MockIdp`].
struct Proxy {
    port: u16,
    /// The certificate, which is its own root.
    pem: String,
    /// Connections whose handshake succeeded.
    through: Arc<AtomicUsize>,
}

async fn proxy(idp: &MockIdp, names: &[&str]) -> Proxy {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = rcgen::generate_simple_self_signed(names).unwrap();
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::from(private))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = idp.token_url().split('/').nth(2).unwrap().to_owned();
    let through = Arc::new(AtomicUsize::new(0));
    let count = through.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind, count) = (acceptor.clone(), behind.clone(), count.clone());
            tokio::spawn(async move {
                let mut front = acceptor.accept(stream).await?;
                count.fetch_add(1, Ordering::SeqCst);
                let mut back = TcpStream::connect(behind).await?;
                copy_bidirectional(&mut front, &mut back).await
            });
        }
    });
    Proxy {
        port,
        pem: key.cert.pem(),
        through,
    }
}

impl Proxy {
    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/oauth2/v1/token?tenant=canary", self.port)
    }
}

async fn fetch(url: &str, http: ReqwestClient) -> Result<TokenResponse, Error> {
    let source = ClientCredentials::builder(url, "client-id", "client-secret")
        .http_client(http)
        .build()
        .unwrap();
    soon(source.fetch(TokenRequest::new())).await
}

fn trusting(pem: &str) -> ReqwestClient {
    ReqwestClient::new()
        .root_certificate_pem(pem.as_bytes())
        .unwrap()
}

#[tokio::test]
async fn p7_s4_10_only_the_configured_root_certificate_is_trusted() {
    let idp = MockIdp::start().await.unwrap();
    let proxy = proxy(&idp, &["localhost", "127.0.0.1"]).await;
    let stranger = self::proxy(&idp, &["localhost"]).await;
    for host in ["localhost", "127.0.0.1"] {
        for http in [ReqwestClient::new(), trusting(&stranger.pem)] {
            let error = fetch(&proxy.url(host), http).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect);
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
    }
    assert_eq!(idp.token_requests(), 0);

    for (at, host) in ["localhost", "127.0.0.1"].into_iter().enumerate() {
        fetch(&proxy.url(host), trusting(&proxy.pem)).await.unwrap();
        assert_eq!(idp.token_requests(), at + 1);
    }
    let bundle = stranger.pem.clone() + &proxy.pem;
    fetch(&proxy.url("localhost"), trusting(&bundle))
        .await
        .unwrap();
    let both = trusting(&stranger.pem).root_certificate_pem(proxy.pem.as_bytes());
    fetch(&proxy.url("localhost"), both.unwrap()).await.unwrap();
    assert_eq!(idp.token_requests(), 4);
}

#[tokio::test]
async fn certificate_for_another_host_is_a_connect_error() {
    let idp = MockIdp::start().await.unwrap();
    let proxy = proxy(&idp, &["idp.example"]).await;
    let error = fetch(&proxy.url("localhost"), trusting(&proxy.pem))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(idp.token_requests(), 0);
    assert_eq!(proxy.through.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn plain_http_to_a_tls_port_and_tls_to_a_plain_port_fail() {
    let idp = MockIdp::start().await.unwrap();
    let proxy = proxy(&idp, &["localhost"]).await;
    let plain = proxy.url("localhost").replace("https", "http");
    let error = fetch(&plain, trusting(&proxy.pem)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport, "{error:?}");
    let tls = idp.token_url().replace("http", "https");
    let error = fetch(&tls, trusting(&proxy.pem)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn layer_gets_tokens_over_tls() {
    let idp = MockIdp::start().await.unwrap();
    let proxy = proxy(&idp, &["localhost"]).await;
    let source = ClientCredentials::builder(proxy.url("localhost"), "client-id", "client-secret")
        .http_client(trusting(&proxy.pem))
        .build()
        .unwrap();
    let client = BearerAuthLayer::for_api(idp.api_url(), source)
        .unwrap()
        .layer(http1::<NoBody>());
    for _ in 0..2 {
        idp.revoke("token-1");
        let response = client.clone().oneshot(get(idp.api_url())).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[test]
fn invalid_root_certificate_is_a_configuration_error() {
    let junk = "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n";
    for pem in ["", "no pem", junk] {
        let error = ReqwestClient::new()
            .root_certificate_pem(pem.as_bytes())
            .unwrap_err();
        assert_eq!(error.field(), "root_certificate_pem", "{pem}");
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A certificate, and its key in PKCS#8.
fn certified(kind: &'static SignatureAlgorithm) -> (String, Vec<u8>) {
    let key = KeyPair::generate_for(kind).unwrap();
    let params = CertificateParams::new([]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_der())
}

#[test]
fn identity_accepts_each_private_key_format_in_any_order() {
    // PKCS#8 contains the older format at its end.
    let within = |der: &[u8], start: &[u8]| {
        let at = der.windows(start.len()).position(|bytes| bytes == start);
        der[at.unwrap()..].to_vec()
    };
    let sec1 = |der: &[u8]| within(der, b"\x30\x6b\x02\x01\x01\x04\x20");
    let pkcs1 = |der: &[u8]| within(&der[4..], b"\x30\x82");
    let (p256, p256_key) = certified(&PKCS_ECDSA_P256_SHA256);
    let (rsa, rsa_key) = certified(&PKCS_RSA_SHA256);
    let (ed25519, ed25519_key) = certified(&PKCS_ED25519);
    for (certificate, label, key) in [
        (&p256, "EC PRIVATE KEY", sec1(&p256_key)),
        (&p256, "PRIVATE KEY", p256_key),
        (&rsa, "RSA PRIVATE KEY", pkcs1(&rsa_key)),
        (&rsa, "PRIVATE KEY", rsa_key),
        (&ed25519, "PRIVATE KEY", ed25519_key),
    ] {
        let key = pem(label, &key);
        for text in [certificate.clone() + &key, key.clone() + certificate] {
            let http = ReqwestClient::new().identity_pem(text).unwrap();
            let key = key.lines().nth(1).unwrap();
            assert!(!format!("{http:?} {http:#?}").contains(key));
        }
    }
}

#[test]
fn invalid_identity_is_a_configuration_error_with_the_reason() {
    let (certificate, key) = certified(&PKCS_ECDSA_P256_SHA256);
    let (stranger, _) = certified(&PKCS_ECDSA_P256_SHA256);
    let key_pem = pem("PRIVATE KEY", &key);
    let damaged = |label: &str| certificate.clone() + &pem(label, b"canary-canary");
    for (text, says) in [
        (String::new(), "not PEM"),
        ("client.pem".to_owned(), "not PEM"),
        (certificate.clone(), "no private key"),
        (key_pem.clone(), "no certificate"),
        (damaged("ENCRYPTED PRIVATE KEY"), "encrypted"),
        (damaged("PRIVATE KEY"), "damaged"),
        (damaged("EC PRIVATE KEY"), "damaged"),
        (certificate.clone() + &key_pem[..60], "damaged"),
        (stranger.clone() + &key_pem, "not that of the certificate"),
        // The client's certificate comes after its issuer's.
        (stranger + &certificate + &key_pem, "comes first"),
    ] {
        let error = ReqwestClient::new().identity_pem(text).unwrap_err();
        assert_eq!(error.field(), "identity_pem");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(says), "{shown}");
        let secrets = [&STANDARD.encode(b"canary-canary"), &key_pem[28..60]];
        assert!(
            !secrets.iter().any(|secret| shown.contains(*secret)),
            "{shown}"
        );
    }
}
