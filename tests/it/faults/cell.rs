//! The cells of the matrix, and how they are printed.

use std::{fmt, time::Duration};

use bearer_auth::ErrorKind;

/// When the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    First,
    RefreshWindow,
    Expired,
    After401,
    Resend,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::First,
        Self::RefreshWindow,
        Self::Expired,
        Self::After401,
        Self::Resend,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::First => "First token",
            Self::RefreshWindow => "Refresh ahead of expiry",
            Self::Expired => "Expired token",
            Self::After401 => "After a 401 to a request that cannot be sent again",
            Self::Resend => "After a 401 to a request that can be sent again",
        }
    }

    /// Whether the API rejects the cached token.
    pub(crate) fn is_refused(self) -> bool {
        matches!(self, Self::After401 | Self::Resend)
    }
}

/// A token from before the fault, or a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Old,
    New,
}

/// The outcome of the request that meets the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// The API's 200, to a request with this token.
    Sent(Token),
    /// No token, and this error.
    Error(ErrorKind),
    /// The API's 401.
    Refused,
    /// The API's 403.
    Forbidden,
    /// The error of the HTTP client that calls the API.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The request finishes at its first poll.
    No,
    /// The request waits for the token request, including these pauses.
    For(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Has {
    Nothing,
    Good(Token),
}

/// What happens next, while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// The time without token requests, exact to the nanosecond.
    pub(crate) pause: Duration,
    /// The number of token requests after the pause.
    pub(crate) asks: usize,
}

/// The expected outcome of a fault in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) sees: Sees,
    pub(crate) waits: Waits,
    /// How often the API gets the request.
    pub(crate) sent: usize,
    /// The number of token requests.
    pub(crate) asks: usize,
    /// `None`: no token request until the new token's refresh window.
    pub(crate) next: Option<Next>,
    pub(crate) has: Has,
}

/// The request gets the API's 200.
pub(crate) const fn sent(token: Token) -> Cell {
    cell(Sees::Sent(token), 1)
}

/// The request gets no token.
pub(crate) const fn error(kind: ErrorKind) -> Cell {
    cell(Sees::Error(kind), 0)
}

/// The request gets the API's 401.
pub(crate) const fn refused() -> Cell {
    cell(Sees::Refused, 1)
}

/// The request gets the API's 403.
pub(crate) const fn forbidden() -> Cell {
    cell(Sees::Forbidden, 1)
}

/// The request gets the HTTP client's error.
pub(crate) const fn broken() -> Cell {
    cell(Sees::Broken, 1)
}

const fn cell(sees: Sees, sent: usize) -> Cell {
    Cell {
        sees,
        waits: Waits::No,
        sent,
        asks: 0,
        next: None,
        has: Has::Nothing,
    }
}

impl Cell {
    /// The request waits for the token endpoint.
    pub(crate) const fn waits(self) -> Self {
        self.waits_ms(0)
    }

    pub(crate) const fn waits_ms(mut self, millis: u64) -> Self {
        self.waits = Waits::For(Duration::from_millis(millis));
        self
    }

    /// The request reaches the API a second time.
    pub(crate) const fn twice(mut self) -> Self {
        self.sent = 2;
        self
    }

    pub(crate) const fn asks(mut self, asks: usize) -> Self {
        self.asks = asks;
        self
    }

    /// After `pause` seconds, `asks` more token requests follow.
    pub(crate) const fn then(mut self, pause: u64, asks: usize) -> Self {
        let pause = Duration::from_secs(pause);
        self.next = Some(Next { pause, asks });
        self
    }

    pub(crate) const fn has(mut self, token: Token) -> Self {
        self.has = Has::Good(token);
        self
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "the old token",
            Self::New => "a new token",
        })
    }
}

impl fmt::Display for Sees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(token) => write!(f, "200, with {token}"),
            Self::Error(kind) => write!(f, "error `{kind:?}`"),
            Self::Refused => f.write_str("the 401"),
            Self::Forbidden => f.write_str("the 403"),
            Self::Broken => f.write_str("the client's error"),
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::For(Duration::ZERO) => f.write_str("yes"),
            Self::For(pauses) => write!(f, "yes, {}", seconds(*pauses)),
        }
    }
}

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no token"),
            Self::Good(token) => token.fmt(f),
        }
    }
}

/// The columns of the table, except the first.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sees,
            waits,
            sent,
            asks,
            next,
            has,
        } = self;
        write!(f, "{sees} | {waits} | {sent} | {asks} | ")?;
        match next {
            None => f.write_str("—")?,
            Some(Next { pause, asks }) if pause.is_zero() => write!(f, "immediately: {asks}")?,
            Some(Next { pause, asks }) => write!(f, "{}: {asks}", seconds(*pause))?,
        }
        write!(f, " | {has}")
    }
}

fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        minutes if minutes >= 120 && minutes.is_multiple_of(60) => format!("{} min", minutes / 60),
        _ => format!("{seconds} s"),
    }
}
