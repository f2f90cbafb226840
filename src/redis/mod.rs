//! Access tokens ([`SharedSource`]) and sessions ([`RedisStore`]) that processes share, in Redis or
//! Valkey. [`docs::redis`](crate::docs::redis) has the design, the guarantees and the costs.

mod client;
mod entry;
mod lease;
mod scripts;
mod shared_redis;
mod source;
mod store;
mod value;

pub use self::{
    client::RedisClient, shared_redis::SharedRedis, source::SharedSource, store::RedisStore,
};
pub use crate::token::TokenKey;
