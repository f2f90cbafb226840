//! Events for `tracing`.

use std::time::SystemTime;

use tracing::{Span, debug, debug_span, info, trace, warn};

use super::{Event, word};
use crate::token::FetchReason;

/// The crate's name, independent of the file.
const TARGET: &str = "bearer_auth";

/// The span of a token request, so that the HTTP client's own events belong to it.
pub(crate) fn span(cache: &str, reason: FetchReason) -> Span {
    debug_span!(target: TARGET, "token_request", cache, reason = word(reason))
}

pub(super) fn log(cache: &str, event: &Event<'_>) {
    match event {
        Event::Requested { reason, attempt } => {
            debug!(target: TARGET, cache, reason = word(*reason), attempt, "requesting a token");
        }
        Event::Obtained {
            reason,
            attempt,
            took,
            waiters,
            expires_at,
        } => {
            let reason = word(*reason);
            let since = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).ok();
            // In Unix time, as in the metrics.
            let expires_at = expires_at.and_then(since).map(|end| end.as_secs());
            info!(target: TARGET, cache,
                reason,
                attempt,
                ?took,
                waiters,
                expires_at,
                "token obtained"
            );
        }
        Event::Failed {
            reason,
            attempt,
            took,
            waiters,
            error,
        } => {
            let (reason, kind) = (word(*reason), error.kind());
            warn!(target: TARGET, cache, reason, attempt, ?took, waiters, ?kind, %error, "token request failed");
        }
        Event::Waited { took } => trace!(target: TARGET, cache, ?took, "waited for a token"),
        Event::Rejected {} => info!(target: TARGET, cache, "the API rejected the token"),
        Event::Recovered {} => {
            info!(target: TARGET, cache, "a rejected request succeeded with another token")
        }
    }
}
