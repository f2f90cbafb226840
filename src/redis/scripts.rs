//! Atomic operations: five Lua scripts over two keys.
//!
//! ```text
//! {prefix:key}         hash    g: generation   o: its writer   v: the value
//! {prefix:key}:lease   string  the lease's owner, until the lease expires
//! ```
//!
//! Both keys are in one slot of a cluster. A generation is a fencing token: Redis's time in
//! microseconds, or one more than the generation before. So it grows even if the first key has expired
//! in between. Invariants:
//!
//! 1. One owner at a time has the lease.
//! 2. A write needs the highest generation so far.
//! 3. Only the owner extends or releases the lease.
//! 4. Every script is idempotent: two runs have the effect of one.

use std::sync::LazyLock;

use redis::Script;

/// Returns the generation, the value, and its TTL in milliseconds (−1: no expiry; −2: no value).
pub(super) static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local there = redis.call('HMGET', KEYS[1], 'g', 'v')
        return {there[1] or '0', there[2] or '', redis.call('PTTL', KEYS[1])}
        ",
    )
});

/// Takes the lease. Arguments:
///
/// 1. the owner
/// 2. the duration in milliseconds
/// 3. the generation that the value must still have (empty: any)
/// 4. a holder whose lease may be taken (empty: none)
///
/// Returns the outcome (`taken`, `changed` or `held`), the generation to write with, the holder, and
/// how long its lease lasts in milliseconds. If the lease was taken, the last is Redis's time instead.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local there = redis.call('HGET', KEYS[1], 'g') or '0'
        if ARGV[3] ~= '' and there ~= ARGV[3] then
            return {'changed', '0', '', 0}
        end
        local holder = redis.call('GET', KEYS[2])
        local left = redis.call('PTTL', KEYS[2])
        -- A lease without an expiry counts as free.
        if holder and holder ~= ARGV[1] and holder ~= ARGV[4] and left >= 0 then
            return {'held', '0', holder, left}
        end
        redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
        local mine = tonumber(time[1]) * 1000000 + tonumber(time[2])
        local now = math.floor(mine / 1000)
        local last = tonumber(there) or 0
        if not (last < 9e15) then last = 0 end
        if mine <= last then mine = last + 1 end
        return {'taken', string.format('%.0f', mine), '', now}
        ",
    )
});

/// Extends a lease. Arguments: the owner, and the duration from now in milliseconds. Returns whether the
/// owner still had the lease.
pub(super) static EXTEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        return redis.call('PEXPIRE', KEYS[2], ARGV[2])
        ",
    )
});

/// Releases a lease. Arguments: the owner, a pause in milliseconds, and a text. During a pause over 0 no
/// process gets the lease, and `TAKE` returns the text as the holder.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        if tonumber(ARGV[2]) > 0 then
            redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
        else
            redis.call('DEL', KEYS[2])
        end
        return 1
        ",
    )
});

/// Writes a value. Arguments:
///
/// 1. the owner
/// 2. the generation
/// 3. the value
/// 4. when the value expires, in milliseconds since 1970 (0: never)
/// 5. whether the owner must still have the lease (1: yes)
///
/// Returns whether the value was written: not if there is a higher generation, or the same one of another
/// owner; nor if the owner needs the lease and has lost it.
pub(super) static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if ARGV[5] == '1' and redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        local there = redis.call('HMGET', KEYS[1], 'g', 'o')
        local last = tonumber(there[1] or '0') or 0
        if not (last < 9e15) then last = 0 end
        local mine = tonumber(ARGV[2])
        if last > mine or (last == mine and there[2] ~= ARGV[1]) then return 0 end
        redis.call('HSET', KEYS[1], 'g', ARGV[2], 'o', ARGV[1], 'v', ARGV[3])
        if tonumber(ARGV[4]) > 0 then
            redis.call('PEXPIREAT', KEYS[1], ARGV[4])
        else
            redis.call('PERSIST', KEYS[1])
        end
        return 1
        ",
    )
});
