//! URLs that may receive credentials and tokens: `https`, or `http` to loopback.
//!
//! RFC 6749 §1.6 and RFC 6750 §5.3 require TLS for secrets. Loopback is excepted, as its traffic does
//! not leave the machine.

use http::Uri;
use url::{Host, Url};

use crate::error::ConfigError;

/// Parses a configured URL. `field` names the setting in errors.
pub(crate) fn parse(field: &'static str, url: &str) -> Result<Url, ConfigError> {
    let url = parse_plaintext(field, url)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        let problem = "plain http would expose secrets; use https (http is for loopback only)";
        return Err(ConfigError::new(field, problem));
    }
    Ok(url)
}

/// As [`parse`], but accepts `http` to any host.
pub(crate) fn parse_plaintext(field: &'static str, url: &str) -> Result<Url, ConfigError> {
    let error = |problem: &str| Err(ConfigError::new(field, problem.to_owned()));
    let Ok(url) = Url::parse(url) else {
        return error("not an absolute URL, such as `https://host/path`");
    };
    if has_userinfo(&url) {
        return error(USERINFO);
    }
    if url.fragment().is_some() {
        return error("a URL with a `#fragment` cannot be requested; remove the fragment");
    }
    match url.scheme() {
        "https" | "http" if url.host().is_some() => Ok(url),
        _ => error("not an https URL"),
    }
}

pub(crate) const USERINFO: &str = "credentials in the URL would appear in logs; remove them";

pub(crate) fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Removes the query for `Debug`, as it may contain secrets.
pub(crate) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

/// Joins `base` and `path` with one slash. A relative reference (RFC 3986 §5) would replace the base's
/// last segment instead.
pub(crate) fn join(field: &'static str, base: &str, path: &str) -> Result<String, ConfigError> {
    let mut url = parse(field, base)?;
    if url.query().is_some() {
        let problem = "a base URL must not have a query; use the full URL of the endpoint instead";
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

/// Appends parameters to the query. The existing query stays verbatim before them (RFC 6749 §3.1,
/// §3.2).
pub(crate) fn with_query(url: &Url, parameters: &str) -> Url {
    let mut url = url.clone();
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{parameters}"),
        _ => parameters.to_owned(),
    };
    url.set_query(Some(&query));
    url
}

/// Whether the URL's host is loopback.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => is_loopback_name(name),
        None => false,
    }
}

/// Whether the host of a URI is loopback: 127.0.0.0/8, `[::1]` or `localhost`.
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

/// Converts a URL into the type of the `http` crate.
pub(crate) fn uri(field: &'static str, url: &Url) -> Result<Uri, ConfigError> {
    Uri::try_from(url.as_str()).map_err(|_| ConfigError::new(field, "not a valid URI"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_urls_are_accepted() {
        for valid in [
            "https://idp.example/token",
            "https://idp.example:8443/token?p=b2c_1",
            "http://127.0.0.1:8080/token",
            "http://127.9.9.9/token",
            "http://[::1]/token",
            "http://localhost:1/token",
            "http://LOCALHOST/",
        ] {
            assert!(parse("token_url", valid).is_ok(), "{valid}");
        }
        for invalid in [
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
            let error = parse("token_url", invalid).unwrap_err();
            assert_eq!(error.field(), "token_url", "{invalid}");
            assert!(!error.to_string().contains("pass@"), "{error}");
        }
    }

    #[test]
    fn s0_3_join_keeps_the_base_path_with_one_slash() {
        let join = |base, path| join("base", base, path).unwrap();
        for base in ["https://h/oauth2/x", "https://h/oauth2/x/"] {
            for path in ["v1/token", "/v1/token"] {
                assert_eq!(join(base, path), "https://h/oauth2/x/v1/token");
            }
        }
        assert_eq!(join("https://h", "token"), "https://h/token");
    }

    #[test]
    fn s4_9_join_keeps_port_and_context_path() {
        let joined = join("base", "https://h:8000/ADOXX/", "oauth2/token").unwrap();
        assert_eq!(joined, "https://h:8000/ADOXX/oauth2/token");
    }

    #[test]
    fn loopback_hosts_are_recognized() {
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
