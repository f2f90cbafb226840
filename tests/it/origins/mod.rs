//! Redirects and odd URLs, on sockets, with a host that is not the API's: what each host *received*
//! is looked at, all of it, and a token is found wherever it is.
//!
//! Each of these was taken away, or put there, to see tests fail:
//!
//! - in `Apis::admit`: the case of hosts, the port, the scheme (also where the URI is as it is usually
//!   written), hosts that begin or end with the API's, a dot at the end, a path's segments, `..` in
//!   its forms, the path; the host read in front of the `@`; loopback by `127.` or `localhost.`;
//!   plain `http` under `any_api`; another host's request gets the token, in both adapters
//! - whose answer it is: not looked at in the service, in the middleware, in either
//! - a second try without the new token
//! - `redirect_policy`: follows all, or none, or for ever; fails; judges by the last URL and not by
//!   the first, which had the token; counts requests to others in; one API does not lead to another;
//!   under `any_api` it leads anywhere; the path does not matter

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
