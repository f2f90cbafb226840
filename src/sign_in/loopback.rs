//! A login for installed programs: the browser returns to a port on loopback (RFC 8252 §7.3).
//!
//! Invariants:
//!
//! 1. The port is open from the start of the login until its callback arrives, or the login times out.
//! 2. The port is bound to a loopback address, never to all interfaces.
//! 3. Only a callback with this login's state ends it. Other requests get a 404.
//! 4. The landing page is sent after the exchange of the code, and shows its outcome.

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

/// How long the user may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Further connections wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

impl AuthorizationCode {
    /// Signs in a user at this machine (RFC 8252). `open` gets the authorization URL and shows it in the
    /// user's browser, which returns to a port on loopback. The login times out after five minutes.
    ///
    /// The redirect URI defaults to `http://127.0.0.1:<a free port>/callback`. A configured
    /// [`redirect_uri`](super::AuthorizationCodeBuilder::redirect_uri) has to be on loopback. Its host,
    /// path and port are used; without a port, a free one. Dropping the future closes the port.
    ///
    /// With the feature `browser`, [`open_browser`](crate::open_browser) opens the system's browser.
    ///
    /// # Errors
    ///
    /// - Those of [`start`](Self::start) and of [`PendingLogin::finish`].
    /// - [`ErrorKind::Timeout`]: the browser did not return in time.
    /// - [`ErrorKind::SignIn`]: the port cannot be opened, or the redirect URI is not on loopback.
    pub async fn login_on_loopback(&self, open: impl FnOnce(&str)) -> Result<Session, Error> {
        self.login_on_loopback_with(Login::new(), LOGIN_TIMEOUT, open)
            .await
    }

    /// Like [`login_on_loopback`](Self::login_on_loopback), with settings and a timeout for this login.
    ///
    /// # Errors
    ///
    /// Those of [`login_on_loopback`](Self::login_on_loopback), and [`ErrorKind::SignIn`] if `login` has
    /// an invalid setting.
    pub async fn login_on_loopback_with(
        &self,
        login: Login,
        timeout: Duration,
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
        let signed_in = clock.timeout(timeout, &runtime, signed_in);
        signed_in.await.unwrap_or_else(|| {
            let message = "login timed out: the browser did not return to the redirect URI";
            Err(Error::build(ErrorKind::Timeout, Retry::Never, message).done())
        })
    }
}

/// Opens the port. Returns it, with the redirect URI that names it.
async fn listen(redirect_uri: &str) -> Result<(TcpListener, String), Error> {
    const DEFAULT: &str = "http://127.0.0.1/callback";
    let uri = if redirect_uri.is_empty() {
        DEFAULT
    } else {
        redirect_uri
    };
    let not_loopback = || {
        let message = "the redirect URI is not on loopback: use one such as \
                       `http://127.0.0.1/callback`, or none";
        Error::build(ErrorKind::SignIn, Retry::Never, message).done()
    };
    let mut url = Url::parse(uri).map_err(|_| not_loopback())?;
    let ip: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) if ip.is_loopback() => ip.into(),
        Some(Host::Ipv6(ip)) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        // Some clients are registered with this name.
        Some(Host::Domain("localhost")) => Ipv4Addr::LOCALHOST.into(),
        _ => return Err(not_loopback()),
    };
    if url.scheme() != "http" {
        return Err(not_loopback());
    }
    let fixed = url.port();
    let address = SocketAddr::new(ip, fixed.unwrap_or(0));
    let message = "the port of the redirect URI cannot be opened";
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| cannot(message, error))?;
    if fixed.is_some() {
        // Verbatim: the server compares it.
        return Ok((listener, uri.to_owned()));
    }
    let bound = listener
        .local_addr()
        .map_err(|error| cannot(message, error))?;
    url.set_port(Some(bound.port()))
        .map_err(|()| not_loopback())?;
    Ok((listener, url.into()))
}

/// The browser has returned with this login's callback.
struct Returned {
    code: Result<SecretString, Error>,
    /// Whether the user is signed in, for the landing page.
    outcome: oneshot::Sender<bool>,
}

/// Waits for the callback, exchanges the code, and shows the outcome.
async fn answer(listener: TcpListener, pending: PendingLogin) -> Result<Session, Error> {
    let pending = Arc::new(pending);
    let (returns, mut returned) = mpsc::channel(1);
    let mut connections = JoinSet::new();
    let Returned { code, outcome } = loop {
        let next = next(&listener, &mut returned, &mut connections).await;
        match next {
            Next::Connection(stream) => {
                let (pending, returns) = (Arc::clone(&pending), returns.clone());
                connections.spawn(serve(stream, pending, returns));
            }
            Next::Returned(back) => break back,
        }
    };
    drop(listener);
    let session = match code {
        Ok(code) => pending.redeem(code).await,
        Err(error) => Err(error),
    };
    if outcome.send(session.is_ok()).is_ok() {
        // Wait until the landing page is sent.
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
    Returned(Returned),
}

async fn next(
    listener: &TcpListener,
    returned: &mut mpsc::Receiver<Returned>,
    connections: &mut JoinSet<Served>,
) -> Next {
    poll_fn(|cx| {
        // Removes closed connections.
        while let Poll::Ready(Some(_)) = connections.poll_join_next(cx) {}
        if let Poll::Ready(Some(back)) = returned.poll_recv(cx) {
            return Poll::Ready(Next::Returned(back));
        }
        if connections.len() < MAX_CONNECTIONS {
            // Connections that fail to be accepted are skipped.
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
    /// The login's callback and its landing page.
    Answer,
    Other,
}

async fn serve(
    stream: TcpStream,
    pending: Arc<PendingLogin>,
    returns: mpsc::Sender<Returned>,
) -> Served {
    let answered = std::sync::atomic::AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let (pending, returns, answered) = (&pending, &returns, &answered);
        async move {
            let Some(code) = callback_of(&request, pending) else {
                return Ok::<_, std::convert::Infallible>(landing::not_found());
            };
            let (outcome, reported) = oneshot::channel();
            if returns.send(Returned { code, outcome }).await.is_err() {
                return Ok(landing::not_found());
            }
            answered.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok(landing::page(reported.await.unwrap_or(false)))
        }
    });
    let mut connection = http1::Builder::new();
    connection
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
    match answered.into_inner() {
        true => Served::Answer,
        false => Served::Other,
    }
}

/// Returns the result of a request that is this login's callback, valid or not; `None` for others.
fn callback_of(
    request: &Request<Incoming>,
    pending: &PendingLogin,
) -> Option<Result<SecretString, Error>> {
    let redirect_uri = Url::parse(pending.redirect_uri()).ok()?;
    let uri = request.uri();
    let query = uri.query()?;
    let is_callback = request.method() == Method::GET
        && uri.path() == redirect_uri.path()
        && callback::has_state(query, pending.state());
    is_callback.then(|| pending.code(query))
}
