//! stub

mod adapter;
mod address;
mod api;
mod attempt;
mod cache;
mod challenge;
mod client_auth;
mod clock;
pub mod endpoint;
mod error;
mod layer;
mod message;
pub mod provider;
pub mod resend;
mod service;
mod service_error;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use self::{
    cache::{KeepFresh, TokenCache, TokenCacheBuilder, TokenStatus},
    client_auth::ClientAuth,
    clock::Clock,
    error::{BoxError, ConfigError, Error, ErrorKind, OAuthError, OAuthErrorCode},
    layer::BearerAuthLayer,
    message::{HttpRequest, HttpResponse},
    service::{BearerAuth, ResponseFuture},
    service_error::ServiceError,
    source::{
        ClientCredentials, ClientCredentialsBuilder, FetchReason, SourceFn, StaticToken,
        TokenRequest, TokenResponse, TokenResponseBuilder, TokenSource, source_fn,
    },
    token::AccessToken,
};
