//! Contenders measured in turns: whatever slows the machine down slows all of them down.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

/// Does its work as often as it is told.
pub type Work<'a> = Box<dyn FnMut(u64) + 'a>;

/// What a round of `times` costs one after the other, in nanoseconds for each time: per contender,
/// a figure for each round.
pub fn interleaved(rounds: usize, times: u64, contenders: &mut [Work<'_>]) -> Vec<Vec<f64>> {
    let mut figures = vec![Vec::with_capacity(rounds); contenders.len()];
    for contender in contenders.iter_mut() {
        contender(times);
    }
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Nobody always comes first.
            let at = (round + turn) % contenders.len();
            let start = Instant::now();
            contenders[at](times);
            figures[at].push(per_time(start.elapsed(), times));
        }
    }
    figures
}

/// The CPU time for each time, in nanoseconds, when each of `workers` works in a thread of its own
/// at the same time as the others.
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

/// What this thread has had of a processor: unlike the clock on the wall, it stands still while
/// another process has it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn cpu_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The clock on the wall will have to do.
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

/// What so many percent of the figures are below.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Round by round.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}
