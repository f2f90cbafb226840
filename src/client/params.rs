//! Parameters of requests to the authorization server: those that users add, and the one list of those
//! that the crate sets itself.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::form::Form;
use crate::error::ConfigError;

/// Where the parameters of a request go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Placement {
    /// POST, with a form as the body: the standard's way (RFC 6749 §3.2).
    #[default]
    Body,
    /// POST, with the parameters in the URL and an empty body.
    Query,
    /// GET.
    Get,
}

/// A request that users may add parameters to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// The token request of a grant without a login.
    Grant,
    /// The authorization request or the token request of a login (RFC 6749 §4.1).
    Login,
}

/// Parameters that the crate sets itself, and those that are secrets. This is the only list of them.
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
    Known::free("actor_token").secret(),
    Known::free("assertion").secret(),
    Known::free("device_code").secret(),
    Known::free("password").secret(),
    Known::free("refresh_token").secret(),
    Known::free("subject_token").secret(),
    // Several of these name several APIs (RFC 8707 §2).
    Known::free("resource").repeatable(),
];

struct Known {
    name: &'static str,
    set_by: SetBy,
    is_secret: bool,
    is_repeatable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetBy {
    /// Users may add it.
    User,
    /// Every grant has a setter for it, or sets it.
    Crate,
    /// A login sets it.
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

    const fn free(name: &'static str) -> Self {
        Self::new(name, SetBy::User)
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

/// Whether the crate sets this parameter of a request itself.
fn is_set(name: &str, kind: RequestKind) -> bool {
    known(name).is_some_and(|known| match known.set_by {
        SetBy::User => false,
        SetBy::Crate => true,
        SetBy::Login => kind == RequestKind::Login,
    })
}

/// Parameters that a user has added to a request.
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

    /// Adds them to a request.
    pub(crate) fn add_to(&self, form: &mut Form) {
        for (name, value) in &self.0 {
            form.push(name.clone(), value.expose_secret());
        }
    }

    /// Names and values, for a digest.
    #[cfg(feature = "redis")]
    pub(crate) fn exposed(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.iter()
            .map(|(name, value)| (name, value.expose_secret().as_bytes()))
    }

    /// Checks the names. `own` are further parameters that this grant has setters for.
    pub(crate) fn check(
        &self,
        kind: RequestKind,
        placement: Placement,
        own: &[&str],
    ) -> Result<(), ConfigError> {
        let error = |problem: String| Err(ConfigError::new("param", problem));
        for (at, (name, _)) in self.0.iter().enumerate() {
            let name = name.as_str();
            if name.is_empty() {
                return error("a parameter without a name".to_owned());
            }
            let known = known(name);
            if known.is_some_and(|known| known.set_by == SetBy::Crate) || own.contains(&name) {
                return error(format!("`{name}` has a setter of its own; use that"));
            }
            if is_set(name, kind) {
                return error(format!("`{name}` is set by the login itself"));
            }
            if placement != Placement::Body && known.is_some_and(|known| known.is_secret) {
                return error(format!(
                    "`{name}` is a secret, which does not go into a URL"
                ));
            }
            let is_repeatable = known.is_some_and(|known| known.is_repeatable);
            if !is_repeatable && self.0.iter().take(at).any(|(other, _)| other == name) {
                return error(format!("`{name}` is given twice"));
            }
        }
        Ok(())
    }

    /// Checks that the URL of an endpoint has no parameter in its query that the request has as well:
    /// it would be sent twice (RFC 6749 §3.1, §3.2). `own`: whether this grant sends a parameter that
    /// it has a setter for.
    pub(crate) fn check_query(
        &self,
        field: &'static str,
        url: &Url,
        kind: RequestKind,
        own: impl Fn(&str) -> bool,
    ) -> Result<(), ConfigError> {
        // A grant may leave its scope out; then a URL may have one.
        let may_be_left_out = |name: &str| kind == RequestKind::Grant && name == "scope";
        let is_sent = |name: &str| {
            (is_set(name, kind) && !may_be_left_out(name)) || own(name) || self.contains(name)
        };
        if url.query_pairs().any(|(name, _)| is_sent(&name)) {
            let problem = "its query has a parameter that the request has as well; take it out";
            return Err(ConfigError::new(field, problem));
        }
        Ok(())
    }
}
