//! The landing page: what the browser shows after a login on loopback.
//!
//! It shows nothing of the request, loads nothing, and removes the code from the address bar (RFC 6749
//! §3.1.2.5, RFC 9700 §4.2).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::content_policy::content_policy;

const PAGE: &str = include_str!("landing.html");

/// The response to this login's callback.
pub(super) fn page(signed_in: bool) -> Response<Full<Bytes>> {
    let [title, sign, colour, text] = if signed_in {
        let text = "You can close this window and go back to the program.";
        ["You are signed in", "✓", "#1a7f37", text]
    } else {
        let text = "Go back to the program: it says what happened, and you can try again there.";
        ["You are not signed in", "✕", "#b42318", text]
    };
    let page = PAGE
        .replace("{title}", title)
        .replace("{sign}", sign)
        .replace("{colour}", colour)
        .replace("{text}", text);
    let policy = content_policy(&page);
    let mut response = plain(StatusCode::OK, page);
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    if let Some(policy) = policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The response to all other requests.
pub(super) fn not_found() -> Response<Full<Bytes>> {
    plain(StatusCode::NOT_FOUND, "Not found\n".to_owned())
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONNECTION, "close"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p32_landing_page_loads_nothing_and_removes_the_code_from_the_address() {
        for signed_in in [true, false] {
            let response = page(signed_in);
            assert_eq!(response.headers()[header::REFERRER_POLICY], "no-referrer");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str();
            assert!(policy.unwrap().starts_with("default-src 'none'"));
        }
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        assert!(PAGE.contains("history.replaceState"));
    }
}
