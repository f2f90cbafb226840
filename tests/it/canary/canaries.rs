//! The search finds secrets in every encoding.

use std::collections::BTreeSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use url::form_urlencoded::byte_serialize;

use crate::support::canary::canaries::{Canaries, PIECE, Secret};

fn finds(text: impl AsRef<[u8]>, secret: Secret) -> bool {
    let found = Canaries::new().search(text.as_ref());
    found.iter().any(|found| found.secret == secret)
}

fn percent_all(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn search_finds_secrets_in_every_encoding() {
    for secret in Secret::FIXED {
        let text = secret.text();
        let bytes = text.as_bytes();
        let form: String = byte_serialize(bytes).collect();
        let json = serde_json::to_string(&text).unwrap();
        let pair = format!("client:{form}");
        let chars: Vec<char> = text.chars().collect();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut shapes = vec![
            ("raw", text.clone()),
            ("inside", format!("a{text}b")),
            ("lower case", text.to_lowercase()),
            ("upper case", text.to_uppercase()),
            ("form", form.clone()),
            ("percent", percent_all(&text)),
            ("percent twice", percent_all(&percent_all(&text))),
            ("Debug", format!("{text:?}")),
            ("Debug of Debug", format!("{:?}", format!("{text:?}"))),
            ("JSON", json.clone()),
            ("JSON in Debug", format!("{json:?}")),
            (
                "Debug of bytes",
                format!("{:?}", bytes::Bytes::from(text.clone())),
            ),
            ("list of bytes", format!("{bytes:?}")),
            ("long list of bytes", format!("{bytes:#?}")),
            ("list of hex bytes", format!("{bytes:#x?}")),
            ("list of characters", format!("{chars:?}")),
            ("hex", hex.clone()),
            ("upper case hex", hex.to_uppercase()),
            ("hex behind a digit", format!("f{hex}")),
            ("Basic", format!("Basic {}", STANDARD.encode(&pair))),
            (
                "Basic in Debug of bytes",
                format!("{:?}", STANDARD.encode(&pair).as_bytes()),
            ),
        ];
        for before in 0..3 {
            let padded = format!("{}{text}", "x".repeat(before));
            shapes.push(("base64", STANDARD.encode(&padded)));
            shapes.push(("base64url", URL_SAFE_NO_PAD.encode(&padded)));
            shapes.push((
                "base64 behind a letter",
                format!("Z{}", STANDARD.encode(&padded)),
            ));
        }
        for (shape, shaped) in shapes {
            assert!(finds(&shaped, secret), "{secret:?}, {shape}: {shaped}");
        }
    }
}

#[test]
fn search_finds_a_piece_of_a_secret() {
    for secret in Secret::FIXED {
        let text = secret.text();
        let first: String = text.chars().take(PIECE).collect();
        let last: String = text.chars().skip(text.chars().count() - PIECE).collect();
        for piece in [first, last] {
            assert!(finds(&piece, secret), "{secret:?}: {piece}");
            let encoded = STANDARD.encode(format!("{piece}..."));
            assert!(finds(&encoded, secret), "{secret:?}: {encoded}");
        }
    }
}

/// Almost every piece of this secret is escaped in `Debug`.
#[test]
fn search_finds_a_secret_of_escaped_characters() {
    let odd = "a\"b c\\d e\"f\\g h\"i j\\k";
    let mut canaries = Canaries::new();
    canaries.add(Secret::Hint, odd.as_bytes());
    let form: String = byte_serialize(odd.as_bytes()).collect();
    for shape in [
        format!("{odd:?}"),
        format!("{:?}", format!("{odd:?}")),
        form,
    ] {
        let found = canaries.search(shape.as_bytes());
        assert!(!found.is_empty(), "{shape}");
    }
}

#[test]
fn search_finds_nothing_in_text_without_secrets() {
    let canaries = Canaries::new();
    let sources = include_str!("../../support/canary/canaries.rs").repeat(3);
    assert_eq!(canaries.search(sources.as_bytes()), BTreeSet::new());
    // No secret is taken for another.
    for secret in Secret::FIXED {
        let found = canaries.search(secret.text().as_bytes());
        assert!(
            found.iter().all(|found| found.secret == secret),
            "{found:?}"
        );
    }
}
