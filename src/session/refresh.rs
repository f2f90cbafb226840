//! [`Session`]: a session goes on (RFC 6749 §6).
//!
//! Many servers rotate refresh tokens (RFC 9700 §4.14): each is good for one exchange, its answer
//! brings the next, and a second use of one is taken for theft and ends the session. Hence the
//! invariants:
//!
//! - One exchange at a time: in this process by a mutex, among processes by the store's lock, which
//!   is held from before the session is read until the next one is written.
//! - Written before used: the next refresh token is in the store before the access token is handed
//!   out. If the store fails, it is in memory, and the store is tried again, unless that has another
//!   one by then.
//! - Whoever finds a newer access token in the store than the one it knows uses that, and exchanges
//!   nothing.
//! - An exchange runs in a task of its own: neither a caller who goes nor a time limit ends it
//!   between the server's answer and the store.
//! - A refresh token whose answer was lost is sent once more, and never again, by no process: it
//!   may have been used. That it was sent is in the store before it is. (If the store does not take
//!   that, this process knows.)
//! - A store that says it is busy, at any step before the refresh token is sent, keeps it from being
//!   sent. If it says so afterwards, somebody else has had the lock: if what they have left is
//!   something newer, that counts.
//! - What holds the lock waits for one exchange and nothing else, for a minute at most.

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

/// A signed-in session (RFC 6749 §6): a [`TokenSource`] that renews with a refresh token.
///
/// Made by [`PendingLogin::finish`](crate::PendingLogin::finish), or by
/// [`AuthorizationCode::session`](crate::AuthorizationCode::session) from what a store has. Clones
/// share one session.
///
/// When the session is over (the server refuses the refresh token, or there never was one), the
/// error's kind is [`ErrorKind::SignInRequired`]: the user has to sign in again. An access token in
/// hand serves until it ends. It is also over when the answer to a refresh token was lost twice, by a
/// connection that broke or a server that was silent: the token may have been used. What is refused,
/// or could not be sent, does not count.
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

/// How often a refresh token is sent whose answer is lost.
const MOST_SENDS: u8 = 2;

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

    /// A session begins: it replaces what the store has.
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
            // Somebody has signed in after that.
            state.unsaved = false;
        }
    }
}

/// Why there is no lock.
pub(super) enum NoLock {
    /// Somebody has it, and may be sending the refresh token.
    Busy,
    /// The store fails, and the session goes on without.
    Broken,
}

/// What became of a session in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    Yes,
    /// The store fails, or there is no lock.
    No,
    /// Somebody else may be sending the refresh token.
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
                state.is_stored();
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

    /// As [`save`](Self::save), when nothing but the number of sends is new: another process may
    /// have a newer session for the store, so that it is read again all the same.
    async fn count(
        &self,
        state: &mut State,
        locked: Option<&mut Locked>,
        session: StoredSession,
    ) -> Saved {
        let newer = state.unsaved;
        let saved = self.save(state, locked, session).await;
        state.uncounted = state.unsaved;
        state.unsaved = state.unsaved && newer;
        saved
    }

    /// The session, as far as it is known: what the store would not take is newer than what it had
    /// then, and if the store fails, there is what it had.
    pub(super) async fn load(
        &self,
        state: &mut State,
        locked: Option<&mut Locked>,
    ) -> Result<StoredSession, Error> {
        let missing = match locked {
            Some(locked) => match locked.load().await {
                Ok(session) => {
                    state.meet(session);
                    required("there is no session: nobody is signed in")
                }
                Err(cause) => {
                    let (busy, damaged) = (cause.is::<BusyStore>(), cause.is::<DamagedSession>());
                    self.warn(StoreOperation::Load, cause);
                    if busy {
                        return Err(store_is_busy());
                    }
                    if damaged {
                        required("what the token store has is no session: sign in again")
                    } else {
                        store_fails()
                    }
                }
            },
            None => store_fails(),
        };
        state.known.clone().ok_or(missing)
    }

    async fn renew(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let mut endpoints = self.server.endpoints_at_hand();
        loop {
            let renewed = self.renew_at(endpoints.as_deref(), &request).await?;
            if let Some(response) = renewed {
                return Ok(response);
            }
            // Without the lock, and before anything is sent.
            endpoints = Some(self.server.endpoints().await?);
        }
    }

    /// `None`: the endpoints are needed.
    async fn renew_at(
        &self,
        endpoints: Option<&Endpoints>,
        request: &TokenRequest,
    ) -> Result<Option<TokenResponse>, Error> {
        let mut state = self.state.lock().await;
        let mut locked = match self.lock().await {
            Err(NoLock::Busy) => {
                // What nobody else has serves without the store.
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
                "the session has ended, and the server gave no refresh token",
            ));
        };
        if session.sends >= MOST_SENDS {
            let message = "the answer to a refresh token was lost twice: it may have been used";
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
        let counted = self.count(&mut state, locked.as_mut(), sent).await;
        if counted == Saved::Busy {
            // Nothing is sent, so nothing is to be counted. It may be written there all the same.
            self.count(&mut state, locked.as_mut(), session).await;
            (state.unsaved, state.uncounted) = before;
            return Err(store_is_busy());
        }
        match self.exchange(&refresh_token, &endpoints.token).await {
            Ok(response) => {
                let next = StoredSession {
                    // None comes back: the old one stays good (RFC 6749 §6).
                    refresh_token: response.refresh_token().cloned().or(Some(refresh_token)),
                    sends: 0,
                    access: Some(StoredAccess::of(&response, Clock::default().now())),
                };
                // A store that is busy has lost the lock: the next question shows who has the newer one.
                self.save(&mut state, locked.as_mut(), next).await;
                Ok(Some(response))
            }
            // A refusal, or nothing sent: this time it has not been used up.
            Err(error) if !may_have_been_used(&error) => {
                let refusal = refusal(&error);
                if matches!(refusal, Some(Refusal::Said)) {
                    // Nobody is to send it again, in no process.
                    let over = StoredSession {
                        refresh_token: None,
                        sends: 0,
                        ..session
                    };
                    let saved = self.save(&mut state, locked.as_mut(), over).await;
                    if saved == Saved::Busy {
                        // The session goes on: it is another that was refused.
                        (state.unsaved, state.uncounted) = (false, false);
                        return Err(store_is_busy());
                    }
                } else {
                    self.count(&mut state, locked.as_mut(), session).await;
                }
                if refusal.is_none() {
                    return Err(error);
                }
                let message = "the server refuses to go on with the session: sign in again";
                let required = Error::build(ErrorKind::SignInRequired, Retry::Never, message);
                Err(required.caused_by(error).done())
            }
            Err(error) => Err(error),
        }
    }

    async fn exchange(
        &self,
        refresh_token: &SecretString,
        endpoint: &TokenEndpoint,
    ) -> Result<TokenResponse, Error> {
        let mut form = Form::default();
        form.push("grant_type", "refresh_token");
        form.push("refresh_token", refresh_token.expose_secret());
        form.push("scope", self.scope.as_deref().unwrap_or_default());
        endpoint.ask_briefly(form).await
    }
}

impl TokenSource for Session {
    async fn fetch(&self, request: TokenRequest) -> Result<TokenResponse, Error> {
        let inner = Arc::clone(&self.0);
        // Neither a caller that goes away nor a time limit ends it halfway.
        let exchange = async move { inner.renew(request).await };
        let interrupted = "the exchange of the refresh token was interrupted";
        detached(exchange, interrupted, Retry::Later).await
    }

    fn on_attach(&self, cache: WeakTokenCache) {
        let mut caches = self.0.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(WeakTokenCache::is_alive);
        caches.push(cache);
    }
}

impl Inner {
    /// In the caches of this process.
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

/// Whether an access token of the store is of use to a cache that asks for one: another one than
/// the cache has, and not over.
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

/// A server's no to a session.
enum Refusal {
    /// `invalid_grant` (RFC 6749 §5.2).
    Said,
    /// The status that goes with it, and not a word. It may be something in between that says so:
    /// the session is kept, for as long as nobody signs in anew.
    Silent,
}

fn refusal(error: &Error) -> Option<Refusal> {
    match error.oauth_error().map(OAuthError::code) {
        Some(OAuthErrorCode::InvalidGrant) => Some(Refusal::Said),
        None if error.status() == Some(StatusCode::BAD_REQUEST) => Some(Refusal::Silent),
        _ => None,
    }
}

/// Whether the server may have taken the refresh token, and what it gave for it is lost: there was
/// no answer, or one that cannot be made use of.
fn may_have_been_used(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Transport
            | ErrorKind::Timeout
            | ErrorKind::InvalidResponse
            | ErrorKind::UnsupportedTokenType
    )
}

/// Whoever is signed in is so still, once the store works again.
fn store_fails() -> Error {
    let message = "the token store fails, and no session is in memory";
    Error::build(ErrorKind::Source, Retry::Later, message).done()
}

fn store_is_busy() -> Error {
    let message = "the token store is busy: somebody else may be renewing the session";
    Error::build(ErrorKind::Source, Retry::Later, message).done()
}

fn required(message: &'static str) -> Error {
    Error::build(ErrorKind::SignInRequired, Retry::Never, message).done()
}
