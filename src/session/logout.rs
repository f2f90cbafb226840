//! The end of a session by its user's will (RFC 7009).
//!
//! Invariants: what is here is forgotten first, and whatever the server says: the store's session,
//! then the tokens in every cache of this process. The session's lock is held for that, so that an
//! exchange that is under way ends before, and what it brought is revoked, too; one that comes
//! later finds nobody signed in. It is free before the server is told, which may take its time.

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
    /// Signs out: forgets the session, in the store and in all caches of this process, and tells
    /// the server to revoke its tokens (RFC 7009) if it has a
    /// [`revocation_url`](crate::AuthorizationCodeBuilder::revocation_url), or its metadata say
    /// where.
    ///
    /// # Errors
    ///
    /// The store still has the session, or the server was not told, so that its tokens have to be
    /// taken for alive until they end: the session is forgotten here all the same. If
    /// [retryable](Error::is_retryable), call it again.
    pub async fn logout(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.0);
        // A caller that goes away does not leave it half done.
        let logout = async move { inner.logout().await };
        detached(logout, "the logout was interrupted", Retry::Later).await
    }
}

impl Inner {
    async fn logout(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let locked = match self.lock().await {
            // Whoever takes so long is too late.
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
        let told = match known.or(earlier) {
            Some(session) => {
                let told = self.revoke(&session).await;
                if told.as_ref().is_err_and(Error::is_retryable) {
                    state.unrevoked = Some(session);
                }
                told
            }
            None => Ok(()),
        };
        if !emptied {
            let message = "the token store would not forget the session";
            return Err(Error::build(ErrorKind::Source, Retry::Later, message).done());
        }
        told
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

/// The refresh token first: with it gone, most servers end the access token as well (RFC 7009
/// §2.1). Both are tried.
async fn revoke(revocation: &TokenEndpoint, session: &StoredSession) -> Result<(), Error> {
    let tell = |token: SecretString, hint| async move {
        let mut form = Form::default();
        form.push("token", token.expose_secret());
        form.push("token_type_hint", hint);
        revocation.tell(form).await.map(drop)
    };
    let mut told = Ok(());
    if let Some(token) = &session.refresh_token {
        told = tell(token.clone(), "refresh_token").await;
    }
    if let Some(access) = &session.access {
        let access = tell(access.token.clone(), "access_token").await;
        told = told.and(access);
    }
    told
}
