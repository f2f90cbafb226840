//! An authorization server by its name, and the metadata that say the rest (RFC 8414).

pub(crate) mod document;
mod issuer;

pub use self::issuer::Issuer;
pub(crate) use self::{document::Metadata, issuer::Discovery};
