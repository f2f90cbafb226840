//! [`TokenStatus`]: a snapshot of a cache's state, for health checks.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{
    lifecycle::{TokenLifetime, Verdict, classify},
    shared::TokenCache,
    state::Snapshot,
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind},
};

/// A snapshot of the state of a [`TokenCache`]: see [`TokenCache::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenStatus {
    /// There is a token, and it has not expired.
    ///
    /// `false` also before the first call for a token, or when the last token expired without traffic.
    /// If a readiness probe uses this field, keep a [`keep_fresh`](TokenCache::keep_fresh) guard:
    /// otherwise a service that is not ready gets no traffic, and never becomes ready.
    pub ready: bool,
    /// When the token expires, if there is one and its expiry is known.
    pub expires_at: Option<SystemTime>,
    /// How much of the token's lifetime is left, if there is one and its expiry is known.
    pub expires_in: Option<Duration>,
    /// A token request is in flight.
    pub fetching: bool,
    /// Why the last token request failed, if it did.
    pub last_error: Option<Error>,
    /// After a failure: how long until the next token request may start.
    pub retry_after: Option<Duration>,
}

impl TokenStatus {
    /// Returns whether the user has to sign in again: no retry can help. A cached token may still be
    /// valid.
    pub fn needs_sign_in(&self) -> bool {
        let error = self.last_error.as_ref();
        error.is_some_and(|error| error.kind() == ErrorKind::SignInRequired)
    }
}

impl TokenCache {
    /// Returns a snapshot of the state, for readiness probes and status pages. Does no I/O, and does
    /// not wait.
    ///
    /// ```
    /// use bearer_auth::TokenCache;
    ///
    /// /// The response of a readiness probe. The program keeps a `cache.keep_fresh()` guard.
    /// fn ready(cache: &TokenCache) -> Result<(), String> {
    ///     let status = cache.status();
    ///     match status.last_error {
    ///         _ if status.ready => Ok(()),
    ///         Some(error) => Err(error.to_string()),
    ///         None => Err("no token yet".to_owned()),
    ///     }
    /// }
    /// ```
    pub fn status(&self) -> TokenStatus {
        status(&self.0.snapshot.load(), self.0.settings.clock.now())
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("status", &self.status())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

fn status(snapshot: &Snapshot, now: Moment) -> TokenStatus {
    let expired = matches!(
        classify(&snapshot.inputs, now, true),
        Verdict::Due { fallback: None }
            | Verdict::BackingOff {
                fallback: false,
                ..
            }
    );
    let blocked = snapshot
        .inputs
        .not_before
        .filter(|_| snapshot.inputs.failed);
    let expires_at = match &snapshot.inputs.token {
        TokenLifetime::Until(schedule) => Some(schedule.expires_at()),
        TokenLifetime::NoToken | TokenLifetime::Unlimited => None,
    };
    TokenStatus {
        ready: !expired,
        expires_at: expires_at.and_then(Moment::system_time),
        expires_in: expires_at.map(|end| now.until(end)),
        fetching: snapshot.flight.is_some(),
        last_error: snapshot.error.clone(),
        retry_after: blocked.map(|until| now.until(until)),
    }
}
