//! [`PendingLogin`]: a login between its start and the browser's return.

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

/// A login that waits for the browser's return: see [`AuthorizationCode::start`].
///
/// It belongs to one browser. A web application keeps it in that browser's session, and removes it from
/// there when the callback arrives, so that it is used once. [`save`](Self::save) serializes it for a
/// session that outlives the process; [`AuthorizationCode::resume`] reads it.
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
    /// The server of the login: the code is sent to no other (RFC 9700 §4.4).
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
    /// Returns the authorization URL, for the user's browser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the `state` of this login, which identifies its callback.
    pub fn state(&self) -> &SecretString {
        &self.state
    }

    /// Returns the redirect URI, to which the browser returns.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Returns the payload of [`Login::payload`](crate::Login::payload).
    pub fn payload(&self) -> Option<&str> {
        self.payload.as_deref()
    }

    /// Returns the login as a text, for [`AuthorizationCode::resume`]. The text is secret: with the
    /// callback URL, it is enough to finish the login. Keep it in this browser's session, and encrypt it
    /// if the browser stores it (a cookie).
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

    /// Finishes the login: exchanges the code for a session. `callback` is the URL that the browser
    /// requested, in full or from its path on. Pass the query alone if the program has checked that the
    /// request came to the redirect URI.
    ///
    /// Dropping the future does not stop the exchange: a configured store still gets the session.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::SignIn`](crate::ErrorKind::SignIn), without a request: the callback does not belong
    ///   to this login, or the server refused the login ([`oauth_error`](Error::oauth_error)).
    /// - [`ErrorKind::NoRuntime`](crate::ErrorKind::NoRuntime) outside a tokio runtime.
    /// - Those of a token request. A code is never sent twice (RFC 6749 §4.1.2): the user has to start
    ///   again.
    pub async fn finish(self, callback: &str) -> Result<Session, Error> {
        let code = self.code(callback)?;
        Arc::new(self).redeem(code).await
    }

    /// Exchanges the code in a task of its own: neither a cancelled caller nor a timeout loses the
    /// session.
    pub(super) async fn redeem(self: Arc<Self>, code: SecretString) -> Result<Session, Error> {
        let exchange = async move { self.exchange(code).await };
        let interrupted = "the exchange of the authorization code was interrupted; sign in again";
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
        let response = endpoints.token.request_token_limited(form).await?;
        let session = self.client.session();
        session.begin(&response).await;
        Ok(session)
    }
}

impl AuthorizationCode {
    /// Returns a login that was [saved](PendingLogin::save), in this process or another one with the same
    /// client. Delete the text before you finish the login: it is for one use.
    ///
    /// # Errors
    ///
    /// The text is damaged, or belongs to another client, server or version.
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

/// Hides the URL, which contains the state.
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
