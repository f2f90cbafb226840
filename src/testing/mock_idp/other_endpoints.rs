//! The other endpoints: metadata (RFC 8414), pushed authorization requests (RFC 9126) and
//! revocation (RFC 7009).

use http::{
    HeaderValue, Method, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    Recorded,
    answer::{JSON, Reply},
    authorize,
    state::Shared,
    token_endpoint::{self, Parameters, Refusal},
};

const PUSH: &str = "/oauth2/v1/par";
const REVOKE: &str = "/oauth2/v1/revoke";

/// The answer; `None` if the path belongs to another endpoint.
pub(super) fn answer(shared: &Shared, request: &Recorded) -> Option<Reply> {
    let answer = match request.path() {
        PUSH => push,
        REVOKE => revoke,
        path if is_metadata(shared, path) => return Some(metadata(shared, request)),
        _ => return None,
    };
    if request.method != Method::POST {
        let reply = Reply::new(StatusCode::METHOD_NOT_ALLOWED);
        return Some(reply.with(ALLOW, HeaderValue::from_static("POST")));
    }
    let parameters = Parameters::of(request).and_then(|parameters| {
        let client = token_endpoint::authenticate(&shared.config, request, &parameters)?;
        Ok((client, parameters))
    });
    let reply = parameters.and_then(|(client, parameters)| answer(shared, &client, &parameters));
    Some(reply.unwrap_or_else(|refusal| token_endpoint::refuse(&shared.config, refusal)))
}

/// Whether a path is one of the well-known URLs that clients try.
fn is_metadata(shared: &Shared, path: &str) -> bool {
    let own = shared.config.issuer_path.trim_end_matches('/');
    [
        format!("/.well-known/oauth-authorization-server{own}"),
        format!("/.well-known/openid-configuration{own}"),
        format!("{own}/.well-known/openid-configuration"),
        // Used by some servers.
        format!("{own}/.well-known/oauth-authorization-server"),
    ]
    .iter()
    .any(|place| place == path)
}

fn metadata(shared: &Shared, request: &Recorded) -> Reply {
    if request.method != Method::GET {
        let reply = Reply::new(StatusCode::METHOD_NOT_ALLOWED);
        return reply.with(ALLOW, HeaderValue::from_static("GET"));
    }
    let base = &shared.base;
    let mut document = json!({
        "issuer": shared.issuer(),
        "authorization_endpoint": format!("{base}{}", authorize::PATH),
        "token_endpoint": format!("{base}{}", token_endpoint::PATH),
        "pushed_authorization_request_endpoint": format!("{base}{PUSH}"),
        "revocation_endpoint": format!("{base}{REVOKE}"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "token_endpoint_auth_methods_supported":
            ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256", "plain"],
    });
    let state = shared.lock();
    if let Some(document) = document.as_object_mut() {
        if state.iss.is_some() {
            let name = "authorization_response_iss_parameter_supported";
            document.insert(name.to_owned(), Value::Bool(true));
        }
        for (name, value) in &state.metadata {
            match value {
                Value::Null => document.remove(name),
                value => document.insert(name.clone(), value.clone()),
            };
        }
    }
    Reply::json(StatusCode::OK, &document)
}

/// Stores a pushed request (RFC 9126 §2). The authorization endpoint checks its parameters later.
fn push(shared: &Shared, client: &str, parameters: &Parameters) -> Result<Reply, Refusal> {
    if parameters.get("request_uri").is_some() {
        return Err(Refusal::Request("a request_uri cannot be pushed"));
    }
    if parameters.get("client_id") != Some(client) {
        return Err(Refusal::Request(
            "client_id is not the authenticated client",
        ));
    }
    let secrets = ["client_secret", "client_assertion", "client_assertion_type"];
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters.all().filter(|(name, _)| !secrets.contains(name)))
        .finish();
    let uri = shared.lock().push(query);
    let body = json!({ "request_uri": uri, "expires_in": 60 });
    Ok(Reply::new(StatusCode::CREATED)
        .with(CONTENT_TYPE, JSON)
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .body(body.to_string()))
}

/// Revokes a token. An unknown token also gets a 200 (RFC 7009 §2.2).
fn revoke(shared: &Shared, client: &str, parameters: &Parameters) -> Result<Reply, Refusal> {
    let token = parameters
        .get("token")
        .ok_or(Refusal::Request("token is missing"))?;
    shared.lock().revoke(client, token);
    Ok(Reply::new(StatusCode::OK))
}
