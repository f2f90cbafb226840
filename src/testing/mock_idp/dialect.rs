//! [`Dialect`]: the kinds of servers that a mock behaves as.

/// Which kind of server a [`MockIdp`](super::MockIdp) behaves as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// As the RFCs have it: errors in JSON, challenges with 401, form-decoded Basic credentials.
    #[default]
    Standard,
    /// As a minimal server may: `token_type` is `bearer`; a wrong secret gets a 403 and any other
    /// mistake a 400, both with an empty body; Basic credentials are *not* form-decoded; the API
    /// answers without `WWW-Authenticate`.
    Terse,
}
