//! A login for programs that people run: the browser comes back to a port of this machine (RFC
//! 8252 §7.3).
//!
//! Invariants: the port is open from when the login starts until its answer has been shown, or its
//! time is over, and no longer; it is one of loopback's, never of all interfaces. Only an answer
//! with this login's state ends it: everybody else is told 404, and the login waits on. The page is
//! sent when the exchange has been made, and says how it went.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Method, Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use url::{Host, Url};

use super::{
    authorization_code::AuthorizationCode, callback, landing, login::Login, pending::PendingLogin,
    start::cannot,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Retry},
    session::Session,
};

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Connections beyond this wait.
const MOST_CONNECTIONS: usize = 64;

/// How long a connection may take to say what it wants.
const SILENCE: Duration = Duration::from_secs(10);

impl AuthorizationCode {
    /// Signs a person in who sits at this machine (RFC 8252): `open` gets the URL to show in their
    /// browser, which comes back to a port of loopback. Ends when they are signed in, after five
    /// minutes at the latest.
    ///
    /// The redirect URI is `http://127.0.0.1:<a free port>/callback` unless
    /// [`redirect_uri`](super::AuthorizationCodeBuilder::redirect_uri) names another one of
    /// loopback: with its host, its path, and its port if it has one. Dropping the future closes
    /// the port.
    ///
    /// With the feature `browser`, [`open_browser`](crate::open_browser) opens the system's.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start) and of [`PendingLogin::finish`]; [`ErrorKind::Timeout`] when
    /// nobody has come back in time; [`ErrorKind::SignIn`] if the port cannot be had, or the
    /// redirect URI is not loopback's.
    pub async fn login_on_loopback(&self, open: impl FnOnce(&str)) -> Result<Session, Error> {
        self.login_on_loopback_with(Login::new(), PATIENCE, open)
            .await
    }

    /// As [`login_on_loopback`](Self::login_on_loopback), with what this login needs beyond the
    /// client's settings, and the time it may take.
    ///
    /// # Errors
    ///
    /// As [`login_on_loopback`](Self::login_on_loopback), and [`ErrorKind::SignIn`] if `login`
    /// cannot be sent.
    pub async fn login_on_loopback_with(
        &self,
        login: Login,
        patience: Duration,
        open: impl FnOnce(&str),
    ) -> Result<Session, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        let clock = Clock::default();
        let (listener, redirect_uri) = listen(&self.0.redirect_uri).await?;
        let signed_in = async {
            let pending = self.start_at(login, redirect_uri).await?;
            open(pending.url());
            answer(listener, pending).await
        };
        let signed_in = clock.timeout(patience, &runtime, signed_in);
        signed_in.await.unwrap_or_else(|| {
            let message = "nobody has come back from the browser in time";
            Err(Error::build(ErrorKind::Timeout, Retry::Never, message).done())
        })
    }
}

/// The port, and the redirect URI that leads to it.
async fn listen(redirect_uri: &str) -> Result<(TcpListener, String), Error> {
    const USUAL: &str = "http://127.0.0.1/callback";
    let uri = if redirect_uri.is_empty() {
        USUAL
    } else {
        redirect_uri
    };
    let not_ours = || {
        let message = "a login on loopback needs a redirect URI there, such as \
                       `http://127.0.0.1/callback`, or none";
        Error::build(ErrorKind::SignIn, Retry::Never, message).done()
    };
    let mut url = Url::parse(uri).map_err(|_| not_ours())?;
    let ip: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) if ip.is_loopback() => ip.into(),
        Some(Host::Ipv6(ip)) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        // Somebody has registered it so.
        Some(Host::Domain("localhost")) => Ipv4Addr::LOCALHOST.into(),
        _ => return Err(not_ours()),
    };
    if url.scheme() != "http" {
        return Err(not_ours());
    }
    let fixed = url.port();
    let address = SocketAddr::new(ip, fixed.unwrap_or(0));
    let message = "the port for the browser's return cannot be opened";
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| cannot(message, error))?;
    if fixed.is_some() {
        // To the letter.
        return Ok((listener, uri.to_owned()));
    }
    let bound = listener
        .local_addr()
        .map_err(|error| cannot(message, error))?;
    url.set_port(Some(bound.port())).map_err(|()| not_ours())?;
    Ok((listener, url.into()))
}

/// Somebody has come back: what they brought, and who waits to be told how it went.
struct Return {
    code: Result<SecretString, Error>,
    show: oneshot::Sender<bool>,
}

/// Waits for the answer, makes the exchange, and shows how it went.
async fn answer(listener: TcpListener, pending: PendingLogin) -> Result<Session, Error> {
    let pending = Arc::new(pending);
    let (returns, mut returned) = mpsc::channel(1);
    let mut connections = JoinSet::new();
    let Return { code, show } = loop {
        let next = next(&listener, &mut returned, &mut connections).await;
        match next {
            Next::Connection(stream) => {
                let (pending, returns) = (Arc::clone(&pending), returns.clone());
                connections.spawn(serve(stream, pending, returns));
            }
            Next::Return(back) => break back,
        }
    };
    // Nobody else.
    drop(listener);
    let session = match code {
        Ok(code) => pending.redeem(code).await,
        Err(error) => Err(error),
    };
    if show.send(session.is_ok()).is_ok() {
        // Until the page is on its way.
        while let Some(served) = connections.join_next().await {
            if matches!(served, Ok(Served::Answer)) {
                break;
            }
        }
    }
    session
}

enum Next {
    Connection(TcpStream),
    Return(Return),
}

async fn next(
    listener: &TcpListener,
    returned: &mut mpsc::Receiver<Return>,
    connections: &mut JoinSet<Served>,
) -> Next {
    poll_fn(|cx| {
        // Those that are done make room.
        while let Poll::Ready(Some(_)) = connections.poll_join_next(cx) {}
        if let Poll::Ready(Some(back)) = returned.poll_recv(cx) {
            return Poll::Ready(Next::Return(back));
        }
        if connections.len() < MOST_CONNECTIONS {
            // A connection that fails before it is one is nobody's business.
            while let Poll::Ready(accepted) = listener.poll_accept(cx) {
                if let Ok((stream, _)) = accepted {
                    return Poll::Ready(Next::Connection(stream));
                }
            }
        }
        Poll::Pending
    })
    .await
}

enum Served {
    /// The login's answer, page and all.
    Answer,
    Other,
}

async fn serve(
    stream: TcpStream,
    pending: Arc<PendingLogin>,
    returns: mpsc::Sender<Return>,
) -> Served {
    let answered = std::sync::atomic::AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let (pending, returns, answered) = (&pending, &returns, &answered);
        async move {
            let Some(code) = answer_of(&request, pending) else {
                return Ok::<_, std::convert::Infallible>(landing::not_found());
            };
            let (show, shown) = oneshot::channel();
            if returns.send(Return { code, show }).await.is_err() {
                return Ok(landing::not_found());
            }
            answered.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok(landing::page(shown.await.unwrap_or(false)))
        }
    });
    let mut connection = http1::Builder::new();
    connection
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE);
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
    match answered.into_inner() {
        true => Served::Answer,
        false => Served::Other,
    }
}

/// What a request brings, if it is this login's answer, right or wrong.
fn answer_of(
    request: &Request<Incoming>,
    pending: &PendingLogin,
) -> Option<Result<SecretString, Error>> {
    let redirect = Url::parse(pending.redirect_uri()).ok()?;
    let uri = request.uri();
    let query = uri.query()?;
    let ours = request.method() == Method::GET
        && uri.path() == redirect.path()
        && callback::has_state(query, pending.state());
    ours.then(|| pending.code(query))
}
