//! Values that an administrator or another program has written to the keys. They block no process.

use bearer_auth::testing::MockIdp;

use super::{Redis, leases_are_free, process, reporting_process, secret, session::Fleet, store};
use crate::harness::tests;

tests! {
    needs: [Redis];
    lease_without_expiry_is_ignored,
    session_lease_without_expiry_is_ignored,
    absurd_generation_is_ignored,
    absurd_session_generation_is_ignored,
}

/// Values of a lease that no process of ours has written.
const HOLDERS: [&str; 3] = ["unknown process", "", "failed without an expiry"];

/// Generations that no clock gives. The last but one is just below the limit, so that the next write
/// exceeds it. The last one is of a clock that is decades ahead.
const GENERATIONS: [&str; 13] = [
    "text",
    "",
    "-1",
    "-1e300",
    "1e300",
    "-inf",
    "inf",
    "nan",
    "0x7fffffffffffffff",
    "9999999999999999999",
    "9007199254740993",
    "8999999999999999",
    "4102444800000000",
];

async fn lease_without_expiry_is_ignored() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, store(&redis));
    secret(&one).await;
    for holder in HOLDERS {
        leases_are_free(&redis).await;
        let lease = format!("{}:lease", redis.keys().await[0]);
        redis.ask::<()>(&["SET", &lease, holder]).await;
        let token = one.refresh().await.unwrap();
        assert_eq!(*store_errors.lock().unwrap(), [], "{holder}");
        let other = process(&idp, store(&redis));
        assert_eq!(secret(&other).await, token.expose_secret(), "{holder}");
    }
    assert_eq!(idp.token_requests(), 1 + HOLDERS.len());
}

async fn session_lease_without_expiry_is_ignored() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    for holder in HOLDERS {
        leases_are_free(&redis).await;
        let lease = format!("{}:lease", redis.keys().await[0]);
        redis.ask::<()>(&["SET", &lease, holder]).await;
        fleet.end_tokens();
        let token = secret(&process.cache).await;
        assert_eq!(*process.store_errors.lock().unwrap(), [], "{holder}");
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token, "{holder}");
    }
    assert_eq!(fleet.refreshes().len(), HOLDERS.len());
}

async fn absurd_generation_is_ignored() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, store_errors) = reporting_process(&idp, store(&redis));
    secret(&one).await;
    let data = redis.keys().await.remove(0);
    for generation in GENERATIONS {
        leases_are_free(&redis).await;
        redis.ask::<u64>(&["HSET", &data, "g", generation]).await;
        // The second time over the value that the first refresh wrote.
        for _ in 0..2 {
            let token = one.refresh().await.unwrap();
            assert_eq!(*store_errors.lock().unwrap(), [], "{generation}");
            let other = process(&idp, store(&redis));
            assert_eq!(secret(&other).await, token.expose_secret(), "{generation}");
            // Redis keeps the token until it expires.
            let left: i64 = redis.ask(&["TTL", &data]).await;
            assert!((1..=3600).contains(&left), "{generation}: {left}");
        }
    }
    assert_eq!(idp.token_requests(), 1 + 2 * GENERATIONS.len());
}

async fn absurd_session_generation_is_ignored() {
    let redis = Redis::start().await;
    let fleet = Fleet::signed_in(&redis).await;
    let process = fleet.process_at(&store(&redis));
    secret(&process.cache).await;
    leases_are_free(&redis).await;
    let data = redis.keys().await.remove(0);
    for generation in GENERATIONS {
        redis.ask::<u64>(&["HSET", &data, "g", generation]).await;
        for _ in 0..2 {
            fleet.end_tokens();
            let token = secret(&process.cache).await;
            assert_eq!(*process.store_errors.lock().unwrap(), [], "{generation}");
            let other = fleet.process_at(&store(&redis));
            assert_eq!(secret(&other.cache).await, token, "{generation}");
        }
    }
    assert_eq!(fleet.refreshes().len(), 2 * GENERATIONS.len());
}
