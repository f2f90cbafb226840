//! [`State`]: a session as one process knows it, and how the store's content is merged into it.

use secrecy::{ExposeSecret as _, SecretString};

use super::stored::StoredSession;

/// The session as this process knows it.
///
/// Invariant: an unsaved session overwrites only the stored session that it came from.
#[derive(Default)]
pub(super) struct State {
    /// The session as last read or written. It serves while the store fails.
    pub(super) known: Option<StoredSession>,
    /// `known` could not be written, and is newer than the store's content was.
    pub(super) unsaved: bool,
    /// The store's access token when this process last saw it. It identifies the stored session: each
    /// refresh brings a new access token, even if the refresh token stays the same.
    stored: Option<SecretString>,
    /// `known` differs from the store's content only in the number of sends, which was not written.
    pub(super) uncounted: bool,
    /// The session whose tokens could not be revoked. The next sign-out tries again.
    pub(super) unrevoked: Option<StoredSession>,
}

impl State {
    /// Records that the store's content equals `known`.
    pub(super) fn mark_stored(&mut self) {
        self.unsaved = false;
        let access = self.known.as_ref().and_then(|known| known.access.as_ref());
        self.stored = access.map(|access| access.token.clone());
    }

    /// Merges `session`, which was read from the store. An unsaved session stays unless it is replaced.
    pub(super) fn merge(&mut self, mut session: Option<StoredSession>) {
        if self.unsaved && !self.is_replaced_by(session.as_ref()) {
            return;
        }
        if let (Some(session), Some(known)) = (&mut session, &self.known)
            && self.uncounted
            && same_refresh_token(session, known)
        {
            session.sends = session.sends.max(known.sends);
        }
        self.known = session;
        self.mark_stored();
    }

    /// Whether `session`, the store's content, replaces the unsaved session: the user has signed out or
    /// in again, or another process has refreshed the session. A refusal or a lost answer in another
    /// process leaves the access token in the store, and replaces nothing.
    fn is_replaced_by(&self, session: Option<&StoredSession>) -> bool {
        let in_store = session.and_then(|session| session.access.as_ref());
        match &self.stored {
            Some(last_seen) => in_store
                .is_none_or(|access| access.token.expose_secret() != last_seen.expose_secret()),
            // The session began while the store was unavailable: the later sign-in wins.
            None => {
                let known = self.known.as_ref().and_then(|known| known.access.as_ref());
                let both = in_store.zip(known);
                both.is_some_and(|(in_store, known)| in_store.since > known.since)
            }
        }
    }
}

fn same_refresh_token(one: &StoredSession, other: &StoredSession) -> bool {
    match (&one.refresh_token, &other.refresh_token) {
        (Some(one), Some(other)) => one.expose_secret() == other.expose_secret(),
        _ => false,
    }
}
