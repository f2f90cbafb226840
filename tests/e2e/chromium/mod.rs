//! Chromium.

mod login;
