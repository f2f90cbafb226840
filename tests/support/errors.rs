//! The text of errors.

use std::{error::Error as StdError, fmt::Write as _};

/// `Display` and `Debug` of an error and its causes.
pub(crate) fn text(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        write!(text, "{error}\n{error:?}\n{error:#?}\n").unwrap();
        next = error.source();
    }
    text
}
