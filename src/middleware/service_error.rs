//! [`ServiceError`]: the error of a request through the layer.

use std::{any::Any, error::Error as StdError, fmt};

use crate::error::{BoxError, Error};

/// The error of a request through [`BearerAuth`](crate::BearerAuth): no token, or the wrapped
/// service's own error.
///
/// `Display` is that of the inner error, and `source()` returns the inner error. So a log line of
/// `Display` alone has the reason, and a search of the chain finds the type.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceError<E> {
    /// There is no token for the request, or the request may not get one. It was not sent.
    Token(Error),
    /// The wrapped service's error.
    Inner(E),
}

impl<E> ServiceError<E> {
    /// Returns the token's error, if it is one.
    pub fn token_error(&self) -> Option<&Error> {
        match self {
            Self::Token(error) => Some(error),
            Self::Inner(_) => None,
        }
    }

    /// Returns the wrapped service's error, if it is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Token(_) => None,
            Self::Inner(error) => Some(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for ServiceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(error) => error.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

/// For any `E` with `Display`, including `BoxError`, which is no `Error` itself. `source()` returns
/// boxed errors, and those of `io`, reqwest and tonic. To see the causes of another client's errors
/// (hyper-util's, for example), box them below the layer with `ServiceBuilder::map_err(BoxError::from)`.
impl<E: fmt::Debug + fmt::Display + 'static> StdError for ServiceError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Token(error) => Some(error),
            Self::Inner(error) => as_error(error),
        }
    }
}

fn as_error(error: &dyn Any) -> Option<&(dyn StdError + 'static)> {
    if let Some(error) = error.downcast_ref::<BoxError>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<Box<dyn StdError>>() {
        return Some(&**error);
    }
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return Some(error);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return Some(error);
    }
    #[cfg(feature = "tonic")]
    if let Some(error) = error.downcast_ref::<tonic::transport::Error>() {
        return Some(error);
    }
    #[cfg(feature = "tonic")]
    if let Some(error) = error.downcast_ref::<tonic::Status>() {
        return Some(error);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Retry;

    #[test]
    fn boxed_inner_error_is_reached_through_source() {
        let inner: BoxError = Box::new(std::io::Error::other("deep"));
        let error = ServiceError::Inner(inner);
        assert_eq!(error.to_string(), "deep");
        let source = error.source().unwrap();
        assert!(source.downcast_ref::<std::io::Error>().is_some());
        // The `ServiceError` is an error itself, and can be boxed.
        let boxed: BoxError = Box::new(error);
        assert!(boxed.source().is_some());
    }

    #[test]
    fn inner_error_without_the_error_trait_has_no_source() {
        assert!(ServiceError::Inner("text").source().is_none());
        let token = Error::build(crate::ErrorKind::Timeout, Retry::Later, "late").done();
        let error = ServiceError::<&str>::Token(token);
        assert_eq!(error.source().unwrap().to_string(), "late");
        assert!(error.token_error().is_some());
    }
}
