//! [`Event`]: what happens to a token, for operators.
//!
//! Each event goes to the callback of the cache, to `tracing` and to `metrics`, where configured.
//!
//! Invariants:
//! - No event shows a secret.
//! - No event is emitted while a lock is held.
//! - A request with a valid cached token emits no event.

#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "metrics")]
mod meter;

use std::{
    borrow::Cow,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{error::Error, token::FetchReason};

/// An event in the life of a [`TokenCache`](crate::TokenCache)'s token, for the callback of
/// [`TokenCacheBuilder::on_event`](crate::TokenCacheBuilder::on_event).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt of a token request starts.
    #[non_exhaustive]
    Requested {
        /// Why the token was requested.
        reason: FetchReason,
        /// The number of the attempt, from 1. Further attempts are retries while callers wait.
        attempt: u32,
    },
    /// The source returned a token.
    #[non_exhaustive]
    Obtained {
        /// Why the token was requested.
        reason: FetchReason,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The duration of this attempt.
        took: Duration,
        /// How many callers waited for the token.
        waiters: usize,
        /// When the token expires, if its expiry is known.
        expires_at: Option<SystemTime>,
    },
    /// An attempt failed. [`Error::retry_after`] says when the next one is due.
    #[non_exhaustive]
    Failed {
        /// Why the token was requested.
        reason: FetchReason,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The duration of this attempt.
        took: Duration,
        /// How many callers wait for the token.
        waiters: usize,
        /// The error, which callers get if this was the last attempt.
        error: &'a Error,
    },
    /// A caller has waited for a token.
    #[non_exhaustive]
    Waited {
        /// How long the caller waited.
        took: Duration,
    },
    /// The API rejected the cached token.
    #[non_exhaustive]
    Rejected {},
    /// A rejected request was sent again with another token, which the API accepted.
    #[non_exhaustive]
    Recovered {},
}

type Listener = dyn Fn(&Event<'_>) + Send + Sync;

/// The receivers of a cache's events.
#[derive(Clone, Default)]
pub(crate) struct Events {
    /// The name of the cache.
    pub(crate) name: Cow<'static, str>,
    pub(crate) listener: Option<Arc<Listener>>,
}

impl Events {
    pub(crate) fn emit(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        log::log(&self.name, event);
        #[cfg(feature = "metrics")]
        meter::count(&self.name, event);
        if let Some(listener) = &self.listener {
            // The event may report a panic of the source while its task unwinds: a second panic would
            // abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(event)));
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "tracing")]
pub(crate) use log::span;

/// The value of labels and fields.
#[cfg(any(feature = "tracing", feature = "metrics"))]
fn word(reason: FetchReason) -> &'static str {
    match reason {
        FetchReason::First => "first",
        FetchReason::ExpiresSoon => "expires_soon",
        FetchReason::Expired => "expired",
        FetchReason::Rejected => "rejected",
        FetchReason::Manual => "manual",
    }
}
