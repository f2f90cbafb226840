//! URLs that credentials and tokens may be sent to: `https`, or `http` to this machine.
//!
//! RFC 6749 §1.6 and RFC 6750 §5.3 ask for TLS wherever a secret travels. Loopback is excepted: its
//! traffic does not leave the machine.

use http::Uri;
use url::{Host, Url};

use crate::error::ConfigError;

/// Parses a URL of the configuration, for `field`.
pub(crate) fn parse(field: &'static str, url: &str) -> Result<Url, ConfigError> {
    let url = parse_plaintext(field, url)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        let problem = "secrets do not travel over plain http; use https (http is for loopback)";
        return Err(ConfigError::new(field, problem));
    }
    Ok(url)
}

/// As [`parse`], and `http` is as good as `https`.
pub(crate) fn parse_plaintext(field: &'static str, url: &str) -> Result<Url, ConfigError> {
    let error = |problem: &str| Err(ConfigError::new(field, problem.to_owned()));
    let Ok(url) = Url::parse(url) else {
        return error("not an absolute URL; write it as `https://host/path`");
    };
    if has_userinfo(&url) {
        return error(USERINFO);
    }
    if url.fragment().is_some() {
        return error("a URL with a `#fragment` cannot be requested; take it out");
    }
    match url.scheme() {
        "https" | "http" if url.host().is_some() => Ok(url),
        _ => error("not an https URL"),
    }
}

pub(crate) const USERINFO: &str = "credentials in the URL would end up in logs; take them out";

pub(crate) fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// What `Debug` shows of a URL with a query: without it, since it may have anything in it.
pub(crate) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

/// `base` and `path` with exactly one slash between them: unlike a relative reference (RFC 3986
/// §5), which would replace the base's last segment.
pub(crate) fn join(field: &'static str, base: &str, path: &str) -> Result<String, ConfigError> {
    let mut url = parse(field, base)?;
    if url.query().is_some() {
        let problem = "a base URL has no query; give the full URL of the endpoint instead";
        return Err(ConfigError::new(field, problem));
    }
    let joined = format!(
        "{}/{}",
        url.path().trim_end_matches('/'),
        path.trim_start_matches('/')
    );
    url.set_path(&joined);
    Ok(url.into())
}

/// The URL with further parameters: what its query has already stays in front, to the letter (RFC
/// 6749 §3.1, §3.2).
pub(crate) fn with_query(url: &Url, parameters: &str) -> Url {
    let mut url = url.clone();
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{parameters}"),
        _ => parameters.to_owned(),
    };
    url.set_query(Some(&query));
    url
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => is_loopback_name(name),
        None => false,
    }
}

/// Whether a host as it stands in a URI is this machine: 127.0.0.0/8, `[::1]` or `localhost`.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
        return ip.is_loopback();
    }
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => is_loopback_name(host),
    }
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// The URL as `http` types have it.
pub(crate) fn uri(field: &'static str, url: &Url) -> Result<Uri, ConfigError> {
    Uri::try_from(url.as_str()).map_err(|_| ConfigError::new(field, "not a valid URI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_or_loopback_and_nothing_else() {
        for good in [
            "https://idp.example/token",
            "https://idp.example:8443/token?p=b2c_1",
            "http://127.0.0.1:8080/token",
            "http://127.9.9.9/token",
            "http://[::1]/token",
            "http://localhost:1/token",
            "http://LOCALHOST/",
        ] {
            assert!(parse("token_url", good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example/token",
            "http://10.0.0.1/",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "https://user:pass@idp.example/",
            "https://idp.example/token#f",
            "ftp://idp.example/",
            "idp.example/token",
            "/token",
            "",
        ] {
            let error = parse("token_url", bad).unwrap_err();
            assert_eq!(error.field(), "token_url", "{bad}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
    }

    #[test]
    fn s0_3_joins_keep_the_base_path_and_one_slash() {
        let join = |base, path| join("base", base, path).unwrap();
        for base in ["https://h/oauth2/x", "https://h/oauth2/x/"] {
            for path in ["v1/token", "/v1/token"] {
                assert_eq!(join(base, path), "https://h/oauth2/x/v1/token");
            }
        }
        assert_eq!(join("https://h", "token"), "https://h/token");
    }

    #[test]
    fn s4_9_joins_keep_port_and_context_path() {
        let joined = join("base", "https://h:8000/ADOXX/", "oauth2/token").unwrap();
        assert_eq!(joined, "https://h:8000/ADOXX/oauth2/token");
    }

    #[test]
    fn hosts_of_uris() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.255.0.3", true),
            ("[::1]", true),
            ("localhost", true),
            ("LocalHost", true),
            ("localhost.", false),
            ("128.0.0.1", false),
            ("[::2]", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(is_loopback_host(host), expected, "{host}");
        }
    }
}
