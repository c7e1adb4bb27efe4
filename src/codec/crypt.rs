//! `age` recipients and identities.

/// Whom objects are encrypted to. Empty: not at all.
#[derive(Debug, Clone, Default)]
pub struct Recipients {}

/// What opens encrypted objects. Empty: only plain objects can be read.
#[derive(Debug, Clone, Default)]
pub struct Identities {}
