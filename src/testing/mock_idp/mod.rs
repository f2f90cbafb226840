//! An identity provider and a protected API on loopback sockets, with scripted faults.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{self, JoinSet},
};

use self::{
    port::Port,
    state::{Config, ExpiresIn, Shared},
};
use crate::clock::Clock;

mod answer;
mod api;
mod authorize;
mod dialect;
mod grants;
mod other_endpoints;
mod page;
mod port;
mod recorded;
mod server;
mod sign_in;
mod state;
mod state_grants;
#[cfg(test)]
mod tests;
mod token_endpoint;

pub use self::{answer::Answer, dialect::Dialect, grants::RefreshTokens, recorded::Recorded};

/// An OAuth 2.0 identity provider and an API that its tokens open, on two ports of `127.0.0.1`.
///
/// Both speak HTTP/1.1 and HTTP/2 (prior knowledge) and answer as real servers do, until a test
/// says otherwise: the next token request gets what [`then`](Self::then) queued, every one gets
/// what [`always`](Self::always) says, and [`hold`](Self::hold) makes them wait. Whatever arrives
/// is counted and logged, so that a test asserts on what was really sent.
///
/// Clones are handles to the same servers. They stop, with all their connections, when the last
/// handle is dropped.
///
/// ```
/// use bearer_auth::testing::{Answer, MockIdp};
///
/// # use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpStream};
/// # async fn send(url: &str, head: &str, body: &str) -> std::io::Result<String> {
/// #     let (authority, path) = url["http://".len()..].split_once('/').unwrap();
/// #     let mut stream = TcpStream::connect(authority).await?;
/// #     let (method, headers) = head.split_once('\n').unwrap_or((head, ""));
/// #     let request = format!(
/// #         "{method} /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
/// #         {headers}content-length: {}\r\n\r\n{body}",
/// #         body.len(),
/// #     );
/// #     stream.write_all(request.as_bytes()).await?;
/// #     let mut answer = String::new();
/// #     stream.read_to_string(&mut answer).await?;
/// #     Ok(answer)
/// # }
/// # const FORM: &str = "POST\ncontent-type: application/x-www-form-urlencoded\r\n";
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let idp = MockIdp::start().await?;
/// idp.then(Answer::unavailable(30)); // an outage, for one request
///
/// // Any HTTP client will do:
/// let form = "grant_type=client_credentials&client_id=client-id&client_secret=client-secret";
/// let answer = send(&idp.token_url(), FORM, form).await?;
/// assert!(answer.starts_with("HTTP/1.1 503 "));
/// let answer = send(&idp.token_url(), FORM, form).await?;
/// assert!(answer.ends_with(
///     r#"{"token_type":"Bearer","expires_in":3600,"access_token":"token-1"}"#
/// ));
/// assert_eq!(idp.token_requests(), 2);
/// assert_eq!(idp.issued(), ["token-1"]);
///
/// let orders = idp.api_url() + "orders";
/// let answer = send(&orders, "GET\nauthorization: Bearer token-1\r\n", "").await?;
/// assert!(answer.starts_with("HTTP/1.1 200 "));
/// idp.revoke("token-1");
/// let answer = send(&orders, "GET\nauthorization: Bearer token-1\r\n", "").await?;
/// assert!(answer.starts_with("HTTP/1.1 401 "));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MockIdp(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    api_addr: SocketAddr,
    /// The two accept loops. Each owns its connections, and dropping a set aborts its tasks.
    _servers: JoinSet<()>,
}

/// # Starting
impl MockIdp {
    /// Starts both servers, with the client `client-id` / `client-secret`, tokens that live an
    /// hour, and the system's clock.
    ///
    /// # Errors
    ///
    /// When no port of `127.0.0.1` can be had.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// What [`start`](Self::start) starts, with changes.
    pub fn builder() -> MockIdpBuilder {
        MockIdpBuilder {
            config: Config::default(),
        }
    }

    /// `http://127.0.0.1:<port>/oauth2/v1/token`, on the identity provider's port.
    pub fn token_url(&self) -> String {
        format!("{}{}", self.shared().base, token_endpoint::PATH)
    }

    /// `http://127.0.0.1:<port>/api/`, on the API's port.
    pub fn api_url(&self) -> String {
        format!("http://{}{}", self.0.api_addr, api::PREFIX)
    }
}

/// # Tokens
impl MockIdp {
    /// How long tokens live that are issued from now on. The answer says so in whole seconds,
    /// rounded down.
    ///
    /// Undoes [`set_expires_in`](Self::set_expires_in).
    pub fn set_lifetime(&self, lifetime: Duration) {
        let mut state = self.shared().lock();
        state.lifetime = lifetime;
        state.expires_in = ExpiresIn::Lifetime;
    }

    /// What the answers claim in `expires_in` from now on, whatever the lifetime is: JSON text,
    /// taken as it is (`"1e400"`, `"null"`, `"\"3600\""`, `"oops"`), or `None` to leave it out.
    ///
    /// [`set_lifetime`](Self::set_lifetime) undoes it.
    pub fn set_expires_in(&self, json: Option<&str>) {
        self.shared().lock().expires_in = match json {
            Some(json) => ExpiresIn::Verbatim(json.to_owned()),
            None => ExpiresIn::Absent,
        };
    }

    /// Pads tokens that are issued from now on, refresh tokens among them, to `bytes`:
    /// `token-1.....`. Shorter than its name
    /// a token never gets.
    pub fn set_token_size(&self, bytes: usize) {
        self.shared().lock().token_size = bytes;
    }

    /// Whether a request gets the token that was already given to the same client for the same
    /// grant, scope, audience and resource, as long as it is valid, with the rest of its life in
    /// `expires_in`. Some identity providers do so.
    pub fn repeat_token(&self, repeat: bool) {
        self.shared().lock().repeat = repeat;
    }

    /// The tokens issued so far, in order: `token-1`, `token-2` …
    pub fn issued(&self) -> Vec<String> {
        self.shared().lock().issued.clone()
    }

    /// How many tokens were issued so far. One that was given [again](Self::repeat_token) counts
    /// once.
    pub fn tokens_issued(&self) -> usize {
        self.shared().lock().issued.len()
    }

    /// The API answers 401 to this token from now on. A token that was not issued is invalid
    /// anyway.
    pub fn revoke(&self, token: &str) {
        if let Some(token) = self.shared().lock().tokens.get_mut(token) {
            token.revoked = true;
        }
    }

    /// [Revokes](Self::revoke) every token issued so far.
    pub fn revoke_all(&self) {
        for token in self.shared().lock().tokens.values_mut() {
            token.revoked = true;
        }
    }
}

/// # Scripting the identity provider
impl MockIdp {
    /// Queues an answer: the next request to the identity provider that has no answer yet gets
    /// it, then things are as before. Answers are given in the order of the requests' arrival.
    pub fn then(&self, answer: Answer) {
        self.shared().lock().queued.push_back(answer);
    }

    /// Every request to the identity provider from now on gets this answer (once what is queued
    /// is used up), until [`recover`](Self::recover).
    pub fn always(&self, answer: Answer) {
        self.shared().lock().always = Some(answer);
    }

    /// Back to normal: forgets what [`always`](Self::always) says and what is
    /// [queued](Self::then).
    pub fn recover(&self) {
        let mut state = self.shared().lock();
        state.always = None;
        state.queued.clear();
    }

    /// Requests to the identity provider that arrive from now on are counted and logged, but not
    /// judged or answered before the returned [`Hold`] is dropped: a slow identity provider in
    /// which no time is involved.
    ///
    /// A request waits for all the holds that there were when it arrived.
    pub fn hold(&self) -> Hold {
        let (gate, closed) = watch::channel(());
        self.shared().lock().holds.push(closed);
        Hold { _gate: gate }
    }

    /// How many requests have arrived at the identity provider, whatever their path and their
    /// answer.
    pub fn token_requests(&self) -> usize {
        self.shared().requests(Port::Token)
    }

    /// Waits until `count` requests in total have arrived at the identity provider. They are in
    /// the [log](Self::token_log) then; answered they need not be.
    pub async fn token_requests_reach(&self, count: usize) {
        self.shared().requests_reach(Port::Token, count).await;
    }

    /// The newest 65,536 requests to the identity provider, in the order of their arrival.
    ///
    /// What was [reset before it was read](Answer::reset_before_reading) is not among them.
    pub fn token_log(&self) -> Vec<Recorded> {
        self.shared().log(Port::Token)
    }
}

/// # Scripting the API
impl MockIdp {
    /// Requests to the API whose path starts with `prefix` (`/api/forbidden`) get this answer from
    /// now on, whatever token they bring; [`Answer::ok`] judges the token as usual.
    ///
    /// Of several prefixes, the longest counts; one that is given again gets the new answer.
    pub fn api_answers(&self, prefix: impl Into<String>, answer: Answer) {
        let prefix = prefix.into();
        let mut state = self.shared().lock();
        state.api_answers.retain(|(known, _)| *known != prefix);
        state.api_answers.push((prefix, answer));
        state
            .api_answers
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    /// How many requests have arrived at the API.
    pub fn api_requests(&self) -> usize {
        self.shared().requests(Port::Api)
    }

    /// Waits until `count` requests in total have arrived at the API. They are in the
    /// [log](Self::api_log) then; answered they need not be.
    pub async fn api_requests_reach(&self, count: usize) {
        self.shared().requests_reach(Port::Api, count).await;
    }

    /// How many requests the API has answered with 401.
    pub fn api_unauthorized(&self) -> usize {
        self.shared().lock().api_unauthorized
    }

    /// The newest 65,536 requests to the API, in the order of their arrival.
    pub fn api_log(&self) -> Vec<Recorded> {
        self.shared().log(Port::Api)
    }
}

impl MockIdp {
    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl fmt::Debug for MockIdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockIdp")
            .field("token_url", &self.token_url())
            .field("api_url", &self.api_url())
            .field("token_requests", &self.token_requests())
            .field("tokens_issued", &self.tokens_issued())
            .field("api_requests", &self.api_requests())
            .finish_non_exhaustive()
    }
}

/// Builds a [`MockIdp`].
#[derive(Clone)]
#[must_use]
pub struct MockIdpBuilder {
    config: Config,
}

impl MockIdpBuilder {
    /// The client that may have tokens, instead of `client-id` / `client-secret`. An empty secret
    /// makes it a public client, which says who it is in the body. Called again, one more client.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.clients.push((id.into(), secret.into()));
        self
    }

    /// The clock that tokens expire on and [delays](Answer::delay) pass on, such as a
    /// [`ManualClock`](super::ManualClock), instead of the system's.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.config.clock = clock.into();
        self
    }

    /// Which kind of server to behave as, instead of [`Dialect::Standard`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.config.dialect = dialect;
        self
    }

    /// Token requests may be GETs, too.
    pub fn allow_get(mut self) -> Self {
        self.config.allow_get = true;
        self
    }

    /// A `grant_type` that gets tokens beside `client_credentials` and those of a
    /// [login](MockIdp#signing-in), of which nothing is looked at but the client's credentials: not
    /// the assertion, nor, for `authorization_code` and `refresh_token`, the code or the token. With
    /// an `assertion`, a request may say nothing of a client (RFC 7521 §4.1).
    pub fn allow_grant(mut self, grant_type: impl Into<String>) -> Self {
        self.config.grants.push(grant_type.into());
        self
    }

    /// Starts both servers, as tasks of the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// When no port of `127.0.0.1` can be had.
    pub async fn start(self) -> io::Result<MockIdp> {
        let (token_listener, token_addr) = server::listen()?;
        let shared = Arc::new(Shared::new(self.config, token_addr));
        let (api_listener, api_addr) = server::listen()?;
        let mut servers = JoinSet::new();
        servers.spawn(server::serve(token_listener, Port::Token, shared.clone()));
        servers.spawn(server::serve(api_listener, Port::Api, shared.clone()));
        // Both loops run before the first connection is made.
        task::yield_now().await;
        Ok(MockIdp(Arc::new(Running {
            shared,
            api_addr,
            _servers: servers,
        })))
    }
}

impl fmt::Debug for MockIdpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds the clients' secrets.
        f.debug_struct("MockIdpBuilder")
            .field("dialect", &self.config.dialect)
            .field("clock", &self.config.clock)
            .finish_non_exhaustive()
    }
}

/// Keeps the requests to a [`MockIdp`] waiting until it is dropped. See [`MockIdp::hold`].
#[derive(Debug)]
#[must_use = "dropping it releases the requests"]
pub struct Hold {
    /// Its receivers wait for it to be gone.
    _gate: watch::Sender<()>,
}

impl Hold {
    /// Lets the requests go on.
    pub fn release(self) {}
}
