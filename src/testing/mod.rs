//! Test utilities: [`MockIdp`], an authorization server and a protected API on loopback, and
//! [`ManualClock`], a clock that a test advances explicitly. This crate's own tests use them too.
//!
//! ```toml
//! [dev-dependencies]
//! bearer-auth = { version = "0.1", features = ["testing"] }
//! ```
//!
//! Give the same clock to the cache and to the `MockIdp`: both decide by it whether a token has
//! expired. (tokio's paused time affects neither.)
//!
//! ```
//! use std::time::Duration;
//! use bearer_auth::testing::{Answer, ManualClock, MockIdp};
//! use bearer_auth::{BearerAuthLayer, ClientCredentials, TokenCache};
//! use reqwest::{Client, Method, Request};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = ManualClock::new();
//! let idp = MockIdp::builder().clock(clock.clone()).start().await?;
//! idp.set_lifetime(Duration::from_secs(3600));
//!
//! // The program under test.
//! let source = ClientCredentials::builder(idp.token_url(), "client-id", "client-secret").build()?;
//! let cache = TokenCache::builder(source).clock(clock.clone()).build();
//! let client = Client::builder().no_proxy().build()?;
//! let client = BearerAuthLayer::for_api(idp.api_url(), cache.clone())?.layer(client);
//! let url = format!("{}orders", idp.api_url());
//! let get = async || {
//!     let request = Request::new(Method::GET, url.parse().unwrap());
//!     client.clone().oneshot(request).await.map(|response| response.status())
//! };
//!
//! assert_eq!(get().await?, 200);
//! assert_eq!(idp.token_requests(), 1);
//!
//! // The token expires: the next request waits for a new one.
//! clock.advance(Duration::from_secs(3600));
//! assert_eq!(get().await?, 200);
//! assert_eq!(idp.token_requests(), 2);
//!
//! // The token is revoked: the layer retries after one 401, which the caller does not see.
//! idp.revoke_all();
//! assert_eq!(get().await?, 200);
//! assert_eq!((idp.api_unauthorized(), idp.token_requests()), (1, 3));
//!
//! // The authorization server is down in the refresh window: requests use the cached token.
//! idp.always(Answer::unavailable(30));
//! clock.advance(Duration::from_secs(3000));
//! assert_eq!(get().await?, 200);
//! // The refresh runs in the background. `refresh` joins it and waits:
//! assert!(cache.refresh().await.is_err());
//! assert_eq!(get().await?, 200);
//!
//! idp.recover();
//! cache.refresh().await?;
//! assert_eq!(get().await?, 200);
//! # Ok(()) }
//! ```

mod mock_idp;

pub use self::mock_idp::{Answer, Dialect, Hold, MockIdp, MockIdpBuilder, Recorded, RefreshTokens};
pub use crate::clock::ManualClock;
