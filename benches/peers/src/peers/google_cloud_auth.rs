//! `Credentials` of the metadata server, the only kind that accepts a URL on plain loopback.

use google_cloud_auth::credentials::{CacheableResource, Credentials, mds};
use http::{Extensions, Request};

use super::{Entry, seconds, start};
use crate::{
    BoxError,
    driving::{Asked, Peer, Puts},
    endpoint::Endpoint,
    stacks::Body,
};

pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        package: Some("google-cloud-auth"),
        what: "`Credentials`, metadata server",
        start: start!(start),
        without: None,
        lifetime: seconds(243),
        run: seconds(8),
        less: "For Google. Not a layer: gives headers, created for each request (a caller with an \
               `EntityTag` can keep them). No 401 handling. No check of the token's destination: \
               the SDK's clients have one host. Refreshes in the background, even when idle, until \
               an error that it treats as permanent. Secrets are not wiped. Monotonic clock only",
    }]
}

#[derive(Clone)]
struct Google(Credentials);

impl Asked for Google {
    async fn put(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        match self.0.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => request.headers_mut().extend(data),
            CacheableResource::NotModified => unreachable!("the request has no entity tag"),
        }
        Ok(())
    }
}

async fn start(endpoint: Endpoint) -> Result<impl Peer, BoxError> {
    let credentials = mds::Builder::default()
        .with_endpoint(endpoint.url())
        .build()?;
    Ok(Puts(Google(credentials)))
}
