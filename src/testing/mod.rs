//! What our own tests stand on, for yours: an identity provider and an API on loopback, and a
//! clock that a test moves by hand. (Feature `testing`.)

mod clock;

pub use self::clock::ManualClock;
pub(crate) use self::clock::ManualSleep;
