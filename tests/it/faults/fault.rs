//! What goes wrong.

/// One thing that goes wrong, and stays wrong until it is mended; clocks are set once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: for comparison.
    None,
    Network(Network),
    /// An answer of the token endpoint.
    Answer(Answer),
    /// The clocks do not go on as they should.
    Clock(Clock, When),
    Store(Store),
    Api(Api),
}

/// Between us and the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Nobody listens.
    Refused,
    /// The host's name cannot be resolved.
    NoSuchName,
    /// The certificate is not one that we trust.
    Tls,
    /// The connection is accepted, and nothing is read.
    Accepts,
    /// The request is read, and nothing is said.
    Silence,
    /// An answer that comes byte by byte.
    Drip,
    ResetBefore,
    ResetDuring,
    ResetAfter,
    Closed,
    Truncated,
    Oversized,
    /// No HTTP.
    Garbage,
    /// HTTP, and no token response.
    Html,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To another host.
    Redirect(u16),
    Status {
        status: u16,
        /// The OAuth error of its body.
        oauth: Option<&'static str>,
        /// In seconds.
        retry_after: Option<u64>,
    },
    /// A new token that is over when it comes.
    Over,
    /// The token that was given before, with the rest of its life.
    Same,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The wall clock is set back an hour.
    Back,
    /// The wall clock is set forward a day.
    Forward,
    /// The machine sleeps for two hours: the monotonic clock stands, the wall clock goes on.
    Suspend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    /// The token request is under way.
    Meanwhile,
}

/// The store of a session. All others are without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// Nothing: for comparison.
    Sound,
    /// What is written fails.
    Full,
    /// Its lock cannot be taken, for which a file has to be opened.
    ReadOnly,
    /// It can be locked, and not be read.
    Unreadable,
    /// Somebody else has the lock.
    Busy,
    /// What is in it is no session.
    Corrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// It refuses every token.
    RefusesAll,
    /// It says that this token is good, and may not do that.
    Forbids,
    /// The connection breaks when the request is sent again.
    Breaks,
}

impl Fault {
    /// Nothing comes from the server, and its limit ends the token request.
    pub(crate) fn hangs(self) -> bool {
        matches!(
            self,
            Self::Network(Network::Accepts | Network::Silence | Network::Drip)
        )
    }
}
