//! [`KeyringStore`]: a session in the operating system's keyring.
//!
//! Keyrings have no locks, so a [lock file](super::lock) decides which process may read, refresh and
//! write. Invariants:
//!
//! 1. A keyring may ask the user for a password, and wait without limit. Each call runs on a thread of
//!    its own: neither a session nor a runtime that shuts down waits for it longer than
//!    [`ANSWER_TIMEOUT`].
//! 2. While a call is unanswered, no other is made: neither threads nor password prompts pile up.
//! 3. A write keeps the lock until it is done, even if its caller has given up.
//! 4. Nothing is kept between calls: the next call finds a keyring that has come up or was restarted.

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
    lock::{Held, LockFile, LockQueue, blocking},
    token_store::{Locked, LockedSession, TokenStore},
};
use crate::{
    error::BoxError,
    session::stored::{DamagedSession, StoredSession, read_session},
};

/// How long a keyring may take to answer: less than a token request, so that the session can continue
/// from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A store in the keyring of the current user: the Secret Service (GNOME Keyring, KWallet) on Linux and
/// the BSDs, the login keychain on macOS, the Credential Manager on Windows. On other systems, locking
/// it is an error.
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
/// Every program that can unlock the keyring can read the session: on Linux and Windows, all programs
/// of the user.
///
/// **Size**: Windows stores 2560 bytes. A session has its two tokens and about 150 bytes. Saving a
/// longer one is an error, and the session stays in memory only. For longer tokens use a
/// [`FileStore`](super::FileStore), for example sealed with a key from the keyring.
///
/// **Password prompts**: a locked keyring may ask the user for the password. After 20 s without an
/// answer the call is an error, and a session that was read before continues from memory. Once the
/// keyring is unlocked, the next call succeeds.
#[derive(Clone)]
#[must_use]
pub struct KeyringStore {
    keyring: Arc<Keyring>,
    lock: PathBuf,
    queue: LockQueue,
}

/// One entry of the keyring.
struct Keyring {
    service: String,
    user: String,
    open: Box<Open>,
    timeout: Duration,
    /// Alive while a call that has timed out is still unanswered.
    unanswered: Mutex<Weak<()>>,
}

type Open = dyn Fn(&str, &str) -> Result<Entry, Failure> + Send + Sync;

impl KeyringStore {
    /// Returns the store of one entry of the keyring, which need not exist yet. `service` is the
    /// program's name for the service that the user signs in to, `user` its name for the user. Does no
    /// I/O.
    ///
    /// `lock` is the path of a lock file on a local disk. The file is created when needed, and never
    /// deleted. All processes that share the entry must use the same path: otherwise two of them could
    /// send one refresh token, which servers take for theft. There is no default, since it would depend
    /// on environment variables. A relative path is resolved now, against the current directory.
    pub fn new(
        service: impl Into<String>,
        user: impl Into<String>,
        lock: impl AsRef<Path>,
    ) -> Self {
        Self::opened_by(service, user, lock, open, ANSWER_TIMEOUT)
    }

    fn opened_by(
        service: impl Into<String>,
        user: impl Into<String>,
        lock: impl AsRef<Path>,
        open: impl Fn(&str, &str) -> Result<Entry, Failure> + Send + Sync + 'static,
        timeout: Duration,
    ) -> Self {
        let lock = lock.as_ref();
        Self {
            keyring: Arc::new(Keyring {
                service: service.into(),
                user: user.into(),
                open: Box::new(open),
                timeout,
                unanswered: Mutex::default(),
            }),
            lock: std::path::absolute(lock).unwrap_or_else(|_| lock.to_owned()),
            queue: LockQueue::default(),
        }
    }

    /// Sets how long to wait for the lock before that is an error. Defaults to 20 s. A lock holder
    /// keeps the lock for one token request.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.queue.timeout = timeout;
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
    // Windows' default copies the entry to the user's other machines, which do not share the lock.
    let local = cfg!(windows).then(|| HashMap::from([("persistence", "Local")]));
    Store::new()?.build(service, user, local.as_ref())
}

#[cfg(not(any(
    windows,
    target_os = "macos",
    all(unix, not(any(target_vendor = "apple", target_os = "android")))
)))]
fn open(_: &str, _: &str) -> Result<Entry, Failure> {
    let why = "no keyring is supported on this system";
    Err(Failure::NotSupportedByStore(why.to_owned()))
}

impl Keyring {
    /// Makes a call to the entry. `held` keeps the lock until the call is answered.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        held: Option<Arc<Held>>,
        call: impl FnOnce(&Entry) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, BoxError> {
        self.check_answered()?;
        let keyring = Arc::clone(self);
        blocking(move || {
            let (sender, receiver) = mpsc::channel();
            let in_flight = Arc::new(());
            let unanswered = Arc::downgrade(&in_flight);
            let caller = Arc::clone(&keyring);
            let thread = thread::Builder::new().name("keyring".to_owned());
            thread.spawn(move || {
                let entry = (caller.open)(&caller.service, &caller.user);
                let answer = entry.and_then(|entry| call(&entry));
                // In this order: once the next call is allowed, the lock is free.
                drop(held);
                drop(in_flight);
                let _ = sender.send(answer);
            })?;
            match receiver.recv_timeout(keyring.timeout) {
                Ok(answer) => answer.map_err(|failure| keyring.failed(failure)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    *keyring.unanswered() = unanswered;
                    Err(keyring.no_answer())
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    Err(keyring.error("the keyring's library panicked", None))
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
            _ => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> BoxError {
        let problem = format!(
            "no answer for {:?}: the keyring may be waiting for its password",
            self.timeout
        );
        self.error(problem, None)
    }

    /// Some failures contain the secret that was read: their content is left out.
    fn failed(&self, failure: Failure) -> BoxError {
        let error = |problem: String| self.error(problem, None);
        match failure {
            Failure::NoStorageAccess(cause) => {
                self.error("locked, or access was denied", Some(cause))
            }
            Failure::PlatformFailure(cause) => self.error("the keyring failed", Some(cause)),
            Failure::BadEncoding(_) | Failure::BadDataFormat(..) => {
                self.damaged("cannot be decoded")
            }
            Failure::TooLong(what, most) if what == "secret" => error(format!(
                "the session is longer than the {most} bytes that this keyring can store; \
                 use a `FileStore`"
            )),
            Failure::TooLong(what, most) => error(format!(
                "{what} is longer than the limit of this keyring ({most})"
            )),
            Failure::Invalid(what, why) => error(format!("{what} is invalid: {why}")),
            Failure::Ambiguous(found) => error(format!(
                "there are {} entries of this name; delete those of other programs",
                found.len()
            )),
            Failure::BadStoreFormat(why) | Failure::NotSupportedByStore(why) => error(why),
            _ => error("the keyring failed".to_owned()),
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
    /// The lock was not free within [`lock_timeout`](KeyringStore::lock_timeout) (the error names the
    /// process that has it), the lock file cannot be created or used, an earlier call to the keyring is
    /// still unanswered, the service or the user is empty, or there is no tokio runtime.
    async fn lock(&self) -> Result<Locked, BoxError> {
        let keyring = Arc::clone(&self.keyring);
        if keyring.service.is_empty() || keyring.user.is_empty() {
            return Err(keyring.error("an entry needs a service and a user", None));
        }
        // An unanswered write still has the lock: do not wait for it.
        keyring.check_answered()?;
        let held = self.queue.lock(LockFile::at(&self.lock)?).await?;
        let held = Arc::new(held);
        Ok(Locked::new(LockedKeyring { keyring, held }))
    }
}

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
    /// The keyring is missing, is locked, does not answer, or has several entries of this name; or the
    /// entry's content is not a session.
    async fn load(&mut self) -> Result<Option<StoredSession>, BoxError> {
        let read = self.keyring.call(None, |entry| match entry.get_secret() {
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
    /// - The keyring is missing, is locked, or has several entries of this name; or the session is too
    ///   long. The old session is still there.
    /// - The keyring does not answer. It may still write the new session, and the lock is kept until
    ///   then.
    async fn save(&mut self, session: Option<&StoredSession>) -> Result<(), BoxError> {
        let json = session.map(StoredSession::to_json).transpose()?;
        let held = Some(Arc::clone(&self.held));
        let written = self.keyring.call(held, move |entry| match json {
            Some(json) => entry.set_secret(json.expose_secret().as_bytes()),
            None => match entry.delete_credential() {
                Err(Failure::NoEntry) => Ok(()),
                deleted => deleted,
            },
        });
        written.await
    }
}

/// An error that names the entry and shows none of its content.
#[derive(Debug)]
struct KeyringError {
    entry: String,
    problem: String,
    cause: Option<BoxError>,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the keyring: {}", self.entry, self.problem)?;
        // The cause is part of the text, too: many programs log only that.
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
