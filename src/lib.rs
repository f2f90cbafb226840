//! OAuth 2.0 access tokens on outgoing HTTP requests.
//!
//! A [`BearerAuthLayer`] wraps an HTTP client; behind it a [`TokenCache`] asks a [`TokenSource`]
//! for tokens ahead of their end, when they have ended, or when the API refuses one. Nothing else
//! in the program changes.
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
//! // The same value for all clients; they share one token.
//! let client = reqwest::Client::builder().redirect(auth.redirect_policy()).build()?;
//! let client = auth.layer(client); // over reqwest …
//! let stack = tower::ServiceBuilder::new().layer(auth); // … or any tower stack
//! # Ok::<(), bearer_auth::BoxError>(())
//! ```
//!
//! Where people sign in, [`AuthorizationCode`] makes a session that is a source like any other. A
//! page for each way, from what your provider gave you: [a service](docs::service), [a web
//! application](docs::web_application), [a program](docs::program).
//!
//! Ready configurations for known providers are in [`provider`]; a source of your own is a
//! [`source_fn`] or an implementation of [`TokenSource`].
//!
//! # The way of a request
//!
//! 1. A request to anybody but the API is passed on untouched, and so is one whose caller has set
//!    `Authorization`. Plain `http` is for loopback.
//! 2. With a good token, the header is put on and the request sent: no lock, no waiting.
//! 3. Without one, it waits for the token request that is under way, or starts one. It is never
//!    sent without a token.
//! 4. If the API answers 401, that token is rejected, a new one is fetched, and the request is sent
//!    again, once, if its body is in memory ([`resend`] says which are). Otherwise the 401 comes
//!    back as it was.
//!
//! # The life of a token
//!
//! | | |
//! |---|---|
//! | lifetime | counts from when the token was asked for, on the monotonic *and* the wall clock: a laptop that slept never takes a dead token for a good one |
//! | renewal ahead | when a quarter of the lifetime is left, or a little less: up to a quarter of that, at random, so that a fleet spreads out. A token of an hour is renewed 15 to 11 minutes before its end; it is never more than 15 minutes (60 for lifetimes of 4 hours and up). In the background: requests go on with the token in hand |
//! | safety margin | in the last 10 s (a tenth of the lifetime at most) requests wait for the new token, but 1 s at most and never past half of what is left: then they go with the old one |
//! | one token request | however many callers wait; they share its result, or its error. It runs in a task of its own: dropping callers cancels nothing. It takes 30 s at most ([`TokenCacheBuilder::fetch_timeout`]). If somebody waits, it makes up to 3 attempts where another may help at once (no connection, 5xx, 429), but not after one that may have reached the server, nor against a longer `Retry-After` |
//! | failure | the token in hand serves until its real end. Without one, callers get the last error at once, with the time of the next attempt. The next attempt is after 1 s, 2 s, 4 s … 60 s (half of it at random), or after the server's `Retry-After` (10 min at most); after an error that somebody has to mend, after 5 min |
//! | rejection | is of one token, by value: a late 401 leaves a newer token alone. While a first renewal is under way, requests that cannot be sent twice wait for it (1 s at most), and all others go on with the token in hand. Renewals after rejections are 1 s apart, doubling to 60 s, until 5 minutes were quiet: a route that always answers 401 costs little and stalls nobody. A renewal that fails, or is not due yet, leaves the token in use |
//! | nothing better | some servers hand out the token they gave before, or one that is over already: the good one stays, and the next try comes after a quarter of the rest of its life. One that is over serves those who waited for it, once |
//! | short lives | token requests start at least 1 s apart: a token that lives for a second is not renewed ahead, and callers share the next one |
//! | no `expires_in` | the token is used until it is rejected; [`TokenCacheBuilder::default_lifetime`] says otherwise |
//! | nobody calls | nobody renews, unless [`TokenCache::keep_fresh`] is held |
//!
//! [Fault by fault](docs::faults), what a request gets then, and when the server is asked again.
//!
//! # Security
//!
//! Tokens go to the configured API alone: scheme, host, port and path. Secrets show in no `Debug`,
//! no `Display` and no error; the copies that this crate makes are wiped when they are dropped;
//! header values are marked sensitive. The token endpoint is asked over TLS, its redirects are not
//! followed, its answers are read up to 1 MiB.
//!
//! A redirect that the client *below* the layer follows is out of the layer's sight. Build reqwest's
//! client with [`BearerAuthLayer::redirect_policy`]: by itself, reqwest 0.13.5 drops the header on
//! the way to another host, and has it again when that host redirects once more. A redirect layer of
//! your own belongs outside. See [`BearerAuthLayer`].
//!
//! # gRPC
//!
//! A tonic `Channel` is a service like any other. A client's requests name no host, so the layer
//! has to be told ([`BearerAuthLayer::relative_to`]), or the client (`with_origin`). gRPC says 401
//! in its own way, and its requests stream, so that they are not sent again: the next one has a
//! new token.
//!
//! ```
//! # use bearer_auth::{BearerAuthLayer, ConfigError, TokenSource};
//! # fn grpc(source: impl TokenSource) -> Result<(), ConfigError> {
//! let auth = BearerAuthLayer::for_api("https://grpc.example/", source)?
//!     .relative_to("https://grpc.example/")?
//!     .renew_on(|_, headers| headers.get("grpc-status").is_some_and(|code| code == "16"));
//! # Ok(()) }
//! // let client = GreeterClient::new(auth.layer(channel));
//! ```
//!
//! A request that has no token fails with `Unknown`; what the channel itself fails with stays as it
//! is with the feature `tonic`.
//!
//! # Features
//!
//! | | |
//! |---|---|
//! | `reqwest` (default) | the layer over `reqwest::Client`, and [`endpoint::ReqwestClient`], the default HTTP client towards the identity provider, with a certificate for [`ClientAuth::tls`] if you give it one. Without it, give an [`endpoint::TowerClient`] |
//! | `reqwest-middleware` | the layer as a `reqwest_middleware::Middleware` |
//! | `jwt` | [`ClientAuth::private_key_jwt`] and [`ClientAuth::client_secret_jwt`], for clients that prove themselves by a signed JWT, and [`JwtBearer`], a grant that is one (Google's service accounts) |
//! | `tonic` | over a tonic `Channel`, errors of the channel keep their gRPC status: see [above](#grpc) |
//! | `seal` | [`store::FileStore`] encrypts its file, with a key that you give |
//! | `keyring` | [`store::KeyringStore`]: sessions in the keyring of whoever is logged in (Secret Service, macOS keychain, Windows Credential Manager) |
//! | `testing` | an identity provider and an API on loopback, and a clock to move by hand, for your tests |
//! | `tracing` | [events](Event) as log events, and token requests in spans: see [`docs::observability`] |
//! | `metrics` | events as counters and histograms |
//! | `login` | [`AuthorizationCode::login_on_loopback`], for programs that people run |
//! | `browser` | [`open_browser`], for it; with `login` |
//! | `full` | all of them |
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
    pub use crate::client::{HttpClient, HttpError, HttpFuture, MAX_BODY, TowerClient};
}

/// Opens a URL in the browser that the person at this machine uses, for
/// [`AuthorizationCode::login_on_loopback`]. Where there is none, it prints the URL to standard
/// error, for the person to open it elsewhere.
///
/// The browser gets the URL as an argument, which others on the machine may see, and the crate
/// `webbrowser`, which starts it, logs that at `debug`: the login's `state`, challenge and parameters
/// are in it, but neither a secret of the client's nor the verifier
/// ([plain challenges](AuthorizationCodeBuilder::insecure_plain_challenge) aside). With
/// [pushed requests](AuthorizationCodeBuilder::pushed_request_url), it is a reference that is good for
/// a minute or so.
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
