//! Ratios instead of times, measured by criterion.

use criterion::{
    Throughput,
    measurement::{Measurement, ValueFormatter},
};

use super::rounds::{Work, interleaved, median, ratios};

/// The time of one piece of work as a multiple of another.
pub struct Ratio;

impl Ratio {
    /// Compares `work` with `floor`, for `Bencher::iter_custom`. Returns the median of rounds of about
    /// 0.1 ms, too short for the machine to change between the two.
    pub fn of<'a>(work: Work<'a>, floor: Work<'a>) -> impl FnMut(u64) -> f64 + 'a {
        const TIMES: u64 = 500;
        let mut contenders = [work, floor];
        move |times| {
            let rounds = times.div_ceil(TIMES) as usize;
            let figures = interleaved(rounds, TIMES, &mut contenders);
            // criterion divides by `times`.
            median(&ratios(&figures[0], &figures[1])) * times as f64
        }
    }
}

impl Measurement for Ratio {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}

    fn end(&self, (): ()) -> f64 {
        unreachable!("only iter_custom is used")
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Ratio {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "× the floor"
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        "× the floor"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ratio"
    }
}
