//! From the settings to the repository, as every verb needs it.

use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::ParseError;
use crate::repo::{Cluster, Repository};
use crate::spool::Spool;
use crate::storage;
use std::path::Path;

/// What the settings name.
#[derive(Debug)]
pub(super) struct Opened {
    /// The settings.
    pub(super) settings: Settings,
    /// The repository.
    pub(super) repository: Repository,
}

/// Reads the settings and opens the repository. No request is made.
pub(super) fn open(config: Option<&Path>) -> Result<Opened> {
    let settings = Settings::from_process(config)?;
    let storage = storage::open_patient(&settings)?;
    // An operator's program runs anywhere, as anyone: without a spool it only asks the storage more often.
    let spool = Spool::find(settings.spool.as_deref(), None).unwrap_or_default();
    Ok(Opened { repository: Repository::new(storage, spool), settings })
}

impl Opened {
    /// The cluster that was asked for, else the only one.
    pub(super) async fn cluster(&self, asked: Option<&str>) -> Result<Cluster> {
        let system = match asked {
            Some(text) => {
                text.parse().map_err(|error: ParseError| Error::new(ErrorKind::Config, "--cluster").because(error))?
            }
            None => self.repository.only_cluster().await?,
        };
        Ok(self.repository.cluster(system))
    }
}
