//! [`Port`]: the destination of a request.

/// The destination of a request: a server, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Token,
    Api,
    /// The authorization endpoint, on the socket of `Token`.
    Browser,
}
