//! Rebuilding a data directory.

pub mod chain;
mod fetch;
mod inventory;
pub mod lineage;
mod make;
mod object;
mod owner;
mod place;
pub mod request;
mod settings;
mod sync;
pub mod time;
mod unroll;

#[cfg(test)]
mod testing;
