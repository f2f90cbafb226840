//! What Redis does in one step: five scripts over two keys.
//!
//! ```text
//! {prefix:key}         hash    g: generation   o: who wrote it   v: the value
//! {prefix:key}:lease   string  who may write next, until it runs out
//! ```
//!
//! Both are in one slot of a cluster. A generation is a fencing token: the time of Redis in
//! microseconds, and more than the one before it, so that it grows even where the first key has run
//! out in between. Invariants: one owner at a time has the lease; what is written has the highest
//! generation so far; who does not own the lease does not release or prolong it. Each script can be
//! run twice, and does what it does once.

use std::sync::LazyLock;

use redis::Script;

/// What there is: generation, value, milliseconds that are left (−1: no end; −2: nothing there).
pub(super) static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local there = redis.call('HMGET', KEYS[1], 'g', 'v')
        return {there[1] or '0', there[2] or '', redis.call('PTTL', KEYS[1])}
        ",
    )
});

/// Takes the lease for `owner`, `milliseconds`, if what is there is still of generation `seen`
/// (empty: whatever it is), and nobody else has it, or who is given (empty: nobody). Returns what became of it, the generation to write with, who has the lease
/// otherwise, and for how long; if it was taken, the time of Redis instead of that, in milliseconds.
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
        -- One without an end is nobody's.
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

/// Prolongs the lease of `owner` by `milliseconds` from now: whether it was still its own.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
        return redis.call('PEXPIRE', KEYS[2], ARGV[2])
        ",
    )
});

/// Gives the lease of `owner` back. With `milliseconds` over 0, nobody gets it for that long, and
/// those who ask are told `why`.
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

/// Writes `value` with `generation`, until a time in milliseconds (0: for ever), unless there is a higher one,
/// or (`must` = 1) `owner` has lost the lease: whether it was written.
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
