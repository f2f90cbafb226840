//! [`Login`]: settings of one login.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::pkce::Verifier;
use crate::{
    client::{Params, Placement, RequestKind},
    error::ConfigError,
};

/// Settings of one login, in addition to those of the client: see
/// [`AuthorizationCode::start_with`](crate::AuthorizationCode::start_with).
#[derive(Clone, Default)]
#[must_use]
pub struct Login {
    pub(super) state: Option<SecretString>,
    pub(super) payload: Option<String>,
    pub(super) verifier: Option<SecretString>,
    pub(super) params: Params,
}

impl Login {
    /// Returns a login without settings of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets data of the program, such as the page to return to. `state` carries it in clear text after
    /// its random part, and [`PendingLogin::payload`](crate::PendingLogin::payload) returns it. A
    /// callback with another payload is rejected.
    pub fn payload(mut self, payload: impl Into<String>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Sets the whole `state`, which has to be unguessable (RFC 6749 §10.12) and new for each login.
    /// Defaults to a random one.
    pub fn state(mut self, state: impl Into<SecretString>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Sets the code verifier (RFC 7636 §4.1): 43 to 128 characters of `A-Z a-z 0-9 - . _ ~`, new for
    /// each login. Defaults to a random one.
    pub fn code_verifier(mut self, verifier: impl Into<SecretString>) -> Self {
        self.verifier = Some(verifier.into());
        self
    }

    /// Adds a parameter of the authorization request, such as `login_hint` or `prompt`. It replaces the
    /// client's parameters of that name.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.params.push(name, value);
        self
    }

    pub(super) fn check(&self, authorization_url: &Url) -> Result<(), ConfigError> {
        if let Some(verifier) = &self.verifier {
            Verifier::given(verifier.clone())?;
        }
        let state = self.state.as_ref().map(ExposeSecret::expose_secret);
        if state.is_some_and(str::is_empty) {
            let problem = "empty; leave it out for a random one";
            return Err(ConfigError::new("state", problem));
        }
        if state.is_some() && self.payload.is_some() {
            let problem = "cannot be combined with `state`: put the payload into the state";
            return Err(ConfigError::new("payload", problem));
        }
        let kind = RequestKind::Login;
        let params = &self.params;
        params.check_query("param", authorization_url, kind, |_| false)?;
        params.check("param", kind, Placement::Query, &[])
    }
}

/// Hides the state and the verifier.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}
