//! The invariants of parsed metadata, checked for any input.

use serde_json::{Value, json};

use super::*;
use crate::{
    parser_testing::{assert_no_leak, parse_response},
    work_counter::counted,
};

/// The maximum number of passes over the document: one to parse it, one to parse its URLs.
const LOOKS: usize = 2;

/// An issuer whose endpoints must be `https`, and one on loopback.
const ISSUERS: [&str; 2] = ["https://idp.example", "http://127.0.0.1:8080/a"];

/// Checks a response in the notation of [`parse_response`].
pub(crate) fn check_document(input: &[u8]) {
    let Some(response) = parse_response(input) else {
        return;
    };
    for issuer in ISSUERS {
        let (read, looks) = counted(|| Metadata::read(&response, issuer));
        assert!(looks <= LOOKS * input.len() + 64, "{looks}");
        match read {
            Ok(metadata) => check_metadata(&metadata, &response, issuer),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Discovery);
                assert_eq!(
                    error.status().is_some(),
                    response.status() != StatusCode::OK
                );
                assert_no_leak(&error);
            }
        }
    }
}

fn check_metadata(metadata: &Metadata, response: &Response<Bytes>, issuer: &str) {
    assert_eq!(response.status(), StatusCode::OK);
    // Ignored members may be invalid UTF-8, or numbers that `Value` cannot represent.
    let text = String::from_utf8_lossy(response.body());
    if let Ok(document) = serde_json::from_str(&text) {
        compare_with_document(metadata, &document, issuer);
    }
    // Serialized and parsed again, the metadata stay the same.
    let mut serialized = response.clone();
    let document = serialize(metadata, issuer);
    compare_with_document(metadata, &document, issuer);
    *serialized.body_mut() = document.to_string().into();
    let again = Metadata::read(&serialized, issuer).map(|again| format!("{again:?}"));
    assert_eq!(again.ok(), Some(format!("{metadata:?}")));
}

fn compare_with_document(metadata: &Metadata, document: &Value, issuer: &str) {
    assert_eq!(document["issuer"], issuer);
    let aliases = &document["mtls_endpoint_aliases"];
    for (url, text) in [
        (Some(&metadata.token), &document["token_endpoint"]),
        (
            metadata.authorization.as_ref(),
            &document["authorization_endpoint"],
        ),
        (
            metadata.revocation.as_ref(),
            &document["revocation_endpoint"],
        ),
        (
            metadata.pushed_request.as_ref(),
            &document["pushed_authorization_request_endpoint"],
        ),
        (metadata.mtls.token.as_ref(), &aliases["token_endpoint"]),
        (
            metadata.mtls.revocation.as_ref(),
            &aliases["revocation_endpoint"],
        ),
        (
            metadata.mtls.pushed_request.as_ref(),
            &aliases["pushed_authorization_request_endpoint"],
        ),
    ] {
        assert_eq!(url.is_some(), text.is_string(), "{text}");
        let Some(url) = url else { continue };
        assert_eq!(
            Some(url),
            Url::parse(text.as_str().unwrap_or_default()).ok().as_ref()
        );
        check_may_receive_secrets(url, issuer);
    }
    let flag = |name: &str| document[name] == true;
    assert_eq!(
        metadata.requires_pushed_requests,
        flag("require_pushed_authorization_requests")
    );
    assert_eq!(
        metadata.issuer_is_sent,
        flag("authorization_response_iss_parameter_supported")
    );
    let methods = &document["token_endpoint_auth_methods_supported"];
    match &metadata.auth_methods {
        Some(listed) => assert!(!listed.is_empty() && json!(listed) == *methods),
        None => assert!(methods.is_null() || *methods == json!([])),
    }
}

fn check_may_receive_secrets(url: &Url, issuer: &str) {
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    let host = url.host_str().unwrap_or_default();
    assert!(!host.is_empty());
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" => assert!(loopback && issuer.starts_with("http:"), "{url}"),
        other => unreachable!("{other}"),
    }
}

fn serialize(metadata: &Metadata, issuer: &str) -> Value {
    let text = |url: &Option<Url>| url.as_ref().map(Url::as_str).map(str::to_owned);
    json!({
        "issuer": issuer,
        "token_endpoint": metadata.token.as_str(),
        "authorization_endpoint": text(&metadata.authorization),
        "revocation_endpoint": text(&metadata.revocation),
        "pushed_authorization_request_endpoint": text(&metadata.pushed_request),
        "require_pushed_authorization_requests": metadata.requires_pushed_requests,
        "token_endpoint_auth_methods_supported": metadata.auth_methods,
        "authorization_response_iss_parameter_supported": metadata.issuer_is_sent,
        "mtls_endpoint_aliases": {
            "token_endpoint": text(&metadata.mtls.token),
            "revocation_endpoint": text(&metadata.mtls.revocation),
            "pushed_authorization_request_endpoint": text(&metadata.mtls.pushed_request),
        },
    })
}

#[cfg(test)]
pub(crate) fn is_read(response: &Response<Bytes>) -> bool {
    Metadata::read(response, ISSUERS[0]).is_ok()
}
