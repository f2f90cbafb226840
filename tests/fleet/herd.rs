//! What many do at once.
