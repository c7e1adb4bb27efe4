//! `walhalla list`

use super::args;
use crate::error::Result;
use std::path::Path;

pub(super) async fn run(_config: Option<&Path>, _verb: args::List) -> Result<()> {
    Ok(())
}
