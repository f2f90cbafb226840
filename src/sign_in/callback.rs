//! What comes back to the redirect URI (RFC 6749 §4.1.2, RFC 9207).
//!
//! Whoever can make a browser open a URL can write it; so everything is checked, in the order in
//! which it matters, before anything is believed: is it this login's answer (`state`), is it from
//! the server that was asked (`iss`), is it one answer (a code *or* an error, nothing twice). Only
//! then is a code looked at. No answer that fails leads to a request.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;
use url::{Url, form_urlencoded};

use crate::{
    error::{Error, ErrorBuilder, ErrorKind, OAuthError, Retry},
    work_counter::looked_at,
};

/// No callback is longer; what is, is not read.
const LONGEST: usize = 64 * 1024;

/// What an answer has to match.
pub(crate) struct Expected<'a> {
    /// Where the server was told to send it.
    pub(crate) redirect_uri: &'a str,
    pub(crate) state: &'a SecretString,
    pub(crate) issuer: Option<&'a str>,
    /// The server says of itself that it always sends `iss` (RFC 9207 §3).
    pub(crate) issuer_is_sent: bool,
}

/// The parameters that mean something; all others are ignored (RFC 6749 §4.1.2).
#[derive(Default)]
struct Parameters {
    code: Option<SecretString>,
    state: Option<SecretString>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    error_uri: Option<String>,
}

/// The code of an answer to this login. `callback`: the URL that was requested, in full or without
/// the host, or its query alone.
pub(crate) fn code(callback: &str, expected: &Expected<'_>) -> Result<SecretString, Error> {
    if callback.len() > LONGEST {
        return Err(invalid("the callback is longer than 64 KiB").done());
    }
    let query = query(callback, expected.redirect_uri)?;
    let parameters = Parameters::read(query)?;
    let state = parameters.state.as_ref().map(ExposeSecret::expose_secret);
    if !state.is_some_and(|state| same(state, expected.state)) {
        return Err(invalid("the callback's `state` is not that of this login").done());
    }
    check_issuer(parameters.iss.as_deref(), expected)?;
    match (parameters.code, parameters.error) {
        (Some(code), None) if !code.expose_secret().is_empty() => Ok(code),
        (None, Some(error)) => {
            let description = parameters.error_description.as_deref();
            let oauth = OAuthError::new(&error, description, parameters.error_uri.as_deref());
            let message = "the authorization server refused the login";
            let error = Error::build(ErrorKind::SignIn, Retry::Never, message);
            Err(error.oauth(oauth).done())
        }
        (Some(_), Some(_)) => Err(invalid("the callback has a code and an error").done()),
        _ => Err(invalid("the callback has neither a code nor an error").done()),
    }
}

/// Whether a query says to be the answer to the login with `state`, right or wrong.
#[cfg(feature = "login")]
pub(crate) fn has_state(query: &str, state: &SecretString) -> bool {
    pairs(query).any(|(name, value)| name == "state" && same(&value, state))
}

fn pairs(query: &str) -> form_urlencoded::Parse<'_> {
    looked_at(query.len());
    form_urlencoded::parse(query.as_bytes())
}

fn same(given: &str, state: &SecretString) -> bool {
    let state = state.expose_secret().as_bytes();
    given.as_bytes().ct_eq(state).into()
}

/// The query of a callback. One that says where it came to, in full or as a path, came to the
/// redirect URI.
fn query<'a>(callback: &'a str, redirect_uri: &str) -> Result<&'a str, Error> {
    looked_at(callback.len());
    let (callback, fragment) = callback.split_once('#').unwrap_or((callback, ""));
    if fragment.contains("access_token") {
        return Err(invalid("a token in a fragment (RFC 9700 §2.1.2) is not accepted").done());
    }
    let (registered, own) = redirect_uri.split_once('?').unwrap_or((redirect_uri, ""));
    let query = if callback.starts_with('/') || is_absolute(callback) {
        let (address, query) = callback.split_once('?').unwrap_or((callback, ""));
        // What a browser makes of the redirect URI: `https://app.example/` without the slash, say.
        let requested = Url::parse(registered).ok();
        let is_it = |url: &Url| match callback.starts_with('/') {
            true => address == url.path(),
            false => address == url.as_str(),
        };
        let anywhere = redirect_uri.is_empty();
        if !anywhere && address != registered && !requested.as_ref().is_some_and(is_it) {
            return Err(elsewhere());
        }
        query
    } else {
        callback.strip_prefix('?').unwrap_or(callback)
    };
    // The redirect URI's own query comes back with every answer (RFC 6749 §3.1.2).
    let is_there = |wanted| pairs(query).any(|pair| pair == wanted);
    if !pairs(own).all(is_there) {
        return Err(elsewhere());
    }
    Ok(query)
}

/// Whether it begins with a scheme (RFC 3986 §3.1), which no query of an answer does: the first
/// name in it would have a colon.
fn is_absolute(callback: &str) -> bool {
    looked_at(callback.len());
    let Some((scheme, _)) = callback.split_once(':') else {
        return false;
    };
    let of_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    !scheme.is_empty() && scheme.bytes().all(of_scheme)
}

fn elsewhere() -> Error {
    invalid("the callback did not come to this login's redirect URI").done()
}

/// Parameters of answers: no redirect URI can have them in its query, they would be there twice.
pub(crate) const OF_ANSWERS: [&str; 6] = [
    "code",
    "state",
    "iss",
    "error",
    "error_description",
    "error_uri",
];

impl Parameters {
    fn read(query: &str) -> Result<Self, Error> {
        let mut read = Self::default();
        for (name, value) in pairs(query) {
            let twice = match &*name {
                "code" => read.code.replace(value.into_owned().into()).is_some(),
                "state" => read.state.replace(value.into_owned().into()).is_some(),
                "iss" => read.iss.replace(value.into_owned()).is_some(),
                "error" => read.error.replace(value.into_owned()).is_some(),
                "error_description" => read.error_description.replace(value.into_owned()).is_some(),
                "error_uri" => read.error_uri.replace(value.into_owned()).is_some(),
                _ => false,
            };
            if twice {
                return Err(invalid("the callback has a parameter twice").done());
            }
        }
        Ok(read)
    }
}

fn check_issuer(iss: Option<&str>, expected: &Expected<'_>) -> Result<(), Error> {
    match (iss, expected.issuer) {
        // Compared as it is (RFC 9207 §2.4).
        (Some(iss), Some(issuer)) if iss != issuer => {
            Err(invalid("the callback is from another authorization server").done())
        }
        (None, Some(_)) if expected.issuer_is_sent => {
            Err(invalid("the callback does not say which authorization server it is from").done())
        }
        _ => Ok(()),
    }
}

fn invalid(message: &'static str) -> ErrorBuilder {
    Error::build(ErrorKind::SignIn, Retry::Never, message)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::OAuthErrorCode;

    const REDIRECT: &str = "https://app.example/cb/";

    fn read(callback: &str, issuer: Option<&str>, issuer_is_sent: bool) -> Result<String, Error> {
        let state = SecretString::from("a b&c=d+e%");
        let expected = Expected {
            redirect_uri: REDIRECT,
            state: &state,
            issuer,
            issuer_is_sent,
        };
        code(callback, &expected).map(|code| code.expose_secret().to_owned())
    }

    /// With the right state.
    fn query(parameters: &str) -> String {
        format!("{parameters}&state=a+b%26c%3Dd%2Be%25")
    }

    fn refused(callback: &str) -> bool {
        let error = read(callback, None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
        assert!(!error.is_retryable());
        error.oauth_error().is_none()
    }

    #[test]
    fn p22_p30_s1_16_values_are_decoded_and_state_round_trips() {
        let code = read(&query("code=a%2Bb+c%C3%BC"), None, false);
        assert_eq!(code.unwrap(), "a+b cü");
    }

    #[test]
    fn p26_what_is_not_known_is_ignored() {
        let code = read(
            &query("code=x&session_state=y&authuser=0&authuser=1"),
            None,
            false,
        );
        assert_eq!(code.unwrap(), "x");
    }

    #[test]
    fn p25_c27_the_state_is_there_and_the_same() {
        for state in [
            "",
            "&state=",
            "&state=a+b%26c%3Dd%2Be",
            "&state=A+b%26c%3Dd%2Be%25",
        ] {
            assert!(refused(&format!("code=x{state}")), "{state}");
        }
    }

    #[test]
    fn p28_an_error_is_typed_and_its_state_checked() {
        let refusal = "error=access_denied&error_description=no%0Athanks";
        let error = read(&query(refusal), None, false).unwrap_err();
        let oauth = error.oauth_error().unwrap();
        assert_eq!(oauth.code(), &OAuthErrorCode::AccessDenied);
        assert_eq!(oauth.description(), Some("nothanks"));
        assert!(!error.to_string().contains("thanks"));
        let error = read(&query("error=login_hint_needed"), None, false).unwrap_err();
        let other = OAuthErrorCode::Other("login_hint_needed".to_owned());
        assert_eq!(error.oauth_error().unwrap().code(), &other);
        assert!(refused(refusal));
    }

    #[test]
    fn p29_c27_one_answer_and_nothing_twice() {
        for parameters in [
            "",
            "code=",
            "code=a&error=b",
            "code=a&code=a",
            "error=a&error=b",
        ] {
            assert!(refused(&query(parameters)), "{parameters}");
        }
        assert!(refused(&query(&query("code=a"))));
    }

    #[test]
    fn p90_s1_4_it_came_to_the_redirect_uri_to_the_letter() {
        let parameters = query("code=x");
        assert!(read(&format!("{REDIRECT}?{parameters}"), None, false).is_ok());
        for other in [
            "https://app.example/cb",
            "https://app.example/CB/",
            "https://app.example:443/cb/",
            "http://app.example/cb/",
            "https://other.example/cb/",
        ] {
            assert!(refused(&format!("{other}?{parameters}")), "{other}");
        }
    }

    #[test]
    fn a_query_alone_or_behind_its_path_is_as_good() {
        for start in ["", "?", "/cb/?", "https://app.example/cb/?"] {
            let callback = format!("{start}{}", query("code=a?b/c://d"));
            assert_eq!(
                read(&callback, None, false).unwrap(),
                "a?b/c://d",
                "{start}"
            );
        }
    }

    #[test]
    fn p203_a_token_in_a_fragment_is_no_answer() {
        let callback = format!("{REDIRECT}?{}#access_token=x", query("code=x"));
        assert!(refused(&callback));
    }

    #[test]
    fn p161_p162_p163_p164_p165_the_issuer() {
        let issuer = Some("https://idp.example");
        let from = |iss: &str| query(&format!("code=x&iss={iss}"));
        assert!(read(&from("https%3A%2F%2Fidp.example"), issuer, true).is_ok());
        for iss in [
            "https://idp.example/",
            "https://IDP.example",
            "https://idp.example:443",
        ] {
            for sent in [true, false] {
                assert!(read(&from(iss), issuer, sent).is_err(), "{iss}");
            }
        }
        // It was to be there.
        assert!(read(&query("code=x"), issuer, true).is_err());
        assert!(read(&query("code=x"), issuer, false).is_ok());
        // An error from somebody else is not the server's.
        let error = read(
            &query("error=access_denied&iss=https://evil"),
            issuer,
            false,
        );
        assert!(error.unwrap_err().oauth_error().is_none());
    }

    #[test]
    fn nothing_of_a_callback_shows_in_an_error() {
        for parameters in [
            "code=canary",
            "code=canary&code=canary",
            "error=canary%20x&code=canary",
        ] {
            let error = read(parameters, None, false).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }

    proptest! {
        #[test]
        fn p25_no_text_panics_or_is_taken_for_an_answer(callback in ".{0,200}") {
            prop_assert!(read(&callback, Some("https://idp.example"), true).is_err());
        }

        #[test]
        fn any_code_comes_through(code in "\\PC{1,100}") {
            let encoded: String = form_urlencoded::byte_serialize(code.as_bytes()).collect();
            let read = read(&query(&format!("code={encoded}")), None, false);
            prop_assert_eq!(read.unwrap(), code);
        }
    }
}
