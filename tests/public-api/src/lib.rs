//! All that the crate makes public, with every feature, line by line: `public-api.txt`.
//!
//! A pull request that changes the public API shows it in that file, so that nobody does it
//! without being seen. `tests/listing.rs` compares it with what rustdoc says.
