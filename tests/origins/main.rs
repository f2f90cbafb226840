//! Redirects and odd URLs, on sockets, with a host that is not the API's: what each host *received*
//! is looked at, all of it, and a token is found wherever it is.

#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod chains;
mod direct;
mod redirects;
mod refusals;
mod stacks;
mod world;

use self::world::Seen;

/// Where requests came, and with a token (`*`) or not: `"api* other"`.
fn way(seen: &[Seen]) -> String {
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
