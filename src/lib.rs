//! OAuth 2.0 access tokens on outgoing HTTP requests.
//!
//! A [`BearerAuthLayer`] wraps an HTTP client. For each request it takes the access token from a
//! [`TokenCache`], which asks a [`TokenSource`] (a grant) for a new token ahead of expiry, on expiry, or
//! after the API answers 401. The rest of the program does not change.
//!
//! ```
//! use bearer_auth::{BearerAuthLayer, ClientCredentials};
//! use tower_layer::Layer as _;
//!
//! let source = ClientCredentials::builder("https://idp.example/token", "client-id", "client-secret")
//!     .scope("orders:read")
//!     .build()?;
//! let auth = BearerAuthLayer::for_api("https://api.example.com/", source)?;
//!
//! // The same value serves all clients; they share one token.
//! let client = reqwest::Client::builder().redirect(auth.redirect_policy()).build()?;
//! let client = auth.layer(client); // over reqwest …
//! let stack = tower::ServiceBuilder::new().layer(auth); // … or any tower stack
//! # Ok::<(), bearer_auth::BoxError>(())
//! ```
//!
//! Where users sign in, [`AuthorizationCode`] makes a [`Session`], which is a source like any other.
//! [`provider`] has ready configurations for known providers. For a source of your own, use [`source_fn`]
//! or implement [`TokenSource`].
//!
//! Guides, from what your provider gave you: [a service](docs::service), [a web
//! application](docs::web_application), [a program](docs::program). Others: [tests](docs::testing),
//! [many tenants](docs::many_tenants), [order of layers](docs::order_of_layers), [gRPC](docs::grpc),
//! [proxies and private CAs](docs::proxies_and_private_cas), [signing out](docs::signing_out),
//! [observability](docs::observability), [performance](docs::performance),
//! [limitations](docs::limitations).
//!
//! # Request path
//!
//! 1. A request to another target than the API passes untouched. So does one whose caller has set
//!    `Authorization`. Plain `http` is for loopback.
//! 2. With a valid cached token, the layer writes the header and sends the request: no lock, no waiting.
//! 3. Without one, the request waits for the token request in flight, or starts one. It is never sent
//!    without a token.
//! 4. If the API answers 401, that token is rejected, a new one is fetched, and the request is sent again,
//!    once, if its body is in memory ([`resend`] says which are). Otherwise the caller gets the 401.
//!
//! # Lifecycle of a token
//!
//! | | |
//! |---|---|
//! | lifetime | counts from when the token was requested, on the monotonic *and* the wall clock: a laptop that was suspended never takes an expired token for a valid one |
//! | refresh ahead | starts when a quarter of the lifetime is left, or a little less: up to a quarter of that, at random, so that many processes spread out. A token of an hour is refreshed 15 to 11 minutes before it expires; never more than 15 minutes (60 for lifetimes of 4 hours and up). In the background: requests go on with the cached token |
//! | safety margin | in the last 10 s (a tenth of the lifetime at most) requests wait for the new token, but 1 s at most and never past half of what is left: then they use the cached one |
//! | single flight | one token request however many callers wait; they share its result, or its error. It runs in a task of its own: dropping callers cancels nothing. It takes 30 s at most ([`TokenCacheBuilder::fetch_timeout`]). If a caller waits, it makes up to 3 attempts where another may help at once (no connection, 5xx, 429), but not after one that may have reached the server, nor against a longer `Retry-After` |
//! | failure | the cached token serves until it expires. Without one, callers get the last error at once, with the time of the next attempt. The next attempt is after 1 s, 2 s, 4 s … 60 s (half of it at random), or after the server's `Retry-After` (10 min at most); after a permanent error, after 5 min |
//! | rejection | is of one token, by value: a late 401 leaves a newer token alone. While the first renewal is in flight, requests that cannot be sent twice wait for it (1 s at most), and all others go on with the cached token. Renewals after rejections are 1 s apart, doubling to 60 s, until 5 minutes were quiet: a route that always answers 401 costs little and delays no other. A renewal that fails, or is not due yet, leaves the token in use |
//! | no improvement | some servers return the token they gave before, or one that has expired: the valid one stays, and the next attempt comes after a quarter of the rest of its lifetime. An expired one serves the callers that waited for it, once |
//! | short lifetimes | token requests start at least 1 s apart: a token that lives for a second is not refreshed ahead, and callers share the next one |
//! | no `expires_in` | the token is used until it is rejected; [`TokenCacheBuilder::default_lifetime`] changes that |
//! | no traffic | no refresh, unless a [`TokenCache::keep_fresh`] guard is kept |
//!
//! [Fault by fault](docs::faults): what a request gets, and when the server is asked again.
//!
//! # Security
//!
//! Tokens go to the configured API only: scheme, host, port and path. No `Debug`, no `Display` and no
//! error shows a secret; the copies that this crate makes are wiped when they are dropped; header values
//! are marked sensitive. The token endpoint is asked over TLS, its redirects are not followed, and at most
//! 1 MiB of its responses is read.
//!
//! The layer does not see a redirect that the client *below* it follows. Build reqwest's client with
//! [`BearerAuthLayer::redirect_policy`]: by itself, reqwest 0.13.5 drops the header on the way to another
//! host, and sends it again when that host redirects once more. Put a redirect layer of your own outside.
//! See [`BearerAuthLayer`].
//!
//! # gRPC
//!
//! A tonic `Channel` is a service like any other. A client's requests name no host, so configure it on the
//! layer ([`relative_to`](BearerAuthLayerBuilder::relative_to)) or on the client (`with_origin`). gRPC
//! reports a rejected token in its own way, and its requests stream, so they are not sent again: the next
//! one has a new token.
//!
//! ```
//! # use bearer_auth::{BearerAuthLayer, ConfigError, TokenSource};
//! # fn grpc(source: impl TokenSource) -> Result<(), ConfigError> {
//! let auth = BearerAuthLayer::builder(source)
//!     .api("https://grpc.example/")
//!     .relative_to("https://grpc.example/")
//!     .renew_on(|status, headers| {
//!         status == 401 || headers.get("grpc-status").is_some_and(|code| code == "16")
//!     })
//!     .build()?;
//! # Ok(()) }
//! // let client = GreeterClient::new(auth.layer(channel));
//! ```
//!
//! A request without a token fails with `Unknown`. With the feature `tonic`, errors of the channel keep
//! their status.
//!
//! # Features
//!
#![doc = include_str!("../docs/features.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cache;
mod client;
mod clock;
#[cfg(any(feature = "login", feature = "testing"))]
mod content_policy;
mod detached;
#[cfg(any(doc, doctest))]
pub mod docs;
mod error;
mod event;
#[cfg(all(test, not(fuzzing)))]
mod fuzzing;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod json;
mod middleware;
#[cfg(any(test, fuzzing))]
mod parser_testing;
mod per_core;
pub mod provider;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod secure_url;
mod session;
mod sign_in;
#[cfg(not(bearer_auth_model))]
mod sync;
#[cfg(bearer_auth_model)]
pub mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod work_counter;

pub use self::{
    cache::{KeepFresh, TokenCache, TokenCacheBuilder, TokenStatus},
    client::{ClientAuth, Issuer},
    clock::Clock,
    error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, OAuthErrorCode},
    event::Event,
    grant::{ClientCredentials, ClientCredentialsBuilder, SourceFn, StaticToken, source_fn},
    middleware::{
        BearerAuth, BearerAuthLayer, BearerAuthLayerBuilder, HttpRequest, HttpResponse,
        ResponseFuture, ServiceError, resend,
    },
    session::{Session, store},
    sign_in::{AuthorizationCode, AuthorizationCodeBuilder, Login, PendingLogin},
    token::{
        AccessToken, FetchReason, TokenRequest, TokenResponse, TokenResponseBuilder, TokenSource,
        WeakTokenCache,
    },
};
#[cfg(feature = "jwt")]
pub use self::{
    client::{SigningAlgorithm, SigningKey},
    grant::{JwtBearer, JwtBearerBuilder},
};

/// The token endpoint's HTTP clients.
pub mod endpoint {
    #[cfg(feature = "reqwest")]
    pub use crate::client::ReqwestClient;
    pub use crate::client::{HttpClient, HttpError, MAX_BODY, TowerClient};
}

/// Opens a URL in the user's default browser, for [`AuthorizationCode::login_on_loopback`]. Without a
/// browser, it prints the URL to standard error, for the user to open it elsewhere.
///
/// The browser gets the URL as an argument, which other users of the machine may see, and the crate
/// `webbrowser`, which starts the browser, logs it at `debug`: the login's `state`, challenge and
/// parameters are in it, but neither a secret of the client nor the verifier
/// ([plain challenges](AuthorizationCodeBuilder::insecure_plain_challenge) aside). With
/// [pushed requests](AuthorizationCodeBuilder::pushed_request_url), it is a reference that is valid for
/// about a minute.
#[cfg(feature = "browser")]
pub fn open_browser(url: &str) {
    if webbrowser::open(url).is_err() {
        eprintln!("Open this page to sign in:\n\n    {url}\n");
    }
}

/// The README's examples are tests.
#[cfg(all(doctest, feature = "reqwest-middleware"))]
#[doc = include_str!("../README.md")]
struct Readme;
