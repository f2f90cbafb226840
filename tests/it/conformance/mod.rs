//! The requirements of `docs/conformance.md`, tested over real sockets.
//!
//! A test's name begins with the ids of its rows: `s4_13_…`, or `p37_p60_…` for several. All tests use
//! a [`ManualClock`](bearer_auth::testing::ManualClock).

mod adoxx;
#[cfg(feature = "jwt")]
mod assertions;
mod challenges;
mod errors;
#[cfg(feature = "jwt")]
mod jwt_bearer;
mod metadata;
#[cfg(feature = "reqwest")]
mod mtls;
mod providers;
mod pushed_requests;
mod refresh_token;
mod resource;
mod rig;
mod sign_in;
mod smart_completions;
mod smart_completions_sign_in;
#[cfg(feature = "reqwest")]
mod tls_front;
mod token_request;
mod token_response;
mod usage_engine;
