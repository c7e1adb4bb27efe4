//! The WAL that a backup needs: waited for in the archive, then fetched from the server.

use super::assemble::Maker;
use super::fetch::Fetcher;
use super::options::{Phase, Progress};
use crate::codec::{Kind, ObjectHeader, encode_bytes, verify};
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

/// What the archive has of a segment.
#[derive(Debug)]
enum Look {
    /// All of it, verified.
    Archived,
    /// Nothing.
    Absent,
    /// Something that nobody can use in its place.
    Useless(Error),
}

/// A segment that the archive has not, or has only in a form that nobody can use.
#[derive(Debug)]
struct Missing {
    name: SegmentName,
    useless: Option<Error>,
}

impl WalKeeper<'_> {
    /// Waits until these segments are in the archive, or the patience is spent; the rest is fetched.
    pub(super) async fn keep(
        &self,
        needed: &[SegmentName],
        patience: Duration,
        fetcher: &mut Fetcher<'_>,
    ) -> Result<Kept> {
        let missing = self.absent(self.wait(needed, patience).await?)?;
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

    /// The names of what is missing. What is there and of no use is a refusal: a copy in the backup would not help, because
    /// recovery asks the archive first, and stops at what it finds there.
    fn absent(&self, missing: Vec<Missing>) -> Result<Vec<SegmentName>> {
        let mut names = Vec::with_capacity(missing.len());
        for Missing { name, useless } in missing {
            if let Some(why) = useless {
                return Err(self.refusal(name, why));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn refusal(&self, name: SegmentName, why: Error) -> Error {
        let file = WalFileName::Segment(name);
        let key = self.maker.layout.wal(&file);
        if why.kind() != ErrorKind::Corrupt {
            return why.context(format!("{key} in the archive cannot be verified"));
        }
        Error::new(ErrorKind::Corrupt, format!("{key} in the archive is damaged: no restore could get past it"))
            .because(why)
            .hint(format!(
                "delete that object and, while the server still has the file, archive it anew in its data directory with \
                 walhalla-archive pg_wal/{file}; then take the backup again"
            ))
    }

    /// Waits; what is still missing at the end, and why what is there does not count.
    async fn wait(&self, needed: &[SegmentName], patience: Duration) -> Result<Vec<Missing>> {
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let mut missing: Vec<Missing> = needed.iter().map(|name| Missing { name: *name, useless: None }).collect();
        let mut announced = None;
        loop {
            let mut still = Vec::new();
            for Missing { name, useless: before } in missing {
                match self.look(name).await? {
                    Look::Archived => {}
                    Look::Absent => still.push(Missing { name, useless: None }),
                    Look::Useless(why) => {
                        if before.is_none() {
                            tracing::warn!("{name} in the archive does not count as the WAL this backup needs: {why}");
                        }
                        still.push(Missing { name, useless: Some(why) });
                    }
                }
            }
            missing = still;
            let Some(first) = missing.first().map(|missing| missing.name) else { return Ok(missing) };
            if Instant::now() >= deadline {
                return Ok(missing);
            }
            if announced != Some(first) {
                announced = Some(first);
                pause = FIRST_PAUSE;
                self.progress.phase(&Phase::WaitingForWal { missing: first.to_string() });
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What the archive has of the segment. Only an object that was read and verified to its last byte counts: whoever restores
    /// this backup, perhaps years from now, has nothing else.
    async fn look(&self, name: SegmentName) -> Result<Look> {
        let key = self.maker.layout.wal(&WalFileName::Segment(name));
        let object = match self.cluster.get(&key).await {
            Ok(object) => object.body,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gap) => return Ok(Look::Absent),
            Err(error) => return Err(error),
        };
        let verified = tokio::task::spawn_blocking(move || verify(&object))
            .await
            .map_err(|error| Error::new(ErrorKind::Bug, format!("cannot verify {key}")).because(error))?;
        match verified {
            Ok(header) if self.fits(&header, name) => Ok(Look::Archived),
            Ok(_) => Ok(Look::Useless(Error::new(ErrorKind::Corrupt, "it is about something else"))),
            Err(defect) => Ok(Look::Useless(defect.into())),
        }
    }

    fn fits(&self, header: &ObjectHeader, name: SegmentName) -> bool {
        let subject = &header.subject;
        subject.kind == Kind::Wal
            && subject.system_identifier == self.maker.layout.system()
            && subject.timeline == name.timeline().get()
            && Some(subject.start) == name.start(self.segment_size)
            && header.plain_length == self.segment_size.bytes()
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

#[cfg(test)]
mod tests {
    use super::super::options::Unwatched;
    use super::*;
    use crate::codec::{Encoding, Recipients, Subject};
    use crate::pg::SystemIdentifier;
    use crate::repo::{Layout, Repository};
    use crate::storage::{Integrity, MemoryStorage, PutMode};
    use std::sync::Arc;

    const SYSTEM: SystemIdentifier = SystemIdentifier(7);

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 20).unwrap()
    }

    fn segment() -> SegmentName {
        SegmentName::at(TimelineId::FIRST, Lsn(3 << 20), size())
    }

    fn subject() -> Subject {
        Subject { kind: Kind::Wal, system_identifier: SYSTEM, timeline: 1, start: Lsn(3 << 20) }
    }

    fn encoding() -> Encoding {
        Encoding { level: 1, recipients: Recipients::default() }
    }

    fn object(subject: Subject, length: usize) -> Vec<u8> {
        let plain: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
        encode_bytes(&plain, subject, &encoding()).unwrap().bytes.to_vec()
    }

    /// With this under the segment's name in the archive: what is absent after a wait of no time.
    async fn absent(object: Option<Vec<u8>>) -> Result<Vec<SegmentName>> {
        let cluster = Repository::new(Arc::new(MemoryStorage::new()), None).cluster(SYSTEM);
        let layout = Layout::new(SYSTEM);
        if let Some(object) = object {
            let key = layout.wal(&WalFileName::Segment(segment()));
            cluster.storage().put(&key, object.into(), &PutMode::Overwrite, Integrity::Sound).await.unwrap();
        }
        let id = "20261123T170159Z-000001".parse().unwrap();
        let maker = Maker { layout, id, subject: subject(), encoding: encoding() };
        let keeper = WalKeeper { cluster: &cluster, maker: &maker, segment_size: size(), progress: &Unwatched };
        keeper.wait(&[segment()], Duration::ZERO).await.and_then(|missing| keeper.absent(missing))
    }

    #[tokio::test]
    async fn only_what_is_whole_counts_as_archived() {
        let good = object(subject(), 1 << 20);
        assert_eq!(absent(Some(good.clone())).await.unwrap(), []);
        assert_eq!(absent(None).await.unwrap(), [segment()]);

        let mut bit = good.clone();
        *bit.last_mut().unwrap() ^= 1;
        let cut = good[..good.len() - 1].to_vec();
        let other_timeline = object(Subject { timeline: 2, ..subject() }, 1 << 20);
        let other_place = object(Subject { start: Lsn(4 << 20), ..subject() }, 1 << 20);
        let too_short = object(subject(), 1 << 10);
        for bad in [bit, cut, Vec::new(), other_timeline, other_place, too_short] {
            let error = absent(Some(bad)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let line = error.to_string();
            let key = "7/wal/00000001/000000010000000000000003 in the archive is damaged";
            assert!(line.contains(key) && line.contains("delete that object"), "{line}");
        }
        // A later version's is not called damaged.
        let mut later = good;
        later[16] = 9;
        let sum = crc32fast::hash(&later[..crate::codec::HEADER_LEN - 4]);
        later[crate::codec::HEADER_LEN - 4..crate::codec::HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        let error = absent(Some(later)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("newer version"), "{error}");
    }
}
