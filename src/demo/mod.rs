//! The whole story on a throwaway Postgres: archive, back up, destroy, restore to a second.
//!
//! Everything happens through the real programs, as an operator would type them, in one temporary directory.

mod server;
mod story;

use crate::error::Result;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the operator may choose.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// Set to end the story early; the server is stopped and everything removed all the same.
    pub interrupted: Arc<AtomicBool>,
    /// Where Postgres' programs are.
    pub bin_directory: Option<PathBuf>,
    /// Leave the directory behind.
    pub keep: bool,
}

/// Tells the story, a line at a time, through `say`. Ok only if every row came back.
pub fn run(options: &DemoOptions, say: &mut dyn FnMut(&str)) -> Result<()> {
    story::tell(options, say)
}
