//! What happens to a token, for operators: [`Event`].
//!
//! Events are told from where they happen, to the listener of the cache, to `tracing` and to
//! `metrics`, as far as these are there. Invariants: no event shows a secret; none is told with a
//! lock held; a request with a good token in hand tells none.

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

/// What has just happened to the token of a [`TokenCache`](crate::TokenCache): for a listener
/// ([`TokenCacheBuilder::on_event`](crate::TokenCacheBuilder::on_event)).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The source is asked for a token.
    #[non_exhaustive]
    Requested {
        /// Why.
        reason: FetchReason,
        /// The first, or one after a failure while callers wait.
        attempt: u32,
    },
    /// A token came.
    #[non_exhaustive]
    Obtained {
        /// Why it was asked for.
        reason: FetchReason,
        /// Which attempt it was.
        attempt: u32,
        /// How long that attempt took.
        took: Duration,
        /// How many callers waited for it.
        waiters: usize,
        /// When the token ends, if that is known.
        expires_at: Option<SystemTime>,
    },
    /// An attempt failed. [`Error::retry_after`] says when the next one is due.
    #[non_exhaustive]
    Failed {
        /// Why a token was asked for.
        reason: FetchReason,
        /// Which attempt it was.
        attempt: u32,
        /// How long it took.
        took: Duration,
        /// How many callers wait for a token.
        waiters: usize,
        /// What they are told, if this was the last attempt.
        error: &'a Error,
    },
    /// A caller has waited for a token.
    #[non_exhaustive]
    Waited {
        /// For how long.
        took: Duration,
    },
    /// The API refused the token that the cache has.
    #[non_exhaustive]
    Rejected {},
    /// A request that the API had refused was sent again with another token, and was not refused
    /// then.
    #[non_exhaustive]
    Recovered {},
}

type Listener = dyn Fn(&Event<'_>) + Send + Sync;

/// Who is told.
#[derive(Clone, Default)]
pub(crate) struct Events {
    /// Of the cache.
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
            // Told of a panic of the source's while the task unwinds, a second one would abort.
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

/// For labels and fields.
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
