//! What our own tests stand on, for yours: [`MockIdp`], an identity provider and an API on
//! loopback, and [`ManualClock`], a clock that a test moves by hand.
//!
//! ```toml
//! [dev-dependencies]
//! bearer-auth = { version = "0.1", features = ["testing"] }
//! ```
//!
//! Give one clock to both sides: to the cache, which counts a token's life by it, and to the
//! identity provider, whose API refuses tokens by it. (tokio's paused time moves neither.)
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
//! // The token ends: the next request waits for a new one.
//! clock.advance(Duration::from_secs(3600));
//! assert_eq!(get().await?, 200);
//! assert_eq!(idp.token_requests(), 2);
//!
//! // The token is revoked: one 401, which the caller does not see.
//! idp.revoke_all();
//! assert_eq!(get().await?, 200);
//! assert_eq!((idp.api_unauthorized(), idp.token_requests()), (1, 3));
//!
//! // The identity provider is down while the token ages: requests go on with it.
//! idp.always(Answer::unavailable(30));
//! clock.advance(Duration::from_secs(3000));
//! assert_eq!(get().await?, 200);
//! // Renewal runs in the background. To wait for it, join it:
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
