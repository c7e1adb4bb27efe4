//! A backup from beginning to end.

use super::assemble::Maker;
use super::fetch::Fetcher;
use super::flow::Point;
use super::options::{BackupOptions, BackupReport, Progress};
use super::source::Source;
use super::stream::{BaseBackup, Streamed};
use super::wal::{Kept, WalKeeper};
use crate::codec::{Encoding, Kind, Recipients, Subject, encode_bytes};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{BackupLabel, BackupSource, WalRange, needed_segments};
use crate::repo::started::Started;
use crate::repo::{BackupId, Cluster, Layout, Manifest, Repository};
use crate::spool::Spool;
use crate::storage::{self, Key};
use crate::wire::{ConnectOptions, Connection, Mode, in_time};
use jiff::Timestamp;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The version that manifests bear.
const WRITTEN_BY: &str = concat!("walhalla ", env!("CARGO_PKG_VERSION"));

/// Takes a base backup of a server into the repository that the settings name.
///
/// Ok means that the backup exists: its manifest is stored, and every WAL segment it needs is in the repository. Its report may
/// still say that pages are damaged. After an error, or when `interrupted` completes first, nothing that looks like a backup
/// is left. Once the manifest is on its way, its fate is waited for in spite of `interrupted`.
///
/// `Corrupt`: what arrived is not what the server says it sent. `Denied`, `Unavailable`, `Config`: the server or the storage,
/// as the message says. `Interrupted`: by `interrupted`.
pub async fn run(
    settings: &Settings,
    server: &ConnectOptions,
    options: &BackupOptions,
    progress: &dyn Progress,
    interrupted: impl Future<Output = ()>,
) -> Result<BackupReport> {
    let storage = storage::open_patient(settings)?;
    // Taken anywhere, by anyone: without a spool the storage is only asked more often.
    let spool = Spool::find(settings.spool.as_deref(), None).unwrap_or_default();
    let repository = Repository::new(storage, spool);
    let encoding = Encoding { level: settings.compression_level, recipients: settings.recipients.clone() };
    let (at_once, committing) = (settings.concurrency.max(1), AtomicBool::new(false));
    let backup = Backup { repository, encoding, at_once, server, options, progress, committing: &committing };
    unless_interrupted(backup.take(), &committing, interrupted).await
}

/// Gives up what is being done when `interrupted` completes, unless it is `committing`: a request that was dropped on its way may
/// have arrived all the same, and then "nothing of it counts as a backup" would be a lie.
async fn unless_interrupted<T>(
    doing: impl Future<Output = Result<T>>,
    committing: &AtomicBool,
    interrupted: impl Future<Output = ()>,
) -> Result<T> {
    let mut doing = pin!(doing);
    tokio::select! {
        outcome = &mut doing => return outcome,
        () = interrupted => {}
    }
    if committing.load(Ordering::Relaxed) {
        tracing::info!("the backup's manifest is being stored: this is waited for");
        return doing.await;
    }
    Err(Error::new(ErrorKind::Interrupted, "the backup was interrupted; nothing of it counts as a backup"))
}

struct Backup<'a> {
    repository: Repository,
    encoding: Encoding,
    at_once: usize,
    server: &'a ConnectOptions,
    options: &'a BackupOptions,
    progress: &'a dyn Progress,
    /// Set when the manifest is about to be stored.
    committing: &'a AtomicBool,
}

impl Backup<'_> {
    async fn take(&self) -> Result<BackupReport> {
        let mut connection = Connection::connect(self.server, Mode::Replication).await?;
        let source = in_time("asking the server about itself", Source::inspect(&mut connection)).await?;
        let cluster = self.repository.cluster(source.system.system);
        cluster.confirm_identity(&source.identity()).await?;
        // Whether WAL is missing can only be told with the right to list: better known now than after hours.
        cluster.timelines().await.map_err(|error| error.context("cannot list what is archived"))?;
        // Of several hosts, the one that is backed up.
        let mut same = self.server.clone();
        same.hosts = vec![connection.host().clone()];
        let (mut fetcher, refused) =
            Fetcher::prepare(&same, source.system.system, source.segment_size, self.encoding.clone()).await;
        let mut notes: Vec<String> = refused.iter().map(not_held).collect();

        let (base, start) = BaseBackup::begin(&mut connection, &source, self.options, self.progress).await?;
        let maker = self.maker(&source, start)?;
        let begun = self.store_started(&cluster, &maker, &source, start).await?;
        let mut streamed = base.store(&cluster, &maker, self.at_once).await?;
        let finished_at = source.now()?;
        drop(connection);

        let from_standby = label(&streamed, start)?.source == BackupSource::Standby;
        self.check_system(&streamed, &source)?;
        let ranges = &streamed.summary.wal_ranges;
        check_ranges(ranges, start, streamed.end)?;
        let names = needed_segments(ranges, source.segment_size)
            .map_err(|error| Error::new(ErrorKind::Protocol, "the server's backup_manifest").because(error))?;
        fetcher.ends_at(streamed.end.lsn, from_standby);
        let keeper =
            WalKeeper { cluster: &cluster, maker: &maker, segment_size: source.segment_size, progress: self.progress };
        let kept = keeper.keep(&names, self.patience(from_standby, &source), &mut fetcher).await?;
        let history = keeper.keep_history(streamed.end.timeline, &mut fetcher).await?;
        streamed.stored_bytes += begun + kept.stored_bytes + history;

        notes.append(&mut streamed.warnings);
        let manifest = self.manifest(&maker, &source, start, streamed, kept, from_standby, finished_at)?;
        notes.extend(notes_on(&manifest));
        self.committing.store(true, Ordering::Relaxed);
        store_json(&cluster, &maker, Kind::BackupManifest, &cluster.layout().backup_manifest(&maker.id), &manifest)
            .await?;
        Ok(BackupReport { manifest, notes })
    }

    fn maker(&self, source: &Source, start: Point) -> Result<Maker> {
        let system = source.system.system;
        let subject = Subject {
            kind: Kind::BackupData,
            system_identifier: system,
            timeline: start.timeline.get(),
            start: start.lsn,
        };
        let id = new_id(source.started_at()?)?;
        Ok(Maker { layout: Layout::new(system), id, subject, encoding: self.encoding.clone() })
    }

    async fn store_started(&self, cluster: &Cluster, maker: &Maker, source: &Source, start: Point) -> Result<u64> {
        let started = Started {
            format: Started::FORMAT,
            id: maker.id.clone(),
            system_identifier: source.system.system,
            postgres_major: source.major(),
            started_at: source.started_at()?.to_string(),
            start_lsn: start.lsn,
            start_timeline: start.timeline,
            label: self.options.label.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            written_by: WRITTEN_BY.to_owned(),
        };
        let key = cluster.layout().backup_started(&maker.id);
        store_json(cluster, maker, Kind::BackupStarted, &key, &started).await
    }

    /// How long to wait for the archiver. Nobody archives for a standby's sake, nor where archiving is off.
    fn patience(&self, from_standby: bool, source: &Source) -> Duration {
        let archives = source.settings.get("archive_mode").is_none_or(|mode| mode != "off");
        if from_standby || !archives { Duration::ZERO } else { self.options.wal_timeout }
    }

    fn check_system(&self, streamed: &Streamed, source: &Source) -> Result<()> {
        match streamed.summary.system_identifier {
            Some(system) if system != source.system.system => Err(Error::new(
                ErrorKind::Mismatch,
                format!("the server's backup_manifest is cluster {system}'s, not {}'s", source.system.system),
            )),
            _ => Ok(()),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn manifest(
        &self,
        maker: &Maker,
        source: &Source,
        start: Point,
        streamed: Streamed,
        kept: Kept,
        from_standby: bool,
        finished_at: Timestamp,
    ) -> Result<Manifest> {
        Ok(Manifest {
            format: Manifest::FORMAT,
            id: maker.id.clone(),
            system_identifier: source.system.system,
            postgres_major: source.major(),
            server_version_num: source.version_num,
            wal_segment_size: source.segment_size,
            parent: None,
            label: self.options.label.clone(),
            from_standby,
            started_at: source.started_at()?.to_string(),
            finished_at: finished_at.to_string(),
            start_lsn: start.lsn,
            start_timeline: start.timeline,
            end_lsn: streamed.end.lsn,
            end_timeline: streamed.end.timeline,
            wal: kept.wal,
            archives: streamed.assembled.archives,
            index: streamed.assembled.index,
            pg_manifest: streamed.assembled.pg_manifest,
            encrypted: !self.encoding.recipients.is_empty(),
            damaged: streamed.damaged,
            outside: source.outside(&streamed.told.configuration),
            server_settings: source.settings.clone(),
            files: streamed.told.files,
            tar_bytes: streamed.told.tar_bytes,
            stored_bytes: streamed.stored_bytes,
            written_by: WRITTEN_BY.to_owned(),
        })
    }
}

/// `backup_label`, held against where the server said that the backup begins.
fn label(streamed: &Streamed, start: Point) -> Result<BackupLabel> {
    let label = BackupLabel::parse(&streamed.told.label)
        .map_err(|error| Error::new(ErrorKind::Protocol, "the backup has no usable backup_label").because(error))?;
    if label.start == start.lsn && label.start_timeline == start.timeline {
        return Ok(label);
    }
    let message = format!("backup_label begins at {}, the backup at {}", label.start, start.lsn);
    Err(Error::new(ErrorKind::Protocol, message))
}

/// Holds the manifest's ranges against where the server said that the backup begins and ends.
fn check_ranges(ranges: &[WalRange], start: Point, end: Point) -> Result<()> {
    let first = ranges.last().is_some_and(|range| (range.timeline, range.start) == (start.timeline, start.lsn));
    let last = ranges.first().is_some_and(|range| (range.timeline, range.end) == (end.timeline, end.lsn));
    if first && last {
        return Ok(());
    }
    let message = format!(
        "the server's backup_manifest speaks of other WAL than the backup's {} to {}: {ranges:?}",
        start.lsn, end.lsn
    );
    Err(Error::new(ErrorKind::Protocol, message))
}

fn not_held(error: &Error) -> String {
    format!("the server holds no WAL for this backup while it runs ({error}); if the archiver lags, it may be gone")
}

fn notes_on(manifest: &Manifest) -> Vec<String> {
    let mut notes = Vec::new();
    if !manifest.outside.is_empty() {
        let files: Vec<String> = manifest.outside.iter().map(|(name, path)| format!("{name} = {path}")).collect();
        notes.push(format!(
            "configuration outside the data directory is not in this backup; keep a copy of it: {}",
            files.join(", ")
        ));
    }
    let own = manifest.wal.iter().filter(|needed| needed.own).count();
    if own > 0 {
        notes
            .push(format!("{own} of {} WAL segments were fetched from the server into the backup", manifest.wal.len()));
    }
    notes
}

fn new_id(time: Timestamp) -> Result<BackupId> {
    let time = time.strftime("%Y%m%dT%H%M%SZ");
    format!("{time}-{:06x}", fastrand::u32(..1 << 24))
        .parse()
        .map_err(|error| Error::new(ErrorKind::Protocol, "the server's clock names no backup").because(error))
}

/// Stores a small object of JSON, in the clear; its size as stored.
async fn store_json(
    cluster: &Cluster,
    maker: &Maker,
    kind: Kind,
    key: &Key,
    value: &impl serde::Serialize,
) -> Result<u64> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::new(ErrorKind::Bug, format!("cannot write {key}")).because(error))?;
    json.push(b'\n');
    let encoding = Encoding { level: maker.encoding.level, recipients: Recipients::default() };
    let object = encode_bytes(&json, maker.subject(kind), &encoding)?;
    cluster.deposit(key, &object).await.map_err(|error| error.context(format!("storing {key}")))?;
    Ok(object.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_interruption_does_not_drop_the_last_request() {
        let second = Duration::from_secs(1);
        let ended = |begins: u32, takes: u32, interrupted: u32, outcome: Result<u8>| async move {
            let committing = AtomicBool::new(false);
            let doing = async {
                tokio::time::sleep(second * begins).await;
                committing.store(true, Ordering::Relaxed);
                tokio::time::sleep(second * takes).await;
                outcome
            };
            unless_interrupted(doing, &committing, tokio::time::sleep(second * interrupted)).await
        };
        let refused = || Err(Error::new(ErrorKind::Denied, "no"));
        let kind = |outcome: Result<u8>| outcome.map_err(|error| error.kind());
        assert_eq!(kind(ended(5, 5, 20, Ok(1)).await), Ok(1));
        assert_eq!(kind(ended(5, 5, 7, Ok(1)).await), Ok(1), "committed, whatever was pressed meanwhile");
        assert_eq!(kind(ended(5, 5, 7, refused()).await), Err(ErrorKind::Denied));
        assert_eq!(kind(ended(5, 5, 3, Ok(1)).await), Err(ErrorKind::Interrupted));
    }
}
