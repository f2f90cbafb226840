//! Invariants of the cache and its flights, in all orders of tasks.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bearer_auth::{
    AccessToken, BearerAuthLayer, Error, ErrorKind, FetchReason, TokenCache, sync::Handle,
};
use http::{Request, Response, StatusCode};
use model::{Answer, Source, check, choose, landed, number, spawn, turn};
use shuttle::future::{JoinHandle, yield_now};
use tower_layer::Layer as _;
use tower_service::Service;

const MINUTE: Duration = Duration::from_secs(60);

fn call(cache: &TokenCache) -> JoinHandle<Result<AccessToken, Error>> {
    let cache = cache.clone();
    spawn(async move { cache.token().await })
}

fn refresh(cache: &TokenCache) -> JoinHandle<Result<AccessToken, Error>> {
    let cache = cache.clone();
    spawn(async move { cache.refresh().await })
}

fn reject(cache: &TokenCache, token: &AccessToken) -> JoinHandle<()> {
    let (cache, token) = (cache.clone(), token.clone());
    spawn(async move { cache.reject(&token) })
}

/// Checks that a test covers its case: the case must occur in at least one order.
#[derive(Clone, Default)]
struct Seen(Arc<AtomicBool>);

impl Seen {
    fn note(&self, seen: bool) {
        self.0.fetch_or(seen, SeqCst);
    }

    fn check(&self, what: &str) {
        // A single replayed order need not contain the case.
        let alone = std::env::var_os("MODEL_SCHEDULE").is_some();
        assert!(alone || self.0.load(SeqCst), "no order contains {what}");
    }
}

#[test]
fn callers_without_a_token_share_one_flight() {
    check(|| async {
        let source = Source::default();
        let (cache, _clock) = source.cache();
        let callers: Vec<_> = (0..4).map(|_| call(&cache)).collect();
        cache.prefetch();
        for caller in callers {
            assert_eq!(number(&caller.await.unwrap().unwrap()), 1);
        }
        assert_eq!(source.fetches(), 1);
    });
}

#[test]
fn callers_in_the_refresh_window_start_one_flight() {
    check(|| async {
        let source = Source::default();
        let (cache, clock) = source.cache();
        cache.token().await.unwrap();
        clock.advance(50 * MINUTE);
        let callers: Vec<_> = (0..4).map(|_| call(&cache)).collect();
        for caller in callers {
            assert!(number(&caller.await.unwrap().unwrap()) <= 2);
        }
        landed(&cache).await;
        assert_eq!(source.fetches(), 2);
        assert_eq!(number(&cache.try_token().unwrap()), 2);
    });
}

#[test]
fn callers_refreshes_and_rejections_run_one_flight_at_a_time() {
    let second = Seen::default();
    check({
        let second = second.clone();
        move || {
            let second = second.clone();
            async move {
                let source = Source::default();
                let (cache, clock) = source.cache();
                let first = cache.token().await.unwrap();
                clock.advance(50 * MINUTE);
                let refreshed = [refresh(&cache), refresh(&cache)];
                let rejected = [reject(&cache, &first), reject(&cache, &first)];
                let called = call(&cache);
                let mut got = vec![called.await.unwrap()];
                for refreshed in refreshed {
                    got.push(refreshed.await.unwrap());
                }
                for rejected in rejected {
                    rejected.await.unwrap();
                }
                landed(&cache).await;
                assert_eq!(source.max_in_flight(), 1);
                assert!(got.iter().all(Result::is_ok));
                second.note(source.fetches() > 2);
            }
        }
    });
    second.check("a flight after a flight");
}

#[test]
fn every_waiter_gets_the_token_of_its_flight() {
    check(|| async {
        let source = Source::default();
        let (cache, _clock) = source.cache();
        let callers: Vec<_> = (0..3).map(|_| call(&cache)).collect();
        let refreshed = [refresh(&cache), refresh(&cache)];
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        for refreshed in refreshed {
            refreshed.await.unwrap().unwrap();
        }
        landed(&cache).await;
        assert_eq!(number(&cache.try_token().unwrap()), source.fetches());
    });
}

#[test]
fn every_waiter_gets_the_error_of_its_flight() {
    check(|| async {
        let source = Source::answering([Answer::Error]);
        let (cache, _clock) = source.cache();
        let callers: Vec<_> = (0..4).map(|_| call(&cache)).collect();
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(error.retry_after().is_some());
        }
        assert_eq!(source.fetches(), 1);
    });
}

#[test]
fn caller_after_a_landed_flight_starts_no_other() {
    check(|| async {
        let source = Source::default();
        let (cache, _clock) = source.cache();
        let caller = call(&cache);
        // Once one caller has the token, all callers have it.
        assert_eq!(number(&cache.token().await.unwrap()), 1);
        assert!(!cache.status().fetching);
        assert_eq!(number(&cache.try_token().unwrap()), 1);
        caller.await.unwrap().unwrap();
        assert_eq!(source.fetches(), 1);
    });
}

#[test]
fn no_caller_hangs_when_its_flight_fails_or_is_lost() {
    check(|| async {
        const ANSWERS: [Answer; 3] = [Answer::Token, Answer::Error, Answer::Panic];
        let source = Source::answering([0; 3].map(|_| ANSWERS[choose(ANSWERS.len())]));
        let runtime = Handle::default();
        let (cache, clock) = source.cache_with(|cache| cache.runtime(runtime.clone()));

        // Advances the clock by pauses of up to a second only, so that no flight runs into its time limit.
        let done = Arc::new(AtomicBool::new(false));
        let ticks = spawn({
            let (clock, done) = (clock.clone(), Arc::clone(&done));
            async move {
                while !done.load(SeqCst) {
                    let due = clock.next_wakeup();
                    if let Some(due) = due.filter(|due| *due <= Duration::from_secs(1)) {
                        clock.advance(due);
                    }
                    yield_now().await;
                }
            }
        });

        let mut actors = Vec::new();
        for _ in 0..4 {
            let (cache, runtime) = (cache.clone(), runtime.clone());
            let action = choose(6);
            actors.push(spawn(async move {
                match action {
                    0..3 => drop(cache.token().await),
                    3 => drop(cache.refresh().await),
                    4 => cache.forget(),
                    _ => runtime.shut_down(),
                }
            }));
        }
        let quitter = call(&cache);
        quitter.abort();
        for actor in actors {
            actor.await.unwrap();
        }
        drop(quitter.await);
        landed(&cache).await;
        done.store(true, SeqCst);
        ticks.await.unwrap();
    });
}

#[test]
fn runtime_shut_down_leaves_no_flight_behind() {
    check(|| async {
        let source = Source::default();
        let runtime = Handle::default();
        let (cache, clock) = source.cache_with(|cache| cache.runtime(runtime.clone()));
        let callers = [call(&cache), call(&cache)];
        runtime.shut_down();
        for caller in callers {
            match caller.await.unwrap() {
                Ok(token) => assert_eq!(number(&token), 1),
                Err(error) => {
                    // `Timeout`: the caller lost a flight three times.
                    let expected = [ErrorKind::Interrupted, ErrorKind::Timeout];
                    assert!(expected.contains(&error.kind()), "{error}");
                }
            }
        }
        assert!(!cache.status().fetching);
        clock.advance(MINUTE);
        if cache.try_token().is_none() {
            let error = cache.token().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
    });
}

#[test]
fn late_rejection_never_evicts_a_newer_token() {
    let late = Seen::default();
    check({
        let late = late.clone();
        move || {
            let late = late.clone();
            async move {
                let source = Source::default();
                let (cache, _clock) = source.cache();
                let first = cache.token().await.unwrap();
                let refreshed = refresh(&cache);
                let rejected = [reject(&cache, &first), reject(&cache, &first)];
                for rejected in rejected {
                    rejected.await.unwrap();
                }
                let refreshed = refreshed.await.unwrap().unwrap();
                assert!(number(&refreshed) > 1);
                landed(&cache).await;

                // Only the first token was rejected and replaced.
                let requests = source.requests();
                let after_rejection = requests
                    .iter()
                    .filter(|request| request.reason == FetchReason::Rejected);
                for request in after_rejection.clone() {
                    assert_eq!(number(request.rejected.as_ref().unwrap()), 1);
                }
                assert!(after_rejection.clone().count() <= 1);
                late.note(after_rejection.count() == 0);
                assert_eq!(number(&cache.try_token().unwrap()), requests.len());

                cache.reject(&first);
                assert!(!cache.status().fetching);
            }
        }
    });
    late.check("a rejection that comes late");
}

/// An API that lets other tasks run before it answers, and rejects the first token.
#[derive(Clone)]
struct Api;

impl Service<Request<String>> for Api {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        Box::pin(async move {
            turn().await;
            let mut response = Response::default();
            if request.headers()["authorization"] == "Bearer token-1" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok(response)
        })
    }
}

#[test]
fn simultaneous_401s_share_one_refresh() {
    check(|| async {
        let source = Source::default();
        let (cache, _clock) = source.cache();
        cache.token().await.unwrap();
        let layer = BearerAuthLayer::for_api("https://api.example/", cache.clone()).unwrap();
        let client = layer.layer(Api);
        let requests: Vec<_> = (0..3)
            .map(|_| {
                let mut client = client.clone();
                let request = Request::get("https://api.example/orders");
                let request = request.body(String::new()).unwrap();
                spawn(async move { client.call(request).await.unwrap().status() })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap(), StatusCode::OK);
        }
        assert_eq!(source.fetches(), 2);
        assert_eq!(number(&cache.try_token().unwrap()), 2);
    });
}

#[test]
fn dropped_callers_do_not_cancel_the_flight() {
    let orphaned = Seen::default();
    check({
        let orphaned = orphaned.clone();
        move || {
            let orphaned = orphaned.clone();
            async move {
                let source = Source::default();
                let (cache, _clock) = source.cache();
                let callers: Vec<_> = (0..3).map(|_| call(&cache)).collect();
                for caller in &callers {
                    if choose(3) > 0 {
                        caller.abort();
                    }
                }
                let mut stayed = 0;
                for caller in callers {
                    if let Ok(got) = caller.await {
                        assert_eq!(number(&got.unwrap()), 1);
                        stayed += 1;
                    }
                }
                let started = cache.status().fetching || source.fetches() > 0;
                orphaned.note(started && stayed == 0);
                landed(&cache).await;
                if started {
                    assert_eq!(source.fetches(), 1);
                    assert_eq!(number(&cache.try_token().unwrap()), 1);
                }
            }
        }
    });
    orphaned.check("a flight whose callers have all gone");
}

#[test]
fn panicking_source_fails_its_waiters_and_is_asked_again() {
    check(|| async {
        let source = Source::answering([Answer::Panic]);
        let (cache, clock) = source.cache();
        let callers: Vec<_> = (0..3).map(|_| call(&cache)).collect();
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Interrupted);
            assert!(error.retry_after().is_some(), "{error}");
        }
        // The next token request waits for the pause …
        cache.token().await.unwrap_err();
        assert_eq!(source.fetches(), 1);
        // … and is one request for all callers.
        clock.advance(MINUTE);
        let callers = [call(&cache), call(&cache)];
        for caller in callers {
            assert_eq!(number(&caller.await.unwrap().unwrap()), 2);
        }
        assert_eq!(source.fetches(), 2);
    });
}

#[test]
fn token_of_a_flight_before_forget_is_not_cached() {
    let overtaken = Seen::default();
    check({
        let overtaken = overtaken.clone();
        move || {
            let overtaken = overtaken.clone();
            async move {
                let source = Source::default();
                let (cache, _clock) = source.cache();
                let callers = [call(&cache), call(&cache)];
                // Tokens requested up to now are forgotten.
                let forgotten = source.fetches();
                cache.forget();
                let after = call(&cache);
                assert!(number(&after.await.unwrap().unwrap()) > forgotten);
                for caller in callers {
                    if let Err(error) = caller.await.unwrap() {
                        assert_eq!(error.kind(), ErrorKind::Interrupted);
                    }
                    assert!(number(&cache.try_token().unwrap()) > forgotten);
                }
                landed(&cache).await;
                assert!(number(&cache.try_token().unwrap()) > forgotten);
                overtaken.note(source.max_in_flight() > 1);
            }
        }
    });
    overtaken.check("a flight in progress when the next one starts");
}

#[test]
fn token_of_a_flight_that_calls_forget_is_not_cached() {
    check(|| async {
        let source = Source::default();
        source.forget_in(1);
        let (cache, _clock) = source.cache();
        let callers = [call(&cache), call(&cache)];
        for caller in callers {
            match caller.await.unwrap() {
                Ok(token) => assert!(number(&token) > 1),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            }
        }
        landed(&cache).await;
        if let Some(token) = cache.try_token() {
            assert!(number(&token) > 1);
        }
    });
}

#[test]
fn keeper_ends_with_its_last_guard() {
    check(|| async {
        let source = Source::default();
        let (cache, clock) = source.cache();
        let guards: Vec<_> = (0..2)
            .map(|_| {
                let cache = cache.clone();
                spawn(async move {
                    let guard = cache.keep_fresh();
                    turn().await;
                    drop(guard);
                })
            })
            .collect();
        let caller = call(&cache);
        drop(cache);
        for guard in guards {
            guard.await.unwrap();
        }
        caller.await.unwrap().unwrap();
        while !source.is_unshared() {
            yield_now().await;
        }
        assert_eq!(clock.next_wakeup(), None);
        assert_eq!(source.fetches(), 1);
    });
}

#[test]
fn keeper_refreshes_without_callers() {
    check(|| async {
        let source = Source::default();
        let (cache, clock) = source.cache();
        let other = spawn({
            let cache = cache.clone();
            async move { drop(cache.keep_fresh()) }
        });
        let _kept = cache.keep_fresh();
        other.await.unwrap();
        for fetches in 1..4 {
            while source.fetches() < fetches || cache.status().fetching {
                // Wakes the keeper, which checks the clock now and then, but no flight's time limit.
                if let (false, Some(due)) = (cache.status().fetching, clock.next_wakeup()) {
                    clock.advance(due);
                }
                yield_now().await;
            }
            assert_eq!(source.fetches(), fetches);
            clock.advance(50 * MINUTE);
        }
    });
}
