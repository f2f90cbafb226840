//! The authorization server of the npm package `oidc-provider`, on Node.js.

mod discovery;
#[cfg(feature = "seal")]
mod file_store;
#[cfg(feature = "redis")]
mod fleet;
#[cfg(feature = "reqwest")]
mod mtls;
#[cfg(feature = "seal")]
mod shared;
mod tokens;

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    [
        discovery::tests(),
        #[cfg(feature = "seal")]
        file_store::tests(),
        #[cfg(feature = "redis")]
        fleet::tests(),
        #[cfg(feature = "reqwest")]
        mtls::tests(),
        tokens::tests(),
    ]
    .concat()
}
