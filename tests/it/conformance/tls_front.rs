//! A TLS proxy in front of a [`MockIdp`], which requests and checks client certificates: the server
//! side of RFC 8705.

use std::{
    collections::HashMap,
    convert::Infallible,
    slice,
    sync::{Arc, Mutex},
};

use bearer_auth::testing::MockIdp;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ALL_VERSIONS, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use super::rig::*;
use crate::support::tls::{Identity, thumbprint};

/// A request, and the client certificates of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) chain: Vec<String>,
    pub(crate) status: u16,
    /// Whether the connection resumed an earlier TLS session.
    pub(crate) resumed: bool,
}

pub(crate) struct Front {
    idp: MockIdp,
    port: u16,
    /// The server's self-signed certificate.
    pub(crate) root: String,
    known: Arc<Known>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Known {
    /// The thumbprints of the clients that authenticate with a certificate.
    clients: Mutex<HashMap<String, Vec<String>>>,
    /// The thumbprint that each access or refresh token is bound to.
    bound: Mutex<HashMap<String, String>>,
    seen: Mutex<Vec<Seen>>,
}

/// Which client certificates a [`Front`] accepts.
pub(crate) struct Asking {
    pub(crate) trusted: Vec<Identity>,
    /// Whether connections without a certificate are accepted.
    pub(crate) optional: bool,
    /// Only this certificate.
    pub(crate) version: Option<&'static SupportedProtocolVersion>,
}

impl Asking {
    /// Requires one of these certificates, or one with the same root.
    pub(crate) fn for_one_of(trusted: &[&Identity]) -> Self {
        Self {
            trusted: trusted.iter().copied().cloned().collect(),
            optional: false,
            version: None,
        }
    }
}

impl Front {
    pub(crate) async fn of(idp: &MockIdp, asking: Asking) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for identity in asking.trusted {
            roots.add(identity.root).unwrap();
        }
        let roots = Arc::new(roots);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        if asking.optional {
            verifier = verifier.allow_unauthenticated();
        }
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(
                asking
                    .version
                    .as_ref()
                    .map_or(ALL_VERSIONS, slice::from_ref),
            )
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::from(private))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = Arc::new(Known::default());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, acceptor, idp.clone(), Arc::clone(&known)));
        Self {
            idp: idp.clone(),
            port,
            root: key.cert.pem(),
            known,
            _server: server,
        }
    }

    /// Registers the certificates that authenticate `client_id`.
    pub(crate) fn register(&self, client_id: &str, identities: &[&Identity]) {
        let thumbprints = identities.iter().map(|known| known.thumbprint());
        let mut clients = self.known.clients.lock().unwrap();
        clients.insert(client_id.to_owned(), thumbprints.collect());
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub(crate) fn token_url(&self) -> String {
        let url = self.idp.token_url();
        self.at(url.parse::<http::Uri>().unwrap().path())
    }

    pub(crate) fn api_url(&self) -> String {
        self.at(API)
    }

    /// Returns the requests to the API, or all others.
    pub(crate) fn seen(&self, api: bool) -> Vec<Seen> {
        let seen = self.known.seen.lock().unwrap();
        let wanted = seen.iter().filter(|seen| seen.path.starts_with(API) == api);
        wanted.cloned().collect()
    }

    /// Returns the status and the certificate of each request to the API.
    pub(crate) fn at_the_api(&self) -> Vec<(u16, String)> {
        let seen = self.seen(true).into_iter();
        seen.map(|seen| (seen.status, seen.chain[0].clone()))
            .collect()
    }

    /// Returns the certificate of each other request.
    pub(crate) fn at_the_idp(&self) -> Vec<String> {
        let seen = self.seen(false).into_iter();
        seen.map(|seen| seen.chain[0].clone()).collect()
    }
}

const API: &str = "/api/";

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, idp: MockIdp, known: Arc<Known>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, idp, known) = (acceptor.clone(), idp.clone(), Arc::clone(&known));
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let tls = stream.get_ref().1;
            let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
            let chain = tls.peer_certificates().unwrap_or_default();
            let chain: Vec<_> = chain.iter().map(thumbprint).collect();
            let service = service_fn(|request: Request<Incoming>| {
                let (idp, known, chain) = (idp.clone(), Arc::clone(&known), chain.clone());
                async move {
                    let path = request.uri().path().to_owned();
                    let response = answer(&idp, &known, chain.first(), request).await;
                    let status = response.status().as_u16();
                    let seen = Seen {
                        path,
                        chain,
                        status,
                        resumed,
                    };
                    known.seen.lock().unwrap().push(seen);
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

type Answered = Response<Full<Bytes>>;

async fn answer(
    idp: &MockIdp,
    known: &Known,
    presented: Option<&String>,
    request: Request<Incoming>,
) -> Answered {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let is_api = parts.uri.path().starts_with(API);
    if parts.uri.path() == "/revoke" {
        return Response::default();
    }
    // Whether a token is bound to another certificate.
    let is_another = |token: &str| {
        let bound = known.bound.lock().unwrap().get(token).cloned();
        bound.is_some_and(|bound| Some(&bound) != presented)
    };
    let form: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
    let client = value(&form, "client_id").map(str::to_owned);
    let registered = client.and_then(|id| known.clients.lock().unwrap().get(&id).cloned());
    if is_api {
        let token = parts.headers.get("authorization");
        let token = token.and_then(|value| value.to_str().unwrap().strip_prefix("Bearer "));
        if token.is_some_and(is_another) {
            return refusal(401, "invalid_token");
        }
    } else if let Some(thumbprints) = &registered {
        if !presented.is_some_and(|presented| thumbprints.contains(presented)) {
            return refusal(401, "invalid_client");
        }
    } else if value(&form, "refresh_token").is_some_and(is_another) {
        return refusal(400, "invalid_grant");
    }
    let (url, prefix) = match is_api {
        true => (idp.api_url(), API),
        false => (idp.token_url(), parts.uri.path()),
    };
    let path = parts.uri.path().strip_prefix(prefix).unwrap();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parts.method;
    *request.headers_mut() = parts.headers;
    *request.uri_mut() = format!("{url}{path}").parse().unwrap();
    let (parts, body) = http().request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    if let (false, Some(presented), Ok(given)) =
        (is_api, presented, serde_json::from_slice::<Value>(&body))
    {
        // Refresh tokens of confidential clients are bound to the client (RFC 8705 §4).
        let of_public = registered.is_none().then_some("refresh_token");
        for name in [Some("access_token"), of_public].into_iter().flatten() {
            if let Some(token) = given[name].as_str() {
                let mut bound = known.bound.lock().unwrap();
                bound.insert(token.to_owned(), presented.clone());
            }
        }
    }
    Response::from_parts(parts, Full::new(body))
}

fn refusal(status: u16, code: &str) -> Answered {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("www-authenticate", format!("Bearer error=\"{code}\""))
        .body(Full::from(json!({ "error": code }).to_string()))
        .unwrap()
}
