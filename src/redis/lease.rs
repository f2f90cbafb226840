//! [`Lease`]: who may fetch, and write.

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
    scripts::{RELEASE, RENEW, TAKE, WRITE},
};
use crate::{
    clock::{Clock, Moment},
    error::BoxError,
};

/// It is prolonged this often in the time that it lasts.
const RENEWALS: u32 = 3;

/// The only one who may fetch: until it is dropped, or its process dies.
pub(super) struct Lease {
    entry: Entry,
    owner: String,
    generation: String,
    /// Prolongs it.
    renewing: JoinHandle<()>,
    lost: Arc<AtomicBool>,
    /// When it was taken, by Redis's clock since 1970, and by ours.
    taken: Duration,
    since: Moment,
    released: bool,
}

/// What [`take`] leads to.
pub(super) enum Taking {
    Taken(Lease),
    /// There is another value by now.
    Changed,
    Held(Holder),
}

/// Takes the lease of an entry. `seen`: only if the value is still of that generation. `from`: also
/// from this holder.
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
    orphan.known();
    let left = Duration::from_millis(left.max(0).unsigned_abs());
    Ok(match what.as_str() {
        "taken" => Taking::Taken(Lease::new(entry.clone(), owner, generation, left)),
        "changed" => Taking::Changed,
        _ => Taking::Held(Holder::new(name, left)),
    })
}

/// A lease that may have been taken without anybody knowing: dropped, it is given back.
struct Orphan(Option<(Entry, String)>);

impl Orphan {
    fn new(entry: &Entry, owner: &str) -> Self {
        Self(Some((entry.clone(), owner.to_owned())))
    }

    fn known(mut self) {
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
        let renewing = tokio::spawn(renew(entry.clone(), owner.clone(), Arc::clone(&lost)));
        Self {
            taken,
            since: entry.clock().now(),
            entry,
            owner,
            generation,
            renewing,
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

    /// As far as is known. Only Redis knows.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes the value, for `left` if it ends: whether it was, since nobody has written a newer one.
    /// `while_held`: and only if the lease has not been lost.
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

    /// Redis's time in milliseconds, so long from now, whenever that gets there: what is written late
    /// does not end later.
    fn time(&self, from_now: Duration) -> u64 {
        let held = self.entry.clock().now().since(self.since);
        let time = self.taken.saturating_add(held).saturating_add(from_now);
        // Redis's numbers have a sign.
        millis(time).clamp(1, i64::MAX.unsigned_abs())
    }

    /// Gives it to the next. With `why`, nobody gets it for that long, and all who ask hear it.
    pub(super) async fn release(mut self, why: Option<(&str, Duration)>) {
        self.released = true;
        self.renewing.abort();
        release(self.entry.clone(), self.owner.clone(), why).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        // Otherwise the others wait until it has run out.
        if !self.released
            && let Ok(runtime) = Handle::try_current()
        {
            let (entry, owner) = (self.entry.clone(), std::mem::take(&mut self.owner));
            runtime.spawn(release(entry, owner, None));
        }
    }
}

async fn renew(entry: Entry, owner: String, lost: Arc<AtomicBool>) {
    let mut script = entry.script(&RENEW);
    script.arg(&owner).arg(millis(entry.lease()));
    let mut since = entry.clock().now();
    while !lost.load(Ordering::Relaxed) {
        entry.sleep(entry.lease() / RENEWALS).await;
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
        // If it does not come through, the lease runs out.
        let _: Result<bool, BoxError> = entry.run(&script).await;
    }
}
