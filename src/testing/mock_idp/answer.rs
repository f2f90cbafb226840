//! [`Answer`]: a scripted answer to a request.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};
use serde_json::{Value, json};

/// A scripted answer of a [`MockIdp`](super::MockIdp).
///
/// Use it with [`MockIdp::then`](super::MockIdp::then), [`MockIdp::always`](super::MockIdp::always)
/// or [`MockIdp::api_answers`](super::MockIdp::api_answers).
///
/// ```
/// # use std::time::Duration;
/// use bearer_auth::testing::Answer;
///
/// let wrapped = Answer::ok().header("Content-Type", "text/html");
/// let slow = Answer::ok().delay(Duration::from_secs(30));
/// let limited = Answer::status(429).header("Retry-After", "7");
/// ```
#[derive(Clone)]
#[must_use]
pub struct Answer {
    pub(super) kind: Kind,
    /// In addition to the answer's own headers.
    pub(super) headers: HeaderMap,
    pub(super) delay: Duration,
}

#[derive(Clone)]
pub(super) enum Kind {
    /// The answer to an unscripted request.
    Normal,
    Http(Reply),
    Silence,
    Disconnect(Disconnect),
}

/// An HTTP response.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// How to end a connection.
#[derive(Clone)]
pub(super) enum Disconnect {
    Close,
    Reset,
    /// Send these bytes, then close.
    Raw(Bytes),
}

/// # HTTP responses
impl Answer {
    /// The answer to an unscripted request: a token or an error, or the API's normal answer.
    pub fn ok() -> Self {
        Self::new(Kind::Normal)
    }

    /// A status with an empty body.
    ///
    /// # Panics
    ///
    /// Panics if `status` is not from 200 to 999.
    #[track_caller]
    pub fn status(status: u16) -> Self {
        Self::new(Kind::Http(Reply::new(final_status(status))))
    }

    /// A status and a JSON document.
    ///
    /// # Panics
    ///
    /// Panics if `status` is not from 200 to 999.
    #[track_caller]
    pub fn json(status: u16, value: Value) -> Self {
        Self::new(Kind::Http(Reply::json(final_status(status), &value)))
    }

    /// A status and a body of any type.
    ///
    /// # Panics
    ///
    /// Panics if `status` is not from 200 to 999, or if `content_type` is not a valid header value.
    #[track_caller]
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let reply = Reply::new(final_status(status))
            .with(CONTENT_TYPE, header_value(content_type))
            .body(body);
        Self::new(Kind::Http(reply))
    }

    /// 400 and `{"error":"…"}`, such as `invalid_client`.
    pub fn oauth_error(code: &str) -> Self {
        let error = json!({ "error": code });
        Self::new(Kind::Http(Reply::json(StatusCode::BAD_REQUEST, &error)))
    }

    /// 503 and `Retry-After`, in seconds.
    pub fn unavailable(retry_after: u64) -> Self {
        let reply = Reply::new(StatusCode::SERVICE_UNAVAILABLE)
            .with(RETRY_AFTER, HeaderValue::from(retry_after));
        Self::new(Kind::Http(reply))
    }

    /// 307, which asks the client to repeat the POST, with its secret, at `location`.
    ///
    /// # Panics
    ///
    /// Panics if `location` is not a valid header value.
    #[track_caller]
    pub fn redirect(location: &str) -> Self {
        let reply =
            Reply::new(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, header_value(location));
        Self::new(Kind::Http(reply))
    }

    /// 200 and the beginning of a JSON document. Then the server closes the connection (in HTTP/2,
    /// resets the stream) before it has sent `Content-Length` bytes.
    pub fn truncated() -> Self {
        let reply = Reply::new(StatusCode::OK)
            .with(CONTENT_TYPE, JSON)
            .with(CONTENT_LENGTH, HeaderValue::from_static("4096"))
            .body(r#"{"token_type":"Bearer","expires_in":3600,"access_token":"trunc"#);
        Self::new(Kind::Http(reply))
    }
}

/// # Other than HTTP responses
impl Answer {
    /// Reads the request, then closes the connection.
    pub fn drop_connection() -> Self {
        Self::new(Kind::Disconnect(Disconnect::Close))
    }

    /// Resets the connection as soon as a request arrives, without reading it.
    ///
    /// In three cases the request is read first, and is in the log: on a reused connection, during
    /// a [`Hold`](super::Hold), and at the API.
    pub fn reset_before_reading() -> Self {
        Self::new(Kind::Disconnect(Disconnect::Reset))
    }

    /// Reads the request and never answers, but keeps the connection open.
    pub fn silence() -> Self {
        Self::new(Kind::Silence)
    }

    /// Sends bytes that are not HTTP, then closes the connection.
    pub fn garbage() -> Self {
        // A TLS alert, as if the server spoke another protocol.
        Self::raw(&b"\x15\x03\x01\x00\x02\x02\x46 this is not HTTP\r\n\r\n"[..])
    }

    /// Sends exactly these bytes, then closes the connection.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Disconnect(Disconnect::Raw(bytes.into())))
    }
}

/// # Modifiers
impl Answer {
    /// Adds a header. It replaces the answer's own header of that name; several added headers of
    /// one name are all sent. Has no effect on answers that are not HTTP responses.
    ///
    /// A `Content-Length` above the body's length truncates the answer, as [`Answer::truncated`]
    /// does.
    ///
    /// # Panics
    ///
    /// Panics if `name` or `value` is not valid in a header.
    #[track_caller]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            invalid("header name", name)
        };
        self.headers.append(name, header_value(value));
        self
    }

    /// Delays the answer until `delay` after the request's arrival, on the server's
    /// [clock](super::MockIdpBuilder::clock).
    ///
    /// The request is checked on arrival: when the answer is sent, its token has used up part of
    /// its lifetime, and a 401 may be about a token that has been replaced.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            headers: HeaderMap::new(),
            delay: Duration::ZERO,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the body, which may contain a token.
        let mut f = f.debug_struct("Answer");
        match &self.kind {
            Kind::Normal => f.field("kind", &"ok"),
            Kind::Http(reply) => f.field("status", &reply.status),
            Kind::Silence => f.field("kind", &"silence"),
            Kind::Disconnect(Disconnect::Close) => f.field("kind", &"drop_connection"),
            Kind::Disconnect(Disconnect::Reset) => f.field("kind", &"reset_before_reading"),
            Kind::Disconnect(Disconnect::Raw(_)) => f.field("kind", &"raw"),
        };
        f.field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::new(status)
            .with(CONTENT_TYPE, JSON)
            .body(value.to_string())
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

#[track_caller]
fn final_status(status: u16) -> StatusCode {
    match StatusCode::from_u16(status) {
        Ok(valid) if !valid.is_informational() => valid,
        _ => invalid("status", &status.to_string()),
    }
}

#[track_caller]
fn header_value(value: &str) -> HeaderValue {
    match HeaderValue::from_str(value) {
        Ok(valid) => valid,
        Err(_) => invalid("header value", value),
    }
}

/// Panics at the caller's line: the mistake is in the test.
#[track_caller]
#[expect(clippy::panic, reason = "the caller is a test")]
fn invalid(what: &str, value: &str) -> ! {
    panic!("not a valid {what}: {value:?}")
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json;charset=UTF-8");
