//! How much of its input a parser looks at: counted in tests and by the fuzz targets, which hold it
//! against the length of the input. In other builds there is nothing of it.

/// So many bytes of the input are gone over.
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

    /// What comes of `work`, and how many bytes were looked at for it.
    pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
        let before = LOOKED_AT.get();
        let done = work();
        (done, LOOKED_AT.get() - before)
    }
}
