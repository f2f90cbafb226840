//! Invariants for any callback text: [`code`] and [`answer`] agree. [`answer`] is a second
//! implementation of the rules, with a decoder of its own.

use super::*;
use crate::{parser_testing::assert_no_leak, work_counter::counted};

/// How often each byte of a callback may be read, in addition to once for each parameter in the
/// redirect URI's query.
const MAX_READS: usize = 4;

const STATE: &str = "a b&c=d+e%";
const ISSUER: &str = "https://idp.example";

/// The redirect URI of a login, the addresses that its callbacks may have, and the parameters in its
/// query.
struct Redirect {
    redirect_uri: &'static str,
    addresses: &'static [&'static str],
    own: &'static [(&'static str, &'static str)],
}

const REDIRECTS: [Redirect; 4] = [
    Redirect {
        redirect_uri: "https://app.example/cb/",
        addresses: &["https://app.example/cb/", "/cb/"],
        own: &[],
    },
    Redirect {
        redirect_uri: "https://app.example?tenant=a+b&x",
        addresses: &["https://app.example", "https://app.example/", "/"],
        own: &[("tenant", "a b"), ("x", "")],
    },
    Redirect {
        redirect_uri: "com.example.app:/cb",
        addresses: &["com.example.app:/cb", "/cb"],
        own: &[],
    },
    // No redirect URI is configured: any address is accepted.
    Redirect {
        redirect_uri: "",
        addresses: &[],
        own: &[],
    },
];

/// Checks the invariants for any text.
pub(crate) fn check_callback(callback: &[u8]) {
    let Ok(callback) = std::str::from_utf8(callback) else {
        return;
    };
    let state = SecretString::from(STATE);
    for redirect in &REDIRECTS {
        for (issuer, issuer_is_sent) in [(None, false), (Some(ISSUER), false), (Some(ISSUER), true)]
        {
            let expected = Expected {
                redirect_uri: redirect.redirect_uri,
                state: &state,
                issuer,
                issuer_is_sent,
            };
            let (read, reads) = counted(|| code(callback, &expected));
            let max_reads =
                (MAX_READS + redirect.own.len()) * callback.len() + redirect.redirect_uri.len();
            assert!(reads <= max_reads, "{reads}: {callback}");
            let read = match read {
                Ok(code) => Some(code.expose_secret().to_owned()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::SignIn);
                    assert_no_leak(&error);
                    None
                }
            };
            let answer = answer(callback, redirect, &expected);
            assert_eq!(read, answer, "{callback:?} to {}", redirect.redirect_uri);
            if let Some(code) = read {
                round_trips(&code, redirect, &expected);
            }
        }
    }
}

/// A callback with `code_`, encoded as a server encodes it, returns `code_`.
fn round_trips(code_: &str, redirect: &Redirect, expected: &Expected<'_>) {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(redirect.own);
    query.append_pair("code", code_).append_pair("state", STATE);
    query.append_pair("iss", ISSUER);
    let query = query.finish();
    #[cfg(feature = "login")]
    assert!(has_state(&query, expected.state));
    for address in redirect.addresses {
        let read = code(&format!("{address}?{query}"), expected);
        assert_eq!(
            read.ok().as_ref().map(ExposeSecret::expose_secret),
            Some(code_)
        );
    }
    let read = code(&query, expected);
    assert_eq!(
        read.ok().as_ref().map(ExposeSecret::expose_secret),
        Some(code_)
    );
}

/// Returns the code of a valid callback of this login.
fn answer(callback: &str, redirect: &Redirect, expected: &Expected<'_>) -> Option<String> {
    let (callback, fragment) = cut(callback, '#');
    if callback.len() + fragment.len() > MAX_LENGTH || fragment.contains("access_token") {
        return None;
    }
    let scheme = cut(callback, ':').0;
    let scheme = callback.len() > scheme.len()
        && !scheme.is_empty()
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let query = if scheme || callback.starts_with('/') {
        let (address, query) = cut(callback, '?');
        if !redirect.addresses.is_empty() && !redirect.addresses.contains(&address) {
            return None;
        }
        query
    } else {
        callback.strip_prefix('?').unwrap_or(callback)
    };
    let pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| cut(pair, '='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let all = |wanted: &str| {
        let values = pairs.iter().filter(|(name, _)| name == wanted);
        values.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let own = |(name, value): &(&str, &str)| all(name).contains(value);
    if !redirect.own.iter().all(own) || RESPONSE_PARAMETERS.iter().any(|name| all(name).len() > 1) {
        return None;
    }
    let from = match (&all("iss")[..], expected.issuer) {
        ([iss], Some(issuer)) => *iss == issuer,
        ([], Some(_)) => !expected.issuer_is_sent,
        _ => true,
    };
    match &all("code")[..] {
        [code] if from && all("state") == [STATE] && all("error").is_empty() => {
            Some((*code).to_owned()).filter(|code| !code.is_empty())
        }
        _ => None,
    }
}

fn cut(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// Decodes one name or value of `application/x-www-form-urlencoded` (WHATWG URL §5.1).
fn decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut rest = text.as_bytes();
    let mut bytes = Vec::new();
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match (first, digit(behind.first()), digit(behind.get(1))) {
            (b'+', ..) => b' ',
            (b'%', Some(high), Some(low)) => {
                rest = &behind[2..];
                u8::try_from(16 * high + low).unwrap_or_default()
            }
            _ => *first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
