//! The list of the crate's public API with all features, one item a line: `public-api.txt`.
//!
//! `tests/listing.rs` compares the list with rustdoc's output, so that a pull request shows each change
//! of the public API. Run `cargo test --manifest-path tests/public-api/Cargo.toml`; `UPDATE=1` in the
//! environment writes the list.
