//! [`RedisClient`]: one connection to Redis, made when it is needed, and made anew after an error.
//!
//! Invariants: nothing is connected before a token is due; a caller who gives up leaves the attempt
//! to those who come after it; what has failed once is not used again, so that a failover is
//! followed by asking where Redis is now; a command whose answer was lost may be sent once more, so
//! every script can be run twice.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError, RedisResult,
    ScriptInvocation, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection, sentinel::SentinelClient,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::runtime::Handle;

use crate::Clock;

/// How long it may take to connect, if nobody waits for it any more: whoever comes next begins anew.
const CONNECTING: Duration = Duration::from_secs(5);

/// Where Redis, or Valkey, is: a client of the crate `redis`, which knows addresses, credentials and
/// TLS.
///
/// ```
/// use bearer_auth::fleet::RedisClient;
///
/// let one = RedisClient::from(redis::Client::open("rediss://user:password@redis.example")?);
/// let cluster = redis::cluster::ClusterClient::new(["redis://a.example", "redis://b.example"])?;
/// let cluster = RedisClient::from(cluster);
/// # Ok::<(), redis::RedisError>(())
/// ```
///
/// A [`SentinelClient`] has to be one for the master. Clones share a connection. `Debug` shows
/// nothing of it.
#[derive(Clone)]
pub struct RedisClient(Arc<Shared>);

struct Shared {
    /// Locked while one connects, for all.
    server: Arc<tokio::sync::Mutex<Server>>,
    open: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Which connection that is, so that only the one that failed is forgotten.
    serial: u64,
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
    fn new(server: Server) -> Self {
        Self(Arc::new(Shared {
            server: Arc::new(tokio::sync::Mutex::new(server)),
            open: Mutex::default(),
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
                shared.set(open.unwrap_or_else(|| Err(interrupted()))?);
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
        let state = self.state();
        Some(Using {
            shared: Arc::clone(self),
            open: state.open.clone()?,
            serial: state.serial,
            is_new,
            is_good: false,
        })
    }

    fn set(&self, open: Open) {
        let mut state = self.state();
        state.open = Some(open);
        state.serial += 1;
    }

    fn forget(&self, serial: u64) {
        let mut state = self.state();
        if state.serial == serial {
            state.open = None;
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
    async fn connect(&mut self) -> RedisResult<Open> {
        // Whoever asks has a time limit, which may be longer than that of the crate.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTING))
            .set_response_timeout(None);
        choose_cryptography();
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

/// The crate `redis` panics in a program that has several providers, and has chosen none.
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
        Self::new(Server::One(Box::new(client)))
    }
}

impl From<ClusterClient> for RedisClient {
    fn from(client: ClusterClient) -> Self {
        Self::new(Server::Cluster(Box::new(client)))
    }
}

impl From<SentinelClient> for RedisClient {
    fn from(client: SentinelClient) -> Self {
        Self::new(Server::Sentinel(Box::new(client)))
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClient").finish_non_exhaustive()
    }
}
