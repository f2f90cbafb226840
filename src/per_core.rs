//! [`PerCore`]: copies of a value, of which each thread uses one.
//!
//! A reference count that two threads change is a cache line that travels between their cores on
//! every request, and the one thing that keeps a service from scaling. So what a request clones
//! (the header's value, the handle to its layer) exists a few times over, each with a count in a
//! cache line of its own.
//!
//! Invariant: all copies are worth the same; which one a thread gets decides nothing.

use std::{
    cell::Cell,
    num::NonZero,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

/// Threads beyond this share copies: each copy of a token takes memory.
const MOST_COPIES: usize = 16;

/// Copies of a value.
#[derive(Debug)]
pub(crate) struct PerCore<T> {
    first: T,
    more: Box<[T]>,
}

impl<T> PerCore<T> {
    /// As many as are of use on this machine: `first`, and copies that `copy` makes of it.
    pub(crate) fn new(first: T, copy: impl Fn(&T) -> T) -> Self {
        let more = (1..copies()).map(|_| copy(&first)).collect();
        Self { first, more }
    }

    /// This thread's.
    #[inline]
    pub(crate) fn mine(&self) -> &T {
        // The number of copies is a power of two.
        let at = thread_number() & self.more.len();
        self.more.get(at).unwrap_or(&self.first)
    }

    /// The same for all threads.
    pub(crate) fn first(&self) -> &T {
        &self.first
    }
}

/// A value whose address has a pair of cache lines for itself: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CacheAligned<T>(pub(crate) T);

fn copies() -> usize {
    static COPIES: OnceLock<usize> = OnceLock::new();
    *COPIES.get_or_init(|| {
        let cores = available_parallelism().map_or(1, NonZero::get);
        cores.next_power_of_two().min(MOST_COPIES)
    })
}

/// Numbers for threads in the order in which they first ask.
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
    fn a_thread_keeps_its_copy_and_the_next_thread_has_the_next() {
        let spread = PerCore::new(0, |_| 1);
        let mine = || std::ptr::from_ref(spread.mine()) as usize;
        assert_eq!(mine(), mine());
        let of_threads = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..copies()).map(|_| scope.spawn(mine)).collect();
            let copies = threads.into_iter().map(|thread| thread.join().unwrap());
            copies.collect::<Vec<_>>()
        });
        assert!(of_threads.iter().all(|copy| *copy != 0));
        assert_eq!(spread.more.len() + 1, copies());
    }

    #[test]
    fn every_number_has_a_copy() {
        for copies in [1usize, 2, 4, 8, 16] {
            let spread = PerCore {
                first: 0,
                more: (1..copies).collect(),
            };
            let at = |number: usize| {
                let at = number & spread.more.len();
                *spread.more.get(at).unwrap_or(&spread.first)
            };
            let mut seen: Vec<_> = (0..copies).map(at).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..copies).collect::<Vec<_>>());
        }
    }
}
