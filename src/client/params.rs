//! Parameters of requests to the authorization server: those that callers add, and the only list of
//! those that the crate sets.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::form::Form;
use crate::error::ConfigError;

/// The place of the parameters in a token request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Placement {
    /// POST, with a form as the body (RFC 6749 §3.2).
    #[default]
    Body,
    /// POST, with the parameters in the URL's query and an empty body.
    Query,
    /// GET, with the parameters in the URL's query.
    Get,
}

/// The kind of a request that callers may add parameters to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// The token request of a grant without a login.
    Grant,
    /// The authorization request or the token request of a login (RFC 6749 §4.1).
    Login,
}

/// Parameters that the crate sets, that are secrets, or that may be repeated.
const KNOWN: [Known; 21] = [
    Known::set("grant_type"),
    Known::set("scope"),
    Known::set("client_id"),
    Known::set("client_secret").secret(),
    Known::set("client_assertion").secret(),
    Known::set("client_assertion_type"),
    Known::by_login("response_type"),
    Known::by_login("redirect_uri"),
    Known::by_login("state"),
    Known::by_login("code_challenge"),
    Known::by_login("code_challenge_method"),
    Known::by_login("request_uri"),
    Known::by_login("code").secret(),
    Known::by_login("code_verifier").secret(),
    Known::by_caller("actor_token").secret(),
    Known::by_caller("assertion").secret(),
    Known::by_caller("device_code").secret(),
    Known::by_caller("password").secret(),
    Known::by_caller("refresh_token").secret(),
    Known::by_caller("subject_token").secret(),
    // One for each API (RFC 8707 §2).
    Known::by_caller("resource").repeatable(),
];

struct Known {
    name: &'static str,
    set_by: SetBy,
    is_secret: bool,
    is_repeatable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetBy {
    /// Callers may add it.
    Caller,
    /// The crate sets it, or has a setter for it.
    Crate,
    /// The crate sets it in logins; callers may add it to other grants.
    Login,
}

impl Known {
    const fn new(name: &'static str, set_by: SetBy) -> Self {
        Self {
            name,
            set_by,
            is_secret: false,
            is_repeatable: false,
        }
    }

    const fn set(name: &'static str) -> Self {
        Self::new(name, SetBy::Crate)
    }

    const fn by_login(name: &'static str) -> Self {
        Self::new(name, SetBy::Login)
    }

    const fn by_caller(name: &'static str) -> Self {
        Self::new(name, SetBy::Caller)
    }

    const fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    const fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }
}

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Whether the crate sets this parameter in requests of this kind.
fn is_set_by_crate(name: &str, kind: RequestKind) -> bool {
    known(name).is_some_and(|known| match known.set_by {
        SetBy::Caller => false,
        SetBy::Crate => true,
        SetBy::Login => kind == RequestKind::Login,
    })
}

/// Parameters that a caller has added to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, SecretString)>);

impl Params {
    pub(crate) fn push(&mut self, name: impl Into<String>, value: impl Into<SecretString>) {
        self.0.push((name.into(), value.into()));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.iter().any(|(known, _)| known == name)
    }

    pub(crate) fn add_to(&self, form: &mut Form) {
        for (name, value) in &self.0 {
            form.push(name.clone(), value.expose_secret());
        }
    }

    /// Returns the names and the exposed values, for a digest.
    #[cfg(feature = "redis")]
    pub(crate) fn exposed(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter()
            .map(|(name, value)| (name, value.expose_secret().as_bytes()))
    }

    /// Checks the names. `field` is the setter of these parameters, and `own` are those that have a setter
    /// of their own.
    pub(crate) fn check(
        &self,
        field: &'static str,
        kind: RequestKind,
        placement: Placement,
        own: &[&str],
    ) -> Result<(), ConfigError> {
        let error = |problem: String| Err(ConfigError::new(field, problem));
        for (at, (name, _)) in self.0.iter().enumerate() {
            let name = name.as_str();
            if name.is_empty() {
                return error("a parameter name is empty".to_owned());
            }
            let known = known(name);
            if known.is_some_and(|known| known.set_by == SetBy::Crate) || own.contains(&name) {
                return error(format!(
                    "the crate sets `{name}`; use its setter if there is one, or remove it"
                ));
            }
            if is_set_by_crate(name, kind) {
                return error(format!("the login sets `{name}`; remove it"));
            }
            if placement != Placement::Body && known.is_some_and(|known| known.is_secret) {
                return error(format!(
                    "`{name}` is a secret and must not be sent in a URL"
                ));
            }
            let is_repeatable = known.is_some_and(|known| known.is_repeatable);
            if !is_repeatable && self.0.iter().take(at).any(|(other, _)| other == name) {
                return error(format!("`{name}` is set twice"));
            }
        }
        Ok(())
    }

    /// Checks that the query of an endpoint's URL repeats no parameter of the request (RFC 6749 §3.1,
    /// §3.2). `own`: whether this grant sends a parameter that it has a setter for.
    pub(crate) fn check_query(
        &self,
        field: &'static str,
        url: &Url,
        kind: RequestKind,
        own: impl Fn(&str) -> bool,
    ) -> Result<(), ConfigError> {
        // A request without a scope leaves the URL free to have one.
        let is_optional = |name: &str| kind == RequestKind::Grant && name == "scope";
        let is_sent = |name: &str| {
            (is_set_by_crate(name, kind) && !is_optional(name)) || own(name) || self.contains(name)
        };
        if url.query_pairs().any(|(name, _)| is_sent(&name)) {
            let problem = "its query repeats a parameter of the request; remove it from the URL";
            return Err(ConfigError::new(field, problem));
        }
        Ok(())
    }
}
