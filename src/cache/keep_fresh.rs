//! [`KeepFresh`]: refreshes a token without traffic. One task serves all guards of a cache.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    keeper::Keeper,
    lifecycle::TokenLifetime,
    shared::{Shared, TokenCache},
};
use crate::{
    clock::Moment,
    sync::{AbortHandle, Handle},
};

/// The task reads the clock this often at least: a suspend stops its timer, not the token's lifetime.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// A guard that keeps a token fresh until it is dropped: see [`TokenCache::keep_fresh`].
#[must_use = "refreshing stops when the guard is dropped"]
pub struct KeepFresh(TokenCache);

impl TokenCache {
    /// Refreshes the token ahead of expiry, even without traffic, until the returned guard is dropped.
    /// Without a guard, an idle cache sends no token requests.
    ///
    /// Outside a tokio runtime, refreshing starts with the first token request.
    pub fn keep_fresh(&self) -> KeepFresh {
        Keeper::add(&self.0.keeper, spawn);
        self.0.ensure_keeper();
        KeepFresh(self.clone())
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        Keeper::remove(&self.0.0.keeper);
    }
}

impl fmt::Debug for KeepFresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeepFresh").field(&self.0).finish()
    }
}

fn spawn(shared: &Arc<Shared>, runtime: Handle) -> AbortHandle {
    let task = keep(TokenCache(Arc::clone(shared)), runtime.clone());
    runtime.spawn(task).abort_handle()
}

async fn keep(cache: TokenCache, runtime: Handle) {
    let clock = cache.0.settings.clock.clone();
    loop {
        cache.prefetch();
        let flight = cache.0.snapshot.load().flight.clone();
        match flight {
            Some(flight) => {
                let max_wait = flight.max_wait(clock.now());
                let done = clock.timeout(max_wait, &runtime, flight.done()).await;
                if done.is_none() {
                    // Its runtime is not driven.
                    cache.supersede(&flight);
                }
            }
            None => {
                let pause = next_check(&cache, clock.now());
                clock.sleep(pause, &runtime).await;
            }
        }
    }
}

/// Returns how long the task sleeps before it checks again.
fn next_check(cache: &TokenCache, now: Moment) -> Duration {
    let snapshot = cache.0.snapshot.load();
    let inputs = &snapshot.inputs;
    let due = match &inputs.token {
        TokenLifetime::NoToken => Duration::ZERO,
        TokenLifetime::Unlimited => MAX_SLEEP,
        TokenLifetime::Until(schedule) => now.until(schedule.refresh_at()),
    };
    let blocked = inputs.not_before.map_or(Duration::ZERO, |t| now.until(t));
    // At least a millisecond: coarse clocks lag behind timers.
    due.max(blocked).clamp(Duration::from_millis(1), MAX_SLEEP)
}
