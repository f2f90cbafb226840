//! When to ask again after a failure: pure functions.

use std::time::Duration;

use crate::error::{Error, Retry};

/// The shortest pause after a failed flight.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// The longest pause that doubling leads to.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is obeyed.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
/// The pause after an error that somebody has to mend.
pub(super) const TERMINAL: Duration = Duration::from_secs(5 * 60);

/// How often one flight asks, when callers wait for it.
pub(super) const ATTEMPTS: u32 = 3;
/// The pause between two attempts of one flight: the first; it doubles.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
/// A `Retry-After` longer than this ends the flight, and its callers are told.
const LONGEST_WAIT_IN_FLIGHT: Duration = Duration::from_secs(3);

/// The pause after the `failures`-th failed flight in a row (from 1), counted from its end: drawn
/// from d/2 to d with d = 1 s, 2 s, 4 s … 60 s, never under 1 s. `jitter` is in [0, 1].
pub(super) fn after_failure(error: &Error, failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(6);
    let full = (SHORTEST * 2u32.pow(doublings)).min(LONGEST);
    let drawn = full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
    let pause = match error.retry() {
        Retry::Never => TERMINAL,
        Retry::Soon | Retry::Later => drawn.max(SHORTEST),
    };
    let asked = error.server_wait().unwrap_or_default();
    pause.max(asked.min(LONGEST_RETRY_AFTER))
}

/// The pause before attempt `attempt + 1` of a flight whose attempt `attempt` (from 1) failed with
/// `error`; `None` to give up.
pub(super) fn between_attempts(error: &Error, attempt: u32) -> Option<Duration> {
    if error.retry() != Retry::Soon || attempt >= ATTEMPTS {
        return None;
    }
    let pause = BETWEEN_ATTEMPTS * 2u32.pow(attempt.saturating_sub(1).min(6));
    let asked = error.server_wait().unwrap_or_default();
    (asked <= LONGEST_WAIT_IN_FLIGHT).then(|| pause.max(asked))
}

/// The pause between two flights that rejections caused: 1 s after the first, doubling to 60 s.
pub(super) fn after_rejection(flights: u32) -> Duration {
    (SHORTEST * 2u32.pow(flights.saturating_sub(1).min(6))).min(LONGEST)
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
    fn pauses_double_to_a_minute_and_are_jittered_downwards() {
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
    fn at_most_seven_flights_in_an_outage_s_first_minute() {
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
    fn terminal_errors_rest_five_minutes() {
        assert_eq!(after_failure(&error(Retry::Never, None), 1, 0.0), TERMINAL);
        let asked = error(Retry::Never, Some(400));
        assert_eq!(after_failure(&asked, 1, 0.0).as_secs(), 400);
    }

    #[test]
    fn a_flight_tries_three_times_and_obeys_short_waits_only() {
        let soon = error(Retry::Soon, None);
        assert_eq!(between_attempts(&soon, 1), Some(Duration::from_millis(200)));
        assert_eq!(between_attempts(&soon, 2), Some(Duration::from_millis(400)));
        assert_eq!(between_attempts(&soon, 3), None);
        assert_eq!(between_attempts(&error(Retry::Later, None), 1), None);
        assert_eq!(between_attempts(&error(Retry::Never, None), 1), None);
        let asked = |wait| between_attempts(&error(Retry::Soon, Some(wait)), 1);
        assert_eq!(asked(2), Some(Duration::from_secs(2)));
        assert_eq!(asked(4), None);
    }

    #[test]
    fn rejections_double_to_a_minute() {
        let pauses: Vec<_> = (1..9).map(|n| after_rejection(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
