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
pub(crate) mod callback;
#[cfg(feature = "login")]
mod landing;
#[cfg(feature = "login")]
mod loopback;
mod pending;
mod pkce;
mod start;

use std::sync::Arc;

use secrecy::SecretString;

pub use self::{
    builder::AuthorizationCodeBuilder,
    pending::{Login, PendingLogin},
};
#[cfg(feature = "redis")]
use crate::token::{TokenKey, secrets};
use crate::{
    client::{Issuer, Place, Server},
    error::ConfigError,
    secure_url,
    session::{
        RefreshToken, StoreError,
        store::{ErasedStore, MemoryStore, TokenStore},
    },
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
/// # async fn callback(auth: AuthorizationCode, url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let login = auth.start().await?;
/// println!("{}", login.url());
///
/// // When they come back, with the URL that they came back to:
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
#[derive(Clone)]
pub(crate) struct Config {
    server: Arc<Server>,
    redirect_uri: String,
    scopes: Vec<String>,
    /// Sent with the code: an extension of Microsoft's.
    token_scopes: Vec<String>,
    params: Vec<(String, SecretString)>,
    token_params: Vec<(String, SecretString)>,
    challenge: pkce::Method,
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
        let place = Place::At(Ok(token_url.into()));
        let builder = AuthorizationCodeBuilder::new(place, client_id.into());
        builder.authorization_url(Ok(authorization_url.into()))
    }

    /// Starts with the server's [issuer](Issuer) instead of its endpoints: where those are, how the
    /// client proves itself there unless [`client_auth`](AuthorizationCodeBuilder::client_auth)
    /// says so, and whether logins are [pushed](Self::start), is asked for with the first login, or
    /// the first token (RFC 8414).
    ///
    /// ```
    /// use bearer_auth::AuthorizationCode;
    ///
    /// let auth = AuthorizationCode::discover("https://idp.example", "client-id")
    ///     .redirect_uri("https://app.example/callback")
    ///     .scope("openid offline_access")
    ///     .build()?;
    /// # Ok::<(), bearer_auth::ConfigError>(())
    /// ```
    pub fn discover(
        issuer: impl Into<Issuer>,
        client_id: impl Into<String>,
    ) -> AuthorizationCodeBuilder {
        AuthorizationCodeBuilder::new(Place::Of(issuer.into()), client_id.into())
    }

    /// The same client with a store of its own for its session, such as one person's row in a
    /// database: `auth.with_store(store).start()` signs them in, and
    /// `auth.with_store(store).session()` goes on with what is there.
    pub fn with_store(&self, store: impl TokenStore) -> Self {
        Self(Arc::new(Config {
            store: Some(Arc::new(store)),
            ..Config::clone(&self.0)
        }))
    }

    /// Names the session of `subject` among those of others, for
    /// [`RedisStore::session`](crate::fleet::RedisStore::session): the server, the client, and what
    /// is asked for.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn token_key(&self, subject: impl AsRef<str>) -> TokenKey {
        let Config {
            server,
            scopes,
            token_scopes,
            params,
            token_params,
            redirect_uri: _,
            challenge: _,
            store: _,
            warn: _,
        } = &*self.0;
        server
            .digest("authorization code")
            .with_all(scopes)
            .with_all(token_scopes)
            .with_pairs(secrets(params))
            .with_pairs(secrets(token_params))
            .done()
            .subject(subject)
    }

    /// The session that the [`store`](AuthorizationCodeBuilder::store) has: of an earlier run of
    /// the program, or of another process. Does no I/O; without a session, asking for a token fails
    /// with [`ErrorKind::SignInRequired`](crate::ErrorKind::SignInRequired).
    pub fn session(&self) -> RefreshToken {
        let store = self.0.store.clone();
        RefreshToken::new(
            Arc::clone(&self.0.server),
            None,
            store.unwrap_or_else(|| Arc::new(MemoryStore::new())),
            Arc::clone(&self.0.warn),
        )
    }

    /// For programs that let people sign in at several servers: whether each answer can be told
    /// from those of the others (RFC 9700 §4.4). They can if all servers have an
    /// [`issuer`](AuthorizationCodeBuilder::issuer_always_sent) of their own and say so in their
    /// answers, or if no two share a redirect URI. Does no I/O: what metadata would say does not
    /// count.
    ///
    /// # Errors
    ///
    /// Two have the same issuer, or share a redirect URI and do not say who they are.
    pub fn check_together(clients: &[Self]) -> Result<(), ConfigError> {
        for (at, one) in clients.iter().enumerate() {
            for other in clients.iter().skip(at + 1) {
                let (one, other) = (&one.0, &other.0);
                let (at, other_at) = (&one.server, &other.server);
                if at.name() == other_at.name() {
                    continue;
                }
                if at.issuer().is_some() && at.issuer() == other_at.issuer() {
                    let problem = "two servers with the same issuer cannot be told apart";
                    return Err(ConfigError::new("issuer", problem));
                }
                let tell = at.is_known_to_send_issuer() && other_at.is_known_to_send_issuer();
                if one.redirect_uri == other.redirect_uri && !tell {
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
            .field(
                "redirect_uri",
                &secure_url::without_query(&self.redirect_uri),
            )
            .field("scopes", &self.scopes)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
