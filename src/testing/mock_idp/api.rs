//! The protected API.

use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use serde_json::json;

use super::{Dialect, Recorded, answer::Reply, state::Shared};

pub(super) const PREFIX: &str = "/api/";

/// The answer to an unscripted API request.
pub(super) fn answer(shared: &Shared, request: &Recorded) -> Reply {
    if !request.path().starts_with(PREFIX) {
        return Reply::new(StatusCode::NOT_FOUND);
    }
    let credentials = Credentials::of(request);
    let now = shared.config.clock.now();
    if let Credentials::Token(token) = credentials
        && let state = shared.lock()
        && let Some(known) = state.tokens.get(token)
        && known.is_valid(now)
    {
        let user = known.grant.and_then(|grant| state.user(grant));
        let mut seen = json!({
            "path": request.path(),
            "method": request.method.as_str(),
            "token": token,
            "body": String::from_utf8_lossy(&request.body),
        });
        if let Some(user) = user {
            seen["user"] = user.into();
        }
        return Reply::json(StatusCode::OK, &seen);
    }
    let (status, challenge) = match credentials {
        Credentials::Malformed => (
            StatusCode::BAD_REQUEST,
            r#"Bearer realm="api", error="invalid_request""#,
        ),
        Credentials::Missing => (StatusCode::UNAUTHORIZED, r#"Bearer realm="api""#),
        Credentials::Token(_) => (
            StatusCode::UNAUTHORIZED,
            r#"Bearer realm="api", error="invalid_token", error_description="The access token expired""#,
        ),
    };
    let reply = Reply::new(status);
    match shared.config.dialect {
        Dialect::Standard => reply.with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        Dialect::Terse => reply,
    }
}

enum Credentials<'a> {
    Missing,
    Malformed,
    Token(&'a str),
}

impl<'a> Credentials<'a> {
    fn of(request: &'a Recorded) -> Self {
        let mut values = request.headers.get_all(AUTHORIZATION).iter();
        let (value, more) = (values.next(), values.next());
        let Some(value) = value else {
            return Self::Missing;
        };
        let Ok(value) = value.to_str() else {
            return Self::Malformed;
        };
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let token = token.trim_start();
        if more.is_some() {
            Self::Malformed
        } else if !scheme.eq_ignore_ascii_case("bearer") {
            Self::Missing
        } else if token.is_empty() {
            Self::Malformed
        } else {
            Self::Token(token)
        }
    }
}
