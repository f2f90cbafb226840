//! What a conforming OAuth 2.0 client does, requirement by requirement, over real sockets.
//!
//! A test is named after the rows of `docs/conformance.md` that it shows: `s4_13_…`, or `p37_p60_…`
//! for several. Time is a [`ManualClock`](bearer_auth::testing::ManualClock) throughout.

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
