//! The peers, with a file for each: how its users use it, and what it does not do.

use std::{future::Future, pin::Pin, time::Duration};

use crate::{BoxError, driving::AnyPeer, endpoint::Endpoint};

mod aliri_tokens;
mod aws_smithy_runtime;
mod azure_core;
mod bearer_auth;
mod cf_gears;
mod floor;
mod gcp_auth;
mod google_cloud_auth;
mod hand_written;
mod huskarl;
pub mod kube_client;
mod middle;
mod yup_oauth2;

type Starting = Pin<Box<dyn Future<Output = Result<Box<dyn AnyPeer>, BoxError>>>>;

/// Sets up a peer with a token endpoint.
#[derive(Clone, Copy)]
pub struct Start(fn(Endpoint) -> Starting);

impl Start {
    pub async fn over(self, endpoint: Endpoint) -> Result<Box<dyn AnyPeer>, BoxError> {
        (self.0)(endpoint).await
    }

    /// Sets it up with an endpoint of its own, and sends the first request.
    pub async fn with_a_token(self) -> Result<Box<dyn AnyPeer>, BoxError> {
        let peer = self.over(Endpoint::start(seconds(3_600)).await?).await?;
        peer.send_one().await.0?;
        Ok(peer)
    }
}

/// Makes a `Start` of an `async fn(Endpoint) -> Result<impl Peer, BoxError>`.
macro_rules! start {
    ($start:path) => {
        $crate::peers::Start(|endpoint| {
            Box::pin(async move {
                Ok(Box::new($start(endpoint).await?) as Box<dyn $crate::driving::AnyPeer>)
            })
        })
    };
}
use start;

/// A row of the table.
pub struct Entry {
    /// The crate, for its version. `None` if there is no crate.
    pub package: Option<&'static str>,
    /// The part of it that is measured.
    pub what: &'static str,
    pub start: Start,
    /// The same without a token, where a peer has requests of its own kind.
    pub without: Option<Start>,
    /// The lifetime of the tokens that are refreshed: the shortest that its design supports.
    pub lifetime: Duration,
    /// How long the stream runs: enough for two refreshes.
    pub run: Duration,
    /// What bearer-auth does and the peer does not, from its source.
    pub less: &'static str,
}

/// A service that does nothing.
pub const NOOP: Start = start!(floor::noop);
/// The same header on each request.
pub const FLOOR: Start = start!(floor::fixed);

/// All peers, bearer-auth first.
pub fn all() -> Vec<Entry> {
    [
        bearer_auth::entries(),
        huskarl::entries(),
        cf_gears::entries(),
        middle::entries(),
        aliri_tokens::entries(),
        kube_client::entries(),
        google_cloud_auth::entries(),
        azure_core::entries(),
        aws_smithy_runtime::entries(),
        yup_oauth2::entries(),
        gcp_auth::entries(),
        hand_written::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
