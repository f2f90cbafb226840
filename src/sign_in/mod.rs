//! A person signs in: the authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636).
//!
//! ```text
//! start ─► PendingLogin ─ url ─► the person's browser ─► the server's pages
//!                                                            │ redirect
//!              RefreshToken ◄─ finish ◄─ the callback's URL ◄┘
//! ```
//!
//! Invariants: what a login needs to be told from any other (state, verifier, redirect URI, the
//! server it went to) is made at its start, and is all in its [`PendingLogin`]; it is used once,
//! since finishing consumes it. No callback that fails a check leads to a request. A code is sent
//! once, whatever becomes of the request (RFC 6749 §4.1.2). This crate never opens the
//! authorization URL by itself (RFC 8252 §8.12).

mod builder;
mod callback;
#[cfg(feature = "login")]
mod landing;
#[cfg(feature = "login")]
mod loopback;
mod pending;
mod pkce;

use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

pub use self::{
    builder::AuthorizationCodeBuilder,
    pending::{Login, PendingLogin},
};
use crate::{
    ConfigError, RefreshToken, StoreError,
    endpoint::TokenEndpoint,
    store::{ErasedStore, MemoryStore},
};

/// The authorization code grant (RFC 6749 §4.1), with PKCE (RFC 7636): a person signs in once, and
/// the program goes on in their name.
///
/// ```
/// use bearer_auth::{AuthorizationCode, BearerAuthLayer, Error};
///
/// let auth = AuthorizationCode::builder("https://idp.example/authorize", "https://idp.example/token", "client-id")
///     .redirect_uri("https://app.example/callback")
///     .scope("openid profile orders:read offline_access")
///     .build()?;
///
/// // When somebody wants to sign in: send their browser there, and keep `login` in their session.
/// let login = auth.start();
/// println!("{}", login.url());
///
/// // When they come back, with the URL that they came back to:
/// # async fn callback(login: bearer_auth::PendingLogin, url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let session = login.finish(url).await?;
/// let auth = BearerAuthLayer::for_api("https://api.example.com/", session)?;
/// # Ok(()) }
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
///
/// Clones share one configuration.
#[derive(Clone, Debug)]
pub struct AuthorizationCode(Arc<Config>);

/// All that logins of one client have in common.
pub(crate) struct Config {
    authorization_url: Url,
    redirect_uri: String,
    scopes: Vec<String>,
    /// Sent with the code: an extension of Microsoft's.
    token_scopes: Vec<String>,
    params: Vec<(String, SecretString)>,
    token_params: Vec<(String, SecretString)>,
    challenge: pkce::Method,
    issuer: Option<String>,
    issuer_is_sent: bool,
    endpoint: Arc<TokenEndpoint>,
    revocation_url: Option<Url>,
    /// `None`: each session has its own, in memory.
    store: Option<Arc<dyn ErasedStore>>,
    warn: Arc<dyn Fn(&StoreError) + Send + Sync>,
}

impl AuthorizationCode {
    /// Starts with what every client has: the server's two endpoints, in full, and the client's id.
    /// Nothing is checked until [`build`](AuthorizationCodeBuilder::build).
    pub fn builder(
        authorization_url: impl Into<String>,
        token_url: impl Into<String>,
        client_id: impl Into<String>,
    ) -> AuthorizationCodeBuilder {
        AuthorizationCodeBuilder::new(authorization_url.into(), token_url.into(), client_id.into())
    }

    /// Starts a login.
    pub fn start(&self) -> PendingLogin {
        PendingLogin::new(self.clone(), Login::default())
    }

    /// Starts a login that needs more than the client's settings say: a `login_hint`, a state or a
    /// verifier of the caller's own.
    ///
    /// # Errors
    ///
    /// What is given cannot be sent.
    pub fn start_with(&self, login: Login) -> Result<PendingLogin, ConfigError> {
        login.check(&self.0.authorization_url)?;
        Ok(PendingLogin::new(self.clone(), login))
    }

    /// The session that the [`store`](AuthorizationCodeBuilder::store) has: of an earlier run of
    /// the program, or of another process. Does no I/O; without a session, asking for a token fails
    /// with [`ErrorKind::SignInRequired`](crate::ErrorKind::SignInRequired).
    pub fn session(&self) -> RefreshToken {
        let store = self.0.store.clone();
        RefreshToken::new(
            Arc::clone(&self.0.endpoint),
            None,
            store.unwrap_or_else(|| Arc::new(MemoryStore::new())),
            Arc::clone(&self.0.warn),
            self.0
                .revocation_url
                .clone()
                .map(|url| self.0.endpoint.at(url)),
        )
    }

    /// For programs that let people sign in at several servers: whether each answer can be told
    /// from those of the others (RFC 9700 §4.4). They can if all servers have an
    /// [`issuer`](AuthorizationCodeBuilder::issuer) of their own and say so in their answers, or if
    /// no two share a redirect URI.
    ///
    /// # Errors
    ///
    /// Two have the same issuer, or share a redirect URI and do not say who they are.
    pub fn check_together(clients: &[Self]) -> Result<(), ConfigError> {
        for (at, one) in clients.iter().enumerate() {
            for other in clients.iter().skip(at + 1) {
                let (one, other) = (&one.0, &other.0);
                if one.endpoint.url == other.endpoint.url {
                    continue;
                }
                if one.issuer.is_some() && one.issuer == other.issuer {
                    let problem = "two servers with the same issuer cannot be told apart";
                    return Err(ConfigError::new("issuer", problem));
                }
                let tell = |config: &Config| config.issuer.is_some() && config.issuer_is_sent;
                if one.redirect_uri == other.redirect_uri && !(tell(one) && tell(other)) {
                    let problem = "two servers that do not say who they are share it: \
                                   one's answer could be taken for the other's; give each its own";
                    return Err(ConfigError::new("redirect_uri", problem));
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("redirect_uri", &self.redirect_uri)
            .field("scopes", &self.scopes)
            .field("issuer", &self.issuer)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
