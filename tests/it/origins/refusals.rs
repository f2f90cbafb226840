//! 401s after a redirect, from the API and from another host.

use bearer_auth::{BearerAuthLayer, TokenCache, testing::ManualClock};

use crate::origins::{
    route,
    stacks::{Rig, Stack},
    world::*,
};

const START: &str = "https://api.example/v1/start";
const AWAY: &str = "https://evil.example/away";

/// The API redirects to another host, which answers 401.
async fn rejected_elsewhere() -> World {
    let world = World::new().await;
    world.answers(Site::Api, "/v1/start", redirect(302, AWAY));
    world.answers(Site::Other, "/away", status(401));
    world
}

/// Not with an inner `FollowRedirect`, which hides from the layer which host answered: see the next
/// test.
#[tokio::test]
async fn p237_401_of_another_host_does_not_reject_the_token() {
    for &stack in Stack::ALL {
        if stack == Stack::FollowBelow {
            continue;
        }
        let world = rejected_elsewhere().await;
        let mut layers = vec![world.layer()];
        if stack != Stack::FollowOutside {
            // Layers that allow the token for the other host as well.
            let any = BearerAuthLayer::builder(layers[0].cache().clone())
                .any_api()
                .build()
                .unwrap();
            layers.extend([any, world.layer_for_both(layers[0].cache())]);
        }
        for (at, layer) in layers.iter().enumerate() {
            let rig = Rig::new(stack, &world, layer);
            // The policy follows redirects only to hosts that may get the token.
            let (outcome, expected) = match stack.has_policy() && at < 2 {
                true => (302, "api*"),
                false => (401, "api* other"),
            };
            for _ in 0..3 {
                assert_eq!(rig.get(START).await, Ok(outcome), "{stack:?} {at}");
                assert_eq!(route_of_all(&world), expected, "{stack:?} {at}");
            }
        }
        assert_eq!(world.issued(), 1, "{stack:?}");
    }
}

/// Nothing leaks, and the cost is that of an API route that always answers 401: token requests at 0,
/// 1, 3, 7, 15, 31 and 63 s. The token still serves all other requests.
#[tokio::test]
async fn p237_401_after_an_inner_redirect_makes_a_bounded_number_of_token_requests() {
    let world = rejected_elsewhere().await;
    let clock = ManualClock::new();
    let cache = TokenCache::builder(world.tokens())
        .clock(clock.clone())
        .build();
    let auth = BearerAuthLayer::for_api("https://api.example/v1", cache).unwrap();
    let rig = Rig::new(Stack::FollowBelow, &world, &auth);
    assert_eq!(rig.get(START).await, Ok(401));
    assert_eq!(route(&world.take_seen()), "api* other api* other");
    assert_eq!(world.issued(), 2);
    for second in 0..100 {
        assert_eq!(rig.get(START).await, Ok(401));
        let route = route(&world.take_seen());
        let once = "api* other";
        assert!(
            route == once || route == format!("{once} {once}"),
            "{second}: {route}"
        );
        assert_eq!(rig.get("https://api.example/v1/good").await, Ok(200));
        assert_eq!(route_of_all(&world), "api*");
        clock.advance(std::time::Duration::from_secs(1));
    }
    assert_eq!(world.issued(), 8);
}

fn route_of_all(world: &World) -> String {
    route(&world.take_seen())
}

/// The API checks the token, and then redirects.
#[tokio::test]
async fn p237_c13_resend_sends_the_new_token_only_to_the_api() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        world.answers(Site::Api, "/v1/start", redirect(307, AWAY));
        world.accept("canary-token-2");
        let _ = Rig::new(stack, &world, &world.layer()).get(START).await;
        let expected = match stack.has_policy() {
            true => "api* api*",
            false => "api* api* other",
        };
        let seen = world.take_seen();
        assert_eq!(route(&seen), expected, "{stack:?}");
        assert_eq!(seen[1].headers["authorization"], "Bearer canary-token-2");
        assert_eq!(world.issued(), 2);
    }
}

/// An inner redirect is repeated from the start; of an outer one, only the last request.
#[tokio::test]
async fn p237_c13_redirect_within_the_api_is_followed_again_with_the_new_token() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        world.answers(Site::Api, "/v1/start", redirect(307, "/v1/landed"));
        let auth = world.layer();
        let rig = Rig::new(stack, &world, &auth);
        assert_eq!(rig.get(START).await, Ok(200));
        assert_eq!(route_of_all(&world), "api* api*");
        world.reject_at("/v1/landed", "canary-token-1");
        assert_eq!(rig.get(START).await, Ok(200));
        let tokens: Vec<_> = world.take_seen().iter().map(Seen::numbers).collect();
        let expected: &[u8] = match stack {
            Stack::FollowOutside => b"112",
            _ => b"1122",
        };
        assert_eq!(tokens.concat().as_bytes(), expected, "{stack:?}");
        assert_eq!(world.issued(), 2);
    }
}

#[tokio::test]
async fn renew_on_ignores_responses_of_other_hosts() {
    for &stack in Stack::ALL {
        if stack == Stack::FollowBelow {
            continue;
        }
        let world = rejected_elsewhere().await;
        world.answers(Site::Other, "/away", status(419));
        world.answers(Site::Api, "/v1/expired", status(419));
        let auth = world.builder().renew_on(|status, _| status == 419);
        let auth = auth.build().unwrap();
        let rig = Rig::new(stack, &world, &auth);
        let _ = rig.get(START).await;
        assert_eq!(world.issued(), 1, "{stack:?}");
        assert_eq!(rig.get("https://api.example/v1/expired").await, Ok(419));
        assert_eq!(world.issued(), 2, "{stack:?}");
    }
}

/// An API that redirects requests with an expired token to a login page.
#[tokio::test]
async fn renew_on_can_treat_a_redirect_to_a_login_page_as_a_rejection() {
    for &stack in Stack::ALL.iter().filter(|stack| stack.has_policy()) {
        let world = World::new().await;
        world.answers(
            Site::Api,
            "/v1/start",
            redirect(302, "https://login.example/"),
        );
        let auth = world.builder().renew_on(|status, _| status == 302);
        let auth = auth.build().unwrap();
        assert_eq!(Rig::new(stack, &world, &auth).get(START).await, Ok(302));
        assert_eq!(route_of_all(&world), "api* api*");
        assert_eq!(world.issued(), 2);
    }
}

/// Under `any_api`, an outer redirect passes the layer like any request, and gets the token. An inner
/// redirect to another origin loses it.
#[tokio::test]
async fn p70_any_api_sends_no_token_to_other_origins_by_inner_redirects() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        let auth = BearerAuthLayer::builder(world.tokens())
            .any_api()
            .build()
            .unwrap();
        let rig = Rig::new(stack, &world, &auth);
        let port = world.ports().api;
        world.answers(Site::Api, "/", status(204));
        for (location, below, policy, outside) in [
            ("/v2", "api* outside*", "api* outside*", "api* outside*"),
            (AWAY, "api* other", "api*", "api* other*"),
            (
                &*format!("https://api.example:{port}/"),
                "api* other",
                "api*",
                "api* other*",
            ),
            // The layer refuses plain HTTP.
            ("http://evil.example/", "api* other", "api*", "api*"),
            ("http://api.example/", "api* other", "api*", "api*"),
        ] {
            world.answers(Site::Api, "/v1/start", redirect(302, location));
            let outcome = rig.get(START).await;
            let expected = match stack {
                Stack::FollowOutside => outside,
                _ if stack.has_policy() => policy,
                _ => below,
            };
            assert_eq!(route_of_all(&world), expected, "{stack:?} {location}");
            let refused = stack == Stack::FollowOutside && location.starts_with("http:");
            assert_eq!(
                outcome.is_err(),
                refused,
                "{stack:?} {location} {outcome:?}"
            );
        }
    }
}
