//! Many processes wait for one lease.

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
    unreleased_lease_is_taken_over_after_some_seconds,
    take_over_of_a_failed_lease_spares_its_next_holder,
}

/// The number of waiting processes.
const WAITING: usize = 8;

/// A lease holder that makes no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// The holder waits for the server and extends its lease, as a process does whose connection to the
    /// server is broken.
    Waits,
    /// The holder has died, and its lease lasts longer than any process waits.
    HasDied,
}

/// Both cases run at the same time, since their waiting is in real time.
async fn unreleased_lease_is_taken_over_after_some_seconds() {
    join(
        taken_over_from(Holder::Waits),
        taken_over_from(Holder::HasDied),
    )
    .await;
}

async fn taken_over_from(holder: Holder) {
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
            let set = ["SET", &lease, "dead process", "PX", "600000"];
            redis.ask::<()>(&set).await;
            (idp.hold(), None)
        }
    };
    let fleet = fleet.map(spawn);
    let asks = tokio::time::timeout(PATIENCE, idp.token_requests_reach(2));
    asks.await.unwrap();
    // The others wait for the new holder now. Otherwise each would time out in turn.
    let before = redis.scripts_run().await;
    until("the others wait", async || {
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

/// Two explicit refreshes in the pause after a failure: one process has ended the pause and sends its
/// token request when the other is about to end the pause as well.
async fn take_over_of_a_failed_lease_spares_its_next_holder() {
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
    // Two scripts pass: it reads the token, and its request for the lease reports the failure.
    proxy.hold_after(2);
    let refresh = |process: TokenCache| {
        let new = async move { process.refresh().await.unwrap().expose_secret().to_owned() };
        tokio::spawn(new)
    };
    let other = refresh(other);
    until("it is about to take the lease over", async || {
        proxy.is_holding()
    })
    .await;
    let hold = idp.hold();
    let one = refresh(one);
    idp.token_requests_reach(3).await;
    let before = redis.scripts_run().await;
    proxy.release();
    until("it waits for the lease", async || {
        redis.scripts_run().await >= before + 3
    })
    .await;
    assert_eq!(idp.token_requests(), 3);
    hold.release();
    assert_eq!(other.await.unwrap(), one.await.unwrap());
    assert_eq!(idp.token_requests(), 3);
}
