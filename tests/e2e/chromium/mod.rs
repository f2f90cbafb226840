//! Logins in Chromium.

mod login;

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    [login::tests()].concat()
}
