//! The network to the token endpoint: real sockets, and servers that fail.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bearer_auth::{
    endpoint::{HttpClient, HttpError, ReqwestClient},
    testing::ManualClock,
};
use bytes::Bytes;
use http::{Request, Uri};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::faults::fault::Network;

/// The default client with a detour, as a resolver or a network may cause it. Counts token requests,
/// including those that reach no server.
pub(crate) struct Line {
    http: ReqwestClient,
    sends: AtomicUsize,
    detour: Mutex<Option<Uri>>,
    /// Runs once, while a request is in flight.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Line {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            http: ReqwestClient::new(),
            sends: AtomicUsize::new(0),
            detour: Mutex::default(),
            meanwhile: Mutex::default(),
        })
    }

    /// Returns the number of requests that were sent.
    pub(crate) fn sends(&self) -> usize {
        self.sends.load(Ordering::SeqCst)
    }

    pub(crate) fn lead_to(&self, url: Option<&str>) {
        *self.detour.lock().unwrap() = url.map(|url| url.parse().unwrap());
    }

    pub(crate) fn meanwhile(&self, action: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(action));
    }
}

impl HttpClient for Line {
    async fn send(&self, mut request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        self.sends.fetch_add(1, Ordering::SeqCst);
        if let Some(url) = self.detour.lock().unwrap().clone() {
            *request.uri_mut() = url;
        }
        if let Some(action) = self.meanwhile.lock().unwrap().take() {
            action();
        }
        self.http.send(request).await
    }
}

/// A broken server, which counts the connections that it accepts.
pub(crate) struct Bad {
    pub(crate) url: String,
    accepted: Arc<AtomicUsize>,
    server: Option<AbortHandle>,
    /// Reserves a port on which no server listens.
    _taken: Option<TcpSocket>,
}

impl Drop for Bad {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

impl Bad {
    /// Starts the server. `None`: `MockIdp` can produce this fault.
    pub(crate) async fn start(network: Network, clock: &ManualClock) -> Option<Self> {
        let serve: fn(TcpStream, ManualClock) -> _ = match network {
            Network::Refused => return Some(Self::unused_port()),
            Network::NoSuchName => return Some(Self::unknown_host()),
            Network::Tls => return Some(Self::tls().await),
            Network::Accepts => |stream, clock| tokio::spawn(keep(stream, clock)),
            Network::Drip => |stream, clock| tokio::spawn(drip(stream, clock)),
            Network::ResetDuring => |stream, _| tokio::spawn(reset(stream, 10)),
            Network::ResetAfter => |stream, _| tokio::spawn(reset(stream, usize::MAX)),
            _ => return None,
        };
        let clock = clock.clone();
        Some(Self::listen("http", move |stream| drop(serve(stream, clock.clone()))).await)
    }

    /// Returns the number of accepted connections.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Whether a connection arrived, if a server listens.
    pub(crate) fn was_met(&self) -> bool {
        self.server.is_none() || self.accepted() > 0
    }

    fn unused_port() -> Self {
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = taken.local_addr().unwrap();
        Self::at(format!("http://{address}/token"), Some(taken))
    }

    /// Resolvers answer without a query that `.invalid` names do not exist (RFC 6761 §6.4).
    fn unknown_host() -> Self {
        Self::at("https://idp.invalid/token".to_owned(), None)
    }

    fn at(url: String, taken: Option<TcpSocket>) -> Self {
        Self {
            url,
            accepted: Arc::default(),
            server: None,
            _taken: taken,
        }
    }

    /// A self-signed certificate.
    async fn tls() -> Self {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::from(private))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::listen("https", move |stream| {
            let accepts = acceptor.accept(stream);
            tokio::spawn(async move {
                let accepted = accepts.await;
                assert!(accepted.is_err(), "the client trusts a stranger");
            });
        })
        .await
    }

    async fn listen(scheme: &str, serve: impl Fn(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bad = Self::at(format!("{scheme}://{address}/token"), None);
        let accepted = Arc::clone(&bad.accepted);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                serve(stream);
            }
        });
        bad.server = Some(server.abort_handle());
        bad
    }
}

/// Accepts and does nothing else. The task ends with the test's runtime.
async fn keep(stream: TcpStream, _: ManualClock) {
    let mut byte = [0];
    // Peeks at the request without reading it.
    let _ = stream.peek(&mut byte).await;
    std::future::pending::<()>().await;
    drop(stream);
}

/// Reads the whole request, and then sends one byte of a long response per second.
async fn drip(mut stream: TcpStream, clock: ManualClock) {
    read(&mut stream, usize::MAX).await;
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4096\r\n\r\n{";
    let mut answer = stream.write_all(head).await;
    while answer.is_ok() {
        clock.sleep(Duration::from_secs(1)).await;
        answer = stream.write_all(b" ").await;
    }
}

/// Reads `length` bytes of the request, and then resets the connection.
async fn reset(mut stream: TcpStream, length: usize) {
    read(&mut stream, length).await;
    #[allow(deprecated, reason = "depends on the version of Tokio")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads `length` bytes of a request, or the whole request if it is shorter.
async fn read(stream: &mut TcpStream, length: usize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while request.len() < length && !request.ends_with(b"grant_type=client_credentials") {
        match stream.read(&mut byte).await {
            Ok(1..) => request.extend(byte),
            _ => return,
        }
    }
}
