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

use crate::{
    client::{endpoint, metadata::document},
    sign_in,
    token::challenge,
};

/// Checks a value of `WWW-Authenticate`.
pub fn challenge(value: &[u8]) {
    challenge::invariants::check_header(value);
}

/// Checks a token response, in the notation of [`parse_response`](crate::parser_testing::parse_response).
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

/// Checks a response with metadata, in the notation of [`parse_response`](crate::parser_testing::parse_response).
pub fn metadata(response: &[u8]) {
    document::invariants::check_document(response);
}

#[cfg(test)]
mod tests;
