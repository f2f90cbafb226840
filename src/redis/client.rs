//! [`RedisClient`]: one connection to Redis, made when it is needed, and made anew after an error.
//!
//! Invariants: nothing is connected before a token is due; a caller who gives up leaves the attempt
//! to those who come after it; what has failed once is not used again, so that a failover is
//! followed by asking where Redis is now; what nobody has used for a while is closed; a command whose answer was lost may be sent once more, so
//! every script can be run twice.

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

/// How long it may take to connect, if nobody waits for it any more: whoever comes next begins anew.
const CONNECTING: Duration = Duration::from_secs(5);

/// How long a connection stays open that nobody uses: less than whatever is in between forgets it
/// without a word. Tokens are minutes apart, so most of a fleet has none at any time.
const IDLE: Duration = Duration::from_secs(30);

/// Where Redis, or Valkey, is: a client of the crate `redis`, which knows addresses, credentials and
/// TLS.
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
/// A [`SentinelClient`] has to be one for the master. Clones share a connection, which is closed when
/// nobody has used it for 30 s. `Debug` shows nothing of it.
///
/// With TLS, and for clusters and sentinels, it makes rustls's `aws_lc_rs` the provider of cryptography
/// of the process when it connects, if the program has chosen none by then.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    /// Locked while one connects, for all.
    server: Arc<tokio::sync::Mutex<Server>>,
    open: Mutex<State>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Which connection that is, so that only the one that failed is forgotten.
    serial: u64,
    used: Moment,
}

enum Server {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<SentinelClient>),
}

#[derive(Clone)]
enum Open {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection, for one script. It is forgotten unless that was answered: whoever was not answered
/// in time has dropped it.
struct Using {
    shared: Arc<Shared>,
    open: Open,
    serial: u64,
    /// It has just been made.
    is_new: bool,
    is_good: bool,
}

impl RedisClient {
    fn new(server: Server, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            server: Arc::new(tokio::sync::Mutex::new(server)),
            open: Mutex::default(),
            clock,
        }))
    }

    /// Runs a script. Whoever calls bounds it in time.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        let using = self.connection().await?;
        let is_new = using.is_new;
        match using.run(script).await {
            Err(error) if may_be_stale(&error) && !is_new => {
                self.connection().await?.run(script).await
            }
            result => result,
        }
    }

    async fn connection(&self) -> RedisResult<Using> {
        let shared = Arc::clone(&self.0);
        if let Some(using) = shared.using(false) {
            return Ok(using);
        }
        // By the caller, who may give up, so that nothing is left behind in the queue.
        let mut server = Arc::clone(&shared.server).lock_owned().await;
        if let Some(using) = shared.using(true) {
            return Ok(using);
        }
        // A task of its own: to connect may take longer than one caller waits.
        let connecting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let runtime = Handle::current();
                let connecting = server.connect();
                let open = Clock::default()
                    .timeout(CONNECTING, &runtime, connecting)
                    .await;
                let serial = shared.set(open.unwrap_or_else(|| Err(interrupted()))?);
                runtime.spawn(close_when_idle(Arc::downgrade(&shared), serial));
                Ok(())
            }
        });
        connecting.await.unwrap_or_else(|_| Err(interrupted()))?;
        shared.using(true).ok_or_else(interrupted)
    }
}

fn interrupted() -> RedisError {
    RedisError::from((ErrorKind::Client, "connecting to Redis was interrupted"))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn using(self: &Arc<Self>, is_new: bool) -> Option<Using> {
        let mut state = self.state();
        state.used = self.clock.now();
        Some(Using {
            shared: Arc::clone(self),
            open: state.open.clone()?,
            serial: state.serial,
            is_new,
            is_good: false,
        })
    }

    /// Its number.
    fn set(&self, open: Open) -> u64 {
        let mut state = self.state();
        state.open = Some(open);
        state.used = self.clock.now();
        state.serial += 1;
        state.serial
    }

    fn forget(&self, serial: u64) {
        let mut state = self.state();
        if state.serial == serial {
            state.open = None;
        }
    }
}

async fn close_when_idle(shared: Weak<Shared>, serial: u64) {
    let mut rest = IDLE;
    while let Some(clock) = shared.upgrade().map(|shared| shared.clock.clone()) {
        clock.sleep(rest, &Handle::current()).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut state = shared.state();
        if state.serial != serial || state.open.is_none() {
            return;
        }
        rest = IDLE.saturating_sub(shared.clock.now().since(state.used));
        if rest.is_zero() {
            state.open = None;
            return;
        }
    }
}

impl Using {
    async fn run<T: FromRedisValue>(mut self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        let result = self.open.run(script).await;
        self.is_good = !result.as_ref().is_err_and(may_be_stale);
        result
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        if !self.is_good {
            self.shared.forget(self.serial);
        }
    }
}

impl Server {
    /// Unless it is clear that it does not.
    fn may_want_tls(&self) -> bool {
        match self {
            Self::One(client) => {
                let addr = client.get_connection_info().addr();
                matches!(addr, ConnectionAddr::TcpTls { .. })
            }
            Self::Cluster(_) | Self::Sentinel(_) => true,
        }
    }

    async fn connect(&mut self) -> RedisResult<Open> {
        // Whoever asks has a time limit, which may be longer than that of the crate.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTING))
            .set_response_timeout(None);
        if self.may_want_tls() {
            choose_cryptography();
        }
        match self {
            Self::One(client) => {
                let connecting = client.get_multiplexed_async_connection_with_config(&config);
                connecting.await.map(Open::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Open::Cluster),
            Self::Sentinel(client) => {
                let connecting = client.get_async_connection_with_config(&config);
                connecting.await.map(Open::One)
            }
        }
    }
}

/// The crate `redis` panics in a program that has several providers of cryptography, and has chosen
/// none.
fn choose_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Somebody may have been faster.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

impl Open {
    async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        match self {
            Self::One(connection) => script.invoke_async(&mut connection.clone()).await,
            Self::Cluster(connection) => script.invoke_async(&mut connection.clone()).await,
        }
    }
}

/// Whether another connection might do better: anything but a server's clear no to the command.
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

    /// Says yes to all, and how many bytes it was asked in before the connection ended.
    async fn says_yes(listener: &TcpListener) -> usize {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut bytes, mut buffer) = (0, [0; 1024]);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            bytes += read;
            // Once for each command: a list begins with a star.
            for _ in buffer[..read].iter().filter(|byte| **byte == b'*') {
                stream.write_all(b"+OK\r\n").await.unwrap();
            }
        }
        bytes
    }

    #[tokio::test]
    async fn a_connection_that_nobody_uses_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let clock = ManualClock::new();
        let server = Server::One(Box::new(Client::open(url).unwrap()));
        let client = RedisClient::new(server, clock.clone().into());
        let script = redis::Script::new("return 'OK'");
        for connections in 1..=2 {
            let talking = tokio::spawn({
                let (client, script, clock) = (client.clone(), script.clone(), clock.clone());
                async move {
                    let answer: String = client.run(&script.prepare_invoke()).await.unwrap();
                    assert_eq!(answer, "OK");
                    // Used once more, just before it would be closed.
                    clock.advance(IDLE - Duration::from_secs(1));
                    let _: String = client.run(&script.prepare_invoke()).await.unwrap();
                    clock.advance(IDLE - Duration::from_secs(1));
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                    assert!(client.0.state().open.is_some());
                    clock.advance(Duration::from_secs(2));
                }
            });
            // It ends, and the next one begins anew.
            let saying = tokio::time::timeout(Duration::from_secs(30), says_yes(&listener));
            assert!(saying.await.unwrap() > 0);
            talking.await.unwrap();
            assert!(client.0.state().open.is_none());
            assert_eq!(client.0.state().serial, connections);
        }
    }
}
