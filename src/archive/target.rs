//! Where the file that is wanted comes from, and what it must be.

use super::data_directory::DataDirectory;
use super::delivery::Wanted;
use super::subject::subject_of;
use crate::codec::Identities;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SystemIdentifier, WalFileName};
use crate::repo::{Cluster, ClusterIdentity, Repository};
use std::path::Path;

/// Where the file is to come from, and what it must be.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) cluster: Cluster,
    pub(super) identities: Identities,
    /// The cluster of the data directory; unknown where there is none yet.
    pub(super) local: Option<ClusterIdentity>,
    pub(super) wanted: Wanted,
}

/// Finds it: the cluster is the data directory's, or `--cluster` (`asked`), or the only one of the repository.
pub(super) async fn find(
    directory: &DataDirectory,
    repository: &Repository,
    asked: Option<SystemIdentifier>,
    name: WalFileName,
    destination: &Path,
    identities: &Identities,
) -> Result<Target> {
    let control = directory.control().await?;
    let local = control.map(|control| directory.identity(&control)).transpose()?;
    let system = match (&local, asked) {
        (Some(local), Some(asked)) if local.system_identifier != asked => {
            let here = local.system_identifier;
            let text = format!("--cluster is {asked}, and this data directory is {here}'s");
            return Err(Error::new(ErrorKind::Mismatch, text)
                .hint("leave --cluster away: the data directory tells its cluster"));
        }
        (Some(local), _) => local.system_identifier,
        (None, Some(asked)) => asked,
        (None, None) => repository.only_cluster().await?,
    };
    let cluster = repository.cluster(system);
    let segment_size = match &local {
        Some(local) => local.wal_segment_size,
        None => identity_of(&cluster).await?.wal_segment_size,
    };
    let subject = subject_of(&name, system, segment_size).ok_or_else(|| {
        let text = format!("{name} is no name of a WAL file with segments of {} MiB", segment_size.bytes() >> 20);
        Error::new(ErrorKind::Mismatch, text)
    })?;
    let wanted = Wanted { name, subject, segment_size, destination: destination.to_owned() };
    Ok(Target { cluster, identities: identities.clone(), local, wanted })
}

/// The identity of a cluster that no data directory tells of.
async fn identity_of(cluster: &Cluster) -> Result<ClusterIdentity> {
    cluster.identity().await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::Config).hint("there is no such cluster in the repository"),
        _ => error,
    })
}
