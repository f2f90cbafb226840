//! Mutual TLS (RFC 8705): the authorization server (see `tokens.rs`) verifies certificates and binds
//! tokens to them, and the API compares the two.

use bearer_auth::{
    BearerAuthLayer, ClientAuth, ClientCredentials, Error, ErrorKind, OAuthErrorCode, TokenCache,
    endpoint::ReqwestClient, store::FileStore,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};

use crate::{
    harness::tests,
    programs::oidc_provider::{OidcProvider, Stats, native_client, parse},
    support::tls::{Authority, Identity, http, pem},
};

tests! {
    needs: [OidcProvider];
    both_mtls_methods_get_certificate_bound_tokens,
    wrong_certificate_is_a_permanent_error_after_one_request,
    token_used_with_another_certificate_is_rejected,
    public_client_session_is_bound_to_its_first_certificate,
}

/// The server, with its registered clients.
struct Rig {
    idp: OidcProvider,
    /// The server's self-signed certificate.
    root: String,
    authority: Authority,
    self_signed: Identity,
}

fn rig() -> Rig {
    let server = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (authority, self_signed) = (Authority::new(), Identity::self_signed("self-signed"));
    let client = |method: &str| {
        json!({
            "client_id": method, "token_endpoint_auth_method": method,
            "tls_client_certificate_bound_access_tokens": true,
        })
    };
    let mut by_authority = client("tls_client_auth");
    by_authority["tls_client_auth_subject_dn"] = json!("CN=ours");
    let mut by_itself = client("self_signed_tls_client_auth");
    by_itself["jwks"] = json!({"keys": [self_signed.jwk()]});
    let config = json!({
        "tls": {
            "cert": server.cert.pem(), "key": server.signing_key.serialize_pem(),
            "ca": [pem(&authority.root)],
        },
        "clients": [
            by_authority, by_itself,
            {"client_id": "basic-client", "client_secret": "basic-secret"},
        ],
        "sign_in": true,
    });
    Rig {
        idp: OidcProvider::start_with(config),
        root: server.cert.pem(),
        authority,
        self_signed,
    }
}

impl Rig {
    /// A cache for the client that is registered with this method.
    fn cache(&self, method: &str, http: ReqwestClient) -> TokenCache {
        let source = ClientCredentials::builder(self.idp.token_url(), method, "")
            .client_auth(ClientAuth::tls())
            .http_client(http)
            .build();
        TokenCache::new(source.unwrap())
    }

    /// The API's answer to a request through the layer.
    async fn get(&self, cache: &TokenCache, identity: &Identity) -> (StatusCode, Value) {
        let auth = BearerAuthLayer::for_api(self.idp.api_url(), cache.clone()).unwrap();
        let client = auth.layer(identity.api(&self.root));
        let request = reqwest::Request::new(Method::GET, self.idp.resource().parse().unwrap());
        let response = client.oneshot(request).await.unwrap();
        let status = response.status();
        (status, parse(response.bytes().await.unwrap()))
    }
}

#[track_caller]
fn code(error: &Error) -> &OAuthErrorCode {
    error.oauth_error().unwrap().code()
}

async fn both_mtls_methods_get_certificate_bound_tokens() {
    let rig = rig();
    let issued = rig.authority.issue("ours");
    for (tokens, method, identity) in [
        (2, "tls_client_auth", &issued),
        (4, "self_signed_tls_client_auth", &rig.self_signed),
    ] {
        let cache = rig.cache(method, identity.http(&rig.root));
        // The second token request resumes the TLS session of the first.
        for token in [cache.token().await, cache.refresh().await] {
            let token = token.unwrap();
            let about = rig.idp.introspect(token.expose_secret()).await;
            assert_eq!(about["cnf"]["x5t#S256"], identity.thumbprint(), "{about}");
            // The API rejects a stolen token: this request has no certificate.
            assert_eq!(rig.idp.status_with(token.expose_secret()).await, 401);
            let (status, body) = rig.get(&cache, identity).await;
            assert_eq!(status, 200, "{body}");
        }
        let stats = rig.idp.stats().await;
        assert_eq!((stats.token_requests, stats.api_ok), (tokens, tokens));
    }
}

async fn wrong_certificate_is_a_permanent_error_after_one_request() {
    let rig = rig();
    let methods = ["tls_client_auth", "self_signed_tls_client_auth"];
    // The certificate of another client; one with the right name of an unknown authority; none.
    let wrong = || {
        [
            rig.authority.issue("other").http(&rig.root),
            Identity::self_signed("ours").http(&rig.root),
            http(&rig.root),
        ]
    };
    let attempts = methods.map(|method| wrong().map(|http| (method, http)));
    for (requests, (method, http)) in (1..).zip(attempts.into_iter().flatten()) {
        let cache = rig.cache(method, http);
        for _ in 0..2 {
            let error = cache.token().await.unwrap_err();
            assert_eq!(*code(&error), OAuthErrorCode::InvalidClient);
            assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
            assert!(!error.is_retryable());
        }
        let stats = rig.idp.stats().await;
        assert_eq!(stats.token_requests_failed, requests);
        assert_eq!(stats.token_requests, requests);
    }
}

async fn token_used_with_another_certificate_is_rejected() {
    let rig = rig();
    let [ours, renewed] = ["ours", "ours"].map(|name| rig.authority.issue(name));
    let cache = rig.cache("tls_client_auth", ours.http(&rig.root));
    assert_eq!(rig.get(&cache, &ours).await.0, 200);
    // A new token does not help when API requests use another certificate than token requests.
    assert_eq!(rig.get(&cache, &renewed).await.0, 401);
    let expected = Stats {
        token_requests: 2,
        token_requests_failed: 0,
        api_ok: 1,
        api_401: 2,
    };
    assert_eq!(rig.idp.stats().await, expected);

    // With a source and a layer of its own, the new certificate gets a new token and no 401.
    let cache = rig.cache("tls_client_auth", renewed.http(&rig.root));
    assert_eq!(rig.get(&cache, &renewed).await.0, 200);
    let expected = Stats {
        token_requests: 3,
        api_ok: 2,
        ..expected
    };
    assert_eq!(rig.idp.stats().await, expected);
}

async fn public_client_session_is_bound_to_its_first_certificate() {
    let rig = rig();
    let folder = tempfile::tempdir().unwrap();
    let client = |identity: &Identity| {
        native_client(rig.idp.issuer())
            .redirect_uri("http://127.0.0.1/callback")
            .http_client(identity.http(&rig.root))
            .store(FileStore::new(folder.path().join("session")))
            .build()
            .unwrap()
    };
    let [ours, other] = ["ours", "other"].map(Identity::self_signed);
    let login = client(&ours).start().await.unwrap();
    let callback = rig.idp.sign_in(login.url()).await;
    let cache = TokenCache::new(login.finish(&callback).await.unwrap());
    for _ in 0..2 {
        let (status, body) = rig.get(&cache, &ours).await;
        assert_eq!(status, 200, "{body}");
        cache.refresh().await.unwrap();
    }

    let cache = TokenCache::new(client(&other).session());
    cache.token().await.unwrap();
    let error = cache.refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(
        *code(cause.downcast_ref().unwrap()),
        OAuthErrorCode::InvalidGrant
    );
    let stats = rig.idp.stats().await;
    assert_eq!((stats.token_requests, stats.token_requests_failed), (4, 1));
}
