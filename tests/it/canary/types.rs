//! Every public type, with secrets in it. The test reads the sources, so that no type is missing.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bearer_auth::{
    AuthorizationCode, BearerAuthLayer, ClientAuth, ClientCredentials, Clock, ConfigError, Error,
    Issuer, JwtBearer, Login, ServiceError, SigningAlgorithm, SigningKey, StaticToken, TokenCache,
    TokenRequest, TokenResponse, TokenSource, WeakTokenCache,
    endpoint::{HttpError, ReqwestClient, TowerClient},
    provider,
    redis::{RedisClient, SharedRedis, SharedSource},
    resend::{Buffered, InMemory, Off},
    source_fn,
    store::{
        BusyStore, DamagedSession, FileStore, KeyringStore, LockedSession as _, MemoryStore,
        SealingKey, StoreOperation, StoredSession, TokenStore,
    },
    testing::{Answer, Dialect, ManualClock, MockIdp, RefreshTokens},
};
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use serde_json::json;
use tower::{Service as _, ServiceExt as _, service_fn};
use tower_layer::Layer as _;

use crate::support::{
    alone::alone,
    canary::{
        canaries::Secret::{self, *},
        rig::{Certified, Key, REDIRECT, credentials, echo, idp, sign_in, token},
        watch::{Watch, name_of},
    },
};

/// Parts of sealed traits, public by necessity: no value exists outside of the crate.
const SEALED: [&str; 5] = ["Buffering", "Kept", "OriginHash", "ReadBody", "Target"];

fn sources(directory: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if !path.ends_with("sync/model.rs") {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Returns all `pub` structs and enums, and the types with a `Display`. The lint `unreachable_pub`
/// ensures that they are in the API.
fn public_types() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let behind = |prefixes: &'static [&'static str]| {
        let lines = files
            .iter()
            .flat_map(|file| file.lines())
            .map(str::trim_start);
        let types =
            lines.filter_map(move |line| prefixes.iter().find_map(|p| line.strip_prefix(p)));
        types.map(name).collect::<BTreeSet<_>>()
    };
    let mut public = behind(&["pub struct ", "pub enum ", "pub union "]);
    for sealed in SEALED {
        assert!(public.remove(sealed), "{sealed} is there no more");
    }
    let displays = files
        .iter()
        .flat_map(|file| file.lines())
        .filter_map(|line| {
            let (_, behind) = line.trim_start().split_once("Display for ")?;
            Some(name(behind)).filter(|_| line.trim_start().starts_with("impl"))
        });
    let displays = displays.filter(|name| public.contains(name)).collect();
    (public, displays)
}

/// A derived `Serialize` would write secrets.
#[test]
fn p55_public_types_do_not_derive_serialize() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut derived = 0;
    for file in &files {
        for (at, line) in file
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("Serialize"))
        {
            assert!(!line.contains("Serialize for"), "{line}");
            if !line.trim_start().starts_with("#[derive") {
                continue;
            }
            derived += 1;
            let item = file
                .lines()
                .skip(at + 1)
                .find(|line| !line.trim_start().starts_with("#["));
            assert!(item.unwrap().starts_with("struct "), "{item:?}");
        }
    }
    assert!(derived >= 3, "{derived}");
}

struct Shows<'a>(&'a Watch);

impl Shows<'_> {
    fn each<T: Debug>(&self, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.0.debug(&value);
        }
    }

    /// Watches the error of an invalid configuration.
    #[track_caller]
    fn config<T>(&self, result: Result<T, ConfigError>) {
        let Err(error) = result else {
            panic!("{} works", name_of::<T>());
        };
        self.0.error(&error);
    }
}

fn url(secret: Secret) -> String {
    format!("https://user:{}@idp.example/", secret.text())
}

#[tokio::test]
async fn p55_public_types_show_no_secret() {
    alone!();
    let watch = Watch::new().await;
    let idp = idp().await;
    configurations(&watch, &idp);
    tokens(&watch).await;
    errors(&watch).await;
    logins(&watch, &idp).await;
    stores(&watch).await;
    services(&watch, &idp).await;
    mock(&watch, &idp).await;
    let (public, displayed) = public_types();
    assert!(public.len() > 50, "{public:#?}");
    let shown = Watch::places("Debug of ");
    let missing: Vec<_> = public.difference(&shown).collect();
    assert!(
        missing.is_empty(),
        "not shown: show them here: {missing:#?}"
    );
    let shown = Watch::places("Display of ");
    let missing: Vec<_> = displayed.difference(&shown).collect();
    assert!(missing.is_empty(), "not shown by Display: {missing:#?}");
    assert!(displayed.len() > 6, "{displayed:?}");
    watch.end();
}

fn configurations(watch: &Watch, idp: &MockIdp) {
    let key = Key::new(watch);
    let identity = Certified::new(watch);
    let signing = || SigningKey::from_pem(key.pem.as_str()).unwrap();
    Shows(watch).each([signing(), SigningKey::from_jwk(key.jwk.as_str()).unwrap()]);
    watch.debug(&SigningAlgorithm::Es256);
    Shows(watch).each([
        ClientAuth::basic(),
        ClientAuth::post(),
        ClientAuth::none(),
        ClientAuth::tls(),
        ClientAuth::client_secret_jwt(),
        ClientAuth::private_key_jwt(signing()),
    ]);
    let source = || credentials(idp.token_url()).resource("https://api.example/");
    watch.debug(&source());
    watch.debug(&source().build().unwrap());
    let jwt = || {
        JwtBearer::builder(idp.token_url(), signing())
            .issuer("our-own.example")
            .subject(Hint.text())
            .claim("who", Claim.text())
            .param("account_key", Param.text())
            .client(ClientId.text(), ClientSecret.text())
    };
    watch.debug(&jwt());
    watch.debug(&jwt().build().unwrap());
    watch.debug(&sign_in(idp));
    watch.debug(&sign_in(idp).build().unwrap());
    watch.debug(&sign_in(idp).build().unwrap().session());
    let http = ReqwestClient::new()
        .identity_pem(identity.pem.as_str())
        .unwrap();
    watch.debug(&http);
    let service = service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
    });
    watch.debug(&TowerClient::new(service));
    watch.debug(&Issuer::new(url(Userinfo)).metadata_url(url(Query)));
    Shows(watch).each([InMemory]);
    Shows(watch).each([Off]);
    watch.debug(&Buffered::new(1, Full::<Bytes>::new));
    watch.debug(&Clock::default());
    mistakes(watch, &key, &identity);
}

/// Configuration errors do not contain the invalid value.
fn mistakes(watch: &Watch, key: &Key, identity: &Certified) {
    let shows = Shows(watch);
    let good = "https://idp.example/token";
    for bad in [
        url(Userinfo),
        format!("http://idp.example/?account={}", Query.text()),
        format!("https://idp.example/#{}", Query.text()),
        format!("not a url {}", Query.text()),
        echo(),
    ] {
        let at = || ClientCredentials::builder(&bad, ClientId.text(), ClientSecret.text());
        watch.debug(&at());
        shows.config(at().build());
        let named =
            || ClientCredentials::discover(bad.clone(), ClientId.text(), ClientSecret.text());
        watch.debug(&named());
        shows.config(named().build());
        shows.config(
            ClientCredentials::discover(
                Issuer::new("https://idp.example").metadata_url(&bad),
                "id",
                "secret",
            )
            .build(),
        );
        let jwt = || {
            JwtBearer::builder(&bad, SigningKey::from_pem(key.pem.as_str()).unwrap()).issuer("us")
        };
        watch.debug(&jwt());
        shows.config(jwt().build());
        let code = |authorize: &str, token: &str| {
            AuthorizationCode::builder(authorize, token, ClientId.text()).redirect_uri(REDIRECT)
        };
        let codes = [
            code(&bad, good),
            code(good, &bad),
            code(good, good).revocation_url(&bad),
            code(good, good).pushed_request_url(&bad),
        ];
        for code in codes {
            watch.debug(&code);
            shows.config(code.build());
        }
        for provider in [
            provider::smart_completions(&bad, "id", "secret"),
            provider::smart_api_manager(&bad, "id", "secret").scope("orders"),
            provider::usage_engine(&bad, "id", "secret").audience("https://api.example"),
            provider::adoxx(&bad, "id", "secret"),
            ClientCredentials::discover(provider::okta(&bad), "id", "secret"),
            ClientCredentials::discover(provider::okta_server(&bad, &bad), "id", "secret"),
            ClientCredentials::discover(provider::entra_id(&bad), "id", "secret"),
        ] {
            watch.debug(&provider);
            shows.config(provider.build());
        }
        shows.config(BearerAuthLayer::for_api(
            &bad,
            StaticToken::new(AccessToken.text()),
        ));
    }
    // Redirect URIs and resources are URLs, too.
    for bad in [
        url(Userinfo),
        format!("https://{}@app.example/", Userinfo.text()),
    ] {
        let code = AuthorizationCode::builder(good, good, "app").redirect_uri(&bad);
        watch.debug(&code);
        shows.config(code.build());
        let source = credentials(good).resource(&bad);
        watch.debug(&source);
        shows.config(source.build());
    }
    let secret = |secret: String| ClientCredentials::builder(good, "id", secret);
    shows.config(secret(ClientSecret.text() + "\n").build());
    shows.config(ClientCredentials::builder(good, ClientId.text() + "\n", "x").build());
    for name in ["client_secret", "scope", ""] {
        shows.config(credentials(good).param(name, Param.text()).build());
    }
    shows.config(
        credentials(good)
            .params_in_query()
            .param("password", Param.text())
            .build(),
    );
    shows.config(credentials(good).scope(echo()).build());
    for (name, value) in [
        ("x-key", Header.text() + "\n"),
        ("authorization", Header.text()),
        ("not a name", Header.text()),
    ] {
        shows.config(credentials(good).header(name, value).build());
    }
    let pem = &key.pem;
    let middle = pem.len() / 2;
    for bad in [
        pem[..middle].to_owned(),
        pem[middle..].to_owned(),
        pem.replace("PRIVATE", "PUBLIC"),
        pem.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"),
        pem.replace("PRIVATE", "RSA PRIVATE"),
        pem.replacen('\n', " ", 2),
        pem.replace('A', "B"),
        key.jwk.clone(),
        echo(),
    ] {
        shows.config(SigningKey::from_pem(bad.as_str()));
        let both = identity.pem.clone();
        let certificate = &both[..both.find("-----BEGIN PRIVATE").unwrap()];
        for bad in [
            bad.clone(),
            certificate.to_owned() + &bad,
            both.replace('A', "B"),
        ] {
            let identity = ReqwestClient::new().identity_pem(bad.as_str());
            shows.config(identity);
        }
        shows.config(ReqwestClient::new().root_certificate_pem(bad.as_bytes()));
    }
    // A key that does not belong to the certificate.
    let another = identity.pem.replace(
        &identity.pem[identity.pem.find("-----BEGIN PRIVATE").unwrap()..],
        &key.pem,
    );
    shows.config(ReqwestClient::new().identity_pem(another.as_str()));
    let jwk: serde_json::Value = serde_json::from_str(&key.jwk).unwrap();
    for (member, value) in [
        ("kty", json!("RSA")),
        ("crv", json!(echo())),
        ("d", jwk["x"].clone()),
        ("x", jwk["d"].clone()),
        ("d", json!([jwk["d"]])),
        ("alg", json!(echo())),
        ("use", json!(echo())),
    ] {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        shows.config(SigningKey::from_jwk(jwk.to_string()));
    }
    shows.config(SigningKey::from_jwk(key.pem.as_str()));
    shows.config(SigningKey::from_jwk(&key.jwk[..key.jwk.len() - 1]));
    let sealing = Secret::SealingKey.text();
    let longer = STANDARD.encode(sealing.clone() + "x");
    for bad in [longer, sealing] {
        shows.config(SealingKey::from_base64(&bad));
    }
}

async fn tokens(watch: &Watch) {
    watch.debug(&StaticToken::new(AccessToken.text()));
    let response = || {
        TokenResponse::builder(AccessToken.text())
            .refresh_token(Session.text())
            .scope("orders:read")
            .expires_in(Duration::from_secs(60))
    };
    watch.debug(&response());
    watch.debug(
        &response()
            .header_name(HeaderName::from_static("x-key"))
            .scheme(""),
    );
    watch.debug(&response().build().unwrap());
    watch.error(
        &TokenResponse::builder(AccessToken.text() + "\n")
            .build()
            .unwrap_err(),
    );
    watch.error(&response().scheme(Header.text() + "\n").build().unwrap_err());
    let kept = AccessToken.text();
    let source = source_fn(move |_| {
        let token = TokenResponse::builder(kept.as_str());
        std::future::ready(token.expires_in(Duration::from_secs(60)).build())
    });
    watch.debug(&source);
    let builder = TokenCache::builder(source)
        .name("orders")
        .on_event(Watch::event);
    watch.debug(&builder);
    let cache = builder.build();
    watch.debug(&cache);
    let token = cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), AccessToken.text());
    watch.debug(&token);
    watch.debug(token.header_value());
    watch.debug(&cache);
    watch.debug(&cache.keep_fresh());
    watch.debug(&cache.status());
    let mut request = TokenRequest::new();
    request.rejected = Some(token.clone());
    request.previous = Some(token.clone());
    watch.debug(&request.reason);
    watch.debug(&request);
    let attached = Arc::new(Mutex::new(None));
    let _cache = TokenCache::new(RecordsCache(Arc::clone(&attached)));
    watch.debug(attached.lock().unwrap().as_ref().unwrap());
}

/// A source that records the cache which it is attached to.
struct RecordsCache(Arc<Mutex<Option<WeakTokenCache>>>);

impl TokenSource for RecordsCache {
    async fn fetch(&self, _: TokenRequest) -> Result<TokenResponse, Error> {
        TokenResponse::builder(AccessToken.text()).build()
    }

    fn on_attach(&self, cache: WeakTokenCache) {
        *self.0.lock().unwrap() = Some(cache);
    }
}

async fn errors(watch: &Watch) {
    let idp = idp().await;
    let body = json!({
        "error": "invalid_grant", "error_description": echo(), "error_uri": echo(),
    });
    idp.then(Answer::json(400, body));
    let source = credentials(idp.token_url()).build().unwrap();
    let error = source.fetch(TokenRequest::new()).await.unwrap_err();
    watch.error(&error);
    watch.debug(&error.kind());
    let oauth = error.oauth_error().unwrap();
    assert!(oauth.description().unwrap().contains(&ClientSecret.text()));
    watch.debug(oauth);
    watch.both(oauth.code());
    watch.error(&ServiceError::<std::io::Error>::Token(error.clone()));
    watch.error(&HttpError::oversized());
    watch.error(&Error::from(HttpError::oversized()));
    watch.error(&DamagedSession::new("not a session"));
    watch.error(&BusyStore::new("another process has the lock"));
    for saved in [
        echo(),
        json!({"version": 1, "refresh_token": [echo()]}).to_string(),
        // serde's error messages quote these values.
        json!({"version": echo()}).to_string(),
        json!({"version": 1, "expires_at": echo()}).to_string(),
    ] {
        watch.error(&StoredSession::from_json(&saved).unwrap_err());
    }
    watch.debug(&StoreOperation::Save);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("session");
    fs::write(&path, echo()).unwrap();
    let auth = sign_in(&idp).store(FileStore::new(&path));
    let session = auth
        .on_store_error(Watch::store_error)
        .build()
        .unwrap()
        .session();
    watch.error(&session.fetch(TokenRequest::new()).await.unwrap_err());
}

async fn logins(watch: &Watch, idp: &MockIdp) {
    let login = || {
        Login::new()
            .state(State.text())
            .code_verifier(Verifier.text())
            .param("login_hint", Hint.text())
    };
    watch.debug(&login());
    let auth = sign_in(idp).build().unwrap();
    let pending = auth.start_with(login()).await.unwrap();
    watch.debug(&pending);
    watch.debug(pending.state());
    let saved = pending.save();
    watch.debug(&saved);
    let resumed = auth
        .resume(secrecy::ExposeSecret::expose_secret(&saved))
        .unwrap();
    watch.debug(&resumed);
    let callback = format!(
        "{REDIRECT}?code={}&state={}",
        crate::support::canary::rig::encoded(&Code.text()),
        crate::support::canary::rig::encoded(&State.text()),
    );
    let session = resumed.finish(&callback).await.unwrap();
    watch.debug(&session);
    // Redirect URIs may have a query.
    let own = format!("{REDIRECT}?tenant={}", Query.text());
    let auth = sign_in(idp).redirect_uri(own).build().unwrap();
    watch.debug(&auth);
    watch.debug(&auth.start().await.unwrap());
}

async fn stores(watch: &Watch) {
    let directory = tempfile::tempdir().unwrap();
    let mut key = [0; 32];
    key.copy_from_slice(Secret::SealingKey.text().as_bytes());
    let key = SealingKey::new(key);
    watch.debug(&key);
    let json = json!({
        "version": 1, "refresh_token": Session.text(), "access_token": AccessToken.text(),
    });
    let session = StoredSession::from_json(&json.to_string()).unwrap();
    watch.debug(&session);
    watch.debug(&session.to_json().unwrap());
    let lock = directory.path().join("lock");
    let keyring = KeyringStore::new("app.example", "me", &lock);
    watch.debug(&keyring);
    // This does not access the keyring.
    watch.debug(&keyring.lock().await.unwrap());
    // No server is contacted. Types with a lease are in `tests/e2e/redis`.
    let url = format!("redis://:{}@127.0.0.1:1/", Userinfo.text());
    let redis = RedisClient::from(redis::Client::open(url).unwrap());
    watch.debug(&redis);
    let source = ClientCredentials::builder("https://idp.example/token", "id", ClientSecret.text())
        .param("p", Param.text())
        .build()
        .unwrap();
    let name = source.token_key();
    watch.both(&name);
    for shared in [
        SharedRedis::plain_text(redis.clone()),
        SharedRedis::sealed(redis, key.clone()),
    ] {
        watch.debug(&shared);
        watch.debug(&shared.store(name.clone()));
        let refused = shared.store(name.clone()).lock().await.unwrap_err();
        watch.text("RedisStore::lock", format!("{refused} {refused:?}"));
        let source =
            ClientCredentials::builder("https://idp.example/token", "id", ClientSecret.text());
        watch.debug(&SharedSource::new(
            source.build().unwrap(),
            shared,
            name.clone(),
        ));
    }
    let file = FileStore::new(directory.path().join("session"));
    let sealed = FileStore::new(directory.path().join("sealed")).sealed_with(key);
    for store in [file, sealed] {
        watch.debug(&store);
        let mut locked = store.lock().await.unwrap();
        locked.save(Some(&session)).await.unwrap();
        watch.debug(&locked.load().await.unwrap().unwrap());
        watch.debug(&locked);
    }
    let memory = MemoryStore::new();
    memory
        .lock()
        .await
        .unwrap()
        .save(Some(&session))
        .await
        .unwrap();
    watch.debug(&memory);
    watch.debug(&memory.lock().await.unwrap());
}

async fn services(watch: &Watch, idp: &MockIdp) {
    let source = credentials(idp.token_url()).build().unwrap();
    let auth = BearerAuthLayer::for_api(idp.api_url(), source).unwrap();
    watch.debug(&auth);
    let builder = BearerAuthLayer::builder(auth.cache().clone())
        .api(idp.api_url())
        .resend(Off)
        .renew_on(|_, _| false);
    watch.debug(&builder);
    watch.debug(&builder.build().unwrap());
    auth.cache().token().await.unwrap();
    watch.debug(&auth);
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let mut service = auth.layer(client);
    watch.debug(&service);
    let request = reqwest::Client::new()
        .get(idp.api_url() + "orders")
        .build()
        .unwrap();
    service.ready().await.unwrap();
    let response = service.call(request);
    watch.debug(&response);
    assert_eq!(response.await.unwrap().status(), 200);
    watch.debug(&service);
}

async fn mock(watch: &Watch, idp: &MockIdp) {
    watch.debug(idp);
    let builder = MockIdp::builder().client(ClientId.text(), ClientSecret.text());
    watch.debug(&builder.clock(ManualClock::new()).dialect(Dialect::Terse));
    watch.debug(&ManualClock::new());
    watch.debug(&Dialect::Standard);
    watch.debug(&RefreshTokens::Rotated);
    watch.debug(&idp.hold());
    watch.debug(&token());
    for answer in [
        Answer::raw(echo()),
        Answer::redirect("/").header("x-key", &Header.text()),
    ] {
        watch.debug(&answer);
    }
    let arrived = [idp.token_log(), idp.api_log(), idp.authorization_log()].concat();
    assert!(arrived.len() > 2, "{}", arrived.len());
    for request in arrived {
        watch.debug(&request);
    }
}
