//! [`ServiceError`]: what a request through the layer can fail with.

use std::{any::Any, error::Error as StdError, fmt};

use crate::error::{BoxError, Error};

/// Why a request through [`BearerAuth`](crate::BearerAuth) failed: no token, or the wrapped
/// service's own error.
///
/// `Display` is that of the error inside, which `source()` returns too, so that nobody who prints
/// one line misses the reason, and nobody who looks for a type misses it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceError<E> {
    /// There is no token for the request, or it may not have one. It was not sent.
    Token(Error),
    /// The wrapped service's error.
    Inner(E),
}

impl<E> ServiceError<E> {
    /// The token's error, if that is what it is.
    pub fn token_error(&self) -> Option<&Error> {
        match self {
            Self::Token(error) => Some(error),
            Self::Inner(_) => None,
        }
    }

    /// The wrapped service's error, if that is what it is.
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

/// For any `E` that prints: also for `BoxError`, which is no `Error` itself. `source()` reaches
/// the inner error where its type is known to be one: boxed errors, and those of reqwest and tonic.
/// For any other client (hyper-util's, say) box its errors below the layer, with
/// `ServiceBuilder::map_err(BoxError::from)`, where causes are to be found in logs.
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
    fn the_source_of_a_boxed_error_is_reached() {
        let inner: BoxError = Box::new(std::io::Error::other("deep"));
        let error = ServiceError::Inner(inner);
        assert_eq!(error.to_string(), "deep");
        let source = error.source().unwrap();
        assert!(source.downcast_ref::<std::io::Error>().is_some());
        // And it is an error itself, boxed again.
        let boxed: BoxError = Box::new(error);
        assert!(boxed.source().is_some());
    }

    #[test]
    fn an_error_of_an_unknown_type_that_prints_will_do() {
        assert!(ServiceError::Inner("text").source().is_none());
        let token = Error::build(crate::ErrorKind::Timeout, Retry::Later, "late").done();
        let error = ServiceError::<&str>::Token(token);
        assert_eq!(error.source().unwrap().to_string(), "late");
        assert!(error.token_error().is_some());
    }
}
