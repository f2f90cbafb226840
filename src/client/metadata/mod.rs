//! Discovery: an authorization server's issuer and its metadata (RFC 8414).

pub(crate) mod document;
mod issuer;

pub use self::issuer::Issuer;
pub(crate) use self::{document::Metadata, issuer::Discovery};
