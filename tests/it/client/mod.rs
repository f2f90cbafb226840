//! The HTTP clients that ask for tokens.

#[cfg(feature = "reqwest")]
mod idp_http;
#[cfg(feature = "reqwest")]
mod idp_tls;
