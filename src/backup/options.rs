//! What the operator asks for, what he sees meanwhile, and what he gets.

use crate::repo::Manifest;
use std::time::Duration;

/// How to take a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// Goes into the manifest and into Postgres' `backup_label`.
    pub label: String,
    /// Have the server checkpoint at once; else at its own pace, which takes minutes.
    pub fast_checkpoint: bool,
    /// How long to wait for the archiver to deliver the WAL that the backup needs, before it is fetched from the server.
    pub wal_timeout: Duration,
    /// Limit for the server, in kB/s (32 to 1048576).
    pub max_rate: Option<u32>,
    /// How long the server may say nothing while it sends. Waiting for a checkpoint does not count: it has an hour, and with
    /// `fast_checkpoint` off a day.
    pub stall_timeout: Duration,
    /// Ask the server how much there will be; costs it a walk over all files.
    pub estimate: bool,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            label: "walhalla".to_owned(),
            fast_checkpoint: true,
            wal_timeout: Duration::from_secs(600),
            max_rate: None,
            stall_timeout: Duration::from_secs(600),
            estimate: false,
        }
    }
}

/// What a backup is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The server checkpoints.
    Checkpoint,
    /// The server sends; about so many bytes in all, where it was asked.
    Streaming {
        /// Bytes of all tar streams, as the server guesses them.
        estimate: Option<u64>,
    },
    /// The data is stored; this segment is not in the archive yet.
    WaitingForWal {
        /// The first that is missing.
        missing: String,
    },
    /// The segment is fetched from the server.
    FetchingWal {
        /// Its name.
        segment: String,
    },
}

/// Who watches a backup.
pub trait Progress: Send + Sync {
    /// A new phase began.
    fn phase(&self, phase: &Phase);
    /// So many bytes of tar streams have come, in all.
    fn received(&self, bytes: u64);
    /// Something worth a line, which is no error.
    fn note(&self, text: &str);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn phase(&self, _phase: &Phase) {}
    fn received(&self, _bytes: u64) {}
    fn note(&self, text: &str) {
        tracing::info!("{text}");
    }
}

/// A backup that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Its manifest. Where `damaged` in it is not empty, the backup was kept but holds damaged pages: whoever reports it must
    /// not call it a success.
    pub manifest: Manifest,
    /// What the operator should know, a line each: configuration that is not in the backup, WAL that was fetched.
    pub notes: Vec<String>,
}
