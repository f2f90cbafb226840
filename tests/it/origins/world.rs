//! Two hosts on sockets, and the name resolution of the clients.
//!
//! `api.example` is the API; every other name resolves to the other host, and so does the other
//! host's port with any name. Both speak TLS and plain HTTP on the same port, with certificates of one
//! root for every requested name. So the other host is always reachable, and only the client can keep
//! a token from it.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bearer_auth::{
    BearerAuthLayer, BearerAuthLayerBuilder, TokenCache, TokenResponse, TokenSource, source_fn,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header::LOCATION};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, rt, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

/// The prefix of every token, for the search.
pub(crate) const CANARY: &str = "canary-token";

/// The API's base path.
pub(crate) const BASE: &str = "/v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Site {
    Api,
    Other,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) site: Site,
    pub(crate) tls: bool,
    /// The `Host` header.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    /// The status of the response.
    pub(crate) status: u16,
    /// Request line, headers and body.
    everything: String,
}

impl Seen {
    /// Whether a token is anywhere in the request.
    pub(crate) fn has_token(&self) -> bool {
        self.everything.contains(CANARY)
    }

    /// The number of its token, if it is in `Authorization`.
    pub(crate) fn numbers(&self) -> String {
        let value = self
            .headers
            .get("authorization")
            .map(|value| value.to_str().unwrap());
        let number = value.and_then(|value| value.strip_prefix(&format!("Bearer {CANARY}-")));
        number.unwrap_or("-").to_owned()
    }

    /// Whether it came to the API's own origin: by name, over TLS, at the API's port.
    pub(crate) fn is_at_api(&self) -> bool {
        let host = self.host.to_ascii_lowercase();
        let host = host.strip_suffix(":443").unwrap_or(&host);
        self.site == Site::Api && self.tls && host == "api.example"
    }

    /// Whether it also came below the API's base path, as any server reads the path.
    pub(crate) fn is_below_base(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let below = path.strip_prefix(BASE);
        let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = path.to_ascii_lowercase();
        self.is_at_api() && below && !["..", "%2e", "%2f", "%5c"].iter().any(|x| path.contains(x))
    }
}

/// The response at a path.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
}

pub(crate) fn redirect(status: u16, location: impl Into<String>) -> Reply {
    Reply {
        status,
        location: Some(location.into()),
    }
}

pub(crate) fn status(status: u16) -> Reply {
    Reply {
        status,
        location: None,
    }
}

#[derive(Clone)]
pub(crate) struct World {
    known: Arc<Known>,
    tls: Arc<ClientConfig>,
    root: String,
    ports: Ports,
    _servers: Arc<JoinSet<()>>,
}

#[derive(Default)]
struct Known {
    seen: Mutex<Vec<Seen>>,
    replies: Mutex<HashMap<(Site, String), Reply>>,
    /// The only token that the API accepts; `None`: any.
    good: Mutex<Option<String>>,
    /// A path, and the token that the API rejects there.
    bad: Mutex<Option<(String, String)>>,
    issued: Mutex<usize>,
}

impl Known {
    fn reply(&self, site: Site, path: &str, everything: &str) -> Reply {
        let good = self.good.lock().unwrap();
        let is_bad = |bad: &(String, String)| bad.0 == path && everything.contains(&bad.1);
        let rejected = !everything.contains(good.as_deref().unwrap_or(CANARY))
            || self.bad.lock().unwrap().as_ref().is_some_and(is_bad);
        let reply = self
            .replies
            .lock()
            .unwrap()
            .get(&(site, path.to_owned()))
            .cloned();
        match (site, reply) {
            // With a `good` token, the API also checks the token before it redirects.
            (Site::Api, Some(_)) if rejected && good.is_some() => status(401),
            (_, Some(reply)) => reply,
            (Site::Api, None) => status(if rejected { 401 } else { 200 }),
            (Site::Other, None) => status(404),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) other: u16,
}

impl Ports {
    /// Resolves a name to a port.
    fn of(self, name: &str) -> u16 {
        match name
            .trim_end_matches('.')
            .eq_ignore_ascii_case("api.example")
        {
            true => self.api,
            false => self.other,
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let root = Root::new();
        let mut roots = RootCertStore::empty();
        roots.add(root.0.der().clone()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let pem = root.0.pem();
        let known = Arc::new(Known::default());
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(root));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let mut servers = JoinSet::new();
        let mut ports = [0; 2];
        for (port, site) in ports.iter_mut().zip([Site::Api, Site::Other]) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            *port = listener.local_addr().unwrap().port();
            servers.spawn(serve(listener, acceptor.clone(), site, Arc::clone(&known)));
        }
        let [api, other] = ports;
        Self {
            known,
            tls: Arc::new(tls),
            root: pem,
            ports: Ports { api, other },
            _servers: Arc::new(servers),
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    /// A source of `canary-token-1`, `canary-token-2` …
    pub(crate) fn tokens(&self) -> impl TokenSource + use<> {
        self.tokens_in(http::header::AUTHORIZATION, "Bearer")
    }

    pub(crate) fn tokens_in(
        &self,
        header: HeaderName,
        scheme: &'static str,
    ) -> impl TokenSource + use<> {
        let known = Arc::clone(&self.known);
        source_fn(move |_| {
            let mut issued = known.issued.lock().unwrap();
            *issued += 1;
            let token = TokenResponse::builder(format!("{CANARY}-{issued}"))
                .header_name(header.clone())
                .scheme(scheme)
                .build();
            std::future::ready(token)
        })
    }

    /// A layer for the API.
    pub(crate) fn layer(&self) -> BearerAuthLayer {
        self.builder().build().unwrap()
    }

    /// The configuration of [`layer`](Self::layer).
    pub(crate) fn builder(&self) -> BearerAuthLayerBuilder {
        BearerAuthLayer::builder(self.tokens()).api(format!("https://api.example{BASE}/"))
    }

    /// A layer for the API and the other host.
    pub(crate) fn layer_for_both(&self, cache: &TokenCache) -> BearerAuthLayer {
        BearerAuthLayer::builder(cache.clone())
            .api(format!("https://api.example{BASE}"))
            .api("https://evil.example")
            .build()
            .unwrap()
    }

    pub(crate) fn issued(&self) -> usize {
        *self.known.issued.lock().unwrap()
    }

    /// Makes the API accept only this token.
    pub(crate) fn accept(&self, token: &str) {
        *self.known.good.lock().unwrap() = Some(token.to_owned());
    }

    /// Makes the API reject this token at `path`.
    pub(crate) fn reject_at(&self, path: &str, token: &str) {
        *self.known.bad.lock().unwrap() = Some((path.to_owned(), token.to_owned()));
    }

    pub(crate) fn answers(&self, site: Site, path: &str, reply: Reply) {
        let mut replies = self.known.replies.lock().unwrap();
        replies.insert((site, path.to_owned()), reply);
    }

    /// Returns the requests since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.known.seen.lock().unwrap())
    }

    /// A client that resolves and trusts the two hosts, for further configuration.
    pub(crate) fn reqwest(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.root.as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .dns_resolver(Arc::new(Names(self.ports)))
    }

    pub(crate) fn hyper(&self) -> Client<Connector, Full<Bytes>> {
        Client::builder(TokioExecutor::new()).build(Connector {
            tls: self.tls.clone().into(),
            ports: self.ports,
        })
    }
}

/// A certificate authority that signs for every name.
struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root")
    }
}

impl ResolvesServerCert for Root {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names: Vec<String> = match hello.server_name() {
            Some(name) => vec![name.to_owned()],
            None => ["127.0.0.1", "::1", "::ffff:127.0.0.1"]
                .map(Into::into)
                .into(),
        };
        let key = KeyPair::generate().ok()?;
        let params = CertificateParams::new(names).ok()?;
        let certificate = params.signed_by(&key, &self.0).ok()?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = aws_lc_rs::default_provider()
            .key_provider
            .load_private_key(key);
        let chain = vec![certificate.der().clone()];
        Some(Arc::new(CertifiedKey::new(chain, key.ok()?)))
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, site: Site, known: Arc<Known>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
        connections.spawn(async move {
            let mut first = [0];
            let tls = matches!(stream.peek(&mut first).await, Ok(1) if first == [0x16]);
            let stream: Pin<Box<dyn Io>> = match tls {
                true => match acceptor.accept(stream).await {
                    Ok(stream) => Box::pin(stream),
                    Err(_) => return,
                },
                false => Box::pin(stream),
            };
            let service = service_fn(|request: Request<Incoming>| {
                let known = Arc::clone(&known);
                async move { Ok::<_, Infallible>(answer(&known, site, tls, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

async fn answer(
    known: &Known,
    site: Site,
    tls: bool,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(n, v)| (n, v.as_bytes()))
        .collect();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let everything = format!(
        "{} {} {:?} {}",
        parts.method,
        parts.uri,
        headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", shown(v)))
            .collect::<Vec<_>>(),
        shown(&body)
    );
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let host = shown(parts.headers["host"].as_bytes());
    let reply = known.reply(site, &path, &everything);
    known.seen.lock().unwrap().push(Seen {
        site,
        tls,
        host,
        path,
        headers: parts.headers,
        status: reply.status,
        everything,
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    if let Some(location) = reply.location {
        // As bytes: some locations in the table are not ASCII.
        let location = HeaderValue::from_bytes(location.as_bytes()).unwrap();
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// reqwest's resolver.
struct Names(Ports);

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let at = SocketAddr::from(([127, 0, 0, 1], self.0.of(name.as_str())));
        Box::pin(std::future::ready(Ok(
            Box::new([at].into_iter()) as reqwest::dns::Addrs
        )))
    }
}

/// hyper's connector: TLS for `https`, to the port of the URI or of the resolved host.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    ports: Ports,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, ports } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let port = match uri.port_u16() {
                None | Some(80 | 443) => ports.of(host),
                Some(port) => port,
            };
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let stream: Pin<Box<dyn Io>> = match uri.scheme_str() {
                Some("https") => {
                    let name = host.trim_matches(['[', ']']).to_owned();
                    let name = ServerName::try_from(name).map_err(io::Error::other)?;
                    Box::pin(tls.connect(name, stream).await?)
                }
                Some("http") => Box::pin(stream),
                _ => return Err(io::Error::other("neither http nor https")),
            };
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

pub(crate) struct Stream(TokioIo<Pin<Box<dyn Io>>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
