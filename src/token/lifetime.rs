//! How long tokens live, and how long before their expiry they are refreshed: pure functions.

use std::time::Duration;

/// A century: the longest lifetime that is stored, so that no sum with it overflows.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The refresh window is this share of the lifetime …
const WINDOW_SHARE: u32 = 4;
/// … but at most this …
const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);
/// … or this, for lifetimes of [`LONG_LIFETIME`] and more.
const MAX_WINDOW_OF_LONG: Duration = Duration::from_secs(60 * 60);
const LONG_LIFETIME: Duration = Duration::from_secs(4 * 60 * 60);

/// Returns how long before its expiry a token of this lifetime is refreshed at the earliest.
pub(crate) fn max_refresh_window(lifetime: Duration) -> Duration {
    let max = if lifetime >= LONG_LIFETIME {
        MAX_WINDOW_OF_LONG
    } else {
        MAX_WINDOW
    };
    (lifetime / WINDOW_SHARE).min(max)
}
