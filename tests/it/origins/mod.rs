//! Redirects and unusual URLs, on sockets, with a second host that must not get the token. The tests
//! search everything that each host *received* for the token.
//!
//! - [direct]: URLs as callers write them, without redirects.
//! - [redirects]: one redirect, for every status, target and stack.
//! - [chains]: several redirects in a row.
//! - [refusals]: 401s after a redirect.
//! - [stacks]: the combinations of client, layer and redirect policy. [world]: the two hosts.

mod chains;
mod direct;
mod redirects;
mod refusals;
mod stacks;
mod world;

use self::world::Seen;

/// The hosts that requests reached, in order, with `*` for a token: `"api* other"`.
fn route(seen: &[Seen]) -> String {
    let stop = |seen: &Seen| {
        let at = match (seen.is_below_base(), seen.is_at_api()) {
            (true, _) => "api",
            (_, true) => "outside",
            _ => "other",
        };
        format!("{at}{}", if seen.has_token() { "*" } else { "" })
    };
    seen.iter().map(stop).collect::<Vec<_>>().join(" ")
}
