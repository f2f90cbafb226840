//! Sessions in the keyring of gnome-keyring.

#[cfg(feature = "full")]
mod canary;
mod store;

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    [
        #[cfg(feature = "full")]
        canary::tests(),
        store::tests(),
    ]
    .concat()
}
