//! Runtimes that are missing, shut down, or stalled.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use bearer_auth::{ErrorKind, testing::ManualClock};
use tokio::runtime::{Builder, Runtime};

use crate::support::tokens::{Answer, Idp, at_once, call, calls, millis, poll_once, secret, secs};

fn current_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Runs `future` outside any tokio runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn without_a_runtime_only_token_requests_fail() {
    let (_, idp, cache) = Idp::with_cache();
    assert!(cache.try_token().is_none());
    assert!(!cache.status().ready);
    cache.prefetch();
    drop(cache.keep_fresh());
    let error = block_on(cache.token()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    let error = block_on(cache.refresh()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    assert_eq!(idp.fetches(), 0);
    // A missing runtime is not a server failure: no backoff.
    let runtime = current_thread();
    assert_eq!(runtime.block_on(secret(&cache)), "token-1");
}

#[test]
fn without_a_runtime_cached_token_serves_until_it_expires() {
    let (clock, _, cache) = Idp::with_cache();
    let token = current_thread().block_on(cache.token()).unwrap();
    for advance in [1, 2_999, 595] {
        clock.advance(secs(advance));
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        assert!(cache.try_token().is_some());
    }
    cache.reject(&token);
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    clock.advance(secs(5));
    assert_eq!(
        at_once(&cache).unwrap_err().kind(),
        ErrorKind::NoRuntime,
        "it has expired"
    );
}

#[test]
fn configured_runtime_serves_callers_outside_any_runtime() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.unwrap();
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    let cache = idp.builder().runtime(runtime.handle().clone()).build();
    let token = block_on(cache.token()).unwrap();
    assert_eq!(token.expose_secret(), "token-1");
    let token = block_on(cache.refresh()).unwrap();
    assert_eq!(token.expose_secret(), "token-2");
    assert_eq!(at_once(&cache).unwrap(), "token-2");
}

#[test]
fn caller_outside_any_runtime_joins_a_token_request_in_flight() {
    let runtime = current_thread();
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    runtime.block_on(async {
        cache.prefetch();
        clock.settle().await;
    });
    let mut token = pin!(cache.token());
    let mut refresh = pin!(cache.refresh());
    assert!(poll_once(token.as_mut()).is_pending());
    assert!(poll_once(refresh.as_mut()).is_pending());
    idp.release();
    runtime.block_on(clock.settle());
    assert_eq!(block_on(token).unwrap().expose_secret(), "token-1");
    assert_eq!(block_on(refresh).unwrap().expose_secret(), "token-1");
}

#[test]
fn c16_runtime_shutdown_in_flight_is_a_retryable_error() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.hold();
    let first = current_thread();
    first.block_on(async {
        cache.prefetch();
        clock.settle().await;
    });
    assert_eq!(idp.fetches(), 1);
    let second = current_thread();
    let waiter = {
        let _entered = second.enter();
        call(&cache)
    };
    second.block_on(clock.settle());
    drop(first);
    let error = second.block_on(waiter).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(error.is_retryable());
    let status = cache.status();
    assert!(
        !status.fetching && status.last_error.is_none(),
        "not a server failure"
    );
    clock.advance(secs(1));
    second.block_on(async {
        let waiter = call(&cache);
        clock.settle().await;
        idp.release();
        let token = waiter.await.unwrap().unwrap();
        assert_eq!(token.expose_secret(), "token-1");
    });
    assert_eq!(idp.fetches(), 2);
}

#[test]
fn c15_runtime_shutdown_in_flight_keeps_the_cached_token() {
    let (clock, idp, cache) = Idp::with_cache();
    let second = current_thread();
    second.block_on(secret(&cache));
    clock.advance(secs(3_595));
    idp.hold();
    let first = current_thread();
    first.block_on(async {
        cache.prefetch();
        clock.settle().await;
    });
    let waiter = {
        let _entered = second.enter();
        call(&cache)
    };
    second.block_on(clock.settle());
    drop(first);
    let token = second.block_on(waiter).unwrap().unwrap();
    assert_eq!(token.expose_secret(), "token-1");
}

#[test]
fn configured_runtime_that_was_shut_down_is_an_error() {
    let runtime = current_thread();
    let clock = ManualClock::new();
    let idp = Idp::new(&clock);
    let cache = idp.builder().runtime(runtime.handle().clone()).build();
    drop(runtime);
    let _guard = cache.keep_fresh();
    for _ in 0..3 {
        let error = block_on(cache.token()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        let error = block_on(cache.refresh()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}

/// Starts a flight on a runtime, and then stops driving the runtime.
fn stalled(clock: &ManualClock, idp: &Idp, cache: &bearer_auth::TokenCache) -> Runtime {
    let runtime = current_thread();
    let fetches = idp.fetches();
    idp.hold();
    runtime.block_on(async {
        cache.prefetch();
        clock.settle().await;
    });
    assert_eq!(idp.fetches(), fetches + 1);
    runtime
}

#[test]
fn stalled_runtime_delays_callers_until_the_fetch_timeout() {
    let (clock, idp, cache) = Idp::with_cache();
    let stalled = stalled(&clock, &idp, &cache);
    let live = current_thread();
    live.block_on(async {
        let waiter = call(&cache);
        clock.settle().await;
        clock.advance(secs(30));
        clock.settle().await;
        assert_eq!(idp.fetches(), 1);
        idp.stop_holding();
        clock.advance(secs(1));
        let token = waiter.await.unwrap().unwrap();
        assert_eq!(token.expose_secret(), "token-1");
        assert_eq!(idp.fetches(), 2);
    });
    // When the runtime runs again, the late result changes nothing.
    idp.release();
    stalled.block_on(clock.settle());
    assert_eq!(at_once(&cache).unwrap(), "token-1");
    assert!(!cache.status().fetching && cache.status().last_error.is_none());
}

#[test]
fn stalled_runtime_fails_an_explicit_refresh_and_the_next_succeeds() {
    let (clock, idp, cache) = Idp::with_cache();
    let _stalled = stalled(&clock, &idp, &cache);
    let live = current_thread();
    live.block_on(async {
        let cache = cache.clone();
        let waiter = tokio::spawn({
            let cache = cache.clone();
            async move { cache.refresh().await }
        });
        clock.settle().await;
        clock.advance(secs(31));
        let error = waiter.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_retryable());
        idp.stop_holding();
        cache.refresh().await.unwrap();
    });
}

#[test]
fn stalled_runtime_is_abandoned_when_callers_have_short_deadlines() {
    let (clock, idp, cache) = Idp::with_cache();
    let _stalled = stalled(&clock, &idp, &cache);
    idp.stop_holding();
    let live = current_thread();
    live.block_on(async {
        // Each caller has a deadline of ten seconds.
        for _ in 0..5 {
            let caller = call(&cache);
            for _ in 0..10 {
                clock.settle().await;
                clock.advance(secs(1));
            }
            caller.abort();
        }
        assert_eq!(at_once(&cache).unwrap(), "token-1");
        assert_eq!(idp.fetches(), 2);
    });
}

#[test]
fn waiter_of_an_abandoned_flight_gets_the_next_token() {
    let (clock, idp, cache) = Idp::with_cache();
    let stalled = stalled(&clock, &idp, &cache);
    let live = current_thread();
    let callers = live.block_on(async {
        let early = call(&cache);
        clock.settle().await;
        clock.advance(secs(30));
        let late = call(&cache);
        clock.settle().await;
        clock.advance(secs(1));
        clock.settle().await;
        assert_eq!(idp.fetches(), 2, "the early caller abandoned the flight");
        assert!(!early.is_finished());
        [early, late]
    });
    // The runtime runs again: the end of the abandoned flight reaches no caller.
    idp.release();
    stalled.block_on(clock.settle());
    idp.release();
    live.block_on(async {
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
    });
    assert_eq!(idp.fetches(), 2);
}

#[test]
fn flight_that_starts_late_has_time_to_finish() {
    // The first `block_on` returns before the flight has started; the next comes an hour later.
    let (clock, idp, cache) = Idp::with_cache();
    let runtime = current_thread();
    idp.hold();
    runtime.block_on(async { cache.prefetch() });
    assert_eq!(idp.fetches(), 0);
    clock.advance(secs(3_600));
    runtime.block_on(async {
        let caller = call(&cache);
        clock.settle().await;
        clock.advance(secs(4));
        clock.settle().await;
        idp.release();
        let token = caller.await.unwrap().unwrap();
        assert_eq!(token.expose_secret(), "token-1");
    });
    assert_eq!(idp.fetches(), 1);
}

#[test]
fn keep_fresh_abandons_a_stalled_runtime() {
    let (clock, idp, cache) = Idp::with_cache();
    let _stalled = stalled(&clock, &idp, &cache);
    let live = current_thread();
    live.block_on(async {
        let _guard = cache.keep_fresh();
        clock.settle().await;
        idp.stop_holding();
        for _ in 0..40 {
            clock.advance(secs(1));
            clock.settle().await;
        }
        assert!(cache.status().ready);
        assert_eq!(idp.fetches(), 2);
    });
}

#[test]
fn late_caller_shares_the_timeout_of_the_flight() {
    let (clock, idp, cache) = Idp::with_cache();
    idp.answer(Answer::Silence);
    let runtime = current_thread();
    runtime.block_on(async {
        let callers = calls(&cache, 10);
        clock.settle().await;
        clock.advance(secs(29));
        let late = call(&cache);
        clock.settle().await;
        clock.advance(millis(1_000));
        for caller in callers.into_iter().chain([late]) {
            let error = caller.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
        }
        assert_eq!(idp.fetches(), 1);
    });
}
