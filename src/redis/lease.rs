//! [`Lease`]: the right of one process to request a token and to write it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use tokio::{runtime::Handle, task::JoinHandle};
use zeroize::Zeroizing;

use super::{
    entry::{Entry, FAILED, Holder, millis},
    scripts::{EXTEND, RELEASE, TAKE, WRITE},
};
use crate::{
    clock::{Clock, Moment},
    error::BoxError,
};

/// How often a lease is extended in the time that it lasts.
const EXTENSIONS: u32 = 3;

/// A lease that this process has taken. Dropping it releases the lease; after a crash it expires.
pub(super) struct Lease {
    entry: Entry,
    owner: String,
    generation: String,
    /// The task that extends the lease.
    extending: JoinHandle<()>,
    lost: Arc<AtomicBool>,
    /// When the lease was taken, by Redis's clock: the time since 1970.
    taken: Duration,
    /// When the lease was taken, by the clock of this process.
    since: Moment,
    released: bool,
}

/// The result of [`take`].
pub(super) enum Taking {
    Taken(Lease),
    /// The value has changed since it was seen.
    Changed,
    Held(Holder),
}

/// Takes the lease of an entry. With `seen`, only if the value still has that generation. With `from`,
/// also if that holder has the lease.
pub(super) async fn take(
    entry: &Entry,
    seen: Option<&str>,
    from: Option<&Holder>,
) -> Result<Taking, BoxError> {
    let owner = format!("{:032x}", rand::rng().random::<u128>());
    let mut script = entry.script(&TAKE);
    script
        .arg(&owner)
        .arg(millis(entry.lease()))
        .arg(seen.unwrap_or_default())
        .arg(from.map_or("", Holder::name));
    let orphan = Orphan::new(entry, &owner);
    let (what, generation, name, left): (String, String, String, i64) = entry.run(&script).await?;
    orphan.disarm();
    let left = Duration::from_millis(left.max(0).unsigned_abs());
    Ok(match what.as_str() {
        "taken" => Taking::Taken(Lease::new(entry.clone(), owner, generation, left)),
        "changed" => Taking::Changed,
        _ => Taking::Held(Holder::new(name, left)),
    })
}

/// A lease that Redis may have granted although the answer was lost. Dropping it releases the lease.
struct Orphan(Option<(Entry, String)>);

impl Orphan {
    fn new(entry: &Entry, owner: &str) -> Self {
        Self(Some((entry.clone(), owner.to_owned())))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let (Some((entry, owner)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(release(entry, owner, None));
        }
    }
}

impl Lease {
    fn new(entry: Entry, owner: String, generation: String, taken: Duration) -> Self {
        let lost = Arc::new(AtomicBool::new(false));
        let extending = tokio::spawn(extend(entry.clone(), owner.clone(), Arc::clone(&lost)));
        Self {
            taken,
            since: entry.clock().now(),
            entry,
            owner,
            generation,
            extending,
            lost,
            released: false,
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        self.entry.clock()
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.entry.sleep(duration).await;
    }

    /// Whether the lease is lost, as far as this process knows.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes the value, with a TTL of `left` if there is one. Returns whether it was written: not if
    /// there is a newer value, or, `while_held`, if the lease was lost.
    pub(super) async fn write(
        &self,
        clear: &[u8],
        left: Option<Duration>,
        while_held: bool,
    ) -> Result<bool, BoxError> {
        let value = match clear.is_empty() {
            true => Zeroizing::default(),
            false => self.entry.seal(clear)?,
        };
        let mut script = self.entry.script(&WRITE);
        script
            .arg(&self.owner)
            .arg(&self.generation)
            .arg(value.as_slice())
            .arg(left.map_or(0, |left| self.time(left)))
            .arg(u8::from(while_held));
        self.entry.run(&script).await
    }

    /// Returns the time `from_now` by Redis's clock, in milliseconds. It is absolute, so that a late
    /// write does not extend the value's lifetime.
    fn time(&self, from_now: Duration) -> u64 {
        let held = self.entry.clock().now().since(self.since);
        let time = self.taken.saturating_add(held).saturating_add(from_now);
        // Redis's integers are signed.
        millis(time).clamp(1, i64::MAX.unsigned_abs())
    }

    /// Releases the lease. With `why`, no process gets it for that duration, and all that try get the
    /// text.
    pub(super) async fn release(mut self, why: Option<(&str, Duration)>) {
        self.released = true;
        self.extending.abort();
        release(self.entry.clone(), self.owner.clone(), why).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.extending.abort();
        // Without this, other processes wait until the lease expires.
        if !self.released
            && let Ok(runtime) = Handle::try_current()
        {
            let (entry, owner) = (self.entry.clone(), std::mem::take(&mut self.owner));
            runtime.spawn(release(entry, owner, None));
        }
    }
}

async fn extend(entry: Entry, owner: String, lost: Arc<AtomicBool>) {
    let mut script = entry.script(&EXTEND);
    script.arg(&owner).arg(millis(entry.lease()));
    let mut since = entry.clock().now();
    while !lost.load(Ordering::Relaxed) {
        entry.sleep(entry.lease() / EXTENSIONS).await;
        let now = entry.clock().now();
        let own: Result<bool, BoxError> = entry.run(&script).await;
        match own {
            Ok(true) => since = now,
            Ok(false) => lost.store(true, Ordering::Relaxed),
            Err(_) if entry.clock().now().since(since) >= entry.lease() => {
                lost.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }
}

fn release(
    entry: Entry,
    owner: String,
    why: Option<(&str, Duration)>,
) -> impl Future<Output = ()> + Send + 'static {
    let (why, pause) = why.unwrap_or_default();
    let why = format!("{FAILED}{why}");
    async move {
        let mut script = entry.script(&RELEASE);
        script.arg(&owner).arg(millis(pause)).arg(&why);
        // If this fails, the lease expires.
        let _: Result<bool, BoxError> = entry.run(&script).await;
    }
}
