//! A refreshed session that could not be saved: only one process has the new refresh token. And a send
//! count that was written for a refresh token that was not sent.

use std::time::{Duration, SystemTime};

use bearer_auth::{
    BoxError, Error, ErrorKind, TokenRequest, TokenSource as _,
    redis::{RedisStore, SharedRedis},
    store::StoreOperation::{Lock, Save},
    store::{Locked, LockedSession, StoredSession, TokenStore},
    testing::Answer,
};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    Outage, Redis, end_lease, end_leases, lease, leases_are_free, secret,
    session::{Fleet, MINUTE, Process, another_session},
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    unsaved_session_does_not_undo_a_logout,
    unsaved_session_does_not_overwrite_a_new_sign_in,
    unsaved_session_survives_invalid_grant_for_its_predecessor,
    late_response_for_the_stored_refresh_token_is_saved,
    send_count_write_is_retried,
    send_count_written_without_a_reply_is_reverted,
    refresh_token_with_a_lost_response_is_not_resent_at_once,
    unsaved_session_is_saved_in_the_background,
    sign_in_does_not_wait_for_a_refresh,
    unreachable_process_has_time_to_save_after_its_lease,
    sign_in_during_an_outage_yields_to_a_later_sign_in,
    overtaken_sign_in_adopts_the_newer_session,
}

/// Two processes with one session. The first one reaches Redis through a proxy.
struct Two {
    redis: Redis,
    proxy: Proxy,
    fleet: Fleet,
    one: Process,
    other: Process,
}

/// A refresh in flight. Returns the new refresh token.
type Refresh = JoinHandle<Result<String, Error>>;

impl Two {
    async fn start() -> Self {
        Self::with(|store| store).await
    }

    /// With these settings of the first process's store.
    async fn with(store_of_one: impl FnOnce(SharedRedis) -> SharedRedis) -> Self {
        let redis = Redis::start().await;
        let proxy = Proxy::start(&redis).await;
        let fleet = Fleet::start().await;
        let store = plain(redis.client());
        fleet.sign_in(fleet.place(&store)).await;
        let one = fleet.process_at(&store_of_one(plain(proxy.client())));
        let other = fleet.process_at(&store);
        for process in [&one, &other] {
            secret(&process.cache).await;
        }
        leases_are_free(&redis).await;
        Self {
            redis,
            proxy,
            fleet,
            one,
            other,
        }
    }

    /// Sends the refresh token of a process. The server gives this answer.
    async fn start_refresh(&self, process: &Process, answer: Answer) -> Refresh {
        let mut request = TokenRequest::new();
        request.previous = Some(process.cache.token().await.unwrap());
        self.fleet.idp.then(answer);
        let sent = self.fleet.idp.token_requests() + 1;
        let session = process.session.clone();
        let refresh = tokio::spawn(async move {
            let response = session.fetch(request).await?;
            let next = response.refresh_token().unwrap();
            Ok(next.expose_secret().to_owned())
        });
        self.fleet.idp.token_requests_reach(sent).await;
        refresh
    }

    /// Sends the first process's refresh token. The answer comes with [`answer`](Self::answer).
    async fn start_slow_refresh(&self) -> Refresh {
        let late = Answer::ok().delay(MINUTE);
        self.start_refresh(&self.one, late).await
    }

    fn answer(&self) {
        self.fleet.clock.advance(MINUTE);
    }

    /// The first process has `refresh-2`, no connection to Redis, and has lost its lease.
    async fn cut_off(&self) {
        let refresh = self.start_slow_refresh().await;
        Outage::Closed.begin(&self.redis, &self.proxy).await;
        end_lease(&self.redis).await;
        self.answer();
        assert_eq!(refresh.await.unwrap().unwrap(), "refresh-2");
        assert_eq!(self.one.store_errors(), [Save]);
        assert_eq!(self.stored().await.unwrap(), "refresh-1");
    }

    /// The other process uses the token in Redis, and refreshes it after that.
    async fn other_continues(&self, stored: &str, next: &str) {
        for token in [stored, next] {
            self.fleet.end_tokens();
            assert_eq!(secret(&self.other.cache).await, token);
        }
    }

    /// The user signs in again, in a third process.
    async fn sign_in(&self) {
        let place = self.fleet.place(&plain(self.redis.client()));
        self.fleet.sign_in(place).await;
    }

    async fn end(&self, outage: Outage) {
        outage.end(&self.redis, &self.proxy).await;
    }

    /// The session in Redis.
    async fn session(&self) -> Option<Value> {
        let keys = self.redis.keys().await;
        let data = keys.iter().find(|key| !key.ends_with(":lease"))?;
        let value: String = self.redis.ask(&["HGET", data, "v"]).await;
        (!value.is_empty()).then(|| serde_json::from_str(&value).unwrap())
    }

    /// The refresh token in Redis.
    async fn stored(&self) -> Option<String> {
        let session = self.session().await?;
        Some(session["refresh_token"].as_str()?.to_owned())
    }

    /// How often the refresh token was sent, by the count in Redis.
    async fn sends(&self) -> u64 {
        let session = self.session().await.unwrap();
        session["sends"].as_u64().unwrap_or_default()
    }
}

fn plain(client: redis::Client) -> SharedRedis {
    SharedRedis::plain_text(client).timeout(Duration::from_secs(10))
}

async fn unsaved_session_does_not_undo_a_logout() {
    let two = Two::start().await;
    two.cut_off().await;
    two.other.session.logout().await.unwrap();
    two.end(Outage::Closed).await;
    two.fleet.end_tokens();
    let error = two.one.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(two.stored().await, None);
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

async fn unsaved_session_does_not_overwrite_a_new_sign_in() {
    let two = Two::start().await;
    two.cut_off().await;
    two.sign_in().await;
    assert_eq!(two.stored().await.unwrap(), "refresh-3");
    leases_are_free(&two.redis).await;
    let before = two.redis.scripts_run().await;
    two.end(Outage::Closed).await;
    until("the write is tried again", async || {
        two.redis.scripts_run().await > before
    })
    .await;
    assert_eq!(two.stored().await.unwrap(), "refresh-3");
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-3");
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-4");
    assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-3"]);
}

/// The other process sends the old refresh token when the lease has expired, since it cannot know of the
/// new one.
async fn unsaved_session_survives_invalid_grant_for_its_predecessor() {
    let two = Two::start().await;
    two.cut_off().await;
    let refused = Answer::oauth_error("invalid_grant");
    let refresh = two.start_refresh(&two.other, refused).await;
    let error = refresh.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(two.stored().await, None);
    two.end(Outage::Closed).await;
    for token in ["token-2", "token-3"] {
        two.fleet.end_tokens();
        assert_eq!(secret(&two.one.cache).await, token);
    }
    assert_eq!(two.stored().await.unwrap(), "refresh-3");
    let sent = ["refresh-1", "refresh-1", "refresh-2"];
    assert_eq!(two.fleet.refreshes(), sent);
}

/// The lease is lost, and the other process sends the same refresh token and gets no token.
async fn late_response_for_the_stored_refresh_token_is_saved() {
    for failure in [Answer::status(503), Answer::drop_connection()] {
        let two = Two::start().await;
        let refresh = two.start_slow_refresh().await;
        end_lease(&two.redis).await;
        let failed = two.start_refresh(&two.other, failure).await;
        failed.await.unwrap().unwrap_err();
        two.answer();
        assert_eq!(refresh.await.unwrap().unwrap(), "refresh-2");
        // The failed refresh may have left a pause.
        end_leases(&two.redis).await;
        // Any valid token will do: this fetch does not ask for a refresh.
        two.one.session.fetch(TokenRequest::new()).await.unwrap();
        assert_eq!(two.stored().await.unwrap(), "refresh-2");
        two.other_continues("token-2", "token-3").await;
        let sent = ["refresh-1", "refresh-1", "refresh-2"];
        assert_eq!(two.fleet.refreshes(), sent);
    }
}

async fn send_count_write_is_retried() {
    let two = Two::start().await;
    two.fleet.end_tokens();
    // Take the lease, read. The send count is written three times, and each reply is lost: on the old
    // connection, on a new one, and on the next.
    two.proxy.lose_answers([false, false, true, true, true]);
    assert_eq!(secret(&two.one.cache).await, "token-2");
    assert!(two.proxy.has_lost_answers());
    assert_eq!(two.one.store_errors(), []);
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// A refresh token may be sent twice. Outages before it is sent do not count.
async fn send_count_written_without_a_reply_is_reverted() {
    let two = Two::start().await;
    two.fleet.end_tokens();
    two.proxy.hold_after(2);
    let refresh = two.one.spawn();
    until("the write is held", async || two.proxy.is_holding()).await;
    two.proxy.forget_connections();
    two.proxy.release();
    until("the send count is written", async || two.sends().await == 1).await;
    Outage::Closed.begin(&two.redis, &two.proxy).await;
    let error = refresh.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(two.sends().await, 1);
    two.end(Outage::Closed).await;
    until("the send count is reverted", async || {
        two.sends().await == 0
    })
    .await;
    assert_eq!(two.fleet.refreshes(), [""; 0]);
    leases_are_free(&two.redis).await;
    assert_eq!(secret(&two.other.cache).await, "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// The server may have used the refresh token. Another process would get the same answer.
async fn refresh_token_with_a_lost_response_is_not_resent_at_once() {
    let two = Two::start().await;
    // A 503 is an answer: it leaves no pause for the other process.
    let refresh = two.start_refresh(&two.one, Answer::status(503)).await;
    refresh.await.unwrap().unwrap_err();
    let is_released = |holder: Option<(String, u64)>| {
        holder.is_none_or(|(holder, _)| holder.starts_with("failed "))
    };
    until("the lease is released", async || {
        is_released(lease(&two.redis).await)
    })
    .await;
    assert_eq!(lease(&two.redis).await, None);
    let lost = Answer::drop_connection();
    let refresh = two.start_refresh(&two.one, lost).await;
    refresh.await.unwrap().unwrap_err();
    let is_pause = |(holder, left): (String, u64)| holder.starts_with("failed ") && left > 0;
    until("there is a pause", async || {
        lease(&two.redis).await.is_some_and(is_pause)
    })
    .await;
    // Longer than the test waits.
    let keys = two.redis.keys().await;
    let key = keys.iter().find(|key| key.ends_with(":lease")).unwrap();
    let longer: u64 = two.redis.ask(&["PEXPIRE", key, "600000"]).await;
    assert_eq!(longer, 1);
    two.fleet.end_tokens();
    let before = two.redis.scripts_run().await;
    let waiting = two.other.spawn();
    until("the other polls the lease", async || {
        two.redis.scripts_run().await >= before + 4
    })
    .await;
    assert_eq!(two.fleet.refreshes(), ["refresh-1"; 2]);
    end_lease(&two.redis).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"; 3]);
}

/// The caller does not wait for the save and does not have to call again. The process keeps the lease
/// until then: the next holder would send the old refresh token.
async fn unsaved_session_is_saved_in_the_background() {
    for outage in [Outage::Closed, Outage::Full, Outage::Stopped] {
        let short_timeout = |store: SharedRedis| store.timeout(Duration::from_secs(2));
        let two = Two::with(short_timeout).await;
        let refresh = two.start_slow_refresh().await;
        let (holder, _) = lease(&two.redis).await.unwrap();
        outage.begin(&two.redis, &two.proxy).await;
        let before = two.proxy.connections();
        two.answer();
        assert_eq!(refresh.await.unwrap().unwrap(), "refresh-2", "{outage:?}");
        assert_eq!(two.one.store_errors(), [Save], "{outage:?}");
        // Four tries fit in 1.5 s, and some more have started in the background by now.
        let tries = two.proxy.connections() - before;
        assert!(tries <= 8, "{outage:?}: {tries}");
        if !outage.is_silence() {
            assert_eq!(lease(&two.redis).await.unwrap().0, holder, "{outage:?}");
        }
        two.end(outage).await;
        two.other_continues("token-2", "token-3").await;
        assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-2"]);
    }
}

/// The new session is independent, and only this process has its refresh token.
async fn sign_in_does_not_wait_for_a_refresh() {
    let two = Two::start().await;
    let refresh = two.start_slow_refresh().await;
    two.sign_in().await;
    assert_eq!(two.stored().await.unwrap(), "refresh-3");
    two.answer();
    assert_eq!(refresh.await.unwrap().unwrap(), "refresh-2");
    assert_eq!(two.stored().await.unwrap(), "refresh-3");
    two.other_continues("token-3", "token-4").await;
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-4");
    assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-3"]);
    // Nor for a holder that has died, or for a pause after a failure.
    leases_are_free(&two.redis).await;
    let key = format!("{}:lease", two.redis.keys().await[0]);
    for (holder, next) in [("dead process", "refresh-5"), ("failed once", "refresh-6")] {
        let set = ["SET", &key, holder, "PX", "600000"];
        two.redis.ask::<()>(&set).await;
        two.sign_in().await;
        assert_eq!(two.stored().await.unwrap(), next);
        leases_are_free(&two.redis).await;
    }
}

/// A process that finds a refresh token marked as sent waits for the sender to save the response.
async fn unreachable_process_has_time_to_save_after_its_lease() {
    let two = Two::start().await;
    two.cut_off().await;
    two.end(Outage::Closed).await;
    two.fleet.end_tokens();
    assert_eq!(secret(&two.other.cache).await, "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// A session that could not be saved at sign-in serves in its process until a newer one is in Redis.
async fn sign_in_during_an_outage_yields_to_a_later_sign_in() {
    let two = Two::start().await;
    let place = two.fleet.place(&plain(two.proxy.client()));
    #[allow(
        clippy::disallowed_methods,
        reason = "sessions say when they began by the system's clock"
    )]
    let began = SystemTime::now();
    Outage::Closed.begin(&two.redis, &two.proxy).await;
    let first = two.fleet.sign_in(place.clone()).await;
    assert_eq!(first.store_errors(), [Lock]);
    assert_eq!(secret(&first.cache).await, "token-2");
    // The older session in Redis does not replace it.
    let second = two.fleet.sign_in(place).await;
    two.end(Outage::Closed).await;
    for token in ["token-3", "token-4"] {
        assert_eq!(secret(&second.cache).await, token);
        two.fleet.end_tokens();
    }
    assert_eq!(two.fleet.refreshes(), ["refresh-3"]);
    leases_are_free(&two.redis).await;
    // Sessions record when they began in whole seconds.
    until("the next sign-in is later", async || {
        began.elapsed().unwrap() > Duration::from_secs(2)
    })
    .await;
    two.sign_in().await;
    two.fleet.end_tokens();
    assert_eq!(secret(&first.cache).await, "token-5");
    assert_eq!(two.stored().await.unwrap(), "refresh-5");
}

/// A store whose lease is taken over before the sign-in is saved, by a newer sign-in.
#[derive(Clone)]
struct Overtaken(RedisStore, StoredSession);

struct OvertakenLocked(Locked, Overtaken);

impl TokenStore for Overtaken {
    type Locked = OvertakenLocked;

    async fn lock(&self) -> Result<OvertakenLocked, BoxError> {
        Ok(OvertakenLocked(self.0.lock().await?, self.clone()))
    }
}

impl LockedSession for OvertakenLocked {
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        self.0.load().await
    }

    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let Overtaken(place, newer) = &self.1;
        place.take_over().await?.save(Some(newer)).await?;
        self.0.save(session).await
    }
}

async fn overtaken_sign_in_adopts_the_newer_session() {
    let two = Two::start().await;
    let newer = another_session(&two.fleet).await;
    let place = two.fleet.place(&plain(two.redis.client()));
    let overtaken = two.fleet.sign_in(Overtaken(place, newer)).await;
    assert_eq!(overtaken.store_errors(), [Save]);
    assert_eq!(secret(&overtaken.cache).await, "token-2");
    assert_eq!(two.stored().await.unwrap(), "refresh-2");
    assert_eq!(two.fleet.refreshes(), [""; 0]);
}
