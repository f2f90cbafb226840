//! [`Login`]: what one login needs beyond its client's settings.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::pkce::Verifier;
use crate::{
    client::{Params, Placement, RequestKind},
    error::ConfigError,
};

/// What one login needs beyond its client's settings: see
/// [`AuthorizationCode::start_with`].
#[derive(Clone, Default)]
#[must_use]
pub struct Login {
    pub(super) state: Option<SecretString>,
    pub(super) payload: Option<String>,
    pub(super) verifier: Option<SecretString>,
    pub(super) params: Params,
}

impl Login {
    /// Nothing special.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something of the program's own, the page to go back to, say: it travels behind the random
    /// part of `state`, for all to read, and comes back from
    /// [`PendingLogin::payload`]. An answer with another one is refused.
    pub fn payload(mut self, payload: impl Into<String>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// The whole `state`, in place of a random one. It has to be as hard to guess (RFC 6749
    /// §10.12), and may be used for one login only.
    pub fn state(mut self, state: impl Into<SecretString>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// The code verifier (RFC 7636 §4.1), in place of a random one: 43 to 128 characters of
    /// `A-Z a-z 0-9 - . _ ~`, for one login only.
    pub fn code_verifier(mut self, verifier: impl Into<SecretString>) -> Self {
        self.verifier = Some(verifier.into());
        self
    }

    /// A further parameter of the authorization URL: `login_hint`, `prompt`. It replaces the
    /// client's of that name.
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
            let problem = "empty; leave it out, and a random one is made";
            return Err(ConfigError::new("state", problem));
        }
        if state.is_some() && self.payload.is_some() {
            let problem = "a state of one's own carries its payload by itself";
            return Err(ConfigError::new("payload", problem));
        }
        let kind = RequestKind::Login;
        let params = &self.params;
        params.check_query("param", authorization_url, kind, |_| false)?;
        params.check(kind, Placement::Query, &[])
    }
}

/// Without the state and the verifier.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}
