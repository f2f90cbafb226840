//! The program's heap and tasks.

use std::{
    fs,
    time::{Duration, Instant},
};

use peak_alloc::PeakAlloc;
use tokio::{runtime::Handle, time};

use crate::ledger::{Bound, Ledger};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// How much more than the level may be on the heap at rest. The cache may have an error, tokio frees the
/// slots of its sockets in groups, and tables keep their size. A kilobyte or two is usual, also after
/// hours. The level is that of the beginning, so that small leaks add up and show.
const HEAP_TOLERANCE: usize = 8 * 1024;
/// The wait for rest. Idle connections are kept for less; this is for machines that stall.
const LONGEST: Duration = Duration::from_secs(30);

/// Heap and tasks at rest.
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

    /// Waits until neither falls any more, and returns the level.
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

    /// Waits until there are no more tasks than in this level, and no more heap except for the tolerance.
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

/// The peak size of the heap.
pub(crate) fn peak_heap() -> usize {
    HEAP.peak_usage()
}

/// The peak memory of the process, where the system reports it.
pub(crate) fn peak_memory() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
