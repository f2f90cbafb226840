//! The HTTP clients that send token requests.

#[cfg(feature = "reqwest")]
mod idp_http;
#[cfg(feature = "reqwest")]
mod idp_tls;
