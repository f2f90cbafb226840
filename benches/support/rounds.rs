//! Contenders, measured in turns: what slows the machine down slows all of them down.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

/// Does its work this many times.
pub type Work<'a> = Box<dyn FnMut(u64) + 'a>;

/// Measures rounds of `times` of each contender, in turns. Returns, for each contender, the nanoseconds
/// for one time in each round.
pub fn interleaved(rounds: usize, times: u64, contenders: &mut [Work<'_>]) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(rounds); contenders.len()];
    for contender in contenders.iter_mut() {
        contender(times);
    }
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Each round starts with another contender.
            let at = (round + turn) % contenders.len();
            let start = Instant::now();
            contenders[at](times);
            figures[at].push(per_time(start.elapsed(), times));
        }
    }
    figures
}

/// Runs all `workers` at the same time, each in a thread of its own. Returns the CPU time for one time,
/// in nanoseconds.
pub fn at_once(times: u64, workers: Vec<Box<dyn FnMut(u64) + Send + '_>>) -> f64 {
    let threads = workers.len();
    let barrier = Barrier::new(threads);
    let total: Duration = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    work(times / 8);
                    barrier.wait();
                    let start = cpu_time();
                    work(times);
                    cpu_time() - start
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    per_time(total, times * threads as u64)
}

/// The CPU time of this thread. Unlike real time, it stands still while another process has the processor.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn cpu_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// Real time, where the CPU time is not available.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn cpu_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

fn per_time(time: Duration, times: u64) -> f64 {
    time.as_nanos() as f64 / times as f64
}

pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The value that so many percent of the figures are below.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// The ratios of two lists of figures, round by round.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}
