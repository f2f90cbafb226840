//! Helpers of the parsers' tests and fuzz targets.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
#[cfg(test)]
use proptest::prelude::*;

use crate::error::Error;

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

/// A mutation of bytes.
#[cfg(test)]
#[derive(Clone, Debug)]
enum Mutation {
    Change(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

/// Applies random mutations to valid input.
#[cfg(test)]
pub(crate) fn mutated(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let at = any::<prop::sample::Index>;
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..4),
        r#"[\x00-\x20"\\,:;=&%+#?/{}\[\]]{1,3}|null|""|\\ud800|\u{feff}|é"#
            .prop_map(String::into_bytes),
    ];
    let mutation = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Change(at, byte)),
        (at(), piece).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (at(), at()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        (at(), at()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ];
    let mutations = prop_oneof![Just(Vec::new()), prop::collection::vec(mutation, 1..4)];
    (valid, mutations).prop_map(|(mut bytes, mutations)| {
        for mutation in mutations {
            let length = bytes.len() + 1;
            let range = |from: prop::sample::Index, to: prop::sample::Index| {
                let (from, to) = (from.index(length), to.index(length));
                from.min(to)..from.max(to)
            };
            match mutation {
                Mutation::Change(at, byte) => {
                    if let Some(changed) = bytes.get_mut(at.index(length)) {
                        *changed = byte;
                    }
                }
                Mutation::Insert(at, piece) => {
                    let at = at.index(length);
                    bytes.splice(at..at, piece);
                }
                Mutation::Remove(from, to) => drop(bytes.drain(range(from, to))),
                Mutation::Repeat(from, to) => {
                    let piece = bytes[range(from, to)].to_vec();
                    let at = range(from, to).end;
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    })
}
