//! `walhalla backup`

use super::{args, interrupt, show};
use crate::backup::{self, BackupOptions, BackupReport, Phase, Progress};
use crate::config::{self, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::ConnectOptions;
use indicatif::ProgressBar;
use std::path::Path;

pub(super) async fn run(config: Option<&Path>, verb: args::Backup) -> Result<()> {
    let settings = Settings::from_process(config)?;
    let server = ConnectOptions::from_environment(verb.server.dsn.as_deref())?;
    let options = BackupOptions {
        label: verb.label,
        fast_checkpoint: !verb.spread_checkpoint,
        wal_timeout: config::parse_duration(&verb.wal_timeout).map_err(|error| error.context("--wal-timeout"))?,
        max_rate: verb.max_rate,
        ..BackupOptions::default()
    };
    let watcher = Watcher { bar: show::progress(None) };
    let report = backup::run(&settings, &server, &options, &watcher, interrupt()).await;
    watcher.bar.finish_and_clear();
    let report = report?;
    match verb.json {
        true => show::json(&report.manifest)?,
        false => tell(&report),
    }
    for note in &report.notes {
        show::note(&format!("note: {note}"));
    }
    must_be_sound(&report)
}

/// A backup with damaged pages is kept, and is no success.
fn must_be_sound(report: &BackupReport) -> Result<()> {
    let manifest = &report.manifest;
    if manifest.damaged.is_empty() {
        return Ok(());
    }
    for line in &manifest.damaged {
        show::note(&format!("damaged: {line}"));
    }
    Err(Error::new(ErrorKind::Corrupt, format!("backup {} was kept, but holds damaged pages", manifest.id)).hint(
        "find out what damages them, and take another; restore takes this one only when it is named with --backup",
    ))
}

fn tell(report: &BackupReport) {
    let manifest = &report.manifest;
    let source = if manifest.from_standby { "a standby" } else { "the primary" };
    show::line(&format!(
        "backup {} of Postgres {}, from {source}: {} files, {}, stored in {}{}",
        manifest.id,
        manifest.postgres_major,
        manifest.files,
        show::bytes(manifest.tar_bytes),
        show::bytes(manifest.stored_bytes),
        if manifest.encrypted { ", encrypted" } else { "" },
    ));
    let own = manifest.wal.iter().filter(|needed| needed.own).count();
    show::line(&format!(
        "all {} WAL segments that it needs are in the repository{}; one can restore from {} on",
        manifest.wal.len(),
        if own == 0 { String::new() } else { format!(" ({own} of them fetched from the server)") },
        manifest.finished_at,
    ));
}

struct Watcher {
    bar: ProgressBar,
}

impl Progress for Watcher {
    fn phase(&self, phase: &Phase) {
        let text = match phase {
            Phase::Checkpoint => "waiting for the server's checkpoint".to_owned(),
            Phase::Streaming { .. } => "receiving".to_owned(),
            Phase::WaitingForWal { missing } => format!("waiting for {missing} to be archived"),
            Phase::FetchingWal { segment } => format!("fetching {segment} from the server"),
        };
        let is_slow = matches!(phase, Phase::WaitingForWal { .. } | Phase::FetchingWal { .. });
        if is_slow && self.bar.is_hidden() {
            show::note(&format!("note: {text}"));
        }
        self.bar.set_message(text);
    }

    fn received(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| show::note(&format!("note: {text}")));
    }
}
