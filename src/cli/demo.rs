//! `walhalla demo`

use super::{args, show};
use crate::demo::{DemoOptions, run as tell};
use crate::error::Result;

pub(super) fn run(verb: args::Demo) -> Result<()> {
    let options = DemoOptions { bin_directory: verb.bin_directory, keep: verb.keep };
    tell(&options, &mut |line| show::line(line))?;
    Ok(())
}
