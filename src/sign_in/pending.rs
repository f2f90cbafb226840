//! [`PendingLogin`]: from the browser's start to its return.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use url::Url;

use super::{
    AuthorizationCode,
    builder::{check_own, check_query},
    callback,
    callback::Expected,
    pkce::Verifier,
};
use crate::{
    client::{Form, Parameters},
    error::{BoxError, ConfigError, Error, ErrorKind, Retry},
    secure_url,
    session::RefreshToken,
};

/// What one login needs beyond its client's settings: see
/// [`AuthorizationCode::start_with`].
#[derive(Clone, Default)]
#[must_use]
pub struct Login {
    pub(super) state: Option<SecretString>,
    pub(super) payload: Option<String>,
    pub(super) verifier: Option<SecretString>,
    pub(super) params: Vec<(String, SecretString)>,
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
        self.params.push((name.into(), value.into()));
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
        check_query("param", authorization_url, &self.params)?;
        check_own(&self.params, Parameters::Query)
    }
}

/// Without the state and the verifier.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// A login that waits for the person: see [`AuthorizationCode::start`].
///
/// It belongs to one browser: a web application keeps it in that browser's session, and takes it
/// out there when the callback comes, so that it is used once. [`save`](Self::save) makes a text of
/// it for a session that outlives the process; [`AuthorizationCode::resume`] reads it.
#[must_use]
pub struct PendingLogin {
    pub(super) client: AuthorizationCode,
    pub(super) url: String,
    pub(super) redirect_uri: String,
    pub(super) state: SecretString,
    pub(super) payload: Option<String>,
    pub(super) verifier: Verifier,
    pub(super) issuer_is_sent: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    /// Which it went to: only there may the code go (RFC 9700 §4.4).
    server: String,
    client_id: String,
    url: String,
    redirect_uri: String,
    state: String,
    payload: Option<String>,
    verifier: String,
    issuer_is_sent: bool,
}

const VERSION: u32 = 1;

impl PendingLogin {
    /// Where to send the person's browser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `state` of this login, by which a callback finds it.
    pub fn state(&self) -> &SecretString {
        &self.state
    }

    /// Where the browser is sent back to.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// What [`Login::payload`] was given.
    pub fn payload(&self) -> Option<&str> {
        self.payload.as_deref()
    }

    /// The login as a text, for [`AuthorizationCode::resume`]. Secret: who has it and sees the
    /// callback can finish the login. Keep it in a session of this browser's, encrypted if the
    /// browser holds it itself.
    pub fn save(&self) -> SecretString {
        let saved = Saved {
            version: VERSION,
            server: self.client.0.server.name().to_owned(),
            client_id: self.client.0.server.client.id.clone(),
            url: self.url.clone(),
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.expose_secret().to_owned(),
            payload: self.payload.clone(),
            verifier: self.verifier.expose_secret().to_owned(),
            issuer_is_sent: self.issuer_is_sent,
        };
        serde_json::to_string(&saved).unwrap_or_default().into()
    }

    /// The person is back: exchanges the code for a session. `callback` is the URL that was
    /// requested, in full or from its path on, or its query alone if something else has seen to it
    /// that it came to the redirect URI.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SignIn`], without a request, if the callback is not
    /// this login's answer, or says that the server refuses
    /// ([`oauth_error`](Error::oauth_error)); otherwise those of a token request. A code is never
    /// sent twice (RFC 6749 §4.1.2): the person has to start anew.
    /// [`ErrorKind::NoRuntime`] outside a tokio runtime. Dropping the future does not stop the
    /// exchange: a session that is kept in a store is there.
    pub async fn finish(self, callback: &str) -> Result<RefreshToken, Error> {
        let code = self.code(callback)?;
        Arc::new(self).redeem(code).await
    }

    /// The exchange in a task of its own: a browser that goes away, or a time that is over, does not
    /// lose what the code was sent for.
    pub(super) async fn redeem(self: Arc<Self>, code: SecretString) -> Result<RefreshToken, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::no_runtime())?;
        let exchange = runtime.spawn(async move { self.exchange(code).await });
        exchange.await.unwrap_or_else(|cause| {
            let message = "the exchange of the code was interrupted";
            let error = Error::build(ErrorKind::Interrupted, Retry::Never, message);
            Err(error.interrupted_by(cause).done())
        })
    }

    pub(super) fn code(&self, callback: &str) -> Result<SecretString, Error> {
        let expected = Expected {
            redirect_uri: &self.redirect_uri,
            state: &self.state,
            issuer: self.client.0.server.issuer(),
            issuer_is_sent: self.issuer_is_sent,
        };
        callback::code(callback, &expected)
    }

    async fn exchange(&self, code: SecretString) -> Result<RefreshToken, Error> {
        let config = &self.client.0;
        let mut form = Form::default();
        form.push("grant_type", "authorization_code");
        form.push("code", code.expose_secret());
        form.push("redirect_uri", &self.redirect_uri);
        if config.challenge.name().is_some() {
            form.push("code_verifier", self.verifier.expose_secret());
        }
        form.push("scope", &config.token_scopes.join(" "));
        for (name, value) in &config.token_params {
            form.push(name.clone(), value.expose_secret());
        }
        let endpoints = config.server.endpoints().await?;
        let response = endpoints.token.ask_briefly(form).await?;
        let session = self.client.session();
        session.begin(&response).await;
        Ok(session)
    }
}

impl AuthorizationCode {
    /// A login that was [saved](PendingLogin::save), in this process or in another with the same
    /// client. Forget the text before you finish the login: it is good for one.
    ///
    /// # Errors
    ///
    /// The text is damaged, or of another client's login.
    pub fn resume(&self, saved: &str) -> Result<PendingLogin, BoxError> {
        // Its own words may show what it read.
        let saved: Saved = serde_json::from_str(saved).map_err(|_| "not a saved login")?;
        let server = &self.0.server;
        if saved.version != VERSION
            || saved.server != server.name()
            || saved.client_id != server.client.id
        {
            return Err("a saved login of another client or version".into());
        }
        Ok(PendingLogin {
            client: self.clone(),
            url: saved.url,
            redirect_uri: saved.redirect_uri,
            state: saved.state.into(),
            payload: saved.payload,
            verifier: Verifier::given(saved.verifier.into())?,
            issuer_is_sent: saved.issuer_is_sent,
        })
    }
}

/// Without the URL, which has the state in it.
impl fmt::Debug for PendingLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLogin")
            .field(
                "redirect_uri",
                &secure_url::without_query(&self.redirect_uri),
            )
            .finish_non_exhaustive()
    }
}
