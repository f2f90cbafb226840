//! criterion, measuring ratios in place of time.

use std::time::Instant;

use criterion::{
    Throughput,
    measurement::{Measurement, ValueFormatter},
};

use super::rounds::Work;

/// How many times as long one thing takes as another.
pub struct Ratio;

impl Ratio {
    /// `work` against `floor`, for `Bencher::iter_custom`: in turns of about a tenth of a
    /// millisecond, too short for the machine to change between them.
    pub fn of<'a>(mut work: Work<'a>, mut floor: Work<'a>) -> impl FnMut(u64) -> f64 + 'a {
        const TURN: u64 = 1_000;
        move |times| {
            let (mut ours, mut theirs) = (0.0, 0.0);
            let mut left = times.max(1);
            let mut first = false;
            while left > 0 {
                let turn = left.min(TURN);
                left -= turn;
                first = !first;
                for mine in [first, !first] {
                    let start = Instant::now();
                    if mine {
                        work(turn)
                    } else {
                        floor(turn)
                    }
                    let time = start.elapsed().as_secs_f64();
                    *if mine { &mut ours } else { &mut theirs } += time;
                }
            }
            // criterion divides by the iterations.
            ours / theirs * times as f64
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
