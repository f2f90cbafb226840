//! [`sync`](super) for the model checker shuttle. A [`point`], where shuttle may switch to another task,
//! precedes each action that other tasks can see.
//!
//! Locks and atomics are shuttle's. `watch` and `Notify` are tokio's, assumed to be correct: each use is
//! one step, after a point. Memory is sequentially consistent, so this finds no fault in the orderings of
//! atomics.

#![allow(missing_docs, reason = "not part of any documented build")]
#![allow(clippy::panic, reason = "the model needs a runtime")]

use std::{
    future::Future,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    sync::{Arc, OnceLock, PoisonError},
    task::{Context, Poll},
};

pub use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicBool};

/// Lets shuttle switch to any other task.
fn point() {
    AtomicBool::default().load(std::sync::atomic::Ordering::SeqCst);
}

/// Runs `future`, with a point before each poll.
async fn pointed<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        point();
        future.as_mut().poll(cx)
    })
    .await
}

#[derive(Debug, Default)]
pub struct ArcSwap<T>(std::sync::Mutex<Arc<T>>);

impl<T> ArcSwap<T> {
    pub fn load(&self) -> Arc<T> {
        point();
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn store(&self, new: Arc<T>) {
        point();
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *held, new);
        // Outside the lock: dropping the old value may reach a point.
        drop(held);
        drop(old);
    }
}

#[derive(Debug)]
pub struct Notify(tokio::sync::Notify);

impl Notify {
    pub fn new() -> Self {
        Self(tokio::sync::Notify::new())
    }

    pub fn notify_one(&self) {
        point();
        self.0.notify_one();
    }

    pub async fn notified(&self) {
        pointed(self.0.notified()).await;
    }
}

pub mod watch {
    use tokio::sync::watch;
    pub use tokio::sync::watch::{Ref, error::RecvError};

    use super::{point, pointed};

    pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = watch::channel(first);
        (Sender(sender), Receiver(receiver))
    }

    #[derive(Debug)]
    pub struct Sender<T>(watch::Sender<T>);

    impl<T> Sender<T> {
        pub fn send_replace(&self, value: T) -> T {
            point();
            self.0.send_replace(value)
        }

        pub fn receiver_count(&self) -> usize {
            point();
            self.0.receiver_count()
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            // The channel closes after this.
            point();
        }
    }

    #[derive(Clone, Debug)]
    pub struct Receiver<T>(watch::Receiver<T>);

    impl<T> Receiver<T> {
        pub async fn wait_for(
            &mut self,
            good: impl FnMut(&T) -> bool,
        ) -> Result<Ref<'_, T>, RecvError> {
            pointed(self.0.wait_for(good)).await
        }
    }
}

/// The panic of a source (`resume_unwind`), as distinct from a panic of the model.
#[derive(Debug)]
pub struct Crash;

/// A runtime for tasks. Timers are those of `ManualClock`.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<std::sync::Mutex<Runtime>>);

#[derive(Debug, Default)]
struct Runtime {
    is_down: bool,
    tasks: Vec<shuttle::future::AbortHandle>,
}

/// The error for no runtime, which never occurs in the model.
#[derive(Debug)]
pub struct NoRuntime;

impl Handle {
    pub fn try_current() -> Result<Self, NoRuntime> {
        Ok(Self::default())
    }

    /// Like tokio's: a panic ends only the task, and a runtime that was shut down drops the task at
    /// once.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        point();
        if self.lock().is_down {
            return AbortHandle(None);
        }
        let spawned = shuttle::future::spawn(Contained(Some(Box::pin(task))));
        let task = spawned.abort_handle();
        // Dropping the handle would detach the task. Kept, a schedule ends when all its tasks have.
        std::mem::forget(spawned);
        let mut runtime = self.lock();
        runtime.tasks.push(task.clone());
        let is_down = runtime.is_down;
        drop(runtime);
        if is_down {
            task.abort();
        }
        AbortHandle(Some(task))
    }

    /// Drops all tasks of this runtime.
    pub fn shut_down(&self) {
        point();
        let tasks = {
            let mut runtime = self.lock();
            runtime.is_down = true;
            std::mem::take(&mut runtime.tasks)
        };
        for task in tasks {
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Runtime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle for the clock. Its runtime is not driven and has no timer, so tokio panics on a use.
impl Deref for Handle {
    type Target = tokio::runtime::Handle;

    fn deref(&self) -> &Self::Target {
        static NOTHING: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
        let runtime = || tokio::runtime::Builder::new_current_thread().build();
        NOTHING
            .get_or_init(|| runtime().unwrap_or_else(|error| panic!("{error}")))
            .handle()
    }
}

/// `None`: the task was spawned on a runtime that was shut down.
#[derive(Debug)]
pub struct AbortHandle(Option<shuttle::future::AbortHandle>);

impl AbortHandle {
    #[must_use]
    pub fn abort_handle(self) -> Self {
        self
    }

    pub fn abort(&self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }

    pub fn is_finished(&self) -> bool {
        point();
        self.0.as_ref().is_none_or(|task| task.is_finished())
    }
}

/// A task that catches its own [`Crash`].
struct Contained(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Contained {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(task) = &mut self.0 else {
            return Poll::Ready(());
        };
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(crash) if crash.is::<Crash>() => {
                self.0 = None;
                Poll::Ready(())
            }
            // A failed assertion, or the end of the model itself.
            Err(other) => resume_unwind(other),
        }
    }
}
