//! Sign-out, with token revocation (RFC 7009).
//!
//! Invariants:
//!
//! 1. The local copies go first, whatever the server answers: the session in the store, then the tokens
//!    in every cache of this process.
//! 2. The store's lock is held meanwhile. A refresh in flight ends before, and its tokens are revoked
//!    too. A later refresh finds no session.
//! 3. The store's lock is released before the revocation requests, which may be slow.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::{
    refresh::{Inner, NoLock, Session},
    state::State,
    store::{LockedSession as _, StoreOperation},
    stored::StoredSession,
};
use crate::{
    client::{Form, TokenEndpoint},
    detached::detached,
    error::{Error, ErrorKind, Retry},
};

impl Session {
    /// Signs out: removes the session from the store, and its tokens from all caches of this process that
    /// were built on this session or its clones; then revokes the tokens (RFC 7009). Revocation needs a
    /// [`revocation_url`](crate::AuthorizationCodeBuilder::revocation_url), configured or from the
    /// server's metadata. Dropping the future does not stop the sign-out.
    ///
    /// # Errors
    ///
    /// The store still has the session, or the tokens were not revoked and have to be treated as valid
    /// until they expire. In both cases those caches are empty. If the error is
    /// [retryable](Error::is_retryable), call `logout` again. [`ErrorKind::NoRuntime`] outside a tokio
    /// runtime: nothing has changed then.
    pub async fn logout(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.0);
        let logout = async move { inner.logout().await };
        detached(logout, "the sign-out was interrupted", Retry::Later).await
    }
}

impl Inner {
    async fn logout(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let locked = match self.lock().await {
            // The lock holder had its time: sign-out takes the lock over.
            Err(NoLock::Busy) => self.take_over().await,
            locked => locked,
        };
        let mut locked = locked.ok();
        let known = self.load(&mut state, locked.as_mut()).await.ok();
        let emptied = match &mut locked {
            Some(locked) => match locked.save(None).await {
                Ok(()) => true,
                Err(cause) => {
                    self.warn(StoreOperation::Save, cause);
                    false
                }
            },
            None => false,
        };
        drop(locked);
        let earlier = state.unrevoked.take();
        *state = State::default();
        self.forget_everywhere();
        let revoked = match known.or(earlier) {
            Some(session) => {
                let revoked = self.revoke(&session).await;
                if revoked.as_ref().is_err_and(Error::is_retryable) {
                    state.unrevoked = Some(session);
                }
                revoked
            }
            None => Ok(()),
        };
        if !emptied {
            let message = "the session could not be removed from the token store; sign out again";
            return Err(Error::build(ErrorKind::Source, Retry::Later, message).done());
        }
        revoked
    }
}

impl Inner {
    async fn revoke(&self, session: &StoredSession) -> Result<(), Error> {
        match &self.server.endpoints().await?.revocation {
            Some(revocation) => revoke(revocation, session).await,
            None => Ok(()),
        }
    }
}

/// Revokes the refresh token, then the access token: most servers revoke the access token with the
/// refresh token (RFC 7009 §2.1). An error of the first does not skip the second.
async fn revoke(revocation: &TokenEndpoint, session: &StoredSession) -> Result<(), Error> {
    let send = |token: SecretString, hint| async move {
        let mut form = Form::default();
        form.push("token", token.expose_secret());
        form.push("token_type_hint", hint);
        revocation.post(form).await.map(drop)
    };
    let mut revoked = Ok(());
    if let Some(token) = &session.refresh_token {
        revoked = send(token.clone(), "refresh_token").await;
    }
    if let Some(access) = &session.access {
        let access = send(access.token.clone(), "access_token").await;
        revoked = revoked.and(access);
    }
    revoked
}
