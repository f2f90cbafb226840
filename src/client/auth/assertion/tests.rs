//! Assertions verified by `jsonwebtoken`, and keys in all formats.

use std::time::{Duration, SystemTime};

use aws_lc_rs::{
    encoding::{AsBigEndian as _, AsDer as _},
    rsa::{KeySize, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::HeaderMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Settings, Signer, Statement, assertion};
use crate::{
    client::{
        auth::{ClientAuth, key::SigningKey, key_pair::SigningAlgorithm},
        form::Form,
    },
    error::ConfigError,
};

/// An RSA key of 1024 bits, generated for this test: too short.
const TEST_KEY_TOO_SHORT: &str = "\
-----BEGIN RSA PRIVATE KEY-----\n\
MIICXAIBAAKBgQDBa4WHhEkieMU6J8mzY36Ti1k2ybX6QSFv7kM6GU1YR1ODVXNx\n\
zKxvujSU9Me43nV7vWU7QWwZ25NGLUbbBBiaLzJhwlHpzloj59sqyLnQKd8RpsPM\n\
BgWgMVjoTCHfHai2cGyapyjxLOzMH3xFanMczJy07c9q6Gn00Fc9KetnjQIDAQAB\n\
AoGBALKN49Lal/kurEOnf1gPPUZPmaguRcQkZA3EUmNMAE7CaaIQPGaNn5H0v53S\n\
6p0LIEF+8fjlyDmGrkpWedatzVbK+eCfAqA0X+EPudENfpIosUgoFjfANK4GHMMt\n\
z21/01BQ5XmgciU/+nNn/fZqtK/y0GD0aUZS4P48ZKgMKPyBAkEA+svznUdOV05r\n\
qTTQ0yXX7DjXS7YAQZL1yz57NlauGaPBaZOFwly6BkWZl6RfVE4fGAGd/gbORQvU\n\
BrxJpeY1KQJBAMVu07p/crqydv+FoYG9m7HUQxVgxBtTRq2efcNN3DRfVt90WLk3\n\
F/K1q+CCyVxjvXDm5oJVSTphhoEva8B5Z8UCQCogF8tTLtV7VpoVRP4yXRJQedk9\n\
uM1K4f5BgHCgHp4v40zYep8q9BQZnLLb6Sc/9/kQTHleq0btta9r8PLsuAECQDiW\n\
a1ko7llUjYbvZjspfVaa4B9gfNTYKYnZw3IW/uaD7QJe9o8fm12VdI4E7nHspH+X\n\
rrnsd/Cjw0mDrf6czYECQAl6mztKf7PijHcDZsprsjkkqTGGgaqaVM8e+yYFbvgL\n\
mLmqc6y2ZSVqfzq57eosAThKYHJUCnPxu+yC9iDownI=\n\
-----END RSA PRIVATE KEY-----\n\
";

const SECRET: &str = "canary-canary-canary-canary-0032";
const ISSUER: &str = "https://idp.example";

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn url64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key in each of its formats, and the key that verifies its signatures.
struct Made {
    pems: Vec<String>,
    jwk: Value,
    public: DecodingKey,
    algorithms: Vec<(SigningAlgorithm, Algorithm)>,
}

fn rsa() -> Made {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = pair.as_der().unwrap();
    // PKCS#8 is PKCS#1 after 26 bytes of lengths, version and identifier.
    let pkcs1 = &pkcs8.as_ref()[26..];
    let numbers = integers(pkcs1);
    let number = |index: usize| url64(&numbers[index]);
    let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    assert_eq!(public.n, numbers[1]);
    Made {
        pems: vec![
            pem("PRIVATE KEY", pkcs8.as_ref()),
            pem("RSA PRIVATE KEY", pkcs1),
        ],
        jwk: json!({
            "kty": "RSA", "n": number(1), "e": number(2), "d": number(3), "p": number(4),
            "q": number(5), "dp": number(6), "dq": number(7), "qi": number(8),
        }),
        public: DecodingKey::from_rsa_raw_components(&public.n, &public.e),
        algorithms: vec![
            (SigningAlgorithm::Rs256, Algorithm::RS256),
            (SigningAlgorithm::Ps256, Algorithm::PS256),
        ],
    }
}

fn p256() -> Made {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let sec1 = pair.private_key().as_der().unwrap();
    let point = pair.public_key().as_ref();
    Made {
        pems: vec![
            pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
            pem("EC PRIVATE KEY", sec1.as_ref()),
        ],
        jwk: json!({
            "kty": "EC", "crv": "P-256", "x": url64(&point[1..33]), "y": url64(&point[33..]),
            "d": url64(pair.private_key().as_be_bytes().unwrap().as_ref()),
        }),
        public: DecodingKey::from_ec_der(point),
        algorithms: vec![(SigningAlgorithm::Es256, Algorithm::ES256)],
    }
}

fn ed25519() -> Made {
    let pair = Ed25519KeyPair::generate().unwrap();
    let point = pair.public_key().as_ref();
    Made {
        pems: vec![
            pem("PRIVATE KEY", pair.to_pkcs8().unwrap().as_ref()),
            pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
        ],
        jwk: json!({
            "kty": "OKP", "crv": "Ed25519", "x": url64(point),
            "d": url64(pair.seed().unwrap().as_be_bytes().unwrap().as_ref()),
        }),
        public: DecodingKey::from_ed_der(point),
        algorithms: vec![(SigningAlgorithm::EdDsa, Algorithm::EdDSA)],
    }
}

/// Returns the integers of a DER sequence, without leading zeros.
fn integers(der: &[u8]) -> Vec<Vec<u8>> {
    fn length(der: &mut &[u8]) -> usize {
        let (first, rest) = der.split_first().unwrap();
        let size = usize::from(first.saturating_sub(0x80));
        let (bytes, rest) = if size == 0 {
            (&[*first][..], rest)
        } else {
            rest.split_at(size)
        };
        let length = bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        *der = rest;
        length
    }
    let mut rest = &der[1..];
    length(&mut rest);
    let mut integers = Vec::new();
    while let Some((2, tail)) = rest.split_first() {
        rest = tail;
        let size = length(&mut rest);
        let (integer, tail) = rest.split_at(size);
        let zeros = integer.iter().take_while(|byte| **byte == 0).count();
        integers.push(integer[zeros..].to_vec());
        rest = tail;
    }
    integers
}

/// The claims of client authentication.
const CLIENT: Statement<'_> = Statement {
    issuer: "client-id",
    subject: Some("client-id"),
    audience: ISSUER,
    claims: &[],
};

fn signed(key: &SigningKey, settings: &Settings) -> String {
    signed_at(1_800_000_000_900, key, settings)
}

fn signed_at(millis: u64, key: &SigningKey, settings: &Settings) -> String {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    let whole = assertion(Signer::Key(key), settings, CLIENT, now);
    whole.unwrap().to_string()
}

/// Returns header and claims after verifying the signature.
fn read(assertion: &str, public: &DecodingKey, algorithm: Algorithm) -> (Value, Value) {
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[ISSUER]);
    // The tests use a fixed time.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(assertion, public, &validation).unwrap();
    (parts(assertion).0, claims.claims)
}

fn parts(assertion: &str) -> (Value, Value) {
    let json = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let [header, claims, _] = assertion.split('.').collect::<Vec<_>>()[..] else {
        panic!("not three parts");
    };
    (json(header), json(claims))
}

#[track_caller]
fn assert_rejected(key: Result<SigningKey, ConfigError>, reason: &str) {
    let error = key.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert_eq!(error.field(), "signing_key");
    assert!(shown.contains(reason), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

fn check(auth: &ClientAuth, secret: &str) -> Result<(), ConfigError> {
    auth.check("client-id", &SecretString::from(secret))
}

/// Returns the form of a request with this method.
fn form(auth: &ClientAuth, server: &str) -> Vec<(String, String)> {
    check(auth, SECRET).unwrap();
    let (mut headers, mut form) = (HeaderMap::new(), Form::default());
    auth.apply("client-id", &SECRET.into(), server, &mut headers, &mut form)
        .unwrap();
    assert!(headers.is_empty(), "one method only");
    url::form_urlencoded::parse(form.encode().as_bytes())
        .into_owned()
        .collect()
}

#[test]
fn p135_key_in_every_format_signs_verifiable_assertions() {
    for made in [rsa(), p256(), ed25519()] {
        let pems = made.pems.iter().cloned().map(SigningKey::from_pem);
        let jwk = SigningKey::from_jwk(made.jwk.to_string());
        for key in pems.chain([jwk]) {
            let key = key.unwrap();
            let (default, _) = parts(&signed(&key, &Settings::default()));
            assert_eq!(default["alg"], made.algorithms[0].0.name());
            for (ours, theirs) in &made.algorithms {
                let key = key.clone().algorithm(*ours).key_id("k1");
                assert!(key.check().is_ok());
                let assertion = signed(&key, &Settings::default());
                let (header, claims) = read(&assertion, &made.public, *theirs);
                assert_eq!(
                    header,
                    json!({"alg": ours.name(), "typ": "JWT", "kid": "k1"})
                );
                assert_eq!(claims["iss"], "client-id");
            }
        }
    }
}

#[test]
fn p135_p136_client_secret_jwt_signs_with_hs256() {
    let now = SystemTime::UNIX_EPOCH;
    let secret = SecretString::from(SECRET);
    let settings = Settings::default();
    let whole = assertion(Signer::Secret(&secret), &settings, CLIENT, now).unwrap();
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let (header, _) = read(&whole, &key, Algorithm::HS256);
    assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
    assert!(!whole.contains("canary"));
}

#[test]
fn p130_p131_p134_assertion_has_exactly_the_expected_claims() {
    let key = SigningKey::from_pem(ed25519().pems.remove(0)).unwrap();
    let (_, mut claims) = parts(&signed(&key, &Settings::default()));
    assert_eq!(claims["jti"].as_str().unwrap().len(), 22, "128 bits");
    claims["jti"] = json!("");
    assert_eq!(
        claims,
        json!({
            "iss": "client-id", "sub": "client-id", "aud": ISSUER, "jti": "",
            "iat": 1_800_000_000, "exp": 1_800_000_060,
        }),
        "a minute, and no `nbf`"
    );
    let settings = Settings {
        audience: Some("https://idp.example/token".to_owned()),
        lifetime: Some(Duration::from_secs(300)),
        not_before: true,
        ..Settings::default()
    };
    let (_, claims) = parts(&signed(&key, &settings));
    assert_eq!(claims["aud"], "https://idp.example/token");
    assert_eq!(claims["exp"], 1_800_000_300);
    assert_eq!(claims["nbf"], claims["iat"]);
}

#[test]
fn p127_p134_iat_and_exp_follow_the_time_of_signing() {
    let key = SigningKey::from_pem(ed25519().pems.remove(0)).unwrap();
    let at = |seconds: u64| {
        let (_, claims) = parts(&signed_at(seconds * 1000, &key, &Settings::default()));
        let time = |name: &str| claims[name].as_u64().unwrap();
        (time("iat"), time("exp"))
    };
    assert_eq!(at(1_000), (1_000, 1_060));
    assert_eq!(at(4_600), (4_600, 4_660));
}

#[test]
fn p133_assertion_type_is_jwt_unless_configured() {
    let key = SigningKey::from_pem(ed25519().pems.remove(0)).unwrap();
    for (typ, expected) in [
        (None, json!({"alg": "EdDSA", "typ": "JWT"})),
        (Some("x+jwt"), json!({"alg": "EdDSA", "typ": "x+jwt"})),
        (Some(""), json!({"alg": "EdDSA"})),
    ] {
        let typ = typ.map(str::to_owned);
        let settings = Settings {
            typ,
            ..Settings::default()
        };
        assert_eq!(parts(&signed(&key, &settings)).0, expected);
    }
}

#[test]
fn p134_assertion_lifetime_out_of_range_is_a_configuration_error() {
    for (lifetime, valid) in [
        (0, false),
        (999, false),
        (1_000, true),
        (300_000, true),
        (300_001, false),
    ] {
        let lifetime = Duration::from_millis(lifetime);
        let auth = ClientAuth::client_secret_jwt().assertion_lifetime(lifetime);
        match check(&auth, SECRET) {
            Ok(()) => assert!(valid, "{lifetime:?}"),
            Err(error) => {
                assert!(!valid, "{lifetime:?}");
                assert_eq!(error.field(), "assertion_lifetime");
            }
        }
    }
}

#[test]
fn p134_every_assertion_has_a_unique_jti() {
    let auth = ClientAuth::client_secret_jwt();
    let ids: std::collections::BTreeSet<_> = (0..100)
        .map(|_| {
            let form = form(&auth, ISSUER);
            let (_, assertion) = form.last().unwrap();
            parts(assertion).1["jti"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn p128_p129_request_has_only_the_assertion_parameters() {
    let key = SigningKey::from_pem(ed25519().pems.remove(0)).unwrap();
    for auth in [
        ClientAuth::client_secret_jwt(),
        ClientAuth::private_key_jwt(key),
    ] {
        let form = form(&auth, ISSUER);
        let names: Vec<_> = form.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["client_id", "client_assertion_type", "client_assertion"];
        assert_eq!(names, expected);
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(
            (form[0].1.as_str(), form[1].1.as_str()),
            ("client-id", kind)
        );
        assert_eq!(parts(&form[2].1).1["sub"], form[0].1);
    }
}

#[test]
fn p132_configured_audience_replaces_the_issuer() {
    let auth = ClientAuth::client_secret_jwt();
    let audience = |auth: &ClientAuth| parts(&form(auth, ISSUER)[2].1).1["aud"].clone();
    assert_eq!(audience(&auth), ISSUER, "a string, not a list");
    assert_eq!(audience(&auth.clone().assertion_audience("urn:x")), "urn:x");
    let error = check(&auth.assertion_audience(""), SECRET).unwrap_err();
    assert_eq!(error.field(), "assertion_audience");
}

#[test]
fn p136_short_secret_is_a_configuration_error() {
    let auth = ClientAuth::client_secret_jwt();
    for short in ["", "canary", &SECRET[1..]] {
        let error = check(&auth, short).unwrap_err();
        assert_eq!(error.field(), "client_secret");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    assert!(check(&auth, SECRET).is_ok());
    // The length counts bytes, not characters.
    assert!(check(&auth, &"ü".repeat(16)).is_ok());
}

#[test]
fn p135_algorithm_of_another_key_type_is_a_configuration_error() {
    for made in [rsa(), p256(), ed25519()] {
        let key = SigningKey::from_jwk(made.jwk.to_string()).unwrap();
        for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
            let ours = SigningAlgorithm::parse(algorithm).unwrap();
            let fits = made.algorithms.iter().any(|(fitting, _)| *fitting == ours);
            let auth = ClientAuth::private_key_jwt(key.clone().algorithm(ours));
            assert_eq!(check(&auth, "").is_ok(), fits, "{algorithm}");
            let mut jwk = made.jwk.clone();
            jwk["alg"] = json!(algorithm);
            jwk["kid"] = json!("its own");
            let from_jwk = SigningKey::from_jwk(jwk.to_string());
            assert_eq!(from_jwk.is_ok(), fits, "{algorithm}");
            if let Ok(key) = from_jwk {
                let (header, _) = parts(&signed(&key, &Settings::default()));
                assert_eq!((&header["alg"], &header["kid"]), (&jwk["alg"], &jwk["kid"]));
            }
        }
    }
    for alg in ["none", "HS256", "canary"] {
        let mut jwk = rsa().jwk;
        jwk["alg"] = json!(alg);
        assert_rejected(SigningKey::from_jwk(jwk.to_string()), "alg");
    }
    let key = SigningKey::from_pem(p256().pems.remove(0)).unwrap();
    let auth = ClientAuth::private_key_jwt(key.key_id(""));
    assert_eq!(check(&auth, "").unwrap_err().field(), "signing_key");
}

#[test]
fn p135_invalid_pem_error_says_why() {
    let good = p256().pems.remove(0);
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384_sec1 = p384.private_key().as_der().unwrap();
    for (text, reason) in [
        (TEST_KEY_TOO_SHORT, "2048 bits"),
        (
            &pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref()),
            "P-256",
        ),
        (&pem("EC PRIVATE KEY", p384_sec1.as_ref()), "P-256"),
        (&pem("PRIVATE KEY", b"canary"), "another kind"),
        (&pem("PRIVATE KEY", b""), "another kind"),
        (&pem("RSA PRIVATE KEY", b"canary"), "damaged"),
        (&pem("EC PRIVATE KEY", b"canary"), "damaged"),
        (&pem("PUBLIC KEY", b"canary"), "a public key"),
        (&pem("ENCRYPTED PRIVATE KEY", b"canary"), "decrypt"),
        (&good[..good.len() - 30], "damaged"),
        (
            "-----BEGIN PRIVATE KEY-----\n canary!\n-----END PRIVATE KEY-----\n",
            "damaged",
        ),
        ("/etc/canary.pem", "name of a file"),
        ("", "not PEM"),
        (r#"{"kty": "canary"}"#, "from_jwk"),
    ] {
        assert_rejected(SigningKey::from_pem(text), reason);
    }
}

#[test]
fn p135_invalid_jwk_error_says_why() {
    for text in [
        "",
        "canary",
        "[]",
        r#"{"kty": {"canary": 1}}"#,
        &p256().pems[0],
    ] {
        assert_rejected(SigningKey::from_jwk(text), "not a JWK");
    }
    assert_rejected(SigningKey::from_jwk(r#"{"keys": ["canary"]}"#), "a set");
    for kind in [
        json!({"kty": "oct", "k": "canary"}),
        json!({"kty": "EC", "crv": "P-384"}),
        json!({}),
    ] {
        assert_rejected(SigningKey::from_jwk(kind.to_string()), "another kind");
    }
    for made in [rsa(), p256(), ed25519()] {
        let with = |name: &str, value: Value| {
            let mut jwk = made.jwk.clone();
            jwk[name] = value;
            SigningKey::from_jwk(jwk.to_string())
        };
        assert_rejected(with("d", Value::Null), "a public key");
        assert_rejected(with("d", json!("ca nary")), "Base64");
        assert_rejected(with("use", json!("enc")), "signing");
        assert!(with("use", json!("sig")).is_ok());
        // A part of another key.
        let other = match made.jwk["kty"].as_str() {
            Some("RSA") => ("d", rsa().jwk),
            Some("EC") => ("d", p256().jwk),
            _ => ("d", ed25519().jwk),
        };
        assert_rejected(with(other.0, other.1[other.0].clone()), "damaged");
    }
    // Some writers leave the leading zeros of DER.
    let mut jwk = rsa().jwk;
    let mut n = vec![0];
    n.extend(URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap());
    jwk["n"] = json!(url64(&n));
    assert!(SigningKey::from_jwk(jwk.to_string()).is_ok());
}

#[test]
fn p15_assertion_settings_without_an_assertion_are_a_configuration_error() {
    for auth in [
        ClientAuth::basic().assertion_audience("x"),
        ClientAuth::post().assertion_not_before(),
        ClientAuth::none().assertion_lifetime(Duration::from_secs(1)),
        ClientAuth::tls().assertion_type("JWT"),
        ClientAuth::client_secret_jwt().scheme("basic"),
    ] {
        assert_eq!(check(&auth, SECRET).unwrap_err().field(), "client_auth");
    }
}

#[test]
fn p55_debug_shows_no_part_of_a_key() {
    for made in [rsa(), p256(), ed25519()] {
        let key = SigningKey::from_jwk(made.jwk.to_string()).unwrap();
        let auth = ClientAuth::private_key_jwt(key.clone().key_id("shown"));
        let shown = format!("{key:?} {key:#?} {auth:?} {auth:#?}");
        assert!(shown.contains("shown"), "{shown}");
        for (name, part) in made.jwk.as_object().unwrap() {
            let secret = !matches!(name.as_str(), "kty" | "crv" | "e");
            assert!(!secret || !shown.contains(part.as_str().unwrap()), "{name}");
        }
    }
}
