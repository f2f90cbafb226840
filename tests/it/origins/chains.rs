//! Several redirects one after the other, and what is said of them in the documentation.

use bearer_auth::BearerAuthLayer;
use http::{HeaderName, Request, header::AUTHORIZATION};
use tower::Layer as _;
use tower_http::follow_redirect::{FollowRedirectLayer, policy::Limited};

use crate::origins::{
    stacks::{Rig, Stack},
    way,
    world::*,
};

const START: &str = "https://api.example/v1/start";

/// Each stop redirects to the next one; from the API's `/v1/start` on.
fn lead(world: &World, stops: &[(Site, &str)]) {
    let mut from = (Site::Api, "/v1/start");
    for &(site, location) in stops {
        world.answers(from.0, from.1, redirect(302, location));
        let path = location
            .rsplit_once(".example")
            .map_or(location, |(_, path)| path);
        from = (site, path);
    }
}

async fn ways(stops: &[(Site, &str)]) -> Vec<(Stack, String)> {
    let mut ways = Vec::new();
    for &stack in Stack::ALL {
        let world = World::new().await;
        lead(&world, stops);
        let _ = Rig::new(stack, &world, &world.layer()).get(START).await;
        ways.push((stack, way(&world.take_seen())));
    }
    ways
}

/// The same for reqwest and reqwest-middleware.
fn assert_ways(
    ways: Vec<(Stack, String)>,
    reqwest: &str,
    policy: &str,
    outside: &str,
    below: &str,
) {
    for (stack, way) in ways {
        let expected = match stack {
            Stack::Reqwest | Stack::Middleware => reqwest,
            Stack::ReqwestWithPolicy | Stack::MiddlewareWithPolicy => policy,
            Stack::FollowOutside => outside,
            Stack::FollowBelow => below,
        };
        assert_eq!(way, expected, "{stack:?}");
    }
}

#[tokio::test]
async fn p237_c19_within_the_api_and_then_away() {
    let stops = [
        (Site::Api, "/v1/on"),
        (Site::Api, "/v1/further"),
        (Site::Other, "https://evil.example/landed"),
    ];
    let all = "api* api* api* other";
    assert_ways(ways(&stops).await, all, "api* api* api*", all, all);
}

/// What follows below has taken the token off by then, so that the API refuses a request without:
/// it is renewed and sent again, once.
#[tokio::test]
async fn p237_c19_away_and_back_to_the_api() {
    for away in ["https://evil.example/back", "http://api.example/back"] {
        let site = if away.contains("evil") {
            Site::Other
        } else {
            Site::Api
        };
        let stops = [(site, away), (Site::Api, "https://api.example/v1/landed")];
        let below = "api* other api api* other api";
        assert_ways(ways(&stops).await, below, "api*", "api* other api*", below);
    }
}

#[tokio::test]
async fn a_request_to_another_host_gets_no_token_below_wherever_it_is_led() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        world.answers(
            Site::Other,
            "/start",
            redirect(302, "https://api.example/v1/on"),
        );
        world.answers(
            Site::Api,
            "/v1/on",
            redirect(302, "https://evil.example/landed"),
        );
        let rig = Rig::new(stack, &world, &world.layer());
        assert_eq!(rig.get("https://evil.example/start").await, Ok(404));
        let expected = match stack {
            // The request to the API is one of its own.
            Stack::FollowOutside => "other api* other",
            _ => "other api other",
        };
        assert_eq!(way(&world.take_seen()), expected, "{stack:?}");
        assert_eq!(world.issued(), usize::from(stack == Stack::FollowOutside));
    }
}

#[tokio::test]
async fn a_circle_ends() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        world.answers(Site::Api, "/v1/start", redirect(302, "/v1/start"));
        let outcome = Rig::new(stack, &world, &world.layer()).get(START).await;
        let seen = world.take_seen();
        assert!((11..=21).contains(&seen.len()), "{stack:?}: {}", seen.len());
        assert!(
            seen.iter()
                .all(|seen| seen.is_below_base() && seen.has_token())
        );
        let failed = outcome
            .as_ref()
            .is_err_and(|error| error.contains("redirect"));
        assert!(failed || outcome == Ok(302), "{stack:?}: {outcome:?}");
        assert_eq!(world.issued(), 1);
    }
}

/// That what reqwest does by itself is not enough: it takes `Authorization` off for one request, and
/// the next one, to where the other host redirects within itself, has it again. tower-http did the
/// same until 0.6, which reqwest 0.13.5 has inside. **When this fails, because they do so no more,
/// tell the documentation of `BearerAuthLayer`.**
#[tokio::test]
async fn p237_c19_another_host_that_redirects_within_itself_is_why_there_is_a_policy() {
    let stops = [
        (Site::Other, "https://evil.example/on"),
        (Site::Other, "/landed"),
    ];
    let away = "api* other other";
    assert_ways(ways(&stops).await, "api* other other*", "api*", away, away);
}

const OWN: HeaderName = HeaderName::from_static("x-amz-access-token");

/// The same of a header that only its owner knows to be secret: who follows below sends it along, at
/// once.
#[tokio::test]
async fn p237_c19_a_header_of_ones_own_is_why_there_is_a_policy() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        lead(&world, &[(Site::Other, "https://evil.example/landed")]);
        let tokens = world.tokens_in(OWN, "");
        let auth = BearerAuthLayer::for_api("https://api.example/v1", tokens).unwrap();
        let _ = Rig::new(stack, &world, &auth).get(START).await;
        let seen = world.take_seen();
        assert_eq!(seen[0].headers[OWN], "canary-token-1");
        let expected = match stack {
            Stack::Reqwest | Stack::Middleware | Stack::FollowBelow => "api* other*",
            Stack::ReqwestWithPolicy | Stack::MiddlewareWithPolicy => "api*",
            Stack::FollowOutside => "api* other",
        };
        assert_eq!(way(&seen), expected, "{stack:?}");
    }
}

/// What follows outside the layer has no token to send along, whatever its policy.
#[tokio::test]
async fn p237_c19_a_policy_that_keeps_credentials_has_none_outside() {
    let world = World::new().await;
    lead(&world, &[(Site::Other, "https://evil.example/landed")]);
    let (auth, keeps) = (
        world.layer(),
        FollowRedirectLayer::with_policy(Limited::new(5)),
    );
    let below = Rig::of(auth.layer(keeps.layer(world.hyper())));
    let outside = Rig::of(keeps.layer(auth.layer(world.hyper())));
    for (rig, expected) in [(below, "api* other*"), (outside, "api* other")] {
        assert_eq!(rig.get(START).await, Ok(404));
        assert_eq!(way(&world.take_seen()), expected);
    }
}

/// The caller's, which the layer neither adds nor takes.
#[tokio::test]
async fn p234_a_proxy_s_credentials_are_left_alone() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        lead(
            &world,
            &[
                (Site::Api, "/v1/on"),
                (Site::Other, "https://evil.example/x"),
            ],
        );
        let request = Request::get(START).header("proxy-authorization", "Basic own");
        let request = request.body(bytes::Bytes::new()).unwrap();
        let _ = Rig::new(stack, &world, &world.layer()).send(request).await;
        for seen in world.take_seen() {
            let is = |name| seen.headers.get(name).and_then(|value| value.to_str().ok());
            let at_api = seen.is_at_api();
            assert_eq!(is("proxy-authorization"), at_api.then_some("Basic own"));
            assert_eq!(
                is(AUTHORIZATION.as_str()),
                at_api.then_some("Bearer canary-token-1")
            );
        }
    }
}
