//! The faults.

/// A fault, which lasts until the test ends it. Clocks are set once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No fault, for comparison.
    None,
    Network(Network),
    /// A response of the token endpoint.
    Answer(Answer),
    /// A clock jumps.
    Clock(Clock, When),
    Store(Store),
    Api(Api),
}

/// A fault between the client and the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// No server listens on the port.
    Refused,
    /// The host's name cannot be resolved.
    NoSuchName,
    /// The client does not trust the certificate.
    Tls,
    /// The server accepts the connection and reads nothing.
    Accepts,
    /// The server reads the request and never answers.
    Silence,
    /// The response arrives byte by byte.
    Drip,
    ResetBefore,
    ResetDuring,
    ResetAfter,
    Closed,
    Truncated,
    Oversized,
    /// The response is not HTTP.
    Garbage,
    /// The response is HTTP, but no token response.
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A redirect to another host.
    Redirect(u16),
    Status {
        status: u16,
        /// The OAuth error code in its body.
        oauth: Option<&'static str>,
        /// In seconds.
        retry_after: Option<u64>,
    },
    /// A new token that has already expired.
    Expired,
    /// The same token as before, with its remaining lifetime.
    Same,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The wall clock is set back an hour.
    Back,
    /// The wall clock is set forward a day.
    Forward,
    /// The machine sleeps for two hours: the monotonic clock stops, the wall clock continues.
    Suspend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    /// While the token request is in flight.
    Meanwhile,
}

/// A fault of a session's store. All other faults are tested without a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// No fault, for comparison.
    Sound,
    /// Writing fails.
    Full,
    /// Locking fails, because it opens a file for writing.
    ReadOnly,
    /// Locking works, reading fails.
    Unreadable,
    /// Another process has the lock.
    Busy,
    /// The stored data is not a session.
    Corrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// It rejects every token.
    RefusesAll,
    /// It answers 403: the token is valid, but has no permission.
    Forbids,
    /// The connection breaks when the request is sent again.
    Breaks,
}

impl Fault {
    /// Whether only the time limit ends the token request.
    pub(crate) fn hangs(self) -> bool {
        matches!(
            self,
            Self::Network(Network::Accepts | Network::Silence | Network::Drip)
        )
    }
}
