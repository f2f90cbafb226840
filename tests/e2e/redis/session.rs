//! Sessions: the refresh token rotates, so that one that is sent twice costs the session. Whatever
//! goes wrong with Redis keeps it from being sent.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bearer_auth::{
    AuthorizationCode, BoxError, Error, ErrorKind, Session, TokenCache, TokenRequest,
    TokenSource as _,
    redis::{RedisStore, SharedRedis},
    store::StoreOperation::{Load, Lock, Save},
    store::{Locked, LockedSession, StoredSession, TokenStore},
    testing::{Answer, Hold, ManualClock, MockIdp},
};
use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    Outage, Redis, Tempered, Told, end_lease, key, leases_are_free, patient, secret, store,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    eight_processes_share_one_session,
    that_it_is_sent_and_what_came_for_it_are_written_before_anybody_uses_it,
    an_exchange_outlives_its_callers_and_the_others_have_its_result,
    without_redis_nothing_is_sent_and_the_access_token_serves_until_it_ends,
    data_that_is_lost_is_a_session_that_is_lost,
    a_replica_has_the_session_and_sends_nothing_until_it_is_promoted,
    a_lease_that_is_lost_sends_nothing,
    what_was_not_sent_is_not_counted,
    what_came_for_a_refresh_token_is_written_although_the_lease_is_lost,
    a_late_answer_replaces_nothing_newer_and_the_loser_goes_on_with_that,
    a_late_refusal_ends_no_newer_session,
    an_answer_of_redis_that_is_lost_costs_nothing,
    what_cannot_be_read_is_not_sent_from_memory,
    what_redis_does_not_take_is_written_with_the_next_question,
    who_waits_for_the_lease_of_a_dead_one_asks_now_and_then,
    who_signs_out_is_not_signed_in_again_by_somebody_late,
    a_session_that_nobody_goes_on_with_stays_for_as_long_as_it_is_told_to,
    for_ever_is_a_time_as_well,
    who_signs_out_waits_for_twenty_seconds_at_most,
    people_are_not_confused,
    what_is_no_session_is_not_sent,
}

const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Those who share a session, and their server.
pub(crate) struct Fleet {
    pub(crate) idp: MockIdp,
    pub(crate) clock: ManualClock,
}

pub(crate) struct Process {
    pub(crate) cache: TokenCache,
    pub(crate) session: Session,
    pub(crate) told: Told,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let clock = ManualClock::new();
        let idp = MockIdp::builder().clock(clock.clone()).client("app", "");
        let idp = idp.start().await.unwrap();
        Self { idp, clock }
    }

    /// With somebody who has signed in, and whose session is in Redis.
    pub(crate) async fn signed_in(redis: &Redis) -> Self {
        let fleet = Self::start().await;
        fleet.sign_in(fleet.place(&store(redis))).await;
        fleet
    }

    fn auth(&self, store: impl TokenStore, told: &Told) -> AuthorizationCode {
        let tells = Arc::clone(told);
        AuthorizationCode::builder(self.idp.authorization_url(), self.idp.token_url(), "app")
            .redirect_uri("https://app.example/callback")
            .store(store)
            .on_store_error(move |error| tells.lock().unwrap().push(error.operation))
            .build()
            .unwrap()
    }

    /// Where the session is.
    pub(crate) fn place(&self, store: &SharedRedis) -> RedisStore {
        let auth = self.auth(bearer_auth::store::MemoryStore::new(), &Told::default());
        store.store(auth.token_key("alice"))
    }

    /// Somebody signs in, and goes on in the process where they do.
    pub(crate) async fn sign_in(&self, store: impl TokenStore) -> Process {
        let told = Told::default();
        let login = self.auth(store, &told).start().await.unwrap();
        let callback = self.idp.sign_in(login.url()).unwrap();
        self.goes_on(login.finish(&callback).await.unwrap(), told)
    }

    /// A process that goes on with what is there.
    pub(crate) fn process(&self, store: impl TokenStore) -> Process {
        let told = Told::default();
        self.goes_on(self.auth(store, &told).session(), told)
    }

    fn goes_on(&self, session: Session, told: Told) -> Process {
        let cache = TokenCache::builder(session.clone()).clock(self.clock.clone());
        Process {
            cache: cache.build(),
            session,
            told,
        }
    }

    pub(crate) fn process_at(&self, store: &SharedRedis) -> Process {
        self.process(self.place(store))
    }

    /// Its token has ended: it asks for another, and the answer is held.
    pub(crate) async fn renews(
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

    /// The access tokens end.
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
    pub(crate) fn told(&self) -> Vec<bearer_auth::store::StoreOperation> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn spawn(&self) -> JoinHandle<Result<String, Error>> {
        let cache = self.cache.clone();
        tokio::spawn(async move {
            let token = cache.token().await?;
            Ok(token.expose_secret().to_owned())
        })
    }
}

/// What `plain_text` wrote.
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
            // All others have asked for the lease in vain, and some of them more than once.
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
        assert_eq!(process.told(), []);
    }
}

async fn that_it_is_sent_and_what_came_for_it_are_written_before_anybody_uses_it() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    // Longer than a test waits for its end.
    let plain = SharedRedis::plain_text(redis.client()).lease(MINUTE);
    let place = || fleet.place(&plain);
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    assert_eq!(written(&redis).await["refresh_token"], "refresh-1");
    let process = fleet.process(place());
    secret(&process.cache).await;
    let (hold, task) = fleet.renews(&process).await;
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

async fn an_exchange_outlives_its_callers_and_the_others_have_its_result() {
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
    // Its caller goes, and its cache has gone.
    fetch.abort();
    assert!(fetch.await.is_err());
    let waits = other.spawn();
    hold.release();
    assert_eq!(waits.await.unwrap().unwrap(), "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn without_redis_nothing_is_sent_and_the_access_token_serves_until_it_ends() {
    for outage in Outage::ALL {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let fleet = Fleet::signed_in(&redis).await;
        // What was asked in vain may be done afterwards, and then has the lease of nobody.
        let lease = Duration::from_secs(2);
        let store = SharedRedis::sealed(proxy.client(), key()).lease(lease);
        let tempered = Tempered::new(&store, |store| fleet.place(&store));
        let process = fleet.process(tempered.clone());
        let token = secret(&process.cache).await;
        leases_are_free(&redis).await;

        outage.begin(&redis, &proxy).await;
        tempered.notices(outage);
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
        let told = process.told();
        assert!(
            !told.is_empty() && told.iter().all(|told| *told == Lock),
            "{outage:?}: {told:?}"
        );
        // Somebody who has just started, and has nothing.
        let late = fleet.process(tempered.clone());
        let error = late.cache.token().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Source, true)
        );

        outage.end(&redis, &proxy).await;
        tempered.calms_down();
        // A connection that nobody answered may still be on its way.
        until("it goes on", async || {
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

async fn data_that_is_lost_is_a_session_that_is_lost() {
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
    // It knows a refresh token, and so does whoever has used it meanwhile.
    let error = process.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert!(!error.is_retryable());
    assert_eq!(fleet.refreshes(), [""; 0]);
    // The user does.
    fleet.sign_in(place()).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
}

async fn a_replica_has_the_session_and_sends_nothing_until_it_is_promoted() {
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

type Meddling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session that something happens to: before it is read, or before it is written.
#[derive(Clone)]
struct Meddled {
    session: RedisStore,
    /// How many steps before it does, counted down.
    steps: Arc<AtomicUsize>,
    meddle: Arc<dyn Fn() -> Meddling + Send + Sync>,
}

struct MeddledLocked(Locked, Meddled);

impl Meddled {
    async fn step(&self) {
        if self.steps.fetch_sub(1, SeqCst) == 1 {
            (self.meddle)().await;
        }
    }
}

impl TokenStore for Meddled {
    type Locked = MeddledLocked;

    async fn lock(&self) -> Result<MeddledLocked, BoxError> {
        Ok(MeddledLocked(self.session.lock().await?, self.clone()))
    }
}

impl LockedSession for MeddledLocked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.1.step().await;
        self.0.load().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        self.1.step().await;
        self.0.save(session).await
    }
}

/// What can happen between the lock and the moment the refresh token is sent.
#[derive(Clone, Copy, Debug)]
enum Meddle {
    LeaseRunsOut,
    LeaseIsTaken,
    DataIsLost,
    Outage(Outage),
}

async fn a_lease_that_is_lost_sends_nothing() {
    let outages = Outage::ALL.map(Meddle::Outage);
    let own = [
        Meddle::LeaseRunsOut,
        Meddle::LeaseIsTaken,
        Meddle::DataIsLost,
    ];
    let all = own.into_iter().chain(outages);
    // Before it is read, and before it is written that it is about to be sent: which is tried for some
    // seconds, and so for all at the same time.
    join_all(all.flat_map(|meddle| [1, 2].map(|step| meddled(meddle, step)))).await;
}

async fn meddled(meddle: Meddle, step: usize) {
    let redis = Redis::start().await;
    let redis = Arc::new(redis);
    let proxy = Arc::new(Proxy::start(&redis).await);
    let fleet = Fleet::signed_in(&redis).await;
    leases_are_free(&redis).await;
    let mut store = SharedRedis::sealed(proxy.client(), key());
    if !matches!(meddle, Meddle::Outage(outage) if outage.is_silence()) {
        store = store.timeout(MINUTE);
    }
    let meddled = Meddled {
        session: fleet.place(&store),
        steps: Arc::default(),
        meddle: Arc::new({
            let (redis, proxy) = (Arc::clone(&redis), Arc::clone(&proxy));
            move || {
                let (redis, proxy) = (Arc::clone(&redis), Arc::clone(&proxy));
                Box::pin(async move {
                    match meddle {
                        Meddle::LeaseRunsOut => end_lease(&redis).await,
                        Meddle::LeaseIsTaken => {
                            let keys = redis.keys().await;
                            let lease = keys.iter().find(|key| key.ends_with(":lease"));
                            redis.ask(&["SET", lease.unwrap(), "another"]).await
                        }
                        Meddle::DataIsLost => redis.ask(&["FLUSHALL"]).await,
                        Meddle::Outage(outage) => outage.begin(&redis, &proxy).await,
                    }
                })
            }
        }),
    };
    let process = fleet.process(meddled.clone());
    secret(&process.cache).await;
    fleet.end_tokens();
    meddled.steps.store(step, SeqCst);
    let asked = process.cache.token().await;
    let of = format!("{meddle:?} before step {step}: {asked:?}");
    let Err(error) = asked else { panic!("{of}") };
    assert_eq!(fleet.refreshes(), [""; 0], "{of}");
    match (meddle, step) {
        (Meddle::DataIsLost, 1) => assert_eq!(error.kind(), ErrorKind::SignInRequired, "{of}"),
        _ => assert!(error.is_retryable(), "{of}"),
    }
    if let Meddle::Outage(outage) = meddle {
        outage.end(&redis, &proxy).await;
    }
    // What could not be given back would run out.
    let keys = redis.keys().await;
    if let Some(lease) = keys.iter().find(|key| key.ends_with(":lease")) {
        redis.ask::<u64>(&["DEL", lease]).await;
    }
    fleet.end_tokens();
    match meddle {
        Meddle::DataIsLost => {
            let error = process.cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SignInRequired, "{of}");
        }
        _ => {
            until("it goes on", async || {
                fleet.clock.advance(10 * MINUTE);
                process.cache.token().await.is_ok()
            })
            .await;
            assert_eq!(secret(&process.cache).await, "token-2", "{of}");
            assert_eq!(fleet.refreshes(), ["refresh-1"], "{of}");
        }
    }
}

/// However often: a refresh token may be sent twice, and has not been.
async fn what_was_not_sent_is_not_counted() {
    let redis = Redis::start().await;
    let redis = Arc::new(redis);
    let fleet = Fleet::signed_in(&redis).await;
    let ends = Arc::clone(&redis);
    let meddled = Meddled {
        session: fleet.place(&store(&redis)),
        steps: Arc::default(),
        meddle: Arc::new(move || {
            let redis = Arc::clone(&ends);
            Box::pin(async move { end_lease(&redis).await })
        }),
    };
    let process = fleet.process(meddled.clone());
    secret(&process.cache).await;
    for _ in 0..4 {
        fleet.end_tokens();
        meddled.steps.store(2, SeqCst);
        let error = process.cache.token().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// One exchange whose answer comes when its lease is lost.
async fn what_came_for_a_refresh_token_is_written_although_the_lease_is_lost() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    for data_is_lost in [false, true] {
        let (hold, task) = fleet.renews(&process).await;
        match data_is_lost {
            true => redis.ask::<()>(&["FLUSHALL"]).await,
            false => end_lease(&redis).await,
        }
        hold.release();
        let token = task.await.unwrap().unwrap();
        assert_eq!(process.told(), []);
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token);
    }
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

/// Somebody writes a newer session than the one that is being exchanged, whose lease is lost.
async fn write_newer(redis: &Redis, fleet: &Fleet, newer: &StoredSession) {
    end_lease(redis).await;
    let place = fleet.place(&store(redis));
    let mut locked = place.lock().await.unwrap();
    locked.save(Some(newer)).await.unwrap();
}

/// Of another grant: `refresh-2`.
pub(crate) async fn another_session(fleet: &Fleet) -> StoredSession {
    let memory = bearer_auth::store::MemoryStore::new();
    fleet.sign_in(memory.clone()).await;
    memory.lock().await.unwrap().load().await.unwrap().unwrap()
}

pub(crate) async fn load(place: RedisStore) -> Option<String> {
    let session = place.lock().await.unwrap().load().await.unwrap();
    session.map(|session| session.refresh_token().unwrap().expose_secret().to_owned())
}

async fn a_late_answer_replaces_nothing_newer_and_the_loser_goes_on_with_that() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let newer = another_session(&fleet).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    let (hold, task) = fleet.renews(&process).await;
    write_newer(&redis, &fleet, &newer).await;
    hold.release();
    // Of use all the same.
    assert_eq!(task.await.unwrap().unwrap(), "token-3");
    assert_eq!(process.told(), [Save]);
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

async fn a_late_refusal_ends_no_newer_session() {
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

async fn an_answer_of_redis_that_is_lost_costs_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&patient(proxy.client()));
    secret(&process.cache).await;
    leases_are_free(&redis).await;
    // To take the lease, to read, to write that it is sent, to write what came, to give the lease
    // back. The script is run again.
    for step in 0..5 {
        fleet.end_tokens();
        let which = (0..=step).map(|at| at == step);
        proxy.lose_answers(which);
        secret(&process.cache).await;
        until("it was lost", async || proxy.has_lost_them()).await;
        leases_are_free(&redis).await;
        assert_eq!(fleet.refreshes().len(), step + 1);
        assert_eq!(process.told(), [], "{step}");
    }
    // What came is tried for longer than that: nobody else has it.
    fleet.end_tokens();
    // A try loses two, on the connection that was there and on a new one; the next begins anew.
    proxy.lose_answers([false, false, false, true, true, true]);
    let token = secret(&process.cache).await;
    assert!(proxy.has_lost_them());
    assert_eq!(process.told(), []);
    let other = fleet.process_at(&store(&redis));
    assert_eq!(secret(&other.cache).await, token);
    assert_eq!(fleet.refreshes().len(), 6);
}

/// What it knew is not what is there: another has exchanged it.
async fn what_cannot_be_read_is_not_sent_from_memory() {
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
    // The look, and the look again.
    proxy.lose_answers([false, true, true]);
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert!(proxy.has_lost_them());
    assert_eq!(process.told(), [Load]);
    fleet.clock.advance(MINUTE);
    assert_eq!(secret(&process.cache).await, token);
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

/// It cannot be undone: the process that has it keeps it, and writes it when it can.
async fn what_redis_does_not_take_is_written_with_the_next_question() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    let (hold, task) = fleet.renews(&process).await;
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    hold.release();
    assert_eq!(task.await.unwrap().unwrap(), "token-2");
    assert_eq!(process.told(), [Save]);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-3");
    let other = fleet.process_at(&store(&redis));
    assert_eq!(secret(&other.cache).await, "token-3");
    assert_eq!(fleet.refreshes(), ["refresh-1", "refresh-2"]);
}

async fn who_waits_for_the_lease_of_a_dead_one_asks_now_and_then() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    leases_are_free(&redis).await;
    let keys = redis.keys().await;
    let lease = format!("{}:lease", keys[0]);
    redis
        .ask::<()>(&["SET", &lease, "somebody dead", "PX", "1500"])
        .await;
    let before = redis.scripts_run().await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    // Of these, four are those of an exchange. The pauses of a second and a half are 20, 40, 80 …
    // 500 ms, or half of that.
    let scripts = redis.scripts_run().await - before;
    assert!(scripts <= 4 + 16, "{scripts}");
    assert_eq!(fleet.refreshes(), ["refresh-1"]);
}

async fn who_signs_out_is_not_signed_in_again_by_somebody_late() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis));
    fleet.sign_in(place()).await;
    let [late, other] = [(); 2].map(|()| fleet.process(place()));
    for process in [&late, &other] {
        secret(&process.cache).await;
    }
    let (hold, task) = fleet.renews(&late).await;
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
    // It is not remembered for ever.
    leases_are_free(&redis).await;
    let left: i64 = redis.ask(&["PTTL", &redis.keys().await[0]]).await;
    assert!((1..=24 * 3_600_000).contains(&left), "{left}");
    // Whoever signs in again is signed in for as long as it takes.
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    let left: i64 = redis.ask(&["PTTL", &redis.keys().await[0]]).await;
    assert_eq!(left, -1);
}

async fn a_session_that_nobody_goes_on_with_stays_for_as_long_as_it_is_told_to() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis).session_ttl(24 * HOUR));
    fleet.sign_in(place()).await;
    leases_are_free(&redis).await;
    let data = redis.keys().await.remove(0);
    let is_left = async |hours: std::ops::RangeInclusive<i64>| {
        let left: i64 = redis.ask(&["PTTL", &data]).await;
        assert!(hours.contains(&(left / 3_600_000)), "{left}");
    };
    is_left(23..=24).await;
    redis.ask::<()>(&["PEXPIRE", &data, "7200000"]).await;
    // To look at it is not enough.
    let process = fleet.process(place());
    assert_eq!(secret(&process.cache).await, "token-1");
    is_left(1..=2).await;
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    is_left(23..=24).await;
    // It runs out.
    redis.ask::<()>(&["PEXPIRE", &data, "1"]).await;
    until("the session is gone", async || {
        redis.keys().await.is_empty()
    })
    .await;
    let error = fleet.process(place()).cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}

async fn for_ever_is_a_time_as_well() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let place = || fleet.place(&store(&redis).session_ttl(Duration::MAX));
    fleet.sign_in(place()).await;
    let process = fleet.process(place());
    assert_eq!(secret(&process.cache).await, "token-1");
    fleet.end_tokens();
    assert_eq!(secret(&process.cache).await, "token-2");
    assert_eq!(process.told(), []);
}

/// That is how long a lease is waited for: then some get an error, and who signs out takes it.
async fn who_signs_out_waits_for_twenty_seconds_at_most() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let [one, other] = [(); 2].map(|()| fleet.process_at(&store(&redis)));
    for process in [&one, &other] {
        secret(&process.cache).await;
    }
    leases_are_free(&redis).await;
    let lease = format!("{}:lease", redis.keys().await[0]);
    redis
        .ask::<()>(&["SET", &lease, "somebody slow", "PX", "600000"])
        .await;
    fleet.end_tokens();
    let (error, signed_out) = futures_util::join!(other.spawn(), one.session.logout());
    let error = error.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(other.told(), [Lock]);
    signed_out.unwrap();
    assert_eq!(load(fleet.place(&store(&redis))).await, None);
    assert_eq!(fleet.refreshes(), [""; 0]);
}

async fn people_are_not_confused() {
    let redis = Redis::start().await;
    let fleet = Fleet::start().await;
    let auth = fleet.auth(bearer_auth::store::MemoryStore::new(), &Told::default());
    let place = |who| store(&redis).store(auth.token_key(who));
    let mut tokens = Vec::new();
    for who in ["alice", "bob"] {
        fleet.sign_in(place(who)).await;
        tokens.push(secret(&fleet.process(place(who)).cache).await);
    }
    assert_eq!(tokens, ["token-1", "token-2"]);
    let nobody = fleet.process(place("carol"));
    let error = nobody.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    leases_are_free(&redis).await;
    let keys = redis.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
}

async fn what_is_no_session_is_not_sent() {
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
        assert_eq!(process.told(), [Load]);
    }
    // Of another type: whose that is, nobody knows.
    redis.ask::<()>(&["SET", &keys[0], "text"]).await;
    let process = fleet.process(place());
    let error = process.cache.token().await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(fleet.refreshes(), [""; 0]);
}
