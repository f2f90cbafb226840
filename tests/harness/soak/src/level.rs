//! What the program holds: heap and tasks.

use std::{
    fs,
    time::{Duration, Instant},
};

use peak_alloc::PeakAlloc;
use tokio::{runtime::Handle, time};

use crate::ledger::{Bound, Ledger};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What may be on the heap at rest beyond the level: the cache has an error or it has none, tokio
/// frees the slots of its sockets some at a time, tables keep their size. A kilobyte or two is usual,
/// also after hours: the level is that of the beginning, so that these never add up.
const HEAP_TOLERANCE: usize = 8 * 1024;
/// Coming to rest takes as long as idle connections are kept; this is for machines that stall.
const LONGEST: Duration = Duration::from_secs(30);

/// What is held at rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) heap: usize,
    pub(crate) tasks: usize,
}

impl Level {
    pub(crate) fn now() -> Self {
        Self {
            heap: HEAP.current_usage(),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// The level once nothing changes any more.
    pub(crate) async fn settled() -> Self {
        let mut settled = Self::now();
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) {
            time::sleep(Duration::from_millis(20)).await;
            let now = Self::now();
            if now.heap < settled.heap || now.tasks < settled.tasks {
                (settled, since) = (now, Instant::now());
            }
        }
        settled
    }

    /// Waits until this level is reached again: as many tasks, and no more heap but for the
    /// tolerance.
    pub(crate) async fn is_back(&self, ledger: &Ledger) -> Self {
        let since = Instant::now();
        loop {
            let now = Self::now();
            if now.tasks <= self.tasks && now.heap <= self.heap + HEAP_TOLERANCE {
                return now;
            }
            if since.elapsed() > LONGEST {
                let what = format!(
                    "{} tasks and {} bytes, {LONGEST:?} after the last request; {} and {} at the \
                     beginning",
                    now.tasks, now.heap, self.tasks, self.heap,
                );
                ledger.violate(Bound::BackToLevel, what);
                return now;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The most there ever was on the heap.
pub(crate) fn peak_heap() -> usize {
    HEAP.peak_usage()
}

/// The most memory that the process ever had, where the system says so.
pub(crate) fn peak_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
