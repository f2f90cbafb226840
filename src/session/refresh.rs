//! [`Session`]: a session, refreshed with its refresh token (RFC 6749 §6).
//!
//! Many servers rotate refresh tokens (RFC 9700 §4.14): each answer brings the next refresh token, and
//! a second use of the old one counts as theft and ends the session. Hence the invariants:
//!
//! 1. One refresh at a time: in this process by a mutex, among processes by the store's lock. The lock
//!    is held from before the session is read until its successor is written.
//! 2. Written before used: the next refresh token is in the store before the access token is returned.
//!    If the store fails, the session stays in memory. It is written later, unless the store has
//!    another session by then.
//! 3. If the store has a newer access token than the caller, that token is returned, and no refresh
//!    token is sent.
//! 4. A refresh runs in a task of its own. Neither a cancelled caller nor a time limit ends it between
//!    the server's answer and the write.
//! 5. A refresh token whose answer was lost may have been used: it is sent once more, and no process
//!    sends it a third time. The number of sends is written before each send, or kept in memory if the
//!    store fails.
//! 6. While the store is busy, no refresh token is sent. If the store is busy after a send, another
//!    process has had the lock, and its session wins if it is newer.
//! 7. The lock holder waits for one token request and nothing else, for a minute at most.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::{
    state::State,
    store::{
        BusyStore, ErasedStore, Locked, LockedSession as _, OnStoreError, StoreError,
        StoreOperation,
    },
    stored::{DamagedSession, StoredAccess, StoredSession},
};
use crate::{
    client::{Endpoints, Form, Server, TokenEndpoint},
    clock::Clock,
    detached::detached,
    error::{BoxError, Error, ErrorKind, OAuthError, OAuthErrorCode, Retry},
    token::{AccessToken, TokenRequest, TokenResponse, TokenSource, WeakTokenCache},
};

/// The session of a signed-in user: a [`TokenSource`] that sends a refresh token (RFC 6749 §6).
///
/// [`PendingLogin::finish`](crate::PendingLogin::finish) returns a new session,
/// [`AuthorizationCode::session`](crate::AuthorizationCode::session) the one in the configured store.
/// Clones share one session.
///
/// An error of kind [`ErrorKind::SignInRequired`] means that there is no session, or that it has ended:
/// the user has to sign in. A cached access token serves until it expires. A session ends when
///
/// - the server rejects the refresh token, or has issued none,
/// - two answers to a refresh token are lost (a broken connection, a timeout): it may have been used.
///   A request that was refused, or could not be sent, does not count.
#[derive(Clone)]
pub struct Session(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) server: Arc<Server>,
    scope: Option<String>,
    pub(super) store: Arc<dyn ErasedStore>,
    /// Called when the store fails.
    warn: OnStoreError,
    pub(super) state: Mutex<State>,
    pub(super) caches: std::sync::Mutex<Vec<WeakTokenCache>>,
}

/// How often a refresh token is sent if its answers are lost.
const MAX_SENDS: u8 = 2;

impl Session {
    pub(crate) fn new(
        server: Arc<Server>,
        scope: Option<String>,
        store: Arc<dyn ErasedStore>,
        warn: OnStoreError,
    ) -> Self {
        Self(Arc::new(Inner {
            caches: std::sync::Mutex::default(),
            server,
            scope,
            store,
            warn,
            state: Mutex::default(),
        }))
    }

    /// Begins a session, which replaces the store's content.
    pub(crate) async fn begin(&self, response: &TokenResponse) {
        let session = StoredSession {
            refresh_token: response.refresh_token().cloned(),
            sends: 0,
            access: Some(StoredAccess::of(response, Clock::default().now())),
        };
        let mut state = self.0.state.lock().await;
        let mut locked = self.0.take_over().await.ok();
        let saving = self.0.save(&mut state, locked.as_mut(), session);
        if saving.await == Saved::Busy {
            // A later sign-in has taken the lock over.
            state.unsaved = false;
        }
    }
}

/// Why the lock could not be taken.
pub(super) enum NoLock {
    /// Another process has it, and may be sending the refresh token.
    Busy,
    /// The store failed. The session continues without it.
    Broken,
}

/// Whether a session was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    Yes,
    /// The store failed, or there is no lock.
    No,
    /// Another process may be sending the refresh token.
    Busy,
}

impl Inner {
    pub(super) async fn lock(&self) -> Result<Locked, NoLock> {
        self.locked(self.store.lock_boxed().await)
    }

    pub(super) async fn take_over(&self) -> Result<Locked, NoLock> {
        self.locked(self.store.take_over_boxed().await)
    }

    fn locked<T>(&self, locked: Result<T, BoxError>) -> Result<T, NoLock> {
        locked.map_err(|cause| {
            let why = match cause.is::<BusyStore>() {
                true => NoLock::Busy,
                false => NoLock::Broken,
            };
            self.warn(StoreOperation::Lock, cause);
            why
        })
    }

    pub(super) fn warn(&self, operation: StoreOperation, cause: BoxError) {
        (self.warn)(&StoreError::new(operation, cause));
    }

    async fn save(
        &self,
        state: &mut State,
        locked: Option<&mut Locked>,
        session: StoredSession,
    ) -> Saved {
        state.known = Some(session);
        state.unsaved = true;
        let Some(locked) = locked else {
            return Saved::No;
        };
        match locked.save(state.known.as_ref()).await {
            Ok(()) => {
                state.mark_stored();
                state.uncounted = false;
                Saved::Yes
            }
            Err(cause) => {
                let busy = cause.is::<BusyStore>();
                self.warn(StoreOperation::Save, cause);
                if busy { Saved::Busy } else { Saved::No }
            }
        }
    }

    /// Like [`save`](Self::save), if only the number of sends has changed. That does not set
    /// `unsaved`: another process may write a newer session, and the next load has to see it.
    async fn save_sends(
        &self,
        state: &mut State,
        locked: Option<&mut Locked>,
        session: StoredSession,
    ) -> Saved {
        let was_unsaved = state.unsaved;
        let saved = self.save(state, locked, session).await;
        state.uncounted = state.unsaved;
        state.unsaved = state.unsaved && was_unsaved;
        saved
    }

    /// Returns the store's session, or an unsaved one that is newer. If the store fails, returns the
    /// session as last known.
    pub(super) async fn load(
        &self,
        state: &mut State,
        locked: Option<&mut Locked>,
    ) -> Result<StoredSession, Error> {
        let missing = match locked {
            Some(locked) => match locked.load().await {
                Ok(session) => {
                    state.merge(session);
                    required("no session in the token store; the user must sign in")
                }
                Err(cause) => {
                    let (busy, damaged) = (cause.is::<BusyStore>(), cause.is::<DamagedSession>());
                    self.warn(StoreOperation::Load, cause);
                    if busy {
                        return Err(store_is_busy());
                    }
                    if damaged {
                        let message = "the token store's content is not a session; \
                                       the user must sign in again";
                        required(message)
                    } else {
                        store_failed()
                    }
                }
            },
            None => store_failed(),
        };
        state.known.clone().ok_or(missing)
    }

    async fn refresh(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let mut endpoints = self.server.cached_endpoints();
        loop {
            let response = self.refresh_at(endpoints.as_deref(), &request).await?;
            if let Some(response) = response {
                return Ok(response);
            }
            // Metadata are fetched without the lock, and before the refresh token is sent.
            endpoints = Some(self.server.endpoints().await?);
        }
    }

    /// Returns `None` if a refresh is due and the endpoints are unknown.
    async fn refresh_at(
        &self,
        endpoints: Option<&Endpoints>,
        request: &TokenRequest,
    ) -> Result<Option<TokenResponse>, Error> {
        let mut state = self.state.lock().await;
        let mut locked = match self.lock().await {
            Err(NoLock::Busy) => {
                // An unsaved session is known to this process alone: its access token serves.
                let own = state.known.as_ref().filter(|_| state.unsaved);
                let own = own.and_then(|own| own.access.as_ref());
                let own = own.filter(|own| is_newer(own, request));
                let own = own.map(StoredAccess::response).transpose()?;
                return own.map(Some).ok_or_else(store_is_busy);
            }
            locked => locked.ok(),
        };
        let session = self.load(&mut state, locked.as_mut()).await?;
        if let Some(access) = session.access.as_ref().filter(|a| is_newer(a, request)) {
            if state.unsaved {
                self.save(&mut state, locked.as_mut(), session.clone())
                    .await;
            }
            return access.response().map(Some);
        }
        let Some(refresh_token) = session.refresh_token.clone() else {
            return Err(required(
                "the session has no refresh token; the user must sign in again",
            ));
        };
        if session.sends >= MAX_SENDS {
            let message = "two answers to the refresh token were lost, so it may have been used; \
                           the user must sign in again";
            return Err(required(message));
        }
        let Some(endpoints) = endpoints else {
            return Ok(None);
        };
        let sent = StoredSession {
            sends: session.sends + 1,
            ..session.clone()
        };
        let before = (state.unsaved, state.uncounted);
        let counted = self.save_sends(&mut state, locked.as_mut(), sent).await;
        if counted == Saved::Busy {
            // The refresh token is not sent: undo the count, which the store may have written.
            self.save_sends(&mut state, locked.as_mut(), session).await;
            (state.unsaved, state.uncounted) = before;
            return Err(store_is_busy());
        }
        match self.send(&refresh_token, &endpoints.token).await {
            Ok(response) => {
                let next = StoredSession {
                    // An answer without a refresh token: the old one stays valid (RFC 6749 §6).
                    refresh_token: response.refresh_token().cloned().or(Some(refresh_token)),
                    sends: 0,
                    access: Some(StoredAccess::of(&response, Clock::default().now())),
                };
                // If the store is busy, the lock was lost: the next load decides which is newer.
                self.save(&mut state, locked.as_mut(), next).await;
                Ok(Some(response))
            }
            // The server refused, or nothing was sent: the refresh token was not used.
            Err(error) if !may_have_been_used(&error) => {
                let refusal = refusal(&error);
                if matches!(refusal, Some(Refusal::InvalidGrant)) {
                    // No process may send it again.
                    let ended = StoredSession {
                        refresh_token: None,
                        sends: 0,
                        ..session
                    };
                    let saved = self.save(&mut state, locked.as_mut(), ended).await;
                    if saved == Saved::Busy {
                        // The lock was lost: the store may have a session that was not refused.
                        (state.unsaved, state.uncounted) = (false, false);
                        return Err(store_is_busy());
                    }
                } else {
                    self.save_sends(&mut state, locked.as_mut(), session).await;
                }
                if refusal.is_none() {
                    return Err(error);
                }
                let message = "the server rejected the refresh token; the user must sign in again";
                let required = Error::build(ErrorKind::SignInRequired, Retry::Never, message);
                Err(required.caused_by(error).done())
            }
            Err(error) => Err(error),
        }
    }

    async fn send(
        &self,
        refresh_token: &SecretString,
        endpoint: &TokenEndpoint,
    ) -> Result<TokenResponse, Error> {
        let mut form = Form::default();
        form.push("grant_type", "refresh_token");
        form.push("refresh_token", refresh_token.expose_secret());
        form.push("scope", self.scope.as_deref().unwrap_or_default());
        endpoint.request_token_limited(form).await
    }
}

impl TokenSource for Session {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let inner = Arc::clone(&self.0);
        let refresh = async move { inner.refresh(request).await };
        let interrupted = "the refresh of the session was interrupted";
        detached(refresh, interrupted, Retry::Later).await
    }

    fn on_attach(&self, cache: WeakTokenCache) {
        let mut caches = self.0.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(WeakTokenCache::is_alive);
        caches.push(cache);
    }
}

impl Inner {
    /// Removes the tokens from all caches of this process.
    pub(super) fn forget_everywhere(&self) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(WeakTokenCache::is_alive);
        for cache in caches.iter() {
            cache.forget();
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.0.server)
            .field("scope", &self.0.scope)
            .finish_non_exhaustive()
    }
}

/// Whether a stored access token answers `request`: the cache does not have it, and it has not expired.
fn is_newer(access: &StoredAccess, request: &TokenRequest) -> bool {
    let known = [&request.previous, &request.rejected];
    let known = known.into_iter().flatten();
    let is_other = known
        .map(AccessToken::expose_secret)
        .all(|known| known != access.token.expose_secret());
    let lives = access
        .expires_at
        .is_none_or(|end| Clock::default().system_time() < end);
    is_other && lives
}

/// How a server refuses a refresh token.
enum Refusal {
    /// `invalid_grant` (RFC 6749 §5.2).
    InvalidGrant,
    /// Status 400 without an OAuth error. A proxy may have sent it: the refresh token is kept until the
    /// user signs in again.
    StatusOnly,
}

fn refusal(error: &Error) -> Option<Refusal> {
    match error.oauth_error().map(OAuthError::code) {
        Some(OAuthErrorCode::InvalidGrant) => Some(Refusal::InvalidGrant),
        None if error.status() == Some(StatusCode::BAD_REQUEST) => Some(Refusal::StatusOnly),
        _ => None,
    }
}

/// Whether the server may have used the refresh token although there is no usable answer.
fn may_have_been_used(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Transport
            | ErrorKind::Timeout
            | ErrorKind::InvalidResponse
            | ErrorKind::UnsupportedTokenType
    )
}

/// Retryable: the session is still there once the store works again.
fn store_failed() -> Error {
    let message = "the token store failed, and no session is in memory";
    Error::build(ErrorKind::Source, Retry::Later, message).done()
}

fn store_is_busy() -> Error {
    let message = "the token store is busy: another process may be refreshing the session";
    Error::build(ErrorKind::Source, Retry::Later, message).done()
}

fn required(message: &'static str) -> Error {
    Error::build(ErrorKind::SignInRequired, Retry::Never, message).done()
}
