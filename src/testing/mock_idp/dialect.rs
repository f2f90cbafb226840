//! [`Dialect`]: the kind of server that the mock behaves as.

/// The kind of server that a [`MockIdp`](super::MockIdp) behaves as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Follows the RFCs: errors in JSON, challenges with 401, form-decoded Basic credentials.
    #[default]
    Standard,
    /// A minimal server: `token_type` is `bearer`; a wrong secret gets a 403 and any other mistake
    /// a 400, both with an empty body; Basic credentials are *not* form-decoded; the API sends no
    /// `WWW-Authenticate`.
    Terse,
}
