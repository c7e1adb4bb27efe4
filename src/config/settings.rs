//! The settings, resolved: what the programs obey.

use super::{Keep, Secret};
use crate::codec::{Identities, Recipients};
use std::path::PathBuf;
use std::time::Duration;

/// Where the repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageUrl {
    /// `file:///srv/backup`: an absolute directory.
    File(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl StorageUrl {
    /// Whether it is a directory of this host.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// How a bucket is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    Virtual,
}

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// Given in the settings.
    Static {
        /// Access key id.
        access_key: String,
        /// Secret access key.
        secret_key: Secret,
        /// Session token of temporary credentials.
        session_token: Option<Secret>,
    },
    /// The usual AWS places: profile files, web identity, container and instance metadata.
    AwsChain,
}

/// Settings of the S3 backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// `http(s)://host[:port]`; AWS itself where unset.
    pub endpoint: Option<String>,
    /// The region to sign for, already resolved (setting, `AWS_REGION`, endpoint's host, `us-east-1`).
    pub region: String,
    /// Already resolved: path where an endpoint is set, else virtual.
    pub addressing: Addressing,
    /// PEM file of certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Credentials.
    pub credentials: S3Credentials,
}

/// How restore works ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefetch {
    /// Helper, or in the call where Postgres is PID 1.
    #[default]
    Auto,
    /// The next few segments together in one call.
    Call,
    /// A detached process beside replay.
    Helper,
    /// Not at all.
    Off,
}

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the repository is.
    pub storage: StorageUrl,
    /// Settings of the S3 backend; unused with a directory.
    pub s3: S3Settings,
    /// Replaces the whole limit of one archive call.
    pub archive_timeout: Option<Duration>,
    /// The limit of one restore call in a recovery.
    pub restore_timeout: Duration,
    /// How long a promotion waits for an archive in trouble.
    pub promote_timeout: Duration,
    /// Whether a promotion must not happen while the archive is in trouble.
    pub promote_needs_archive: bool,
    /// The spool that was set; else the default places are tried.
    pub spool: Option<PathBuf>,
    /// zstd level of WAL and backups.
    pub compression_level: i32,
    /// How many threads compress one WAL file.
    pub compression_threads: u32,
    /// How many requests at once.
    pub concurrency: usize,
    /// How restore works ahead.
    pub prefetch: Prefetch,
    /// Whom objects are encrypted to.
    pub recipients: Recipients,
    /// What opens encrypted objects.
    pub identities: Identities,
    /// How much of the past is kept.
    pub keep: Keep,
}
