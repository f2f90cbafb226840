//! [`KeyringStore`]: a session in the operating system's keyring.
//!
//! Keyrings know no locks, so a [lock file](super::lock) says who may read, exchange and write. The
//! invariants:
//!
//! - A keyring may ask its owner for a password, and wait for the answer for ever. So it is asked on
//!   a thread of its own, for which nobody waits longer than [`PATIENCE`]: no session does, and no
//!   runtime that ends. It does wait that long for a write.
//! - As long as a question has no answer, no other is asked: neither threads pile up nor windows.
//! - What was begun is finished under the lock: a write holds on to it until it is done, even if
//!   nobody waits for it any more.
//! - Nothing is kept between questions: a keyring that was not there, or is there anew, is found by
//!   the next.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use keyring_core::{Entry, Error as Failure};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::{
    lock::{Held, LockFile, Waiting, blocking},
    token_store::{Locked, LockedSession, TokenStore},
};
use crate::{
    error::BoxError,
    session::stored::{DamagedSession, StoredSession, read_session},
};

/// How long a keyring may take to answer: shorter than a token request, so that a session goes on
/// from memory meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps the session in the keyring of the user who is logged in: the Secret Service (GNOME
/// Keyring, KWallet) on Linux and the BSDs, the login keychain on macOS, the Credential Manager on
/// Windows. Elsewhere, locking it is an error.
///
/// ```no_run
/// use bearer_auth::{AuthorizationCode, store::KeyringStore};
///
/// let lock = "/home/me/.config/app/session.lock";
/// let auth = AuthorizationCode::builder("https://idp.example/authorize", "https://idp.example/token", "client-id")
///     .redirect_uri("https://app.example/callback")
///     .store(KeyringStore::new("app.example", "me", lock))
///     .on_store_error(|error| eprintln!("{error}: {}", error.cause))
///     .build()?;
/// let session = auth.session();
/// # Ok::<(), bearer_auth::ConfigError>(())
/// ```
///
/// Whoever can unlock the keyring can read the session: on Linux and Windows that is every program
/// of the user.
///
/// **Size**: Windows keeps 2560 bytes. A session is its two tokens and about 150 bytes; one that is
/// longer is an error of saving, and is in memory only. Where tokens are that long, use a
/// [`FileStore`](super::FileStore), sealed with a key that is in the keyring, say.
///
/// **Questions**: a keyring that is locked may ask its owner for the password. After 20 s without an
/// answer that is an error, and the session goes on from memory, if it has been read before; the
/// answer is of use to the next attempt.
#[derive(Clone)]
#[must_use]
pub struct KeyringStore {
    keyring: Arc<Keyring>,
    lock: PathBuf,
    waiting: Waiting,
}

/// One entry of it.
struct Keyring {
    service: String,
    user: String,
    open: Box<Open>,
    patience: Duration,
    /// Alive as long as a question is that nobody waits for any more.
    unanswered: Mutex<Weak<()>>,
}

type Open = dyn Fn(&str, &str) -> Result<Entry, Failure> + Send + Sync;

impl KeyringStore {
    /// The session in this entry of the keyring, which need not be there yet: `service` is the
    /// program's own name for what it signs in to, and `user` whom it signs in. Does no I/O.
    ///
    /// `lock` is the path of a file on a disk of this machine, which is made when it is needed,
    /// locked, and never deleted. All processes that share the entry have to name the same one: two
    /// that do not would exchange a refresh token twice, which servers take for theft. So there is
    /// no default, which would come from variables of the environment. A relative path counts from
    /// the current directory of now.
    pub fn new(
        service: impl Into<String>,
        user: impl Into<String>,
        lock: impl AsRef<Path>,
    ) -> Self {
        Self::opened_by(service, user, lock, open, PATIENCE)
    }

    fn opened_by(
        service: impl Into<String>,
        user: impl Into<String>,
        lock: impl AsRef<Path>,
        open: impl Fn(&str, &str) -> Result<Entry, Failure> + Send + Sync + 'static,
        patience: Duration,
    ) -> Self {
        let lock = lock.as_ref();
        Self {
            keyring: Arc::new(Keyring {
                service: service.into(),
                user: user.into(),
                open: Box::new(open),
                patience,
                unanswered: Mutex::default(),
            }),
            lock: std::path::absolute(lock).unwrap_or_else(|_| lock.to_owned()),
            waiting: Waiting::default(),
        }
    }

    /// How long to wait for the lock, before that is an error. Default: 20 s. A holder keeps it
    /// for one token request.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.waiting.patience = timeout;
        self
    }
}

#[cfg(target_os = "macos")]
use apple_native_keyring_store::keychain::Store;
#[cfg(windows)]
use windows_native_keyring_store::Store;
#[cfg(all(unix, not(any(target_vendor = "apple", target_os = "android"))))]
use zbus_secret_service_keyring_store::Store;

#[cfg(any(
    windows,
    target_os = "macos",
    all(unix, not(any(target_vendor = "apple", target_os = "android")))
))]
fn open(service: &str, user: &str) -> Result<Entry, Failure> {
    use keyring_core::api::CredentialStoreApi as _;
    // By default Windows would take it along to the user's other machines, which share no lock.
    let stays = cfg!(windows).then(|| HashMap::from([("persistence", "Local")]));
    Store::new()?.build(service, user, stays.as_ref())
}

#[cfg(not(any(
    windows,
    target_os = "macos",
    all(unix, not(any(target_vendor = "apple", target_os = "android")))
)))]
fn open(_: &str, _: &str) -> Result<Entry, Failure> {
    let why = "no keyring of this system is known here";
    Err(Failure::NotSupportedByStore(why.to_owned()))
}

impl Keyring {
    /// What the entry says to a question; `hold` is held until it does.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        hold: Option<Arc<Held>>,
        question: impl FnOnce(&Entry) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, BoxError> {
        self.check_answered()?;
        let keyring = Arc::clone(self);
        blocking(move || {
            let (tell, told) = mpsc::channel();
            let asking = Arc::new(());
            let asked = Arc::downgrade(&asking);
            let asks = Arc::clone(&keyring);
            let thread = thread::Builder::new().name("keyring".to_owned());
            thread.spawn(move || {
                let entry = (asks.open)(&asks.service, &asks.user);
                let answer = entry.and_then(|entry| question(&entry));
                // In this order: whoever may ask again may lock, too.
                drop(hold);
                drop(asking);
                let _ = tell.send(answer);
            })?;
            match told.recv_timeout(keyring.patience) {
                Ok(answer) => answer.map_err(|failure| keyring.failed(failure)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    *keyring.unanswered() = asked;
                    Err(keyring.silent())
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Err(keyring.error("what asked it has panicked", None))
                }
            }
        })
        .await
    }

    fn unanswered(&self) -> std::sync::MutexGuard<'_, Weak<()>> {
        let unanswered = self.unanswered.lock();
        unanswered.unwrap_or_else(PoisonError::into_inner)
    }

    fn check_answered(&self) -> Result<(), BoxError> {
        match self.unanswered().strong_count() {
            0 => Ok(()),
            _ => Err(self.silent()),
        }
    }

    fn silent(&self) -> BoxError {
        let problem = format!(
            "no answer for {:?}; it may wait for its owner to unlock it",
            self.patience
        );
        self.error(problem, None)
    }

    /// Without what was read, which some of these errors have in them.
    fn failed(&self, failure: Failure) -> BoxError {
        let error = |problem: String| self.error(problem, None);
        match failure {
            Failure::NoStorageAccess(cause) => {
                self.error("locked, or access was denied", Some(cause))
            }
            Failure::PlatformFailure(cause) => self.error("the keyring fails", Some(cause)),
            Failure::BadEncoding(_) | Failure::BadDataFormat(..) => {
                self.damaged("cannot be decoded")
            }
            Failure::TooLong(what, most) if what == "secret" => error(format!(
                "the session is longer than the {most} bytes that this keyring keeps"
            )),
            Failure::TooLong(what, most) => {
                error(format!("{what} is longer than this keyring's {most}"))
            }
            Failure::Invalid(what, why) => error(format!("{what} is invalid: {why}")),
            Failure::Ambiguous(found) => error(format!(
                "there are {} of them; delete those that are not this program's",
                found.len()
            )),
            Failure::BadStoreFormat(why) | Failure::NotSupportedByStore(why) => error(why),
            _ => error("the keyring fails".to_owned()),
        }
    }

    fn damaged(&self, why: &str) -> BoxError {
        DamagedSession::new(self.error(why, None).to_string()).into()
    }

    fn error(&self, problem: impl Into<String>, cause: Option<BoxError>) -> BoxError {
        Box::new(KeyringError {
            entry: format!("`{}` of `{}`", self.user, self.service),
            problem: problem.into(),
            cause,
        })
    }
}

impl TokenStore for KeyringStore {
    type Locked = Locked;

    /// # Errors
    ///
    /// The lock is not free for [`lock_timeout`](KeyringStore::lock_timeout) (the error says which
    /// process holds it), its file cannot be made or used, the keyring has not answered what it was
    /// asked before, service or user are empty, or there is no tokio runtime.
    async fn lock(&self) -> Result<Locked, BoxError> {
        let keyring = Arc::clone(&self.keyring);
        if keyring.service.is_empty() || keyring.user.is_empty() {
            return Err(keyring.error("an entry has a service and a user", None));
        }
        // A write among what is asked has the lock.
        keyring.check_answered()?;
        let held = self.waiting.lock(LockFile::at(&self.lock)?).await?;
        let held = Arc::new(held);
        Ok(Locked::new(LockedKeyring { keyring, held }))
    }
}

/// Without the session, which it has not.
impl fmt::Debug for KeyringStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringStore")
            .field("service", &self.keyring.service)
            .field("user", &self.keyring.user)
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// The session of a [`KeyringStore`], locked.
struct LockedKeyring {
    keyring: Arc<Keyring>,
    held: Arc<Held>,
}

impl LockedSession for LockedKeyring {
    /// # Errors
    ///
    /// The keyring is not there, is locked, does not answer, or has several entries of this name;
    /// or what it has is no session.
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let read = self.keyring.ask(None, |entry| match entry.get_secret() {
            Ok(content) => Ok(Some(Zeroizing::new(content))),
            Err(Failure::NoEntry) => Ok(None),
            Err(failure) => Err(failure),
        });
        let session = read.await?.map(|content| read_session(&content));
        session
            .transpose()
            .map_err(|why| self.keyring.damaged(&why))
    }

    /// # Errors
    ///
    /// The keyring is not there, is locked, or has several entries of this name; the session is
    /// longer than it keeps: the old one is there. Or it does not answer: then it may still write
    /// the new one, and keeps the lock until it has.
    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let json = session.map(StoredSession::to_json).transpose()?;
        let hold = Some(Arc::clone(&self.held));
        let written = self.keyring.ask(hold, move |entry| match json {
            Some(json) => entry.set_secret(json.expose_secret().as_bytes()),
            None => match entry.delete_credential() {
                Err(Failure::NoEntry) => Ok(()),
                deleted => deleted,
            },
        });
        written.await
    }
}

/// An error that names the entry, and shows nothing of its content.
#[derive(Debug)]
struct KeyringError {
    entry: String,
    problem: String,
    cause: Option<BoxError>,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the keyring: {}", self.entry, self.problem)?;
        // Said here, too: many print one line only.
        self.cause
            .iter()
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for KeyringError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
