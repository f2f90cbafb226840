//! What is refused after a redirect, and by whom.

use bearer_auth::{BearerAuthLayer, TokenCache, testing::ManualClock};

use crate::origins::{
    stacks::{Rig, Stack},
    way,
    world::*,
};

const START: &str = "https://api.example/v1/start";
const AWAY: &str = "https://evil.example/away";

/// Which redirects, and refuses.
async fn refused_elsewhere() -> World {
    let world = World::new().await;
    world.answers(Site::Api, "/v1/start", redirect(302, AWAY));
    world.answers(Site::Other, "/away", status(401));
    world
}

/// Of a `FollowRedirect` below, the layer does not learn who has answered: see the next test.
#[tokio::test]
async fn p237_a_401_of_another_host_is_not_about_the_token() {
    for &stack in Stack::ALL {
        if stack == Stack::FollowBelow {
            continue;
        }
        let world = refused_elsewhere().await;
        let mut layers = vec![world.layer()];
        if stack != Stack::FollowOutside {
            // Where the other host could have got the token as well.
            let any = BearerAuthLayer::builder(layers[0].cache().clone())
                .any_api()
                .build()
                .unwrap();
            layers.extend([any, world.layer_for_both(layers[0].cache())]);
        }
        for (at, layer) in layers.iter().enumerate() {
            let rig = Rig::new(stack, &world, layer);
            // The policy lets it go where tokens may go.
            let (outcome, expected) = match stack.has_policy() && at < 2 {
                true => (302, "api*"),
                false => (401, "api* other"),
            };
            for _ in 0..3 {
                assert_eq!(rig.get(START).await, Ok(outcome), "{stack:?} {at}");
                assert_eq!(way_of_all(&world), expected, "{stack:?} {at}");
            }
        }
        assert_eq!(world.issued(), 1, "{stack:?}");
    }
}

/// Nothing leaks, and it costs no more than a route of the API that always answers 401: renewals at
/// 0, 1, 3, 7, 15, 31 and 63 s. The token stays good for everything else.
#[tokio::test]
async fn p237_with_a_redirect_followed_below_another_host_s_401_costs_a_bounded_number_of_tokens() {
    let world = refused_elsewhere().await;
    let clock = ManualClock::new();
    let cache = TokenCache::builder(world.tokens())
        .clock(clock.clone())
        .build();
    let auth = BearerAuthLayer::for_api("https://api.example/v1", cache).unwrap();
    let rig = Rig::new(Stack::FollowBelow, &world, &auth);
    assert_eq!(rig.get(START).await, Ok(401));
    assert_eq!(way(&world.take_seen()), "api* other api* other");
    assert_eq!(world.issued(), 2);
    for second in 0..100 {
        assert_eq!(rig.get(START).await, Ok(401));
        let way = way(&world.take_seen());
        let once = "api* other";
        assert!(
            way == once || way == format!("{once} {once}"),
            "{second}: {way}"
        );
        assert_eq!(rig.get("https://api.example/v1/good").await, Ok(200));
        assert_eq!(way_of_all(&world), "api*");
        clock.advance(std::time::Duration::from_secs(1));
    }
    assert_eq!(world.issued(), 8);
}

fn way_of_all(world: &World) -> String {
    way(&world.take_seen())
}

/// The API looks at the token, and then redirects.
#[tokio::test]
async fn p237_c13_a_request_that_is_sent_again_takes_the_new_token_to_the_api_alone() {
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
        assert_eq!(way(&seen), expected, "{stack:?}");
        assert_eq!(seen[1].headers["authorization"], "Bearer canary-token-2");
        assert_eq!(world.issued(), 2);
    }
}

/// Below, the whole way is gone again; outside, the last of it.
#[tokio::test]
async fn p237_c13_a_redirect_within_the_api_is_followed_again_with_the_new_token() {
    for &stack in Stack::ALL {
        let world = World::new().await;
        world.answers(Site::Api, "/v1/start", redirect(307, "/v1/landed"));
        let auth = world.layer();
        let rig = Rig::new(stack, &world, &auth);
        assert_eq!(rig.get(START).await, Ok(200));
        assert_eq!(way_of_all(&world), "api* api*");
        world.refuse_at("/v1/landed", "canary-token-1");
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
async fn what_renews_by_the_callers_own_rule_is_the_api_s_word_alone() {
    for &stack in Stack::ALL {
        if stack == Stack::FollowBelow {
            continue;
        }
        let world = refused_elsewhere().await;
        world.answers(Site::Other, "/away", status(419));
        world.answers(Site::Api, "/v1/over", status(419));
        let auth = world.builder().renew_on(|status, _| status == 419);
        let auth = auth.build().unwrap();
        let rig = Rig::new(stack, &world, &auth);
        let _ = rig.get(START).await;
        assert_eq!(world.issued(), 1, "{stack:?}");
        assert_eq!(rig.get("https://api.example/v1/over").await, Ok(419));
        assert_eq!(world.issued(), 2, "{stack:?}");
    }
}

/// An API that sends those whose token is over to a page for people.
#[tokio::test]
async fn a_redirect_that_is_not_followed_can_mean_that_the_token_is_over() {
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
        assert_eq!(way_of_all(&world), "api* api*");
        assert_eq!(world.issued(), 2);
    }
}

/// Under `any_api` a redirect outside the layer is a request like any other, and gets the token;
/// below, it does not leave the origin with it.
#[tokio::test]
async fn p70_any_api_and_redirects() {
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
            // Refused by the layer outside.
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
            assert_eq!(way_of_all(&world), expected, "{stack:?} {location}");
            let refused = stack == Stack::FollowOutside && location.starts_with("http:");
            assert_eq!(
                outcome.is_err(),
                refused,
                "{stack:?} {location} {outcome:?}"
            );
        }
    }
}
