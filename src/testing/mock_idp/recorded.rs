//! [`Recorded`]: a logged request.

use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT,
    },
};
use url::form_urlencoded;

/// Headers whose values `Debug` shows.
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
    /// The path and the query, verbatim.
    pub target: String,
    /// The version of HTTP.
    pub version: Version,
    /// The headers, without HTTP/2's pseudo-headers.
    pub headers: HeaderMap,
    /// The body. Empty if the request had none, or more than 1 MiB.
    pub body: Bytes,
    pub(super) too_large: bool,
}

impl Recorded {
    /// Returns the target without its query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Returns the query's parameters in order, form-decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    /// Returns the body's parameters in order, form-decoded whatever its content type.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// Returns the first header of that name. `None` if it is missing or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Failing tests print it, and CI keeps its logs: shows no secret, also not one in the query,
        // the body or an unknown header.
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
