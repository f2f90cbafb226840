//! What is the same token, and what is another.

use bearer_auth::{
    AuthorizationCode, AuthorizationCodeBuilder, ClientCredentials, ClientCredentialsBuilder,
    fleet::{SharedSource, TokenKey},
};

use super::store_at;

const TOKEN_URL: &str = "https://idp.example/token";

fn client() -> ClientCredentialsBuilder {
    ClientCredentials::builder(TOKEN_URL, "client-id", "client-secret")
}

fn named(client: ClientCredentialsBuilder) -> String {
    client.build().unwrap().token_key().to_string()
}

/// All of them, and those that are equal, by number.
fn equal(keys: &[String]) -> Vec<(usize, usize)> {
    let pairs = (0..keys.len()).flat_map(|one| (0..one).map(move |other| (other, one)));
    pairs
        .filter(|(one, other)| keys[*one] == keys[*other])
        .collect()
}

#[test]
fn whatever_makes_another_token_makes_another_key() {
    let at = |url: &str, id: &str| ClientCredentials::builder(url, id, "client-secret");
    let keys = [
        client(),
        at("https://idp.example/token2", "client-id"),
        at("https://idp2.example/token", "client-id"),
        at("https://idp.example/token?tenant=a", "client-id"),
        // The same letters, but of an issuer.
        ClientCredentials::discover(TOKEN_URL, "client-id", "client-secret"),
        ClientCredentials::discover("https://idp.example", "client-id", "client-secret"),
        ClientCredentials::discover("https://idp2.example", "client-id", "client-secret"),
        at(TOKEN_URL, "client-id2"),
        client().scope("a"),
        client().scope("b"),
        client().scope("a b"),
        client().scope("ab"),
        client().audience("a"),
        client().audience("b"),
        client().resource("https://a.example/"),
        client().resource("https://b.example/"),
        client()
            .resource("https://a.example/")
            .resource("https://b.example/"),
        client().audience("https://a.example/"),
        client().scope("https://a.example/"),
        client().param("a", "b"),
        client().param("a", "c"),
        client().param("c", "b"),
        client().param("a", "").param("b", ""),
        client().param("ab", ""),
        client().header("a", "b"),
        client().header("a", "c"),
        client().header("b", "b"),
        client().header("a", "b").param("a", "b"),
        client().grant_type("account_credentials"),
    ];
    let mut keys: Vec<_> = keys.into_iter().map(named).collect();
    let key = || client().build().unwrap().token_key();
    keys.extend(
        [
            key().subject("a"),
            key().subject("b"),
            key().subject("ab"),
            key().subject("a").subject("b"),
            key().subject("b").subject("a"),
            key().subject(""),
            key().subject("").subject(""),
            TokenKey::named("a"),
            TokenKey::named("a").subject("a"),
            TokenKey::named(""),
            TokenKey::named(key().to_string()),
        ]
        .map(|key| key.to_string()),
    );
    assert_eq!(equal(&keys), []);
    for key in keys {
        assert_eq!(key.len(), 64);
        assert!(key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    }
}

#[test]
fn what_makes_no_other_token_makes_no_other_key() {
    let secret = ClientCredentials::builder(TOKEN_URL, "client-id", "another-secret");
    let auth = client().client_auth(bearer_auth::ClientAuth::post());
    for same in [secret, auth] {
        assert_eq!(named(same), named(client()));
    }
    let scopes = ["a b", "b a", "a b a"].map(|scope| named(client().scope(scope)));
    assert_eq!(equal(&scopes).len(), 3);
    let one = named(client().scope("a").scope("b"));
    assert_eq!(one, scopes[0]);
    let params = [["a", "b"], ["b", "a"]]
        .map(|[one, other]| named(client().param(one, "x").param(other, "x")));
    assert_eq!(params[0], params[1]);
    // In the next release, too, or all fetch anew.
    assert_eq!(
        TokenKey::named("name").subject("alice").to_string(),
        "f10ce30bbfb2a5a0af6d5662e225a7e73473c6f64637c3e2b6e9fe1b420973cb"
    );
}

#[test]
fn a_session_has_its_own_key() {
    type Auth = AuthorizationCodeBuilder;
    let at = |token_url: &str, id: &str| {
        AuthorizationCode::builder("https://idp.example/authorize", token_url, id)
            .redirect_uri("https://app.example/callback")
    };
    let auth = || at(TOKEN_URL, "client-id");
    let key = |auth: Auth, who: &str| auth.build().unwrap().token_key(who).to_string();
    let keys = [
        key(auth(), "alice"),
        key(auth(), "bob"),
        key(auth(), ""),
        key(at("https://idp2.example/token", "client-id"), "alice"),
        key(at(TOKEN_URL, "client-id2"), "alice"),
        key(auth().scope("a"), "alice"),
        key(auth().scope("b"), "alice"),
        key(auth().param("a", "b"), "alice"),
        key(auth().token_param("a", "b"), "alice"),
        // What the client has in its own name.
        named(client()),
        client()
            .build()
            .unwrap()
            .token_key()
            .subject("alice")
            .to_string(),
    ];
    assert_eq!(equal(&keys), []);
    let confidential = auth().client_secret("client-secret");
    assert_eq!(key(confidential, "alice"), keys[0]);
    let scopes = ["a b", "b a"].map(|scope| key(auth().scope(scope), "alice"));
    assert_eq!(scopes[0], scopes[1]);
}

#[test]
fn nothing_shows_a_secret() {
    let url = "redis://user-canary:password-canary@redis.example/";
    let store = store_at(url);
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
        store.session(key.clone()),
        key,
        SharedSource::new(source, store.clone(), key.clone()),
        bearer_auth::fleet::RedisClient::from(one),
        bearer_auth::fleet::RedisClient::from(cluster),
        super::key(),
    );
    for secret in ["canary", "client-secret", "[7, 7", "07070707"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    assert!(shown.contains(&key.to_string()), "{shown}");
}
