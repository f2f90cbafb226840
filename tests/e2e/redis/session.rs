//! Processes share a session whose refresh token rotates.
//!
//! A refresh token that is sent twice can cost the session. A process therefore sends it only while it
//! has the lease, and not when Redis fails.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bearer_auth::{
    AuthorizationCode, BoxError, Error, ErrorKind, Session, TokenCache, TokenRequest,
    TokenSource as _,
    redis::{RedisStore, SharedRedis, TokenKey},
    store::StoreOperation::{Load, Lock, Save},
    store::{Locked, LockedSession, StoredSession, TokenStore},
    testing::{Answer, Hold, ManualClock, MockIdp},
};
use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    Outage, Redis, StoreErrors, SwitchedTimeout, end_lease, key, leases_are_free, patient, secret,
    store,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    eight_processes_share_one_session,
    send_count_and_response_are_saved_before_use,
    refresh_outlives_its_caller_and_other_processes_get_the_token,
    outage_prevents_refreshes_and_access_token_serves_until_expiry,
    lost_data_requires_a_new_sign_in,
    replica_sends_no_refresh_token_until_it_is_promoted,
    lost_lease_prevents_the_refresh,
    unsent_refresh_token_is_not_counted_as_sent,
    refreshed_session_is_saved_although_the_lease_is_lost,
    late_refresh_adopts_the_newer_session_and_does_not_overwrite_it,
    late_invalid_grant_does_not_end_a_newer_session,
    lost_redis_reply_does_not_affect_the_session,
    unreadable_session_is_not_refreshed_from_memory,
    unsaved_session_is_saved_with_the_next_request,
    waiting_session_polls_the_lease_with_backoff,
    late_refresh_does_not_undo_a_logout,
    unused_session_expires_after_session_ttl,
    session_ttl_of_duration_max_never_expires,
    logout_waits_twenty_seconds_for_the_lease_at_most,
    sessions_of_different_users_are_separate,
    garbage_in_the_session_key_is_not_sent,
    save_outside_a_runtime_is_an_error,
}

const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Processes that share a session, and their authorization server.
pub(crate) struct Fleet {
    pub(crate) idp: MockIdp,
    pub(crate) clock: ManualClock,
}

pub(crate) struct Process {
    pub(crate) cache: TokenCache,
    pub(crate) session: Session,
    pub(crate) store_errors: StoreErrors,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let clock = ManualClock::new();
        let idp = MockIdp::builder().clock(clock.clone()).client("app", "");
        let idp = idp.start().await.unwrap();
        Self { idp, clock }
    }

    /// A fleet whose user has signed in: the session is in Redis.
    pub(crate) async fn signed_in(redis: &Redis) -> Self {
        let fleet = Self::start().await;
        fleet.sign_in(fleet.place(&store(redis))).await;
        fleet
    }

    fn auth(&self, store: impl TokenStore, store_errors: &StoreErrors) -> AuthorizationCode {
        let recorded = Arc::clone(store_errors);
        AuthorizationCode::builder(self.idp.authorization_url(), self.idp.token_url(), "app")
            .redirect_uri("https://app.example/callback")
            .store(store)
            .on_store_error(move |error| recorded.lock().unwrap().push(error.operation))
            .build()
            .unwrap()
    }

    /// The session's store in this Redis.
    pub(crate) fn place(&self, store: &SharedRedis) -> RedisStore {
        let auth = self.auth(
            bearer_auth::store::MemoryStore::new(),
            &StoreErrors::default(),
        );
        store.store(auth.token_key("alice"))
    }

    /// Signs a user in, and returns the process that did.
    pub(crate) async fn sign_in(&self, store: impl TokenStore) -> Process {
        let store_errors = StoreErrors::default();
        let login = self.auth(store, &store_errors).start().await.unwrap();
        let callback = self.idp.sign_in(login.url()).unwrap();
        self.process_of(login.finish(&callback).await.unwrap(), store_errors)
    }

    /// A process that uses the stored session.
    pub(crate) fn process(&self, store: impl TokenStore) -> Process {
        let store_errors = StoreErrors::default();
        self.process_of(self.auth(store, &store_errors).session(), store_errors)
    }

    fn process_of(&self, session: Session, store_errors: StoreErrors) -> Process {
        let cache = TokenCache::builder(session.clone()).clock(self.clock.clone());
        Process {
            cache: cache.build(),
            session,
            store_errors,
        }
    }

    pub(crate) fn process_at(&self, store: &SharedRedis) -> Process {
        self.process(self.place(store))
    }

    /// Lets the token expire and starts a refresh, whose answer is held.
    pub(crate) async fn start_refresh(
        &self,
        process: &Process,
    ) -> (Hold, JoinHandle<Result<String, Error>>) {
        self.end_tokens();
        let hold = self.idp.hold();
        let before = self.idp.token_requests();
        let task = process.spawn();
        self.idp.token_requests_reach(before + 1).await;
        (hold, task)
    }

    /// Lets the access tokens expire.
    pub(crate) fn end_tokens(&self) {
        self.clock.advance(HOUR);
    }

    /// The refresh tokens that were sent.
    pub(crate) fn refreshes(&self) -> Vec<String> {
        let sent = self.idp.token_log().into_iter().map(|sent| sent.form());
        let refreshes = sent.filter_map(|form| {
            let mut form = form.into_iter();
            let token = form.find(|(name, _)| name == "refresh_token");
            token.map(|(_, value)| value)
        });
        refreshes.collect()
    }
}

impl Process {
    pub(crate) fn store_errors(&self) -> Vec<bearer_auth::store::StoreOperation> {
        self.store_errors.lock().unwrap().clone()
    }

    pub(crate) fn spawn(&self) -> JoinHandle<Result<String, Error>> {
        let cache = self.cache.clone();
        tokio::spawn(async move {
            let token = cache.token().await?;
            Ok(token.expose_secret().to_owned())
        })
    }
}

/// The stored session. (Written by `plain_text`.)
async fn written(redis: &Redis) -> Value {
    let keys = redis.keys().await;
    let data = keys.iter().find(|key| !key.ends_with(":lease")).unwrap();
    let value: String = redis.ask(&["HGET", data, "v"]).await;
    serde_json::from_str(&value).unwrap()
}

async fn eight_processes_share_one_session() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = |_| fleet.process_at(&store(&redis));
    let processes: Vec<_> = (0..8).map(process).collect();
    let tokens = || join_all(processes.iter().map(|process| secret(&process.cache)));
    let mut known = tokens().await;
    assert_eq!(
        fleet.idp.token_requests(),
        1,
        "the login's own token serves"
    );
    for round in 1..=3 {
        fleet.end_tokens();
        let hold = fleet.idp.hold();
        let asked = redis.scripts_run().await;
        let (new, ()) = futures_util::future::join(tokens(), async {
            fleet.idp.token_requests_reach(1 + round).await;
            // All others have asked for the lease and did not get it, some of them more than once.
            let enough = asked + 3 + 10;
            until("all wait", async || redis.scripts_run().await >= enough).await;
            hold.release();
        })
        .await;
        assert!(new.iter().all(|token| *token == new[0]), "{new:?}");
        assert_ne!(new[0], known[0]);
        known = new;
    }
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2", "refresh-3"]);
    for process in processes {
        assert_eq!(process.store_errors(), []);
    }
}

async fn send_count_and_response_are_saved_before_use() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    // Longer than the test waits, so that only a release can end it.
    let plain = SharedRedis::plain_text(redis.client()).lease(MINUTE);
    let place = || fleet.place(&plain);
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    assert_eq!(written(&redis).await["refresh_token"], "refresh-1");
    let process = fleet.process(place());
    secret(&process.cache).await;
    let (hold, task) = fleet.start_refresh(&process).await;
    let sent = written(&redis).await;
    assert_eq!(
        (&sent["refresh_token"], &sent["sends"]),
        (&json!("refresh-1"), &json!(1))
    );
    hold.release();
    let token = task.await.unwrap().unwrap();
    let next = written(&redis).await;
    assert_eq!(
        (&next["refresh_token"], &next["sends"]),
        (&json!("refresh-2"), &Value::Null)
    );
    assert_eq!(next["access_token"], token);
    leases_are_free(&redis).await;
}

async fn refresh_outlives_its_caller_and_other_processes_get_the_token() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let [one, other] = [(); 2].map(|()| fleet.process_at(&store(&redis)));
    let token = one.cache.token().await.unwrap();
    secret(&other.cache).await;
    fleet.end_tokens();
    let hold = fleet.idp.hold();
    let mut request = TokenRequest::new();
    request.previous = Some(token);
    let Process { cache, session, .. } = one;
    drop(cache);
    let fetch = tokio::spawn(async move { session.fetch(request).await });
    fleet.idp.token_requests_reach(2).await;
    // The caller drops its fetch; the cache is dropped already.
    fetch.abort();
    assert!(fetch.await.is_err());
    let waits = other.spawn();
    hold.release();
    assert_eq!(waits.await.unwrap().unwrap(), "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn outage_prevents_refreshes_and_access_token_serves_until_expiry() {
    for outage in Outage::ALL {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let fleet = Fleet::signed_in(&redis).await;
        // Redis may run a timed-out command later; its lease then has no holder.
        let lease = Duration::from_secs(2);
        let store = SharedRedis::sealed(proxy.client(), key()).lease(lease);
        let switched = SwitchedTimeout::new(&store, |store| fleet.place(&store));
        let process = fleet.process(switched.clone());
        let token = secret(&process.cache).await;
        leases_are_free(&redis).await;

        outage.begin(&redis, &proxy).await;
        switched.outage_begins(outage);
        fleet.clock.advance(HOUR - MINUTE);
        assert_eq!(secret(&process.cache).await, token, "{outage:?}");
        fleet.clock.advance(MINUTE);
        for _ in 0..2 {
            let error = process.cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source, "{outage:?}");
            assert!(error.is_retryable(), "{outage:?}");
            fleet.clock.advance(10 * MINUTE);
        }
        assert_eq!(fleet.refreshes(), [""; 0], "{outage:?}");
        let store_errors = process.store_errors();
        assert!(
            !store_errors.is_empty() && store_errors.iter().all(|operation| *operation == Lock),
            "{outage:?}: {store_errors:?}"
        );
        // A new process without a token.
        let late = fleet.process(switched.clone());
        let error = late.cache.token().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Source, true)
        );

        outage.end(&redis, &proxy).await;
        switched.outage_ends();
        // A connection that timed out may still be in use.
        until("the session continues", async || {
            fleet.clock.advance(10 * MINUTE);
            process.cache.token().await.is_ok()
        })
        .await;
        assert_eq!(secret(&process.cache).await, "token-2", "{outage:?}");
        fleet.clock.advance(10 * MINUTE);
        assert_eq!(secret(&late.cache).await, "token-2", "{outage:?}");
        assert_eq!(fleet.refreshes(), ["refresh-1"], "{outage:?}");
    }
}

async fn lost_data_requires_a_new_sign_in() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis));
    fleet.sign_in(place()).await;
    let process = fleet.process(place());
    let token = secret(&process.cache).await;
    redis.ask::<()>(&["FLUSHALL"]).await;
    fleet.clock.advance(HOUR - MINUTE);
    assert_eq!(secret(&process.cache).await, token);
    fleet.clock.advance(MINUTE);
    // The process knows a refresh token, which another process may have used meanwhile.
    let error = process.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!error.is_retryable());
    assert_eq!(fleet.refreshes(), [""; 0]);
    // The user signs in again.
    fleet.sign_in(place()).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
}

async fn replica_sends_no_refresh_token_until_it_is_promoted() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    let fleet = Fleet::start().await;
    fleet.sign_in(fleet.place(&store(&master))).await;
    let port = master.port().to_string();
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
    until("the replica has all", async || {
        replica.keys().await.len() == 1
    })
    .await;
    let process = fleet.process_at(&store(&replica));
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    drop(master);
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-1");
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

type FailureFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store that fails between two steps: before the session is read, or before it is written.
#[derive(Clone)]
struct FailingStore {
    session: RedisStore,
    /// The number of steps until the failure, counted down.
    steps: Arc<AtomicUsize>,
    fail: Arc<dyn Fn() -> FailureFuture + Send + Sync>,
}

struct FailingLocked(Locked, FailingStore);

impl FailingStore {
    async fn step(&self) {
        if self.steps.fetch_sub(1, SeqCst) == 1 {
            (self.fail)().await;
        }
    }
}

impl TokenStore for FailingStore {
    type Locked = FailingLocked;

    async fn lock(&self) -> Result<FailingLocked, BoxError> {
        Ok(FailingLocked(self.session.lock().await?, self.clone()))
    }
}

impl LockedSession for FailingLocked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.1.step().await;
        self.0.load().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        self.1.step().await;
        self.0.save(session).await
    }
}

/// A failure between the lock and the moment the refresh token is sent.
#[derive(Clone, Copy, Debug)]
enum Failure {
    LeaseExpires,
    LeaseIsTaken,
    DataIsLost,
    Outage(Outage),
}

async fn lost_lease_prevents_the_refresh() {
    let outages = Outage::ALL.map(Failure::Outage);
    let own = [
        Failure::LeaseExpires,
        Failure::LeaseIsTaken,
        Failure::DataIsLost,
    ];
    let all = own.into_iter().chain(outages);
    // Step 1 reads the session, step 2 writes the send count. The write is retried for some seconds, so
    // all cases run at the same time.
    join_all(all.flat_map(|failure| [1, 2].map(|step| lease_is_lost(failure, step)))).await;
}

async fn lease_is_lost(failure: Failure, step: usize) {
    let redis = Redis::start().await;
    let redis = Arc::new(redis);
    let proxy = Arc::new(Proxy::start(&redis).await);
    let fleet = Fleet::signed_in(&redis).await;
    leases_are_free(&redis).await;
    let mut store = SharedRedis::sealed(proxy.client(), key());
    if !matches!(failure, Failure::Outage(outage) if outage.is_silence()) {
        store = store.timeout(MINUTE);
    }
    let failing = FailingStore {
        session: fleet.place(&store),
        steps: Arc::default(),
        fail: Arc::new({
            let (redis, proxy) = (Arc::clone(&redis), Arc::clone(&proxy));
            move || {
                let (redis, proxy) = (Arc::clone(&redis), Arc::clone(&proxy));
                Box::pin(async move {
                    match failure {
                        Failure::LeaseExpires => end_lease(&redis).await,
                        Failure::LeaseIsTaken => {
                            let keys = redis.keys().await;
                            let lease = keys.iter().find(|key| key.ends_with(":lease"));
                            redis.ask(&["SET", lease.unwrap(), "another"]).await
                        }
                        Failure::DataIsLost => redis.ask(&["FLUSHALL"]).await,
                        Failure::Outage(outage) => outage.begin(&redis, &proxy).await,
                    }
                })
            }
        }),
    };
    let process = fleet.process(failing.clone());
    secret(&process.cache).await;
    fleet.end_tokens();
    failing.steps.store(step, SeqCst);
    let asked = process.cache.token().await;
    let of = format!("{failure:?} before step {step}: {asked:?}");
    let Err(error) = asked else { panic!("{of}") };
    assert_eq!(fleet.refreshes(), [""; 0], "{of}");
    match (failure, step) {
        (Failure::DataIsLost, 1) => assert_eq!(error.kind(), ErrorKind::SignInRequired, "{of}"),
        _ => assert!(error.is_retryable(), "{of}"),
    }
    if let Failure::Outage(outage) = failure {
        outage.end(&redis, &proxy).await;
    }
    // A lease that could not be released would expire.
    let keys = redis.keys().await;
    if let Some(lease) = keys.iter().find(|key| key.ends_with(":lease")) {
        redis.ask::<u64>(&["DEL", lease]).await;
    }
    fleet.end_tokens();
    match failure {
        Failure::DataIsLost => {
            let error = process.cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SignInRequired, "{of}");
        }
        _ => {
            until("the session continues", async || {
                fleet.clock.advance(10 * MINUTE);
                process.cache.token().await.is_ok()
            })
            .await;
            assert_eq!(secret(&process.cache).await, "token-2", "{of}");
            assert_eq!(fleet.refreshes(), ["refresh-1"], "{of}");
        }
    }
}

/// A refresh token may be sent twice. Failures before it is sent do not count.
async fn unsent_refresh_token_is_not_counted_as_sent() {
    let redis = Redis::start().await;
    let redis = Arc::new(redis);
    let fleet = Fleet::signed_in(&redis).await;
    let ends = Arc::clone(&redis);
    let failing = FailingStore {
        session: fleet.place(&store(&redis)),
        steps: Arc::default(),
        fail: Arc::new(move || {
            let redis = Arc::clone(&ends);
            Box::pin(async move { end_lease(&redis).await })
        }),
    };
    let process = fleet.process(failing.clone());
    secret(&process.cache).await;
    for _ in 0..4 {
        fleet.end_tokens();
        failing.steps.store(2, SeqCst);
        let error = process.cache.token().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// The lease is lost during the refresh.
async fn refreshed_session_is_saved_although_the_lease_is_lost() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    for data_is_lost in [false, true] {
        let (hold, task) = fleet.start_refresh(&process).await;
        match data_is_lost {
            true => redis.ask::<()>(&["FLUSHALL"]).await,
            false => end_lease(&redis).await,
        }
        hold.release();
        let token = task.await.unwrap().unwrap();
        assert_eq!(process.store_errors(), []);
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token);
    }
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

/// Takes the lease from the refresh in flight, and writes a newer session.
async fn write_newer(redis: &Redis, fleet: &Fleet, newer: &StoredSession) {
    end_lease(redis).await;
    let place = fleet.place(&store(redis));
    let mut locked = place.lock().await.unwrap();
    locked.save(Some(newer)).await.unwrap();
}

/// The session of another grant: `refresh-2`.
pub(crate) async fn another_session(fleet: &Fleet) -> StoredSession {
    let memory = bearer_auth::store::MemoryStore::new();
    fleet.sign_in(memory.clone()).await;
    memory.lock().await.unwrap().load().await.unwrap().unwrap()
}

pub(crate) async fn load(place: RedisStore) -> Option<String> {
    let session = place.lock().await.unwrap().load().await.unwrap();
    session.map(|session| session.refresh_token().unwrap().expose_secret().to_owned())
}

async fn late_refresh_adopts_the_newer_session_and_does_not_overwrite_it() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let newer = another_session(&fleet).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    let (hold, task) = fleet.start_refresh(&process).await;
    write_newer(&redis, &fleet, &newer).await;
    hold.release();
    // The access token serves nevertheless.
    assert_eq!(task.await.unwrap().unwrap(), "token-3");
    assert_eq!(process.store_errors(), [Save]);
    assert_eq!(
        load(fleet.place(&store(&redis))).await.unwrap(),
        "refresh-2"
    );
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-4");
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

async fn late_invalid_grant_does_not_end_a_newer_session() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let newer = another_session(&fleet).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    fleet.end_tokens();
    fleet.idp.then(Answer::oauth_error("invalid_grant"));
    let hold = fleet.idp.hold();
    let task = process.spawn();
    fleet.idp.token_requests_reach(3).await;
    write_newer(&redis, &fleet, &newer).await;
    hold.release();
    let error = task.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    fleet.clock.advance(MINUTE);
    assert_eq!(secret(&process.cache).await, "token-2");
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-3");
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

async fn lost_redis_reply_does_not_affect_the_session() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&patient(proxy.client()));
    secret(&process.cache).await;
    leases_are_free(&redis).await;
    // Take the lease, read, write the send count, write the response, release the lease. The process
    // runs the script again.
    for step in 0..5 {
        fleet.end_tokens();
        let which = (0..=step).map(|at| at == step);
        proxy.lose_answers(which);
        secret(&process.cache).await;
        until("the reply was lost", async || proxy.has_lost_answers()).await;
        leases_are_free(&redis).await;
        assert_eq!(fleet.refreshes().len(), step + 1);
        assert_eq!(process.store_errors(), [], "{step}");
    }
    // The write of the response is retried for longer, since only this process has it.
    fleet.end_tokens();
    // A try loses two replies, on the old connection and on a new one; then the next try starts.
    proxy.lose_answers([false, false, false, true, true, true]);
    let token = secret(&process.cache).await;
    assert!(proxy.has_lost_answers());
    assert_eq!(process.store_errors(), []);
    let other = fleet.process_at(&store(&redis));
    assert_eq!(secret(&other.cache).await, token);
    assert_eq!(fleet.refreshes().len(), 6);
}

/// The refresh token in memory is old: another process has used it.
async fn unreadable_session_is_not_refreshed_from_memory() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&patient(proxy.client()));
    let other = fleet.process_at(&store(&redis));
    for process in [&process, &other] {
        secret(&process.cache).await;
    }
    fleet.end_tokens();
    let token = secret(&other.cache).await;
    leases_are_free(&redis).await;
    // The read and its repetition.
    proxy.lose_answers([false, true, true]);
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert!(proxy.has_lost_answers());
    assert_eq!(process.store_errors(), [Load]);
    fleet.clock.advance(MINUTE);
    assert_eq!(secret(&process.cache).await, token);
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// A refresh cannot be undone: the process keeps the new session in memory and writes it when it can.
async fn unsaved_session_is_saved_with_the_next_request() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    let (hold, task) = fleet.start_refresh(&process).await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    hold.release();
    assert_eq!(task.await.unwrap().unwrap(), "token-2");
    assert_eq!(process.store_errors(), [Save]);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-3");
    let other = fleet.process_at(&store(&redis));
    assert_eq!(secret(&other.cache).await, "token-3");
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

async fn waiting_session_polls_the_lease_with_backoff() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    leases_are_free(&redis).await;
    let keys = redis.keys().await;
    let lease = format!("{}:lease", keys[0]);
    redis
        .ask::<()>(&["SET", &lease, "dead process", "PX", "1500"])
        .await;
    let before = redis.scripts_run().await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    // A refresh takes four scripts. The pauses in 1.5 s are 20, 40, 80 … 500 ms, or half of that.
    let scripts = redis.scripts_run().await - before;
    assert!(scripts <= 4 + 16, "{scripts}");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn late_refresh_does_not_undo_a_logout() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis));
    fleet.sign_in(place()).await;
    let [late, other] = [(); 2].map(|()| fleet.process(place()));
    for process in [&late, &other] {
        secret(&process.cache).await;
    }
    let (hold, task) = fleet.start_refresh(&late).await;
    end_lease(&redis).await;
    other.session.logout().await.unwrap();
    hold.release();
    task.await.unwrap().unwrap();
    assert_eq!(load(place()).await, None);
    fleet.end_tokens();
    for process in [&late, &other] {
        let error = process.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired);
    }
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
    // The record of the logout expires.
    leases_are_free(&redis).await;
    let left: i64 = redis.ask(&["PTTL", &redis.keys().await[0]]).await;
    assert!((1..=24 * 3_600_000).contains(&left), "{left}");
    // A new sign-in has no expiry.
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    let left: i64 = redis.ask(&["PTTL", &redis.keys().await[0]]).await;
    assert_eq!(left, -1);
}

async fn unused_session_expires_after_session_ttl() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis).session_ttl(24 * HOUR));
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    let data = redis.keys().await.remove(0);
    let has_left = async |hours: std::ops::RangeInclusive<i64>| {
        let left: i64 = redis.ask(&["PTTL", &data]).await;
        assert!(hours.contains(&(left / 3_600_000)), "{left}");
    };
    has_left(23..=24).await;
    redis.ask::<()>(&["PEXPIRE", &data, "7200000"]).await;
    // A read does not prolong it.
    let process = fleet.process(place());
    assert_eq!(secret(&process.cache).await, "token-1");
    has_left(1..=2).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    has_left(23..=24).await;
    // It expires.
    redis.ask::<()>(&["PEXPIRE", &data, "1"]).await;
    until("the session is gone", async || {
        redis.keys().await.is_empty()
    })
    .await;
    let error = fleet.process(place()).cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

async fn session_ttl_of_duration_max_never_expires() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis).session_ttl(Duration::MAX));
    fleet.sign_in(place()).await;
    let process = fleet.process(place());
    assert_eq!(secret(&process.cache).await, "token-1");
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    assert_eq!(process.store_errors(), []);
}

/// A process waits as long for a lease. After that a refresh fails, and a logout takes the lease over.
async fn logout_waits_twenty_seconds_for_the_lease_at_most() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let [one, other] = [(); 2].map(|()| fleet.process_at(&store(&redis)));
    for process in [&one, &other] {
        secret(&process.cache).await;
    }
    leases_are_free(&redis).await;
    let lease = format!("{}:lease", redis.keys().await[0]);
    redis
        .ask::<()>(&["SET", &lease, "slow process", "PX", "600000"])
        .await;
    fleet.end_tokens();
    let (error, signed_out) = futures_util::join!(other.spawn(), one.session.logout());
    let error = error.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(other.store_errors(), [Lock]);
    signed_out.unwrap();
    assert_eq!(load(fleet.place(&store(&redis))).await, None);
    assert_eq!(fleet.refreshes(), [""; 0]);
}

async fn sessions_of_different_users_are_separate() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let auth = fleet.auth(
        bearer_auth::store::MemoryStore::new(),
        &StoreErrors::default(),
    );
    let place = |who| store(&redis).store(auth.token_key(who));
    let mut tokens = Vec::new();
    for who in ["alice", "bob"] {
        fleet.sign_in(place(who)).await;
        tokens.push(secret(&fleet.process(place(who)).cache).await);
    }
    assert_eq!(tokens, ["token-1", "token-2"]);
    let carol = fleet.process(place("carol"));
    let error = carol.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    leases_are_free(&redis).await;
    let keys = redis.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

async fn garbage_in_the_session_key_is_not_sent() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis));
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    let keys = redis.keys().await;
    for garbage in [
        "garbage",
        "{}",
        r#"{"version":1,"refresh_token":"refresh-1"}"#,
    ] {
        redis.ask::<u64>(&["HSET", &keys[0], "v", garbage]).await;
        let process = fleet.process(place());
        let error = process.cache.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignInRequired, "{garbage}");
        assert_eq!(process.store_errors(), [Load]);
    }
    // A key of another type belongs to another program.
    redis.ask::<()>(&["SET", &keys[0], "text"]).await;
    let process = fleet.process(place());
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(fleet.refreshes(), [""; 0]);
}

/// The lock was taken inside one.
async fn save_outside_a_runtime_is_an_error() {
    let redis = Redis::start().await;
    let store = store(&redis).store(TokenKey::named("alice"));
    let mut locked = store.lock().await.unwrap();
    let save = move || {
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(error)) = pin!(locked.save(None)).poll(&mut cx) else {
            panic!("no error");
        };
        error.downcast::<Error>().unwrap().kind()
    };
    let kind = std::thread::spawn(save).join().unwrap();
    assert_eq!(kind, ErrorKind::NoRuntime);
}
