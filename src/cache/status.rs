//! [`TokenStatus`]: what a cache knows, for whoever asks.

use std::time::{Duration, SystemTime};

use super::{
    lifecycle::{Held, Verdict, classify},
    state::Snapshot,
};
use crate::{
    clock::Moment,
    error::{Error, ErrorKind},
};

/// What a [`TokenCache`](crate::TokenCache) has: see [`TokenCache::status`](crate::TokenCache::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenStatus {
    /// There is a token, and it has not ended.
    ///
    /// `false` as well when nobody has asked for one yet, or the last one ended while nobody asked.
    /// A service whose traffic depends on a probe that looks here holds
    /// [`keep_fresh`](crate::TokenCache::keep_fresh): otherwise nobody asks because it is not
    /// ready, and it is not ready because nobody asks.
    pub ready: bool,
    /// When the token ends, if there is one and its end is known.
    pub expires_at: Option<SystemTime>,
    /// How much of the token's life is left, if there is one and its end is known.
    pub expires_in: Option<Duration>,
    /// A token request is under way.
    pub fetching: bool,
    /// Why the last token request failed, if it did.
    pub last_error: Option<Error>,
    /// After a failure: how long until the server is asked again, if somebody wants a token then.
    pub retry_after: Option<Duration>,
}

impl TokenStatus {
    /// Nothing but a person can change what it is: they have to sign in again. A token in hand may
    /// still be good.
    pub fn needs_sign_in(&self) -> bool {
        let error = self.last_error.as_ref();
        error.is_some_and(|error| error.kind() == ErrorKind::SignInRequired)
    }
}

pub(super) fn status(snapshot: &Snapshot, now: Moment) -> TokenStatus {
    let over = matches!(
        classify(&snapshot.state, now, true),
        Verdict::Due { fallback: None }
            | Verdict::BackingOff {
                fallback: false,
                ..
            }
    );
    let blocked = snapshot.state.not_before.filter(|_| snapshot.state.failed);
    let expires_at = match &snapshot.state.token {
        Held::Until(schedule) => Some(schedule.expires_at()),
        Held::Nothing | Held::Lasting => None,
    };
    TokenStatus {
        ready: !over,
        expires_at: expires_at.and_then(Moment::system_time),
        expires_in: expires_at.map(|end| now.until(end)),
        fetching: snapshot.flight.is_some(),
        last_error: snapshot.error.clone(),
        retry_after: blocked.map(|until| now.until(until)),
    }
}
