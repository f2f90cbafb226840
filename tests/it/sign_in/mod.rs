//! Signing in and out.

#[cfg(feature = "login")]
mod login;
mod logout;
