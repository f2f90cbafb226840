//! Which requests get the token.
//!
//! A token goes only to the configured APIs (RFC 9700 §4.9.1): scheme, host and port are those of a base
//! URL, and the base URL's path is a segment-wise prefix of the request's. `Host` headers are ignored. A
//! request to another target passes unchanged. A request is refused if its target is unknown, or if it
//! would carry the token in clear text.

use super::http_types::{Target, sealed};
use crate::{
    error::{ConfigError, Error, ErrorKind, Retry},
    secure_url::{self, is_loopback_host},
};

/// The APIs that get the token.
#[derive(Clone, Debug)]
pub(crate) struct Apis {
    /// `None`: any.
    only: Option<Vec<Base>>,
    /// The base URL of requests without a host.
    relative_to: Option<Base>,
    /// With any: plain http, too.
    plaintext: bool,
}

/// Whether a request gets the token.
#[derive(Debug)]
pub(crate) enum Admission {
    Allowed,
    /// Another target: the request passes unchanged.
    Elsewhere,
    Refused(Error),
}

#[derive(Clone, Debug)]
struct Base {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    /// The usual spelling: the host, and the port if it is not the scheme's default.
    authority: Box<str>,
    /// Without a trailing slash: empty for a whole origin.
    path: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Apis {
    /// Allows every target; with `plaintext`, over plain http as well.
    pub(crate) fn any(plaintext: bool) -> Self {
        Self {
            only: None,
            relative_to: None,
            plaintext,
        }
    }

    pub(crate) fn none() -> Self {
        Self {
            only: Some(Vec::new()),
            ..Self::any(false)
        }
    }

    /// Adds an API; with `plaintext`, one over plain http.
    pub(crate) fn allow(&mut self, base: &str, plaintext: bool) -> Result<(), ConfigError> {
        let field = if plaintext { "insecure_api" } else { "api" };
        let base = Base::parse(field, base, plaintext)?;
        if plaintext && base.scheme == Scheme::Https {
            let problem = "an https URL is not insecure; use `api`";
            return Err(ConfigError::new(field, problem));
        }
        if let Some(only) = &mut self.only {
            only.push(base);
        }
        Ok(())
    }

    /// Sets the base URL of requests without a host. It has to be the origin of an allowed API.
    pub(crate) fn relative_to(&mut self, base: &str) -> Result<(), ConfigError> {
        const FIELD: &str = "relative_to";
        let base = Base::parse(FIELD, base, true)?;
        let is_allowed = match &self.only {
            Some(only) => only.iter().any(|api| api.same_origin(&base)),
            None => base.scheme == Scheme::Https || self.plaintext || is_loopback_host(&base.host),
        };
        if !is_allowed {
            let problem =
                "not the origin of an API that gets the token, so no request would get it";
            return Err(ConfigError::new(FIELD, problem));
        }
        self.relative_to = Some(base);
        Ok(())
    }

    /// Like [`admit`](Self::admit). Does not parse a URI that begins with a base URL in its usual spelling,
    /// as nearly all do.
    #[inline]
    pub(crate) fn admit_request(&self, request: &impl sealed::Request) -> Admission {
        let (scheme, authority, path) = request.raw_parts();
        let is_base = |base: &Base| {
            base.scheme.is(scheme) && *base.authority == *authority && base.contains(path)
        };
        let allowed = match &self.only {
            Some(only) => only.iter().any(is_base),
            None => Scheme::Https.is(scheme) && !authority.is_empty(),
        };
        if allowed {
            Admission::Allowed
        } else {
            self.admit(request.target())
        }
    }

    #[inline(never)]
    pub(crate) fn admit(&self, target: Target<'_>) -> Admission {
        let (scheme, host, port) = match (target.host, &self.relative_to) {
            (Some(host), _) => {
                let Some(scheme) = target.scheme.and_then(Scheme::parse) else {
                    return self.other_scheme();
                };
                (scheme, host, target.port.unwrap_or(scheme.port()))
            }
            (None, Some(base)) => (base.scheme, &*base.host, base.port),
            (None, None) => return Admission::Refused(no_host()),
        };
        match &self.only {
            Some(only) => {
                let allowed = only.iter().any(|base| {
                    base.scheme == scheme
                        && base.port == port
                        && base.host.eq_ignore_ascii_case(host)
                        && base.contains(target.path)
                });
                if allowed {
                    Admission::Allowed
                } else {
                    Admission::Elsewhere
                }
            }
            None if scheme == Scheme::Https || self.plaintext || is_loopback_host(host) => {
                Admission::Allowed
            }
            None => Admission::Refused(plaintext()),
        }
    }

    /// Whether a client below may follow a redirect of a request to `from`. A request with the token stays
    /// where the token may go; if any API may get it, the request stays at its origin.
    #[cfg(feature = "reqwest")]
    pub(crate) fn may_follow(&self, from: Target<'_>, to: Target<'_>) -> bool {
        let gets_the_token = |target| matches!(self.admit(target), Admission::Allowed);
        if !gets_the_token(from) {
            return true;
        }
        let same_origin = (from.scheme, from.host, from.port) == (to.scheme, to.host, to.port);
        gets_the_token(to) && (self.only.is_some() || same_origin)
    }

    fn other_scheme(&self) -> Admission {
        match self.only {
            Some(_) => Admission::Elsewhere,
            None => Admission::Refused(plaintext()),
        }
    }
}

impl Base {
    fn parse(field: &'static str, base: &str, plaintext: bool) -> Result<Self, ConfigError> {
        let url = if plaintext {
            secure_url::parse_plaintext(field, base)?
        } else {
            secure_url::parse(field, base)?
        };
        if url.query().is_some() {
            let problem = "has a query; remove it from the base URL";
            return Err(ConfigError::new(field, problem));
        }
        // The parser resolves dot segments, and drops tabs and line breaks: the result would be another
        // base URL than the configured one.
        let base = base.trim_matches(|c: char| c <= ' '); // as the parser does
        let dropped = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b == b'\\';
        if base.bytes().any(dropped) || has_dot_segment(base) {
            let problem = "has a `.` or `..` segment, a backslash or white space; write the resolved URL, \
                           such as `https://api.example.com/v1/`";
            return Err(ConfigError::new(field, problem));
        }
        let path = url.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        if is_evasive(path) {
            let problem =
                "has an encoded `/` or `.`, or a backslash, in its path, which never matches";
            return Err(ConfigError::new(field, problem));
        }
        match (
            Scheme::parse(url.scheme()),
            url.host_str(),
            url.port_or_known_default(),
        ) {
            (Some(scheme), Some(host), Some(port)) => Ok(Self {
                scheme,
                host: host.into(),
                port,
                authority: url.authority().into(),
                path: path.into(),
            }),
            _ => Err(ConfigError::new(field, "has no host")),
        }
    }

    fn same_origin(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// Whether `path` is this base's or below it, for any server's interpretation of the path.
    #[inline]
    fn contains(&self, path: &str) -> bool {
        if self.path.is_empty() {
            return true;
        }
        match path.strip_prefix(&*self.path) {
            // The base itself is not evasive, and the rest begins with a slash.
            Some(rest) => rest.is_empty() || rest.starts_with('/') && !is_evasive(rest),
            None => false,
        }
    }
}

/// Whether an unparsed URL has a segment `.` or `..`, percent-encoded or not.
fn has_dot_segment(url: &str) -> bool {
    // Not after `://`: the parser accepts a scheme with fewer slashes, too.
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.split('/').any(|segment| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        segment == "." || segment == ".."
    })
}

/// Whether servers may interpret a path differently: a `..` segment (with path parameters or
/// without), an encoded `/`, `\` or `.` (encoded once, twice, or in overlong UTF-8), a backslash, an
/// encoded control character, or a `%` that encodes nothing.
#[inline]
fn is_evasive(path: &str) -> bool {
    /// Every evasive path has one of these bytes.
    const SUSPICIOUS: [bool; 256] = {
        let mut bytes = [false; 256];
        bytes[b'\\' as usize] = true;
        bytes[b'%' as usize] = true;
        bytes[b'.' as usize] = true;
        bytes
    };
    path.bytes().any(|byte| SUSPICIOUS[usize::from(byte)]) && is_ambiguous(path.as_bytes())
}

fn is_ambiguous(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| match byte {
        b'\\' => true,
        b'%' => match bytes.get(at + 1..at + 3) {
            // `%25` that a second decoding turns into `%2e`, `%2f` or `%5c`, or into parts of them.
            // Likewise `%25c0%25ae`, `%25e0%2580%25ae` and `%25u002e`.
            Some(b"25") => matches!(
                bytes.get(at + 3..),
                Some(
                    [b'0' | b'1' | b'2' | b'5' | b'%' | b'u' | b'U', ..]
                        | [b'c' | b'C', b'0' | b'1', ..]
                        | [b'e' | b'E', b'0', b'%', b'2', b'5', b'8' | b'9', ..]
                        | [b'f' | b'F', b'0', b'%', b'2', b'5', b'8', ..]
                )
            ),
            // Overlong UTF-8 of three and four bytes.
            Some([b'e' | b'E', b'0']) => {
                matches!(bytes.get(at + 3..at + 5), Some([b'%', b'8' | b'9']))
            }
            Some([b'f' | b'F', b'0']) => matches!(bytes.get(at + 3..at + 5), Some(b"%8")),
            Some([b'2', b'e' | b'E' | b'f' | b'F'] | [b'5', b'c' | b'C']) => true,
            Some([b'0' | b'1', _] | [b'c' | b'C', b'0' | b'1']) => true,
            Some([high, low]) => !(high.is_ascii_hexdigit() && low.is_ascii_hexdigit()),
            _ => true,
        },
        b'.' => {
            bytes.get(at + 1) == Some(&b'.')
                && matches!(at.checked_sub(1).map(|at| bytes[at]), None | Some(b'/'))
                && matches!(bytes.get(at + 2), None | Some(b'/' | b';' | b'%'))
        }
        _ => false,
    })
}

impl Scheme {
    #[inline]
    fn parse(scheme: &str) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else if scheme.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else {
            None
        }
    }

    /// Compares with the usual spelling, in lower case.
    #[inline]
    fn is(self, scheme: &str) -> bool {
        match self {
            Self::Http => scheme == "http",
            Self::Https => scheme == "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[cold]
fn no_host() -> Error {
    let message = "the request's URI has no host, so its target is unknown: \
                   set its base URL with `BearerAuthLayer::builder(…).relative_to(base_url)`";
    Error::build(ErrorKind::Target, Retry::Never, message).done()
}

#[cold]
fn plaintext() -> Error {
    let message =
        "the token is not sent over plain http; use https, or a method named `insecure_…`";
    Error::build(ErrorKind::Target, Retry::Never, message).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::http_types::sealed::Request as _;

    fn admit(apis: &Apis, uri: &str) -> Option<bool> {
        let request = http::Request::builder().uri(uri).body(()).unwrap();
        match apis.admit(request.target()) {
            Admission::Allowed => Some(true),
            Admission::Elsewhere => Some(false),
            Admission::Refused(error) => {
                assert_eq!(error.kind(), ErrorKind::Target);
                None
            }
        }
    }

    fn only(base: &str) -> Apis {
        let mut apis = Apis::none();
        apis.allow(base, false).unwrap();
        apis
    }

    #[test]
    fn p207_only_requests_with_the_same_scheme_host_and_port_get_the_token() {
        let apis = only("https://api.example.com/");
        for good in [
            "https://api.example.com/",
            "https://api.example.com/a/b?c=d",
            "https://api.example.com:443/x",
            "HTTPS://API.Example.COM/x",
            "https://user@api.example.com/x",
            // The API is a whole origin, so every path is below it.
            "https://api.example.com/a%2Fb/../c",
        ] {
            assert_eq!(admit(&apis, good), Some(true), "{good}");
        }
        for elsewhere in [
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "https://api.example.com./",
            "https://evil.example/api.example.com/",
            "https://api.example.com@evil.example/",
            "https://api.example.com.evil.example/",
            "https://xn--api-example-com/",
            "ftp://api.example.com/",
        ] {
            assert_eq!(admit(&apis, elsewhere), Some(false), "{elsewhere}");
        }
    }

    #[test]
    fn s4_17_base_path_matches_by_whole_segments() {
        for base in ["https://h:8000/ADOXX/rest", "https://h:8000/ADOXX/rest/"] {
            let apis = only(base);
            for good in [
                "https://h:8000/ADOXX/rest",
                "https://h:8000/ADOXX/rest/",
                "https://h:8000/ADOXX/rest/myEndpoint?x=%2F..",
                "https://h:8000/ADOXX/rest/a.b/..c/d..",
                "https://h:8000/ADOXX/rest/a%20b%25c",
            ] {
                assert_eq!(admit(&apis, good), Some(true), "{good}");
            }
            for bad in [
                "https://h:8000/ADOXX/oauth2/token",
                "https://h:8000/ADOXX/restful",
                "https://h:8000/adoxx/rest/",
                "https://h:8000/",
                "https://h:8000/ADOXX/rest/../oauth2/token",
                "https://h:8000/ADOXX/rest/..",
                "https://h:8000/ADOXX/rest/..;/oauth2/token",
                "https://h:8000/ADOXX/rest/%2e%2e/oauth2/token",
                "https://h:8000/ADOXX/rest/.%2E/oauth2/token",
                "https://h:8000/ADOXX/rest%2F..%2Foauth2/token",
                "https://h:8000/ADOXX/rest/x%5c..%5Coauth2",
                "https://h:8000/ADOXX/rest/..%3b/oauth2/token",
                "https://h:8000/ADOXX/rest/%252e%252e/oauth2/token",
                "https://h:8000/ADOXX/rest/..%252Foauth2/token",
                "https://h:8000/ADOXX/rest/%252%65%252%65/oauth2/token",
                "https://h:8000/ADOXX/rest/%25%32%65%25%32%65/oauth2/token",
                "https://h:8000/ADOXX/rest/%25%32e%25%32e/oauth2/token",
                "https://h:8000/ADOXX/rest/%%32%65%%32%65/oauth2/token",
                "https://h:8000/ADOXX/rest/%2%65%2%65/oauth2/token",
                "https://h:8000/ADOXX/rest/%25252e%25252e/oauth2/token",
                "https://h:8000/ADOXX/rest/%u002e%u002e/oauth2/token",
                "https://h:8000/ADOXX/rest/%c0%ae%C0%AE/oauth2/token",
                "https://h:8000/ADOXX/rest/%25c0%25ae%25C0%25AE/oauth2/token",
                "https://h:8000/ADOXX/rest/%e0%80%ae%E0%80%AE/oauth2/token",
                "https://h:8000/ADOXX/rest/x%e0%80%af..%e0%80%afoauth2",
                "https://h:8000/ADOXX/rest/x%e0%81%9c..%e0%81%9coauth2",
                "https://h:8000/ADOXX/rest/%25e0%2580%25ae%25e0%2580%25ae/oauth2/token",
                "https://h:8000/ADOXX/rest/%f0%80%80%ae%F0%80%80%AE/oauth2/token",
                "https://h:8000/ADOXX/rest/%25f0%2580%2580%25ae/oauth2/token",
                "https://h:8000/ADOXX/rest/%25u002e%25u002e/oauth2/token",
                "https://h:8000/ADOXX/rest/..%2500/oauth2/token",
                "https://h:8000/ADOXX/rest/.%09./oauth2/token",
                "https://h:8000/ADOXX/rest/x%",
            ] {
                assert_eq!(admit(&apis, bad), Some(false), "{bad}");
            }
        }
    }

    #[test]
    fn several_apis_and_ip_addresses_are_allowed() {
        let mut apis = only("https://a.example/v1");
        apis.allow("http://[::1]:8080/", false).unwrap();
        apis.allow("http://127.0.0.1:9/x", false).unwrap();
        assert_eq!(admit(&apis, "https://a.example/v1/x"), Some(true));
        assert_eq!(admit(&apis, "http://[::1]:8080/x"), Some(true));
        assert_eq!(admit(&apis, "http://127.0.0.1:9/x/y"), Some(true));
        assert_eq!(admit(&apis, "http://[::1]/x"), Some(false));
    }

    #[test]
    fn p70_any_api_refuses_plain_http_except_to_loopback() {
        let apis = Apis::any(false);
        assert_eq!(admit(&apis, "https://anything.example/"), Some(true));
        assert_eq!(admit(&apis, "http://127.0.0.1:1/"), Some(true));
        assert_eq!(admit(&apis, "http://localhost/"), Some(true));
        assert_eq!(admit(&apis, "http://anything.example/"), None);
        assert_eq!(admit(&apis, "ws://anything.example/"), None);
        let apis = Apis::any(true);
        assert_eq!(admit(&apis, "http://anything.example/"), Some(true));
    }

    #[test]
    fn uri_without_host_is_refused_unless_relative_to_is_configured() {
        for mut apis in [only("https://h/svc"), Apis::any(false)] {
            assert_eq!(admit(&apis, "/svc/method"), None);
            apis.relative_to("https://h").unwrap();
            assert_eq!(admit(&apis, "/svc/method"), Some(true));
            // Another path of the same origin.
            let expected = Some(apis.only.is_none());
            assert_eq!(admit(&apis, "/elsewhere"), expected);
        }
        // Plain http inside a mesh.
        let mut apis = Apis::none();
        apis.allow("http://mesh.internal/svc", true).unwrap();
        apis.relative_to("http://mesh.internal").unwrap();
        assert_eq!(admit(&apis, "/svc/method"), Some(true));
        let mut apis = Apis::any(true);
        apis.relative_to("http://mesh.internal").unwrap();
        assert_eq!(admit(&apis, "/svc/method"), Some(true));
    }

    #[test]
    fn relative_to_must_be_the_origin_of_an_allowed_api() {
        for (mut apis, origin) in [
            (only("https://h/svc"), "https://other"),
            (only("https://h/svc"), "https://h:8443"),
            (only("https://h/svc"), "http://h"),
            (Apis::any(false), "http://mesh.internal"),
        ] {
            let error = apis.relative_to(origin).unwrap_err();
            assert_eq!(error.field(), "relative_to", "{origin}");
        }
    }

    #[test]
    fn insecure_api_takes_plain_http_only() {
        let error = Apis::none().allow("https://h/", true).unwrap_err();
        assert_eq!(error.field(), "insecure_api");
        // Several APIs with plain http.
        let mut apis = Apis::none();
        apis.allow("http://one.internal/", true).unwrap();
        apis.allow("http://two.internal/", true).unwrap();
        assert_eq!(admit(&apis, "http://two.internal/x"), Some(true));
    }

    #[test]
    fn base_url_that_the_parser_would_change_is_refused() {
        for bad in [
            "https://h/v1/..",
            "https://h/v1/../v2/",
            "https://h/v1/./",
            "https://h/v1/%2e%2E",
            "https://h/v1/.%2e/",
            "https://h/v1/.\t./",
            "https://h\\v1",
            "https://h/v 1/",
            "https://h/v1/..\n",
            "https://h/v1/.. ",
            "\0https://h/v1/%2e%2e\u{1f}",
            "https:h/../v1/",
            "https:/h/..//b://c",
            "https:h/..//b://c",
        ] {
            let error = Apis::none().allow(bad, false).unwrap_err();
            assert_eq!(error.field(), "api", "{bad}");
        }
        for good in [
            "https://h/v1.2/",
            "https://h/..v1/",
            "https://h/v1../",
            " https://h/v1/\n",
        ] {
            assert!(Apis::none().allow(good, false).is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_base_url_is_a_configuration_error() {
        for bad in [
            "http://api.example.com/",
            "api.example.com",
            "https://api.example.com/?x",
            "https://api.example.com/#f",
            "https://u:p@api.example.com/",
            "https://api.example.com/a%2Fb",
            "",
        ] {
            let error = Apis::none().allow(bad, false).unwrap_err();
            assert_eq!(error.field(), "api", "{bad}");
        }
        assert!(Apis::none().allow("http://mesh.internal/", true).is_ok());
    }
}
