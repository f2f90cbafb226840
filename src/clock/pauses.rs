//! [`Pauses`]: the delays of a loop that polls a state which another process changes.

use std::time::Duration;

/// Delays that double from `first` to `max`. Each is reduced by up to a half at random, so that
/// processes that start together do not poll together.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
    max: Duration,
}

impl Pauses {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Returns the next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(1.0 - rand::random::<f64>() / 2.0);
        self.next = (self.next * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_jitter_shortens_them() {
        let (first, max) = (Duration::from_millis(20), Duration::from_millis(500));
        for _ in 0..100 {
            let mut pauses = Pauses::new(first, max);
            for whole in [20, 40, 80, 160, 320, 500, 500].map(Duration::from_millis) {
                let pause = pauses.next();
                assert!(
                    pause >= whole / 2 && pause <= whole,
                    "{pause:?} of {whole:?}"
                );
            }
        }
    }

    #[test]
    fn two_sequences_of_pauses_differ() {
        let sequence = || {
            let mut pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(60));
            [(); 8].map(|()| pauses.next())
        };
        assert_ne!(sequence(), sequence());
    }
}
