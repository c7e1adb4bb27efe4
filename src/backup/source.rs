//! The server that is backed up: what it is, what it says of itself, where its configuration lies.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{PgMajor, SegmentSize};
use crate::repo::ClusterIdentity;
use crate::wire::{Connection, SystemInfo, server_error};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Instant, SystemTime};

/// Settings that go into the manifest: the five that a hot standby needs at least as large, what a copy needs to start or must
/// not take over (libraries; standbys that a commit waits for), and what helps to understand a backup years later. One that only
/// members of pg_read_all_settings see (shared_preload_libraries) is left out for others.
const SETTINGS: [&str; 17] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "archive_mode",
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "server_encoding",
    "server_version",
    "shared_preload_libraries",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "wal_level",
    "wal_log_hints",
    "wal_block_size",
];

/// The files that may lie outside the data directory: the setting, and the name inside.
const FILES: [(&str, &str); 3] =
    [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];

/// The server, as it was before the backup.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) system: SystemInfo,
    pub(super) version_num: u32,
    pub(super) segment_size: SegmentSize,
    pub(super) settings: BTreeMap<String, String>,
    /// Paths of [`FILES`] and of the data directory, where we may see them.
    paths: BTreeMap<&'static str, String>,
    /// The server's clock, and ours then.
    clock: (SystemTime, Instant),
}

impl Source {
    /// Asks the server.
    pub(super) async fn inspect(connection: &mut Connection) -> Result<Self> {
        let version_num = connection.version_num().await?;
        let size = connection.show("wal_segment_size").await?;
        let segment_size = SegmentSize::from_setting(&size).map_err(|_| strange("wal_segment_size", &size))?;
        let system = connection.identify_system().await?;
        let mut settings = BTreeMap::new();
        for name in SETTINGS {
            if let Some(value) = show(connection, name).await? {
                settings.insert(name.to_owned(), value);
            }
        }
        let mut paths = BTreeMap::new();
        for name in ["data_directory", "config_file", "hba_file", "ident_file"] {
            if let Some(value) = show(connection, name).await? {
                paths.insert(name, value);
            }
        }
        let clock = (connection.server_time(&system).await?, Instant::now());
        Ok(Self { system, version_num, segment_size, settings, paths, clock })
    }

    /// Its major version.
    pub(super) fn major(&self) -> PgMajor {
        PgMajor::from_version_num(self.version_num)
    }

    /// The identity of its cluster.
    pub(super) fn identity(&self) -> ClusterIdentity {
        ClusterIdentity::new(self.system.system, self.major(), self.segment_size)
    }

    /// The server's clock when it was asked.
    pub(super) fn started_at(&self) -> Result<Timestamp> {
        timestamp(self.clock.0)
    }

    /// The server's clock now: as it was, and what has passed since.
    pub(super) fn now(&self) -> Result<Timestamp> {
        timestamp(self.clock.0 + self.clock.1.elapsed())
    }

    /// Configuration that is not in the backup: setting to path. `seen` are the files that the data directory had.
    pub(super) fn outside(&self, seen: &[&str]) -> BTreeMap<String, String> {
        let directory = self.paths.get("data_directory").map(Path::new);
        let outside = |(setting, name): &(&str, &str)| {
            let was_seen = seen.contains(name);
            let path = match (self.paths.get(setting), directory) {
                (Some(path), Some(directory)) => match Path::new(path).strip_prefix(directory) {
                    // A symbolic link in the data directory is passed over by the server.
                    Ok(inside) if inside == Path::new(name) && !was_seen => path.clone(),
                    Ok(_) => return None,
                    Err(_) => path.clone(),
                },
                _ if was_seen => return None,
                // Only superusers and members of pg_read_all_settings see where it is.
                _ => "unknown".to_owned(),
            };
            Some(((*setting).to_owned(), path))
        };
        FILES.iter().filter_map(outside).collect()
    }
}

fn timestamp(time: SystemTime) -> Result<Timestamp> {
    let time = Timestamp::try_from(time).map_err(|error| {
        Error::new(ErrorKind::Protocol, "the server's clock shows no time of this era").because(error)
    })?;
    // Finer than a microsecond Postgres does not count.
    Timestamp::from_microsecond(time.as_microsecond())
        .map_err(|error| Error::new(ErrorKind::Protocol, "the server's clock shows no time of this era").because(error))
}

/// A setting that we may not see, or that this version does not have, is left out.
async fn show(connection: &mut Connection, name: &str) -> Result<Option<String>> {
    match connection.show(name).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if server_error(&error).is_some_and(|error| matches!(error.code.as_str(), "42501" | "42704")) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn strange(name: &str, value: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server's {name} is {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, SystemIdentifier, TimelineId};

    #[test]
    fn configuration_that_is_elsewhere() {
        let source = |paths: &[(&'static str, &str)]| Source {
            system: SystemInfo { system: SystemIdentifier(1), timeline: TimelineId::FIRST, flushed: Lsn(1) },
            version_num: 150_000,
            segment_size: SegmentSize::DEFAULT,
            settings: BTreeMap::new(),
            paths: paths.iter().map(|(name, path)| (*name, (*path).to_owned())).collect(),
            clock: (SystemTime::now(), Instant::now()),
        };
        let shown = |source: &Source, seen: &[&str]| {
            source.outside(seen).into_iter().map(|(name, path)| format!("{name}={path}")).collect::<Vec<_>>().join(" ")
        };
        let all = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];
        let debian = source(&[
            ("data_directory", "/var/lib/pg/main"),
            ("config_file", "/etc/pg/postgresql.conf"),
            ("hba_file", "/var/lib/pg/main/own_hba.conf"),
            ("ident_file", "/var/lib/pg/main/pg_ident.conf"),
        ]);
        assert_eq!(shown(&debian, &["pg_ident.conf"]), "config_file=/etc/pg/postgresql.conf");
        // A link is not in the backup either.
        assert_eq!(
            shown(&debian, &[]),
            "config_file=/etc/pg/postgresql.conf ident_file=/var/lib/pg/main/pg_ident.conf"
        );
        assert_eq!(shown(&source(&[]), &all), "");
        assert_eq!(shown(&source(&[]), &["pg_hba.conf", "pg_ident.conf"]), "config_file=unknown");
    }
}
