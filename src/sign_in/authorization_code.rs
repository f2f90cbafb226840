//! [`AuthorizationCode`]: the configuration of a client that signs users in.

use std::{fmt, sync::Arc};

use super::pkce::Method;
#[cfg(feature = "redis")]
use crate::token::TokenKey;
use crate::{
    client::{Params, Server},
    error::ConfigError,
    secure_url,
    session::{
        Session,
        store::{ErasedStore, MemoryStore, OnStoreError, TokenStore},
    },
};

/// The authorization code grant (RFC 6749 §4.1) with PKCE (RFC 7636): a user signs in once, and the
/// program acts on the user's behalf.
///
/// ```
/// use bearer_auth::{AuthorizationCode, BearerAuthLayer, Error};
///
/// let auth = AuthorizationCode::builder("https://idp.example/authorize", "https://idp.example/token", "client-id")
///     .redirect_uri("https://app.example/callback")
///     .scope("openid profile orders:read offline_access")
///     .build()?;
///
/// // When a user signs in: send the browser to this URL, and keep `login` in the user's session.
/// # async fn callback(auth: AuthorizationCode, url: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let login = auth.start().await?;
/// println!("{}", login.url());
///
/// // When the browser returns: `url` is the callback URL that it requested.
/// let session = login.finish(url).await?;
/// let auth = BearerAuthLayer::for_api("https://api.example.com/", session)?;
/// # Ok(()) }
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
///
/// Clones share one configuration.
#[derive(Clone, Debug)]
pub struct AuthorizationCode(pub(super) Arc<Config>);

/// The settings that all logins of one client share.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) server: Arc<Server>,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    /// Sent with the code, which is an extension of Microsoft's.
    pub(super) token_scopes: Vec<String>,
    pub(super) params: Params,
    pub(super) token_params: Params,
    pub(super) challenge: Method,
    /// `None`: each session has a store of its own, in memory.
    pub(super) store: Option<Arc<dyn ErasedStore>>,
    pub(super) warn: OnStoreError,
}

impl AuthorizationCode {
    /// Returns the same client with another store, such as one user's row in a database.
    /// `auth.with_store(store).start()` signs the user in, `auth.with_store(store).session()` continues
    /// the stored session.
    pub fn with_store(&self, store: impl TokenStore) -> Self {
        Self(Arc::new(Config {
            store: Some(Arc::new(store)),
            ..Config::clone(&self.0)
        }))
    }

    /// Returns the key of a user's session, for
    /// [`SharedRedis::store`](crate::redis::SharedRedis::store). It depends on the server, the client,
    /// the scopes, the parameters, and `subject`, the stable id of an authenticated user.
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
            .with_pairs(params.exposed())
            .with_pairs(token_params.exposed())
            .done()
            .subject(subject)
    }

    /// Returns the session in the configured [`store`](crate::AuthorizationCodeBuilder::store), which an
    /// earlier run of the program or another process has written. Does no I/O. If the store has no
    /// session, token requests fail with
    /// [`ErrorKind::SignInRequired`](crate::ErrorKind::SignInRequired).
    pub fn session(&self) -> Session {
        let store = self.0.store.clone();
        Session::new(
            Arc::clone(&self.0.server),
            None,
            store.unwrap_or_else(|| Arc::new(MemoryStore::new())),
            Arc::clone(&self.0.warn),
        )
    }

    /// Checks that the callbacks of several authorization servers cannot be confused (mix-up, RFC 9700
    /// §4.4): each server always sends an
    /// [`issuer`](crate::AuthorizationCodeBuilder::issuer_always_sent) of its own, or no two clients
    /// share a redirect URI. Does no I/O, so metadata of the servers do not count.
    ///
    /// # Errors
    ///
    /// Two servers have the same issuer; or they share a redirect URI, and one of them is not known to
    /// send its issuer.
    pub fn check_together(clients: &[Self]) -> Result<(), ConfigError> {
        for (at, one) in clients.iter().enumerate() {
            for other in clients.iter().skip(at + 1) {
                let (one, other) = (&one.0, &other.0);
                let (at, other_at) = (&one.server, &other.server);
                if at.name() == other_at.name() {
                    continue;
                }
                if at.issuer().is_some() && at.issuer() == other_at.issuer() {
                    let problem = "two servers have the same issuer, and cannot be distinguished";
                    return Err(ConfigError::new("issuer", problem));
                }
                let both_send = at.is_known_to_send_issuer() && other_at.is_known_to_send_issuer();
                if one.redirect_uri == other.redirect_uri && !both_send {
                    let problem = "shared by two servers that do not both send their issuer, so that \
                                   callbacks could be confused; give each a redirect URI of its own";
                    return Err(ConfigError::new("redirect_uri", problem));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
