//! What holds of the parsers, whatever they are given: beyond not to panic, that what they hand out
//! obeys its grammar and is in the input, that they read what is printed of it as the same again,
//! and that they look at each byte a fixed number of times.
//!
//! One function a parser, from bytes. The targets of `fuzz/` call them with what libFuzzer makes up,
//! and the tests here with every seed of `fuzz/seeds` and with what proptest makes of valid input:
//! so a find that is kept as a seed is red without libFuzzer as well. Not in other builds.
//!
//! ```text
//! cargo fuzz run --sanitizer none challenge fuzz/corpus/challenge fuzz/seeds/challenge -- -dict=fuzz/dictionary
//! ```
//!
//! Without a sanitizer, which safe code has little use for, a stable compiler will do.
//!
//! What was broken to see it fail, each by itself:
//!
//! | parser | broken |
//! |---|---|
//! | challenge | control characters in quotes, a backslash that stays, a parameter twice, parameters beside a token68, garbage that ends no challenge, names compared one by one |
//! | token response | a member twice, an error beside a token, any type, any status; lifetimes below zero, or strings that are numbers to Rust alone; lists of scopes, an empty refresh token, the mark or white space around the body; a code, or a description, as it came; members read more than once |
//! | callback | a state or a path by its beginning, the redirect URI's own query, another issuer, a code beside an error, a token in the fragment, a parameter twice, its text in an error |
//! | metadata | a list for an object, an issuer by its beginning, plain `http`, an endpoint of no use left out, a flag, URLs read more than once |
//! | `Retry-After` | no bound, too many digits, a sign, a date that has been |
//!
//! What this does not show: that serde_json, `url` and httpdate are linear in what they are given.
//! Counted are the passes over the input that are made here ([`effort`](crate::effort)).
#![allow(
    unreachable_pub,
    reason = "public for the targets of `fuzz/`, where the module is"
)]

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::{
    client::{endpoint, metadata::document},
    error::Error,
    sign_in,
    token::challenge,
};

/// A value of `WWW-Authenticate`.
pub fn challenge(value: &[u8]) {
    challenge::invariants::of_any_header(value);
}

/// An answer of a token endpoint, in the notation of `message`.
pub fn token_response(answer: &[u8]) {
    endpoint::response::invariants::of_any_answer(answer);
}

/// A value of `Retry-After`.
pub fn retry_after(value: &[u8]) {
    endpoint::response::invariants::of_any_retry_after(value);
}

/// A URL that a browser came back to, or its query.
pub fn callback(url: &[u8]) {
    sign_in::callback::invariants::of_any_callback(url);
}

/// An answer with a server's metadata, in the notation of `message`.
pub fn metadata(answer: &[u8]) {
    document::invariants::of_any_document(answer);
}

/// An answer from the way one is written: a line with a status, header lines, an empty line, a
/// body. Lines that are no header are passed over.
pub(crate) fn message(input: &[u8]) -> Option<Response<Bytes>> {
    let (status, mut rest) = line(input)?;
    let mut response = Response::new(Bytes::new());
    let status = std::str::from_utf8(status).ok()?.trim().parse().ok()?;
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    loop {
        let (header, behind) = line(rest)?;
        rest = behind;
        if header.is_empty() {
            break;
        }
        let Some(colon) = header.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = header.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            response.headers_mut().append(name, value);
        }
    }
    *response.body_mut() = Bytes::copy_from_slice(rest);
    Some(response)
}

fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = input.split_at(end);
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

/// What stands for secrets and for text of others in seeds and in the dictionary.
const CANARY: &str = "canary";

/// Nothing of what was read is in what is shown, but for the checked code.
pub(crate) fn keeps_quiet(error: &Error) {
    let mut shown = format!("{error} {error:?}");
    if let Some(oauth) = error.oauth_error() {
        shown = shown.replace(oauth.code().as_str(), "");
    }
    assert!(!shown.contains(CANARY), "{shown}");
    if let Some(oauth) = error.oauth_error() {
        let code = oauth.code().as_str();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._()".contains(&b);
        assert!(!code.is_empty() && code.len() <= 64 && code.bytes().all(plain));
        for text in [oauth.description(), oauth.uri()].into_iter().flatten() {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
