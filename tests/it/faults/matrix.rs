//! The matrix: written down by hand, from what the documentation promises (`src/lib.rs`, "The life
//! of a token"; `store::TokenStore`). Nothing here is recorded from what the code does.

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

/// Faults that are promised the same.
pub(crate) struct Row {
    /// For people.
    pub(crate) name: &'static str,
    pub(crate) faults: Vec<Fault>,
    /// In the order of [`Phase::ALL`](crate::faults::cell::Phase::ALL). `None`: it cannot happen then.
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
    row("nothing", faults, ALL_IS_WELL)
}

const ALL_IS_WELL: [Cell; 5] = [
    sent(New).waits().asks(1).has(New),
    sent(Old).asks(1).has(New),
    sent(New).waits().asks(1).has(New),
    refused().asks(1).has(New),
    sent(New).twice().waits().asks(1).has(New),
];

/// As long as it is not known to have arrived, a request may be made again at once.
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
            "accepted, then silence; read, then silence; an answer byte by byte, without end",
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
            "reset before, during or after the request was read; closed without an answer; an \
             answer cut short; an answer that is not HTTP",
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
            "an answer longer than 1 MiB; a 200 that is no token response",
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

/// Answers that are in order, and bring nothing better. The next try ahead of the end is after a
/// quarter of the ten minutes that the old token lives on.
fn tokens() -> Vec<Row> {
    vec![
        row(
            "a new token that is over when it comes",
            [Fault::Answer(Answer::Over)],
            [
                sent(New).waits().asks(1).then(1, 1),
                sent(Old).asks(1).then(150, 1).has(Old),
                sent(New).waits().asks(1).then(1, 1),
                refused().asks(1).then(1, 1).has(Old),
                sent(New).twice().waits().asks(1).then(1, 1).has(Old),
            ],
        ),
        Row {
            name: "the same token again, with the rest of its life",
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

/// Whichever clock has gone further counts. A token is as old as its request.
fn clocks() -> Vec<Row> {
    let at = |when| move |clock| Fault::Clock(clock, when);
    vec![
        row(
            "wall clock back 1 h, before or during the token request",
            [When::Before, When::Meanwhile].map(|when| Fault::Clock(Clock::Back, when)),
            ALL_IS_WELL,
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

/// A session goes on from memory, but not while somebody else may be sending the refresh token.
fn store() -> Vec<Row> {
    let [_, ahead, over, after_401, resend] = ALL_IS_WELL;
    vec![
        row(
            "session: its disk is full",
            [Fault::Store(Store::Full)],
            ALL_IS_WELL,
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
            "session: what its store has is damaged",
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
            "session: another process holds its store's lock",
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

/// A request is sent again once, and only where the token may be what is wrong.
fn api() -> Vec<Row> {
    let of = |name, fault, after_401, resend| Row {
        name,
        faults: vec![Fault::Api(fault)],
        cells: [None, None, None, after_401, Some(resend)],
    };
    vec![
        of(
            "the API refuses the new token, too",
            Api::RefusesAll,
            Some(refused().asks(1).then(1, 1).has(New)),
            refused().twice().waits().asks(1).then(1, 1).has(New),
        ),
        of(
            "the API says 403, and not 401",
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
