//! The maximum lifetime of a token, and its refresh window: pure functions.

use std::time::Duration;

/// The maximum lifetime that is stored: a century, so that no sum overflows.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The refresh window is the lifetime divided by this.
const WINDOW_SHARE: u32 = 4;
/// The maximum refresh window.
const MAX_WINDOW: Duration = Duration::from_secs(15 * 60);
/// The maximum refresh window for lifetimes of [`LONG_LIFETIME`] or more.
const MAX_WINDOW_OF_LONG: Duration = Duration::from_secs(60 * 60);
const LONG_LIFETIME: Duration = Duration::from_secs(4 * 60 * 60);

/// Returns the maximum refresh window: how long before its expiry a token is refreshed at the earliest.
pub(crate) fn max_refresh_window(lifetime: Duration) -> Duration {
    let max = if lifetime >= LONG_LIFETIME {
        MAX_WINDOW_OF_LONG
    } else {
        MAX_WINDOW
    };
    (lifetime / WINDOW_SHARE).min(max)
}
