//! [`Keeper`]: the slot of the task that keeps a token fresh.
//!
//! The task needs a runtime. If there is none when a guard is made, or its runtime is gone, the next
//! flight (which has one) starts the task. The slot knows the task by a function pointer, so that
//! flights can start it without depending on what it does.

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
    /// One guard more.
    pub(super) fn add(slot: &Mutex<Self>, spawn: Spawn<S>) {
        let mut keeper = lock(slot);
        keeper.guards += 1;
        keeper.spawn = Some(spawn);
    }

    /// One guard less. The last one stops the task.
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

    /// Starts the task if a guard needs it, it does not run, and there is a runtime.
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
