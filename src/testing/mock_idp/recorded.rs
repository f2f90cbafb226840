//! What arrived.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT,
    },
};
use url::form_urlencoded;

/// Headers of which `Debug` shows the value.
const HARMLESS: [HeaderName; 7] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TRANSFER_ENCODING,
    USER_AGENT,
];

/// A request as it arrived at a [`MockIdp`](super::MockIdp).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The path and the query, exactly as they were sent.
    pub target: String,
    /// The version of HTTP.
    pub version: Version,
    /// The headers, without HTTP/2's pseudo-headers.
    pub headers: HeaderMap,
    /// The body, empty when there was none or it was over the limit of 1 MiB.
    pub body: Bytes,
    pub(super) too_large: bool,
}

impl Recorded {
    /// The target up to its query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query's parameters in order, form-decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    /// The body's parameters in order, form-decoded whatever its type.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first header of that name; `None` also when it is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tests print it when they fail, and logs are kept: no secrets, in whichever place the
        // client has put them, a header of its own among them.
        let mut headers = self.headers.clone();
        for (name, value) in &mut headers {
            if !HARMLESS.contains(name) {
                *value = HeaderValue::from_static("[REDACTED]");
            }
        }
        let query = if self.target.contains('?') {
            "?[REDACTED]"
        } else {
            ""
        };
        f.debug_struct("Recorded")
            .field("method", &self.method)
            .field("target", &format_args!("{}{query}", self.path()))
            .field("version", &self.version)
            .field("headers", &headers)
            .field(
                "body",
                &format_args!("[REDACTED, {} bytes]", self.body.len()),
            )
            .finish()
    }
}
