//! An authorization server and a protected API on loopback sockets, with scripted faults.

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

/// An OAuth 2.0 authorization server and an API that accepts its tokens, on two ports of
/// `127.0.0.1`.
///
/// Both speak HTTP/1.1 and HTTP/2 (prior knowledge) and answer as real servers do. A test scripts
/// other answers: [`then`](Self::then) for the next token request, [`always`](Self::always) for
/// every one; [`hold`](Self::hold) delays them. Every request is counted and logged, so that a
/// test can assert on what was sent.
///
/// Clones are handles to the same servers. When the last handle is dropped, the servers stop and
/// close their connections.
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
/// // Any HTTP client works:
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
    /// Starts both servers, with the client `client-id` / `client-secret`, a token lifetime of one
    /// hour, and the system clock.
    ///
    /// # Errors
    ///
    /// Binding a port of `127.0.0.1` failed.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder with the defaults of [`start`](Self::start).
    pub fn builder() -> MockIdpBuilder {
        MockIdpBuilder {
            config: Config::default(),
        }
    }

    /// Returns the token endpoint: `http://127.0.0.1:<port>/oauth2/v1/token`.
    pub fn token_url(&self) -> String {
        format!("{}{}", self.shared().base, token_endpoint::PATH)
    }

    /// Returns the API's base URL: `http://127.0.0.1:<port>/api/`, on a port of its own.
    pub fn api_url(&self) -> String {
        format!("http://{}{}", self.0.api_addr, api::PREFIX)
    }
}

/// # Tokens
impl MockIdp {
    /// Sets the lifetime of tokens issued from now on. `expires_in` has it in whole seconds,
    /// rounded down. Defaults to one hour.
    ///
    /// Undoes [`set_expires_in`](Self::set_expires_in).
    pub fn set_lifetime(&self, lifetime: Duration) {
        let mut state = self.shared().lock();
        state.lifetime = lifetime;
        state.expires_in = ExpiresIn::Lifetime;
    }

    /// Sets `expires_in` of token responses from now on, independently of the real lifetime. The
    /// JSON text is used verbatim (`"1e400"`, `"null"`, `"\"3600\""`, `"oops"`); `None` omits the
    /// member.
    ///
    /// [`set_lifetime`](Self::set_lifetime) undoes it.
    pub fn set_expires_in(&self, json: Option<&str>) {
        self.shared().lock().expires_in = match json {
            Some(json) => ExpiresIn::Verbatim(json.to_owned()),
            None => ExpiresIn::Absent,
        };
    }

    /// Pads access tokens and refresh tokens issued from now on to `bytes`: `token-1.....`. A size
    /// below the length of the name has no effect.
    pub fn set_token_size(&self, bytes: usize) {
        self.shared().lock().token_size = bytes;
    }

    /// Sets whether the server returns a still valid token again to the same client, for the same
    /// grant, scope, audience and resource, as some authorization servers do. `expires_in` is then
    /// the remaining lifetime. Defaults to `false`.
    pub fn repeat_token(&self, repeat: bool) {
        self.shared().lock().repeat = repeat;
    }

    /// Returns the tokens issued so far, in order: `token-1`, `token-2` …
    pub fn issued(&self) -> Vec<String> {
        self.shared().lock().issued.clone()
    }

    /// Returns how many tokens were issued so far. A [repeated](Self::repeat_token) token counts
    /// once.
    pub fn tokens_issued(&self) -> usize {
        self.shared().lock().issued.len()
    }

    /// Revokes a token: the API rejects it with 401 from now on. Does nothing for a token that was
    /// never issued, which the API rejects anyway.
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

/// # Scripting the authorization server
impl MockIdp {
    /// Queues an answer for one request to the authorization server. Requests take queued answers
    /// in the order in which they arrive.
    pub fn then(&self, answer: Answer) {
        self.shared().lock().queued.push_back(answer);
    }

    /// Sets the answer to every request to the authorization server, until
    /// [`recover`](Self::recover). Queued answers come first.
    pub fn always(&self, answer: Answer) {
        self.shared().lock().always = Some(answer);
    }

    /// Returns to normal answers: clears [`always`](Self::always) and the [queue](Self::then).
    pub fn recover(&self) {
        let mut state = self.shared().lock();
        state.always = None;
        state.queued.clear();
    }

    /// Delays requests to the authorization server until the returned [`Hold`] is dropped. This
    /// simulates a slow server without a clock.
    ///
    /// A delayed request is counted and logged on arrival, and checked and answered afterwards. It
    /// waits for all `Hold`s that existed when it arrived.
    pub fn hold(&self) -> Hold {
        let (gate, closed) = watch::channel(());
        self.shared().lock().gates.push(closed);
        Hold { _gate: gate }
    }

    /// Returns how many requests have arrived at the authorization server, with any path and any
    /// answer.
    pub fn token_requests(&self) -> usize {
        self.shared().requests(Port::Token)
    }

    /// Waits until `count` requests in total have arrived at the authorization server. They are in
    /// the [log](Self::token_log) then, but possibly not yet answered.
    pub async fn token_requests_reach(&self, count: usize) {
        self.shared().requests_reach(Port::Token, count).await;
    }

    /// Returns the newest 65,536 requests to the authorization server, in the order of arrival.
    ///
    /// Requests that were [reset before they were read](Answer::reset_before_reading) are missing.
    pub fn token_log(&self) -> Vec<Recorded> {
        self.shared().log(Port::Token)
    }
}

/// # Scripting the API
impl MockIdp {
    /// Sets the answer to API requests whose path starts with `prefix` (`/api/forbidden`),
    /// whatever their token. [`Answer::ok`] checks the token as usual.
    ///
    /// The longest matching prefix wins. A second call with the same prefix replaces the answer.
    pub fn api_answers(&self, prefix: impl Into<String>, answer: Answer) {
        let prefix = prefix.into();
        let mut state = self.shared().lock();
        state.api_answers.retain(|(known, _)| *known != prefix);
        state.api_answers.push((prefix, answer));
        state
            .api_answers
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    /// Returns how many requests have arrived at the API.
    pub fn api_requests(&self) -> usize {
        self.shared().requests(Port::Api)
    }

    /// Waits until `count` requests in total have arrived at the API. They are in the
    /// [log](Self::api_log) then, but possibly not yet answered.
    pub async fn api_requests_reach(&self, count: usize) {
        self.shared().requests_reach(Port::Api, count).await;
    }

    /// Returns how many requests the API has answered with 401.
    pub fn api_unauthorized(&self) -> usize {
        self.shared().lock().api_unauthorized
    }

    /// Returns the newest 65,536 requests to the API, in the order of arrival.
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
    /// Adds a client, and removes the default client `client-id` / `client-secret`. An empty secret
    /// makes it a public client, which sends its `client_id` in the body.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.config.clients.push((id.into(), secret.into()));
        self
    }

    /// Sets the clock for token expiry and for [delays](Answer::delay), such as a
    /// [`ManualClock`](super::ManualClock). Defaults to the system clock.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.config.clock = clock.into();
        self
    }

    /// Sets the kind of server to behave as. Defaults to [`Dialect::Standard`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.config.dialect = dialect;
        self
    }

    /// Accepts token requests by GET as well as by POST.
    pub fn allow_get(mut self) -> Self {
        self.config.allow_get = true;
        self
    }

    /// Adds a `grant_type` to `client_credentials` and those of a [sign-in](MockIdp#signing-in).
    ///
    /// The server checks only the client's credentials: not the assertion, and for
    /// `authorization_code` and `refresh_token` not the code or the refresh token. A request with
    /// an `assertion` may omit the client (RFC 7521 §4.1).
    pub fn allow_grant(mut self, grant_type: impl Into<String>) -> Self {
        self.config.grants.push(grant_type.into());
        self
    }

    /// Starts both servers, as tasks of the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// Binding a port of `127.0.0.1` failed.
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
        // Without the clients, which have secrets.
        f.debug_struct("MockIdpBuilder")
            .field("dialect", &self.config.dialect)
            .field("clock", &self.config.clock)
            .finish_non_exhaustive()
    }
}

/// Delays requests to a [`MockIdp`] until it is dropped. See [`MockIdp::hold`].
#[derive(Debug)]
#[must_use = "dropping it releases the requests"]
pub struct Hold {
    /// Its receivers wait until it is dropped.
    _gate: watch::Sender<()>,
}

impl Hold {
    /// Releases the delayed requests.
    pub fn release(self) {}
}
