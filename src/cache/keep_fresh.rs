//! [`KeepFresh`]: renewal with nobody calling.
//!
//! One task for all guards of a cache. It needs a runtime: if there is none when the guard is
//! made, or its runtime is gone, the next flight (which has one) starts it.

use std::{fmt, sync::PoisonError, time::Duration};

use super::{TokenCache, lifecycle::Held};
use crate::{
    clock::Moment,
    sync::{AbortHandle, Handle, MutexGuard},
};

/// The keeper looks at the clock this often at least: a suspend stops its timer, not the token's
/// life.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Keeps a token fresh for as long as it lives: see [`TokenCache::keep_fresh`].
#[must_use = "renewal stops when the guard is dropped"]
pub struct KeepFresh(TokenCache);

#[derive(Default)]
pub(super) struct Keeper {
    guards: usize,
    task: Option<AbortHandle>,
}

impl KeepFresh {
    pub(super) fn new(cache: TokenCache) -> Self {
        lock(&cache).guards += 1;
        cache.ensure_keeper();
        Self(cache)
    }
}

impl Drop for KeepFresh {
    fn drop(&mut self) {
        let task = {
            let mut keeper = lock(&self.0);
            keeper.guards = keeper.guards.saturating_sub(1);
            if keeper.guards == 0 {
                keeper.task.take()
            } else {
                None
            }
        };
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl fmt::Debug for KeepFresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeepFresh").field(&self.0).finish()
    }
}

impl TokenCache {
    /// Starts the keeper's task if somebody wants it, it does not run, and there is a runtime.
    pub(super) fn ensure_keeper(&self) {
        let mut keeper = lock(self);
        let runs = keeper.task.as_ref().is_some_and(|task| !task.is_finished());
        if keeper.guards == 0 || runs {
            return;
        }
        if let Some(runtime) = self.runtime() {
            let task = keep(self.clone(), runtime.clone());
            keeper.task = Some(runtime.spawn(task).abort_handle());
        }
    }

    /// When the keeper has to look again.
    fn next_look(&self, now: Moment) -> Duration {
        let snapshot = self.0.snapshot.load();
        let state = &snapshot.state;
        let due = match &state.token {
            Held::Nothing => Duration::ZERO,
            Held::Lasting => LONGEST_SLEEP,
            Held::Until(schedule) => now.until(schedule.ageing_at()),
        };
        let blocked = state.not_before.map_or(Duration::ZERO, |t| now.until(t));
        // A millisecond at least: coarse clocks lag behind timers.
        due.max(blocked)
            .clamp(Duration::from_millis(1), LONGEST_SLEEP)
    }
}

async fn keep(cache: TokenCache, runtime: Handle) {
    let clock = cache.0.settings.clock.clone();
    loop {
        cache.prefetch();
        let flight = cache.0.snapshot.load().flight.clone();
        match flight {
            Some(flight) => {
                let patience = flight.patience(clock.now());
                let done = clock.timeout(patience, &runtime, flight.done()).await;
                if done.is_none() {
                    // Its runtime stands still.
                    cache.supersede(&flight);
                }
            }
            None => {
                let pause = cache.next_look(clock.now());
                clock.sleep(pause, &runtime).await;
            }
        }
    }
}

fn lock(cache: &TokenCache) -> MutexGuard<'_, Keeper> {
    let keeper = &cache.0.keeper;
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}
