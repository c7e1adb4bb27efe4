//! Completion scripts and man pages, made from the arguments themselves.

use super::{Arguments, show};
use crate::error::{Error, Result};
use clap::CommandFactory;
use std::path::Path;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "walhalla", &mut script);
    show::text(&String::from_utf8_lossy(&script));
    Ok(())
}

pub(super) fn man(directory: &Path) -> Result<()> {
    clap_mangen::generate_to(Arguments::command(), directory)
        .map_err(|error| Error::local("write man pages into", directory, error))?;
    Ok(())
}
