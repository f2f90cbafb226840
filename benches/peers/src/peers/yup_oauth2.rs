//! `Authenticator` of the metadata server, the only flow without a user, a key or a fixed URL.

use http::{HeaderValue, Request, header::AUTHORIZATION};
use yup_oauth2::{
    ApplicationDefaultCredentialsAuthenticator, ApplicationDefaultCredentialsFlowOpts,
    authenticator::{ApplicationDefaultCredentialsTypes, DefaultAuthenticator},
};

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
        package: Some("yup-oauth2"),
        what: "`Authenticator`, metadata server",
        start: start!(start),
        without: None,
        lifetime: seconds(62),
        run: seconds(6),
        less: "For Google. Not a layer: gives a token. Without a valid one, each caller sends a \
               token request of its own. From 60 s before expiry all callers wait, and a failed \
               refresh fails requests although the token is valid. No backoff. No 401 handling \
               except `force_refreshed_token`, which the caller can use. No check of the token's \
               destination. `Debug` and debug logs show tokens, which are not wiped. Wall clock \
               only",
    }]
}

#[derive(Clone)]
struct Yup(DefaultAuthenticator);

impl Asked for Yup {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let token = self.0.token(&SCOPES).await?;
        let token = token.token().ok_or("no access token")?;
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let options = ApplicationDefaultCredentialsFlowOpts {
        metadata_url: Some(endpoint.url() + "/token"),
    };
    match ApplicationDefaultCredentialsAuthenticator::builder(options).await {
        ApplicationDefaultCredentialsTypes::InstanceMetadata(builder) => {
            Ok(Puts(Yup(builder.build().await?)))
        }
        ApplicationDefaultCredentialsTypes::ServiceAccount(_) => {
            Err("unset GOOGLE_APPLICATION_CREDENTIALS: this is to run offline".into())
        }
    }
}
