//! The start of a login: the authorization request (RFC 6749 §4.1.1), pushed (RFC 9126) or in the URL.
//!
//! Invariants:
//!
//! 1. The parameters are the same, pushed or not.
//! 2. If the server accepts pushed requests, the URL has only a reference, valid for this login.

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
    /// Starts a login. [`PendingLogin::url`] is the URL for the user's browser.
    ///
    /// With [`discover`](Self::discover), fetches the server's metadata unless they are cached. If the
    /// server accepts pushed authorization requests (RFC 9126), sends one: the URL is then a reference,
    /// which usually expires within minutes. Otherwise does no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Discovery`] if the metadata are unusable; otherwise those of a token request.
    pub async fn start(&self) -> Result<PendingLogin, Error> {
        self.start_with(Login::default()).await
    }

    /// Starts a login with settings of its own, such as a `login_hint`, a state or a verifier.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start), and [`ErrorKind::SignIn`] if `login` has an invalid setting.
    pub async fn start_with(&self, login: Login) -> Result<PendingLogin, Error> {
        self.start_at(login, self.0.redirect_uri.clone()).await
    }

    /// Starts a login with this redirect URI.
    pub(super) async fn start_at(
        &self,
        login: Login,
        redirect_uri: String,
    ) -> Result<PendingLogin, Error> {
        let config = &self.0;
        let endpoints = config.server.endpoints().await?;
        let Some(authorization) = &endpoints.authorization else {
            let message = "the server's metadata have no `authorization_endpoint`";
            return Err(Error::build(ErrorKind::Discovery, Retry::Never, message).done());
        };
        let invalid = |error| cannot("the login has an invalid setting", error);
        login.check(authorization).map_err(invalid)?;
        // `build` checks this too, but not for an endpoint from metadata.
        let kind = RequestKind::Login;
        (config.params)
            .check_query("param", authorization, kind, |_| false)
            .map_err(invalid)?;
        let verifier = match login.verifier {
            Some(given) => Verifier::given(given).map_err(invalid)?,
            None => Verifier::random(),
        };
        let state = login.state.unwrap_or_else(|| match &login.payload {
            None => random(),
            Some(payload) => format!("{}.{payload}", random().expose_secret()).into(),
        });
        let form = parameters(config, &redirect_uri, &state, &verifier, &login.params);
        let query = match &endpoints.pushed {
            None if endpoints.requires_pushed_requests => {
                let message = "the server requires pushed authorization requests (RFC 9126 §5): \
                               set `pushed_request_url`, or remove `without_pushed_requests`";
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

/// The parameters of the authorization request (RFC 6749 §4.1.1).
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

/// The answer to a pushed authorization request (RFC 9126 §2.2).
#[derive(Deserialize)]
struct Pushed {
    request_uri: String,
    expires_in: serde_json::Number,
}

/// Pushes the parameters to the server. Returns the parameters of the URL, with a reference to them.
async fn pushed_form(endpoint: &TokenEndpoint, form: Form) -> Result<Form, Error> {
    let answer = endpoint.post(form).await?;
    let pushed: Option<Pushed> = json::object(&answer).ok();
    let good = |pushed: &Pushed| {
        let lives = pushed.expires_in.as_f64().is_some_and(|life| life > 0.0);
        lives && !pushed.request_uri.is_empty()
    };
    let Some(pushed) = pushed.filter(good) else {
        let message = "the answer to the pushed authorization request has no valid `request_uri` \
                       and `expires_in`";
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
