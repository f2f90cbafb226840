//! [`PerCore`]: copies of a value, of which each thread uses one.
//!
//! If threads share a reference count, its cache line moves between their cores on every request, and
//! the service does not scale. So the values that a request clones (the header's value, the handle to
//! its layer) exist once per core, each with its count in a cache line of its own.
//!
//! Invariant: all copies are equivalent, so any thread may use any copy.

use std::{
    cell::Cell,
    num::NonZero,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

/// Further threads share copies, since each copy of a token takes memory.
const MAX_COPIES: usize = 16;

/// Copies of a value.
#[derive(Debug)]
pub(crate) struct PerCore<T> {
    first: T,
    more: Box<[T]>,
}

impl<T> PerCore<T> {
    /// Creates one copy per core, up to a limit: `first`, and the results of `copy`.
    pub(crate) fn new(first: T, copy: impl Fn(&T) -> T) -> Self {
        let more = (1..copies()).map(|_| copy(&first)).collect();
        Self { first, more }
    }

    /// Returns this thread's copy.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        // The number of copies is a power of two.
        let at = thread_number() & self.more.len();
        self.more.get(at).unwrap_or(&self.first)
    }

    /// Returns the first copy, the same for all threads.
    pub(crate) fn first(&self) -> &T {
        &self.first
    }
}

/// A value alone on a pair of cache lines, since processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CacheAligned<T>(pub(crate) T);

fn copies() -> usize {
    static COPIES: OnceLock<usize> = OnceLock::new();
    *COPIES.get_or_init(|| {
        let cores = available_parallelism().map_or(1, NonZero::get);
        cores.next_power_of_two().min(MAX_COPIES)
    })
}

/// Returns this thread's number. Threads are numbered in the order of their first calls.
#[inline]
fn thread_number() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    #[cold]
    fn number() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(number);
        number
    }

    match NUMBER.get() {
        usize::MAX => number(),
        number => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_keeps_one_copy() {
        let per_core = PerCore::new(0, |_| 1);
        let mine = || std::ptr::from_ref(per_core.mine()) as usize;
        assert_eq!(mine(), mine());
        let of_threads = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..copies()).map(|_| scope.spawn(mine)).collect();
            let copies = threads.into_iter().map(|thread| thread.join().unwrap());
            copies.collect::<Vec<_>>()
        });
        assert!(of_threads.iter().all(|copy| *copy != 0));
        assert_eq!(per_core.more.len() + 1, copies());
    }

    #[test]
    fn thread_numbers_reach_every_copy_once() {
        for copies in [1usize, 2, 4, 8, 16] {
            let per_core = PerCore {
                first: 0,
                more: (1..copies).collect(),
            };
            let at = |number: usize| {
                let at = number & per_core.more.len();
                *per_core.more.get(at).unwrap_or(&per_core.first)
            };
            let mut seen: Vec<_> = (0..copies).map(at).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..copies).collect::<Vec<_>>());
        }
    }
}
