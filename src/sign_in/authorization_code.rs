//! [`AuthorizationCode`]: what all logins of one client have in common.

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
pub struct AuthorizationCode(pub(super) Arc<Config>);

/// All that logins of one client have in common.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) server: Arc<Server>,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    /// Sent with the code: an extension of Microsoft's.
    pub(super) token_scopes: Vec<String>,
    pub(super) params: Params,
    pub(super) token_params: Params,
    pub(super) challenge: Method,
    /// `None`: each session has its own, in memory.
    pub(super) store: Option<Arc<dyn ErasedStore>>,
    pub(super) warn: OnStoreError,
}

impl AuthorizationCode {
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
    /// [`SharedRedis::store`](crate::redis::SharedRedis::store): the server, the client, and what
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
            .with_pairs(params.exposed())
            .with_pairs(token_params.exposed())
            .done()
            .subject(subject)
    }

    /// The session that the [`store`](AuthorizationCodeBuilder::store) has: of an earlier run of
    /// the program, or of another process. Does no I/O; without a session, asking for a token fails
    /// with [`ErrorKind::SignInRequired`](crate::ErrorKind::SignInRequired).
    pub fn session(&self) -> Session {
        let store = self.0.store.clone();
        Session::new(
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
