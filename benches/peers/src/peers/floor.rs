//! The baselines.

use crate::{
    BoxError,
    driving::{Peer, Tower},
    endpoint::Endpoint,
    stacks::{self, Noop},
};

const TOKEN_LENGTH: usize = 1_024;

pub(super) async fn noop(_: Endpoint) -> Result<impl Peer, BoxError> {
    Ok(Tower(Noop))
}

pub(super) async fn fixed(_: Endpoint) -> Result<impl Peer, BoxError> {
    Ok(Tower(stacks::floor(TOKEN_LENGTH)))
}
