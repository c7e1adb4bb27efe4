//! Timeline histories that lie in the archive: their bytes, which Postgres must get unchanged, and their meaning.

use super::repository::Cluster;
use crate::codec::{self, Identities, Kind, ObjectHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{TimelineHistory, TimelineId, WalFileName};

/// A `.history` file of the archive, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedHistory {
    /// The file, byte for byte.
    pub bytes: Vec<u8>,
    /// What it says.
    pub history: TimelineHistory,
}

impl Cluster {
    /// The history file of a timeline. `None` where the store says that there is none, as for timeline 1: by itself no proof
    /// that the timeline does not exist ([`Cluster::prove_absent`]). A deleted one is a `Gap`.
    pub async fn history(&self, timeline: TimelineId, identities: &Identities) -> Result<Option<ArchivedHistory>> {
        let key = self.layout.wal(&WalFileName::History(timeline));
        let object = match self.get(&key).await {
            Ok(object) => object,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let place = |error: Error| error.context(self.place(&key));
        let (header, bytes) = codec::plain_of(&object.body, identities).map_err(place)?;
        self.belongs(&header, timeline).map_err(place)?;
        let history = TimelineHistory::parse(timeline, &bytes)
            .map_err(|error| place(Error::new(ErrorKind::Corrupt, error.to_string())))?;
        Ok(Some(ArchivedHistory { bytes, history }))
    }

    /// Whether an object is a WAL file of this cluster and timeline; else `Mismatch`.
    pub(super) fn belongs(&self, header: &ObjectHeader, timeline: TimelineId) -> Result<()> {
        let subject = header.subject;
        let fits = subject.kind == Kind::Wal
            && subject.system_identifier == self.layout.system()
            && subject.timeline == timeline.get();
        if fits {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "it is {:?} of cluster {}, timeline {}, and lies under another's name",
                subject.kind, subject.system_identifier, subject.timeline
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Personality, Shelf, cluster, encoded, timeline};
    use super::*;
    use crate::pg::Lsn;
    use crate::storage::StorageErrorKind;
    use std::sync::Arc;

    const KEY: &str = "7/wal/00000003/00000003.history";
    const FILE: &[u8] = b"1\t0/1500090\tno recovery target specified\n\n2\t0/2000000\tbefore 2026-11-23\n\n";

    #[tokio::test]
    async fn bytes_and_meaning() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        let none = Identities::default();
        assert_eq!(cluster.history(timeline(3), &none).await.unwrap(), None);
        shelf.place(KEY, encoded(Kind::Wal, 3, Lsn(0), FILE, 1).bytes);
        let found = cluster.history(timeline(3), &none).await.unwrap().unwrap();
        assert_eq!(found.bytes, FILE);
        assert_eq!(found.history.switch_point(timeline(2)), Some(Lsn(0x200_0000)));
    }

    #[tokio::test]
    async fn what_is_not_one_is_no_missing_one() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        let whole = encoded(Kind::Wal, 3, Lsn(0), FILE, 1).bytes;
        for (object, kind) in [
            (bytes::Bytes::new(), ErrorKind::Corrupt),
            (whole.slice(..whole.len() - 1), ErrorKind::Corrupt),
            (encoded(Kind::Wal, 2, Lsn(0), FILE, 1).bytes, ErrorKind::Mismatch),
            (encoded(Kind::BackupData, 3, Lsn(0), FILE, 1).bytes, ErrorKind::Mismatch),
            (encoded(Kind::Wal, 3, Lsn(0), b"3\t0/0\tx\n", 1).bytes, ErrorKind::Corrupt),
        ] {
            shelf.place(KEY, object);
            let error = cluster.history(timeline(3), &Identities::default()).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(KEY), "{error}");
        }
        shelf.fault("GET", KEY, Fault::Fail(StorageErrorKind::Unavailable));
        assert!(cluster.history(timeline(3), &Identities::default()).await.is_err());
        shelf.remove(KEY, true);
        let error = cluster.history(timeline(3), &Identities::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gap);
    }
}
