//! The last commit that the archive holds, read from the WAL itself: until when one can restore.

use super::repository::Cluster;
use crate::codec::{self, Identities};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, MilestoneReader, PgTimestamp, SegmentName, SegmentSize};
use crate::storage::Key;
use std::io::{self, Write};

/// How many segments are read, from the last one back, before the search is given up.
const SEARCHED: usize = 16;

/// The last end of a transaction, committed or rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastCommit {
    /// Where its record begins.
    pub lsn: Lsn,
    /// When it was written, by the server's clock.
    pub time: PgTimestamp,
    /// The segment that holds it.
    pub segment: SegmentName,
}

impl Cluster {
    /// Looks for the last end of a transaction in segments given from the newest back, each with the key of its object (in the
    /// archive, or in a backup's own `wal/`). At most sixteen are read; `None`: there is none in those, so that one can restore
    /// *at least* until the backup's end, or whatever else is known.
    ///
    /// Only records that are whole within their segment count. Each object is verified as a whole before it is believed.
    pub async fn last_commit(
        &self,
        newest_first: impl IntoIterator<Item = (SegmentName, Key)>,
        size: SegmentSize,
        identities: &Identities,
    ) -> Result<Option<LastCommit>> {
        for (segment, key) in newest_first.into_iter().take(SEARCHED) {
            let found = self.last_commit_in(segment, &key, size, identities).await;
            if let Some((lsn, time)) = found.map_err(|error| error.context(self.place(&key)))? {
                return Ok(Some(LastCommit { lsn, time, segment }));
            }
        }
        Ok(None)
    }

    async fn last_commit_in(
        &self,
        segment: SegmentName,
        key: &Key,
        size: SegmentSize,
        identities: &Identities,
    ) -> Result<Option<(Lsn, PgTimestamp)>> {
        let start = segment.start(size).ok_or_else(|| {
            Error::new(ErrorKind::Mismatch, format!("no segment of {} bytes has this name", size.bytes()))
        })?;
        let mut search = Search::new(start, size)?;
        let object = self.get(key).await?;
        let identities = identities.clone();
        let (header, found) = tokio::task::spawn_blocking(move || {
            codec::decode(&object.body, &identities, &mut search).map(|header| (header, search.found))
        })
        .await
        .map_err(|error| Error::new(ErrorKind::Bug, "cannot search a segment").because(error))??;
        self.belongs(&header, segment.timeline())?;
        if header.subject.start != start || header.plain_length != size.bytes() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("it holds {} bytes from {}, not this segment", header.plain_length, header.subject.start),
            ));
        }
        Ok(found)
    }
}

/// Takes a segment's plain bytes as they are decompressed and remembers the last end of a transaction in them.
struct Search {
    reader: MilestoneReader,
    /// The valid WAL has ended: what follows in the segment is left from an earlier use of the file.
    over: bool,
    found: Option<(Lsn, PgTimestamp)>,
}

impl Search {
    fn new(start: Lsn, size: SegmentSize) -> Result<Self> {
        let reader =
            MilestoneReader::new(start, size).map_err(|error| Error::new(ErrorKind::Bug, error.to_string()))?;
        Ok(Self { reader, over: false, found: None })
    }
}

impl Write for Search {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !self.over {
            match self.reader.next(&mut rest) {
                Ok(Some(milestone)) if milestone.event.ends_transaction() => {
                    self.found = Some((milestone.lsn, milestone.time));
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => self.over = true,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Personality, SYSTEM, Shelf, cluster, encoded};
    use super::super::{Layout, Repository};
    use super::*;
    use crate::codec::{Encoding, Kind, Recipients, Subject};
    use crate::pg::test_wal::{WalWriter, one_mib, real_segments};
    use crate::pg::{TimelineId, WalFileName};
    use crate::storage::Storage;
    use std::sync::Arc;

    fn name(number: u64) -> SegmentName {
        SegmentName::at(TimelineId::FIRST, Lsn(number << 20), one_mib())
    }

    fn keyed(number: u64) -> (SegmentName, Key) {
        (name(number), Layout::new(SYSTEM).wal(&WalFileName::Segment(name(number))))
    }

    /// A segment with these times of commits.
    fn segment(number: u64, commits: &[i64]) -> bytes::Bytes {
        let mut wal = WalWriter::new(Lsn(number << 20), one_mib());
        for (time, xid) in commits.iter().zip(700..) {
            wal.commit(xid, *time);
        }
        wal.fill();
        encoded(Kind::Wal, 1, Lsn(number << 20), &wal.bytes, 1).bytes
    }

    async fn search(shelf: &Arc<Shelf>, numbers: std::ops::RangeInclusive<u64>) -> Result<Option<LastCommit>> {
        cluster(shelf).last_commit(numbers.rev().map(keyed), one_mib(), &Identities::default()).await
    }

    #[tokio::test]
    async fn walks_back_to_the_last_commit() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        shelf.place(keyed(1).1.as_str(), segment(1, &[10, 20]));
        for number in 2..=20 {
            shelf.place(keyed(number).1.as_str(), segment(number, &[]));
        }
        let found = search(&shelf, 1..=5).await.unwrap().unwrap();
        assert_eq!((found.time, found.segment), (PgTimestamp(20), name(1)));
        shelf.requests();
        assert_eq!(search(&shelf, 1..=17).await.unwrap(), None, "sixteen segments and no further");
        assert_eq!(shelf.requests().len(), SEARCHED);
        assert!(search(&shelf, 1..=16).await.unwrap().is_some());
        shelf.place(keyed(16).1.as_str(), segment(16, &[30]));
        assert_eq!(search(&shelf, 1..=16).await.unwrap().unwrap().time, PgTimestamp(30));
    }

    #[tokio::test]
    async fn what_cannot_be_believed_is_an_error() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        assert_eq!(search(&shelf, 1..=1).await.unwrap_err().kind(), ErrorKind::NotFound);
        let whole = segment(1, &[10]);
        let short = encoded(Kind::Wal, 1, Lsn(1 << 20), b"short", 1).bytes;
        for (object, kind) in [
            (whole.slice(..whole.len() - 1), ErrorKind::Corrupt),
            (segment(2, &[10]), ErrorKind::Mismatch),
            (short, ErrorKind::Mismatch),
            (encoded(Kind::BackupData, 1, Lsn(1 << 20), &[0; 1 << 20], 1).bytes, ErrorKind::Mismatch),
        ] {
            shelf.place(keyed(1).1.as_str(), object);
            let error = search(&shelf, 1..=1).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(keyed(1).1.as_str()), "{error}");
        }
    }

    #[tokio::test]
    async fn in_segments_of_every_major() {
        for (major, name, system, plain) in real_segments() {
            let shelf = Arc::new(Shelf::new(Personality::HONEST));
            let start = name.start(one_mib()).unwrap();
            let key = Layout::new(system).wal(&WalFileName::Segment(name));
            let subject = Subject { kind: Kind::Wal, system_identifier: system, timeline: 1, start };
            let encoding = Encoding { level: 1, recipients: Recipients::default() };
            shelf.place(key.as_str(), codec::encode_bytes(&plain, subject, &encoding).unwrap().bytes);
            let cluster = Repository::new(Arc::clone(&shelf) as Arc<dyn Storage>, None).cluster(system);
            let found = cluster.last_commit([(name, key)], one_mib(), &Identities::default()).await.unwrap().unwrap();
            let expected = crate::pg::last_commit(&plain, start, one_mib()).unwrap();
            assert_eq!((found.lsn, found.time), expected, "{major}");
        }
    }
}
