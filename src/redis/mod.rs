//! One token for many processes, in Redis or Valkey: [`SharedSource`], and sessions in a
//! [`RedisStore`]. How it works, what is guaranteed and what it costs: [`docs::fleet`](crate::docs::fleet).

mod client;
mod lease;
mod scripts;
mod session;
mod source;
mod store;
mod value;

pub use self::{
    client::RedisClient,
    session::{LockedRedis, RedisSession},
    source::SharedSource,
    store::RedisStore,
};
pub use crate::token::TokenKey;
