//! [`RedisClient`]: one connection to Redis, opened when needed, and replaced after an error.
//!
//! Invariants:
//!
//! 1. No connection is opened before a token is due.
//! 2. A caller that gives up leaves its connection attempt to the next callers.
//! 3. A connection that has failed is not used again: after a failover, the client looks up the server.
//! 4. An idle connection is closed.
//! 5. A command whose answer was lost may be sent once more: every script has to be idempotent.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisError,
    RedisResult, ScriptInvocation, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection, sentinel::SentinelClient,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::runtime::Handle;

use crate::clock::{Clock, Moment};

/// How long a connection attempt may take, even if its caller has given up. The next caller then
/// starts another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection stays open: less than the idle timeout of a typical proxy or firewall.
/// Tokens are minutes apart, so most processes have no connection at any time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection to Redis or Valkey: made from a client of the crate `redis`, which configures
/// addresses, credentials and TLS.
///
/// ```
/// use bearer_auth::redis::RedisClient;
///
/// let one = RedisClient::from(redis::Client::open("rediss://user:password@redis.example")?);
/// let cluster = redis::cluster::ClusterClient::new(["redis://a.example", "redis://b.example"])?;
/// let cluster = RedisClient::from(cluster);
/// # Ok::<(), redis::RedisError>(())
/// ```
///
/// A [`SentinelClient`] has to be one for the master. Clones share a connection, which is closed after
/// 30 s without use. `Debug` shows neither addresses nor credentials.
///
/// With TLS, and for clusters and sentinels, connecting installs `aws_lc_rs` as rustls's default
/// `CryptoProvider` of the process, unless the program has installed one.
#[derive(Clone)]
pub struct RedisClient(Arc<Inner>);

struct Inner {
    /// Locked during a connection attempt, which serves all callers.
    server: Arc<tokio::sync::Mutex<Server>>,
    slot: Mutex<Slot>,
    clock: Clock,
}

/// The open connection, if any.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// The number of the connection: a failure removes only the connection that failed.
    serial: u64,
    used_at: Moment,
}

enum Server {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<SentinelClient>),
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection, borrowed for one script. Dropping it removes the connection from the slot unless the
/// script was answered: a caller that times out drops it too.
struct Borrowed {
    inner: Arc<Inner>,
    connection: Connection,
    serial: u64,
    /// The connection has just been opened.
    is_new: bool,
    is_reusable: bool,
}

impl RedisClient {
    fn new(server: Server, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            server: Arc::new(tokio::sync::Mutex::new(server)),
            slot: Mutex::default(),
            clock,
        }))
    }

    /// Runs a script. The caller sets a timeout.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        let borrowed = self.connection().await?;
        let is_new = borrowed.is_new;
        match borrowed.run(script).await {
            Err(error) if may_be_stale(&error) && !is_new => {
                self.connection().await?.run(script).await
            }
            result => result,
        }
    }

    async fn connection(&self) -> RedisResult<Borrowed> {
        let inner = Arc::clone(&self.0);
        if let Some(borrowed) = inner.borrow(false) {
            return Ok(borrowed);
        }
        // Locked by the caller and not by the task: a caller that gives up leaves the queue.
        let mut server = Arc::clone(&inner.server).lock_owned().await;
        if let Some(borrowed) = inner.borrow(true) {
            return Ok(borrowed);
        }
        // In a task of its own: connecting may take longer than one caller waits.
        let connecting = tokio::spawn({
            let inner = Arc::clone(&inner);
            async move {
                let runtime = Handle::current();
                let connecting = server.connect();
                let connection = Clock::default()
                    .timeout(CONNECT_TIMEOUT, &runtime, connecting)
                    .await;
                let serial = inner.set(connection.unwrap_or_else(|| Err(interrupted()))?);
                runtime.spawn(close_when_idle(Arc::downgrade(&inner), serial));
                Ok(())
            }
        });
        connecting.await.unwrap_or_else(|_| Err(interrupted()))?;
        inner.borrow(true).ok_or_else(interrupted)
    }
}

fn interrupted() -> RedisError {
    RedisError::from((ErrorKind::Client, "connecting to Redis was interrupted"))
}

impl Inner {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn borrow(self: &Arc<Self>, is_new: bool) -> Option<Borrowed> {
        let mut slot = self.slot();
        slot.used_at = self.clock.now();
        Some(Borrowed {
            inner: Arc::clone(self),
            connection: slot.connection.clone()?,
            serial: slot.serial,
            is_new,
            is_reusable: false,
        })
    }

    /// Sets the open connection, and returns its number.
    fn set(&self, connection: Connection) -> u64 {
        let mut slot = self.slot();
        slot.connection = Some(connection);
        slot.used_at = self.clock.now();
        slot.serial += 1;
        slot.serial
    }

    fn remove(&self, serial: u64) {
        let mut slot = self.slot();
        if slot.serial == serial {
            slot.connection = None;
        }
    }
}

async fn close_when_idle(inner: Weak<Inner>, serial: u64) {
    let mut rest = IDLE_TIMEOUT;
    while let Some(clock) = inner.upgrade().map(|inner| inner.clock.clone()) {
        clock.sleep(rest, &Handle::current()).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let mut slot = inner.slot();
        if slot.serial != serial || slot.connection.is_none() {
            return;
        }
        rest = IDLE_TIMEOUT.saturating_sub(inner.clock.now().since(slot.used_at));
        if rest.is_zero() {
            slot.connection = None;
            return;
        }
    }
}

impl Borrowed {
    async fn run<T: FromRedisValue>(mut self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        let result = self.connection.run(script).await;
        self.is_reusable = !result.as_ref().is_err_and(may_be_stale);
        result
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.is_reusable {
            self.inner.remove(self.serial);
        }
    }
}

impl Server {
    /// Returns `false` only if the connection certainly has no TLS.
    fn may_want_tls(&self) -> bool {
        match self {
            Self::One(client) => {
                let addr = client.get_connection_info().addr();
                matches!(addr, ConnectionAddr::TcpTls { .. })
            }
            Self::Cluster(_) | Self::Sentinel(_) => true,
        }
    }

    async fn connect(&mut self) -> RedisResult<Connection> {
        // The caller has a timeout of its own, which may be longer than that of the crate `redis`.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        if self.may_want_tls() {
            install_crypto_provider();
        }
        match self {
            Self::One(client) => {
                let connecting = client.get_multiplexed_async_connection_with_config(&config);
                connecting.await.map(Connection::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            Self::Sentinel(client) => {
                let connecting = client.get_async_connection_with_config(&config);
                connecting.await.map(Connection::One)
            }
        }
    }
}

/// The crate `redis` panics in a program that links several crypto providers and has installed none.
fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails if another thread was faster, which is fine.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

impl Connection {
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        match self {
            Self::One(connection) => script.invoke_async(&mut connection.clone()).await,
            Self::Cluster(connection) => script.invoke_async(&mut connection.clone()).await,
        }
    }
}

/// Whether a new connection may help: after any error but the server's refusal of the command.
fn may_be_stale(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{NoPerm, NoScript, ResponseError};
    !matches!(
        error.kind(),
        ErrorKind::Server(ResponseError | NoScript | NoPerm) | ErrorKind::UnexpectedReturnType
    )
}

impl From<Client> for RedisClient {
    fn from(client: Client) -> Self {
        Self::new(Server::One(Box::new(client)), Clock::default())
    }
}

impl From<ClusterClient> for RedisClient {
    fn from(client: ClusterClient) -> Self {
        Self::new(Server::Cluster(Box::new(client)), Clock::default())
    }
}

impl From<SentinelClient> for RedisClient {
    fn from(client: SentinelClient) -> Self {
        Self::new(Server::Sentinel(Box::new(client)), Clock::default())
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::clock::ManualClock;

    /// Answers each command of one connection with `OK`, and returns the number of bytes received.
    async fn answer_ok(listener: &TcpListener) -> usize {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut bytes, mut buffer) = (0, [0; 1024]);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            bytes += read;
            // Each command is an array, which begins with `*`.
            for _ in buffer[..read].iter().filter(|byte| **byte == b'*') {
                stream.write_all(b"+OK\r\n").await.unwrap();
            }
        }
        bytes
    }

    #[tokio::test]
    async fn idle_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let clock = ManualClock::new();
        let server = Server::One(Box::new(Client::open(url).unwrap()));
        let client = RedisClient::new(server, clock.clone().into());
        let script = redis::Script::new("return 'OK'");
        for connections in 1..=2 {
            let commands = tokio::spawn({
                let (client, script, clock) = (client.clone(), script.clone(), clock.clone());
                async move {
                    let answer: String = client.run(&script.prepare_invoke()).await.unwrap();
                    assert_eq!(answer, "OK");
                    // The second use is just before the timeout, which starts again.
                    clock.advance(IDLE_TIMEOUT - Duration::from_secs(1));
                    let _: String = client.run(&script.prepare_invoke()).await.unwrap();
                    clock.advance(IDLE_TIMEOUT - Duration::from_secs(1));
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    assert!(client.0.slot().connection.is_some());
                    clock.advance(Duration::from_secs(2));
                }
            });
            // This connection ends; the next iteration opens another.
            let answers = tokio::time::timeout(Duration::from_secs(30), answer_ok(&listener));
            assert!(answers.await.unwrap() > 0);
            commands.await.unwrap();
            assert!(client.0.slot().connection.is_none());
            assert_eq!(client.0.slot().serial, connections);
        }
    }
}
