//! The settings of clients, and the HTTP clients that send token requests.

#[cfg(feature = "reqwest")]
mod idp_http;
#[cfg(feature = "reqwest")]
mod idp_tls;
#[cfg(all(feature = "jwt", feature = "reqwest"))]
mod settings;
