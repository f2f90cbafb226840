//! What holds of an answer, and of a `Retry-After`, whoever wrote it.
//!
//! What a JSON answer says is read here once more, by rules of their own over
//! `serde_json::Value`: [`told`].

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
    fuzzing::{keeps_quiet, message},
    work_counter::counted,
};

/// How often a byte is looked at, at most: to decode the body, to take the object apart, to read a
/// member that we know, and to read that a second way or to clean it.
const LOOKS: usize = 4;
/// The same where something is replaced, which is done once, and makes three bytes of one.
const LOOKS_OF_OTHERS: usize = 2 + 3 * 3;

const ASKED: Asked = Asked {
    endpoint: "the token endpoint",
    grant_is_assertion: false,
    proof_is_assertion: false,
};

/// The example of RFC 9110 §5.6.7, less a second.
const NOW: Duration = Duration::from_secs(784_111_776);

/// What became of an answer, to be compared.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    token: String,
    lifetime: Option<f64>,
    scope: Option<String>,
    refresh_token: Option<String>,
}

fn read(response: Response<Bytes>) -> Result<TokenResponse, Error> {
    Leniency::default().read(response, Some(UNIX_EPOCH + NOW), ASKED)
}

/// Of an answer in the notation of [`message`].
pub(crate) fn of_any_answer(input: &[u8]) {
    let Some(response) = message(input) else {
        return;
    };
    let (status, length) = (response.status(), input.len());
    let (answer, looks) = counted(|| read(response.clone()));
    let most = match std::str::from_utf8(response.body()) {
        Ok(_) => LOOKS,
        Err(_) => LOOKS_OF_OTHERS,
    };
    assert!(looks <= most * length, "{looks} of {length}");
    match &answer {
        Ok(token) => {
            assert!(status.is_success());
            of_any_token(token, &response);
        }
        Err(error) => of_any_error(error, &response),
    }
    // Neither a mark in front of the body nor white space around it says anything.
    let mut wrapped = response.clone();
    let body = [b"\xef\xbb\xbf \n", &response.body()[..], b"\r\n"].concat();
    *wrapped.body_mut() = body.into();
    if !response.body().starts_with(b"\xef\xbb\xbf") {
        same(&answer, &read(wrapped));
    }
    by_other_rules(&response, &answer);
}

fn of_any_token(token: &TokenResponse, response: &Response<Bytes>) {
    let told = of(token);
    assert!(!told.token.is_empty() && told.token.bytes().all(|b| matches!(b, 0x21..=0x7e)));
    assert_ne!(told.refresh_token.as_deref(), Some(""));
    // What is printed of it says the same, in both of its forms.
    let mut json = Map::new();
    json.insert("access_token".to_owned(), json!(told.token));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("access_token", &told.token);
    let lifetime = told.lifetime.map(|seconds| (seconds as u64).to_string());
    for (name, value) in [
        ("expires_in", &lifetime),
        ("scope", &told.scope),
        ("refresh_token", &told.refresh_token),
    ] {
        if let Some(value) = value {
            json.insert(name.to_owned(), json!(value));
            form.append_pair(name, value);
        }
    }
    let mut printed = response.clone();
    *printed.body_mut() = Json::Object(json.clone()).to_string().into();
    same(&Ok(token.clone()), &read(printed.clone()));
    // `Debug` is the same whatever the secrets.
    for secret in ["access_token", "refresh_token"] {
        if let Some(secret) = json.get_mut(secret) {
            *secret = json!("another");
        }
    }
    let mut others = response.clone();
    *others.body_mut() = Json::Object(json).to_string().into();
    let others = read(others).map(|others| format!("{others:?}"));
    assert_eq!(others.ok(), Some(format!("{token:?}")));
    *printed.body_mut() = form.finish().into();
    printed.headers_mut().remove(header::CONTENT_TYPE);
    same(&Ok(token.clone()), &read(printed));
}

fn of_any_error(error: &Error, response: &Response<Bytes>) {
    use ErrorKind::{InvalidResponse, OAuth, Status, UnsupportedTokenType};
    keeps_quiet(error);
    let success = response.status().is_success();
    match error.kind() {
        OAuth => assert_eq!(error.status(), Some(response.status())),
        Status => assert!(error.status() == Some(response.status()) && !success),
        InvalidResponse | UnsupportedTokenType => assert!(success && error.status().is_none()),
        other => unreachable!("{other:?}"),
    }
    assert_eq!(error.oauth_error().is_some(), error.kind() == OAuth);
    assert!(error.retry_after() <= Some(LONGEST_RETRY_AFTER));
    let Some(oauth) = error.oauth_error() else {
        return;
    };
    // Printed, it says the same.
    let mut printed = response.clone();
    let code = match oauth.code() {
        OAuthErrorCode::Malformed => "",
        code => code.as_str(),
    };
    let body = json!({
        "error": code,
        "error_description": oauth.description(),
        "error_uri": oauth.uri(),
    });
    *printed.body_mut() = body.to_string().into();
    let again = read(printed).err();
    let said = |error: &Error| (error.retry(), error.retry_after());
    assert_eq!(again.as_ref().and_then(Error::oauth_error), Some(oauth));
    assert_eq!(again.as_ref().map(said), Some(said(error)));
}

fn same(one: &Result<TokenResponse, Error>, other: &Result<TokenResponse, Error>) {
    match (one, other) {
        (Ok(one), Ok(other)) => assert_eq!(of(one), of(other)),
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert_eq!(one.oauth_error(), other.oauth_error());
        }
        _ => unreachable!("{one:?} and {other:?}"),
    }
}

fn of(token: &TokenResponse) -> Told {
    let arrived = token
        .clone()
        .into_token(Moment::default(), Moment::default(), None);
    let sent = arrived.header_value();
    assert_eq!(&sent.as_bytes()[..7], b"Bearer ");
    assert!(sent.is_sensitive());
    Told {
        token: arrived.expose_secret().to_owned(),
        lifetime: token.expires_in().map(|lifetime| lifetime.as_secs() as f64),
        scope: token.scope().map(str::to_owned),
        refresh_token: token.refresh_token().map(|r| r.expose_secret().to_owned()),
    }
}

/// A JSON object is a token exactly if nothing that matters is there twice and [`told`] says so,
/// and the same one.
fn by_other_rules(response: &Response<Bytes>, answer: &Result<TokenResponse, Error>) {
    let text = String::from_utf8_lossy(response.body());
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let Ok(Json::Object(object)) = serde_json::from_str(text) else {
        return;
    };
    let success = response.status().is_success();
    let expected = success.then(|| told(&object)).flatten();
    if !is_twice(text) {
        assert_eq!(answer.as_ref().ok().map(of), expected, "{object:?}");
        return;
    }
    assert!(answer.is_err(), "{text}");
    // Of members that are there twice, `object` has the last, and is a document without them.
    let mut once = response.clone();
    *once.body_mut() = Json::Object(object.clone()).to_string().into();
    assert_eq!(read(once).ok().as_ref().map(of), expected, "{object:?}");
}

fn is_twice(object: &str) -> bool {
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
    let matter =
        "access_token token_type expires_in scope refresh_token error error_description error_uri";
    matter.split(' ').any(|known| count(known) > 1)
}

fn told(object: &Map<String, Json>) -> Option<Told> {
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
    Some(Told {
        token: token.to_owned(),
        lifetime: member("expires_in").map(seconds),
        scope,
        refresh_token: refresh_token.map(str::to_owned),
    })
}

/// Whole seconds that a lifetime says, as far as `f64` goes; five minutes if it says nothing.
fn seconds(lifetime: &Json) -> f64 {
    let number = match lifetime {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits =
                |part: &str| !part.is_empty() && !part.contains(|c: char| !c.is_ascii_digit());
            let number = digits(whole) && digits(fraction);
            // Without its fraction, which `f64` may round up to the next second.
            number.then(|| text.parse()).and_then(Result::ok)
        }
        _ => None,
    };
    match number {
        Some(number) if number >= 0.0 => number.floor().min(u64::MAX as f64),
        _ => 300.0,
    }
}

/// Of any value of a `Retry-After`.
pub(crate) fn of_any_retry_after(value: &[u8]) {
    let now = UNIX_EPOCH + NOW;
    let Some(headers) = retrying(value) else {
        return;
    };
    let (wait, looks) = counted(|| retry_after(&headers, Some(now)));
    assert!(looks <= value.len());
    let text = value.trim_ascii();
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    // A date is of no use without a time to count from.
    let timeless = retry_after(&headers, None);
    assert_eq!(timeless, wait.filter(|_| digits), "{text:?}");
    if digits {
        let seconds = text.iter().fold(0_u64, |seconds, digit| {
            seconds
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
        let longest = 31_536_000;
        assert_eq!(wait, Some(Duration::from_secs(seconds.min(longest))));
    }
    let Some(wait) = wait else { return };
    assert!(wait <= LONGEST_RETRY_AFTER && wait.subsec_nanos() == 0);
    // Printed, it says the same, both as a date and in seconds.
    let date = httpdate::fmt_http_date(now + wait);
    for printed in [
        date,
        wait.as_secs().to_string(),
        format!("\t{} ", wait.as_secs()),
    ] {
        let again = retrying(printed.as_bytes()).map(|h| retry_after(&h, Some(now)));
        assert_eq!(again, Some(Some(wait)), "{printed}");
    }
}

fn retrying(value: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_bytes(value).ok()?;
    headers.append(header::RETRY_AFTER, value);
    Some(headers)
}

/// Token, lifetime in seconds, scope and refresh token.
#[cfg(test)]
pub(crate) type Plain = (String, Option<u64>, Option<String>, Option<String>);

#[cfg(test)]
pub(crate) fn told_by(answer: &str) -> Option<Plain> {
    let told = of(&read(message(answer.as_bytes())?).ok()?);
    let lifetime = told.lifetime.map(|seconds| seconds as u64);
    Some((told.token, lifetime, told.scope, told.refresh_token))
}
