//! Rebuilding a data directory.

pub mod request;
pub mod time;
