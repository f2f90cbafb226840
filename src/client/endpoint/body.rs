//! [`ParsedBody`]: the body of a token response, a JSON object or a form.
//!
//! Numbers out of range and unexpected values of unused members are accepted. A duplicate of a known
//! member is not.

use std::{fmt, time::Duration};

use http::{HeaderMap, header};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::work_counter::looked_at;

/// A parsed body.
pub(super) enum ParsedBody {
    Members(Members),
    /// A known member occurs more than once.
    Duplicate,
    Unreadable,
}

#[derive(Default)]
pub(super) struct Members {
    pub(super) access_token: Option<Value>,
    pub(super) token_type: Option<Value>,
    pub(super) expires_in: Lifetime,
    pub(super) scope: Option<String>,
    pub(super) refresh_token: Option<Value>,
    pub(super) error: Option<Value>,
    pub(super) error_description: Option<Value>,
    pub(super) error_uri: Option<Value>,
}

/// A member that should be a string.
pub(super) enum Value {
    Text(Zeroizing<String>),
    Other,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Lifetime {
    #[default]
    Unknown,
    Unreadable,
    Known(Duration),
}

impl ParsedBody {
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Self {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        looked_at(body.len());
        let lossy;
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(_) => {
                lossy = decode_lossily(body);
                &lossy
            }
        };
        let text = text.trim();
        looked_at(text.len());
        if text.starts_with('{') {
            return match serde_json::from_str::<Fields<'_>>(text) {
                Ok(fields) if fields.has_duplicate => Self::Duplicate,
                Ok(fields) => Self::Members(fields.members()),
                Err(_) => Self::Unreadable,
            };
        }
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("application/x-www-form-urlencoded");
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
            || kind.eq_ignore_ascii_case("text/plain");
        if form {
            Self::form(text)
        } else {
            Self::Unreadable
        }
    }

    fn form(text: &str) -> Self {
        let mut members = Members::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let known = KNOWN.iter().find(|known| **known == name);
            let Some(name) = known else { continue };
            if seen.contains(name) {
                return Self::Duplicate;
            }
            seen.push(*name);
            let value = Zeroizing::new(value.into_owned());
            match *name {
                "expires_in" => members.expires_in = Lifetime::of_text(&value),
                "scope" => members.scope = Some(value.as_str().to_owned()),
                name => {
                    if let Some(slot) = members.slot(name) {
                        *slot = Some(Value::Text(value));
                    }
                }
            }
        }
        // Plain prose parses as a form, too, with names of its own.
        if members.access_token.is_none() && members.error.is_none() {
            return Self::Unreadable;
        }
        Self::Members(members)
    }
}

/// Decodes a body that is not UTF-8, such as one with a description in Latin-1: the members that the
/// protocol needs are ASCII. A token with a replacement character is an error, like any non-ASCII token.
fn decode_lossily(body: &[u8]) -> Zeroizing<String> {
    looked_at(body.len());
    // Each byte becomes one replacement at most. Reallocation would leave a copy that is not wiped.
    let max_len = body.len() * char::REPLACEMENT_CHARACTER.len_utf8();
    let mut text = Zeroizing::new(String::with_capacity(max_len));
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

const KNOWN: [&str; 8] = [
    "access_token",
    "token_type",
    "expires_in",
    "scope",
    "refresh_token",
    "error",
    "error_description",
    "error_uri",
];

impl Members {
    fn slot(&mut self, name: &str) -> Option<&mut Option<Value>> {
        Some(match name {
            "access_token" => &mut self.access_token,
            "token_type" => &mut self.token_type,
            "refresh_token" => &mut self.refresh_token,
            "error" => &mut self.error,
            "error_description" => &mut self.error_description,
            "error_uri" => &mut self.error_uri,
            _ => return None,
        })
    }
}

/// The JSON text of each known member. Members are parsed one by one, so an unexpected value in one
/// does not fail the others.
#[derive(Default)]
struct Fields<'a> {
    raw: [Option<&'a RawValue>; KNOWN.len()],
    has_duplicate: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let Some(at) = KNOWN.iter().position(|known| *known == name) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let Some(slot) = fields.raw.get_mut(at) else {
                        return Err(A::Error::custom("unreachable"));
                    };
                    fields.has_duplicate |= slot.is_some();
                    *slot = Some(map.next_value::<&RawValue>()?);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Fields<'_> {
    fn members(&self) -> Members {
        let mut members = Members::default();
        for (name, raw) in KNOWN.iter().zip(self.raw) {
            // `null` means absent.
            let Some(raw) = raw.map(RawValue::get).filter(|raw| *raw != "null") else {
                continue;
            };
            looked_at(raw.len());
            match *name {
                "expires_in" => members.expires_in = Lifetime::of_json(raw),
                "scope" => members.scope = scope_of_json(raw),
                name => {
                    if let Some(slot) = members.slot(name) {
                        *slot = Some(match serde_json::from_str(raw) {
                            Ok(text) => Value::Text(Zeroizing::new(text)),
                            Err(_) => Value::Other,
                        });
                    }
                }
            }
        }
        members
    }
}

/// Parses a string, or a list of strings (Twitch).
fn scope_of_json(raw: &str) -> Option<String> {
    let list = || {
        looked_at(raw.len());
        serde_json::from_str::<Vec<String>>(raw).map(|list| list.join(" "))
    };
    serde_json::from_str(raw).or_else(|_| list()).ok()
}

impl Lifetime {
    fn of_json(raw: &str) -> Self {
        if raw.starts_with('"') {
            return match serde_json::from_str::<String>(raw) {
                Ok(text) => Self::of_text(&text),
                Err(_) => Self::Unreadable,
            };
        }
        // Rust parses every JSON number; one out of range becomes infinite.
        match raw.parse::<f64>() {
            Ok(seconds) if seconds >= 0.0 => Self::of_seconds(seconds),
            _ => Self::Unreadable,
        }
    }

    /// Parses digits with an optional fraction, and none of Rust's other notations.
    fn of_text(text: &str) -> Self {
        looked_at(text.len());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        match text.parse::<f64>() {
            Ok(seconds) if digits(whole) && digits(fraction) => Self::of_seconds(seconds),
            _ => Self::Unreadable,
        }
    }

    /// Rounds down; `as` saturates. The cache applies its own limit.
    fn of_seconds(seconds: f64) -> Self {
        Self::Known(Duration::from_secs(seconds as u64))
    }
}
