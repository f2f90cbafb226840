//! What holds of a server's metadata, whoever wrote them.

use serde_json::{Value, json};

use super::*;
use crate::{
    fuzzing::{keeps_quiet, message},
    work_counter::counted,
};

/// How often a byte of the document is looked at, at most: to take it apart, and as a URL.
const LOOKS: usize = 2;

/// One that lets nothing but `https` in, and one on this machine.
const ISSUERS: [&str; 2] = ["https://idp.example", "http://127.0.0.1:8080/a"];

/// Of a document in an answer in the notation of [`message`].
pub(crate) fn of_any_document(input: &[u8]) {
    let Some(response) = message(input) else {
        return;
    };
    for issuer in ISSUERS {
        let (read, looks) = counted(|| Metadata::read(&response, issuer));
        assert!(looks <= LOOKS * input.len() + 64, "{looks}");
        match read {
            Ok(metadata) => of_any_metadata(&metadata, &response, issuer),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Discovery);
                assert_eq!(
                    error.status().is_some(),
                    response.status() != StatusCode::OK
                );
                keeps_quiet(&error);
            }
        }
    }
}

fn of_any_metadata(metadata: &Metadata, response: &Response<Bytes>, issuer: &str) {
    assert_eq!(response.status(), StatusCode::OK);
    // Of what is passed over, the text may be no UTF-8, and the value none that `Value` can have.
    let text = String::from_utf8_lossy(response.body());
    if let Ok(document) = serde_json::from_str(&text) {
        by_other_rules(metadata, &document, issuer);
    }
    // Printed, it says the same.
    let mut printed = response.clone();
    let document = print(metadata, issuer);
    by_other_rules(metadata, &document, issuer);
    *printed.body_mut() = document.to_string().into();
    let again = Metadata::read(&printed, issuer).map(|again| format!("{again:?}"));
    assert_eq!(again.ok(), Some(format!("{metadata:?}")));
}

fn by_other_rules(metadata: &Metadata, document: &Value, issuer: &str) {
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
        secret_may_go(url, issuer);
    }
    let says = |name: &str| document[name] == true;
    assert_eq!(
        metadata.demands_pushed_requests,
        says("require_pushed_authorization_requests")
    );
    assert_eq!(
        metadata.issuer_is_sent,
        says("authorization_response_iss_parameter_supported")
    );
    let methods = &document["token_endpoint_auth_methods_supported"];
    match &metadata.auth_methods {
        Some(listed) => assert!(!listed.is_empty() && json!(listed) == *methods),
        None => assert!(methods.is_null() || *methods == json!([])),
    }
}

fn secret_may_go(url: &Url, issuer: &str) {
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    let host = url.host_str().unwrap_or_default();
    assert!(!host.is_empty());
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" => assert!(here && issuer.starts_with("http:"), "{url}"),
        other => unreachable!("{other}"),
    }
}

fn print(metadata: &Metadata, issuer: &str) -> Value {
    let text = |url: &Option<Url>| url.as_ref().map(Url::as_str).map(str::to_owned);
    json!({
        "issuer": issuer,
        "token_endpoint": metadata.token.as_str(),
        "authorization_endpoint": text(&metadata.authorization),
        "revocation_endpoint": text(&metadata.revocation),
        "pushed_authorization_request_endpoint": text(&metadata.pushed_request),
        "require_pushed_authorization_requests": metadata.demands_pushed_requests,
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
