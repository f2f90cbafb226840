//! [`State`]: what one process knows of its session, and how that goes together with the store's.

use secrecy::{ExposeSecret as _, SecretString};

use super::stored::StoredSession;

/// Invariant: a session that the store has not taken replaces only what it came from.
#[derive(Default)]
pub(super) struct State {
    /// The session as it was last read or written: it serves on while the store fails.
    pub(super) known: Option<StoredSession>,
    /// The store has not taken that yet, although it is newer than what the store had.
    pub(super) unsaved: bool,
    /// The access token that the store had when this process saw it last: each exchange has its own,
    /// also where the refresh token stays.
    stored: Option<SecretString>,
    /// The store may not know how often that was sent; it is no newer otherwise.
    pub(super) uncounted: bool,
    /// What the server could not be told yet that it is over.
    pub(super) unrevoked: Option<StoredSession>,
}

impl State {
    /// What is known is what the store has.
    pub(super) fn is_stored(&mut self) {
        self.unsaved = false;
        let access = self.known.as_ref().and_then(|known| known.access.as_ref());
        self.stored = access.map(|access| access.token.clone());
    }

    /// The store has `session`.
    pub(super) fn meet(&mut self, mut session: Option<StoredSession>) {
        if self.unsaved && !self.is_replaced_by(session.as_ref()) {
            return;
        }
        if let (Some(session), Some(known)) = (&mut session, &self.known)
            && self.uncounted
            && same(session, known)
        {
            session.sends = session.sends.max(known.sends);
        }
        self.known = session;
        self.is_stored();
    }

    /// Whether the store has gone on without what it has not taken: somebody has signed out, has signed
    /// in anew, or has gone on from what it had. Who was refused that, or has sent it in vain, has not.
    fn is_replaced_by(&self, session: Option<&StoredSession>) -> bool {
        let there = session.and_then(|session| session.access.as_ref());
        match &self.stored {
            Some(stored) => {
                there.is_none_or(|there| there.token.expose_secret() != stored.expose_secret())
            }
            // It began while the store was out of reach.
            None => {
                let known = self.known.as_ref().and_then(|known| known.access.as_ref());
                let both = there.zip(known);
                both.is_some_and(|(there, known)| there.since > known.since)
            }
        }
    }
}

fn same(one: &StoredSession, other: &StoredSession) -> bool {
    match (&one.refresh_token, &other.refresh_token) {
        (Some(one), Some(other)) => one.expose_secret() == other.expose_secret(),
        _ => false,
    }
}
