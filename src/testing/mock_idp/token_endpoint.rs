//! The token endpoint: [`check`] checks a request, [`issue`] issues a token.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    Dialect, Recorded,
    answer::{JSON, Reply},
    grants::Entitled,
    state::{Config, ExpiresIn, Shared, State, Token},
};
use crate::clock::Moment;

pub(super) const PATH: &str = "/oauth2/v1/token";

/// The answer to an unscripted token request.
pub(super) fn answer(shared: &Shared, request: &Recorded) -> Reply {
    let now = shared.config.clock.now();
    match check(shared, request, now) {
        Ok(grant) => {
            let body = issue(&mut shared.lock(), &shared.config, &grant, now);
            Reply::new(StatusCode::OK)
                .with(CONTENT_TYPE, JSON)
                .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
                .body(body)
        }
        Err(refusal) => refuse(&shared.config, refusal),
    }
}

/// A valid token request.
#[derive(Debug)]
pub(super) struct Grant {
    /// Equal for requests that may get the same token.
    pub(super) key: String,
    scope: Option<String>,
    /// For `authorization_code` and `refresh_token`.
    sign_in: Option<Entitled>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    NotFound,
    Method,
    Request(&'static str),
    Client,
    GrantType,
    /// The code or the refresh token is invalid.
    Grant(&'static str),
}

fn check(shared: &Shared, request: &Recorded, now: Moment) -> Result<Grant, Refusal> {
    let config = &shared.config;
    if request.path() != PATH {
        return Err(Refusal::NotFound);
    }
    match request.method {
        Method::POST => {}
        Method::GET if config.allow_get => {}
        _ => return Err(Refusal::Method),
    }
    let parameters = Parameters::of(request)?;
    let client = match may_omit_client(config, request, &parameters) {
        true => String::new(),
        false => authenticate(config, request, &parameters)?,
    };
    let grant_type = parameters
        .get("grant_type")
        .ok_or(Refusal::Request("grant_type is missing"))?;
    let sign_in = match grant_type {
        _ if config.is_allowed(grant_type) => None,
        "client_credentials" => None,
        "authorization_code" => Some(code(shared, &client, &parameters, now)?),
        "refresh_token" => Some(refresh_token(shared, &client, &parameters)?),
        _ => return Err(Refusal::GrantType),
    };
    let scope = match &sign_in {
        Some(entitled) => entitled.scope.as_deref(),
        None => parameters.get("scope"),
    };
    let key = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("", client.as_str()), ("", grant_type)])
        .extend_pairs(scope.map(|scope| ("scope", scope)))
        .extend_pairs(&parameters.targets)
        .finish();
    Ok(Grant {
        key,
        scope: scope.map(str::to_owned),
        sign_in,
    })
}

/// RFC 6749 §4.1.3.
fn code(
    shared: &Shared,
    client: &str,
    parameters: &Parameters,
    now: Moment,
) -> Result<Entitled, Refusal> {
    let code = parameters
        .get("code")
        .ok_or(Refusal::Request("code is missing"))?;
    let redirect_uri = parameters.get("redirect_uri");
    let verifier = parameters.get("code_verifier");
    let mut state = shared.lock();
    let entitled = state.redeem(client, code, redirect_uri, verifier, now);
    entitled.map_err(Refusal::Grant)
}

/// RFC 6749 §6.
fn refresh_token(
    shared: &Shared,
    client: &str,
    parameters: &Parameters,
) -> Result<Entitled, Refusal> {
    let token = parameters
        .get("refresh_token")
        .ok_or(Refusal::Request("refresh_token is missing"))?;
    let entitled = shared
        .lock()
        .refresh(client, token, parameters.get("scope"));
    entitled.map_err(Refusal::Grant)
}

pub(super) struct Parameters {
    single: HashMap<String, String>,
    /// `resource` and `audience`, which may be repeated.
    targets: Vec<(String, String)>,
}

impl Parameters {
    pub(super) fn of(request: &Recorded) -> Result<Self, Refusal> {
        let mut parameters = request.query();
        if !request.body.is_empty() {
            let is_form = request
                .header("content-type")
                .and_then(|value| value.split(';').next())
                .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(FORM));
            if !is_form {
                return Err(Refusal::Request("the body is not a form"));
            }
            parameters.extend(request.form());
        }
        let mut single = HashMap::new();
        let mut targets = Vec::new();
        for (name, value) in parameters {
            // "Parameters sent without a value MUST be treated as if they were omitted" (RFC 6749
            // section 3.2).
            if value.is_empty() {
                continue;
            }
            if name == "resource" || name == "audience" {
                targets.push((name, value));
            } else if single.insert(name, value).is_some() {
                return Err(Refusal::Request("a parameter is repeated"));
            }
        }
        Ok(Self { single, targets })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.single.get(name).map(String::as_str)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let targets = self.targets.iter().map(|(name, value)| (name, value));
        let all = self.single.iter().chain(targets);
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Whether an assertion grant omits the client, which RFC 7521 §4.1 allows.
fn may_omit_client(config: &Config, request: &Recorded, parameters: &Parameters) -> bool {
    let has = |name: &str| parameters.get(name).is_some();
    let grant_type = parameters.get("grant_type").unwrap_or_default();
    let has_client = request.headers.contains_key(AUTHORIZATION)
        || ["client_id", "client_secret", "client_assertion"]
            .into_iter()
            .any(has);
    has("assertion") && config.is_allowed(grant_type) && !has_client
}

/// Authenticates the client, and returns its id.
pub(super) fn authenticate(
    config: &Config,
    request: &Recorded,
    parameters: &Parameters,
) -> Result<String, Refusal> {
    let mut authorization = request.headers.get_all(AUTHORIZATION).iter();
    let posted_id = parameters.get("client_id");
    let posted_secret = parameters.get("client_secret");
    let (id, secret) = match (authorization.next(), authorization.next()) {
        (Some(_), Some(_)) => return Err(Refusal::Request("more than one Authorization header")),
        (Some(_), None) if posted_secret.is_some() => {
            return Err(Refusal::Request("more than one client authentication"));
        }
        (Some(value), None) => {
            let (id, secret) = basic(config.dialect, value)?;
            if posted_id.is_some_and(|posted| posted != id) {
                return Err(Refusal::Request(
                    "client_id is not the authenticated client",
                ));
            }
            (id, secret)
        }
        (None, _) => {
            let id = posted_id.ok_or(Refusal::Client)?;
            (id.to_owned(), posted_secret.unwrap_or("").to_owned())
        }
    };
    if config
        .clients
        .iter()
        .any(|(known, its_secret)| *known == id && *its_secret == secret)
    {
        Ok(id)
    } else {
        Err(Refusal::Client)
    }
}

/// Parses the id and the secret in `Authorization: Basic`.
fn basic(dialect: Dialect, value: &HeaderValue) -> Result<(String, String), Refusal> {
    let malformed = Refusal::Request("the Authorization header is malformed");
    let Some((scheme, credentials)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else {
        return Err(malformed);
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refusal::Client);
    }
    let decode = |part: &str| match dialect {
        Dialect::Standard => form_decode(part),
        Dialect::Terse => Some(part.to_owned()),
    };
    STANDARD
        .decode(credentials.trim())
        .ok()
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .and_then(|decoded| {
            let (id, secret) = decoded.split_once(':')?;
            Some((decode(id)?, decode(secret)?))
        })
        .ok_or(malformed)
}

/// Decodes a form-encoded value. `None`: a `%` without two digits, or not UTF-8.
fn form_decode(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Returns the response body, with a new token or a repeated one.
fn issue(state: &mut State, config: &Config, grant: &Grant, now: Moment) -> String {
    let repeated = state
        .newest
        .get(&grant.key)
        .filter(|_| state.repeat && grant.sign_in.is_none())
        .and_then(|token| Some((token.clone(), state.tokens.get(token)?)))
        .filter(|(_, known)| known.is_valid(now))
        .map(|(token, known)| (token, known.expires));
    let (token, expires) = repeated.unwrap_or_else(|| {
        let token = state.padded(format!("token-{}", state.issued.len() + 1));
        let expires = now.after(state.lifetime);
        let new = Token {
            expires,
            revoked: false,
            grant: grant.sign_in.as_ref().map(|entitled| entitled.grant),
        };
        state.tokens.insert(token.clone(), new);
        state.issued.push(token.clone());
        state.newest.insert(grant.key.clone(), token.clone());
        (token, expires)
    });
    let token_type = match config.dialect {
        Dialect::Standard => "Bearer",
        Dialect::Terse => "bearer",
    };
    // Without `serde_json`: the scripted `expires_in` is verbatim text, possibly not JSON.
    let mut body = format!(r#"{{"token_type":"{token_type}""#);
    match &state.expires_in {
        ExpiresIn::Lifetime => {
            body += &format!(r#","expires_in":{}"#, now.until(expires).as_secs());
        }
        ExpiresIn::Verbatim(json) => body += &format!(r#","expires_in":{json}"#),
        ExpiresIn::Absent => {}
    }
    body += &format!(r#","access_token":"{token}""#);
    let refresh_token = grant.sign_in.as_ref();
    if let Some(token) = refresh_token.and_then(|entitled| entitled.refresh_token.as_deref()) {
        body += &format!(r#","refresh_token":"{token}""#);
    }
    if let Some(scope) = &grant.scope {
        body += &format!(r#","scope":{}"#, Value::from(scope.as_str()));
    }
    body + "}"
}

pub(super) fn refuse(config: &Config, refusal: Refusal) -> Reply {
    if config.dialect == Dialect::Terse {
        return Reply::new(match refusal {
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Client => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        });
    }
    let error = |status, code: &str, description: &str| {
        Reply::json(
            status,
            &json!({ "error": code, "error_description": description }),
        )
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    };
    match refusal {
        Refusal::NotFound => Reply::new(StatusCode::NOT_FOUND),
        Refusal::Method => {
            let allowed = if config.allow_get {
                "GET, POST"
            } else {
                "POST"
            };
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "the method is not allowed",
            )
            .with(ALLOW, HeaderValue::from_static(allowed))
        }
        Refusal::Request(description) => {
            error(StatusCode::BAD_REQUEST, "invalid_request", description)
        }
        Refusal::Grant(description) => error(StatusCode::BAD_REQUEST, "invalid_grant", description),
        Refusal::Client => error(
            StatusCode::UNAUTHORIZED,
            "invalid_client",
            "client authentication failed",
        )
        .with(
            WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Basic realm="token""#),
        ),
        Refusal::GrantType => error(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "the grant type is not supported",
        ),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
