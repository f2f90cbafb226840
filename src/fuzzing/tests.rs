//! The invariants for the seeds, and for valid input with random mutations.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::*;
use crate::parser_testing::{mutated, parse_response};

type Target = (&'static str, fn(&[u8]));

/// The targets of `fuzz/`, by name.
const TARGETS: [Target; 5] = [
    ("callback", callback),
    ("challenge", challenge),
    ("metadata", metadata),
    ("retry_after", retry_after),
    ("token_response", token_response),
];

#[test]
fn every_seed_satisfies_the_invariants() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() && std::env::var_os("CI").is_none() {
        return; // The published package has no `fuzz/`.
    }
    for (target, check) in TARGETS {
        let mut seeds = 0;
        for entry in fs::read_dir(fuzz.join("seeds").join(target)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display()); // Shown if the check fails.
            check(&fs::read(path).unwrap());
            seeds += 1;
        }
        assert!(seeds >= 5, "{target} has {seeds}");
        assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).is_file());
    }
}

/// Derived deserializers also accept a list of the members.
#[test]
fn p96_metadata_as_a_list_are_rejected() {
    let read = |body: &str| {
        let response = parse_response(format!("200\n\n{body}").as_bytes()).unwrap();
        crate::client::metadata::document::invariants::is_read(&response)
    };
    let url = "https://idp.example";
    assert!(read(&format!(
        r#"{{"issuer":"{url}","token_endpoint":"{url}/t"}}"#
    )));
    let nulls = ",null".repeat(7);
    assert!(!read(&format!(r#"["{url}","{url}/t"{nulls}]"#)));
    let aliases = |aliases: &str| {
        let members = format!(r#""issuer":"{url}","token_endpoint":"{url}/t""#);
        read(&format!(
            r#"{{{members},"mtls_endpoint_aliases":{aliases}}}"#
        ))
    };
    assert!(aliases("null") && aliases("{}"));
    assert!(!aliases(&format!(r#"["{url}/t",null,null]"#)));
}

fn one_of(values: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    prop::sample::select(values.to_vec()).prop_map(str::to_owned)
}

/// Any small JSON value.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
        let object = prop::collection::btree_map(any::<String>(), inner, 0..4);
        prop_oneof![list, object.prop_map(|map| map.into_iter().collect())]
    })
}

/// An object with mostly valid members. Some are missing, and some are any JSON.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = String> {
    let members = members.into_iter().map(|(name, valid)| {
        let value = prop_oneof![12 => valid, 1 => json()];
        prop::option::weighted(0.8, (Just(name), value))
    });
    let others = prop::collection::vec((any::<String>(), json()), 0..2);
    (members.collect::<Vec<_>>(), others).prop_map(|(members, others)| {
        let members = members.into_iter().flatten();
        let members = members
            .map(|(name, value)| (name.to_owned(), value))
            .chain(others);
        // Not with serde_json, whose objects have no duplicate members.
        let members = members.map(|(name, value)| format!("{}:{value}", Value::from(name)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

fn text(pattern: &'static str) -> BoxedStrategy<Value> {
    pattern.prop_map(Value::from).boxed()
}

/// Any token that a header can contain.
const TOKEN: &str = "[!-~]{1,40}";

fn token_documents() -> impl Strategy<Value = String> {
    let lifetime = prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        r"[0-9]{1,25}(\.[0-9]{1,25})?".prop_map(Value::from),
        "[-+.0-9eE]{1,6}".prop_map(Value::from),
    ];
    let list = prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from);
    object(vec![
        ("access_token", text(TOKEN)),
        ("token_type", text("bearer|Bearer|BEARER|bEARER|mac")),
        ("expires_in", lifetime.boxed()),
        (
            "scope",
            prop_oneof![any::<String>().prop_map(Value::from), list].boxed(),
        ),
        ("refresh_token", text(".{0,20}")),
        (
            "error",
            prop_oneof![9 => Just(json!("")), 1 => text("[a-z_ ]{0,70}")].boxed(),
        ),
        ("error_description", text(".{0,20}")),
        ("error_uri", text(".{0,20}")),
    ])
}

fn metadata_documents() -> impl Strategy<Value = String> {
    let url = || {
        let valid = ["https://idp.example/a", "https://idp.example:8443/b?c=d"];
        let invalid = [
            "http://idp.example/a",
            "https://u:p@idp.example/",
            "https://h/#f",
            "/a",
        ];
        let loopback = [
            "http://127.0.0.1:1/t",
            "http://[::1]/t",
            "http://localhost/t",
        ];
        prop_oneof![6 => one_of(&valid), 1 => one_of(&invalid), 1 => one_of(&loopback)]
            .prop_map(Value::from)
            .boxed()
    };
    let aliases = (url(), url()).prop_map(
        |(token, revocation)| json!({"token_endpoint": token, "revocation_endpoint": revocation}),
    );
    let flag = || any::<bool>().prop_map(Value::from).boxed();
    let methods = prop::collection::vec("[a-z_]{1,20}", 0..3).prop_map(Value::from);
    object(vec![
        (
            "issuer",
            text("https://idp\\.example|http://127\\.0\\.0\\.1:8080/a"),
        ),
        ("token_endpoint", url()),
        ("authorization_endpoint", url()),
        ("revocation_endpoint", url()),
        ("pushed_authorization_request_endpoint", url()),
        ("require_pushed_authorization_requests", flag()),
        ("token_endpoint_auth_methods_supported", methods.boxed()),
        ("authorization_response_iss_parameter_supported", flag()),
        ("mtls_endpoint_aliases", aliases.boxed()),
    ])
}

/// A response with this body, with or without relevant headers.
fn response(body: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let status = one_of(&["200", "200", "200", "201", "400", "401", "429", "500"]);
    let header = one_of(&[
        "",
        "Content-Type: application/json\n",
        "Content-Type: text/html\nRetry-After: 3\n",
        "error: invalid_grant\nerror_description: canary\n",
    ]);
    (status, header, body)
        .prop_map(|(status, header, body)| format!("{status}\n{header}\n{body}").into_bytes())
}

/// Callbacks with mostly valid parameters.
fn callbacks() -> impl Strategy<Value = Vec<u8>> {
    let address = one_of(&[
        "",
        "",
        "?",
        "/cb/?",
        "https://app.example/cb/?",
        "https://app.example/?",
        "com.example.app:/cb?",
        "https://evil.example/?",
    ]);
    let parameter = prop_oneof![
        2 => ".{0,6}".prop_map(|code| ("code".to_owned(), code)),
        4 => Just(("state".to_owned(), "a b&c=d+e%".to_owned())),
        1 => ".{0,3}".prop_map(|state| ("state".to_owned(), state)),
        1 => one_of(&["https://idp.example", "https://evil.example"]).prop_map(|iss| ("iss".to_owned(), iss)),
        1 => Just(("tenant".to_owned(), "a b".to_owned())),
        1 => Just(("x".to_owned(), String::new())),
        1 => one_of(&["error", "error_description", "other"]).prop_map(|name| (name, "canary".to_owned())),
    ];
    let parameters = prop::collection::vec(parameter, 1..6);
    (
        address,
        parameters,
        one_of(&["", "", "", "#", "#access_token=canary"]),
    )
        .prop_map(|(address, parameters, fragment)| {
            let query = form_urlencoded::Serializer::new(address)
                .extend_pairs(parameters)
                .finish();
            (query.replacen("?&", "?", 1) + &fragment).into_bytes()
        })
}

/// Formats a Unix time in the three formats of RFC 9110 §5.6.7, without httpdate.
fn dates(seconds: u64) -> [String; 3] {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let mut left = seconds / 86_400;
    let name = DAYS[usize::try_from(left % 7).unwrap()];
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 0;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let (day, month, short) = (left + 1, MONTHS[month], &name[..3]);
    let second = seconds % 86_400;
    let time = format!(
        "{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    [
        format!("{short}, {day:02} {month} {year} {time} GMT"),
        format!("{name}, {day:02}-{month}-{:02} {time} GMT", year % 100),
        format!("{short} {month} {day:2} {time} {year}"),
    ]
}

fn parsed_wait(value: &str, now: u64) -> Option<u64> {
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
    let now = UNIX_EPOCH + Duration::from_secs(now);
    crate::client::endpoint::response::retry_after(&headers, Some(now)).map(|wait| wait.as_secs())
}

proptest! {
    #[test]
    fn any_bytes_satisfy_the_invariants(bytes in prop::collection::vec(any::<u8>(), 0..200), status in 0..600u16) {
        for (_, check) in TARGETS {
            check(&bytes);
        }
        let response = [format!("{status}\n\n").as_bytes(), &bytes[..]].concat();
        token_response(&response);
        metadata(&response);
    }

    #[test]
    fn mutated_token_responses_satisfy_the_invariants(response in mutated(response(token_documents()))) {
        token_response(&response);
    }

    #[test]
    fn form_responses_satisfy_the_invariants(
        pairs in prop::collection::vec((one_of(&["access_token", "expires_in", "scope", "error", "x"]), ".{0,9}"), 0..4),
    ) {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        token_response(format!("200\n\n{form}").as_bytes());
        token_response(format!("400\n\n{form}").as_bytes());
    }

    #[test]
    fn mutated_metadata_satisfy_the_invariants(response in mutated(response(metadata_documents()))) {
        metadata(&response);
    }

    #[test]
    fn p25_mutated_callbacks_satisfy_the_invariants(address in mutated(callbacks())) {
        callback(&address);
    }

    #[test]
    fn p236_formatted_retry_after_is_parsed_back(
        value in mutated(prop_oneof![
            any::<u64>().prop_map(|seconds| seconds.to_string().into_bytes()),
            (0..253_402_300_800u64).prop_map(|seconds| dates(seconds)[0].clone().into_bytes()),
        ]),
        now in 0..2_000_000_000u64,
        wait in 0..31_536_000u64,
        seconds: u64,
    ) {
        retry_after(&value);
        prop_assert_eq!(parsed_wait(&seconds.to_string(), now), Some(seconds.min(31_536_000)));
        let [fixed, rfc850, asctime] = dates(now + wait);
        for date in [&fixed, &asctime] {
            prop_assert_eq!(parsed_wait(date, now), Some(wait), "{}", date);
            // A date in the past is no wait.
            prop_assert_eq!(parsed_wait(date, now + wait + 1), Some(0), "{}", date);
        }
        // RFC 850 has two-digit years: 70 to 69 for 1970 to 2069.
        prop_assert_eq!(parsed_wait(&rfc850, now), Some(wait), "{}", rfc850);
    }

    #[test]
    fn valid_token_response_is_parsed_to_its_values(
        token in TOKEN,
        lifetime in prop::option::of(0..1u64 << 53),
        scope in prop::option::of(any::<String>()),
        refresh_token in prop::option::of(".{1,20}"),
        other in json(),
        pretty: bool,
    ) {
        let document = json!({
            "a": other, "access_token": token, "token_type": "Bearer", "expires_in": lifetime,
            "scope": scope, "refresh_token": refresh_token, "z": other,
        });
        let body = if pretty { format!("{document:#}") } else { document.to_string() };
        let read = crate::client::endpoint::response::invariants::outcome_of(&format!("200\n\n{body}"));
        prop_assert_eq!(read, Some((token, lifetime, scope, refresh_token)));
    }
}
