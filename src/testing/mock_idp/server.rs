//! Sockets and HTTP: reads requests from connections, and writes answers.

use std::{
    future::{pending, poll_fn},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_LENGTH};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Recorded,
    answer::{Disconnect, Kind, Reply},
    api, authorize, other_endpoints,
    port::Port,
    state::{Shared, Turn},
    token_endpoint,
};

pub(super) fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

/// Accepts connections until the future is dropped, which also closes them.
pub(super) async fn serve(listener: TcpListener, port: Port, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, port, shared.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                // Out of file descriptors: wait until a connection closes.
                Err(_) => if connections.join_next().await.is_none() {
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

async fn connection(stream: TcpStream, port: Port, shared: Arc<Shared>) {
    // A failure costs only latency.
    let _ = stream.set_nodelay(true);
    if port == Port::Token {
        match stream.peek(&mut [0]).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(turn) = shared.arrive_unread() {
            if let Some(delay) = turn.delay {
                delay.await;
            }
            reset(&stream);
            return;
        }
    }

    let wire = Wire::new(stream);
    let (disconnect, mut disconnected) = mpsc::channel(1);
    let service = service_fn(|request| {
        let shared = shared.clone();
        let disconnect = disconnect.clone();
        async move {
            match respond(port, &shared, request).await? {
                Outcome::Reply(reply) => return Ok(reply.into_response()),
                Outcome::Silence => {}
                Outcome::Disconnect(how) => {
                    // A full channel means that the connection is already being closed.
                    let _ = disconnect.try_send(how);
                }
            }
            pending::<io::Result<_>>().await
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_header_list_size(MAX_HEADERS);
    let http = builder.serve_connection(TokioIo::new(wire.clone()), service);
    tokio::select! {
        biased;
        Some(how) = disconnected.recv() => match how {
            Disconnect::Close => {}
            Disconnect::Reset => reset(&wire.stream()),
            Disconnect::Raw(bytes) => wire.write_all(&bytes).await,
        },
        // Errors of the connection are the client's problem.
        _ = http => {}
    }
}

enum Outcome {
    Reply(Reply),
    Silence,
    Disconnect(Disconnect),
}

/// The request path: read, count, wait for `Hold`s, check, delay.
async fn respond(port: Port, shared: &Shared, request: Request<Incoming>) -> io::Result<Outcome> {
    let request = Arc::new(read(request).await?);
    let port = match port {
        Port::Token if request.path() == authorize::PATH => Port::Browser,
        port => port,
    };
    let Turn {
        answer,
        gates,
        delay,
    } = shared.arrive(port, &request);
    for mut gate in gates {
        // Nothing is ever sent: the loop ends when the `Hold` is dropped.
        while gate.changed().await.is_ok() {}
    }
    let outcome = match answer.kind {
        Kind::Normal => Outcome::Reply(match port {
            _ if request.too_large => Reply::new(StatusCode::PAYLOAD_TOO_LARGE),
            Port::Token => other_endpoints::answer(shared, &request)
                .unwrap_or_else(|| token_endpoint::answer(shared, &request)),
            Port::Api => api::answer(shared, &request),
            Port::Browser => authorize::answer(shared, &request),
        }),
        Kind::Http(reply) => Outcome::Reply(reply),
        Kind::Silence => Outcome::Silence,
        Kind::Disconnect(how) => Outcome::Disconnect(how),
    };
    let outcome = match outcome {
        Outcome::Reply(mut reply) => {
            // Replaces headers of the same name.
            reply.headers.extend(answer.headers);
            if port == Port::Api && reply.status == StatusCode::UNAUTHORIZED {
                shared.lock().api_unauthorized += 1;
            }
            Outcome::Reply(reply)
        }
        other => other,
    };
    if let Some(delay) = delay {
        delay.await;
    }
    Ok(outcome)
}

async fn read(request: Request<Incoming>) -> io::Result<Recorded> {
    let (head, body) = request.into_parts();
    let (body, too_large) = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => (body.to_bytes(), false),
        Err(error) if error.is::<LengthLimitError>() => (Bytes::new(), true),
        Err(error) => return Err(io::Error::other(error)),
    };
    Ok(Recorded {
        method: head.method,
        target: head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.to_string(), ToString::to_string),
        version: head.version,
        headers: head.headers,
        body,
        too_large,
    })
}

impl Reply {
    fn into_response(self) -> Response<Payload> {
        let length = self.body.len();
        let payload = match content_length(&self.headers) {
            // hyper asserts that both lengths agree, unless the body's own length is unknown.
            Some(claim) if claim != length => Payload::Short {
                data: Some(self.body),
                flushed: false,
            },
            _ => Payload::Whole(Some(self.body)),
        };
        let mut response = Response::new(payload);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body of an answer.
enum Payload {
    Whole(Option<Bytes>),
    /// The connection ends before the body does.
    Short {
        data: Option<Bytes>,
        flushed: bool,
    },
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Payload::Whole(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Payload::Short { data, flushed } => {
                if let Some(data) = data.take() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                if !*flushed {
                    // A pending body makes hyper flush its buffer.
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Whole(data) => data.as_ref().is_none_or(Bytes::is_empty),
            Payload::Short { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole(data) => {
                let length = data.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Payload::Short { .. } => SizeHint::new(),
        }
    }
}

/// A stream that hyper reads and writes, and that a scripted fault can write to or reset.
#[derive(Clone)]
struct Wire(Arc<Mutex<TcpStream>>);

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_all(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match poll_fn(|cx| Pin::new(&mut *self.stream()).poll_write(cx, bytes)).await {
                Ok(0) | Err(_) => return,
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }
}

/// Makes dropping the connection send a reset.
fn reset(stream: &TcpStream) {
    // Zero does not block. The method that replaces this one needs a newer Tokio than our minimum.
    #[allow(deprecated, reason = "depends on the version of Tokio")]
    let _ = stream.set_linger(Some(Duration::ZERO));
}

/// The system caps it, often at 4096.
const BACKLOG: u32 = 16_384;

const MAX_BODY: usize = 1 << 20;

/// For HTTP/2 requests: room for a very large token.
const MAX_HEADERS: u32 = 1 << 20;
