//! External programs that tests need.

#[cfg(feature = "login")]
pub(crate) mod chromium;
#[cfg(feature = "reqwest")]
pub(crate) mod glewlwyd;
#[cfg(all(feature = "keyring", target_os = "linux"))]
pub(crate) mod keyring;
pub(crate) mod oidc_provider;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{
    env::{self, consts::EXE_SUFFIX},
    path::{Path, PathBuf},
};

/// A program that a test needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    #[cfg(feature = "login")]
    Chromium,
    #[cfg(feature = "reqwest")]
    Glewlwyd,
    #[cfg(all(feature = "keyring", target_os = "linux"))]
    GnomeKeyring,
    OidcProvider,
    #[cfg(feature = "redis")]
    Redis,
}

impl Program {
    /// What is not installed, and how to install it. `None`: all is installed.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            #[cfg(feature = "login")]
            Self::Chromium => chromium::missing(),
            #[cfg(feature = "reqwest")]
            Self::Glewlwyd => glewlwyd::missing(),
            #[cfg(all(feature = "keyring", target_os = "linux"))]
            Self::GnomeKeyring => keyring::missing(),
            Self::OidcProvider => oidc_provider::missing(),
            #[cfg(feature = "redis")]
            Self::Redis => redis::missing(),
        }
    }
}

/// Finds the first of these programs in the `PATH`.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .flat_map(|folder| {
            names
                .iter()
                .map(move |name| folder.join(format!("{name}{EXE_SUFFIX}")))
        })
        .find(|program| program.is_file())
}

/// The npm package with `oidc-provider` and the driver of Chromium.
fn npm_package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/oidc_provider/server")
}

/// What is not installed for a dependency of [`npm_package`].
fn missing_from_npm(package: &str) -> Option<String> {
    if find(&["node"]).is_none() {
        return Some("there is no `node` in the PATH: Node.js 20 or newer is needed".to_owned());
    }
    let installed = npm_package().join("node_modules").join(package).is_dir();
    let reason =
        format!("`{package}` is not installed: run `npm ci` in tests/e2e/oidc_provider/server");
    (!installed).then_some(reason)
}
