//! The base backup itself: from the server, through the packer, into the storage.

use super::assemble::{self, Assembled, Maker};
use super::compress::Compressors;
use super::flow::{Flow, Piece, Point, Wish, command};
use super::options::{BackupOptions, Phase, Progress};
use super::pack::{FRAME_MOST, Packer, Told};
use super::source::Source;
use super::upload::{self, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::ManifestSummary;
use crate::repo::Cluster;
use crate::wire::{Connection, Query, ServerError, server_error};
use std::time::Duration;
use tokio::sync::mpsc;

/// How many items may wait for the assembler: records are small, frames are bounded by the compressors.
const ITEMS: usize = 1024;

/// How long a fast checkpoint may take, and one at the server's own pace.
const CHECKPOINT: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(86_400)];

/// What the server said about pages it found damaged.
#[derive(Debug, Default)]
struct Verdict {
    damaged: Vec<String>,
    warnings: Vec<String>,
}

/// A base backup whose data is stored.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) end: Point,
    pub(super) told: Told,
    pub(super) summary: ManifestSummary,
    pub(super) assembled: Assembled,
    pub(super) stored_bytes: u64,
    pub(super) damaged: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// A base backup that the server has begun.
pub(super) struct BaseBackup<'a> {
    query: Query<'a>,
    flow: Flow,
    options: &'a BackupOptions,
    progress: &'a dyn Progress,
    end: Option<Point>,
    verdict: Verdict,
}

impl<'a> BaseBackup<'a> {
    /// Has the server begin; returns when its checkpoint is done.
    pub(super) async fn begin(
        connection: &'a mut Connection,
        source: &Source,
        options: &'a BackupOptions,
        progress: &'a dyn Progress,
    ) -> Result<(Self, Point)> {
        let wish = Wish {
            label: &options.label,
            fast_checkpoint: options.fast_checkpoint,
            max_rate: options.max_rate,
            estimate: options.estimate,
        };
        progress.phase(&Phase::Checkpoint);
        let query = connection.query(&command(source.major(), &wish)).await?;
        let flow = Flow::new(source.major());
        let mut this = Self { query, flow, options, progress, end: None, verdict: Verdict::default() };
        let [fast, spread] = CHECKPOINT;
        match this.next(if options.fast_checkpoint { fast } else { spread }).await? {
            Some(Piece::Start(start)) => Ok((this, start)),
            _ => Err(Error::new(ErrorKind::Protocol, "the server did not say where the backup begins")),
        }
    }

    /// Stores everything that comes.
    pub(super) async fn store(mut self, cluster: &Cluster, maker: &Maker, at_once: usize) -> Result<Streamed> {
        let compressors = Compressors::start(maker.encoding.level, FRAME_MOST)?;
        let (items, to_assemble) = mpsc::channel(ITEMS);
        let (uploads, to_store) = mpsc::channel::<Upload>(1);
        let packer = Packer::new(compressors, items);
        let capabilities = cluster.capabilities().await?;
        let is_read_back = !(capabilities.create_only && capabilities.verifies_integrity);
        let assembling = {
            let maker = maker.clone();
            tokio::task::spawn_blocking(move || assemble::run(maker, to_assemble, uploads, is_read_back))
        };
        let assembled =
            async { assembling.await.map_err(|error| Error::new(ErrorKind::Bug, "assembling ended").because(error))? };
        // Whichever fails first ends all three. The storage stands first: what it refuses makes the others fail too.
        let (stored_bytes, assembled, (told, summary)) =
            tokio::try_join!(upload::run(cluster, to_store, at_once), assembled, self.receive(packer))?;
        let end =
            self.end.ok_or_else(|| Error::new(ErrorKind::Protocol, "the server did not say where the backup ends"))?;
        let Verdict { damaged, warnings } = self.verdict;
        Ok(Streamed { end, told, summary, assembled, stored_bytes, damaged, warnings })
    }

    async fn receive(&mut self, mut packer: Packer) -> Result<(Told, ManifestSummary)> {
        while let Some(piece) = self.next(self.options.stall_timeout).await? {
            match piece {
                Piece::Start(_) => return Err(Error::new(ErrorKind::Bug, "a backup began twice")),
                Piece::Spaces { estimate, .. } => self.progress.phase(&Phase::Streaming { estimate }),
                Piece::Archive(space) => packer.archive(space).await?,
                Piece::Data(bytes) => {
                    packer.data(&bytes).await?;
                    self.progress.received(packer.received());
                }
                Piece::Manifest => packer.manifest().await?,
                Piece::ManifestData(bytes) => packer.manifest_data(&bytes).await?,
                Piece::End(end) => self.end = Some(end),
            }
        }
        packer.finish().await
    }

    /// The next piece; `None` when the server has ended the command, content or not.
    async fn next(&mut self, patience: Duration) -> Result<Option<Piece>> {
        loop {
            let event = tokio::time::timeout(patience, self.query.next()).await.map_err(|_| {
                let message = format!("the server has sent nothing for {} s", patience.as_secs());
                Error::new(ErrorKind::Unavailable, message)
            })?;
            self.verdict
                .warnings
                .extend(self.query.take_notices().iter().filter(|notice| is_warning(notice)).map(line));
            match event {
                Ok(Some(event)) => {
                    if let Some(piece) = self.flow.take(event)? {
                        return Ok(Some(piece));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) => return self.ended_badly(error).map(|()| None),
            }
        }
    }

    /// Damaged pages: everything was sent, then the command fails with XX001. The warnings before it name them.
    fn ended_badly(&mut self, error: Error) -> Result<()> {
        let damaged = server_error(&error).filter(|error| self.flow.is_complete() && error.code == "XX001");
        let Some(verdict) = damaged else { return Err(error.context("the base backup failed")) };
        self.verdict.damaged = std::mem::take(&mut self.verdict.warnings);
        self.verdict.damaged.push(line(verdict));
        Ok(())
    }
}

fn is_warning(notice: &ServerError) -> bool {
    notice.severity == "WARNING"
}

fn line(error: &ServerError) -> String {
    match &error.detail {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message.clone(),
    }
}
