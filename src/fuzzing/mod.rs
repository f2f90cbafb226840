//! The invariants of the parsers, one function for each parser, called with any bytes.
//!
//! A parser must not panic. Its result must follow the grammar and come from the input. Serialized and
//! parsed again, the result must stay the same. The number of reads per byte is bounded.
//!
//! The targets of `fuzz/` call these functions with libFuzzer's input. The tests here call them with
//! every seed of `fuzz/seeds`, and with valid input that proptest mutates. Add a finding as a seed, so
//! that the tests reproduce it without libFuzzer.
//!
//! ```text
//! cargo fuzz run --sanitizer none challenge fuzz/corpus/challenge fuzz/seeds/challenge -- -dict=fuzz/dictionary
//! ```
//!
//! Safe code needs no sanitizer, and without one a stable compiler is enough.
//!
//! The functions count the passes over the input in this crate ([`work_counter`](crate::work_counter)).
//! They do not count those of serde_json, `url` and httpdate.
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

/// Checks a value of `WWW-Authenticate`.
pub fn challenge(value: &[u8]) {
    challenge::invariants::check_header(value);
}

/// Checks a token response, in the notation of `parse_response`.
pub fn token_response(response: &[u8]) {
    endpoint::response::invariants::check_response(response);
}

/// Checks a value of `Retry-After`.
pub fn retry_after(value: &[u8]) {
    endpoint::response::invariants::check_retry_after(value);
}

/// Checks a callback: the URL of the redirect, or its query.
pub fn callback(url: &[u8]) {
    sign_in::callback::invariants::check_callback(url);
}

/// Checks a response with metadata, in the notation of `parse_response`.
pub fn metadata(response: &[u8]) {
    document::invariants::check_document(response);
}

/// Parses a response: a line with the status, header lines, an empty line, the body. Invalid header
/// lines are ignored.
pub(crate) fn parse_response(input: &[u8]) -> Option<Response<Bytes>> {
    let (status, mut rest) = line(input)?;
    let mut response = Response::new(Bytes::new());
    let status = std::str::from_utf8(status).ok()?.trim().parse().ok()?;
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    loop {
        let (header, after) = line(rest)?;
        rest = after;
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

/// Marks secrets and the server's texts in the seeds and in the dictionary.
const CANARY: &str = "canary";

/// Asserts that an error shows nothing of the input except the checked error code.
pub(crate) fn assert_no_leak(error: &Error) {
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
