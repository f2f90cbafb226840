//! Authorization server metadata (RFC 8414, OpenID Connect Discovery).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bearer_auth::{
    AuthorizationCode, ClientAuth, ClientCredentials, ClientCredentialsBuilder, Error, ErrorKind,
    Issuer, TokenCache, TokenRequest, TokenResponse, TokenSource as _,
    endpoint::{HttpClient, HttpError, MAX_BODY, ReqwestClient},
    store::{MemoryStore, TokenStore as _},
    testing::{Answer, MockIdp},
};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::rig::{browse, credentials, fetch, kind, parameters, refused, value};

fn discover(issuer: impl Into<Issuer>) -> ClientCredentialsBuilder {
    ClientCredentials::discover(issuer, "client-id", "client-secret")
}

async fn idp_at(path: &str) -> MockIdp {
    let builder = MockIdp::builder().issuer_path(path);
    builder.start().await.unwrap()
}

fn paths(idp: &MockIdp) -> Vec<String> {
    let log = idp.token_log();
    log.iter().map(|sent| sent.path().to_owned()).collect()
}

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";
const TOKEN: &str = "/oauth2/v1/token";
const PUSH: &str = "/oauth2/v1/par";

/// Returns the error, and the number of requests.
async fn failure(idp: &MockIdp, source: ClientCredentialsBuilder) -> (Error, usize) {
    let before = idp.token_requests();
    let error = fetch(source).await.unwrap_err();
    (error, idp.token_requests() - before)
}

#[tokio::test]
async fn p91_well_known_segment_is_inserted_before_the_issuer_path() {
    for (path, asked) in [
        ("", OAUTH.to_owned()),
        ("/", OAUTH.to_owned()),
        ("/t1", format!("{OAUTH}/t1")),
        ("/t1/", format!("{OAUTH}/t1")),
        ("/a/b", format!("{OAUTH}/a/b")),
    ] {
        let idp = idp_at(path).await;
        fetch(discover(idp.issuer())).await.unwrap();
        assert_eq!(paths(&idp), [asked.as_str(), TOKEN], "{path}");
        let asked = &idp.token_log()[0];
        assert_eq!(asked.method, "GET");
        assert_eq!(asked.header("accept"), Some("application/json"));
        assert_eq!(asked.header("authorization"), None);
    }
}

#[tokio::test]
async fn p92_p93_after_a_404_the_openid_locations_are_tried() {
    let idp = idp_at("/t1/").await;
    idp.then(Answer::status(404));
    idp.then(Answer::status(404));
    fetch(discover(idp.issuer())).await.unwrap();
    let inserted = format!("{OPENID}/t1");
    let appended = format!("/t1{OPENID}");
    let asked = [&format!("{OAUTH}/t1"), &inserted, &appended, TOKEN];
    assert_eq!(paths(&idp), asked);
    // Without a path, two of the locations are the same.
    let idp = idp_at("").await;
    for _ in 0..2 {
        idp.then(Answer::status(404));
    }
    let (error, _) = failure(&idp, discover(idp.issuer())).await;
    assert_eq!(paths(&idp), [OAUTH, OPENID]);
    assert_eq!(error.kind(), ErrorKind::Discovery);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn p93_p96_after_other_failures_no_other_location_is_tried() {
    let idp = idp_at("").await;
    let page = Answer::bytes(200, "text/html", "<html>canary</html>");
    for (answer, retryable) in [
        (Answer::status(500), true),
        (Answer::status(503).header("retry-after", "7"), true),
        (Answer::status(429), true),
        (Answer::status(400), false),
        (Answer::status(401), false),
        (Answer::status(204), false),
        (Answer::redirect("https://elsewhere.example/"), false),
        (page, true),
        (Answer::json(200, json!(["canary"])), true),
    ] {
        idp.then(answer);
        let (error, requests) = failure(&idp, discover(idp.issuer())).await;
        assert_eq!(kind(&error, "canary"), ErrorKind::Discovery, "{error}");
        assert_eq!((error.is_retryable(), requests), (retryable, 1), "{error}");
    }
    idp.then(Answer::status(503).header("retry-after", "7"));
    let (error, _) = failure(&idp, discover(idp.issuer())).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(error.status().unwrap(), 503);
    idp.then(Answer::drop_connection());
    let (error, _) = failure(&idp, discover(idp.issuer())).await;
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.to_string().contains("metadata"), "{error}");
}

#[tokio::test]
async fn p94_metadata_of_another_issuer_are_rejected() {
    let idp = idp_at("/t1").await;
    let issuer = idp.issuer();
    for other in [
        format!("{issuer}/"),
        issuer.to_uppercase(),
        issuer.replace("127.0.0.1", "localhost"),
        issuer.replace("t1", "t2"),
        String::new(),
    ] {
        idp.set_metadata("issuer", other.clone().into());
        let (error, requests) = failure(&idp, discover(issuer.as_str())).await;
        assert_eq!(kind(&error, "canary"), ErrorKind::Discovery, "{other}");
        assert_eq!((error.is_retryable(), requests), (false, 1), "{other}");
    }
    // Metadata without `issuer`.
    idp.set_metadata("issuer", Value::Null);
    assert!(fetch(discover(issuer.as_str())).await.is_err());
    idp.set_metadata("issuer", issuer.as_str().into());
    fetch(discover(issuer)).await.unwrap();
}

#[tokio::test]
async fn p95_issuer_is_an_https_url_without_query_and_fragment() {
    for (wrong, field) in [
        ("http://idp.example", "issuer"),
        ("https://idp.example?x", "issuer"),
        ("https://idp.example/#f", "issuer"),
        ("https://user:canary@idp.example/", "issuer"),
        ("idp.example", "issuer"),
        ("", "issuer"),
        // A pattern is not a URL.
        ("https://idp.example/{tenantid}/v2.0", "issuer"),
    ] {
        assert_eq!(refused(discover(wrong)), field, "{wrong}");
        let code = AuthorizationCode::discover(wrong, "app").build();
        assert_eq!(code.unwrap_err().field(), field, "{wrong}");
        assert!(!format!("{:?}", Issuer::new(wrong)).contains("canary"));
    }
    let at = Issuer::new("https://idp.example").metadata_url("http://idp.example/metadata");
    assert_eq!(refused(discover(at)), "metadata_url");
}

#[tokio::test]
async fn p96_p101_unknown_and_empty_members_are_ignored() {
    let idp = idp_at("").await;
    for (member, value) in [
        ("scopes_supported", json!([])),
        ("token_endpoint_auth_methods_supported", json!([])),
        ("x_unknown", json!({"a": [1, 2, {"b": null}]})),
        ("signed_metadata", json!("e30.e30.")),
        ("jwks_uri", json!(17)),
    ] {
        idp.set_metadata(member, value);
    }
    fetch(discover(idp.issuer())).await.unwrap();
    assert_eq!(credentials(&idp.token_log()[1]), "client-id:client-secret");
}

#[tokio::test]
async fn p97_issuers_are_compared_by_code_points() {
    let idp = idp_at("/caf\u{e9}").await;
    let document = |issuer: &str| {
        let text = r#"{"issuer":"ISSUER","token_endpoint":"TOKEN"}"#;
        let text = text.replace("TOKEN", &idp.token_url());
        let text = text.replace("ISSUER", issuer);
        Answer::bytes(200, "application/json", text)
    };
    let issuer = idp.issuer();
    // The same text with JSON escapes.
    idp.then(document(&issuer.replace('/', r"\u002f")));
    fetch(discover(issuer.as_str())).await.unwrap();
    // Another text that looks the same.
    idp.then(document(&issuer.replace('\u{e9}', "e\u{301}")));
    assert!(fetch(discover(issuer.as_str())).await.is_err());
    // The texts are compared, not the parsed URLs.
    idp.then(document(&issuer.replace('\u{e9}', "%C3%A9")));
    assert!(fetch(discover(issuer.as_str())).await.is_err());
}

#[tokio::test]
async fn p98_client_authentication_method_comes_from_the_metadata() {
    const METHODS: &str = "token_endpoint_auth_methods_supported";
    let idp = idp_at("").await;
    let sent = async |methods: Value, source: ClientCredentialsBuilder| {
        idp.set_metadata(METHODS, methods);
        let source = source.build().unwrap();
        let before = idp.token_requests();
        source.fetch(TokenRequest::new()).await?;
        let log = idp.token_log();
        assert_eq!(log.len(), before + 2);
        Ok::<_, Error>(log[before + 1].clone())
    };
    let ours = || discover(idp.issuer());
    // Without the member: Basic.
    let basic = sent(Value::Null, ours()).await.unwrap();
    assert_eq!(credentials(&basic), "client-id:client-secret");
    let basic = json!(["client_secret_post", "client_secret_basic"]);
    let basic = sent(basic, ours()).await.unwrap();
    assert_eq!(credentials(&basic), "client-id:client-secret");
    let post = json!(["private_key_jwt", "client_secret_post"]);
    let post = sent(post, ours()).await.unwrap();
    assert_eq!(value(&post.form(), "client_secret"), Some("client-secret"));
    assert_eq!(post.header("authorization"), None);
    // No method that this client supports: an error, and no token request.
    let before = idp.token_requests();
    let none = sent(json!(["private_key_jwt"]), ours()).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Discovery);
    assert!(none.to_string().contains("client_auth"), "{none}");
    assert_eq!(idp.token_requests(), before + 1);
    // The caller's setting takes precedence over the metadata.
    let configured = ours().client_auth(ClientAuth::post());
    let configured = sent(json!(["client_secret_basic"]), configured)
        .await
        .unwrap();
    assert_eq!(
        value(&configured.form(), "client_secret"),
        Some("client-secret")
    );
    // Parameters in the URL do not change Basic.
    let in_query = ours().params_in_query();
    let post = json!(["client_secret_post"]);
    assert!(sent(post, in_query).await.is_err());
}

#[tokio::test]
#[cfg(feature = "jwt")]
async fn p98_client_secret_jwt_is_used_if_the_secret_is_long_enough() {
    let secret = "0123456789-0123456789-0123456789";
    let builder = MockIdp::builder().client("long", secret);
    let idp = builder.start().await.unwrap();
    let methods = json!(["client_secret_jwt"]);
    idp.set_metadata("token_endpoint_auth_methods_supported", methods);
    let source = ClientCredentials::discover(idp.issuer(), "long", secret);
    // The mock does not support assertions.
    fetch(source).await.unwrap_err();
    let form = idp.token_log()[1].form();
    assert!(value(&form, "client_assertion").is_some());
    assert_eq!(value(&form, "client_secret"), None);
    // A secret that is too short cannot sign.
    let (error, requests) = failure(&idp, discover(idp.issuer())).await;
    assert_eq!((error.kind(), requests), (ErrorKind::Discovery, 1));
}

#[tokio::test]
async fn p99_grant_types_supported_blocks_no_grant() {
    let idp = idp_at("").await;
    for types in [Value::Null, json!(["authorization_code", "implicit"])] {
        idp.set_metadata("grant_types_supported", types);
        fetch(discover(idp.issuer())).await.unwrap();
    }
}

#[tokio::test]
async fn p100_pkce_and_state_are_sent_with_any_metadata() {
    let builder = MockIdp::builder().client("app", "");
    let idp = builder.start().await.unwrap();
    for methods in [Value::Null, json!([]), json!(["S256"])] {
        idp.set_metadata("code_challenge_methods_supported", methods);
        idp.set_metadata("pushed_authorization_request_endpoint", Value::Null);
        let auth = AuthorizationCode::discover(idp.issuer(), "app");
        let auth = auth.redirect_uri("https://app.example/cb").build().unwrap();
        let login = auth.start().await.unwrap();
        let asked = parameters(login.url());
        assert_eq!(value(&asked, "code_challenge_method"), Some("S256"));
        assert!(value(&asked, "state").is_some());
        let forged = browse(login.url()).await.replace("state=", "state=x");
        assert!(login.finish(&forged).await.is_err());
    }
}

#[tokio::test]
async fn p102_insecure_endpoints_in_the_metadata_are_rejected() {
    let idp = idp_at("").await;
    for member in [
        "token_endpoint",
        "authorization_endpoint",
        "revocation_endpoint",
        "pushed_authorization_request_endpoint",
    ] {
        for url in [
            "http://idp.example/canary",
            "https://user:canary@idp.example/",
            "https://idp.example/#canary",
            "canary",
            "",
        ] {
            let idp = idp_at("").await;
            idp.set_metadata(member, url.into());
            let (error, requests) = failure(&idp, discover(idp.issuer())).await;
            assert_eq!(
                kind(&error, "canary"),
                ErrorKind::Discovery,
                "{member}: {url}"
            );
            assert_eq!(requests, 1, "{member}: {url}");
        }
    }
    idp.set_metadata("token_endpoint", Value::Null);
    let (error, _) = failure(&idp, discover(idp.issuer())).await;
    assert_eq!(error.kind(), ErrorKind::Discovery);
    // The authorization code grant needs another endpoint.
    let idp = idp_at("").await;
    idp.set_metadata("authorization_endpoint", Value::Null);
    fetch(discover(idp.issuer())).await.unwrap();
    let auth = AuthorizationCode::discover(idp.issuer(), "app")
        .build()
        .unwrap();
    let error = auth.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Discovery);
}

#[tokio::test]
async fn p103_concurrent_callers_share_one_metadata_request() {
    let idp = idp_at("").await;
    let issuer = Issuer::new(idp.issuer());
    let sources: Vec<_> = (0..100)
        .map(|_| discover(issuer.clone()).build().unwrap())
        .collect();
    let hold = idp.hold();
    let all: Vec<_> = sources
        .into_iter()
        .map(|source| tokio::spawn(async move { source.fetch(TokenRequest::new()).await }))
        .collect();
    idp.token_requests_reach(1).await;
    hold.release();
    for one in all {
        one.await.unwrap().unwrap();
    }
    let asked = paths(&idp);
    assert_eq!(asked.iter().filter(|path| *path == OAUTH).count(), 1);
    assert_eq!(asked.len(), 101);
}

#[tokio::test]
async fn p103_concurrent_callers_share_a_failed_metadata_request() {
    let idp = idp_at("").await;
    let source = std::sync::Arc::new(discover(idp.issuer()).build().unwrap());
    idp.then(Answer::status(500));
    let hold = idp.hold();
    let all: Vec<_> = (0..10)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { source.fetch(TokenRequest::new()).await })
        })
        .collect();
    idp.token_requests_reach(1).await;
    // All others wait for the first one's request.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    hold.release();
    for one in all {
        assert_eq!(one.await.unwrap().unwrap_err().kind(), ErrorKind::Discovery);
    }
    assert_eq!(idp.token_requests(), 1);
    // A later caller sends a request again.
    source.fetch(TokenRequest::new()).await.unwrap();
    assert_eq!(paths(&idp), [OAUTH, OAUTH, TOKEN]);
}

#[tokio::test]
async fn p103_old_metadata_serve_while_the_refresh_fails() {
    let idp = idp_at("").await;
    let at = |idp: &MockIdp| Issuer::new(idp.issuer()).max_age(Duration::ZERO);
    let source = discover(at(&idp)).build().unwrap();
    let ask = async || source.fetch(TokenRequest::new()).await.unwrap();
    ask().await;
    ask().await;
    assert_eq!(paths(&idp), [OAUTH, TOKEN, OAUTH, TOKEN]);
    // Neither an outage nor metadata of another issuer replaces the cached metadata.
    idp.then(Answer::status(503));
    ask().await;
    assert_eq!(paths(&idp)[4..], [OAUTH, TOKEN]);
    // No further request during the pause.
    ask().await;
    assert_eq!(paths(&idp)[6..], [TOKEN]);
    let source = discover(at(&idp)).build().unwrap();
    source.fetch(TokenRequest::new()).await.unwrap();
    idp.set_metadata("issuer", "https://evil.example".into());
    source.fetch(TokenRequest::new()).await.unwrap();
    // Metadata are cached for an hour by default.
    let idp = idp_at("").await;
    let cache = TokenCache::new(discover(idp.issuer()).build().unwrap());
    cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    assert_eq!(paths(&idp), [OAUTH, TOKEN, TOKEN]);
}

#[tokio::test]
async fn p94_p102_metadata_url_and_issuer_pattern_can_be_configured() {
    let idp = idp_at("/common").await;
    // Azure AD B2C: another path than the issuer's.
    let tenant = idp.issuer().replace("common", "tenant/v2.0/");
    idp.set_metadata("issuer", tenant.as_str().into());
    let at = format!("{}{OPENID}", idp.issuer());
    let issuer = Issuer::new(tenant).metadata_url(at.as_str());
    fetch(discover(issuer)).await.unwrap();
    assert_eq!(paths(&idp), [&format!("/common{OPENID}"), TOKEN]);
    // Entra ID: the issuer in the metadata for all tenants is a pattern.
    let pattern = "https://login.microsoftonline.com/{tenantid}/v2.0";
    idp.set_metadata("issuer", pattern.into());
    let issuer = Issuer::new(pattern).metadata_url(at.as_str());
    let error = fetch(discover(issuer)).await.unwrap_err();
    // Metadata from an https URL must not contain plain http endpoints.
    assert_eq!(error.kind(), ErrorKind::Discovery);
    let pattern = idp.issuer().replace("common", "{tenantid}");
    idp.set_metadata("issuer", pattern.as_str().into());
    let issuer = Issuer::new(pattern).metadata_url(at.as_str());
    fetch(discover(issuer)).await.unwrap();
}

#[tokio::test]
async fn p163_metadata_decide_whether_iss_is_required() {
    let builder = MockIdp::builder().client("app", "");
    let idp = builder.start().await.unwrap();
    let auth = |idp: &MockIdp| {
        let auth = AuthorizationCode::discover(idp.issuer(), "app");
        auth.redirect_uri("https://app.example/cb")
    };
    let sign_in = async |auth: AuthorizationCode| -> Result<TokenResponse, Error> {
        let login = auth.start().await?;
        let callback = browse(login.url()).await;
        // As in another process, which requests the metadata again.
        let login = auth.resume(&expose(&login)).unwrap();
        login
            .finish(&callback)
            .await?
            .fetch(TokenRequest::new())
            .await
    };
    // Without the member, `iss` is optional.
    sign_in(auth(&idp).build().unwrap()).await.unwrap();
    idp.set_iss(Some(&idp.issuer()));
    sign_in(auth(&idp).build().unwrap()).await.unwrap();
    // With the member, `iss` is required.
    idp.set_iss(None);
    let promised = "authorization_response_iss_parameter_supported";
    idp.set_metadata(promised, true.into());
    let error = sign_in(auth(&idp).build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
    // An explicit setting for a server whose metadata are wrong.
    let lenient = auth(&idp).issuer(idp.issuer()).build().unwrap();
    sign_in(lenient).await.unwrap();
    let other = auth(&idp).issuer("https://other.example").build();
    assert_eq!(other.unwrap_err().field(), "issuer");
    // Another issuer is rejected in both cases.
    idp.set_iss(Some("https://evil.example"));
    for auth in [auth(&idp), auth(&idp).issuer(idp.issuer())] {
        let before = idp.token_log().iter().filter(|r| r.path() == TOKEN).count();
        let error = sign_in(auth.build().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SignIn);
        let after = idp.token_log().iter().filter(|r| r.path() == TOKEN).count();
        assert_eq!(after, before);
    }
}

fn expose(login: &bearer_auth::PendingLogin) -> String {
    use secrecy::ExposeSecret as _;
    login.save().expose_secret().to_owned()
}

#[tokio::test]
async fn p98_p191_discovery_configures_login_refresh_and_logout() {
    let builder = MockIdp::builder().client("app", "").issuer_path("/t1");
    let idp = builder.start().await.unwrap();
    let auth = AuthorizationCode::discover(idp.issuer(), "app");
    let auth = auth.redirect_uri("https://app.example/cb").build().unwrap();
    let login = auth.start().await.unwrap();
    let callback = browse(login.url()).await;
    let session = login.finish(&callback).await.unwrap();
    let cache = TokenCache::new(session.clone());
    cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    session.logout().await.unwrap();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    let metadata = format!("{OAUTH}/t1");
    let revoke = "/oauth2/v1/revoke";
    let asked = [&metadata, PUSH, TOKEN, TOKEN, revoke, revoke];
    assert_eq!(paths(&idp), asked);
}

/// An HTTP client whose metadata requests can be made to hang.
#[derive(Clone, Default)]
struct Stuck {
    http: Arc<ReqwestClient>,
    hangs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl HttpClient for Stuck {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        if request.uri().path().contains("/.well-known/") {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
        }
        self.http.send(request).await
    }
}

impl Stuck {
    async fn asked(&self, times: usize) {
        while self.asked.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn p103_callers_with_old_metadata_do_not_wait_for_the_refresh() {
    let idp = idp_at("").await;
    let http = Stuck::default();
    let issuer = Issuer::new(idp.issuer()).max_age(Duration::ZERO);
    let source = discover(issuer).http_client(http.clone()).build().unwrap();
    let source = Arc::new(source);
    source.fetch(TokenRequest::new()).await.unwrap();
    http.hangs.store(true, Ordering::SeqCst);
    let renewing = tokio::spawn({
        let source = source.clone();
        async move { source.fetch(TokenRequest::new()).await }
    });
    http.asked(2).await;
    source.fetch(TokenRequest::new()).await.unwrap();
    assert!(!renewing.is_finished());
    // A dropped refresh does not block callers either.
    renewing.abort();
    assert!(renewing.await.unwrap_err().is_cancelled());
    source.fetch(TokenRequest::new()).await.unwrap();
    assert_eq!(http.asked.load(Ordering::SeqCst), 2);
}

/// The HTTP client has no time limit of its own.
#[tokio::test(start_paused = true)]
async fn p103_silent_metadata_endpoint_times_out_after_a_minute() {
    let http = Stuck::default();
    http.hangs.store(true, Ordering::SeqCst);
    let issuer = Issuer::new("https://idp.example");
    let sources = [(); 3].map(|()| {
        let source = discover(issuer.clone()).http_client(http.clone());
        let source = source.build().unwrap();
        tokio::spawn(async move { source.fetch(TokenRequest::new()).await })
    });
    for source in sources {
        let error = source.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn p103_store_is_not_locked_during_a_metadata_request() {
    let builder = MockIdp::builder().client("app", "");
    let idp = builder.start().await.unwrap();
    let (http, store) = (Stuck::default(), MemoryStore::new());
    let auth = || {
        let auth = AuthorizationCode::discover(idp.issuer(), "app");
        let auth = auth.redirect_uri("https://app.example/cb");
        auth.http_client(http.clone()).store(store.clone())
    };
    let signed_in = auth().build().unwrap();
    let login = signed_in.start().await.unwrap();
    let callback = browse(login.url()).await;
    let session = login.finish(&callback).await.unwrap();
    let token = TokenCache::new(session).token().await.unwrap();
    // A new process, without cached metadata.
    http.hangs.store(true, Ordering::SeqCst);
    let mut request = TokenRequest::new();
    request.previous = Some(token);
    let session = auth().build().unwrap().session();
    let renewing = tokio::spawn(async move { session.fetch(request).await });
    http.asked(2).await;
    let turns = async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        locked = store.lock() => drop(locked.unwrap()),
        () = turns => panic!("locked"),
    }
    renewing.abort();
}

#[tokio::test]
async fn p103_issuers_with_different_metadata_urls_share_nothing() {
    let idp = idp_at("/t1").await;
    let issuer = Issuer::new(idp.issuer());
    fetch(discover(issuer.clone())).await.unwrap();
    let at = format!("{}{OPENID}", idp.issuer());
    fetch(discover(issuer.clone().metadata_url(at)))
        .await
        .unwrap();
    fetch(discover(issuer)).await.unwrap();
    let behind = format!("/t1{OPENID}");
    let asked = [&format!("{OAUTH}/t1"), TOKEN, &behind, TOKEN, TOKEN];
    assert_eq!(paths(&idp), asked);
}

/// The HTTP client ignores the size limit.
#[tokio::test]
async fn p96_metadata_that_are_too_large_are_an_error() {
    struct Endless;
    impl HttpClient for Endless {
        async fn send(&self, _: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
            let document = r#"{"issuer":"https://idp.example","token_endpoint":"https://h/t"}"#;
            let document = document.to_owned() + &" ".repeat(MAX_BODY);
            Ok(http::Response::new(Bytes::from(document)))
        }
    }
    let source = discover("https://idp.example").http_client(Endless);
    let error = fetch(source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.to_string().contains("metadata"), "{error}");
}

#[tokio::test]
async fn p96_null_members_are_absent() {
    let idp = idp_at("").await;
    let document = json!({
        "issuer": idp.issuer(),
        "token_endpoint": idp.token_url(),
        "authorization_endpoint": null,
        "revocation_endpoint": null,
        "pushed_authorization_request_endpoint": null,
        "require_pushed_authorization_requests": null,
        "token_endpoint_auth_methods_supported": null,
        "authorization_response_iss_parameter_supported": null,
        "mtls_endpoint_aliases": null,
    });
    idp.then(Answer::json(200, document));
    fetch(discover(idp.issuer())).await.unwrap();
}

#[tokio::test]
async fn p22_parameter_in_a_discovered_endpoint_is_not_repeated() {
    let builder = MockIdp::builder().client("app", "");
    let idp = builder.start().await.unwrap();
    idp.set_metadata("pushed_authorization_request_endpoint", Value::Null);
    let auth = |name: &str| {
        let auth = AuthorizationCode::discover(idp.issuer(), "app");
        let auth = auth.redirect_uri("https://app.example/cb").param(name, "x");
        auth.build().unwrap()
    };
    let endpoint = idp.authorization_url() + "?p=b2c_1";
    idp.set_metadata("authorization_endpoint", endpoint.into());
    assert!(auth("q").start().await.is_ok());
    let error = auth("p").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignIn);
}
