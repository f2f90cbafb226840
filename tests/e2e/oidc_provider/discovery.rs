//! Discovery of an authorization server (see `tokens.rs`) by its issuer, and pushed authorization
//! requests (RFC 9126), which its metadata offers.

use bearer_auth::{
    AuthorizationCode, ClientAuth, ClientCredentials, ErrorKind, Issuer, OAuthErrorCode, TokenCache,
};
use serde_json::json;

use crate::{harness::tests, programs::oidc_provider::OidcProvider};

tests! {
    needs: [OidcProvider];
    client_credentials_need_only_the_issuer,
    login_is_pushed_and_logout_revokes_the_session,
}

async fn client_credentials_need_only_the_issuer() {
    let idp = OidcProvider::start();
    let discover = |id, secret| ClientCredentials::discover(idp.issuer(), id, secret);
    let post = discover("post-client", "post-secret").client_auth(ClientAuth::post());
    for source in [discover("basic-client", "basic-secret"), post] {
        let cache = TokenCache::new(source.build().unwrap());
        let token = cache.token().await.unwrap();
        assert_eq!(idp.status_with(token.expose_secret()).await, 200);
        cache.refresh().await.unwrap();
    }
    assert_eq!(idp.stats().await.token_requests, 4);
    let wrong = discover("basic-client", "wrong").build().unwrap();
    let error = TokenCache::new(wrong).token().await.unwrap_err();
    let code = error.oauth_error().unwrap().code();
    assert_eq!(code, &OAuthErrorCode::InvalidClient);
    // With a slash at its end, it is another issuer.
    let other = Issuer::new(format!("{}/", idp.issuer()));
    let other = ClientCredentials::discover(other, "basic-client", "basic-secret");
    let error = TokenCache::new(other.build().unwrap()).token().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Discovery);
}

async fn login_is_pushed_and_logout_revokes_the_session() {
    let idp = OidcProvider::start_with(json!({ "sign_in": true }));
    let auth = AuthorizationCode::discover(idp.issuer(), "native-client")
        .redirect_uri("http://127.0.0.1/callback")
        .scope("openid offline_access")
        .param("prompt", "consent")
        .build()
        .unwrap();
    let login = auth.start().await.unwrap();
    let reference = "request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri";
    assert!(login.url().contains(reference), "{}", login.url());
    assert!(!login.url().contains("code_challenge"), "{}", login.url());
    let callback = idp.sign_in(login.url()).await;
    assert!(callback.contains("iss="), "{callback}");
    let session = login.finish(&callback).await.unwrap();
    let cache = TokenCache::new(session.clone());
    let first = cache.token().await.unwrap();
    cache.refresh().await.unwrap();
    let token = cache.token().await.unwrap();
    assert_ne!(token.expose_secret(), first.expose_secret());
    assert_eq!(idp.status_with(token.expose_secret()).await, 200);
    session.logout().await.unwrap();
    assert_eq!(idp.status_with(token.expose_secret()).await, 401);
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SignInRequired);
}
