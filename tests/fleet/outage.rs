//! The ways in which Redis fails.

use super::{
    Redis,
    support_redis::proxy::{Mode, Proxy},
};

/// A way in which Redis, or what is between it and us, can fail, and its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outage {
    Closed,
    Silent,
    Nonsense,
    Stopped,
    Paused,
    Full,
    ReadOnly,
    Forbidden,
}

impl Outage {
    pub(crate) const ALL: [Self; 8] = [
        Self::Closed,
        Self::Silent,
        Self::Nonsense,
        Self::Stopped,
        Self::Paused,
        Self::Full,
        Self::ReadOnly,
        Self::Forbidden,
    ];

    /// Whether it shows only by the time that passes.
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Silent | Self::Stopped | Self::Paused)
    }

    pub(crate) async fn begin(self, redis: &Redis, proxy: &Proxy) {
        match self {
            Self::Closed => proxy.set(Mode::Closes),
            Self::Silent => proxy.set(Mode::IsSilent),
            Self::Nonsense => proxy.set(Mode::TalksNonsense),
            Self::Stopped => redis.stop(),
            Self::Paused => redis.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await,
            // Of a master that is not there.
            Self::ReadOnly => redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::Forbidden => redis.ask(&["ACL", "SETUSER", "default", "-@write"]).await,
        }
    }

    pub(crate) async fn end(self, redis: &Redis, proxy: &Proxy) {
        match self {
            Self::Closed | Self::Silent | Self::Nonsense => proxy.set(Mode::Passes),
            Self::Stopped => redis.go_on(),
            Self::Paused => redis.ask(&["CLIENT", "UNPAUSE"]).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::ReadOnly => redis.ask(&["REPLICAOF", "NO", "ONE"]).await,
            Self::Forbidden => redis.ask(&["ACL", "SETUSER", "default", "+@write"]).await,
        }
    }
}
