//! The cache of a token.

mod flights;
mod keep_fresh;
mod life;
mod lifetime;
mod outage;
mod rejection;
mod runtime;
