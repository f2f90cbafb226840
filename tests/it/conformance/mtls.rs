//! Mutual TLS (RFC 8705): client authentication with a certificate, and certificate-bound tokens.

use std::sync::{Arc, Mutex};

use bearer_auth::{
    AuthorizationCode, BearerAuth, BearerAuthLayer, ClientAuth, ClientCredentials,
    ClientCredentialsBuilder, ErrorKind, OAuthErrorCode, TokenCache,
    endpoint::{HttpClient, HttpError, ReqwestClient},
    provider,
    store::FileStore,
    testing::MockIdp,
};
use bytes::Bytes;
use http::Request;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tower::{Layer as _, ServiceExt as _};

use super::{
    rig::*,
    sign_in::{REDIRECT, public, signed_in},
    tls_front::{Asking, Front},
};
use crate::support::tls::{Authority, Identity, http};

/// The client has no secret, only a certificate.
async fn idp() -> MockIdp {
    let builder = MockIdp::builder().client("mtls", "").client("app", "");
    builder.start().await.unwrap()
}

fn source(front: &Front, http: impl HttpClient) -> ClientCredentialsBuilder {
    ClientCredentials::builder(front.token_url(), "mtls", "")
        .client_auth(ClientAuth::tls())
        .http_client(http)
}

fn layer(front: &Front, http: impl HttpClient) -> BearerAuthLayer {
    let source = source(front, http).build().unwrap();
    BearerAuthLayer::for_api(front.api_url(), source).unwrap()
}

async fn get(client: &BearerAuth<reqwest::Client>, front: &Front) -> u16 {
    let url = front.api_url() + "orders";
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    let response = client.clone().oneshot(request).await.unwrap();
    response.status().as_u16()
}

/// An HTTP client whose certificate can be replaced.
#[derive(Clone)]
struct Changing(Arc<Mutex<Arc<ReqwestClient>>>);

impl Changing {
    fn new(http: ReqwestClient) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(http))))
    }

    fn change(&self, http: ReqwestClient) {
        *self.0.lock().unwrap() = Arc::new(http);
    }
}

impl HttpClient for Changing {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let http = Arc::clone(&self.0.lock().unwrap());
        http.send(request).await
    }
}

#[tokio::test]
async fn p139_request_with_a_certificate_contains_only_the_client_id() {
    // The configured secret is not used.
    let plain = ReqwestClient::new;
    let tls = |source: ClientCredentialsBuilder| {
        source.client_auth(ClientAuth::tls()).http_client(plain())
    };
    let request = sent(tls).await;
    assert_eq!(
        body(&request),
        "grant_type=client_credentials&client_id=client-id"
    );
    assert_eq!(request.header("authorization"), None);
    let request = sent(|source| tls(source).params_in_query()).await;
    assert_eq!(value(&request.query(), "client_id"), Some("client-id"));
    assert_eq!(value(&request.query(), "client_secret"), None);
    assert_eq!(request.header("authorization"), None);

    // The requests with a code and with a refresh token contain it once, too.
    let idp = MockIdp::builder().client("app", "").start().await.unwrap();
    let auth = public(&idp)
        .client_secret("client-secret")
        .client_auth(ClientAuth::tls())
        .http_client(plain())
        .build()
        .unwrap();
    super::sign_in::refresh(&signed_in(&auth).await)
        .await
        .unwrap();
    let log = idp.token_log();
    assert_eq!(log.len(), 2);
    for request in log {
        assert_eq!(value(&request.form(), "client_id"), Some("app"));
        assert_eq!(value(&request.form(), "client_secret"), None);
        assert_eq!(request.header("authorization"), None);
    }
}

#[test]
fn p139_tls_authentication_needs_an_http_client_with_a_certificate() {
    let source = || ClientCredentials::builder("https://as.example/token", "mtls", "");
    let tls = || source().client_auth(ClientAuth::tls());
    let http = ReqwestClient::new;
    assert_eq!(refused(tls()), "http_client");
    assert!(tls().http_client(http()).build().is_ok());
    assert_eq!(
        refused(tls().client_auth(ClientAuth::basic()).http_client(http())),
        "client_auth"
    );
    assert_eq!(
        refused(source().client_auth(ClientAuth::none()).http_client(http())),
        "client_auth"
    );
    let spelled = source().client_auth(ClientAuth::tls().scheme("basic"));
    assert_eq!(refused(spelled.http_client(http())), "client_auth");
    // Settings that require client authentication accept a certificate.
    let smart = provider::smart_completions("https://as.example", "mtls", "");
    let smart = smart.client_auth(ClientAuth::tls()).http_client(http());
    assert!(smart.build().is_ok());
    let urls = ("https://as.example/auth", "https://as.example/token");
    let login = || AuthorizationCode::builder(urls.0, urls.1, "mtls").without_pkce();
    let tls = login().client_auth(ClientAuth::tls()).http_client(http());
    assert!(tls.build().is_ok());
    assert_eq!(login().build().unwrap_err().field(), "without_pkce");
}

#[tokio::test]
async fn p140_certificate_is_sent_with_its_chain() {
    let idp = idp().await;
    let issued = Authority::new().issue("mtls");
    let self_signed = Identity::self_signed("mtls");
    for version in [&TLS12, &TLS13] {
        for identity in [&issued, &self_signed] {
            let asking = Asking {
                version: Some(version),
                ..Asking::for_one_of(&[identity])
            };
            let front = Front::of(&idp, asking).await;
            front.register("mtls", &[identity]);
            let source = source(&front, identity.http(&front.root)).build().unwrap();
            let cache = TokenCache::new(source);
            for _ in 0..3 {
                cache.refresh().await.unwrap();
            }
            let seen = front.seen(false);
            // A resumed TLS session does not send the certificate again; the server keeps that of the
            // first connection (RFC 8446 §2.2).
            let resumed: Vec<_> = seen.iter().map(|seen| seen.resumed).collect();
            assert_eq!(resumed, [false, true, true]);
            for seen in seen {
                assert_eq!(seen.chain, identity.thumbprints());
            }
        }
    }
}

#[tokio::test]
async fn p140_wrong_or_missing_certificate_is_a_typed_error() {
    let idp = idp().await;
    let authority = Authority::new();
    let [ours, other] = ["mtls", "other"].map(|name| authority.issue(name));
    let stranger = Identity::self_signed("mtls");

    // The server refuses the connection. In TLS 1.3 the client learns it after its own handshake.
    for (version, kind) in [(&TLS12, ErrorKind::Connect), (&TLS13, ErrorKind::Transport)] {
        let asking = Asking {
            version: Some(version),
            ..Asking::for_one_of(&[&ours])
        };
        let front = Front::of(&idp, asking).await;
        for http in [http(&front.root), stranger.http(&front.root)] {
            let error = fetch(source(&front, http)).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(error.oauth_error(), None);
        }
        assert!(front.seen(false).is_empty());
    }

    // The server accepts the connection, and rejects the client.
    let asking = Asking {
        optional: true,
        ..Asking::for_one_of(&[&ours])
    };
    let front = Front::of(&idp, asking).await;
    front.register("mtls", &[&ours]);
    for (requests, http) in (1..).zip([http(&front.root), other.http(&front.root)]) {
        let cache = TokenCache::new(source(&front, http).build().unwrap());
        for _ in 0..2 {
            let error = cache.token().await.unwrap_err();
            let code = error.oauth_error().unwrap().code();
            assert_eq!(*code, OAuthErrorCode::InvalidClient);
            assert!(!error.is_retryable());
        }
        assert_eq!(front.seen(false).len(), requests);
    }
    assert_eq!(idp.token_requests(), 0);
    fetch(source(&front, ours.http(&front.root))).await.unwrap();
}

#[tokio::test]
async fn p141_api_gets_the_certificate_of_the_token() {
    let idp = idp().await;
    let authority = Authority::new();
    let [ours, other] = ["mtls", "other"].map(|name| authority.issue(name));
    let front = Front::of(&idp, Asking::for_one_of(&[&ours])).await;
    front.register("mtls", &[&ours]);
    let auth = layer(&front, ours.http(&front.root));
    let client = auth.layer(ours.api(&front.root));
    for _ in 0..2 {
        assert_eq!(get(&client, &front).await, 200);
    }
    let with = |status, identity: &Identity| (status, identity.thumbprint());
    assert_eq!(front.at_the_idp(), [ours.thumbprint()]);
    assert_eq!(front.at_the_api(), [with(200, &ours), with(200, &ours)]);

    // The same token and the next one, with another certificate.
    let client = auth.layer(other.api(&front.root));
    assert_eq!(get(&client, &front).await, 401);
    assert_eq!(front.at_the_idp().len(), 2);
    assert_eq!(
        front.at_the_api()[2..],
        [with(401, &other), with(401, &other)]
    );
}

#[tokio::test]
async fn p142_mtls_endpoint_aliases_are_preferred() {
    let idp = idp().await;
    let ours = Identity::self_signed("ours");
    let front = Front::of(&idp, Asking::for_one_of(&[&ours])).await;
    front.register("mtls", &[&ours]);
    let path = |url: String| url.parse::<http::Uri>().unwrap().path().to_owned();
    let token = path(idp.token_url());
    let aliases = serde_json::json!({ "token_endpoint": front.token_url() });
    idp.set_metadata("mtls_endpoint_aliases", aliases);
    let plainly = |idp: &MockIdp| {
        let log = idp.token_log().into_iter();
        log.filter(|sent| sent.path() == token).count()
    };
    // A client that authenticates with the certificate, and one that only binds its tokens.
    let source = ClientCredentials::discover(idp.issuer(), "mtls", "")
        .client_auth(ClientAuth::tls())
        .http_client(ours.http(&front.root));
    fetch(source).await.unwrap();
    assert_eq!(front.at_the_idp(), [ours.thumbprint()]);
    let auth = |http: ReqwestClient| {
        let auth = AuthorizationCode::discover(idp.issuer(), "app").http_client(http);
        auth.redirect_uri(REDIRECT).build().unwrap()
    };
    let session = signed_in(&auth(ours.http(&front.root))).await;
    assert_eq!(front.at_the_idp(), [ours.thumbprint(), ours.thumbprint()]);
    assert_eq!(plainly(&idp), 2, "both through the front");
    // Without an alias, the ordinary endpoint is used.
    session.logout().await.unwrap();
    assert!(
        idp.token_log()
            .iter()
            .any(|sent| sent.path().ends_with("/revoke"))
    );
    assert_eq!(front.at_the_idp().len(), 2);
    // A client without a certificate ignores the aliases.
    signed_in(&auth(ReqwestClient::new())).await;
    assert_eq!((front.at_the_idp().len(), plainly(&idp)), (2, 3));
}

/// Records requests and sends nothing.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl HttpClient for Asked {
    async fn send(&self, request: Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let url = request.uri().to_string();
        let answer = if url.contains("/.well-known/") {
            let at = |host: &str| {
                serde_json::json!({
                    "token_endpoint": format!("https://{host}/token"),
                    "revocation_endpoint": format!("https://{host}/revoke"),
                    "pushed_authorization_request_endpoint": format!("https://{host}/par"),
                })
            };
            let mut document = at("idp.example");
            document["issuer"] = "https://idp.example".into();
            document["authorization_endpoint"] = "https://idp.example/authorize".into();
            document["mtls_endpoint_aliases"] = at("mtls.idp.example");
            document
        } else {
            self.0.lock().unwrap().push(url);
            serde_json::json!({
                "access_token": "a", "token_type": "Bearer", "refresh_token": "r",
                "request_uri": "urn:x", "expires_in": 60,
            })
        };
        let answer = Bytes::from(answer.to_string());
        Ok(http::Response::new(answer))
    }
}

/// The certificate is in the connector, where the crate cannot see it.
#[tokio::test]
async fn p142_mtls_alias_of_every_endpoint_is_used() {
    for (client, host) in [
        (ClientAuth::tls(), "mtls.idp.example"),
        (ClientAuth::none(), "idp.example"),
    ] {
        let asked = Asked::default();
        let auth = AuthorizationCode::discover("https://idp.example", "app")
            .client_auth(client)
            .http_client(asked.clone())
            .build()
            .unwrap();
        let login = auth.start().await.unwrap();
        assert!(login.url().starts_with("https://idp.example/authorize?"));
        let state = secrecy::ExposeSecret::expose_secret(login.state()).to_owned();
        let session = login.finish(&format!("code=c&state={state}")).await;
        session.unwrap().logout().await.unwrap();
        let expected = ["par", "token", "revoke", "revoke"];
        let expected = expected.map(|path| format!("https://{host}/{path}"));
        assert_eq!(*asked.0.lock().unwrap(), expected);
    }
}

#[tokio::test]
async fn p143_token_bound_to_the_old_certificate_is_replaced_once() {
    let idp = idp().await;
    let authority = Authority::new();
    let [old, new] = ["mtls", "mtls"].map(|name| authority.issue(name));
    let front = Front::of(&idp, Asking::for_one_of(&[&old])).await;
    front.register("mtls", &[&old, &new]);
    let http = Changing::new(old.http(&front.root));
    let auth = layer(&front, http.clone());
    assert_eq!(get(&auth.layer(old.api(&front.root)), &front).await, 200);

    // The certificate is replaced without a call to the cache.
    http.change(new.http(&front.root));
    let client = auth.layer(new.api(&front.root));
    for _ in 0..2 {
        assert_eq!(get(&client, &front).await, 200);
    }
    let with = |status, identity: &Identity| (status, identity.thumbprint());
    assert_eq!(
        front.at_the_api(),
        [
            with(200, &old),
            with(401, &new),
            with(200, &new),
            with(200, &new)
        ]
    );
    assert_eq!(front.at_the_idp(), [old.thumbprint(), new.thumbprint()]);
}

/// The stored access token is bound to the old certificate.
#[tokio::test]
async fn p143_session_continues_with_a_new_certificate() {
    let idp = idp().await;
    let authority = Authority::new();
    let [old, new] = ["mtls", "mtls"].map(|name| authority.issue(name));
    let front = Front::of(&idp, Asking::for_one_of(&[&old])).await;
    front.register("mtls", &[&old, &new]);
    let folder = tempfile::tempdir().unwrap();
    let auth = |identity: &Identity| {
        let urls = (idp.authorization_url(), front.token_url());
        AuthorizationCode::builder(urls.0, urls.1, "mtls")
            .redirect_uri(REDIRECT)
            .client_auth(ClientAuth::tls())
            .http_client(identity.http(&front.root))
            .store(FileStore::new(folder.path().join("session")))
            .build()
            .unwrap()
    };
    signed_in(&auth(&old)).await;
    let session = auth(&new).session();
    let layer = BearerAuthLayer::for_api(front.api_url(), session).unwrap();
    assert_eq!(get(&layer.layer(new.api(&front.root)), &front).await, 200);
    let with = |status, identity: &Identity| (status, identity.thumbprint());
    assert_eq!(front.at_the_api(), [with(401, &new), with(200, &new)]);
    assert_eq!(front.at_the_idp(), [old.thumbprint(), new.thumbprint()]);
}

#[tokio::test]
async fn p144_after_a_new_certificate_the_next_request_has_a_new_token() {
    let idp = idp().await;
    let authority = Authority::new();
    let [first, second, third] = ["mtls"; 3].map(|name| authority.issue(name));
    let front = Front::of(&idp, Asking::for_one_of(&[&first])).await;
    front.register("mtls", &[&first, &second, &third]);

    let auth = layer(&front, first.http(&front.root));
    assert_eq!(get(&auth.layer(first.api(&front.root)), &front).await, 200);
    // With a new source and layer, as documented.
    let http = Changing::new(second.http(&front.root));
    let auth = layer(&front, http.clone());
    assert_eq!(get(&auth.layer(second.api(&front.root)), &front).await, 200);
    // With the certificate replaced in the client, and a call to `refresh`.
    http.change(third.http(&front.root));
    auth.cache().refresh().await.unwrap();
    assert_eq!(get(&auth.layer(third.api(&front.root)), &front).await, 200);

    let with = |identity: &Identity| (200, identity.thumbprint());
    let all = [&first, &second, &third];
    assert_eq!(front.at_the_api(), all.map(with), "and no 401");
    assert_eq!(front.at_the_idp(), all.map(Identity::thumbprint));
}

/// A client without authentication, whose tokens are certificate-bound (RFC 8705 §4).
#[tokio::test]
async fn p145_public_client_refreshes_with_the_certificate_of_the_login() {
    let idp = idp().await;
    let [ours, other] = ["ours", "other"].map(Identity::self_signed);
    let front = Front::of(&idp, Asking::for_one_of(&[&ours, &other])).await;
    let folder = tempfile::tempdir().unwrap();
    let auth = |identity: &Identity| {
        AuthorizationCode::builder(idp.authorization_url(), front.token_url(), "app")
            .redirect_uri(REDIRECT)
            .revocation_url(front.at("/revoke"))
            .http_client(identity.http(&front.root))
            .store(FileStore::new(folder.path().join("session")))
            .build()
            .unwrap()
    };
    let session = signed_in(&auth(&ours)).await;
    let cache = TokenCache::new(session.clone());
    cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    assert_eq!(front.at_the_idp(), [ours.thumbprint(), ours.thumbprint()]);

    // Another certificate ends the session.
    let elsewhere = TokenCache::new(auth(&other).session());
    elsewhere.token().await.unwrap();
    let error = elsewhere.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    let cause = std::error::Error::source(&error).unwrap();
    let cause: &bearer_auth::Error = cause.downcast_ref().unwrap();
    let code = cause.oauth_error().unwrap().code();
    assert_eq!(*code, OAuthErrorCode::InvalidGrant);
    assert_eq!(front.at_the_idp()[2..], [other.thumbprint()]);

    // The revocation uses the same certificate.
    session.logout().await.unwrap();
    let last = front.seen(false).pop().unwrap();
    assert_eq!((last.path.as_str(), last.status), ("/revoke", 200));
    assert_eq!(last.chain, ours.thumbprints());
}
