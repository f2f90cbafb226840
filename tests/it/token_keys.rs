//! Which settings belong to a token's key: sources with the same key share a token.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientAuth, ClientCredentials,
    ClientCredentialsBuilder, Issuer,
    endpoint::ReqwestClient,
    redis::{SharedSource, TokenKey},
    store::MemoryStore,
};
#[cfg(feature = "jwt")]
use bearer_auth::{JwtBearer, JwtBearerBuilder, SigningKey};
#[cfg(feature = "jwt")]
use serde_json::json;

use bearer_auth::{redis::SharedRedis, store::SealingKey};

fn sealing_key() -> SealingKey {
    SealingKey::new([7; 32])
}

const TOKEN_URL: &str = "https://idp.example/token";
const ISSUER: &str = "https://idp.example";
const A: &str = "https://a.example/";
const B: &str = "https://b.example/";

/// The name of a setting, and a function that sets it.
type Choice<T> = (&'static str, fn(T) -> T);

/// A kind of source.
struct Kind<T: 'static> {
    base: fn() -> T,
    key: fn(T) -> TokenKey,
    /// Each of these settings changes the key.
    other: &'static [Choice<T>],
    /// In each group, all settings have the key of the first.
    same: &'static [&'static [Choice<T>]],
    /// The source file with its setters.
    file: &'static str,
}

impl<T> Kind<T> {
    fn key(&self, choice: &Choice<T>) -> String {
        (self.key)(choice.1((self.base)())).to_string()
    }

    /// Returns all keys that must differ. Checks the groups, and that no setter is missing.
    fn check(&self) -> Vec<(String, String)> {
        let mut keys = vec![("base".to_owned(), (self.key)((self.base)()).to_string())];
        for choice in self.other {
            keys.push((choice.0.to_owned(), self.key(choice)));
        }
        let mut named: BTreeSet<_> = self.other.iter().map(|choice| choice.0).collect();
        for same in self.same {
            let first = self.key(&same[0]);
            for choice in *same {
                named.insert(choice.0);
                assert_eq!(self.key(choice), first, "{} in {}", choice.0, self.file);
            }
        }
        let shared = setters("src/client/settings.rs");
        for setter in setters(self.file).into_iter().chain(shared) {
            assert!(named.contains(&*setter), "{setter} in {}", self.file);
        }
        keys
    }
}

/// Returns the setters of a builder: public functions that take `mut self`.
fn setters(file: &str) -> Vec<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let functions = source.split(" pub fn ").skip(1);
    let setters: Vec<_> = functions
        .filter_map(|function| {
            let (name, rest) = function.split_once('(').unwrap();
            rest.trim_start()
                .starts_with("mut self")
                .then(|| name.to_owned())
        })
        .filter(|name| name != "build")
        .collect();
    assert!(setters.len() >= 5, "{file}: {setters:?}");
    setters
}

fn assert_all_differ(keys: &[(String, String)]) {
    for (at, (name, key)) in keys.iter().enumerate() {
        assert_eq!(key.len(), 64);
        assert!(key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
        for (other, other_key) in &keys[..at] {
            assert_ne!(key, other_key, "{name} and {other}");
        }
    }
}

/// A policy of a B2C tenant. All policies have the same issuer.
fn policy(name: &str) -> Issuer {
    Issuer::new(ISSUER).metadata_url(format!("https://idp.example/{name}/metadata"))
}

fn client() -> ClientCredentialsBuilder {
    client_at(TOKEN_URL, "client-id", "client-secret")
}

fn client_at(url: &str, id: &str, secret: &'static str) -> ClientCredentialsBuilder {
    ClientCredentials::builder(url, id, secret)
}

fn client_of(issuer: impl Into<Issuer>) -> ClientCredentialsBuilder {
    ClientCredentials::discover(issuer, "client-id", "client-secret")
}

const CLIENT_CREDENTIALS: Kind<ClientCredentialsBuilder> = Kind {
    base: client,
    key: |client| client.build().unwrap().token_key(),
    other: &[
        ("url", |_| {
            client_at("https://idp.example/token2", "client-id", "client-secret")
        }),
        ("url", |_| {
            client_at("https://idp2.example/token", "client-id", "client-secret")
        }),
        ("url", |_| {
            client_at(
                "https://idp.example/token?tenant=a",
                "client-id",
                "client-secret",
            )
        }),
        ("id", |_| {
            client_at(TOKEN_URL, "client-id2", "client-secret")
        }),
        // The same text as an issuer.
        ("issuer", |_| client_of(TOKEN_URL)),
        ("issuer", |_| client_of(ISSUER)),
        ("issuer", |_| client_of("https://idp2.example")),
        ("metadata_url", |_| client_of(policy("a"))),
        ("metadata_url", |_| client_of(policy("b"))),
        ("scope", |b| b.scope("a")),
        ("scope", |b| b.scope("b")),
        ("scope", |b| b.scope("a b")),
        ("scope", |b| b.scope("ab")),
        ("scope", |b| b.scope(A)),
        ("audience", |b| b.audience("a")),
        ("audience", |b| b.audience("b")),
        ("audience", |b| b.audience("")),
        ("audience", |b| b.audience(A)),
        ("resource", |b| b.resource(A)),
        ("resource", |b| b.resource(B)),
        ("resource", |b| b.resource(A).resource(B)),
        ("param", |b| b.param("a", "b")),
        ("param", |b| b.param("a", "c")),
        ("param", |b| b.param("c", "b")),
        ("param", |b| b.param("a", "").param("b", "")),
        ("param", |b| b.param("ab", "")),
        ("header", |b| b.header("a", "b")),
        ("header", |b| b.header("a", "c")),
        ("header", |b| b.header("b", "b")),
        ("header and param", |b| b.header("a", "b").param("a", "b")),
        ("grant_type", |b| b.grant_type("account_credentials")),
        // The scheme is stored with the token.
        ("scheme", |b| b.scheme("bearer")),
        ("scheme", |b| b.scheme("Own")),
    ],
    same: &[
        &[
            ("base", |b| b),
            ("secret", |_| {
                client_at(TOKEN_URL, "client-id", "another-secret")
            }),
            ("client_auth", |b| b.client_auth(ClientAuth::post())),
            ("client_auth", |b| b.client_auth(ClientAuth::basic_raw())),
            ("params_in_query", |b| b.params_in_query()),
            ("use_get", |b| b.use_get()),
            ("strict_token_type", |b| b.strict_token_type()),
            ("bearer_alias", |b| b.bearer_alias("BearerToken")),
            ("http_client", |b| b.http_client(ReqwestClient::new())),
        ],
        &[
            ("scope", |b| b.scope("a b")),
            ("scope", |b| b.scope("b a")),
            ("scope", |b| b.scope("a b a")),
            ("scope", |b| b.scope("b").scope("a")),
        ],
        &[
            ("resource", |b| b.resource(A).resource(B)),
            ("resource", |b| b.resource(B).resource(A)),
        ],
        &[
            ("param", |b| b.param("a", "x").param("b", "y")),
            ("param", |b| b.param("b", "y").param("a", "x")),
        ],
        &[
            ("header", |b| b.header("a", "x").header("b", "y")),
            ("header", |b| b.header("b", "y").header("A", "x")),
        ],
        &[
            ("max_age", |_| client_of(ISSUER)),
            ("max_age", |_| {
                client_of(Issuer::new(ISSUER).max_age(Duration::from_secs(1)))
            }),
        ],
    ],
    file: "src/grant/client_credentials.rs",
};

fn login() -> AuthorizationCodeBuilder {
    login_at("https://idp.example/authorize", TOKEN_URL, "client-id")
}

fn login_at(authorization_url: &str, token_url: &str, id: &str) -> AuthorizationCodeBuilder {
    AuthorizationCode::builder(authorization_url, token_url, id)
}

fn login_of(issuer: impl Into<Issuer>) -> AuthorizationCodeBuilder {
    AuthorizationCode::discover(issuer, "client-id")
}

const AUTHORIZATION_CODE: Kind<AuthorizationCodeBuilder> = Kind {
    base: login,
    key: |auth| auth.build().unwrap().token_key("alice"),
    other: &[
        ("url", |_| {
            login_at(
                "https://idp.example/authorize",
                "https://idp2.example/token",
                "client-id",
            )
        }),
        ("authorization_url", |_| {
            login_at(
                "https://idp.example/authorize?audience=a",
                TOKEN_URL,
                "client-id",
            )
        }),
        ("authorization_url", |_| {
            login_at(
                "https://idp.example/authorize?audience=b",
                TOKEN_URL,
                "client-id",
            )
        }),
        ("id", |_| {
            login_at("https://idp.example/authorize", TOKEN_URL, "client-id2")
        }),
        ("issuer", |_| login_of(ISSUER)),
        ("issuer", |_| login_of("https://idp2.example")),
        ("metadata_url", |_| login_of(policy("a"))),
        ("metadata_url", |_| login_of(policy("b"))),
        ("scope", |b| b.scope("a")),
        ("scope", |b| b.scope("b")),
        ("token_scope", |b| b.token_scope("a")),
        ("token_scope", |b| b.token_scope("b")),
        ("scope and token_scope", |b| b.scope("a").token_scope("a")),
        ("scope and token_scope", |b| b.scope("a b").token_scope("a")),
        ("scope and token_scope", |b| b.scope("a b").token_scope("b")),
        ("param", |b| b.param("a", "b")),
        ("param", |b| b.param("a", "c")),
        ("token_param", |b| b.token_param("a", "b")),
        ("token_param", |b| b.token_param("a", "c")),
        ("param and token_param", |b| {
            b.param("a", "b").token_param("a", "b")
        }),
        ("header", |b| b.header("a", "b")),
        ("header", |b| b.header("a", "c")),
        ("scheme", |b| b.scheme("Own")),
    ],
    same: &[
        &[
            ("base", |b| b),
            ("client_secret", |b| b.client_secret("client-secret")),
            ("client_auth", |b| {
                b.client_secret("s").client_auth(ClientAuth::post())
            }),
            ("redirect_uri", |b| {
                b.redirect_uri("https://app.example/callback")
            }),
            ("code_challenge_method", |b| b.code_challenge_method("S256")),
            ("insecure_plain_challenge", |b| b.insecure_plain_challenge()),
            ("without_pkce", |b| {
                b.client_secret("client-secret").without_pkce()
            }),
            ("issuer", |b| b.issuer(ISSUER)),
            ("issuer_always_sent", |b| b.issuer_always_sent(ISSUER)),
            ("revocation_url", |b| {
                b.revocation_url("https://idp.example/revoke")
            }),
            ("pushed_request_url", |b| {
                b.pushed_request_url("https://idp.example/par")
            }),
            ("without_pushed_requests", |b| b.without_pushed_requests()),
            ("store", |b| b.store(MemoryStore::new())),
            ("on_store_error", |b| b.on_store_error(|_| {})),
            ("strict_token_type", |b| b.strict_token_type()),
            ("bearer_alias", |b| b.bearer_alias("BearerToken")),
            ("http_client", |b| b.http_client(ReqwestClient::new())),
        ],
        &[("scope", |b| b.scope("a b")), ("scope", |b| b.scope("b a"))],
        &[
            ("token_scope", |b| b.token_scope("a b")),
            ("token_scope", |b| b.token_scope("b a")),
        ],
        &[
            ("param", |b| b.param("resource", A).param("resource", B)),
            ("param", |b| b.param("resource", B).param("resource", A)),
        ],
        &[
            ("token_param", |b| {
                b.token_param("a", "x").token_param("b", "y")
            }),
            ("token_param", |b| {
                b.token_param("b", "y").token_param("a", "x")
            }),
        ],
    ],
    file: "src/sign_in/builder.rs",
};

#[cfg(feature = "jwt")]
fn signing_key() -> SigningKey {
    SigningKey::from_pem(rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

#[cfg(feature = "jwt")]
fn bearer() -> JwtBearerBuilder {
    JwtBearer::builder(TOKEN_URL, signing_key()).issuer("us")
}

#[cfg(feature = "jwt")]
fn bearer_of(issuer: impl Into<Issuer>) -> JwtBearerBuilder {
    JwtBearer::discover(issuer, signing_key()).issuer("us")
}

#[cfg(feature = "jwt")]
const JWT_BEARER: Kind<JwtBearerBuilder> = Kind {
    base: bearer,
    key: |source| source.build().unwrap().token_key(),
    other: &[
        ("url", |_| {
            JwtBearer::builder("https://idp2.example/token", signing_key()).issuer("us")
        }),
        ("discover", |_| bearer_of(ISSUER)),
        ("metadata_url", |_| bearer_of(policy("a"))),
        ("metadata_url", |_| bearer_of(policy("b"))),
        ("issuer", |b| b.issuer("them")),
        ("subject", |b| b.subject("a")),
        ("subject", |b| b.subject("b")),
        ("audience", |b| b.audience("a")),
        ("audience", |b| b.audience("b")),
        ("claim", |b| b.claim("a", "1")),
        ("claim", |b| b.claim("a", "2")),
        ("claim", |b| b.claim("a", 1)),
        ("claim", |b| b.claim("b", "1")),
        ("claim", |b| b.claim("a", json!({ "b": ["1"] }))),
        ("scope", |b| b.scope("a")),
        ("scope", |b| b.scope("b")),
        ("param", |b| b.param("a", "1")),
        ("param", |b| b.param("a", "2")),
        ("client", |b| b.client("client-id", "")),
        ("client", |b| b.client("client-id2", "")),
        ("header", |b| b.header("a", "b")),
        ("header", |b| b.header("a", "c")),
        ("scheme", |b| b.scheme("Own")),
    ],
    same: &[
        // Each source has another signing key, too.
        &[
            ("base", |b| b),
            ("lifetime", |b| b.lifetime(Duration::from_secs(600))),
            ("assertion_type", |b| {
                b.assertion_type("authorization-grant+jwt")
            }),
            ("strict_token_type", |b| b.strict_token_type()),
            ("bearer_alias", |b| b.bearer_alias("BearerToken")),
            ("http_client", |b| b.http_client(ReqwestClient::new())),
        ],
        &[
            ("client", |b| b.client("client-id", "")),
            ("client", |b| b.client("client-id", "client-secret")),
            ("client_auth", |b| {
                b.client("client-id", "s").client_auth(ClientAuth::post())
            }),
        ],
        &[("scope", |b| b.scope("a b")), ("scope", |b| b.scope("b a"))],
        &[
            ("claim", |b| b.claim("a", "1").claim("b", "2")),
            ("claim", |b| b.claim("b", "2").claim("a", "1")),
        ],
        &[
            ("param", |b| b.param("a", "1").param("b", "2")),
            ("param", |b| b.param("b", "2").param("a", "1")),
        ],
        &[
            ("assertions_to_endpoint", |_| bearer_of(ISSUER)),
            ("assertions_to_endpoint", |_| {
                bearer_of(Issuer::new(ISSUER).assertions_to_endpoint())
            }),
        ],
    ],
    file: "src/grant/jwt_bearer.rs",
};

/// A secret, the order of settings and the form of the token request do not change the key.
#[test]
fn settings_that_change_the_token_change_the_key() {
    let mut keys = CLIENT_CREDENTIALS.check();
    keys.extend(AUTHORIZATION_CODE.check());
    #[cfg(feature = "jwt")]
    keys.extend(JWT_BEARER.check());
    let key = || client().build().unwrap().token_key();
    let auth = login().build().unwrap();
    let named = [
        ("subject", key().subject("a")),
        ("subject", key().subject("b")),
        ("subject", key().subject("ab")),
        ("subjects", key().subject("a").subject("b")),
        ("subjects", key().subject("b").subject("a")),
        ("empty subject", key().subject("")),
        ("empty subjects", key().subject("").subject("")),
        ("named", TokenKey::named("a")),
        ("named subject", TokenKey::named("a").subject("a")),
        ("named nothing", TokenKey::named("")),
        ("named as another", TokenKey::named(key().to_string())),
        ("bob", auth.token_key("bob")),
        ("empty user", auth.token_key("")),
        // A subject of the client's own key.
        ("alice of the client", key().subject("alice")),
    ];
    keys.extend(named.map(|(name, key)| (name.to_owned(), key.to_string())));
    assert_all_differ(&keys);
}

/// A changed key would make every process request a new token after an update.
#[test]
fn token_key_is_stable_across_releases() {
    assert_eq!(
        TokenKey::named("name").subject("alice").to_string(),
        "f10ce30bbfb2a5a0af6d5662e225a7e73473c6f64637c3e2b6e9fe1b420973cb"
    );
}

#[test]
fn debug_output_of_redis_types_shows_no_secret() {
    let url = "redis://user-canary:password-canary@redis.example/";
    let store = SharedRedis::sealed(redis::Client::open(url).unwrap(), sealing_key());
    let source = client()
        .param("name", "param-canary")
        .header("name", "header-canary");
    let source = source.build().unwrap();
    let key = source.token_key();
    let cluster = redis::cluster::ClusterClient::new([url]).unwrap();
    let one = redis::Client::open(url).unwrap();
    let shown = format!(
        "{:?} {:#?} {:?} {:?} {:?} {:?} {:?}",
        store,
        store.store(key.clone()),
        key,
        SharedSource::new(source, store.clone(), key.clone()),
        bearer_auth::redis::RedisClient::from(one),
        bearer_auth::redis::RedisClient::from(cluster),
        sealing_key(),
    );
    for secret in ["canary", "client-secret", "[7, 7", "07070707"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    assert!(shown.contains(&key.to_string()), "{shown}");
}
