//! Processes share access tokens.

use std::time::Duration;

use bearer_auth::{
    AccessToken, ErrorKind, TokenCache, TokenRequest, TokenSource as _,
    redis::{SharedRedis, SharedSource, TokenKey},
    testing::{Answer, ManualClock, MockIdp},
};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::{
    Redis, end_lease, lease, leases_are_free, patient, process, reporting_process, secret, shared,
    source, store,
};
use crate::{
    harness::tests,
    programs::redis::{proxy::Proxy, until},
    support::tokens::Idp,
};

tests! {
    needs: [Redis];
    eight_caches_starting_together_make_one_token_request,
    later_process_uses_the_shared_token,
    shared_token_without_expiry_keeps_its_age,
    another_token_key_is_another_token,
    rejected_token_is_replaced_by_one_request_for_all_processes,
    simultaneous_refreshes_make_one_token_request,
    server_failure_is_shared_by_all_processes,
    explicit_refresh_ignores_the_pause_after_a_shared_failure,
    wrong_secret_of_one_process_does_not_stop_the_others,
    process_with_an_older_token_adopts_the_newer_shared_one,
    cached_token_needs_no_redis_command,
    lease_is_extended_until_the_server_answers,
    shared_token_stays_in_redis_until_it_expires,
    late_holder_neither_overwrites_newer_token_nor_releases_foreign_lease,
    foreign_lease_is_not_extended,
    redis_clock_set_back_does_not_block_new_tokens,
    token_written_between_read_and_lock_is_used,
    dropped_fetch_releases_the_lease,
    waiting_process_polls_the_lease_with_backoff,
    single_503_is_retried_and_every_process_gets_a_token,
    rejected_token_is_replaced_once_by_one_that_expires_sooner,
}

async fn eight_caches_starting_together_make_one_token_request() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let tokens = fleet.iter().map(secret);
    let (tokens, ()) = futures_util::future::join(join_all(tokens), async {
        idp.token_requests_reach(1).await;
        // All others have read the token and asked for the lease, some of them more than once.
        until("all wait", async || redis.scripts_run().await >= 16 + 8).await;
        hold.release();
    })
    .await;
    assert_eq!(idp.token_requests(), 1);
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

async fn later_process_uses_the_shared_token() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let first = process(&idp, store(&redis)).token().await.unwrap();
    // Half an hour later, as far as Redis is concerned.
    let data = redis.keys().await.remove(0);
    redis.ask::<u64>(&["PEXPIRE", &data, "1800000"]).await;
    let second = process(&idp, store(&redis)).token().await.unwrap();
    assert_eq!(second.expose_secret(), first.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    // The second process gets the remaining lifetime, not the full one.
    let sooner = sooner(&second, &first).as_secs();
    assert!((1700..=1800).contains(&sooner), "{sooner}");
    // A token that is about to expire is not shared.
    redis.ask::<u64>(&["PEXPIRE", &data, "60000"]).await;
    let third = process(&idp, store(&redis)).token().await.unwrap();
    assert_ne!(third.expose_secret(), first.expose_secret());
}

fn sooner(one: &AccessToken, other: &AccessToken) -> Duration {
    let ends = [one, other].map(|token| token.expires_at().unwrap());
    ends[1].duration_since(ends[0]).unwrap()
}

/// The server sends no `expires_in`; the default lifetime of each process decides when the token expires.
async fn shared_token_without_expiry_keeps_its_age() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.set_expires_in(None);
    let with_default_lifetime = |hours: u64| {
        let shared = shared(&idp, store(&redis));
        let cache = TokenCache::builder(shared);
        cache
            .default_lifetime(Duration::from_secs(hours * 3600))
            .build()
    };
    let first = with_default_lifetime(1).token().await.unwrap();
    let data = redis.keys().await.remove(0);
    let left: u64 = redis.ask(&["PTTL", &data]).await;
    // Half an hour later, as far as Redis is concerned.
    let later = (left - 1_800_000).to_string();
    redis.ask::<u64>(&["PEXPIRE", &data, &later]).await;
    let second = with_default_lifetime(1).token().await.unwrap();
    assert_eq!(second.expose_secret(), first.expose_secret());
    let sooner = sooner(&second, &first).as_secs();
    assert!((1700..=1800).contains(&sooner), "{sooner}");
    // After an hour and a half, the token has expired for processes with a default of one hour.
    let later = (left - 5_400_000).to_string();
    redis.ask::<u64>(&["PEXPIRE", &data, &later]).await;
    let patient = with_default_lifetime(2).token().await.unwrap();
    assert_eq!(patient.expose_secret(), first.expose_secret());
    assert_eq!(idp.token_requests(), 1);
    let third = with_default_lifetime(1);
    // The waiting caller gets the token nevertheless; the API decides. The next call replaces it.
    assert_eq!(secret(&third).await, first.expose_secret());
    assert_ne!(secret(&third).await, first.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

async fn another_token_key_is_another_token() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let one = secret(&process(&idp, store(&redis))).await;
    let source = source(&idp);
    let key = source.token_key().subject("another");
    let shared = bearer_auth::redis::SharedSource::new(source, store(&redis), key);
    assert_ne!(secret(&TokenCache::new(shared)).await, one);
    assert_eq!(redis.keys().await.len(), 2);
}

async fn rejected_token_is_replaced_by_one_request_for_all_processes() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let old = join_all(fleet.iter().map(TokenCache::token)).await;
    let old: Vec<_> = old.into_iter().map(Result::unwrap).collect();
    assert_eq!(idp.token_requests(), 1);
    // Each process gets a 401.
    let new = fleet.iter().zip(&old).map(|(process, old)| async move {
        process.reject(old);
        process.refresh().await.unwrap().expose_secret().to_owned()
    });
    let new = join_all(new).await;
    assert!(new.iter().all(|token| *token == new[0]), "{new:?}");
    assert_ne!(new[0], old[0].expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

async fn simultaneous_refreshes_make_one_token_request() {
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

/// A failing server does not get one token request from each process.
async fn server_failure_is_shared_by_all_processes() {
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

/// A user who has fixed the configuration calls `refresh` and does not wait for the pause. All processes
/// share the new token.
async fn explicit_refresh_ignores_the_pause_after_a_shared_failure() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let [one, other, third] = [(); 3].map(|()| reporting_process(&idp, store(&redis)));
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
    let explicit = [&other.0, &third.0].map(|process| {
        let process = process.clone();
        tokio::spawn(async move { process.refresh().await.unwrap() })
    });
    idp.token_requests_reach(3).await;
    until("one waits", async || {
        redis.scripts_run().await >= before + 12
    })
    .await;
    hold.release();
    for task in explicit {
        let new = task.await.unwrap();
        assert_ne!(new.expose_secret(), old);
        let late = process(&idp, store(&redis));
        assert_eq!(secret(&late).await, new.expose_secret());
    }
    assert_eq!(idp.token_requests(), 3);
    for (_, store_errors) in [one, other, third] {
        assert_eq!(*store_errors.lock().unwrap(), []);
    }
    leases_are_free(&redis).await;
}

/// An error that only concerns one process does not stop the others.
async fn wrong_secret_of_one_process_does_not_stop_the_others() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::oauth_error("invalid_client"));
    let (one, other) = (process(&idp, store(&redis)), process(&idp, store(&redis)));
    one.token().await.unwrap_err();
    secret(&other).await;
    assert_eq!(idp.token_requests(), 2);
}

async fn process_with_an_older_token_adopts_the_newer_shared_one() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let [one, other, third] = [(); 3].map(|()| process(&idp, store(&redis)));
    let old = one.token().await.unwrap();
    for process in [&other, &third] {
        assert_eq!(secret(process).await, old.expose_secret());
    }
    let new = one.refresh().await.unwrap();
    // After a 401, and for a refresh.
    other.reject(&old);
    assert_eq!(secret(&other).await, new.expose_secret());
    let renewed = third.refresh().await.unwrap();
    assert_eq!(renewed.expose_secret(), new.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

/// Redis is asked for a refresh, not for each request.
async fn cached_token_needs_no_redis_command() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let process = process(&idp, store(&redis));
    secret(&process).await;
    // Read, take the lease, write, release the lease.
    until("the lease is released", async || {
        redis.scripts_run().await == 4
    })
    .await;
    for _ in 0..1000 {
        secret(&process).await;
    }
    assert_eq!(redis.scripts_run().await, 4);
}

/// A process whose token request waits until [`finish`](Self::finish).
struct Fetching {
    idp: Idp,
    task: JoinHandle<String>,
}

impl Fetching {
    fn start(name: &'static str, store: SharedRedis) -> Self {
        let idp = Idp::new(&ManualClock::new());
        idp.prefix(name);
        idp.hold();
        let shared = SharedSource::new(idp.clone(), store, TokenKey::named("gated"));
        let cache = TokenCache::new(shared);
        let task = tokio::spawn(async move { secret(&cache).await });
        Self { idp, task }
    }

    async fn is_in_flight(&self) {
        until("the token request is in flight", async || {
            self.idp.fetches() == 1
        })
        .await;
    }

    /// Lets the server answer.
    async fn finish(self) -> String {
        self.idp.release();
        self.task.await.unwrap()
    }
}

async fn lease_is_extended_until_the_server_answers() {
    let redis = Redis::start().await;
    // A machine that stalls for longer than the lease loses it: try again.
    for _ in 0..5 {
        redis.ask::<()>(&["FLUSHALL"]).await;
        if is_extended(&redis).await {
            return;
        }
    }
    panic!("the lease expired in all five tries");
}

/// `false` if this machine was too slow to extend the lease in time.
async fn is_extended(redis: &Redis) -> bool {
    let store = || store(redis).lease(Duration::from_secs(3));
    let one = Fetching::start("one", store());
    one.is_in_flight().await;
    let Some((owner, mut left)) = lease(redis).await else {
        return false;
    };
    let other = Fetching::start("other", store());
    let (mut extensions, mut is_lost) = (0, false);
    // After a third of its time, to its full length, more than once.
    until("the lease is extended", async || {
        match lease(redis).await {
            Some((now, is_left)) if now == owner => {
                assert!(is_left <= 3000);
                extensions += usize::from(is_left > left);
                left = is_left;
            }
            _ => is_lost = true,
        }
        is_lost || extensions == 2
    })
    .await;
    if is_lost {
        return false;
    }
    assert_eq!(one.finish().await, "one-1");
    // On a slow machine the other process may have taken the lease by now.
    let asked = other.idp.fetches();
    other.idp.release();
    asked == 0 && other.task.await.unwrap() == "one-1"
}

/// The response time of the server does not shorten the token's time in Redis.
async fn shared_token_stays_in_redis_until_it_expires() {
    let redis = Redis::start().await;
    let before = redis.time().await;
    let one = Fetching::start("one", store(&redis));
    one.is_in_flight().await;
    let slow = before + Duration::from_secs(1);
    until("the server is slow", async || redis.time().await > slow).await;
    assert_eq!(one.finish().await, "one-1");
    let data = redis.keys().await.remove(0);
    let end: u64 = redis.ask(&["PEXPIRETIME", &data]).await;
    let lived = Duration::from_millis(end) - before;
    // The crate's clocks are coarse.
    assert!(lived > Duration::from_millis(3_599_900), "{lived:?}");
}

async fn late_holder_neither_overwrites_newer_token_nor_releases_foreign_lease() {
    let redis = Redis::start().await;
    let late = Fetching::start("late", store(&redis));
    late.is_in_flight().await;
    let (owner, _) = lease(&redis).await.unwrap();
    end_lease(&redis).await;
    let newer = Fetching::start("newer", store(&redis));
    newer.is_in_flight().await;
    let (new_owner, _) = lease(&redis).await.unwrap();
    assert_ne!(owner, new_owner);
    // No process has written a token, so the late one is the newest so far.
    assert_eq!(late.finish().await, "late-1");
    assert_eq!(lease(&redis).await.unwrap().0, new_owner);
    assert_eq!(newer.finish().await, "newer-1");
    let third = Fetching::start("third", store(&redis));
    assert_eq!(third.task.await.unwrap(), "newer-1");

    // The newer process writes first, with and without the loss of the key in between.
    for is_lost in [false, true] {
        redis.ask::<()>(&["FLUSHALL"]).await;
        let late = Fetching::start("late", store(&redis));
        late.is_in_flight().await;
        end_lease(&redis).await;
        if is_lost {
            redis.ask::<()>(&["FLUSHALL"]).await;
        }
        let newer = Fetching::start("newer", store(&redis));
        newer.is_in_flight().await;
        assert_eq!(newer.finish().await, "newer-1");
        assert_eq!(late.finish().await, "late-1");
        let third = Fetching::start("third", store(&redis));
        assert_eq!(third.task.await.unwrap(), "newer-1", "{is_lost}");
    }
}

/// The lease of a process that has died expires.
async fn foreign_lease_is_not_extended() {
    let redis = Redis::start().await;
    let one = Fetching::start("one", store(&redis).lease(Duration::from_secs(1)));
    one.is_in_flight().await;
    let keys = redis.keys().await;
    let taken = ["SET", &keys[0], "dead process", "PX", "3000"];
    redis.ask::<()>(&taken).await;
    until("the lease expires", async || lease(&redis).await.is_none()).await;
    assert_eq!(one.finish().await, "one-1");
}

/// As after a failover to a machine whose clock is behind.
async fn redis_clock_set_back_does_not_block_new_tokens() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let one = process(&idp, store(&redis));
    secret(&one).await;
    let data = redis.keys().await.remove(0);
    for _ in 0..3 {
        // A generation of the year 2100.
        let set = ["HSET", &data, "g", "4102444800000000"];
        redis.ask::<u64>(&set).await;
        let token = one.refresh().await.unwrap();
        let late = process(&idp, store(&redis));
        assert_eq!(secret(&late).await, token.expose_secret());
    }
}

/// Another process finishes between this one's read and its request for the lease.
async fn token_written_between_read_and_lock_is_used() {
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
    until("it has read the token", async || proxy.is_holding()).await;
    let new = one.refresh().await.unwrap();
    leases_are_free(&redis).await;
    proxy.release();
    assert_eq!(early.await.unwrap().expose_secret(), new.expose_secret());
    assert_eq!(idp.token_requests(), 2);
}

async fn dropped_fetch_releases_the_lease() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let hold = idp.hold();
    let source = source(&idp);
    let key = source.token_key();
    // Longer than the test waits, so that only a release can end it.
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

/// The lease's holder has died before its token request.
async fn waiting_process_polls_the_lease_with_backoff() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let process = process(&idp, store(&redis));
    let old = secret(&process).await;
    leases_are_free(&redis).await;
    let lease = format!("{}:lease", redis.keys().await[0]);
    let set = ["SET", &lease, "dead process", "PX", "1500"];
    redis.ask::<()>(&set).await;
    let before = redis.scripts_run().await;
    let new = process.refresh().await.unwrap();
    assert_ne!(new.expose_secret(), old);
    // Read, request the lease, write and release are four scripts. Each pause is followed by one more. In
    // 1.5 s there are eleven pauses at most: 20, 40, 80 … 500 ms, or half of that. With two scripts for
    // each pause there would be 17 at least.
    let scripts = redis.scripts_run().await - before;
    assert!(scripts <= 4 + 12, "{scripts}");
}

/// As without sharing: an awaited token request is retried at once where a retry may help.
async fn single_503_is_retried_and_every_process_gets_a_token() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    idp.then(Answer::status(503));
    let fleet: Vec<_> = (0..8).map(|_| process(&idp, store(&redis))).collect();
    let tokens = join_all(fleet.iter().map(secret)).await;
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    assert_eq!(idp.token_requests(), 2);
}

/// The rejected token would have expired later. It must not replace the new one.
async fn rejected_token_is_replaced_once_by_one_that_expires_sooner() {
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
