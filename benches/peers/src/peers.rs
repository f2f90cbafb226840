//! What is compared. A file each: how its users use it, and what it does less.

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

/// Sets a peer up over a token endpoint.
#[derive(Clone, Copy)]
pub struct Start(fn(Endpoint) -> Starting);

impl Start {
    pub async fn over(self, endpoint: Endpoint) -> Result<Box<dyn AnyPeer>, BoxError> {
        (self.0)(endpoint).await
    }

    /// Over an endpoint of its own, and after its first request.
    pub async fn with_a_token(self) -> Result<Box<dyn AnyPeer>, BoxError> {
        let peer = self.over(Endpoint::start(seconds(3_600)).await?).await?;
        peer.send_one().await.0?;
        Ok(peer)
    }
}

/// A `Start` of an `async fn(Endpoint) -> Result<impl Peer, BoxError>`.
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
    /// The crate, for its version. `None`: there is none.
    pub package: Option<&'static str>,
    /// What of it is measured.
    pub what: &'static str,
    pub start: Start,
    /// The same without a token, where a peer takes requests of its own kind.
    pub without: Option<Start>,
    /// How long tokens live while they are renewed: the shortest that its design is made for.
    pub lifetime: Duration,
    /// Time for two renewals and more.
    pub run: Duration,
    /// What it does not do that bearer-auth does, from its source.
    pub less: &'static str,
}

/// A service that does nothing, as it is.
pub const NOOP: Start = start!(floor::noop);
/// The same header on each request.
pub const FLOOR: Start = start!(floor::fixed);

/// All of them, ours first.
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
