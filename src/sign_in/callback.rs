//! The callback: the authorization response at the redirect URI (RFC 6749 §4.1.2, RFC 9207).
//!
//! A callback is untrusted: any page can make a browser request one. A callback that fails a check leads
//! to no request. The checks, in this order:
//!
//! 1. It came to the redirect URI, and has no parameter twice.
//! 2. `state`: it belongs to this login.
//! 3. `iss`: it is from the authorization server of this login.
//! 4. It has either a code or an error.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;
use url::{Url, form_urlencoded};

use crate::{
    error::{Error, ErrorBuilder, ErrorKind, OAuthError, Retry},
    work_counter::looked_at,
};

/// Longer callbacks are rejected unread.
const MAX_LENGTH: usize = 64 * 1024;

/// The values that a callback has to match.
pub(crate) struct Expected<'a> {
    pub(crate) redirect_uri: &'a str,
    pub(crate) state: &'a SecretString,
    pub(crate) issuer: Option<&'a str>,
    /// The server declares that it always sends `iss` (RFC 9207 §3).
    pub(crate) issuer_is_sent: bool,
}

/// The known parameters; all others are ignored (RFC 6749 §4.1.2).
#[derive(Default)]
struct Parameters {
    code: Option<SecretString>,
    state: Option<SecretString>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    error_uri: Option<String>,
}

/// Returns the code of a valid callback. `callback` is the requested URL, in full or from its path on,
/// or its query alone.
pub(crate) fn code(callback: &str, expected: &Expected<'_>) -> Result<SecretString, Error> {
    if callback.len() > MAX_LENGTH {
        return Err(invalid("the callback is longer than 64 KiB").done());
    }
    let query = query(callback, expected.redirect_uri)?;
    let parameters = Parameters::read(query)?;
    let state = parameters.state.as_ref().map(ExposeSecret::expose_secret);
    if !state.is_some_and(|state| same(state, expected.state)) {
        return Err(invalid("the callback's `state` is not the one of this login").done());
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

/// Whether a query has this `state`, and so belongs to the login, valid or not.
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

/// Returns the query of a callback. An address in front of it has to be the redirect URI, in full or as
/// a path.
fn query<'a>(callback: &'a str, redirect_uri: &str) -> Result<&'a str, Error> {
    looked_at(callback.len());
    let (callback, fragment) = callback.split_once('#').unwrap_or((callback, ""));
    if fragment.contains("access_token") {
        let message = "the callback has a token in its fragment: the implicit grant is not \
                       supported (RFC 9700 §2.1.2)";
        return Err(invalid(message).done());
    }
    let (registered, own) = redirect_uri.split_once('?').unwrap_or((redirect_uri, ""));
    let query = if callback.starts_with('/') || is_absolute(callback) {
        let (address, query) = callback.split_once('?').unwrap_or((callback, ""));
        // The redirect URI as browsers normalise it: they add the slash to `https://app.example`.
        let normalised = Url::parse(registered).ok();
        let matches = |url: &Url| match callback.starts_with('/') {
            true => address == url.path(),
            false => address == url.as_str(),
        };
        let any_address = redirect_uri.is_empty();
        if !any_address && address != registered && !normalised.as_ref().is_some_and(matches) {
            return Err(elsewhere());
        }
        query
    } else {
        callback.strip_prefix('?').unwrap_or(callback)
    };
    // The server keeps the redirect URI's own query (RFC 6749 §3.1.2).
    let is_there = |wanted| pairs(query).any(|pair| pair == wanted);
    if !pairs(own).all(is_there) {
        return Err(elsewhere());
    }
    Ok(query)
}

/// Whether the text begins with a scheme (RFC 3986 §3.1). The query of a callback does not: its first
/// name would contain a colon.
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

/// The parameters of an authorization response. A redirect URI cannot have them in its own query: the
/// callback would have them twice.
pub(crate) const RESPONSE_PARAMETERS: [&str; 6] = [
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
        // Compared verbatim (RFC 9207 §2.4).
        (Some(iss), Some(issuer)) if iss != issuer => {
            Err(invalid("the callback is from another authorization server").done())
        }
        (None, Some(_)) if expected.issuer_is_sent => {
            Err(invalid("the callback has no `iss`, which the server always sends").done())
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

    /// Returns the query with the right state.
    fn query(parameters: &str) -> String {
        format!("{parameters}&state=a+b%26c%3Dd%2Be%25")
    }

    fn is_rejected(callback: &str) -> bool {
        let error = read(callback, None, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
        assert!(!error.is_retryable());
        error.oauth_error().is_none()
    }

    #[test]
    fn p22_p30_s1_16_callback_values_are_decoded_and_state_round_trips() {
        let code = read(&query("code=a%2Bb+c%C3%BC"), None, false);
        assert_eq!(code.unwrap(), "a+b cü");
    }

    #[test]
    fn p26_unknown_callback_parameters_are_ignored() {
        let code = read(
            &query("code=x&session_state=y&authuser=0&authuser=1"),
            None,
            false,
        );
        assert_eq!(code.unwrap(), "x");
    }

    #[test]
    fn p25_c27_callback_with_missing_or_wrong_state_is_rejected() {
        for state in [
            "",
            "&state=",
            "&state=a+b%26c%3Dd%2Be",
            "&state=A+b%26c%3Dd%2Be%25",
        ] {
            assert!(is_rejected(&format!("code=x{state}")), "{state}");
        }
    }

    #[test]
    fn p28_error_callback_is_typed_and_its_state_is_checked() {
        let refusal = "error=access_denied&error_description=no%0Athanks";
        let error = read(&query(refusal), None, false).unwrap_err();
        let oauth = error.oauth_error().unwrap();
        assert_eq!(oauth.code(), &OAuthErrorCode::AccessDenied);
        assert_eq!(oauth.description(), Some("nothanks"));
        assert!(!error.to_string().contains("thanks"));
        let error = read(&query("error=login_hint_needed"), None, false).unwrap_err();
        let other = OAuthErrorCode::Other("login_hint_needed".to_owned());
        assert_eq!(error.oauth_error().unwrap().code(), &other);
        assert!(is_rejected(refusal));
    }

    #[test]
    fn p29_c27_callback_with_duplicate_or_missing_parameters_is_rejected() {
        for parameters in [
            "",
            "code=",
            "code=a&error=b",
            "code=a&code=a",
            "error=a&error=b",
        ] {
            assert!(is_rejected(&query(parameters)), "{parameters}");
        }
        assert!(is_rejected(&query(&query("code=a"))));
    }

    #[test]
    fn p90_s1_4_callback_to_another_address_is_rejected() {
        let parameters = query("code=x");
        assert!(read(&format!("{REDIRECT}?{parameters}"), None, false).is_ok());
        for other in [
            "https://app.example/cb",
            "https://app.example/CB/",
            "https://app.example:443/cb/",
            "http://app.example/cb/",
            "https://other.example/cb/",
        ] {
            assert!(is_rejected(&format!("{other}?{parameters}")), "{other}");
        }
    }

    #[test]
    fn callback_may_be_a_query_a_path_or_a_full_url() {
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
    fn p203_callback_with_a_token_in_its_fragment_is_rejected() {
        let callback = format!("{REDIRECT}?{}#access_token=x", query("code=x"));
        assert!(is_rejected(&callback));
    }

    #[test]
    fn p161_p162_p163_p164_p165_callback_issuer_is_compared_verbatim() {
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
        // A missing `iss` is an error only if the server always sends one.
        assert!(read(&query("code=x"), issuer, true).is_err());
        assert!(read(&query("code=x"), issuer, false).is_ok());
        // An error response of another server is rejected, too.
        let error = read(
            &query("error=access_denied&iss=https://evil"),
            issuer,
            false,
        );
        assert!(error.unwrap_err().oauth_error().is_none());
    }

    #[test]
    fn callback_error_shows_no_parameter() {
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
        fn p25_arbitrary_text_is_rejected_without_a_panic(callback in ".{0,200}") {
            prop_assert!(read(&callback, Some("https://idp.example"), true).is_err());
        }

        #[test]
        fn any_code_round_trips(code in "\\PC{1,100}") {
            let encoded: String = form_urlencoded::byte_serialize(code.as_bytes()).collect();
            let read = read(&query(&format!("code={encoded}")), None, false);
            prop_assert_eq!(read.unwrap(), code);
        }
    }
}
