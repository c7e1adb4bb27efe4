//! `walhalla demo`

use super::{args, interrupt, show};
use crate::demo::{DemoOptions, run as tell};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(super) async fn run(verb: args::Demo) -> Result<()> {
    let options = DemoOptions { bin_directory: verb.bin_directory, keep: verb.keep, ..DemoOptions::default() };
    let interrupted = Arc::clone(&options.interrupted);
    let mut story = tokio::task::spawn_blocking(move || tell(&options, &mut |line| show::line(line)));
    let told = tokio::select! {
        told = &mut story => told,
        () = interrupt() => {
            interrupted.store(true, Ordering::Relaxed);
            story.await
        }
    };
    told.map_err(|error| Error::new(ErrorKind::Bug, "the demo broke off").because(error))?
}
