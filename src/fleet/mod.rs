//! One token for many processes, in Redis or Valkey: [`SharedSource`], and sessions in a
//! [`RedisStore`]. How it works, what is guaranteed and what it costs: [`docs::fleet`](crate::docs::fleet).

mod client;
mod key;
mod lease;
mod scripts;
mod session;
mod source;
mod store;
mod value;

pub(crate) use self::key::{Digest, secrets};
pub use self::{
    client::RedisClient,
    key::TokenKey,
    session::{LockedRedis, RedisSession},
    source::SharedSource,
    store::RedisStore,
};
