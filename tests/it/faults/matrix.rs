//! The expected matrix. It is derived from the documentation (`src/lib.rs`, "Lifecycle of a token";
//! `store::TokenStore`), not recorded from the code's behavior.

mod answers;

use bearer_auth::ErrorKind as Kind;

use crate::faults::{
    cell::{
        Cell,
        Token::{New, Old},
        broken, error, forbidden, refused, sent,
    },
    fault::{Answer, Api, Clock, Fault, Network, Store, When},
};

/// Faults with the same expected outcome.
pub(crate) struct Row {
    /// The first column of the table.
    pub(crate) name: &'static str,
    pub(crate) faults: Vec<Fault>,
    /// In the order of [`Phase::ALL`](crate::faults::cell::Phase::ALL). `None`: the fault cannot happen
    /// in that phase.
    pub(crate) cells: [Option<Cell>; 5],
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![sound()];
    rows.extend(network());
    rows.extend(answers::rows());
    rows.extend(tokens());
    rows.extend(clocks());
    rows.extend(store());
    rows.extend(api());
    rows
}

fn row(name: &'static str, faults: impl Into<Vec<Fault>>, cells: [Cell; 5]) -> Row {
    let faults = faults.into();
    let cells = cells.map(Some);
    Row {
        name,
        faults,
        cells,
    }
}

fn sound() -> Row {
    let faults = [Fault::None, Fault::Store(Store::Sound)];
    row("nothing", faults, NO_FAULT)
}

const NO_FAULT: [Cell; 5] = [
    sent(New).waits().asks(1).has(New),
    sent(Old).asks(1).has(New),
    sent(New).waits().asks(1).has(New),
    refused().asks(1).has(New),
    sent(New).twice().waits().asks(1).has(New),
];

/// A token request that certainly did not arrive is retried within the same flight.
fn network() -> Vec<Row> {
    use Network::*;
    let of = |faults: &[Network]| {
        faults
            .iter()
            .copied()
            .map(Fault::Network)
            .collect::<Vec<_>>()
    };
    vec![
        row(
            "connection refused; host name not found; certificate not trusted",
            of(&[Refused, NoSuchName, Tls]),
            [
                error(Kind::Connect).waits_ms(600).asks(3).then(1, 3),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::Connect).waits_ms(600).asks(3).then(1, 3),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits_ms(600).asks(3).then(1, 3).has(Old),
            ],
        ),
        row(
            "accepted, then silence; read, then silence; an endless response, byte by byte",
            of(&[Accepts, Silence, Drip]),
            [
                error(Kind::Timeout).waits_ms(30_000).asks(1).then(1, 1),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::Timeout).waits_ms(30_000).asks(1).then(1, 1),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits_ms(30_000).asks(1).then(1, 1).has(Old),
            ],
        ),
        row(
            "reset before, during or after the request was read; closed without a response; a \
             truncated response; a response that is not HTTP",
            of(&[
                ResetBefore,
                ResetDuring,
                ResetAfter,
                Closed,
                Truncated,
                Garbage,
            ]),
            [
                error(Kind::Transport).waits().asks(1).then(1, 1),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::Transport).waits().asks(1).then(1, 1),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits().asks(1).then(1, 1).has(Old),
            ],
        ),
        row(
            "a response longer than 1 MiB; a 200 that is no token response",
            of(&[Oversized, Html]),
            [
                error(Kind::InvalidResponse).waits().asks(1).then(1, 1),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::InvalidResponse).waits().asks(1).then(1, 1),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits().asks(1).then(1, 1).has(Old),
            ],
        ),
    ]
}

/// Valid responses without a better token. In the refresh window, the next refresh comes after a
/// quarter of the old token's remaining ten minutes.
fn tokens() -> Vec<Row> {
    vec![
        row(
            "a new token that has already expired",
            [Fault::Answer(Answer::Expired)],
            [
                sent(New).waits().asks(1).then(1, 1),
                sent(Old).asks(1).then(150, 1).has(Old),
                sent(New).waits().asks(1).then(1, 1),
                refused().asks(1).then(1, 1).has(Old),
                sent(New).twice().waits().asks(1).then(1, 1).has(Old),
            ],
        ),
        Row {
            name: "the same token again, with its remaining lifetime",
            faults: vec![Fault::Answer(Answer::Same)],
            cells: [
                None,
                Some(sent(Old).asks(1).then(150, 1).has(Old)),
                Some(sent(Old).waits().asks(1).then(1, 1)),
                Some(refused().asks(1).then(1, 1).has(Old)),
                Some(refused().waits().asks(1).then(1, 1).has(Old)),
            ],
        },
    ]
}

/// The clock that moved further decides. A token's age counts from its request.
fn clocks() -> Vec<Row> {
    let at = |when| move |clock| Fault::Clock(clock, when);
    vec![
        row(
            "wall clock back 1 h, before or during the token request",
            [When::Before, When::Meanwhile].map(|when| Fault::Clock(Clock::Back, when)),
            NO_FAULT,
        ),
        row(
            "wall clock forward a day, or 2 h of sleep, before the token request",
            [Clock::Forward, Clock::Suspend].map(at(When::Before)),
            [
                sent(New).waits().asks(1).has(New),
                sent(New).waits().asks(1).has(New),
                sent(New).waits().asks(1).has(New),
                sent(New).waits().asks(1).has(New),
                sent(New).waits().asks(1).has(New),
            ],
        ),
        row(
            "wall clock forward a day, or 2 h of sleep, during the token request",
            [Clock::Forward, Clock::Suspend].map(at(When::Meanwhile)),
            [
                sent(New).waits().asks(1).then(0, 1),
                sent(Old).asks(1).then(0, 1),
                sent(New).waits().asks(1).then(0, 1),
                refused().asks(1).then(0, 1),
                sent(New).twice().waits().asks(1).then(0, 1),
            ],
        ),
    ]
}

/// A session continues from memory, except while another process may be sending the refresh token.
fn store() -> Vec<Row> {
    let [_, ahead, over, after_401, resend] = NO_FAULT;
    vec![
        row(
            "session: its disk is full",
            [Fault::Store(Store::Full)],
            NO_FAULT,
        ),
        row(
            "session: its store is read-only; its store cannot be read",
            [
                Fault::Store(Store::ReadOnly),
                Fault::Store(Store::Unreadable),
            ],
            [
                error(Kind::Source).waits().asks(0).then(1, 0),
                ahead,
                over,
                after_401,
                resend,
            ],
        ),
        row(
            "session: its stored data is damaged",
            [Fault::Store(Store::Corrupt)],
            [
                error(Kind::SignInRequired).waits().asks(0).then(300, 0),
                ahead,
                over,
                after_401,
                resend,
            ],
        ),
        row(
            "session: its store is locked by another process",
            [Fault::Store(Store::Busy)],
            [
                error(Kind::Source).waits().asks(0).then(1, 0),
                sent(Old).asks(0).then(1, 0).has(Old),
                error(Kind::Source).waits().asks(0).then(1, 0),
                refused().asks(0).then(1, 0).has(Old),
                refused().waits().asks(0).then(1, 0).has(Old),
            ],
        ),
    ]
}

/// A request is sent again at most once, and only if the token may be the cause.
fn api() -> Vec<Row> {
    let of = |name, fault, after_401, resend| Row {
        name,
        faults: vec![Fault::Api(fault)],
        cells: [None, None, None, after_401, Some(resend)],
    };
    vec![
        of(
            "the API rejects the new token, too",
            Api::RefusesAll,
            Some(refused().asks(1).then(1, 1).has(New)),
            refused().twice().waits().asks(1).then(1, 1).has(New),
        ),
        of(
            "the API answers 403, not 401",
            Api::Forbids,
            Some(forbidden().has(Old)),
            forbidden().has(Old),
        ),
        of(
            "the connection to the API breaks when the request is sent again",
            Api::Breaks,
            None,
            broken().twice().waits().asks(1).has(New),
        ),
    ]
}
