//! [`PendingLogin`]: from the browser's start to its return.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{
    authorization_code::AuthorizationCode,
    callback::{self, Expected},
    pkce::Verifier,
};
use crate::{
    client::Form,
    detached::detached,
    error::{BoxError, Error, Retry},
    json, secure_url,
    session::Session,
};

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
    pub async fn finish(self, callback: &str) -> Result<Session, Error> {
        let code = self.code(callback)?;
        Arc::new(self).redeem(code).await
    }

    /// The exchange in a task of its own: a browser that goes away, or a time that is over, does not
    /// lose what the code was sent for.
    pub(super) async fn redeem(self: Arc<Self>, code: SecretString) -> Result<Session, Error> {
        let exchange = async move { self.exchange(code).await };
        let interrupted = "the exchange of the code was interrupted";
        detached(exchange, interrupted, Retry::Never).await
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

    async fn exchange(&self, code: SecretString) -> Result<Session, Error> {
        let config = &self.client.0;
        let mut form = Form::default();
        form.push("grant_type", "authorization_code");
        form.push("code", code.expose_secret());
        form.push("redirect_uri", &self.redirect_uri);
        if config.challenge.name().is_some() {
            form.push("code_verifier", self.verifier.expose_secret());
        }
        form.push("scope", &config.token_scopes.join(" "));
        config.token_params.add_to(&mut form);
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
        let saved: Saved = json::object(saved.as_bytes()).map_err(|_| "not a saved login")?;
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
