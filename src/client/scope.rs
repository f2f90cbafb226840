//! Lists of scopes (RFC 6749 §3.3).

use crate::error::ConfigError;

/// Splits a list of scopes at its spaces (RFC 6749 §3.3).
pub(crate) fn scopes(list: &str) -> impl Iterator<Item = String> {
    let scopes = list.split(' ').filter(|scope| !scope.is_empty());
    scopes.map(str::to_owned)
}

pub(crate) fn check_scopes(field: &'static str, scopes: &[String]) -> Result<(), ConfigError> {
    if scopes.iter().all(|scope| is_scope_token(scope)) {
        return Ok(());
    }
    Err(ConfigError::new(
        field,
        "contains a character that a scope cannot have (RFC 6749 §3.3): \
         a quote, a backslash, a control character or a non-ASCII character",
    ))
}

/// RFC 6749 §3.3: `%x21 / %x23-5B / %x5D-7E`.
fn is_scope_token(scope: &str) -> bool {
    scope
        .bytes()
        .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
