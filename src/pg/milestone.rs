//! The records at which a recovery can stop: ends of transactions and restore points.

use super::bytes::{array_at, u32_at};
use super::record::{RM_XACT, RM_XLOG, Record, RecordHeader};
use super::{Lsn, PageMagic, ParseError, PgTimestamp, RecordReader, SegmentSize, TimelineId};

/// A record at which a recovery can stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Milestone {
    /// Where its record begins.
    pub lsn: Lsn,
    /// The position after its record.
    pub end: Lsn,
    /// The timeline of the page in which it ends.
    pub timeline: TimelineId,
    /// When it was written, by the server's clock.
    pub time: PgTimestamp,
    /// What happened.
    pub event: Event,
}

/// What happened at a milestone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transaction was committed; `xid` is that of the prepared transaction where one was.
    Commit {
        /// The transaction, as `recovery_target_xid` names it; 0 where it had none.
        xid: u32,
    },
    /// A transaction was rolled back.
    Abort {
        /// The transaction.
        xid: u32,
    },
    /// `pg_create_restore_point` was called.
    RestorePoint {
        /// The name it was given. Bytes that are no UTF-8 are replaced.
        name: String,
    },
}

impl Event {
    /// Whether it is the end of a transaction, committed or not.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Abort { .. })
    }
}

impl Milestone {
    /// What this record says, if a recovery can stop at it. The record must have its body.
    pub fn of(record: &Record) -> Result<Option<Self>, ParseError> {
        if !is_milestone(&record.header) {
            return Ok(None);
        }
        let bad = |what: &str| ParseError::new("WAL record", format!("at {}: {what}", record.lsn));
        let data = record.main_data()?;
        let time = array_at(data, 0).map(i64::from_le_bytes).ok_or_else(|| bad("it ends before its time"))?;
        let header = &record.header;
        let event = if header.resource_manager == RM_XLOG {
            let name = data.get(8..72).ok_or_else(|| bad("it ends within the name of its restore point"))?;
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Event::RestorePoint { name: String::from_utf8_lossy(name).into_owned() }
        } else {
            let operation = header.info & XACT_OPERATION;
            let xid = if matches!(operation, COMMIT_PREPARED | ABORT_PREPARED) {
                prepared_xid(header, data, record.magic).ok_or_else(|| bad("it does not name its transaction"))?
            } else {
                header.xid
            };
            if matches!(operation, COMMIT | COMMIT_PREPARED) { Event::Commit { xid } } else { Event::Abort { xid } }
        };
        let Record { lsn, end, timeline, .. } = *record;
        Ok(Some(Self { lsn, end, timeline, time: PgTimestamp(time), event }))
    }
}

/// Reads milestones from the bytes of consecutive segments; see [`RecordReader`].
#[derive(Debug)]
pub struct MilestoneReader(RecordReader);

impl MilestoneReader {
    /// A reader of WAL from `start` on, which must be the beginning of a segment.
    pub fn new(start: Lsn, size: SegmentSize) -> Result<Self, ParseError> {
        RecordReader::new(start, size, is_milestone).map(Self)
    }

    /// Reads on to the next milestone and takes what it read from `input`. `None`: it needs more bytes. An error is where the
    /// valid WAL ends.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Milestone>, ParseError> {
        while let Some(record) = self.0.next(input)? {
            if let Some(milestone) = Milestone::of(&record)? {
                return Ok(Some(milestone));
            }
        }
        Ok(None)
    }

    /// The walk beneath.
    pub fn records(&self) -> &RecordReader {
        &self.0
    }
}

/// The last end of a transaction in a segment that begins at `start`: where its record begins, and when it was.
///
/// Only records that are whole within the segment count, and only those before the valid WAL ends in it.
pub fn last_commit(segment: &[u8], start: Lsn, size: SegmentSize) -> Option<(Lsn, PgTimestamp)> {
    let mut reader = MilestoneReader::new(start, size).ok()?;
    let mut rest = segment;
    let mut last = None;
    while let Ok(Some(milestone)) = reader.next(&mut rest) {
        if milestone.event.ends_transaction() {
            last = Some((milestone.lsn, milestone.time));
        }
    }
    last
}

const XLOG_RESTORE_POINT: u8 = 0x70;
const XACT_OPERATION: u8 = 0x70;
const XACT_HAS_INFO: u8 = 0x80;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

fn is_milestone(header: &RecordHeader) -> bool {
    match header.resource_manager {
        RM_XLOG => header.operation() == XLOG_RESTORE_POINT,
        RM_XACT => {
            matches!(header.info & XACT_OPERATION, COMMIT | ABORT | COMMIT_PREPARED | ABORT_PREPARED)
        }
        _ => false,
    }
}

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// The transaction whose preparation this record ends (`ParseCommitRecord`, `ParseAbortRecord`): behind lists of other things,
/// each with its count in front.
fn prepared_xid(header: &RecordHeader, data: &[u8], magic: PageMagic) -> Option<u32> {
    const MAGIC_18: u16 = 0xD118;
    if header.info & XACT_HAS_INFO == 0 {
        return None;
    }
    let has = u32_at(data, 8)?;
    let mut at = 12_usize;
    if has & HAS_DATABASE != 0 {
        at += 8;
    }
    let statistics = if magic.0 >= MAGIC_18 { 16 } else { 12 };
    let lists =
        [(HAS_SUBTRANSACTIONS, 4), (HAS_RELATIONS, 12), (HAS_DROPPED_STATISTICS, statistics), (HAS_INVALIDATIONS, 16)];
    for (flag, each) in lists {
        if has & flag != 0 {
            let count = usize::try_from(u32_at(data, at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(each)?)?;
        }
    }
    (has & HAS_TWOPHASE != 0).then(|| u32_at(data, at)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::test_wal::{WalWriter, one_mib, real_segments};
    use super::*;

    fn all(bytes: &[u8], start: Lsn) -> Vec<Milestone> {
        let mut reader = MilestoneReader::new(start, one_mib()).unwrap();
        let mut rest = bytes;
        std::iter::from_fn(|| reader.next(&mut rest).unwrap()).collect()
    }

    /// What was done on each server: a commit, one with a subtransaction, a rollback, a prepared transaction with a
    /// subtransaction that drops a table (committed), another prepared one (rolled back), a restore point. `pg_waldump` of each
    /// version says the same of transactions, times and positions.
    #[test]
    fn what_servers_wrote() {
        let firsts = [502, 750, 741, 747, 755, 769];
        let times = [
            848_827_041_596_799,
            848_827_042_929_152,
            848_827_040_232_926,
            848_827_044_271_561,
            848_827_045_621_183,
            848_827_046_928_507,
        ];
        for (((major, name, _, bytes), xid), time) in real_segments().into_iter().zip(firsts).zip(times) {
            let start = name.start(one_mib()).unwrap();
            let milestones = all(&bytes, start);
            let events: Vec<_> = milestones.iter().map(|milestone| milestone.event.clone()).collect();
            assert_eq!(
                events,
                [
                    Event::Commit { xid },
                    Event::Commit { xid: xid + 1 },
                    Event::Abort { xid: xid + 3 },
                    Event::Commit { xid: xid + 4 },
                    Event::Abort { xid: xid + 6 },
                    Event::RestorePoint { name: "before the mistake".into() },
                ],
                "{major}"
            );
            assert_eq!(milestones[0].time, PgTimestamp(time), "{major}");
            assert!(milestones.is_sorted_by_key(|milestone| (milestone.time, milestone.lsn)));
            let last = &milestones[4];
            assert_eq!(last_commit(&bytes, start, one_mib()), Some((last.lsn, last.time)));
        }
    }

    #[test]
    fn the_last_commit_before_the_valid_wal_ends() {
        let start = Lsn(3 << 20);
        let mut writer = WalWriter::new(start, one_mib());
        assert_eq!(last_commit(&writer.bytes, start, one_mib()), None);
        writer.record(10, 0, 1, b"other");
        assert_eq!(last_commit(&writer.bytes, start, one_mib()), None);
        let first = writer.commit(7, 1000);
        let cut = writer.bytes.len();
        let second = writer.commit(8, 2000);
        assert_eq!(last_commit(&writer.bytes, start, one_mib()), Some((second, PgTimestamp(2000))));
        assert_eq!(last_commit(&writer.bytes[..cut + 20], start, one_mib()), Some((first, PgTimestamp(1000))));
        writer.bytes[cut + 30] ^= 1;
        assert_eq!(last_commit(&writer.bytes, start, one_mib()), Some((first, PgTimestamp(1000))));
        assert_eq!(last_commit(&writer.bytes, Lsn(5), one_mib()), None);
    }

    #[test]
    fn a_commit_across_segments() {
        let start = Lsn(3 << 20);
        let mut writer = WalWriter::new(start, one_mib());
        let subtransactions = vec![5; 300_000 * 4];
        let lists =
            [&9_i64.to_le_bytes()[..], &2_u32.to_le_bytes(), &300_000_u32.to_le_bytes(), &subtransactions].concat();
        let lsn = writer.record(RM_XACT, XACT_HAS_INFO, 77, &WalWriter::main_data(&lists));
        let milestones = all(&writer.bytes, start);
        assert_eq!((milestones[0].lsn, &milestones[0].event), (lsn, &Event::Commit { xid: 77 }));
    }

    #[test]
    fn records_that_say_too_little() {
        let start = Lsn(3 << 20);
        for (manager, info, data) in [
            (RM_XACT, COMMIT, &[0; 7][..]),
            (RM_XACT, COMMIT_PREPARED, &[0; 8]),
            (RM_XACT, COMMIT_PREPARED | XACT_HAS_INFO, &[0; 12]),
            (RM_XACT, ABORT_PREPARED | XACT_HAS_INFO, &[0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]),
            (RM_XLOG, XLOG_RESTORE_POINT, &[0; 71]),
        ] {
            let mut writer = WalWriter::new(start, one_mib());
            writer.record(manager, info, 1, &WalWriter::main_data(data));
            let mut reader = MilestoneReader::new(start, one_mib()).unwrap();
            assert!(reader.next(&mut &writer.bytes[..]).is_err(), "{manager} {info:02X}");
        }
    }
}
