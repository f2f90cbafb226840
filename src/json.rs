//! Reads JSON objects from outside: responses, metadata, stored sessions, keys.
//!
//! Invariants:
//! - A list of values is not read as an object, although serde's derived readers accept one.
//! - An error shows nothing of the input, although serde_json's own errors quote it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::work_counter::looked_at;

/// The error for input that is not the expected JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnObject {
    /// Syntax, a wrong type, or an early end.
    category: serde_json::error::Category,
    column: usize,
}

impl fmt::Display for NotAnObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.category, self.column)
    }
}

/// Reads a JSON object. Members may borrow from the input.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, NotAnObject> {
    looked_at(json.len());
    match serde_json::from_slice::<Object<T>>(json) {
        Ok(Object(value)) => Ok(value),
        Err(error) => Err(NotAnObject {
            category: error.classify(),
            column: error.column(),
        }),
    }
}

/// Deserializes `T` from an object only. Also for members that are objects.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Pair<'a> {
        a: &'a str,
        b: u8,
    }

    #[test]
    fn object_is_read_and_a_list_of_its_values_is_not() {
        assert_eq!(object(br#"{"a":"x","b":1}"#), Ok(Pair { a: "x", b: 1 }));
        assert!(object::<Pair<'_>>(br#"["x",1]"#).is_err());
    }

    #[test]
    fn error_shows_nothing_of_the_input() {
        for json in [
            r#"{"a":"s3cr3t","b":"s3cr3t"}"#,
            r#"{"s3cr3t"#,
            "s3cr3t",
            "",
        ] {
            let error = object::<Pair<'_>>(json.as_bytes()).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
}
