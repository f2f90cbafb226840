//! [`Keeper`]: the slot of the task that keeps a token fresh.
//!
//! The task needs a runtime. If there is none when a guard is created, or its runtime was shut down,
//! the next flight starts the task on its own runtime. The slot stores a function pointer, so that
//! flights can start the task without depending on its code.

use std::sync::{Arc, PoisonError};

use crate::sync::{AbortHandle, Handle, Mutex, MutexGuard};

/// Starts the task on a runtime.
pub(super) type Spawn<S> = fn(&Arc<S>, Handle) -> AbortHandle;

pub(super) struct Keeper<S> {
    guards: usize,
    task: Option<AbortHandle>,
    spawn: Option<Spawn<S>>,
}

impl<S> Default for Keeper<S> {
    fn default() -> Self {
        Self {
            guards: 0,
            task: None,
            spawn: None,
        }
    }
}

impl<S> Keeper<S> {
    /// Adds a guard.
    pub(super) fn add(slot: &Mutex<Self>, spawn: Spawn<S>) {
        let mut keeper = lock(slot);
        keeper.guards += 1;
        keeper.spawn = Some(spawn);
    }

    /// Removes a guard. The last one stops the task.
    pub(super) fn remove(slot: &Mutex<Self>) {
        let task = {
            let mut keeper = lock(slot);
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

    /// Starts the task if a guard exists, the task does not run, and there is a runtime.
    pub(super) fn ensure(slot: &Mutex<Self>, shared: &Arc<S>, runtime: Option<Handle>) {
        let mut keeper = lock(slot);
        let runs = keeper.task.as_ref().is_some_and(|task| !task.is_finished());
        if keeper.guards == 0 || runs {
            return;
        }
        if let (Some(spawn), Some(runtime)) = (keeper.spawn, runtime) {
            keeper.task = Some(spawn(shared, runtime));
        }
    }
}

fn lock<S>(slot: &Mutex<Keeper<S>>) -> MutexGuard<'_, Keeper<S>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
