//! Reads the token endpoint's answer (RFC 6749 §5): strict in what becomes a token, lenient in how
//! it is wrapped.
//!
//! Accepted, because servers in use send it: any `Content-Type` around a JSON object, a byte order
//! mark, form encoding, numbers in strings, an error with status 200, an error in response headers.
//! Not accepted: a member twice, a token that is no string, a type that we cannot use.
//!
//! Invariant: nothing of the body goes into an error but the checked error code. (serde_json's own
//! errors quote the input, so they are dropped.)

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, response::Parts};
use secrecy::SecretString;

use super::answer::{Answer, Lifetime, Members, Value};
use crate::{
    error::{Error, ErrorKind, OAuthError, OAuthErrorCode, Retry},
    token::TokenResponse,
    work_counter::looked_at,
};

/// The lifetime of a token whose `expires_in` cannot be read: not for ever, and not zero.
const UNREADABLE_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The longest `Retry-After` that is told: a year, with which every sum is safe. (The cache obeys
/// a shorter one.)
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How answers are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leniency {
    /// An answer without `token_type` is an error, not `Bearer`.
    pub(crate) strict_token_type: bool,
    /// Further values of `token_type` that mean `Bearer`.
    pub(crate) bearer_aliases: Vec<String>,
    /// How the scheme is spelled on requests; `Bearer` if nothing else is said.
    pub(crate) scheme: Option<String>,
}

/// What was asked, so that a refusal says what to look at.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// Who, for a human.
    pub(super) endpoint: &'static str,
    pub(super) grant_is_assertion: bool,
    pub(super) proof_is_assertion: bool,
}

impl Leniency {
    pub(crate) fn read(
        &self,
        response: Response<Bytes>,
        now: Option<SystemTime>,
        asked: Asked,
    ) -> Result<TokenResponse, Error> {
        let (parts, body) = response.into_parts();
        let answer = Answer::parse(&parts.headers, &body);
        if let Some(error) = refusal(&parts, &answer, now, asked) {
            return Err(error);
        }
        match answer {
            Answer::Members(members) => self.token(members),
            Answer::Twice => Err(invalid("the token response has the same member twice")),
            Answer::Unreadable => Err(invalid(
                "the token response is neither a JSON object nor form-encoded",
            )),
        }
    }

    fn token(&self, members: Members) -> Result<TokenResponse, Error> {
        let token = match members.access_token {
            Some(Value::Text(token)) if !token.is_empty() => token,
            Some(_) => return Err(invalid("`access_token` is not a string, or empty")),
            None => return Err(invalid("the token response has no `access_token`")),
        };
        let mut builder = TokenResponse::builder(SecretString::from(token.as_str()));
        if let Some(scheme) = self.scheme(members.token_type)? {
            builder = builder.scheme(scheme);
        }
        match members.expires_in {
            Lifetime::Unknown => {}
            Lifetime::Unreadable => builder = builder.expires_in(UNREADABLE_LIFETIME),
            Lifetime::Known(lifetime) => builder = builder.expires_in(lifetime),
        }
        if let Some(scope) = members.scope {
            builder = builder.scope(scope);
        }
        if let Some(Value::Text(refresh_token)) = members.refresh_token
            && !refresh_token.is_empty()
        {
            builder = builder.refresh_token(refresh_token.as_str());
        }
        builder.build()
    }

    /// The scheme to use on requests, if it is not the default (RFC 6749 §7.1).
    fn scheme(&self, token_type: Option<Value>) -> Result<Option<String>, Error> {
        let unsupported = |message: &'static str| {
            Err(Error::build(ErrorKind::UnsupportedTokenType, Retry::Never, message).done())
        };
        match token_type {
            None if self.strict_token_type => unsupported("the token response has no `token_type`"),
            None => Ok(self.scheme.clone()),
            Some(Value::Text(given)) => {
                let bearer = given.eq_ignore_ascii_case("bearer")
                    || self
                        .bearer_aliases
                        .iter()
                        .any(|alias| alias.eq_ignore_ascii_case(&given));
                if bearer {
                    Ok(self.scheme.clone())
                } else {
                    unsupported("the token's `token_type` is not `Bearer`")
                }
            }
            Some(Value::Other) => unsupported("the token's `token_type` is not a string"),
        }
    }
}

/// The error of an answer: of its body, or else, when there is no token either, of its headers.
fn error_of(headers: &HeaderMap, answer: &Answer, status: StatusCode) -> Option<OAuthError> {
    if let Answer::Members(members) = answer {
        let text = |value: &Option<Value>| match value {
            Some(Value::Text(text)) => Some(text.as_str().to_owned()),
            _ => None,
        };
        let token = status.is_success() && members.access_token.is_some();
        match &members.error {
            // A member without a value is none.
            None if token => return None,
            Some(Value::Text(code)) if token && code.is_empty() => return None,
            Some(Value::Text(code)) => {
                let description = text(&members.error_description);
                let uri = text(&members.error_uri);
                let error = OAuthError::new(code, description.as_deref(), uri.as_deref());
                return Some(error);
            }
            Some(Value::Other) => return Some(OAuthError::new("", None, None)),
            None => {}
        }
    }
    // Not `HeaderValue::to_str`, which is for ASCII: descriptions are in the server's language.
    let header = |name: &str| {
        let value = headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    };
    Some(OAuthError::new(
        &header("error")?,
        header("error_description").as_deref(),
        header("error_uri").as_deref(),
    ))
}

fn retry_of_code(code: &OAuthErrorCode, status: StatusCode) -> Retry {
    match code {
        // Too many requests are too many, whatever else they are called.
        _ if status == StatusCode::TOO_MANY_REQUESTS => Retry::Soon,
        OAuthErrorCode::TemporarilyUnavailable | OAuthErrorCode::ServerError => Retry::Soon,
        // Google's name for it.
        OAuthErrorCode::Other(code) if code == "internal_failure" => Retry::Soon,
        OAuthErrorCode::Other(_) | OAuthErrorCode::Malformed => retry_of_status(status),
        _ => Retry::Never,
    }
}

pub(crate) fn retry_of_status(status: StatusCode) -> Retry {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Retry::Soon,
        status if status.is_server_error() => Retry::Soon,
        _ => Retry::Never,
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. Anything else is none.
pub(crate) fn retry_after(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    looked_at(value.len());
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let wait = if digits {
        // More digits than fit are a long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now?).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

fn invalid(message: &'static str) -> Error {
    Error::build(ErrorKind::InvalidResponse, Retry::Later, message).done()
}

/// The body of an answer that is no refusal.
pub(crate) fn accepted(
    response: Response<Bytes>,
    now: Option<SystemTime>,
    asked: Asked,
) -> Result<Bytes, Error> {
    let (parts, body) = response.into_parts();
    let answer = Answer::parse(&parts.headers, &body);
    match refusal(&parts, &answer, now, asked) {
        Some(error) => Err(error),
        None => Ok(body),
    }
}

fn refusal(parts: &Parts, answer: &Answer, now: Option<SystemTime>, asked: Asked) -> Option<Error> {
    let status = parts.status;
    let endpoint = asked.endpoint;
    let error = if let Some(oauth) = error_of(&parts.headers, answer, status) {
        let message = match oauth.code() {
            OAuthErrorCode::InvalidClient if asked.proof_is_assertion => format!(
                "{endpoint} refused the client: its id, its key, or what its assertion says \
                 (`aud`; `iat` and `exp`, by this machine's clock) is wrong"
            ),
            OAuthErrorCode::InvalidGrant if asked.grant_is_assertion => format!(
                "{endpoint} refused the assertion: its key, or what it says (`iss`, `sub`, `aud`; \
                 `iat` and `exp`, by this machine's clock) is wrong"
            ),
            OAuthErrorCode::InvalidClient => format!(
                "{endpoint} refused the client: its id, its secret or the way it proves itself \
                 is wrong"
            ),
            _ => format!("{endpoint} answered with an error"),
        };
        let retry = retry_of_code(oauth.code(), status);
        Error::build(ErrorKind::OAuth, retry, message).oauth(oauth)
    } else if !status.is_success() {
        let message = match status.is_redirection() {
            true => {
                format!("{endpoint} redirects; redirects are not followed, give its final URL")
            }
            false => format!("{endpoint} answered with an unexpected status"),
        };
        Error::build(ErrorKind::Status, retry_of_status(status), message)
    } else {
        return None;
    };
    let wait = retry_after(&parts.headers, now);
    Some(error.status(status).server_wait(wait).done())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
