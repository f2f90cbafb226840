//! The end of a session by its user's will (RFC 7009).
//!
//! Invariants: what is here is forgotten first, and whatever the server says: the store's session,
//! then the tokens in every cache of this process. The session's lock is held for that, so that an
//! exchange that is under way ends before, and what it brought is revoked, too; one that comes
//! later finds nobody signed in. It is free before the server is told, which may take its time.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::store::Session;
use super::{
    refresh::{Inner, NoLock, RefreshToken, StoreOperation},
    state::State,
};
use crate::{
    client::{Form, TokenEndpoint},
    error::{Error, ErrorKind, Retry},
};

impl RefreshToken {
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
        // In a task of its own: whoever goes does not leave it half done.
        let done = tokio::spawn(async move { inner.logout().await });
        done.await.unwrap_or_else(|cause| {
            let message = "the logout was interrupted";
            let error = Error::build(ErrorKind::Interrupted, Retry::Later, message);
            Err(error.interrupted_by(cause).done())
        })
    }
}

impl Inner {
    async fn logout(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let locked = match self.lock().await {
            // Whoever takes so long is too late.
            Err(NoLock::Busy) => self.lock_anew().await,
            locked => locked,
        };
        let mut locked = locked.ok();
        let known = self.load(&mut state, locked.as_deref_mut()).await.ok();
        let emptied = match &mut locked {
            Some(locked) => match locked.save_boxed(None).await {
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
    async fn revoke(&self, session: &Session) -> Result<(), Error> {
        match &self.server.endpoints().await?.revocation {
            Some(revocation) => revoke(revocation, session).await,
            None => Ok(()),
        }
    }
}

/// The refresh token first: with it gone, most servers end the access token as well (RFC 7009
/// §2.1). Both are tried.
async fn revoke(revocation: &TokenEndpoint, session: &Session) -> Result<(), Error> {
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
