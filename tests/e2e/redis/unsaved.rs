//! What came for a refresh token, and is not in Redis yet: one process alone has it. And what was
//! written for a refresh token that was not sent.

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
    what_is_not_written_yet_undoes_no_logout,
    nor_does_it_replace_who_has_signed_in_anew,
    it_outlives_that_its_predecessor_is_refused,
    what_comes_late_for_what_is_still_there_counts,
    that_it_is_about_to_be_sent_is_tried_again,
    what_was_written_unheard_and_not_sent_is_taken_back,
    what_was_sent_in_vain_is_not_sent_by_another_at_once,
    what_redis_did_not_take_gets_there_by_itself,
    who_signs_in_waits_for_no_exchange,
    who_was_out_of_reach_for_longer_than_a_lease_is_waited_for,
    who_signs_in_without_redis_has_a_token_and_replaces_nobody_who_came_later,
    a_sign_in_that_was_overtaken_is_over,
}

/// Two processes with one session, and the way of the first one to Redis.
struct Two {
    redis: Redis,
    proxy: Proxy,
    fleet: Fleet,
    one: Process,
    other: Process,
}

/// What it comes to, if it goes well, is the refresh token that came.
type Exchange = JoinHandle<Result<String, Error>>;

impl Two {
    async fn start() -> Self {
        Self::with(|store| store).await
    }

    /// With a store of the first one's own.
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

    /// A process sends its refresh token, and `answer` is what becomes of that.
    async fn exchanges(&self, process: &Process, answer: Answer) -> Exchange {
        let mut request = TokenRequest::new();
        request.previous = Some(process.cache.token().await.unwrap());
        self.fleet.idp.then(answer);
        let sent = self.fleet.idp.token_requests() + 1;
        let session = process.session.clone();
        let exchange = tokio::spawn(async move {
            let response = session.fetch(request).await?;
            let next = response.refresh_token().unwrap();
            Ok(next.expose_secret().to_owned())
        });
        self.fleet.idp.token_requests_reach(sent).await;
        exchange
    }

    /// One whose answer comes when the clock is [advanced](Self::answer).
    async fn exchanges_slowly(&self) -> Exchange {
        let late = Answer::ok().delay(MINUTE);
        self.exchanges(&self.one, late).await
    }

    fn answer(&self) {
        self.fleet.clock.advance(MINUTE);
    }

    /// The first one has `refresh-2`, is cut off from Redis, and has lost its lease.
    async fn cut_off(&self) {
        let exchange = self.exchanges_slowly().await;
        Outage::Closed.begin(&self.redis, &self.proxy).await;
        end_lease(&self.redis).await;
        self.answer();
        assert_eq!(exchange.await.unwrap().unwrap(), "refresh-2");
        assert_eq!(self.one.told(), [Save]);
        assert_eq!(self.there().await.unwrap(), "refresh-1");
    }

    /// The other one takes what is in Redis, and has its successor after that.
    async fn goes_on(&self, there: &str, next: &str) {
        for token in [there, next] {
            self.fleet.end_tokens();
            assert_eq!(secret(&self.other.cache).await, token);
        }
    }

    /// Somebody signs in, in a third process.
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
    async fn there(&self) -> Option<String> {
        let session = self.session().await?;
        Some(session["refresh_token"].as_str()?.to_owned())
    }

    /// How often it was sent, by what is in Redis.
    async fn sends(&self) -> u64 {
        let session = self.session().await.unwrap();
        session["sends"].as_u64().unwrap_or_default()
    }
}

fn plain(client: redis::Client) -> SharedRedis {
    SharedRedis::plain_text(client).timeout(Duration::from_secs(10))
}

async fn what_is_not_written_yet_undoes_no_logout() {
    let two = Two::start().await;
    two.cut_off().await;
    two.other.session.logout().await.unwrap();
    two.end(Outage::Closed).await;
    two.fleet.end_tokens();
    let error = two.one.cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(two.there().await, None);
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

async fn nor_does_it_replace_who_has_signed_in_anew() {
    let two = Two::start().await;
    two.cut_off().await;
    two.sign_in().await;
    assert_eq!(two.there().await.unwrap(), "refresh-3");
    leases_are_free(&two.redis).await;
    let before = two.redis.scripts_run().await;
    two.end(Outage::Closed).await;
    until("it is tried", async || {
        two.redis.scripts_run().await > before
    })
    .await;
    assert_eq!(two.there().await.unwrap(), "refresh-3");
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-3");
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-4");
    assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-3"]);
}

/// Which another one has sent, when the lease had run out: it could know no better.
async fn it_outlives_that_its_predecessor_is_refused() {
    let two = Two::start().await;
    two.cut_off().await;
    let refused = Answer::oauth_error("invalid_grant");
    let exchange = two.exchanges(&two.other, refused).await;
    let error = exchange.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    assert_eq!(two.there().await, None);
    two.end(Outage::Closed).await;
    for token in ["token-2", "token-3"] {
        two.fleet.end_tokens();
        assert_eq!(secret(&two.one.cache).await, token);
    }
    assert_eq!(two.there().await.unwrap(), "refresh-3");
    let sent = ["refresh-1", "refresh-1", "refresh-2"];
    assert_eq!(two.fleet.refreshes(), sent);
}

/// Another one has sent it as well, when the lease was lost, and got nothing.
async fn what_comes_late_for_what_is_still_there_counts() {
    for nothing in [Answer::status(503), Answer::drop_connection()] {
        let two = Two::start().await;
        let exchange = two.exchanges_slowly().await;
        end_lease(&two.redis).await;
        let in_vain = two.exchanges(&two.other, nothing).await;
        in_vain.await.unwrap().unwrap_err();
        two.answer();
        assert_eq!(exchange.await.unwrap().unwrap(), "refresh-2");
        // Whoever got nothing may have made a pause.
        end_leases(&two.redis).await;
        // It asks for nothing but what there is.
        two.one.session.fetch(TokenRequest::new()).await.unwrap();
        assert_eq!(two.there().await.unwrap(), "refresh-2");
        two.goes_on("token-2", "token-3").await;
        let sent = ["refresh-1", "refresh-1", "refresh-2"];
        assert_eq!(two.fleet.refreshes(), sent);
    }
}

async fn that_it_is_about_to_be_sent_is_tried_again() {
    let two = Two::start().await;
    two.fleet.end_tokens();
    // It takes the lease, and reads. What it writes is written, and nobody hears of it: on the
    // connection that was there, on a new one, and on the next.
    two.proxy.lose_answers([false, false, true, true, true]);
    assert_eq!(secret(&two.one.cache).await, "token-2");
    assert!(two.proxy.has_lost_them());
    assert_eq!(two.one.told(), []);
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// A refresh token may be sent twice, and has not been: however many outages there are, they do not add
/// up to that.
async fn what_was_written_unheard_and_not_sent_is_taken_back() {
    let two = Two::start().await;
    two.fleet.end_tokens();
    two.proxy.hold_after(2);
    let asks = two.one.spawn();
    until("it writes", async || two.proxy.holds()).await;
    two.proxy.forget_connections();
    two.proxy.let_on();
    until("it is written", async || two.sends().await == 1).await;
    Outage::Closed.begin(&two.redis, &two.proxy).await;
    let error = asks.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(two.sends().await, 1);
    two.end(Outage::Closed).await;
    until("it is taken back", async || two.sends().await == 0).await;
    assert_eq!(two.fleet.refreshes(), [""; 0]);
    leases_are_free(&two.redis).await;
    assert_eq!(secret(&two.other.cache).await, "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// It may be used by now. What the server has to say of that is the same for all.
async fn what_was_sent_in_vain_is_not_sent_by_another_at_once() {
    let two = Two::start().await;
    // An answer is none.
    let exchange = two.exchanges(&two.one, Answer::status(503)).await;
    exchange.await.unwrap().unwrap_err();
    let is_over = |holder: Option<(String, u64)>| {
        holder.is_none_or(|(holder, _)| holder.starts_with("failed "))
    };
    until("it is over", async || is_over(lease(&two.redis).await)).await;
    assert_eq!(lease(&two.redis).await, None);
    let lost = Answer::drop_connection();
    let exchange = two.exchanges(&two.one, lost).await;
    exchange.await.unwrap().unwrap_err();
    let is_pause = |(holder, left): (String, u64)| holder.starts_with("failed ") && left > 0;
    until("there is a pause", async || {
        lease(&two.redis).await.is_some_and(is_pause)
    })
    .await;
    // Longer than a test takes.
    let keys = two.redis.keys().await;
    let key = keys.iter().find(|key| key.ends_with(":lease")).unwrap();
    let longer: u64 = two.redis.ask(&["PEXPIRE", key, "600000"]).await;
    assert_eq!(longer, 1);
    two.fleet.end_tokens();
    let before = two.redis.scripts_run().await;
    let waits = two.other.spawn();
    until("it asks now and then", async || {
        two.redis.scripts_run().await >= before + 4
    })
    .await;
    assert_eq!(two.fleet.refreshes(), ["refresh-1"; 2]);
    end_lease(&two.redis).await;
    assert_eq!(waits.await.unwrap().unwrap(), "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"; 3]);
}

/// Neither does who asked wait for that, nor need they ask again. The lease is kept for as long: whoever
/// gets it before would send the old one.
async fn what_redis_did_not_take_gets_there_by_itself() {
    for outage in [Outage::Closed, Outage::Full, Outage::Stopped] {
        let hasty = |store: SharedRedis| store.timeout(Duration::from_secs(2));
        let two = Two::with(hasty).await;
        let exchange = two.exchanges_slowly().await;
        let (holder, _) = lease(&two.redis).await.unwrap();
        outage.begin(&two.redis, &two.proxy).await;
        let before = two.proxy.connections();
        two.answer();
        assert_eq!(exchange.await.unwrap().unwrap(), "refresh-2", "{outage:?}");
        assert_eq!(two.one.told(), [Save], "{outage:?}");
        // Four tries are in a second and a half, and some are in the background by now.
        let tries = two.proxy.connections() - before;
        assert!(tries <= 8, "{outage:?}: {tries}");
        if !outage.is_silence() {
            assert_eq!(lease(&two.redis).await.unwrap().0, holder, "{outage:?}");
        }
        two.end(outage).await;
        two.goes_on("token-2", "token-3").await;
        assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-2"]);
    }
}

/// Their session is another, and nobody has its refresh token but they.
async fn who_signs_in_waits_for_no_exchange() {
    let two = Two::start().await;
    let exchange = two.exchanges_slowly().await;
    two.sign_in().await;
    assert_eq!(two.there().await.unwrap(), "refresh-3");
    two.answer();
    assert_eq!(exchange.await.unwrap().unwrap(), "refresh-2");
    assert_eq!(two.there().await.unwrap(), "refresh-3");
    two.goes_on("token-3", "token-4").await;
    two.fleet.end_tokens();
    assert_eq!(secret(&two.one.cache).await, "token-4");
    assert_eq!(two.fleet.refreshes(), ["refresh-1", "refresh-3"]);
    // Nor for one that has died, or a pause.
    leases_are_free(&two.redis).await;
    let key = format!("{}:lease", two.redis.keys().await[0]);
    for (holder, next) in [("somebody dead", "refresh-5"), ("failed once", "refresh-6")] {
        let set = ["SET", &key, holder, "PX", "600000"];
        two.redis.ask::<()>(&set).await;
        two.sign_in().await;
        assert_eq!(two.there().await.unwrap(), next);
        leases_are_free(&two.redis).await;
    }
}

/// Whoever finds that it was sent gives that one some time.
async fn who_was_out_of_reach_for_longer_than_a_lease_is_waited_for() {
    let two = Two::start().await;
    two.cut_off().await;
    two.end(Outage::Closed).await;
    two.fleet.end_tokens();
    assert_eq!(secret(&two.other.cache).await, "token-2");
    assert_eq!(two.fleet.refreshes(), ["refresh-1"]);
}

/// What came of a sign-in that met Redis down: it serves where it is, and gives way to what is newer.
async fn who_signs_in_without_redis_has_a_token_and_replaces_nobody_who_came_later() {
    let two = Two::start().await;
    let place = two.fleet.place(&plain(two.proxy.client()));
    #[allow(
        clippy::disallowed_methods,
        reason = "sessions say when they began by the system's clock"
    )]
    let began = SystemTime::now();
    Outage::Closed.begin(&two.redis, &two.proxy).await;
    let first = two.fleet.sign_in(place.clone()).await;
    assert_eq!(first.told(), [Lock]);
    assert_eq!(secret(&first.cache).await, "token-2");
    // Nothing that is older comes in between.
    let second = two.fleet.sign_in(place).await;
    two.end(Outage::Closed).await;
    for token in ["token-3", "token-4"] {
        assert_eq!(secret(&second.cache).await, token);
        two.fleet.end_tokens();
    }
    assert_eq!(two.fleet.refreshes(), ["refresh-3"]);
    leases_are_free(&two.redis).await;
    // To the second.
    until("a second later", async || {
        began.elapsed().unwrap() > Duration::from_secs(2)
    })
    .await;
    two.sign_in().await;
    two.fleet.end_tokens();
    assert_eq!(secret(&first.cache).await, "token-5");
    assert_eq!(two.there().await.unwrap(), "refresh-5");
}

/// Takes the lease from whoever has just got it to sign in.
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

async fn a_sign_in_that_was_overtaken_is_over() {
    let two = Two::start().await;
    let newer = another_session(&two.fleet).await;
    let place = two.fleet.place(&plain(two.redis.client()));
    let overtaken = two.fleet.sign_in(Overtaken(place, newer)).await;
    assert_eq!(overtaken.told(), [Save]);
    assert_eq!(secret(&overtaken.cache).await, "token-2");
    assert_eq!(two.there().await.unwrap(), "refresh-2");
    assert_eq!(two.fleet.refreshes(), [""; 0]);
}
