//! Error responses of the token endpoint: with and without `Retry-After`, with and without an OAuth
//! error code.

use bearer_auth::ErrorKind as Kind;

use super::{Row, row};
use crate::faults::{
    cell::{Token::Old, error, refused, sent},
    fault::{Answer, Fault},
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = status();
    rows.extend(status_with_retry_after());
    rows.extend(oauth());
    rows
}

const PERMANENT: [u16; 3] = [400, 401, 403];
const TRANSIENT: [u16; 4] = [429, 500, 502, 503];
const SERVER_ERRORS: [u16; 3] = [500, 502, 503];

/// Each of `statuses` with each of `waits`.
fn answers(statuses: &[u16], oauth: Option<&'static str>, waits: &[Option<u64>]) -> Vec<Fault> {
    let of = |status: u16| {
        waits.iter().map(move |&retry_after| {
            Fault::Answer(Answer::Status {
                status,
                oauth,
                retry_after,
            })
        })
    };
    statuses.iter().copied().flat_map(of).collect()
}

const WITHOUT: [Option<u64>; 1] = [None];
/// Short enough to be waited for within a flight.
const SHORT: [Option<u64>; 1] = [Some(2)];
const TWO_MINUTES: [Option<u64>; 1] = [Some(120)];
/// Longer than the client obeys.
const AN_HOUR: [Option<u64>; 1] = [Some(3600)];
/// No longer than the pause after a permanent error.
const UP_TO_FIVE_MINUTES: [Option<u64>; 3] = [None, Some(2), Some(120)];

fn status() -> Vec<Row> {
    let redirects = [301, 302, 303, 307, 308].map(|status| Fault::Answer(Answer::Redirect(status)));
    let mut permanent = answers(&PERMANENT, None, &UP_TO_FIVE_MINUTES);
    permanent.extend(redirects);
    vec![
        row(
            "a redirect to another host; 400, 401, 403, with `Retry-After` up to 5 min or without",
            permanent,
            [
                error(Kind::Status).waits().asks(1).then(300, 1),
                sent(Old).asks(1).then(300, 1).has(Old),
                error(Kind::Status).waits().asks(1).then(300, 1),
                refused().asks(1).then(300, 1).has(Old),
                refused().waits().asks(1).then(300, 1).has(Old),
            ],
        ),
        row(
            "429, 500, 502, 503",
            answers(&TRANSIENT, None, &WITHOUT),
            [
                error(Kind::Status).waits_ms(600).asks(3).then(1, 3),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::Status).waits_ms(600).asks(3).then(1, 3),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits_ms(600).asks(3).then(1, 3).has(Old),
            ],
        ),
    ]
}

fn status_with_retry_after() -> Vec<Row> {
    let mut all = PERMANENT.to_vec();
    all.extend(TRANSIENT);
    vec![
        row(
            "429, 500, 502, 503, `Retry-After: 2`",
            answers(&TRANSIENT, None, &SHORT),
            [
                error(Kind::Status).waits_ms(4_000).asks(3).then(2, 3),
                sent(Old).asks(1).then(2, 1).has(Old),
                error(Kind::Status).waits_ms(4_000).asks(3).then(2, 3),
                refused().asks(1).then(2, 1).has(Old),
                refused().waits_ms(4_000).asks(3).then(2, 3).has(Old),
            ],
        ),
        row(
            "429, 500, 502, 503, `Retry-After: 120`",
            answers(&TRANSIENT, None, &TWO_MINUTES),
            [
                error(Kind::Status).waits().asks(1).then(120, 1),
                sent(Old).asks(1).then(120, 1).has(Old),
                error(Kind::Status).waits().asks(1).then(120, 1),
                refused().asks(1).then(120, 1).has(Old),
                refused().waits().asks(1).then(120, 1).has(Old),
            ],
        ),
        row(
            "400, 401, 403, 429, 500, 502, 503, `Retry-After: 3600`",
            answers(&all, None, &AN_HOUR),
            [
                error(Kind::Status).waits().asks(1).then(600, 1),
                sent(Old).asks(1).then(600, 1).has(Old),
                error(Kind::Status).waits().asks(1).then(600, 1),
                refused().asks(1).then(600, 1).has(Old),
                refused().waits().asks(1).then(600, 1).has(Old),
            ],
        ),
    ]
}

/// An OAuth error code decides before the status, except with 429.
fn oauth() -> Vec<Row> {
    const REFUSED: Option<&str> = Some("invalid_client");
    const TEMPORARY: Option<&str> = Some("temporarily_unavailable");
    let mut permanent = answers(&PERMANENT, REFUSED, &UP_TO_FIVE_MINUTES);
    permanent.extend(answers(&SERVER_ERRORS, REFUSED, &UP_TO_FIVE_MINUTES));
    let transient_with = |waits: &[Option<u64>]| {
        let mut transient = answers(&[429], REFUSED, waits);
        transient.extend(answers(&PERMANENT, TEMPORARY, waits));
        transient.extend(answers(&TRANSIENT, TEMPORARY, waits));
        transient
    };
    let mut all = transient_with(&AN_HOUR);
    all.extend(answers(&PERMANENT, REFUSED, &AN_HOUR));
    all.extend(answers(&SERVER_ERRORS, REFUSED, &AN_HOUR));
    vec![
        row(
            "`invalid_client` with any status but 429, with `Retry-After` up to 5 min or without",
            permanent,
            [
                error(Kind::OAuth).waits().asks(1).then(300, 1),
                sent(Old).asks(1).then(300, 1).has(Old),
                error(Kind::OAuth).waits().asks(1).then(300, 1),
                refused().asks(1).then(300, 1).has(Old),
                refused().waits().asks(1).then(300, 1).has(Old),
            ],
        ),
        row(
            "`temporarily_unavailable` with any status, any OAuth error with 429",
            transient_with(&WITHOUT),
            [
                error(Kind::OAuth).waits_ms(600).asks(3).then(1, 3),
                sent(Old).asks(1).then(1, 1).has(Old),
                error(Kind::OAuth).waits_ms(600).asks(3).then(1, 3),
                refused().asks(1).then(1, 1).has(Old),
                refused().waits_ms(600).asks(3).then(1, 3).has(Old),
            ],
        ),
        row(
            "`temporarily_unavailable` with any status, any OAuth error with 429, `Retry-After: 2`",
            transient_with(&SHORT),
            [
                error(Kind::OAuth).waits_ms(4_000).asks(3).then(2, 3),
                sent(Old).asks(1).then(2, 1).has(Old),
                error(Kind::OAuth).waits_ms(4_000).asks(3).then(2, 3),
                refused().asks(1).then(2, 1).has(Old),
                refused().waits_ms(4_000).asks(3).then(2, 3).has(Old),
            ],
        ),
        row(
            "`temporarily_unavailable` with any status, any OAuth error with 429, `Retry-After: 120`",
            transient_with(&TWO_MINUTES),
            [
                error(Kind::OAuth).waits().asks(1).then(120, 1),
                sent(Old).asks(1).then(120, 1).has(Old),
                error(Kind::OAuth).waits().asks(1).then(120, 1),
                refused().asks(1).then(120, 1).has(Old),
                refused().waits().asks(1).then(120, 1).has(Old),
            ],
        ),
        row(
            "any OAuth error, with any status, `Retry-After: 3600`",
            all,
            [
                error(Kind::OAuth).waits().asks(1).then(600, 1),
                sent(Old).asks(1).then(600, 1).has(Old),
                error(Kind::OAuth).waits().asks(1).then(600, 1),
                refused().asks(1).then(600, 1).has(Old),
                refused().waits().asks(1).then(600, 1).has(Old),
            ],
        ),
    ]
}
