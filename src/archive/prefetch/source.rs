//! What is fetched ahead, one segment at a time, and where recovery turns to.

use super::place::Place;
use super::plan;
use crate::archive::data_directory::DataDirectory;
use crate::archive::delivery::{self, Wanted};
use crate::archive::subject::subject_of;
use crate::codec::Identities;
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::pg::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use crate::repo::Cluster;
use std::path::Path;

/// Fetches segments of one cluster into their place.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) cluster: Cluster,
    pub(super) identities: Identities,
    pub(super) size: SegmentSize,
    pub(super) place: Place,
    pub(super) directory: DataDirectory,
}

/// How it went. Nothing of it is proven to anybody, and nobody is told: the file's own call judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// It is in its place, whole and verified.
    There,
    /// The store has no such key at this moment.
    Missing,
    /// The object is of no use.
    Useless,
    /// The storage or the spool is in trouble.
    Trouble,
}

impl Source {
    /// Dropped at any moment, it leaves nothing under a final name that was not there.
    pub(super) async fn fetch(&self, name: SegmentName) -> Fetched {
        self.fetch_noting(name, || ()).await
    }

    /// The same; says when the object has come, and is being written.
    pub(super) async fn fetch_noting(&self, name: SegmentName, has_come: impl FnOnce()) -> Fetched {
        match self.deliver(name, has_come).await {
            Ok(true) => Fetched::There,
            Ok(false) => Fetched::Missing,
            Err(error) => match error.kind() {
                ErrorKind::Corrupt | ErrorKind::Mismatch | ErrorKind::Gap => Fetched::Useless,
                _ => Fetched::Trouble,
            },
        }
    }

    /// Whoever drops this cannot stop a thread that writes: it writes into a folder of its own, which is gone then.
    async fn deliver(&self, name: SegmentName, has_come: impl FnOnce()) -> Result<bool, Error> {
        let path = self.place.path(name);
        let name = WalFileName::Segment(name);
        let subject = subject_of(&name, self.cluster.layout().system(), self.size)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "no segment has this name"))?;
        let mut wanted = Wanted { name, subject, segment_size: self.size, destination: path.clone() };
        let Some(object) = delivery::ask(&self.cluster, &wanted).await? else { return Ok(false) };
        has_come();
        let folder = self.place.temporary_folder()?;
        wanted.destination = folder.path().join("segment");
        delivery::write(object, &self.cluster, &self.identities, &wanted).await?;
        sync(&wanted.destination).await?;
        durable::hand_over(&wanted.destination, &path, 0o600)?;
        Ok(true)
    }

    /// The next segments behind `position`, across the switches of `history`.
    pub(super) fn after(
        &self,
        position: SegmentName,
        history: Option<&TimelineHistory>,
        count: usize,
    ) -> Vec<SegmentName> {
        plan::after(position, history, self.size, count)
    }

    /// The history of a timeline: the server's own copy, else the archive's. `None` where neither can be read: then the
    /// timeline in hand is believed to go on.
    pub(super) async fn history(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        let kept = std::fs::read(self.directory.wal(&WalFileName::History(timeline)));
        match kept.ok().and_then(|bytes| TimelineHistory::parse(timeline, &bytes).ok()) {
            Some(history) => Some(history),
            None => Some(self.cluster.history(timeline, &self.identities).await.ok()??.history),
        }
    }
}

/// A full quota, or a server of files that fails, may say so only now. Postgres asks later, and perhaps of a copy.
async fn sync(path: &Path) -> Result<(), Error> {
    let path = path.to_owned();
    let sync = move || {
        let synced = std::fs::File::open(&path).and_then(|file| file.sync_data());
        synced.map_err(|error| Error::local("sync", &path, error))
    };
    let ended = tokio::task::spawn_blocking(sync).await;
    ended.map_err(|cause| Error::new(ErrorKind::Bug, "cannot sync the file").because(cause))?
}
