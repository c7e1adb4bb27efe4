//! The server's data directory, as far as the two programs look into it: which cluster it is, whether its server is stopping,
//! whether archiving is held.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::control::{ControlError, ControlFile};
use crate::pg::postmaster_pid::PostmasterPid;
use crate::pg::{PgMajor, WalFileName};
use crate::repo::ClusterIdentity;
use crate::repo::identity::FORMAT;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that holds archiving (written by `walhalla restore`).
pub const HELD: &str = "walhalla.held";

/// For how long a `pg_control` with a wrong checksum is read again: the server may just be writing it.
const TORN: Duration = Duration::from_secs(1);

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory(PathBuf);

impl DataDirectory {
    /// The data directory of the file that Postgres names with `%p`: the working directory, in which it runs its commands, or,
    /// where `%p` is absolute (as `pg_rewind` passes it, or a wrapper makes it), two steps above the file. `$PGDATA` may be wrong
    /// and is not looked at.
    pub fn of(wal_file: &Path) -> Self {
        Self::of_file_in(wal_file, Path::new("."))
    }

    fn of_file_in(wal_file: &Path, working_directory: &Path) -> Self {
        if !wal_file.is_absolute() {
            return Self(working_directory.to_owned());
        }
        let above = wal_file.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        // `pg_wal` may be a link, and a wrapper may have resolved it: then the file lies in another directory's.
        if !is_one(above) && is_one(working_directory) && is_in_pg_wal_of(working_directory, wal_file) {
            return Self(working_directory.to_owned());
        }
        Self(above.to_owned())
    }

    /// The data directory at this path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path: "." for the working directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its path as an operator can type it anywhere.
    pub fn shown(&self) -> String {
        self.0.canonicalize().unwrap_or_else(|_| self.0.clone()).display().to_string()
    }

    /// Where a WAL file of this name lies in it.
    pub fn wal(&self, name: &WalFileName) -> PathBuf {
        self.0.join("pg_wal").join(name.to_string())
    }

    /// An error of kind `Held` while archiving is held here.
    pub fn refuse_if_held(&self) -> Result<()> {
        match self.0.join(HELD).symlink_metadata() {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Error::local("look for", &self.0.join(HELD), cause).with_kind(ErrorKind::Held)),
            Ok(_) => Err(Error::new(
                ErrorKind::Held,
                format!("archiving is held: this server was restored, and {HELD} is in its data directory"),
            )
            .hint(format!("once it may write to the repository, run: walhalla restore --release {}", self.shown()))),
        }
    }

    /// Its `pg_control`; `None` where there is none, hence no cluster. One with a wrong checksum is read again for a second.
    pub async fn control(&self) -> Result<Option<ControlFile>> {
        let path = self.0.join("global/pg_control");
        let begun = Instant::now();
        loop {
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(Error::local("read", &path, cause)),
            };
            match ControlFile::parse(&bytes) {
                Ok(control) => return Ok(Some(control)),
                Err(ControlError::WrongCrc | ControlError::TooShort(_)) if begun.elapsed() < TORN => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(cause) => {
                    let known = !matches!(cause, ControlError::UnknownVersion(_));
                    let kind = if known { ErrorKind::Corrupt } else { ErrorKind::Config };
                    return Err(Error::new(kind, format!("cannot read {}", path.display())).because(cause));
                }
            }
        }
    }

    /// Its `pg_control`, read once. `None` also where that fails.
    pub fn control_at_once(&self) -> Option<ControlFile> {
        ControlFile::parse(&std::fs::read(self.0.join("global/pg_control")).ok()?).ok()
    }

    /// The identity of the cluster in it.
    pub fn identity(&self, control: &ControlFile) -> Result<ClusterIdentity> {
        Ok(ClusterIdentity {
            format: FORMAT,
            system_identifier: control.system_identifier,
            postgres_major: self.major()?,
            wal_segment_size: control.wal_segment_size,
        })
    }

    /// `PG_VERSION`: 13 to 16 write the same version of `pg_control`.
    fn major(&self) -> Result<PgMajor> {
        let path = self.0.join("PG_VERSION");
        let text = std::fs::read(&path).map_err(|cause| Error::local("read", &path, cause))?;
        let major = PgMajor::from_version_file(&text).map_err(|cause| {
            Error::new(ErrorKind::Corrupt, format!("cannot read {}", path.display())).because(cause)
        })?;
        if major < PgMajor::OLDEST {
            let text = format!("Postgres {major} is too old: Walhalla knows 13 and later");
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(major)
    }

    /// What `postmaster.pid` says, if a server is there.
    pub fn postmaster(&self) -> Option<PostmasterPid> {
        PostmasterPid::parse(&std::fs::read(self.0.join("postmaster.pid")).ok()?).ok()
    }

    /// Whether its server is shutting down, and for how long it has been: it will not go on before this call ends.
    ///
    /// The postmaster writes into `postmaster.pid` that it stops at the moment it is told to, and nothing after that.
    pub fn server_is_stopping(&self) -> Option<Duration> {
        self.postmaster().filter(PostmasterPid::is_stopping)?;
        let written = std::fs::metadata(self.0.join("postmaster.pid")).and_then(|file| file.modified()).ok();
        // Without an answer, or with one from the future (another host's clock), it has only just begun.
        Some(written.and_then(|written| written.elapsed().ok()).unwrap_or_default())
    }
}

/// Whether this is a data directory at all.
pub(super) fn is_one(directory: &Path) -> bool {
    directory.join("PG_VERSION").exists()
}

/// Whether the file lies, or would lie, directly in the `pg_wal` of this data directory, by whatever path.
pub(super) fn is_in_pg_wal_of(data_directory: &Path, file: &Path) -> bool {
    let Some(above) = file.parent() else { return false };
    let pg_wal = data_directory.join("pg_wal");
    let is_same = || Some(above.canonicalize().ok()? == pg_wal.canonicalize().ok()?);
    above == pg_wal || is_same() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is() {
        assert_eq!(DataDirectory::of(Path::new("pg_wal/0000000100000000000000A3")).path(), Path::new("."));
        assert_eq!(DataDirectory::of(Path::new("/d/15/main/pg_wal/RECOVERYXLOG")).path(), Path::new("/d/15/main"));
        assert_eq!(DataDirectory::of(Path::new("/x")).path(), Path::new("/"));
    }

    #[test]
    fn a_wrapper_may_have_resolved_the_link_to_pg_wal() {
        let home = tempfile::tempdir().unwrap();
        let (data, wal) = (home.path().join("data"), home.path().join("disk/wal"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir_all(&wal).unwrap();
        std::os::unix::fs::symlink(&wal, data.join("pg_wal")).unwrap();
        let of = |file: &Path| DataDirectory::of_file_in(file, &data).path().to_owned();
        assert_eq!(of(&wal.join("RECOVERYXLOG")), home.path().join("disk"), "what is no data directory is not asked");
        std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(of(&wal.join("RECOVERYXLOG")), data);
        assert_eq!(of(&data.join("pg_wal/RECOVERYXLOG")), data);
        assert_eq!(of(&home.path().join("else/pg_wal/RECOVERYXLOG")), home.path().join("else"));
    }

    #[test]
    fn held_by_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory(directory.path().to_owned());
        data.refuse_if_held().unwrap();
        std::fs::write(directory.path().join(HELD), "").unwrap();
        let error = data.refuse_if_held().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Held);
        assert!(error.to_string().contains("walhalla restore --release /"), "{error}");
    }

    #[tokio::test]
    async fn no_control_file_is_no_cluster_and_a_damaged_one_an_error_after_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory(directory.path().to_owned());
        assert_eq!(data.control().await.unwrap(), None);
        std::fs::create_dir(directory.path().join("global")).unwrap();
        let mut damaged = [0; 8192];
        damaged[8..12].copy_from_slice(&1300_u32.to_le_bytes());
        std::fs::write(directory.path().join("global/pg_control"), damaged).unwrap();
        let begun = Instant::now();
        assert_eq!(data.control().await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(begun.elapsed() >= TORN && begun.elapsed() < TORN * 2);
    }

    #[test]
    fn stopping_is_what_postmaster_pid_says() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory(directory.path().to_owned());
        assert_eq!(data.server_is_stopping(), None);
        for (status, expected) in [("ready   ", false), ("stopping", true), ("standby ", false)] {
            let text = format!("4242\n/data\n1700000000\n5432\n/tmp\nlocalhost\n  1234567  98304\n{status}\n");
            std::fs::write(directory.path().join("postmaster.pid"), text).unwrap();
            assert_eq!(data.server_is_stopping().is_some(), expected, "{status}");
        }
    }
}
