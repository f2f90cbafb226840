//! The layer: puts tokens on requests, and handles rejected ones.

mod adapter;
mod decide;
mod http_types;
mod layer;
#[cfg(feature = "reqwest")]
mod redirects;
pub mod resend;
mod service;
mod service_error;
mod target;

pub use self::{
    http_types::{HttpRequest, HttpResponse},
    layer::{BearerAuthLayer, BearerAuthLayerBuilder},
    service::{BearerAuth, ResponseFuture},
    service_error::ServiceError,
};
