//! The WAL that a backup needs: waited for in the archive, then fetched from the server.

use super::assemble::Maker;
use super::fetch::Fetcher;
use super::options::{Phase, Progress};
use crate::codec::{HEADER_LEN, Kind, ObjectHeader, encode_bytes, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use crate::repo::Cluster;
use crate::repo::manifest::NeededWal;
use std::time::Duration;
use tokio::time::Instant;

/// How often the archive is looked at: from here, doubling …
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// … to here.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sees to the WAL of one backup.
pub(super) struct WalKeeper<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) maker: &'a Maker,
    pub(super) segment_size: SegmentSize,
    pub(super) progress: &'a dyn Progress,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) wal: Vec<NeededWal>,
    /// Bytes stored in the backup's own `wal/`.
    pub(super) stored_bytes: u64,
}

impl WalKeeper<'_> {
    /// Waits until these segments are in the archive, or the patience is spent; the rest is fetched.
    pub(super) async fn keep(
        &self,
        needed: &[SegmentName],
        patience: Duration,
        fetcher: &mut Fetcher<'_>,
    ) -> Result<Kept> {
        let missing = self.wait(needed, patience).await?;
        let mut kept = Kept::default();
        for name in &missing {
            self.progress.phase(&Phase::FetchingWal { segment: name.to_string() });
            let object = fetcher.segment(*name).await.map_err(|error| {
                error.context(format!("{name} is not in the archive, and cannot be fetched from the server"))
            })?;
            let key = self.maker.layout.backup_wal(&self.maker.id, &WalFileName::Segment(*name));
            kept.stored_bytes += object.bytes.len() as u64;
            self.cluster.deposit(&key, &object).await?;
        }
        kept.wal = needed.iter().map(|name| NeededWal { name: *name, own: missing.contains(name) }).collect();
        Ok(kept)
    }

    /// Waits; what is still missing at the end.
    async fn wait(&self, needed: &[SegmentName], patience: Duration) -> Result<Vec<SegmentName>> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let mut missing: Vec<SegmentName> = needed.to_vec();
        let mut announced = None;
        loop {
            let mut still = Vec::new();
            for name in missing {
                if !self.is_archived(name).await? {
                    still.push(name);
                }
            }
            missing = still;
            let Some(first) = missing.first() else { return Ok(missing) };
            if Instant::now() >= deadline {
                return Ok(missing);
            }
            if announced != Some(*first) {
                announced = Some(*first);
                pause = FIRST_PAUSE;
                self.progress.phase(&Phase::WaitingForWal { missing: first.to_string() });
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the archive has the segment: an object whose header says so. What is there and is none counts as missing.
    async fn is_archived(&self, name: SegmentName) -> Result<bool> {
        let key = self.maker.layout.wal(&WalFileName::Segment(name));
        let object = match self.cluster.storage().get(&key, Some(0..HEADER_LEN as u64)).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(false),
            // A range of an empty object is refused by some stores; so look at all of it before giving up.
            Err(error) if !error.kind.is_transient() => match self.cluster.get(&key).await {
                Ok(object) => object,
                Err(_) => return Err(Error::from(error)),
            },
            Err(error) => return Err(error.into()),
        };
        let fits = |header: &ObjectHeader| {
            let subject = &header.subject;
            subject.kind == Kind::Wal
                && subject.system_identifier == self.maker.layout.system()
                && Some(subject.start) == name.start(self.segment_size)
                && header.plain_length == self.segment_size.bytes()
        };
        match ObjectHeader::parse(&object.body) {
            Ok(header) if fits(&header) => Ok(true),
            Ok(_) => self.useless(&key, "it is about something else"),
            Err(defect) => self.useless(&key, &defect.to_string()),
        }
    }

    fn useless(&self, key: &crate::storage::Key, why: &str) -> Result<bool> {
        tracing::warn!("{key} in the archive does not count as the WAL this backup needs: {why}");
        Ok(false)
    }

    /// Makes sure that a timeline's history is in the archive, or in the backup; without it no restore finds the way.
    pub(super) async fn keep_history(&self, timeline: TimelineId, fetcher: &mut Fetcher<'_>) -> Result<u64> {
        if timeline == TimelineId::FIRST {
            return Ok(0);
        }
        let name = WalFileName::History(timeline);
        match self.cluster.get(&self.maker.layout.wal(&name)).await {
            Ok(object) if verify(&object.body).is_ok() => return Ok(0),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gap) => {}
            Err(error) => return Err(error),
        }
        let content = fetcher.history(timeline).await?;
        TimelineHistory::parse(timeline, &content)
            .map_err(|error| Error::new(ErrorKind::Protocol, format!("the server's {name}")).because(error))?;
        let subject =
            crate::codec::Subject { timeline: timeline.get(), start: Lsn::INVALID, ..self.maker.subject(Kind::Wal) };
        let object = encode_bytes(&content, subject, &self.maker.encoding)?;
        self.cluster.deposit(&self.maker.layout.backup_wal(&self.maker.id, &name), &object).await?;
        Ok(object.bytes.len() as u64)
    }
}
