//! The invariants of parsed responses and of `Retry-After`, checked for any input.
//!
//! [`expected_outcome`] is a second implementation, over `serde_json::Value`, to compare with.

use std::{fmt, time::UNIX_EPOCH};

use http::HeaderValue;
use secrecy::ExposeSecret as _;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value as Json, json};
use url::form_urlencoded;

use super::*;
use crate::{
    clock::Moment,
    parser_testing::{assert_no_leak, parse_response},
    work_counter::counted,
};

/// The maximum number of passes over the input: to decode the body, to split the object, to parse a
/// known member, and to parse that in a second format or to clean it.
const LOOKS: usize = 4;
/// The same for a body that is not UTF-8: replacement is one more pass, and makes three bytes of one.
const LOOKS_IF_REPLACED: usize = 2 + 3 * 3;

const INFO: RequestInfo = RequestInfo {
    endpoint: "the token endpoint",
    grant_is_assertion: false,
    auth_is_assertion: false,
};

/// One second before the example of RFC 9110 §5.6.7.
const NOW: Duration = Duration::from_secs(784_111_776);

/// The outcome of a token response, as plain data.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    token: String,
    lifetime: Option<f64>,
    scope: Option<String>,
    refresh_token: Option<String>,
}

fn read(response: Response<Bytes>) -> Result<TokenResponse, Error> {
    Leniency::default().read(response, Some(UNIX_EPOCH + NOW), INFO)
}

/// Checks a response in the notation of [`parse_response`].
pub(crate) fn check_response(input: &[u8]) {
    let Some(response) = parse_response(input) else {
        return;
    };
    let (status, length) = (response.status(), input.len());
    let (result, looks) = counted(|| read(response.clone()));
    let most = match std::str::from_utf8(response.body()) {
        Ok(_) => LOOKS,
        Err(_) => LOOKS_IF_REPLACED,
    };
    assert!(looks <= most * length, "{looks} of {length}");
    match &result {
        Ok(token) => {
            assert!(status.is_success());
            check_token(token, &response);
        }
        Err(error) => check_error(error, &response),
    }
    // A byte order mark before the body and white space around it have no effect.
    let mut wrapped = response.clone();
    let body = [b"\xef\xbb\xbf \n", &response.body()[..], b"\r\n"].concat();
    *wrapped.body_mut() = body.into();
    if !response.body().starts_with(b"\xef\xbb\xbf") {
        assert_same(&result, &read(wrapped));
    }
    compare_with_expected(&response, &result);
}

fn check_token(token: &TokenResponse, response: &Response<Bytes>) {
    let outcome = outcome(token);
    assert!(!outcome.token.is_empty() && outcome.token.bytes().all(|b| matches!(b, 0x21..=0x7e)));
    assert_ne!(outcome.refresh_token.as_deref(), Some(""));
    // Serialized as JSON and as a form, and parsed again, the outcome is the same.
    let mut json = Map::new();
    json.insert("access_token".to_owned(), json!(outcome.token));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("access_token", &outcome.token);
    let lifetime = outcome.lifetime.map(|seconds| (seconds as u64).to_string());
    for (name, value) in [
        ("expires_in", &lifetime),
        ("scope", &outcome.scope),
        ("refresh_token", &outcome.refresh_token),
    ] {
        if let Some(value) = value {
            json.insert(name.to_owned(), json!(value));
            form.append_pair(name, value);
        }
    }
    let mut serialized = response.clone();
    *serialized.body_mut() = Json::Object(json.clone()).to_string().into();
    assert_same(&Ok(token.clone()), &read(serialized.clone()));
    // `Debug` does not depend on the secrets.
    for secret in ["access_token", "refresh_token"] {
        if let Some(secret) = json.get_mut(secret) {
            *secret = json!("another");
        }
    }
    let mut others = response.clone();
    *others.body_mut() = Json::Object(json).to_string().into();
    let others = read(others).map(|others| format!("{others:?}"));
    assert_eq!(others.ok(), Some(format!("{token:?}")));
    *serialized.body_mut() = form.finish().into();
    serialized.headers_mut().remove(header::CONTENT_TYPE);
    assert_same(&Ok(token.clone()), &read(serialized));
}

fn check_error(error: &Error, response: &Response<Bytes>) {
    use ErrorKind::{InvalidResponse, OAuth, Status, UnsupportedTokenType};
    assert_no_leak(error);
    let success = response.status().is_success();
    match error.kind() {
        OAuth => assert_eq!(error.status(), Some(response.status())),
        Status => assert!(error.status() == Some(response.status()) && !success),
        InvalidResponse | UnsupportedTokenType => assert!(success && error.status().is_none()),
        other => unreachable!("{other:?}"),
    }
    assert_eq!(error.oauth_error().is_some(), error.kind() == OAuth);
    assert!(error.retry_after() <= Some(MAX_RETRY_AFTER));
    let Some(oauth) = error.oauth_error() else {
        return;
    };
    // Serialized and parsed again, the error is the same.
    let mut serialized = response.clone();
    let code = match oauth.code() {
        OAuthErrorCode::Malformed => "",
        code => code.as_str(),
    };
    let body = json!({
        "error": code,
        "error_description": oauth.description(),
        "error_uri": oauth.uri(),
    });
    *serialized.body_mut() = body.to_string().into();
    let again = read(serialized).err();
    let retry = |error: &Error| (error.retry(), error.retry_after());
    assert_eq!(again.as_ref().and_then(Error::oauth_error), Some(oauth));
    assert_eq!(again.as_ref().map(retry), Some(retry(error)));
}

fn assert_same(one: &Result<TokenResponse, Error>, other: &Result<TokenResponse, Error>) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(outcome(one), outcome(other)),
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert_eq!(one.oauth_error(), other.oauth_error());
        }
        _ => unreachable!("{one:?} and {other:?}"),
    }
}

fn outcome(token: &TokenResponse) -> Outcome {
    let token_of_response = token
        .clone()
        .into_token(Moment::default(), Moment::default(), None);
    let sent = token_of_response.header_value();
    assert_eq!(&sent.as_bytes()[..7], b"Bearer ");
    assert!(sent.is_sensitive());
    Outcome {
        token: token_of_response.expose_secret().to_owned(),
        lifetime: token.expires_in().map(|lifetime| lifetime.as_secs() as f64),
        scope: token.scope().map(str::to_owned),
        refresh_token: token.refresh_token().map(|r| r.expose_secret().to_owned()),
    }
}

/// For a JSON object, the outcome equals [`expected_outcome`] unless a known member is duplicated.
fn compare_with_expected(response: &Response<Bytes>, result: &Result<TokenResponse, Error>) {
    let text = String::from_utf8_lossy(response.body());
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let Ok(Json::Object(object)) = serde_json::from_str(text) else {
        return;
    };
    let success = response.status().is_success();
    let expected = success.then(|| expected_outcome(&object)).flatten();
    if !has_duplicate(text) {
        assert_eq!(result.as_ref().ok().map(outcome), expected, "{object:?}");
        return;
    }
    assert!(result.is_err(), "{text}");
    // `object` has the last of the duplicates: serialized, it is a document without duplicates.
    let mut unique = response.clone();
    *unique.body_mut() = Json::Object(object.clone()).to_string().into();
    assert_eq!(
        read(unique).ok().as_ref().map(outcome),
        expected,
        "{object:?}"
    );
}

fn has_duplicate(object: &str) -> bool {
    struct Names(Vec<String>);

    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Self(Vec::new()))
        }
    }

    impl<'de> Visitor<'de> for Names {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
            while let Some((name, _)) = map.next_entry::<_, IgnoredAny>()? {
                self.0.push(name);
            }
            Ok(self)
        }
    }

    let names = serde_json::from_str(object).map_or(Vec::new(), |Names(names)| names);
    let count = |known: &str| names.iter().filter(|name| *name == known).count();
    let known =
        "access_token token_type expires_in scope refresh_token error error_description error_uri";
    known.split(' ').any(|name| count(name) > 1)
}

fn expected_outcome(object: &Map<String, Json>) -> Option<Outcome> {
    let member = |name: &str| object.get(name).filter(|value| !value.is_null());
    let text = |name| member(name).and_then(Json::as_str);
    let token = text("access_token")?;
    if token.is_empty() || !token.chars().all(|c| ('!'..='~').contains(&c)) {
        return None;
    }
    if member("error").is_some_and(|error| error.as_str() != Some("")) {
        return None;
    }
    if member("token_type").is_some() && !text("token_type")?.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let scope = member("scope").and_then(|scope| match scope {
        Json::String(scope) => Some(scope.clone()),
        Json::Array(list) => {
            let list: Option<Vec<_>> = list.iter().map(Json::as_str).collect();
            list.map(|list| list.join(" "))
        }
        _ => None,
    });
    let refresh_token = text("refresh_token").filter(|text| !text.is_empty());
    Some(Outcome {
        token: token.to_owned(),
        lifetime: member("expires_in").map(seconds),
        scope,
        refresh_token: refresh_token.map(str::to_owned),
    })
}

/// Returns the lifetime in whole seconds, in the precision of `f64`; 300 if it cannot be parsed.
fn seconds(lifetime: &Json) -> f64 {
    let number = match lifetime {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits =
                |part: &str| !part.is_empty() && !part.contains(|c: char| !c.is_ascii_digit());
            let number = digits(whole) && digits(fraction);
            // With its fraction, which `f64` may round up to the next second, as in the parser.
            number.then(|| text.parse()).and_then(Result::ok)
        }
        _ => None,
    };
    match number {
        Some(number) if number >= 0.0 => number.floor().min(u64::MAX as f64),
        _ => 300.0,
    }
}

/// Checks any value of `Retry-After`.
pub(crate) fn check_retry_after(value: &[u8]) {
    let now = UNIX_EPOCH + NOW;
    let Some(headers) = retry_after_header(value) else {
        return;
    };
    let (wait, looks) = counted(|| retry_after(&headers, Some(now)));
    assert!(looks <= value.len());
    let text = value.trim_ascii();
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    // A date is ignored if the current time is unknown.
    let without_time = retry_after(&headers, None);
    assert_eq!(without_time, wait.filter(|_| digits), "{text:?}");
    if digits {
        let seconds = text.iter().fold(0_u64, |seconds, digit| {
            seconds
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
        let max = 31_536_000;
        assert_eq!(wait, Some(Duration::from_secs(seconds.min(max))));
    }
    let Some(wait) = wait else { return };
    assert!(wait <= MAX_RETRY_AFTER && wait.subsec_nanos() == 0);
    // Serialized as a date or in seconds, and parsed again, the wait is the same.
    let date = httpdate::fmt_http_date(now + wait);
    for text in [
        date,
        wait.as_secs().to_string(),
        format!("\t{} ", wait.as_secs()),
    ] {
        let again = retry_after_header(text.as_bytes()).map(|h| retry_after(&h, Some(now)));
        assert_eq!(again, Some(Some(wait)), "{text}");
    }
}

fn retry_after_header(value: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(value).ok()?;
    headers.append(header::RETRY_AFTER, value);
    Some(headers)
}

/// Token, lifetime in seconds, scope and refresh token.
#[cfg(test)]
pub(crate) type OutcomeParts = (String, Option<u64>, Option<String>, Option<String>);

#[cfg(test)]
pub(crate) fn outcome_of(response: &str) -> Option<OutcomeParts> {
    let outcome = outcome(&read(parse_response(response.as_bytes())?).ok()?);
    let lifetime = outcome.lifetime.map(|seconds| seconds as u64);
    Some((
        outcome.token,
        lifetime,
        outcome.scope,
        outcome.refresh_token,
    ))
}
