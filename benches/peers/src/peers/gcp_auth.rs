//! `CustomServiceAccount`, the one provider whose token endpoint can be chosen.

use std::sync::Arc;

use gcp_auth::{CustomServiceAccount, TokenProvider as _};
use http::{HeaderValue, Request, header::AUTHORIZATION};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::Body,
};

const SCOPES: [&str; 1] = ["test"];

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("gcp_auth"),
        what: "`CustomServiceAccount`",
        start: start!(start),
        without: None,
        lifetime: seconds(22),
        run: seconds(6),
        less: "For Google. Not a layer: gives a token. From 20 s before expiry all callers wait; \
               each of them then sends a token request as well, and a failed refresh fails requests \
               although the token is valid. Dropping the caller that sends the token request drops \
               the request. No backoff except the retries of each call. No 401 handling, no check \
               of the token's destination. Secrets are not wiped. Wall clock only",
    }]
}

#[derive(Clone)]
struct Gcp(Arc<CustomServiceAccount>);

impl Asked for Gcp {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let token = self.0.token(&SCOPES).await?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_str()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    // It signs each token request. The endpoint here does not verify the signature.
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    let account = serde_json::json!({
        "type": "service_account",
        "project_id": "test",
        "private_key": key.serialize_pem(),
        "client_email": "test@test.invalid",
        "token_uri": endpoint.url() + "/token",
    });
    let account = CustomServiceAccount::from_json(&account.to_string())?;
    Ok(Puts(Gcp(Arc::new(account))))
}
