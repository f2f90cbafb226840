//! The lazy identity cache of the AWS SDK, with bearer tokens in it.

use std::time::SystemTime;

use aws_smithy_async::{rt::sleep::TokioSleep, time::SystemTimeSource};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime_api::client::{
    identity::{
        Identity, IdentityFuture, ResolveCachedIdentity as _, ResolveIdentity, SharedIdentityCache,
        SharedIdentityResolver, http::Token,
    },
    runtime_components::{RuntimeComponents, RuntimeComponentsBuilder},
};
use aws_smithy_types::config_bag::ConfigBag;
use http::{HeaderValue, Request, header::AUTHORIZATION};

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::Body,
};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("aws-smithy-runtime"),
        what: "`IdentityCache::lazy`",
        start: start!(start),
        without: None,
        lifetime: seconds(12),
        run: seconds(15),
        less: "Part of an SDK. Not a layer: gives an identity. From 10 to 5 s before expiry all \
               callers wait for the refresh; if it fails, each tries again, and fails although the \
               token is valid. Dropping the caller that sends the token request drops the request. \
               No 401 handling. No check of the token's destination: the SDK's clients have one \
               host. Wall clock only",
    }]
}

#[derive(Debug)]
struct Resolver(Endpoint);

impl ResolveIdentity for Resolver {
    fn resolve_identity<'a>(
        &'a self,
        _: &'a RuntimeComponents,
        _: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async {
            let token = self.0.token().await;
            let expires = Some(SystemTime::now() + self.0.lifetime());
            Ok(Identity::new(Token::new(token, expires), expires))
        })
    }
}

#[derive(Clone)]
struct Aws {
    cache: SharedIdentityCache,
    resolver: SharedIdentityResolver,
    components: RuntimeComponents,
}

impl Asked for Aws {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let config = ConfigBag::base();
        let identity = self
            .cache
            .resolve_cached_identity(self.resolver.clone(), &self.components, &config)
            .await?;
        let token: &Token = identity.data().ok_or("not a token")?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.token()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let components = RuntimeComponentsBuilder::for_tests()
        .with_time_source(Some(SystemTimeSource::new()))
        .with_sleep_impl(Some(TokioSleep::new()))
        .build()?;
    Ok(Puts(Aws {
        cache: IdentityCache::lazy().build(),
        resolver: SharedIdentityResolver::new(Resolver(endpoint)),
        components,
    }))
}
