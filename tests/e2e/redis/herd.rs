//! Many who wait for one.

use std::time::Duration;

use bearer_auth::{
    TokenCache,
    testing::{Answer, MockIdp},
};
use futures_util::future::{join, join_all};
use tokio::task::JoinHandle;

use super::{Redis, leases_are_free, patient, process, secret, store};
use crate::{
    harness::tests,
    programs::redis::{PATIENCE, proxy::Proxy, until},
};

tests! {
    needs: [Redis];
    a_lease_that_nobody_gives_back_is_waited_for_for_some_seconds,
    who_takes_a_lease_from_one_takes_it_from_nobody_else,
}

/// How many wait.
const WAITING: usize = 8;

/// Who has the lease, and does nothing with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// It waits for an answer of the server, and prolongs its lease: it may be cut off from that, and
    /// not know it.
    Waits,
    /// A lease that is longer than anybody waits.
    HasDied,
}

/// They wait at the same time, since they do so by the real clock.
async fn a_lease_that_nobody_gives_back_is_waited_for_for_some_seconds() {
    join(outwaited(Holder::Waits), outwaited(Holder::HasDied)).await;
}

async fn outwaited(holder: Holder) {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let long = Duration::from_secs(20);
    let fleet = [(); 1 + WAITING].map(|()| match holder {
        Holder::Waits => process(&idp, store(&redis)),
        Holder::HasDied => process(&idp, store(&redis).lease(long)),
    });
    let [first, fleet @ ..] = fleet;
    let spawn =
        |process| -> JoinHandle<String> { tokio::spawn(async move { secret(&process).await }) };
    let (hold, late) = match holder {
        Holder::Waits => {
            let hold = idp.hold();
            let late = spawn(first);
            idp.token_requests_reach(1).await;
            (hold, Some(late))
        }
        Holder::HasDied => {
            secret(&first).await;
            leases_are_free(&redis).await;
            let data = redis.keys().await.remove(0);
            redis.ask::<u64>(&["DEL", &data]).await;
            let lease = format!("{data}:lease");
            let set = ["SET", &lease, "somebody dead", "PX", "600000"];
            redis.ask::<()>(&set).await;
            (idp.hold(), None)
        }
    };
    let fleet = fleet.map(spawn);
    let asks = tokio::time::timeout(PATIENCE, idp.token_requests_reach(2));
    asks.await.unwrap();
    // The others wait for that one now. Their time would be up otherwise, one after the other.
    let before = redis.scripts_run().await;
    until("they wait", async || {
        redis.scripts_run().await >= before + 5 * (WAITING as u64 - 1)
    })
    .await;
    assert_eq!(idp.token_requests(), 2, "{holder:?}");
    hold.release();
    let tokens = join_all(fleet).await;
    let tokens: Vec<_> = tokens.into_iter().map(Result::unwrap).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    if let Some(late) = late {
        assert_ne!(late.await.unwrap(), tokens[0]);
    }
    let next = process(&idp, store(&redis));
    assert_eq!(secret(&next).await, tokens[0], "{holder:?}");
    assert_eq!(idp.token_requests(), 2, "{holder:?}");
}

/// Two by hand, in a pause after a failure: the first has ended it, and asks, when the other is about to
/// do so as well.
async fn who_takes_a_lease_from_one_takes_it_from_nobody_else() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(&redis).await;
    let idp = MockIdp::start().await.unwrap();
    let [failing, one] = [(); 2].map(|()| process(&idp, store(&redis)));
    let other = process(&idp, patient(proxy.client()));
    for process in [&failing, &one, &other] {
        secret(process).await;
    }
    leases_are_free(&redis).await;
    idp.then(Answer::unavailable(30));
    failing.refresh().await.unwrap_err();
    // It looks, asks for the lease, and hears of the failure.
    proxy.hold_after(2);
    let by_hand = |process: TokenCache| {
        let new = async move { process.refresh().await.unwrap().expose_secret().to_owned() };
        tokio::spawn(new)
    };
    let other = by_hand(other);
    until("it is about to take it", async || proxy.holds()).await;
    let hold = idp.hold();
    let one = by_hand(one);
    idp.token_requests_reach(3).await;
    let before = redis.scripts_run().await;
    proxy.let_on();
    until("it waits", async || redis.scripts_run().await >= before + 3).await;
    assert_eq!(idp.token_requests(), 3);
    hold.release();
    assert_eq!(other.await.unwrap(), one.await.unwrap());
    assert_eq!(idp.token_requests(), 3);
}
