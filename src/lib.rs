//! Walhalla: a WAL archiver for PostgreSQL that cannot lie.
//!
//! The rooms, from the ground up. Arrows point down only; `tests/layers.rs` holds it.
//!
//! | layer | room | what lives there |
//! |---|---|---|
//! | 1 | [`pg`] | Postgres' vocabulary: positions, names, files. Pure |
//! | 1 | [`error`], [`exit`] | the one error, and what it means to Postgres |
//! | 2 | [`codec`] | plain bytes to stored objects and back |
//! | 2 | [`config`] | what the user asked for |
//! | 2 | [`account`] | accounts of the operating system |
//! | 2 | [`durable`], [`spool`] | files that survive power loss; files that need not |
//! | 3 | [`storage`] | where objects live |
//! | 3 | [`wire`] | the Postgres wire client |
//! | 4 | [`repo`] | what objects mean |
//! | 5 | [`reach`] | how far one can go: timelines, WAL without a hole |
//! | 5 | [`archive`] | one WAL file in, one WAL file out |
//! | 6 | [`backup`], [`restore`], [`check`], [`prune`], [`demo`] | the verbs |
//! | 7 | [`cli`] | arguments and output |

pub mod account;
pub mod archive;
#[cfg(feature = "cli")]
pub mod backup;
#[cfg(feature = "cli")]
pub mod check;
#[cfg(feature = "cli")]
pub mod cli;
pub mod codec;
pub mod config;
#[cfg(feature = "cli")]
pub mod demo;
pub mod durable;
pub mod error;
pub mod exit;
pub mod pg;
#[cfg(feature = "cli")]
pub mod prune;
#[cfg(feature = "cli")]
pub mod reach;
pub mod repo;
#[cfg(feature = "cli")]
pub mod restore;
pub mod spool;
pub mod storage;
#[cfg(feature = "wire")]
pub mod wire;
