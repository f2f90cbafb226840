//! One redirect, for every status, kind of target, and stack.

use crate::origins::{
    stacks::{Outcome, Rig, Stack},
    world::*,
};

/// The target of a redirect, if it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lands {
    /// The API, below its base path.
    Api,
    /// The API's origin, another path.
    Outside,
    /// Another origin.
    Other,
    /// Another origin that not every machine reaches: IPv6.
    MaybeOther,
    /// No host: the redirect cannot be followed.
    Nowhere,
}

/// `Location` headers of an answer to `https://api.example/v1/start`. `<other>` and `<api>` are the
/// ports of the two hosts.
const LOCATIONS: &[(&str, Lands)] = &[
    // The API.
    ("https://api.example/v1/landed", Lands::Api),
    ("/v1/landed", Lands::Api),
    ("landed?x=/../..", Lands::Api),
    ("./a/../landed#fragment", Lands::Api),
    ("//api.example/v1/landed", Lands::Api),
    ("https:landed", Lands::Api),
    // The same in other spellings: case, default port, normalization by IDNA and WHATWG.
    ("https://API.EXAMPLE/v1/landed", Lands::Api),
    ("HTTPS://Api.Example/v1/landed", Lands::Api),
    ("https://api.example:443/v1/landed", Lands::Api),
    ("https://api.example:/v1/landed", Lands::Api),
    ("https://api.example:0443/v1/landed", Lands::Api),
    ("https://ａｐｉ.example/v1/landed", Lands::Api),
    ("https://api。example/v1/landed", Lands::Api),
    ("https://a\u{ad}pi.example/v1/landed", Lands::Api),
    ("https://%61pi.example/v1/landed", Lands::Api),
    ("https://api.ex\tample/v1/landed", Lands::Api),
    ("https:\\\\api.example\\v1\\landed", Lands::Api),
    ("https://user@api.example/v1/landed", Lands::Api),
    ("https://evil.example:443@api.example/v1/landed", Lands::Api),
    // The API's host, with another path.
    ("/v2/landed", Lands::Outside),
    ("/v1landed", Lands::Outside),
    ("/V1/landed", Lands::Outside),
    ("../landed", Lands::Outside),
    ("https://api.example", Lands::Outside),
    ("/v1/../v2/landed", Lands::Outside),
    ("/v1/%2e%2e/v2/landed", Lands::Outside),
    ("/v1/..%2fv2/landed", Lands::Outside),
    ("/v1/x\\..\\..\\v2", Lands::Outside),
    (
        "https://api.example\\@evil.example/v1/landed",
        Lands::Outside,
    ),
    (
        "https://api.example#@evil.example/v1/landed",
        Lands::Outside,
    ),
    (
        "https://api.example?@evil.example/v1/landed",
        Lands::Outside,
    ),
    ("https:/evil.example/v1/landed", Lands::Outside),
    // Another host, in misleading spellings.
    ("https://evil.example/v1/landed", Lands::Other),
    ("//evil.example/v1/landed", Lands::Other),
    ("\\\\evil.example\\v1\\landed", Lands::Other),
    ("/\\evil.example/v1/landed", Lands::Other),
    ("/\t/evil.example/v1/landed", Lands::Other),
    ("https://ev\til.example/v1/landed", Lands::Other),
    ("https://api.example@evil.example/v1/landed", Lands::Other),
    (
        "https://api.example:443@evil.example/v1/landed",
        Lands::Other,
    ),
    ("https://api.example:x@evil.example/v1/landed", Lands::Other),
    (
        "https://api.example%2f@evil.example/v1/landed",
        Lands::Other,
    ),
    ("https://api@evil.example/v1/landed", Lands::Other),
    ("https://evil.example\\@api.example/v1/landed", Lands::Other),
    ("https://evil.example#@api.example/v1/landed", Lands::Other),
    ("https://evil.example?@api.example/v1/landed", Lands::Other),
    ("https://api.example.evil.example/v1/landed", Lands::Other),
    ("https://evilapi.example/v1/landed", Lands::Other),
    ("https://evil-api.example/v1/landed", Lands::Other),
    ("https://api.example.com/v1/landed", Lands::Other),
    ("https://api-example/v1/landed", Lands::Other),
    ("https://example/v1/landed", Lands::Other),
    // The first letter is Cyrillic.
    ("https://аpi.example/v1/landed", Lands::Other),
    ("https://xn--pi-7kc.example/v1/landed", Lands::Other),
    ("https://bücher.example/v1/landed", Lands::Other),
    ("https://apı.example/v1/landed", Lands::Other),
    // An absolute DNS name: possibly the same machine, but another origin.
    ("https://api.example./v1/landed", Lands::Other),
    // Another port, another scheme.
    ("https://api.example:<other>/v1/landed", Lands::Other),
    ("https://api.example:<api>/v1/landed", Lands::Other),
    ("http://api.example/v1/landed", Lands::Other),
    ("http://api.example:<api>/v1/landed", Lands::Other),
    ("http://evil.example/v1/landed", Lands::Other),
    // Addresses.
    ("https://127.0.0.1:<other>/v1/landed", Lands::Other),
    ("https://127.1:<other>/v1/landed", Lands::Other),
    ("https://0x7f.1:<other>/v1/landed", Lands::Other),
    ("https://2130706433:<other>/v1/landed", Lands::Other),
    ("https://0177.0.0.1:<other>/v1/landed", Lands::Other),
    ("http://127.0.0.1:<api>/v1/landed", Lands::Other),
    (
        "https://[::ffff:127.0.0.1]:<other>/v1/landed",
        Lands::MaybeOther,
    ),
    (
        "https://[::ffff:7f00:1]:<other>/v1/landed",
        Lands::MaybeOther,
    ),
    // Nowhere.
    ("///evil.example/v1/landed", Lands::Nowhere),
    ("https://api.example:65979/v1/landed", Lands::Nowhere),
    (
        "https://api.example%00.evil.example/v1/landed",
        Lands::Nowhere,
    ),
    (
        "https://api.example%2f.evil.example/v1/landed",
        Lands::Nowhere,
    ),
    ("https://api.example /v1/landed", Lands::Nowhere),
    ("https://[::1/v1/landed", Lands::Nowhere),
    ("https://", Lands::Nowhere),
    ("ftp://api.example/v1/landed", Lands::Nowhere),
    ("ws://api.example/v1/landed", Lands::Nowhere),
    ("javascript:alert(1)", Lands::Nowhere),
    ("file:///v1/landed", Lands::Nowhere),
];

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

fn filled(location: &str, ports: Ports) -> String {
    location
        .replace("<other>", &ports.other.to_string())
        .replace("<api>", &ports.api.to_string())
}

#[tokio::test]
async fn p237_c19_redirect_never_sends_the_token_to_another_origin() {
    let world = World::new().await;
    let auth = world.layer();
    let long = format!("https://evil.example/{}", "x".repeat(30_000));
    let too_long = format!("https://evil.example/{}", "x".repeat(70_000));
    let long = [(&*long, Lands::Other), (&*too_long, Lands::Nowhere)];
    // Also without a token, and under other names of the API: a 401 would cause a resend, which other
    // tests cover.
    world.answers(Site::Api, "/v1/landed", status(204));
    let mut wrong = Vec::new();
    for &stack in Stack::ALL {
        let rig = Rig::new(stack, &world, &auth);
        for status in STATUSES {
            for &(location, lands) in LOCATIONS.iter().chain(&long) {
                let to = filled(location, world.ports());
                world.answers(Site::Api, "/v1/start", redirect(status, to));
                let outcome = rig.get("https://api.example/v1/start").await;
                let seen = world.take_seen();
                if let Some(why) = violation(stack, lands, &outcome, &seen) {
                    let seen = format!("{outcome:.200?} {seen:.200?}");
                    wrong.push(format!("{stack:?} {status} {location:.80}: {why}; {seen}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cells\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The rule that the requests violate, if any.
fn violation(stack: Stack, lands: Lands, outcome: &Outcome, seen: &[Seen]) -> Option<&'static str> {
    for seen in seen {
        let may = match stack.checks_redirects() {
            true => seen.is_below_base(),
            // The layer does not see the path of the redirect.
            false => seen.is_at_api(),
        };
        match (may, seen.has_token()) {
            (false, true) => return Some("the token where it may not be"),
            (true, false) => return Some("no token where it may be"),
            _ => {}
        }
    }
    // The loop above passes without requests, so check the expected outcome as well.
    let [start, landed @ ..] = seen else {
        return Some("nothing was sent");
    };
    let stays = stack.has_policy() && lands != Lands::Api;
    let redirected = outcome.as_ref().is_ok_and(|status| status / 100 == 3);
    match landed {
        _ if !start.is_below_base() => Some("did not start at the API"),
        [] if lands == Lands::Nowhere || lands == Lands::MaybeOther && outcome.is_err() => None,
        [] if !stays => Some("the redirect was not followed"),
        [] if !redirected => Some("the response is not the redirect"),
        [] => None,
        _ if stays => Some("the redirect was followed"),
        [last] => {
            let at = match (last.is_below_base(), last.is_at_api()) {
                (true, _) => Lands::Api,
                (_, true) => Lands::Outside,
                _ if lands == Lands::MaybeOther => lands,
                _ => Lands::Other,
            };
            match (at == lands, outcome == &Ok(last.status)) {
                (false, _) => Some("the redirect reached another target"),
                (_, false) => Some("the response is not that of the last request"),
                _ => None,
            }
        }
        _ => Some("more than one request"),
    }
}
