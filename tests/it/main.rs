//! The integration tests: one crate, so that the support code is compiled once and the tests share one process.
//!
//! `tests/README.md` tells how they work. A room's tests are a module here; what several of them need is in `support`.

// Outside of functions marked as tests clippy does not know that this is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archive;
mod backup;
mod bad_input;
mod check;
mod conformance;
mod crash;
mod faults;
mod fuzz_corpus;
mod harness;
mod harness_proxy;
mod harness_s3;
mod prune;
mod repository;
mod restore;
mod soak;
mod story;
// Means for everybody: not each of them is in use at each moment.
#[allow(dead_code)]
mod support;
mod wire;
