//! Refusals of the token endpoint, with `Retry-After` and without, in OAuth's words and without.

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

const MENDS: [u16; 3] = [400, 401, 403];
const PASSES: [u16; 4] = [429, 500, 502, 503];
const LATER: [u16; 3] = [500, 502, 503];

/// Every one of `statuses`, with every one of `waits`.
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
/// A wait that is within a token request.
const SHORT: [Option<u64>; 1] = [Some(2)];
const TWO_MINUTES: [Option<u64>; 1] = [Some(120)];
/// More than is obeyed.
const AN_HOUR: [Option<u64>; 1] = [Some(3600)];
/// Less than the pause after an error that somebody has to mend.
const NONE_TO_SPEAK_OF: [Option<u64>; 3] = [None, Some(2), Some(120)];

fn status() -> Vec<Row> {
    let redirects = [301, 302, 303, 307, 308].map(|status| Fault::Answer(Answer::Redirect(status)));
    let mut mends = answers(&MENDS, None, &NONE_TO_SPEAK_OF);
    mends.extend(redirects);
    vec![
        row(
            "a redirect to another host; 400, 401, 403, with `Retry-After` up to 5 min or without",
            mends,
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
            answers(&PASSES, None, &WITHOUT),
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
    let mut all = MENDS.to_vec();
    all.extend(PASSES);
    vec![
        row(
            "429, 500, 502, 503, `Retry-After: 2`",
            answers(&PASSES, None, &SHORT),
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
            answers(&PASSES, None, &TWO_MINUTES),
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

/// What the answer calls itself counts for more than its status, unless there were too many.
fn oauth() -> Vec<Row> {
    const REFUSED: Option<&str> = Some("invalid_client");
    const LATER_AGAIN: Option<&str> = Some("temporarily_unavailable");
    let mut mends = answers(&MENDS, REFUSED, &NONE_TO_SPEAK_OF);
    mends.extend(answers(&LATER, REFUSED, &NONE_TO_SPEAK_OF));
    let of_those_that_pass = |waits: &[Option<u64>]| {
        let mut passes = answers(&[429], REFUSED, waits);
        passes.extend(answers(&MENDS, LATER_AGAIN, waits));
        passes.extend(answers(&PASSES, LATER_AGAIN, waits));
        passes
    };
    let mut of_all = of_those_that_pass(&AN_HOUR);
    of_all.extend(answers(&MENDS, REFUSED, &AN_HOUR));
    of_all.extend(answers(&LATER, REFUSED, &AN_HOUR));
    vec![
        row(
            "`invalid_client` with any status but 429, with `Retry-After` up to 5 min or without",
            mends,
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
            of_those_that_pass(&WITHOUT),
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
            of_those_that_pass(&SHORT),
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
            of_those_that_pass(&TWO_MINUTES),
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
            of_all,
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
