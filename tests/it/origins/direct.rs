//! URLs as callers write them, and which of them are the API's.
//!
//! An origin is compared as it is written, but for case, the scheme's port, and userinfo. Whatever
//! else leads to the same machine (another spelling of an address, a dot at the end) is somebody
//! else's: a token less is an error that is seen. What a `url::Url` (so reqwest) folds when it is
//! parsed is folded before the layer sees it, as it is in base URLs.

use bearer_auth::BearerAuthLayer;
use tower::{Layer as _, ServiceExt as _};

use crate::origins::{stacks::Rig, way, world::*};

/// What is asked for, and what comes of it with an `http::Uri` (hyper) and with a `Url` (reqwest);
/// `None`: it is not one. `"nobody"`: it reaches nobody here.
type Row = (&'static str, Option<&'static str>, Option<&'static str>);

const API: Option<&str> = Some("api*");
const OUTSIDE: Option<&str> = Some("outside");
const OTHER: Option<&str> = Some("other");
const NOBODY: Option<&str> = Some("");

const URLS: &[Row] = &[
    ("https://api.example/v1", API, API),
    ("https://api.example/v1/", API, API),
    ("https://api.example/v1/x?y=/../..", API, API),
    ("HTTPS://API.EXAMPLE/v1/x", API, API),
    ("https://Api.Example:443/v1/x", API, API),
    ("https://api.example:/v1/x", API, API),
    // Of `http`, whose ports are no longer than five digits, there are those that are no port: it is
    // the scheme's then, for the layer and for hyper.
    ("https://api.example:0443/v1/x", API, API),
    ("https://api.example:65979/v1/x", API, None),
    ("https://user:pass@api.example/v1/x", API, API),
    ("https://evil.example:1@api.example/v1/x", API, API),
    // What only a `Url` takes, and folds.
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
    // reqwest goes to the real port 443.
    ("http://api.example:443/v1/x", OTHER, NOBODY),
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
    ("ftp://api.example/v1/x", NOBODY, NOBODY),
    ("https://api.example%2f@evil.example/v1/x", OTHER, OTHER),
    ("https://api.example%00/v1/x", None, None),
    ("https://[::1/v1/x", None, None),
];

#[tokio::test]
async fn urls_that_are_the_api_s_and_urls_that_are_not() {
    let world = World::new().await;
    check(&world, world.layer(), URLS).await;
}

#[tokio::test]
async fn a_base_url_is_folded_as_requests_are() {
    for base in ["HTTPS://API.Example:443/v1/", "https://ａｐｉ。example/v1"] {
        let world = World::new().await;
        let auth = BearerAuthLayer::for_api(base, world.tokens()).unwrap();
        check(&world, auth, URLS).await;
    }
}

/// A request for a URL, by a `Uri` and by a `Url`: whether it came with the token. `None`: it is not
/// one.
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
async fn names_in_any_alphabet_are_those_of_idna() {
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

/// Of a base URL as well: then it is the name without it that is somebody else's.
#[tokio::test]
async fn a_dot_at_the_end_is_part_of_the_name() {
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

/// A `Url` knows the spellings of one address; of a `Uri`, it is the spelling that counts.
#[tokio::test]
async fn addresses_are_compared_as_they_are_spelled() {
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

/// And what is not spelled as loopback is plain text to anywhere.
#[tokio::test]
async fn p70_under_any_api_loopback_is_what_is_spelled_so() {
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
        let mut ways = [None, None];
        if url.parse::<http::Uri>().is_ok() {
            let _ = hyper.get(&url).await;
            ways[0] = Some(way(&world.take_seen()));
        }
        if let Ok(url) = url.parse() {
            let request = reqwest::Request::new(reqwest::Method::GET, url);
            let _ = reqwest.clone().oneshot(request).await;
            ways[1] = Some(way(&world.take_seen()));
        }
        if ways.each_ref().map(Option::as_deref) != [by_uri, by_url] {
            wrong.push(format!("{url}: {ways:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
