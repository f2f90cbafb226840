//! TLS for Redis, with a certificate authority for the test.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use redis::{Client, TlsCertificates};

/// A certificate authority, and a certificate for 127.0.0.1.
pub(crate) struct Tls {
    root: String,
    certificate: String,
    key: String,
}

impl Tls {
    pub(crate) fn new() -> Arc<Self> {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(authority, key).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &root).unwrap();
        Arc::new(Self {
            root: root.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The arguments of a server with TLS at this port.
    pub(crate) fn args(&self, directory: &Path, port: &str) -> Vec<String> {
        let file = |name: &str, content: &str| {
            let path = directory.join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let args = [
            ("--tls-port", port.to_owned()),
            ("--tls-cert-file", file("certificate", &self.certificate)),
            ("--tls-key-file", file("key", &self.key)),
            ("--tls-ca-cert-file", file("root", &self.root)),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let args = args.into_iter();
        args.flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }

    /// A client that trusts only this authority.
    pub(crate) fn client(&self, port: u16) -> Client {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(self.root.clone().into_bytes()),
        };
        let url = format!("rediss://127.0.0.1:{port}/");
        Client::build_with_tls(url, certificates).unwrap()
    }
}
