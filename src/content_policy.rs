//! The Content-Security-Policy of the pages that this crate serves.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

/// Returns a Content-Security-Policy that allows only the page's own style and script, by their hashes.
/// Never `None`: Base64 is valid in a header.
pub(crate) fn content_policy(page: &str) -> Option<HeaderValue> {
    let source = |tag: &str| {
        let inner = page.split_once(&format!("<{tag}>"));
        let inner = inner.and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        inner.map_or("'none'".to_owned(), |(inner, _)| {
            format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inner)))
        })
    };
    let policy = format!(
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src {}; script-src {}",
        source("style"),
        source("script")
    );
    HeaderValue::try_from(policy).ok()
}
