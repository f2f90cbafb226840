//! The layer as a tower service.

mod bounds;
mod builder;
mod late;
mod ready;
mod resend;
mod stack;
mod target;
mod unauthorized_route;
