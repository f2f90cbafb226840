//! `TokenCache` through its public API, with a scripted source and a manual clock.

mod flights;
mod keep_fresh;
mod life;
mod lifetime;
mod outage;
mod rejection;
mod runtime;
