//! Counts the bytes that parsers read. Tests and fuzz targets compare the count with the length of the
//! input. In other builds it does nothing.

/// Counts `bytes` bytes of the input as read.
#[inline]
pub(crate) fn looked_at(bytes: usize) {
    #[cfg(any(test, fuzzing))]
    counting::LOOKED_AT.set(counting::LOOKED_AT.get() + bytes);
    #[cfg(not(any(test, fuzzing)))]
    let _ = bytes;
}

#[cfg(any(test, fuzzing))]
pub(crate) use self::counting::counted;

#[cfg(any(test, fuzzing))]
mod counting {
    use std::cell::Cell;

    thread_local! {
        pub(super) static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    /// Returns the result of `work`, and how many bytes it read.
    pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = LOOKED_AT.get();
        let done = work();
        (done, LOOKED_AT.get() - before)
    }
}
