//! A keyring: gnome-keyring.

#[cfg(feature = "full")]
mod canary;
mod store;
