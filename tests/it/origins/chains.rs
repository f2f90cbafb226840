//! Several redirects in a row, and the statements about them in the documentation.

use bearer_auth::BearerAuthLayer;
use http::{HeaderName, Request, header::AUTHORIZATION};
use tower::Layer as _;
use tower_http::follow_redirect::{FollowRedirectLayer, policy::Limited};

use crate::origins::{
    route,
    stacks::{Rig, Stack},
    world::*,
};

const START: &str = "https://api.example/v1/start";

/// Makes each stop redirect to the next, from the API's `/v1/start` on.
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

async fn routes(stops: &[(Site, &str)]) -> Vec<(Stack, String)> {
    let mut routes = Vec::new();
    for &stack in Stack::ALL {
        let world = World::new().await;
        lead(&world, stops);
        let _ = Rig::new(stack, &world, &world.layer()).get(START).await;
        routes.push((stack, route(&world.take_seen())));
    }
    routes
}

/// The same for reqwest and reqwest-middleware.
fn assert_routes(
    routes: Vec<(Stack, String)>,
    reqwest: &str,
    policy: &str,
    outside: &str,
    below: &str,
) {
    for (stack, route) in routes {
        let expected = match stack {
            Stack::Reqwest | Stack::Middleware => reqwest,
            Stack::ReqwestWithPolicy | Stack::MiddlewareWithPolicy => policy,
            Stack::FollowOutside => outside,
            Stack::FollowBelow => below,
        };
        assert_eq!(route, expected, "{stack:?}");
    }
}

#[tokio::test]
async fn p237_c19_redirects_within_the_api_then_to_another_host_drop_the_token() {
    let stops = [
        (Site::Api, "/v1/on"),
        (Site::Api, "/v1/further"),
        (Site::Other, "https://evil.example/landed"),
    ];
    let all = "api* api* api* other";
    assert_routes(routes(&stops).await, all, "api* api* api*", all, all);
}

/// An inner redirect has removed the token by then, so the API answers 401 to a request without a
/// token. The layer replaces the token and resends once.
#[tokio::test]
async fn p237_c19_redirect_to_another_host_and_back_to_the_api() {
    for away in ["https://evil.example/back", "http://api.example/back"] {
        let site = if away.contains("evil") {
            Site::Other
        } else {
            Site::Api
        };
        let stops = [(site, away), (Site::Api, "https://api.example/v1/landed")];
        let below = "api* other api api* other api";
        assert_routes(
            routes(&stops).await,
            below,
            "api*",
            "api* other api*",
            below,
        );
    }
}

#[tokio::test]
async fn request_to_another_host_gets_no_token_when_redirected_to_the_api() {
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
            // The redirect to the API passes the layer as a request of its own.
            Stack::FollowOutside => "other api* other",
            _ => "other api other",
        };
        assert_eq!(route(&world.take_seen()), expected, "{stack:?}");
        assert_eq!(world.issued(), usize::from(stack == Stack::FollowOutside));
    }
}

#[tokio::test]
async fn redirect_loop_ends() {
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

/// Shows why `redirect_policy` is needed: reqwest removes `Authorization` for the first request to
/// another host only. If that host redirects within itself, the next request has the token again.
/// tower-http up to 0.6, which reqwest 0.13.5 contains, did the same. **When this test fails because
/// they have fixed it, update the documentation of `BearerAuthLayer`.**
#[tokio::test]
async fn p237_c19_reqwest_without_the_policy_leaks_on_the_second_redirect() {
    let stops = [
        (Site::Other, "https://evil.example/on"),
        (Site::Other, "/landed"),
    ];
    let away = "api* other other";
    assert_routes(
        routes(&stops).await,
        "api* other other*",
        "api*",
        away,
        away,
    );
}

const OWN: HeaderName = HeaderName::from_static("x-amz-access-token");

/// HTTP clients do not know that a custom header is secret: an inner redirect sends it to the other
/// host at once.
#[tokio::test]
async fn p237_c19_reqwest_without_the_policy_leaks_a_custom_header() {
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
        assert_eq!(route(&seen), expected, "{stack:?}");
    }
}

/// Redirects outside the layer never have the token, whatever their policy.
#[tokio::test]
async fn p237_c19_outer_redirects_that_keep_credentials_have_no_token() {
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
        assert_eq!(route(&world.take_seen()), expected);
    }
}

/// The caller's `Proxy-Authorization`, which the layer neither adds nor removes.
#[tokio::test]
async fn p234_proxy_authorization_is_left_alone() {
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
