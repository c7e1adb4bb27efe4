//! Rebuilding a data directory.
