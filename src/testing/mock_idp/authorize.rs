//! The authorization endpoint (RFC 6749 §4.1.1): [`answer`].
//!
//! Errors about the client or its redirect URI are shown to the user and not redirected (RFC 6749
//! §4.1.2.1). All others are redirected to the client.

use std::collections::HashMap;

use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use url::form_urlencoded;

use super::{
    Recorded,
    answer::Reply,
    grants::{Challenge, Consent},
    page,
    state::{Config, Shared},
};

pub(super) const PATH: &str = "/oauth2/v1/authorize";

/// The user who signs in without a page.
const USER: &str = "alice";

/// The answer to an authorization request.
pub(super) fn answer(shared: &Shared, request: &Recorded) -> Reply {
    let own = Parameters::of(request.query().into_iter().chain(request.form()));
    let Some(uri) = own.get("request_uri").map(str::to_owned) else {
        return answer_to(shared, request, &own);
    };
    // RFC 9126 §4: only the pushed parameters count, and those of the page's form.
    let pushed = shared.lock().pushed(&uri).and_then(|pushed| pushed.clone());
    let Some(pushed) = pushed else {
        let problem = "request_uri is unknown or was used before";
        return page::text(StatusCode::BAD_REQUEST, problem);
    };
    let pushed = form_urlencoded::parse(pushed.as_bytes());
    let pushed: Vec<(String, String)> = pushed.into_owned().collect();
    let is_client = |(name, value): &(String, String)| {
        name == "client_id" && Some(value.as_str()) == own.get("client_id")
    };
    if !pushed.iter().any(is_client) {
        return page::text(
            StatusCode::BAD_REQUEST,
            "request_uri belongs to another client",
        );
    }
    let of_page = ["user", "decision"];
    let own = own.values.into_iter();
    let of_page = own.filter(|(name, _)| of_page.contains(&name.as_str()));
    let reply = answer_to(
        shared,
        request,
        &Parameters::of(pushed.into_iter().chain(of_page)),
    );
    if reply.headers.contains_key(LOCATION)
        && let Some(pushed) = shared.lock().pushed(&uri)
    {
        *pushed = None;
    }
    reply
}

fn answer_to(shared: &Shared, request: &Recorded, parameters: &Parameters) -> Reply {
    let config = &shared.config;
    // RFC 6749 §3.1: GET is required, POST is optional.
    if request.method != Method::GET && request.method != Method::POST {
        return Reply::new(StatusCode::METHOD_NOT_ALLOWED)
            .with(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    let asked = match Asked::of(config, parameters) {
        Ok(asked) => asked,
        Err(problem) => return page::text(StatusCode::BAD_REQUEST, problem),
    };
    let scripted = shared.lock().sign_in_error.clone();
    let result = asked.check(parameters).and_then(|consent| match scripted {
        Some(error) => Err((error, None)),
        None => Ok(consent),
    });
    let mut consent = match result {
        Ok(consent) => consent,
        Err((error, description)) => {
            return asked.send_back(
                shared,
                request,
                &[("error", Some(&error)), ("error_description", description)],
            );
        }
    };
    if config.sign_in_page {
        let user = parameters.get("user").unwrap_or_default().trim();
        match parameters.get("decision") {
            Some("refuse") => {
                let error = ("error", Some("access_denied"));
                return asked.send_back(shared, request, &[error]);
            }
            Some("sign-in") if !user.is_empty() => consent.user = user.to_owned(),
            _ => {
                let hint = parameters.get("login_hint").unwrap_or_default();
                return page::sign_in(&consent.client, consent.scope.as_deref(), hint);
            }
        }
    }
    let now = config.clock.now();
    let code = shared.lock().consent(consent, now);
    asked.send_back(shared, request, &[("code", Some(&code))])
}

/// The parameters that have a value, and the names that were repeated.
struct Parameters {
    values: HashMap<String, String>,
    repeated: Vec<String>,
}

impl Parameters {
    fn of(all: impl Iterator<Item = (String, String)>) -> Self {
        let mut parameters = Self {
            values: HashMap::new(),
            repeated: Vec::new(),
        };
        // RFC 6749 §3.1: a parameter without a value counts as omitted.
        for (name, value) in all.filter(|(_, value)| !value.is_empty()) {
            if parameters.values.insert(name.clone(), value).is_some() {
                parameters.repeated.push(name);
            }
        }
        parameters
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// A known client, and its redirect URI.
struct Asked<'a> {
    client: &'a str,
    is_public: bool,
    redirect_uri: &'a str,
    state: Option<&'a str>,
}

/// An error code and its description.
type Refusal = (String, Option<&'static str>);

impl<'a> Asked<'a> {
    fn of(config: &'a Config, parameters: &'a Parameters) -> Result<Self, &'static str> {
        let is_repeated = |name: &str| parameters.repeated.iter().any(|known| known == name);
        if is_repeated("client_id") || is_repeated("redirect_uri") {
            return Err("client_id or redirect_uri is repeated");
        }
        let id = parameters.get("client_id");
        let client = config
            .clients
            .iter()
            .find(|(known, _)| Some(known.as_str()) == id);
        let (client, secret) = client.ok_or("client_id is unknown")?;
        let registered = &config.redirect_uris;
        let redirect_uri = match parameters.get("redirect_uri") {
            // Compared verbatim (RFC 9700 §4.1.3).
            Some(uri) if registered.is_empty() || registered.iter().any(|known| known == uri) => {
                uri
            }
            Some(_) => return Err("redirect_uri is not registered"),
            None => match registered.as_slice() {
                [only] => only,
                _ => return Err("redirect_uri is missing"),
            },
        };
        if HeaderValue::from_str(redirect_uri).is_err() || redirect_uri.contains('#') {
            return Err("redirect_uri has a fragment or is not a valid header value");
        }
        Ok(Self {
            client,
            is_public: secret.is_empty(),
            redirect_uri,
            state: parameters.get("state"),
        })
    }

    fn check(&self, parameters: &Parameters) -> Result<Consent, Refusal> {
        let invalid = |problem| Err(("invalid_request".to_owned(), Some(problem)));
        if parameters
            .repeated
            .iter()
            .any(|name| name != "resource" && name != "audience")
        {
            return invalid("a parameter is repeated");
        }
        match parameters.get("response_type") {
            Some("code") => {}
            Some(_) => return Err(("unsupported_response_type".to_owned(), None)),
            None => return invalid("response_type is missing"),
        }
        let method = parameters.get("code_challenge_method");
        let challenge = match (parameters.get("code_challenge"), method) {
            (Some(challenge), method) => match Challenge::of(challenge, method) {
                Ok(challenge) => Some(challenge),
                Err(problem) => return invalid(problem),
            },
            (None, Some(_)) => return invalid("code_challenge_method without code_challenge"),
            // RFC 9700 §2.1.1.
            (None, None) if self.is_public => return invalid("code_challenge is missing"),
            (None, None) => None,
        };
        let secrets = ["client_secret", "code_verifier"];
        if secrets.iter().any(|name| parameters.get(name).is_some()) {
            return invalid("client_secret and code_verifier do not belong in a browser's URL");
        }
        Ok(Consent {
            client: self.client.to_owned(),
            user: USER.to_owned(),
            scope: parameters.get("scope").map(str::to_owned),
            redirect_uri: parameters.get("redirect_uri").map(str::to_owned),
            challenge,
        })
    }

    /// Redirects the browser to the client.
    fn send_back(
        &self,
        shared: &Shared,
        request: &Recorded,
        answer: &[(&str, Option<&str>)],
    ) -> Reply {
        let iss = shared.lock().iss.clone();
        let more = [("state", self.state), ("iss", iss.as_deref())];
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in answer.iter().chain(&more) {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        // RFC 6749 §3.1.2: keeps the query of the redirect URI.
        let separator = if self.redirect_uri.contains('?') {
            '&'
        } else {
            '?'
        };
        let location = format!("{}{separator}{}", self.redirect_uri, query.finish());
        let Ok(location) = HeaderValue::from_str(&location) else {
            return page::text(
                StatusCode::BAD_REQUEST,
                "redirect_uri is not a valid header value",
            );
        };
        // RFC 9700 §4.12: after a POST, the browser must not send the form to the client.
        let status = match request.method {
            Method::POST => StatusCode::SEE_OTHER,
            _ => StatusCode::FOUND,
        };
        Reply::new(status)
            .with(LOCATION, location)
            .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .with(CONTENT_TYPE, page::TEXT)
    }
}
