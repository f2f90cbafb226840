//! The backoff after failed token requests: pure functions.

use std::time::Duration;

use crate::error::{Error, Retry};

/// Minimum backoff after a failed flight.
pub(super) const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Maximum backoff that doubling reaches.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Maximum `Retry-After` that is obeyed.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
/// Backoff after a permanent error.
pub(super) const PERMANENT_ERROR_BACKOFF: Duration = Duration::from_secs(5 * 60);

/// Maximum attempts of one flight, if callers wait for it.
pub(super) const MAX_ATTEMPTS: u32 = 3;
/// Delay before the second attempt of a flight. It doubles for the third.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(200);
/// A longer `Retry-After` ends the flight: its callers get the error.
const MAX_RETRY_AFTER_IN_FLIGHT: Duration = Duration::from_secs(3);

/// Returns the backoff after the `failures`-th failed flight in a row (from 1), counted from its end.
/// It lies between d/2 and d with d = 1 s, 2 s, 4 s … 60 s, and is at least 1 s. `jitter` is in [0, 1].
pub(super) fn after_failure(error: &Error, failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let full = (MIN_BACKOFF * 2u32.pow(doublings)).min(MAX_BACKOFF);
    let drawn = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    let pause = match error.retry() {
        Retry::Never => PERMANENT_ERROR_BACKOFF,
        Retry::Soon | Retry::Later => drawn.max(MIN_BACKOFF),
    };
    let retry_after = error.server_wait().unwrap_or_default();
    pause.max(retry_after.min(MAX_RETRY_AFTER))
}

/// Returns the delay before the next attempt of a flight whose attempt `attempt` (from 1) failed with
/// `error`. `None`: no further attempt.
pub(super) fn between_attempts(error: &Error, attempt: u32) -> Option<Duration> {
    if error.retry() != Retry::Soon || attempt >= MAX_ATTEMPTS {
        return None;
    }
    let pause = FIRST_RETRY_DELAY * 2u32.pow(attempt.saturating_sub(1).min(6));
    let retry_after = error.server_wait().unwrap_or_default();
    (retry_after <= MAX_RETRY_AFTER_IN_FLIGHT).then(|| pause.max(retry_after))
}

/// Returns the pause between two flights caused by rejections: 1 s after the first, doubling to 60 s.
pub(super) fn after_rejection(flights: u32) -> Duration {
    (MIN_BACKOFF * 2u32.pow(flights.saturating_sub(1).min(6))).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn error(retry: Retry, wait: Option<u64>) -> Error {
        Error::build(ErrorKind::Status, retry, "test")
            .server_wait(wait.map(Duration::from_secs))
            .done()
    }

    #[test]
    fn backoff_doubles_to_a_minute_and_jitter_shortens_it() {
        let later = error(Retry::Later, None);
        let full: Vec<_> = (1..9)
            .map(|n| after_failure(&later, n, 1.0).as_secs())
            .collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60]);
        let least: Vec<_> = (1..9)
            .map(|n| after_failure(&later, n, 0.0).as_secs())
            .collect();
        assert_eq!(least, [1, 1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn outage_causes_at_most_seven_flights_in_its_first_minute() {
        for jitter in [0.0, 0.3, 1.0] {
            let mut now = Duration::ZERO;
            let mut flights = 0;
            while now < Duration::from_secs(60) {
                flights += 1;
                now += after_failure(&error(Retry::Soon, None), flights, jitter);
            }
            assert!(flights <= 7, "{flights}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_up_to_ten_minutes() {
        let pause = |wait| after_failure(&error(Retry::Soon, Some(wait)), 1, 1.0).as_secs();
        assert_eq!(pause(0), 1);
        assert_eq!(pause(120), 120);
        assert_eq!(pause(999_999), 600);
    }

    #[test]
    fn permanent_error_backs_off_for_five_minutes() {
        assert_eq!(
            after_failure(&error(Retry::Never, None), 1, 0.0),
            PERMANENT_ERROR_BACKOFF
        );
        let longer = error(Retry::Never, Some(400));
        assert_eq!(after_failure(&longer, 1, 0.0).as_secs(), 400);
    }

    #[test]
    fn flight_makes_three_attempts_and_obeys_a_short_retry_after_only() {
        let soon = error(Retry::Soon, None);
        assert_eq!(between_attempts(&soon, 1), Some(Duration::from_millis(200)));
        assert_eq!(between_attempts(&soon, 2), Some(Duration::from_millis(400)));
        assert_eq!(between_attempts(&soon, 3), None);
        assert_eq!(between_attempts(&error(Retry::Later, None), 1), None);
        assert_eq!(between_attempts(&error(Retry::Never, None), 1), None);
        let retry_after = |wait| between_attempts(&error(Retry::Soon, Some(wait)), 1);
        assert_eq!(retry_after(2), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(4), None);
    }

    #[test]
    fn backoff_after_rejections_doubles_to_a_minute() {
        let pauses: Vec<_> = (1..9).map(|n| after_rejection(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
