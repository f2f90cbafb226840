//! [`Port`]: what a request came to.

/// Which of the two servers, and which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Token,
    Api,
    /// The authorization endpoint, on the port of `Token`.
    Browser,
}
