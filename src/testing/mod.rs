//! What our own tests stand on, for yours: an identity provider and an API on loopback, and a
//! clock that a test moves by hand. (Feature `testing`.)

mod clock;
mod mock_idp;

pub(crate) use self::clock::ManualSleep;
pub use self::{
    clock::ManualClock,
    mock_idp::{Answer, Dialect, Hold, MockIdp, MockIdpBuilder, Recorded},
};
