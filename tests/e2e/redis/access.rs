//! Access tokens are shared.

use std::time::Duration;

use bearer_auth::{
    AccessToken, ErrorKind, TokenCache, TokenRequest, TokenSource as _,
    redis::{SharedRedis, SharedSource, TokenKey},
    testing::{Answer, ManualClock, MockIdp},
};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::{
    Redis, end_lease, lease, leases_are_free, patient, process, secret, shared, source, store,
    told_process,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
    support::tokens::Idp,
};

tests! {
    needs: [Redis];
    eight_that_start_together_make_one_token_request,
    who_comes_later_takes_what_is_there,
    who_comes_later_takes_its_age_as_well,
    other_scopes_are_another_token,
    a_token_that_the_api_refused_is_replaced_once_for_all,
    a_renewal_is_one_for_all,
    a_failure_of_the_server_is_everybody_s,
    who_asks_by_hand_asks_although_another_has_failed,
    what_is_wrong_with_one_is_not_everybody_s,
    who_has_an_older_token_takes_the_newer_one,
    a_token_in_hand_asks_nobody,
    a_lease_is_prolonged_for_as_long_as_the_server_takes,
    what_is_shared_is_shared_for_all_of_its_life,
    who_is_late_replaces_nothing_newer_and_gives_back_nobody_else_s_lease,
    nobody_prolongs_what_is_not_theirs,
    a_clock_of_redis_that_is_behind_stops_nobody,
    who_looked_too_early_looks_again,
    who_goes_gives_the_lease_back,
    who_waits_asks_now_and_then,
    a_server_that_stumbles_once_fails_nobody,
    a_refused_token_is_replaced_once_by_one_that_ends_sooner,
}

async fn eight_that_start_together_make_one_token_request() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let tokens = fleet.iter().map(secret);
    let (tokens, ()) = futures_util::future::join(join_all(tokens), async {
        idp.token_requests_reach(1).await;
        // All others have looked and asked for the lease, and some of them more than once.
        until("all wait", async || redis.scripts_run().await >= 16 + 8).await;
        hold.release();
    })
    .await;
    assert_eq!(idp.token_requests(), 1);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

async fn who_comes_later_takes_what_is_there() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let first = process(&idp, store(&redis)).token().await.unwrap();
    // Half an hour later, as far as Redis is concerned.
    let data = redis.keys().await.remove(0);
    redis.ask::<u64>(&["PEXPIRE", &data, "1800000"]).await;
    let second = process(&idp, store(&redis)).token().await.unwrap();
    assert_eq!(second.expose_secret(), first.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    // With what is left of its life, and not with all of it.
    let sooner = sooner(&second, &first).as_secs();
    assert!((1700..=1800).contains(&sooner), "{sooner}");
    // What is all but over is nobody's.
    redis.ask::<u64>(&["PEXPIRE", &data, "60000"]).await;
    let third = process(&idp, store(&redis)).token().await.unwrap();
    assert_ne!(third.expose_secret(), first.expose_secret());
}

fn sooner(one: &AccessToken, other: &AccessToken) -> Duration {
    let ends = [one, other].map(|token| token.expires_at().unwrap());
    ends[1].duration_since(ends[0]).unwrap()
}

/// Of a token that says nothing of its end, and has one by what each process is told.
async fn who_comes_later_takes_its_age_as_well() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.set_expires_in(None);
    let told = |hours: u64| {
        let shared = shared(&idp, store(&redis));
        let cache = TokenCache::builder(shared);
        cache
            .default_lifetime(Duration::from_secs(hours * 3600))
            .build()
    };
    let first = told(1).token().await.unwrap();
    let data = redis.keys().await.remove(0);
    let left: u64 = redis.ask(&["PTTL", &data]).await;
    // Half an hour later, as far as Redis is concerned.
    let later = (left - 1_800_000).to_string();
    redis.ask::<u64>(&["PEXPIRE", &data, &later]).await;
    let second = told(1).token().await.unwrap();
    assert_eq!(second.expose_secret(), first.expose_secret());
    let sooner = sooner(&second, &first).as_secs();
    assert!((1700..=1800).contains(&sooner), "{sooner}");
    // An hour and a half later, it is over for some.
    let later = (left - 5_400_000).to_string();
    redis.ask::<u64>(&["PEXPIRE", &data, &later]).await;
    let patient = told(2).token().await.unwrap();
    assert_eq!(patient.expose_secret(), first.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    let third = told(1);
    // Who has waited for it gets it, as whatever comes: nobody knows better than the API.
    assert_eq!(secret(&third).await, first.expose_secret());
    assert_ne!(secret(&third).await, first.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

async fn other_scopes_are_another_token() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let one = secret(&process(&idp, store(&redis))).await;
    let source = source(&idp);
    let key = source.token_key().subject("another");
    let shared = bearer_auth::redis::SharedSource::new(source, store(&redis), key);
    assert_ne!(secret(&TokenCache::new(shared)).await, one);
    assert_eq!(redis.keys().await.len(), 2);
}

async fn a_token_that_the_api_refused_is_replaced_once_for_all() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let old = join_all(fleet.iter().map(TokenCache::token)).await;
    let old: Vec<_> = old.into_iter().map(Result::unwrap).collect();
    assert_eq!(idp.token_requests(), 1);
    // Each gets its 401.
    let new = fleet.iter().zip(&old).map(|(process, old)| async move {
        process.reject(old);
        process.refresh().await.unwrap().expose_secret().to_owned()
    });
    let new = join_all(new).await;
    assert!(new.iter().all(|token| *token == new[0]), "{new:?}");
    assert_ne!(new[0], old[0].expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

async fn a_renewal_is_one_for_all() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let old = join_all(fleet.iter().map(secret)).await;
    let new = join_all(fleet.iter().map(TokenCache::refresh)).await;
    let new: Vec<_> = new.into_iter().map(Result::unwrap).collect();
    for token in &new {
        assert_eq!(token.expose_secret(), new[0].expose_secret());
        assert_ne!(token.expose_secret(), old[0]);
    }
    assert_eq!(idp.token_requests(), 2);
}

/// A server in trouble is not asked by all in turn.
async fn a_failure_of_the_server_is_everybody_s() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.always(Answer::unavailable(30));
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let errors = join_all(fleet.iter().map(TokenCache::token)).await;
    let kinds: Vec<_> = errors
        .iter()
        .map(|e| e.as_ref().unwrap_err().kind())
        .collect();
    assert_eq!(
        kinds.iter().filter(|k| **k == ErrorKind::Status).count(),
        1,
        "{kinds:?}"
    );
    assert_eq!(
        kinds.iter().filter(|k| **k == ErrorKind::Source).count(),
        7,
        "{kinds:?}"
    );
    for error in errors {
        let wait = error.unwrap_err().retry_after().unwrap();
        assert!(wait > Duration::from_secs(20), "{wait:?}");
    }
    assert_eq!(idp.token_requests(), 1);
}

/// Whoever has mended something, and wants to know, does not wait for that; and what comes is for all.
async fn who_asks_by_hand_asks_although_another_has_failed() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let [one, other, third] = [(); 3].map(|()| told_process(&idp, store(&redis)));
    let old = secret(&one.0).await;
    for (process, _) in [&other, &third] {
        assert_eq!(secret(process).await, old);
    }
    leases_are_free(&redis).await;
    idp.then(Answer::unavailable(30));
    one.0.refresh().await.unwrap_err();
    let (mark, _) = lease(&redis).await.unwrap();
    assert!(mark.starts_with("failed "), "{mark}");
    let hold = idp.hold();
    let before = redis.scripts_run().await;
    let by_hand = [&other.0, &third.0].map(|process| {
        let process = process.clone();
        tokio::spawn(async move { process.refresh().await.unwrap() })
    });
    idp.token_requests_reach(3).await;
    until("one waits", async || {
        redis.scripts_run().await >= before + 12
    })
    .await;
    hold.release();
    for task in by_hand {
        let new = task.await.unwrap();
        assert_ne!(new.expose_secret(), old);
        let late = process(&idp, store(&redis));
        assert_eq!(secret(&late).await, new.expose_secret());
    }
    assert_eq!(idp.token_requests(), 3);
    for (_, told) in [one, other, third] {
        assert_eq!(*told.lock().unwrap(), []);
    }
    leases_are_free(&redis).await;
}

/// … but a process whose own secret is wrong stops nobody.
async fn what_is_wrong_with_one_is_not_everybody_s() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::oauth_error("invalid_client"));
    let (one, other) = (process(&idp, store(&redis)), process(&idp, store(&redis)));
    one.token().await.unwrap_err();
    secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
}

async fn who_has_an_older_token_takes_the_newer_one() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let [one, other, third] = [(); 3].map(|()| process(&idp, store(&redis)));
    let old = one.token().await.unwrap();
    for process in [&other, &third] {
        assert_eq!(secret(process).await, old.expose_secret());
    }
    let new = one.refresh().await.unwrap();
    // After a 401, and when it is due.
    other.reject(&old);
    assert_eq!(secret(&other).await, new.expose_secret());
    let renewed = third.refresh().await.unwrap();
    assert_eq!(renewed.expose_secret(), new.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

/// Redis is asked when a token is due, and not by requests.
async fn a_token_in_hand_asks_nobody() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let process = process(&idp, store(&redis));
    secret(&process).await;
    // To look, to take, to write, to give back.
    until("it is given back", async || redis.scripts_run().await == 4).await;
    for _ in 0..1000 {
        secret(&process).await;
    }
    assert_eq!(redis.scripts_run().await, 4);
}

/// One process of a fleet of them, that is asking.
struct Asking {
    idp: Idp,
    task: JoinHandle<String>,
}

impl Asking {
    fn start(name: &'static str, store: SharedRedis) -> Self {
        let idp = Idp::new(&ManualClock::new());
        idp.prefix(name);
        idp.hold();
        let shared = SharedSource::new(idp.clone(), store, TokenKey::named("gated"));
        let cache = TokenCache::new(shared);
        let task = tokio::spawn(async move { secret(&cache).await });
        Self { idp, task }
    }

    async fn asks(&self) {
        until("it asks the server", async || self.idp.fetches() == 1).await;
    }

    async fn ends(self) -> String {
        self.idp.release();
        self.task.await.unwrap()
    }
}

async fn a_lease_is_prolonged_for_as_long_as_the_server_takes() {
    let redis = Redis::start().await;
    // A machine that stands still for longer than a lease lasts loses it.
    for _ in 0..5 {
        redis.ask::<()>(&["FLUSHALL"]).await;
        if is_prolonged(&redis).await {
            return;
        }
    }
    panic!("the lease runs out, time and again");
}

async fn is_prolonged(redis: &Redis) -> bool {
    let store = || store(redis).lease(Duration::from_secs(3));
    let one = Asking::start("one", store());
    one.asks().await;
    let Some((owner, mut left)) = lease(redis).await else {
        return false;
    };
    let other = Asking::start("other", store());
    let (mut prolonged, mut is_lost) = (0, false);
    // Each time to all of it, when a third is over, and not once only.
    until("it is prolonged", async || {
        match lease(redis).await {
            Some((now, is_left)) if now == owner => {
                assert!(is_left <= 3000);
                prolonged += usize::from(is_left > left);
                left = is_left;
            }
            _ => is_lost = true,
        }
        is_lost || prolonged == 2
    })
    .await;
    if is_lost {
        return false;
    }
    assert_eq!(one.ends().await, "one-1");
    // The other may have had it by now, if that took long.
    let asked = other.idp.fetches();
    other.idp.release();
    asked == 0 && other.task.await.unwrap() == "one-1"
}

/// Until the token ends, however long the server took.
async fn what_is_shared_is_shared_for_all_of_its_life() {
    let redis = Redis::start().await;
    let before = redis.time().await;
    let one = Asking::start("one", store(&redis));
    one.asks().await;
    let slow = before + Duration::from_secs(1);
    until("the server is slow", async || redis.time().await > slow).await;
    assert_eq!(one.ends().await, "one-1");
    let data = redis.keys().await.remove(0);
    let end: u64 = redis.ask(&["PEXPIRETIME", &data]).await;
    let lived = Duration::from_millis(end) - before;
    // Our clocks are coarse.
    assert!(lived > Duration::from_millis(3_599_900), "{lived:?}");
}

async fn who_is_late_replaces_nothing_newer_and_gives_back_nobody_else_s_lease() {
    let redis = Redis::start().await;
    let late = Asking::start("late", store(&redis));
    late.asks().await;
    let (owner, _) = lease(&redis).await.unwrap();
    end_lease(&redis).await;
    let newer = Asking::start("newer", store(&redis));
    newer.asks().await;
    let (new_owner, _) = lease(&redis).await.unwrap();
    assert_ne!(owner, new_owner);
    // Nobody has written, so that this one is the newest so far.
    assert_eq!(late.ends().await, "late-1");
    assert_eq!(lease(&redis).await.unwrap().0, new_owner);
    assert_eq!(newer.ends().await, "newer-1");
    let third = Asking::start("third", store(&redis));
    assert_eq!(third.task.await.unwrap(), "newer-1");

    // The other way round, with the key gone in between as well.
    for is_lost in [false, true] {
        redis.ask::<()>(&["FLUSHALL"]).await;
        let late = Asking::start("late", store(&redis));
        late.asks().await;
        end_lease(&redis).await;
        if is_lost {
            redis.ask::<()>(&["FLUSHALL"]).await;
        }
        let newer = Asking::start("newer", store(&redis));
        newer.asks().await;
        assert_eq!(newer.ends().await, "newer-1");
        assert_eq!(late.ends().await, "late-1");
        let third = Asking::start("third", store(&redis));
        assert_eq!(third.task.await.unwrap(), "newer-1", "{is_lost}");
    }
}

/// Of another, who has died.
async fn nobody_prolongs_what_is_not_theirs() {
    let redis = Redis::start().await;
    let one = Asking::start("one", store(&redis).lease(Duration::from_secs(1)));
    one.asks().await;
    let keys = redis.keys().await;
    let taken = ["SET", &keys[0], "somebody dead", "PX", "3000"];
    redis.ask::<()>(&taken).await;
    until("it runs out", async || lease(&redis).await.is_none()).await;
    assert_eq!(one.ends().await, "one-1");
}

/// As on another machine, after a failover.
async fn a_clock_of_redis_that_is_behind_stops_nobody() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let one = process(&idp, store(&redis));
    secret(&one).await;
    let data = redis.keys().await.remove(0);
    for _ in 0..3 {
        // In the year 2100.
        let set = ["HSET", &data, "g", "4102444800000000"];
        redis.ask::<u64>(&set).await;
        let token = one.refresh().await.unwrap();
        let late = process(&idp, store(&redis));
        assert_eq!(secret(&late).await, token.expose_secret());
    }
}

/// The other was done between the look and the question for the lease.
async fn who_looked_too_early_looks_again() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let (one, other) = (
        process(&idp, store(&redis)),
        process(&idp, patient(proxy.client())),
    );
    secret(&one).await;
    secret(&other).await;
    proxy.hold_after(1);
    let early = tokio::spawn(async move { other.refresh().await.unwrap() });
    until("it has looked", async || proxy.holds()).await;
    let new = one.refresh().await.unwrap();
    leases_are_free(&redis).await;
    proxy.let_on();
    assert_eq!(early.await.unwrap().expose_secret(), new.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

/// A fetch that is dropped.
async fn who_goes_gives_the_lease_back() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let source = source(&idp);
    let key = source.token_key();
    // Longer than a test waits for its end.
    let store = store(&redis).lease(Duration::from_secs(60));
    let shared = SharedSource::new(source, store, key);
    let fetch = tokio::spawn(async move { shared.fetch(TokenRequest::new()).await });
    idp.token_requests_reach(1).await;
    assert!(lease(&redis).await.is_some());
    fetch.abort();
    assert!(fetch.await.is_err());
    leases_are_free(&redis).await;
    drop(hold);
}

/// Of somebody who has died, without having asked.
async fn who_waits_asks_now_and_then() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let process = process(&idp, store(&redis));
    let old = secret(&process).await;
    leases_are_free(&redis).await;
    let lease = format!("{}:lease", redis.keys().await[0]);
    let set = ["SET", &lease, "somebody dead", "PX", "1500"];
    redis.ask::<()>(&set).await;
    let before = redis.scripts_run().await;
    let new = process.refresh().await.unwrap();
    assert_ne!(new.expose_secret(), old);
    // It looks, asks for the lease, writes, and gives it back; and asks once after each pause. Those of a
    // second and a half are 20, 40, 80 … 500 ms, or half of that, which are eleven. Two scripts each
    // time would be 17 at least.
    let scripts = redis.scripts_run().await - before;
    assert!(scripts <= 4 + 12, "{scripts}");
}

/// As without sharing: a flight that is awaited asks again at once where that may help.
async fn a_server_that_stumbles_once_fails_nobody() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::status(503));
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let tokens = join_all(fleet.iter().map(secret)).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert_eq!(idp.token_requests(), 2);
}

/// The refused one had longer to live: that says nothing for it.
async fn a_refused_token_is_replaced_once_by_one_that_ends_sooner() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let old = join_all(fleet.iter().map(TokenCache::token)).await;
    idp.set_lifetime(Duration::from_secs(600));
    let mut new = Vec::new();
    for (process, old) in fleet.iter().zip(old) {
        process.reject(&old.unwrap());
        new.push(secret(process).await);
    }
    assert_eq!(idp.token_requests(), 2);
    assert!(new.iter().all(|token| *token == new[0]), "{new:?}");
}
