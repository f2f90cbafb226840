//! Access tokens and sessions that many processes share, in Redis or Valkey: [`SharedSource`] and
//! [`RedisStore`]. How it works, what is guaranteed and what it costs: [`docs::redis`](crate::docs::redis).

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
