//! Rebuilding a data directory.

pub mod chain;
pub mod lineage;
pub mod request;
pub mod time;

#[cfg(test)]
mod testing;
