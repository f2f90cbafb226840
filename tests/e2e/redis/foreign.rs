//! What somebody else has put there: by hand, by mistake, or with another program. It stops nobody.

use bearer_auth::testing::MockIdp;

use super::{Redis, leases_are_free, process, secret, session::Fleet, store, told_process};
use crate::harness::tests;

tests! {
    needs: [Redis];
    a_lease_without_an_end_is_nobody_s,
    nor_is_it_of_a_session,
    an_absurd_generation_is_none,
    nor_is_it_one_of_a_session,
}

/// Of nobody who comes back, however it looks.
const HOLDERS: [&str; 3] = ["somebody", "", "failed for ever"];

/// What no clock says. The last but one is nearly too much, and what is beyond comes after it; the last
/// is of a clock that is ahead by some decades.
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

async fn a_lease_without_an_end_is_nobody_s() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, store(&redis));
    secret(&one).await;
    for holder in HOLDERS {
        leases_are_free(&redis).await;
        let lease = format!("{}:lease", redis.keys().await[0]);
        redis.ask::<()>(&["SET", &lease, holder]).await;
        let token = one.refresh().await.unwrap();
        assert_eq!(*told.lock().unwrap(), [], "{holder}");
        let other = process(&idp, store(&redis));
        assert_eq!(secret(&other).await, token.expose_secret(), "{holder}");
    }
    assert_eq!(idp.token_requests(), 1 + HOLDERS.len());
}

async fn nor_is_it_of_a_session() {
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
        assert_eq!(*process.told.lock().unwrap(), [], "{holder}");
        let other = fleet.process_at(&store(&redis));
        assert_eq!(secret(&other.cache).await, token, "{holder}");
    }
    assert_eq!(fleet.refreshes().len(), HOLDERS.len());
}

async fn an_absurd_generation_is_none() {
    let redis = Redis::start().await;
    let idp = MockIdp::start().await.unwrap();
    let (one, told) = told_process(&idp, store(&redis));
    secret(&one).await;
    let data = redis.keys().await.remove(0);
    for generation in GENERATIONS {
        leases_are_free(&redis).await;
        redis.ask::<u64>(&["HSET", &data, "g", generation]).await;
        // And once more, over what was written on it.
        for _ in 0..2 {
            let token = one.refresh().await.unwrap();
            assert_eq!(*told.lock().unwrap(), [], "{generation}");
            let other = process(&idp, store(&redis));
            assert_eq!(secret(&other).await, token.expose_secret(), "{generation}");
            // For as long as it lives, and no longer.
            let left: i64 = redis.ask(&["TTL", &data]).await;
            assert!((1..=3600).contains(&left), "{generation}: {left}");
        }
    }
    assert_eq!(idp.token_requests(), 1 + 2 * GENERATIONS.len());
}

async fn nor_is_it_one_of_a_session() {
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
            assert_eq!(*process.told.lock().unwrap(), [], "{generation}");
            let other = fleet.process_at(&store(&redis));
            assert_eq!(secret(&other.cache).await, token, "{generation}");
        }
    }
    assert_eq!(fleet.refreshes().len(), 2 * GENERATIONS.len());
}
