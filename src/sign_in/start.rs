//! The start of a login: what it needs is made, and the URL for the person's browser.
//!
//! Invariants: whatever the way the parameters travel, they are the same; a server that takes them
//! beforehand (RFC 9126) gets them so, and the browser carries nothing but a reference, which is
//! good for this login only.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    authorization_code::{AuthorizationCode, Config},
    login::Login,
    pending::PendingLogin,
    pkce::{Verifier, random},
};
use crate::{
    client::{Form, Params, RequestKind, TokenEndpoint},
    error::{BoxError, Error, ErrorKind, Retry},
    json, secure_url,
};

impl AuthorizationCode {
    /// Starts a login.
    ///
    /// Asks the server if there is something to ask: its metadata
    /// ([`discover`](Self::discover)), and to take the parameters of the login beforehand if it
    /// does so (pushed authorization requests, RFC 9126), so that the URL is a reference to them,
    /// which is good for a minute or so. Otherwise there is no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Discovery`] if the metadata are of no use; otherwise those of a token request.
    pub async fn start(&self) -> Result<PendingLogin, Error> {
        self.start_with(Login::default()).await
    }

    /// Starts a login that needs more than the client's settings say: a `login_hint`, a state or a
    /// verifier of the caller's own.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::SignIn`] if `login` cannot be sent.
    pub async fn start_with(&self, login: Login) -> Result<PendingLogin, Error> {
        self.start_at(login, self.0.redirect_uri.clone()).await
    }

    /// With a redirect URI of its own.
    pub(super) async fn start_at(
        &self,
        login: Login,
        redirect_uri: String,
    ) -> Result<PendingLogin, Error> {
        let config = &self.0;
        let endpoints = config.server.endpoints().await?;
        let Some(authorization) = &endpoints.authorization else {
            let message = "the server's metadata name no authorization endpoint";
            return Err(Error::build(ErrorKind::Discovery, Retry::Never, message).done());
        };
        let unsendable = |error| cannot("the login cannot be sent", error);
        login.check(authorization).map_err(unsendable)?;
        // Of an endpoint that `build` could not know yet.
        let kind = RequestKind::Login;
        (config.params)
            .check_query("param", authorization, kind, |_| false)
            .map_err(unsendable)?;
        let verifier = match login.verifier {
            Some(given) => Verifier::given(given).map_err(unsendable)?,
            None => Verifier::random(),
        };
        let state = login.state.unwrap_or_else(|| match &login.payload {
            None => random(),
            Some(payload) => format!("{}.{payload}", random().expose_secret()).into(),
        });
        let form = parameters(config, &redirect_uri, &state, &verifier, &login.params);
        let query = match &endpoints.pushed {
            None if endpoints.pushes_only => {
                let message = "the server takes logins by pushed requests only (RFC 9126 §5)";
                return Err(Error::build(ErrorKind::Discovery, Retry::Never, message).done());
            }
            None => form,
            Some(pushed) => pushed_form(pushed, form).await?,
        };
        Ok(PendingLogin {
            client: self.clone(),
            url: secure_url::with_query(authorization, &query.encode()).into(),
            redirect_uri,
            state,
            payload: login.payload,
            verifier,
            issuer_is_sent: endpoints.issuer_is_sent,
        })
    }
}

/// Of the authorization request (RFC 6749 §4.1.1).
fn parameters(
    config: &Config,
    redirect_uri: &str,
    state: &SecretString,
    verifier: &Verifier,
    params: &Params,
) -> Form {
    let mut form = Form::default();
    form.push("response_type", "code");
    form.push("client_id", &config.server.client.id);
    form.push("redirect_uri", redirect_uri);
    form.push("scope", &config.scopes.join(" "));
    form.push("state", state.expose_secret());
    if let (Some(challenge), Some(method)) = (
        verifier.challenge(config.challenge),
        config.challenge.name(),
    ) {
        form.push("code_challenge", &challenge);
        form.push("code_challenge_method", method);
    }
    let configured = config.params.iter();
    for (name, value) in configured.filter(|(name, _)| !params.contains(name)) {
        form.push(name.to_owned(), value.expose_secret());
    }
    params.add_to(&mut form);
    form
}

/// What the server gives for a login's parameters (RFC 9126 §2.2).
#[derive(Deserialize)]
struct Pushed {
    request_uri: String,
    expires_in: serde_json::Number,
}

/// Sends the parameters to the server; what is left for the browser is a reference to them.
async fn pushed_form(endpoint: &TokenEndpoint, form: Form) -> Result<Form, Error> {
    let answer = endpoint.tell(form).await?;
    let pushed: Option<Pushed> = json::object(&answer).ok();
    let good = |pushed: &Pushed| {
        let lives = pushed.expires_in.as_f64().is_some_and(|life| life > 0.0);
        lives && !pushed.request_uri.is_empty()
    };
    let Some(pushed) = pushed.filter(good) else {
        let message = "the answer to a pushed authorization request names no `request_uri` with \
                       a time to live";
        return Err(Error::build(ErrorKind::InvalidResponse, Retry::Later, message).done());
    };
    let mut query = Form::default();
    query.push("client_id", &endpoint.client.id);
    query.push("request_uri", &pushed.request_uri);
    Ok(query)
}

pub(super) fn cannot(message: &'static str, cause: impl Into<BoxError>) -> Error {
    Error::build(ErrorKind::SignIn, Retry::Never, message)
        .caused_by(cause)
        .done()
}
