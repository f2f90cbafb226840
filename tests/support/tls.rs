//! Client certificates (RFC 8705), and HTTP clients with them.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bearer_auth::endpoint::ReqwestClient;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData as _,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A certificate with its private key and its chain.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) pem: String,
    /// The presented chain: the client's certificate, then intermediate ones.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The root that a server must trust.
    pub(crate) root: CertificateDer<'static>,
    /// The public key.
    point: Vec<u8>,
}

impl Identity {
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, IsCa::NoCa).self_signed(&key).unwrap();
        let certificate = certificate.der().clone();
        Self::new(&key, vec![certificate.clone()], certificate)
    }

    fn new(
        key: &KeyPair,
        chain: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
    ) -> Self {
        let certificates: String = chain.iter().map(pem).collect();
        Self {
            pem: certificates + &key.serialize_pem(),
            chain,
            root,
            point: key.der_bytes().to_vec(),
        }
    }

    /// The thumbprints of the presented chain.
    pub(crate) fn thumbprints(&self) -> Vec<String> {
        self.chain.iter().map(thumbprint).collect()
    }

    /// The thumbprint of the client's certificate.
    pub(crate) fn thumbprint(&self) -> String {
        thumbprint(&self.chain[0])
    }

    /// The public key with the certificate (RFC 8705 §2.2.2).
    pub(crate) fn jwk(&self) -> Value {
        let [x, y] = [&self.point[1..33], &self.point[33..]].map(|n| URL_SAFE_NO_PAD.encode(n));
        let certificate = STANDARD.encode(&self.chain[0]);
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "x5c": [certificate]})
    }

    /// A client for token requests with this certificate. `root`: the server's root.
    pub(crate) fn http(&self, root: &str) -> ReqwestClient {
        http(root).identity_pem(self.pem.as_str()).unwrap()
    }

    /// A client for API requests with this certificate.
    pub(crate) fn api(&self, root: &str) -> reqwest::Client {
        let identity = reqwest::Identity::from_pem(self.pem.as_bytes()).unwrap();
        let root = reqwest::Certificate::from_pem(root.as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .identity(identity)
            .build()
            .unwrap()
    }
}

/// A client for token requests without a certificate.
pub(crate) fn http(root: &str) -> ReqwestClient {
    let http = ReqwestClient::new();
    http.root_certificate_pem(root.as_bytes()).unwrap()
}

/// A root, and an intermediate that signs certificates.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let params = |name| params(name, IsCa::Ca(BasicConstraints::Unconstrained));
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(params("root"), key()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(params("intermediate"), key(), &root);
        Self {
            root: root.der().clone(),
            intermediate: intermediate.unwrap(),
        }
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = params(name, IsCa::NoCa);
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        let chain = vec![certificate.der().clone(), self.intermediate.der().clone()];
        Identity::new(&key, chain, self.root.clone())
    }
}

fn params(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params
}

pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// `x5t#S256` (RFC 8705 §3.1).
pub(crate) fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(certificate))
}
