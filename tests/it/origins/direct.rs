//! URLs as callers write them, and which of them get the token.
//!
//! Origins are compared as written, except for case, the default port, and userinfo. Other spellings
//! of the same machine (of an IP address, or with a trailing dot) are other origins: a missing token
//! is an error that the caller sees. `url::Url` (and so reqwest) normalizes a URL when it parses it,
//! before the layer sees it. Base URLs are normalized in the same way.

use bearer_auth::BearerAuthLayer;
use tower::{Layer as _, ServiceExt as _};

use crate::origins::{route, stacks::Rig, world::*};

/// A URL, and its route as an `http::Uri` (hyper) and as a `Url` (reqwest). `None`: it does not parse.
/// `NOWHERE`: it reaches neither host.
type Row = (&'static str, Option<&'static str>, Option<&'static str>);

const API: Option<&str> = Some("api*");
const OUTSIDE: Option<&str> = Some("outside");
const OTHER: Option<&str> = Some("other");
const NOWHERE: Option<&str> = Some("");

const URLS: &[Row] = &[
    ("https://api.example/v1", API, API),
    ("https://api.example/v1/", API, API),
    ("https://api.example/v1/x?y=/../..", API, API),
    ("HTTPS://API.EXAMPLE/v1/x", API, API),
    ("https://Api.Example:443/v1/x", API, API),
    ("https://api.example:/v1/x", API, API),
    // `http::Uri` accepts any five digits as a port. Above 65535, the layer and hyper use the default
    // port.
    ("https://api.example:0443/v1/x", API, API),
    ("https://api.example:65979/v1/x", API, None),
    ("https://user:pass@api.example/v1/x", API, API),
    ("https://evil.example:1@api.example/v1/x", API, API),
    // Only `Url` parses and normalizes these.
    ("https://ａｐｉ.example/v1/x", None, API),
    ("https://api。example/v1/x", None, API),
    ("https://%61pi.example/v1/x", None, API),
    ("https://api.ex\tample/v1/x", None, API),
    (" https:\\\\api.example\\v1\\x\n", None, API),
    ("https:api.example/v1/x", None, API),
    ("https:////api.example/v1/x", None, API),
    // Another path.
    ("https://api.example", OUTSIDE, OUTSIDE),
    ("https://api.example/V1/x", OUTSIDE, OUTSIDE),
    ("https://api.example/v11", OUTSIDE, OUTSIDE),
    ("https://api.example//v1/x", OUTSIDE, OUTSIDE),
    ("https://api.example/v1/../v2", OUTSIDE, OUTSIDE),
    ("https://api.example/v1/..%2fv2", OUTSIDE, OUTSIDE),
    ("https://api.example/v2/../v1/x", OUTSIDE, API),
    ("https://api.example?@evil.example/v1/x", OUTSIDE, OUTSIDE),
    ("https://api.example\\@evil.example/v1/x", None, OUTSIDE),
    // Another origin.
    ("http://api.example/v1/x", OTHER, OTHER),
    // reqwest connects to the real port 443.
    ("http://api.example:443/v1/x", OTHER, NOWHERE),
    ("https://api.example:<api>/v1/x", OTHER, OTHER),
    ("https://api.example:<other>/v1/x", OTHER, OTHER),
    ("https://api.example./v1/x", OTHER, OTHER),
    ("https://api.example@evil.example/v1/x", OTHER, OTHER),
    ("https://api.example:443@evil.example/v1/x", OTHER, OTHER),
    ("https://evil.example\\@api.example/v1/x", None, OTHER),
    ("https://api.example.evil.example/v1/x", OTHER, OTHER),
    ("https://evilapi.example/v1/x", OTHER, OTHER),
    ("https://api.exampl/v1/x", OTHER, OTHER),
    ("https://xn--pi-7kc.example/v1/x", OTHER, OTHER),
    ("https://аpi.example/v1/x", None, OTHER),
    ("ftp://api.example/v1/x", NOWHERE, NOWHERE),
    ("https://api.example%2f@evil.example/v1/x", OTHER, OTHER),
    ("https://api.example%00/v1/x", None, None),
    ("https://[::1/v1/x", None, None),
];

#[tokio::test]
async fn only_urls_below_the_base_url_get_the_token() {
    let world = World::new().await;
    check(&world, world.layer(), URLS).await;
}

#[tokio::test]
async fn base_url_is_normalized_like_request_urls() {
    for base in ["HTTPS://API.Example:443/v1/", "https://ａｐｉ。example/v1"] {
        let world = World::new().await;
        let auth = BearerAuthLayer::for_api(base, world.tokens()).unwrap();
        check(&world, auth, URLS).await;
    }
}

/// Whether a request arrives with the token, sent as a `Uri` and as a `Url`. `None`: it does not
/// parse.
async fn tokens(world: &World, auth: &BearerAuthLayer, url: &str) -> [Option<bool>; 2] {
    let came = || world.take_seen().first().unwrap().has_token();
    let uri = match url.parse::<http::Uri>() {
        Ok(_) => {
            let _ = Rig::of(auth.layer(world.hyper())).get(url).await;
            Some(came())
        }
        Err(_) => None,
    };
    let reqwest = auth.layer(world.reqwest().build().unwrap());
    let url = match url.parse() {
        Ok(url) => {
            let _ = reqwest
                .oneshot(reqwest::Request::new(reqwest::Method::GET, url))
                .await;
            Some(came())
        }
        Err(_) => None,
    };
    [uri, url]
}

#[tokio::test]
async fn international_host_names_are_compared_in_ascii() {
    let world = World::new().await;
    let base = |url: &str| BearerAuthLayer::for_api(url, world.tokens()).unwrap();
    for auth in [
        base("https://bücher.example/v1"),
        base("https://XN--BCHER-KVA.example/v1"),
    ] {
        for (url, expected) in [
            ("https://xn--bcher-kva.example/v1/x", [Some(true); 2]),
            ("https://Xn--Bcher-Kva.example/v1/x", [Some(true); 2]),
            ("https://bücher.example/v1/x", [None, Some(true)]),
            ("https://BÜCHER.example/v1/x", [None, Some(true)]),
            ("https://bu\u{308}cher.example/v1/x", [None, Some(true)]),
            ("https://b%C3%BCcher.example/v1/x", [None, Some(true)]),
            ("https://bucher.example/v1/x", [Some(false); 2]),
            ("https://bуcher.example/v1/x", [None, Some(false)]),
            (
                "https://xn--bcher-kva.xn--example/v1/x",
                [Some(false), None],
            ),
        ] {
            assert_eq!(tokens(&world, &auth, url).await, expected, "{url}");
        }
    }
}

/// With a trailing dot in the base URL, the name without the dot is another origin.
#[tokio::test]
async fn trailing_dot_is_part_of_the_host_name() {
    let world = World::new().await;
    let auth = BearerAuthLayer::for_api("https://api.example./v1", world.tokens()).unwrap();
    for (url, expected) in [
        ("https://api.example./v1/x", true),
        ("https://API.example.:443/v1/x", true),
        ("https://api.example/v1/x", false),
    ] {
        assert_eq!(
            tokens(&world, &auth, url).await,
            [Some(expected); 2],
            "{url}"
        );
    }
}

/// `Url` normalizes IP addresses; for `Uri`, the spelling counts.
#[tokio::test]
async fn ip_addresses_are_compared_as_written() {
    let world = World::new().await;
    let port = world.ports().api;
    let base = format!("http://127.0.0.1:{port}/v1");
    let auth = BearerAuthLayer::for_api(base, world.tokens()).unwrap();
    for (host, expected) in [
        ("127.0.0.1", [Some(true); 2]),
        ("127.1", [Some(false), Some(true)]),
        ("0x7f.1", [Some(false), Some(true)]),
        ("0177.0.0.1", [Some(false), Some(true)]),
        ("2130706433", [Some(false), Some(true)]),
        ("127.0.0.1.", [Some(false), Some(true)]),
        ("localhost", [Some(false); 2]),
    ] {
        let url = format!("http://{host}:{port}/v1/x");
        assert_eq!(tokens(&world, &auth, &url).await, expected, "{url}");
    }
}

/// Under `any_api`, other spellings of loopback count as plain HTTP to a foreign host.
#[tokio::test]
async fn p70_any_api_allows_plain_http_only_to_literal_loopback() {
    let world = World::new().await;
    let auth = BearerAuthLayer::builder(world.tokens())
        .any_api()
        .build()
        .unwrap();
    let port = world.ports().other;
    let hyper = Rig::of(auth.layer(world.hyper()));
    for host in [
        "127.1",
        "0x7f.1",
        "2130706433",
        "127.0.0.1.",
        "localhost.",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost:1@evil.example",
        "[::ffff:127.0.0.1]",
        "evil.example",
    ] {
        let error = hyper
            .get(&format!("http://{host}:{port}/"))
            .await
            .unwrap_err();
        assert!(error.contains("plain http"), "{error}");
    }
    assert!(world.take_seen().is_empty());
    for host in ["127.0.0.1", "localhost", "user@127.0.0.1"] {
        let _ = hyper.get(&format!("http://{host}:{port}/")).await;
        assert!(world.take_seen()[0].has_token(), "{host}");
    }
}

async fn check(world: &World, auth: BearerAuthLayer, rows: &[Row]) {
    let hyper = Rig::of(auth.layer(world.hyper()));
    let policy = reqwest::redirect::Policy::none();
    let reqwest = auth.layer(world.reqwest().redirect(policy).build().unwrap());
    let mut wrong = Vec::new();
    for &(url, by_uri, by_url) in rows {
        let url = url
            .replace("<other>", &world.ports().other.to_string())
            .replace("<api>", &world.ports().api.to_string());
        let mut routes = [None, None];
        if url.parse::<http::Uri>().is_ok() {
            let _ = hyper.get(&url).await;
            routes[0] = Some(route(&world.take_seen()));
        }
        if let Ok(url) = url.parse() {
            let request = reqwest::Request::new(reqwest::Method::GET, url);
            let _ = reqwest.clone().oneshot(request).await;
            routes[1] = Some(route(&world.take_seen()));
        }
        if routes.each_ref().map(Option::as_deref) != [by_uri, by_url] {
            wrong.push(format!("{url}: {routes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
