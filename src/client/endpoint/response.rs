//! Parses token responses (RFC 6749 §5): strict about the token, lenient about the format.
//!
//! Accepted, as servers in use send it: any `Content-Type` around a JSON object, a byte order mark, form
//! encoding, numbers in strings, an error with status 200, an error in response headers. Rejected:
//! duplicate members, a token that is not a string, an unsupported token type.
//!
//! Invariant: of the body, an error contains only the checked error code. serde_json's errors quote the
//! input, so they are dropped.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header, response::Parts};
use secrecy::SecretString;

use super::body::{Lifetime, Members, ParsedBody, Value};
use crate::{
    error::{Error, ErrorKind, OAuthError, OAuthErrorCode, Retry},
    token::TokenResponse,
    work_counter::looked_at,
};

/// The lifetime of a token whose `expires_in` cannot be parsed.
const UNREADABLE_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// The maximum `Retry-After`: a year, so that no sum overflows. The cache has a lower limit.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Settings for parsing responses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leniency {
    /// Makes a response without `token_type` an error; otherwise it means `Bearer`.
    pub(crate) strict_token_type: bool,
    /// Further values of `token_type` that mean `Bearer`.
    pub(crate) bearer_aliases: Vec<String>,
    /// The scheme on requests to the API. Defaults to `Bearer`.
    pub(crate) scheme: Option<String>,
}

/// What an error text needs to know about the request.
#[derive(Clone, Copy)]
pub(crate) struct RequestInfo {
    /// The endpoint's name in error texts.
    pub(super) endpoint: &'static str,
    pub(super) grant_is_assertion: bool,
    pub(super) auth_is_assertion: bool,
}

impl Leniency {
    pub(crate) fn read(
        &self,
        response: Response<Bytes>,
        now: Option<SystemTime>,
        info: RequestInfo,
    ) -> Result<TokenResponse, Error> {
        let (parts, body) = response.into_parts();
        let body = ParsedBody::parse(&parts.headers, &body);
        if let Some(error) = error_response(&parts, &body, now, info) {
            return Err(error);
        }
        match body {
            ParsedBody::Members(members) => self.token(members),
            ParsedBody::Duplicate => Err(invalid("the token response has a duplicate member")),
            ParsedBody::Unreadable => Err(invalid(
                "the token response is neither a JSON object nor form-encoded",
            )),
        }
    }

    fn token(&self, members: Members) -> Result<TokenResponse, Error> {
        let token = match members.access_token {
            Some(Value::Text(token)) if !token.is_empty() => token,
            Some(_) => {
                return Err(invalid(
                    "`access_token` of the token response is empty or not a string",
                ));
            }
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

    /// Checks the type (RFC 6749 §7.1). Returns the scheme if it is not the default.
    fn scheme(&self, token_type: Option<Value>) -> Result<Option<String>, Error> {
        let unsupported = |message: &'static str| {
            Err(Error::build(ErrorKind::UnsupportedTokenType, Retry::Never, message).done())
        };
        match token_type {
            None if self.strict_token_type => unsupported("the token response has no `token_type`"),
            None => Ok(self.scheme.clone()),
            Some(Value::Text(token_type)) => {
                let bearer = token_type.eq_ignore_ascii_case("bearer")
                    || self
                        .bearer_aliases
                        .iter()
                        .any(|alias| alias.eq_ignore_ascii_case(&token_type));
                if bearer {
                    Ok(self.scheme.clone())
                } else {
                    unsupported("`token_type` of the token response is not `Bearer`")
                }
            }
            Some(Value::Other) => unsupported("`token_type` of the token response is not a string"),
        }
    }
}

/// Returns the OAuth error of a response: from its body, otherwise from its headers if the body has no
/// token.
fn oauth_error(headers: &HeaderMap, body: &ParsedBody, status: StatusCode) -> Option<OAuthError> {
    if let ParsedBody::Members(members) = body {
        let text = |value: &Option<Value>| match value {
            Some(Value::Text(text)) => Some(text.as_str().to_owned()),
            _ => None,
        };
        let token = status.is_success() && members.access_token.is_some();
        match &members.error {
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
    // `HeaderValue::to_str` accepts ASCII only, and descriptions are in the server's language.
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
        // A rate limit, whatever the error code.
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

/// Parses `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. Returns `None` for anything else.
pub(crate) fn retry_after(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    looked_at(value.len());
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let wait = if digits {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now?).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn invalid(message: &'static str) -> Error {
    Error::build(ErrorKind::InvalidResponse, Retry::Later, message).done()
}

/// Returns the body of a successful response.
pub(crate) fn accepted(
    response: Response<Bytes>,
    now: Option<SystemTime>,
    info: RequestInfo,
) -> Result<Bytes, Error> {
    let (parts, body) = response.into_parts();
    let parsed = ParsedBody::parse(&parts.headers, &body);
    match error_response(&parts, &parsed, now, info) {
        Some(error) => Err(error),
        None => Ok(body),
    }
}

/// Returns the error of a response that is not successful.
fn error_response(
    parts: &Parts,
    body: &ParsedBody,
    now: Option<SystemTime>,
    info: RequestInfo,
) -> Option<Error> {
    let status = parts.status;
    let endpoint = info.endpoint;
    let error = if let Some(oauth) = oauth_error(&parts.headers, body, status) {
        let message = match oauth.code() {
            OAuthErrorCode::InvalidClient if info.auth_is_assertion => format!(
                "{endpoint} rejected the client authentication: check the client id, the key, \
                 and the assertion's claims (`aud`, and `iat` and `exp` by this machine's clock)"
            ),
            OAuthErrorCode::InvalidGrant if info.grant_is_assertion => format!(
                "{endpoint} rejected the assertion: check its key and its claims (`iss`, `sub`, \
                 `aud`, and `iat` and `exp` by this machine's clock)"
            ),
            OAuthErrorCode::InvalidClient => format!(
                "{endpoint} rejected the client authentication: check the client id, the secret \
                 and `client_auth`"
            ),
            _ => format!("{endpoint} returned an error"),
        };
        let retry = retry_of_code(oauth.code(), status);
        Error::build(ErrorKind::OAuth, retry, message).oauth(oauth)
    } else if !status.is_success() {
        let message = match status.is_redirection() {
            true => {
                format!(
                    "{endpoint} redirected the request; redirects are not followed, \
                     configure the final URL"
                )
            }
            false => format!("{endpoint} returned an unexpected status"),
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
