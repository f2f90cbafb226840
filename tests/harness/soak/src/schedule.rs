//! The plan of phases, which depends on the seed only.

use std::{fmt, time::Duration};

/// The time before the first phase, in which everything is created that is created once.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1_500);
/// About how long the rest after a phase takes. Only the plan uses this.
const REST: Duration = Duration::from_millis(1_000);
/// How long a revocation affects the spacing of the next one: `bearer_auth#the-life-of-a-token`.
const QUIET: Duration = Duration::from_secs(5 * 60);
/// Token requests that a revocation in an outage may cause.
const OF_A_STORM: u32 = 3;

/// A phase of load with one kind of fault. A rest follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) trouble: Trouble,
    /// The lifetime of the tokens that are issued from now on.
    pub(crate) lifetime: Duration,
    pub(crate) load: Duration,
    /// When the fault begins, and how long it lasts.
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Nothing,
    /// The token endpoint is down.
    Outage(Fault),
    /// Both servers take this long.
    Slow {
        idp: Duration,
        api: Duration,
    },
    /// The API rejects all current tokens.
    Revocation,
    /// The signing key is rotated: after the phase's fault time, the API rejects tokens of the old key. A
    /// client that has a new token by then is not affected.
    Rotation,
    /// A revocation in the middle of an outage.
    Storm(Fault),
}

/// How the token endpoint is down.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Refused,
    Reset,
    Closed,
    Silence,
    NotHttp,
    Error,
    Unavailable,
    RetryAfter(u64),
}

impl Trouble {
    /// How many token requests rejected tokens cause, if all goes well.
    fn rejections(self) -> u32 {
        match self {
            Trouble::Revocation | Trouble::Rotation => 1,
            Trouble::Storm(_) => OF_A_STORM,
            Trouble::Nothing | Trouble::Outage(_) | Trouble::Slow { .. } => 0,
        }
    }
}

/// An endless plan, the same for the same seed.
pub(crate) struct Schedule {
    random: Random,
    bag: Vec<u64>,
    now: Duration,
    /// How many token requests rejected tokens have caused, and when the last one did.
    rejections: u32,
    rejected: Duration,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            bag: Vec::new(),
            now: WARM_UP + REST,
            rejections: 0,
            rejected: Duration::ZERO,
        }
    }

    /// The phases of a run that takes about this long.
    pub(crate) fn lasting(mut self, total: Duration) -> Vec<Phase> {
        let mut phases = Vec::new();
        while phases.is_empty() || self.now < total {
            phases.push(self.phase());
        }
        phases
    }

    fn phase(&mut self) -> Phase {
        let trouble = self.trouble();
        let begins = self.random.millis(300, 2_000);
        let lasts = match trouble {
            Trouble::Outage(_) => self.random.millis(3_000, 8_000),
            _ => self.random.millis(1_500, 4_000),
        };
        let phase = Phase {
            trouble,
            lifetime: Duration::from_secs(self.random.between(2, 8)),
            load: begins + lasts + self.random.millis(1_000, 2_500),
            begins,
            lasts,
        };
        let rejections = phase.trouble.rejections();
        if rejections > 0 {
            self.rejections += rejections;
            self.rejected = self.now + begins + lasts;
        }
        self.now += phase.load + REST;
        phase
    }

    /// Draws each kind once, in any order, before any kind repeats. Draws no revocation while the spacing
    /// after rejections (1 s after the first, doubling to 60 s) would delay the new token.
    fn trouble(&mut self) -> Trouble {
        const KINDS: [u64; 7] = [0, 1, 1, 2, 3, 4, 5];

        if self.bag.is_empty() {
            self.bag.extend(KINDS);
        }
        if self.now >= self.rejected + QUIET {
            self.rejections = 0;
        }
        let spacing = Duration::from_secs(1 << self.rejections.min(6));
        let recovers = self.rejections == 0 || self.now >= self.rejected + spacing;
        let fit: Vec<_> = (0..self.bag.len())
            .filter(|at| recovers || self.bag.get(*at).is_some_and(|kind| *kind < 3))
            .collect();
        let drawn = match fit.len() {
            // Only revocations are left: draw other kinds first.
            0 => {
                self.bag.extend(KINDS.into_iter().filter(|kind| *kind < 3));
                self.bag.len() - 1
            }
            n => fit[self.random.below(n as u64) as usize],
        };
        match self.bag.swap_remove(drawn) {
            0 => Trouble::Nothing,
            1 => Trouble::Outage(self.fault()),
            2 => Trouble::Slow {
                idp: self.random.millis(100, 900),
                api: self.random.millis(5, 40),
            },
            3 => Trouble::Revocation,
            4 => Trouble::Rotation,
            _ => Trouble::Storm(self.fault()),
        }
    }

    fn fault(&mut self) -> Fault {
        match self.random.below(8) {
            0 => Fault::Refused,
            1 => Fault::Reset,
            2 => Fault::Closed,
            3 => Fault::Silence,
            4 => Fault::NotHttp,
            5 => Fault::Error,
            6 => Fault::Unavailable,
            // Longer than a flight waits between its attempts.
            _ => Fault::RetryAfter(self.random.between(4, 6)),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasts = self.lasts.as_secs_f32();
        match self.trouble {
            Trouble::Nothing => write!(f, "calm")?,
            Trouble::Outage(fault) => write!(f, "outage: {fault}, for {lasts:.1} s")?,
            Trouble::Slow { idp, api } => write!(f, "slow: {idp:?} for a token, API {api:?}")?,
            Trouble::Revocation => write!(f, "all tokens revoked")?,
            Trouble::Rotation => write!(f, "key rotated, the old one good for {lasts:.1} s")?,
            Trouble::Storm(fault) => write!(f, "revoked in an outage: {fault}, for {lasts:.1} s")?,
        }
        write!(f, "; tokens of {} s", self.lifetime.as_secs())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Refused => f.write_str("refused"),
            Fault::Reset => f.write_str("reset"),
            Fault::Closed => f.write_str("closed"),
            Fault::Silence => f.write_str("silence"),
            Fault::NotHttp => f.write_str("not HTTP"),
            Fault::Error => f.write_str("500"),
            Fault::Unavailable => f.write_str("503"),
            Fault::RetryAfter(seconds) => write!(f, "503, Retry-After: {seconds}"),
        }
    }
}

/// SplitMix64: a seed gives the same plan with all versions of the dependencies.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }
}
