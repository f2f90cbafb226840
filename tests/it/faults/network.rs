//! The way to the token endpoint: real sockets, and where they lead.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bearer_auth::{
    endpoint::{HttpClient, HttpFuture, ReqwestClient},
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

/// The default client, but for where its requests go: what a resolver or a network does to them.
/// Counts token requests, also those that reach nobody.
pub(crate) struct Line {
    http: ReqwestClient,
    sends: AtomicUsize,
    detour: Mutex<Option<Uri>>,
    /// Once, when a request is under way.
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

    /// How many requests were sent.
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
    fn send(&self, mut request: Request<Bytes>) -> HttpFuture<'_> {
        self.sends.fetch_add(1, Ordering::SeqCst);
        if let Some(url) = self.detour.lock().unwrap().clone() {
            *request.uri_mut() = url;
        }
        if let Some(action) = self.meanwhile.lock().unwrap().take() {
            action();
        }
        self.http.send(request)
    }
}

/// A server that is not one, and counts the connections that it accepts.
pub(crate) struct Bad {
    pub(crate) url: String,
    accepted: Arc<AtomicUsize>,
    server: Option<AbortHandle>,
    /// Nobody listens there, and nobody else is to.
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
    /// `None`: the identity provider itself can do that.
    pub(crate) async fn start(network: Network, clock: &ManualClock) -> Option<Self> {
        let serve: fn(TcpStream, ManualClock) -> _ = match network {
            Network::Refused => return Some(Self::nobody()),
            Network::NoSuchName => return Some(Self::nowhere()),
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

    /// How many have been accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Somebody came, if anybody listens.
    pub(crate) fn was_met(&self) -> bool {
        self.server.is_none() || self.accepted() > 0
    }

    fn nobody() -> Self {
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = taken.local_addr().unwrap();
        Self::at(format!("http://{address}/token"), Some(taken))
    }

    /// Nobody has such a name, and resolvers know that without asking (RFC 6761 §6.4).
    fn nowhere() -> Self {
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

    /// With a certificate that nobody has signed.
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

/// Accepted, and nothing else. Not for ever: the task ends when the client does.
async fn keep(stream: TcpStream, _: ManualClock) {
    let mut byte = [0];
    // Looks at what comes without reading it, and waits for no more than that.
    let _ = stream.peek(&mut byte).await;
    std::future::pending::<()>().await;
    drop(stream);
}

/// The whole request is read, and each second brings a byte of an answer that has far to go.
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

/// Reads so many bytes of the request, and then resets the connection.
async fn reset(mut stream: TcpStream, length: usize) {
    read(&mut stream, length).await;
    #[allow(deprecated, reason = "depends on the version of Tokio")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads `length` bytes of a request, or all of it.
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
