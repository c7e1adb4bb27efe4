//! `global/pg_control`: what a cluster is and how it last stopped (`catalog/pg_control.h`).
//!
//! The offsets are those of the C structures on 64-bit machines. They are the same from 13 to 18; only the place of the
//! checksum differs. Each was held against a server of its version.

use super::bytes::{u8_at, u32_at, u64_at};
use super::{Lsn, ParseError, PgMajor, SegmentSize, SystemIdentifier, TimelineId};

/// What a data directory's `pg_control` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Format of the file: 1300 (13 to 16), 1700, 1800.
    pub control_version: u32,
    /// Version of the system catalogs; tells the major.
    pub catalog_version: u32,
    /// How the server runs, or last stopped.
    pub state: ClusterState,
    /// When the file was last written, in seconds since 1970.
    pub time: i64,
    /// Position of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint begins.
    pub redo: Lsn,
    /// Timeline of that checkpoint.
    pub timeline: TimelineId,
    /// The timeline before it; the same one unless the checkpoint began a timeline.
    pub previous_timeline: TimelineId,
    /// How far replay must come before the data are consistent; invalid when not in archive recovery.
    pub min_recovery_point: Lsn,
    /// Timeline of that position, where there is one.
    pub min_recovery_timeline: Option<TimelineId>,
    /// Start of the backup that is being recovered; invalid when there is none, or its end was reached.
    pub backup_start: Lsn,
    /// End of that backup, if it was taken from a standby; else invalid.
    pub backup_end: Lsn,
    /// Whether replay must meet the record that ends that backup.
    pub backup_end_required: bool,
    /// Settings that a hot standby's must not fall below.
    pub settings: StandbySettings,
    /// Size of a data page, in bytes.
    pub block_size: u32,
    /// Pages in each file of a large relation.
    pub relation_segment_blocks: u32,
    /// Size of a WAL page, in bytes.
    pub wal_block_size: u32,
    /// Size of a WAL segment.
    pub wal_segment_size: SegmentSize,
    /// Version of the data pages' checksums; 0: there are none.
    pub data_checksum_version: u32,
}

/// The settings that the WAL was written under. A hot standby refuses to go on with smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbySettings {
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

/// `DBState`: how the server runs, or last stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterState {
    /// Fresh from `initdb`.
    StartingUp,
    /// Shut down cleanly.
    ShutDown,
    /// A standby, shut down cleanly.
    ShutDownInRecovery,
    /// Shutting down; or stopped in the middle of it.
    ShuttingDown,
    /// Recovering from a crash; or stopped in the middle of it.
    InCrashRecovery,
    /// Recovering from an archive, or a standby; or stopped in the middle of it.
    InArchiveRecovery,
    /// In production; or crashed.
    InProduction,
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// Why bytes are no `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It ends early.
    #[error("pg_control: it has only {0} bytes")]
    TooShort(usize),
    /// Another version's, or another architecture's.
    #[error("pg_control: format {0} is not known (1300, 1700 and 1800 are: Postgres 13 to 18)")]
    UnknownVersion(u32),
    /// The checksum does not fit: damaged, or read while the server was writing it. Read it again for up to a second.
    #[error("pg_control: its checksum does not fit (damaged, or it was being written)")]
    WrongCrc,
    /// The checksum fits, but a value is none that Postgres writes.
    #[error("pg_control: {0}")]
    Implausible(String),
}

impl From<ControlError> for ParseError {
    fn from(error: ControlError) -> Self {
        let text = error.to_string();
        Self::new("pg_control", text.strip_prefix("pg_control: ").unwrap_or(&text))
    }
}

/// Where the checksum lies, by format.
fn crc_offset(control_version: u32) -> Option<usize> {
    match control_version {
        1300 | 1700 => Some(288),
        1800 => Some(292),
        _ => None,
    }
}

impl ControlFile {
    /// Size of the file in bytes. Only the first 300 or so mean anything.
    pub const FILE_SIZE: usize = 8192;

    /// Reads the file, or at least its first 512 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let short = || ControlError::TooShort(bytes.len());
        let number = |offset| u32_at(bytes, offset).ok_or_else(short);
        let lsn = |offset| u64_at(bytes, offset).map(Lsn).ok_or_else(short);
        let flag = |offset| u8_at(bytes, offset).map(|byte| byte != 0).ok_or_else(short);

        let control_version = number(8)?;
        let crc_at = crc_offset(control_version).ok_or(ControlError::UnknownVersion(control_version))?;
        let covered = bytes.get(..crc_at).ok_or_else(short)?;
        if crc32c::crc32c(covered) != number(crc_at)? {
            return Err(ControlError::WrongCrc);
        }

        let state = number(16)?;
        let timeline = |offset| {
            TimelineId::new(number(offset)?)
                .ok_or_else(|| ControlError::Implausible(format!("timeline 0 at offset {offset}")))
        };
        let segment_size =
            SegmentSize::new(u64::from(number(228)?)).map_err(|error| ControlError::Implausible(error.to_string()))?;
        Ok(Self {
            system_identifier: SystemIdentifier(u64_at(bytes, 0).ok_or_else(short)?),
            control_version,
            catalog_version: number(12)?,
            state: ClusterState::from_number(state)
                .ok_or_else(|| ControlError::Implausible(format!("state {state}")))?,
            time: u64_at(bytes, 24).ok_or_else(short)?.cast_signed(),
            checkpoint: lsn(32)?,
            redo: lsn(40)?,
            timeline: timeline(48)?,
            previous_timeline: timeline(52)?,
            min_recovery_point: lsn(136)?,
            min_recovery_timeline: TimelineId::new(number(144)?),
            backup_start: lsn(152)?,
            backup_end: lsn(160)?,
            backup_end_required: flag(168)?,
            settings: StandbySettings {
                wal_level: number(172)?,
                wal_log_hints: flag(176)?,
                max_connections: number(180)?,
                max_worker_processes: number(184)?,
                max_wal_senders: number(188)?,
                max_prepared_transactions: number(192)?,
                max_locks_per_transaction: number(196)?,
                track_commit_timestamp: flag(200)?,
            },
            block_size: number(216)?,
            relation_segment_blocks: number(220)?,
            wal_block_size: number(224)?,
            wal_segment_size: segment_size,
            data_checksum_version: number(252)?,
        })
    }

    /// The major version of Postgres, if the catalog version is that of a release we know.
    pub fn major(&self) -> Option<PgMajor> {
        PgMajor::from_catalog_version(self.catalog_version)
    }

    /// The timeline that recovery would start on: the checkpoint's, or that of the least recovery point if it is later.
    pub fn latest_timeline(&self) -> TimelineId {
        self.min_recovery_timeline.map_or(self.timeline, |least| least.max(self.timeline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 512 bytes of running servers' files, made with the settings that `every_version` expects.
    const FILES: [(u16, &[u8]); 6] = [
        (13, include_bytes!("../../tests/fixtures/pg/pg_control_13")),
        (14, include_bytes!("../../tests/fixtures/pg/pg_control_14")),
        (15, include_bytes!("../../tests/fixtures/pg/pg_control_15")),
        (16, include_bytes!("../../tests/fixtures/pg/pg_control_16")),
        (17, include_bytes!("../../tests/fixtures/pg/pg_control_17")),
        (18, include_bytes!("../../tests/fixtures/pg/pg_control_18")),
    ];

    #[test]
    fn every_version() {
        for (major, bytes) in FILES {
            let control = ControlFile::parse(bytes).unwrap();
            assert_eq!(control.major(), Some(PgMajor(major)));
            assert_eq!(control.state, ClusterState::InProduction);
            assert_eq!((control.timeline, control.previous_timeline), (TimelineId::FIRST, TimelineId::FIRST));
            assert_eq!(control.latest_timeline(), TimelineId::FIRST);
            assert_eq!(control.redo.0 % (1 << 20), 0x28, "{}", control.redo);
            assert!(control.checkpoint > control.redo);
            assert_eq!(
                control.settings,
                StandbySettings {
                    wal_level: 1,
                    wal_log_hints: false,
                    max_connections: 23,
                    max_worker_processes: 9,
                    max_wal_senders: 6,
                    max_prepared_transactions: 7,
                    max_locks_per_transaction: 77,
                    track_commit_timestamp: true,
                }
            );
            assert_eq!((control.block_size, control.relation_segment_blocks), (8192, 131_072));
            assert_eq!((control.wal_block_size, control.wal_segment_size.bytes()), (8192, 1 << 20));
            assert_eq!(control.data_checksum_version, u32::from(major >= 18));
            assert_eq!(control.system_identifier.0, IDENTIFIERS[usize::from(major - 13)]);
        }
    }

    /// As `pg_controldata` prints them.
    const IDENTIFIERS: [u64; 6] = [
        7_711_660_593_361_116_421,
        7_711_660_606_375_550_289,
        7_711_660_580_010_605_755,
        7_711_660_619_159_002_524,
        7_711_660_631_737_548_328,
        7_711_660_644_488_916_594,
    ];

    #[test]
    fn damage_is_told_apart() {
        let (_, good) = FILES[2];
        for at in 0..288 {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x10;
            let expected = if (8..12).contains(&at) {
                ControlError::UnknownVersion(u32_at(&bytes, 8).unwrap())
            } else {
                ControlError::WrongCrc
            };
            assert_eq!(ControlFile::parse(&bytes), Err(expected), "byte {at}");
        }
        for length in 0..292 {
            assert_eq!(ControlFile::parse(&good[..length]), Err(ControlError::TooShort(length)));
        }
        assert!(ControlFile::parse(&good[..292]).is_ok());
        assert_eq!(ControlFile::parse(&[0; 8192]), Err(ControlError::UnknownVersion(0)));
    }

    #[test]
    fn a_fitting_checksum_does_not_excuse_nonsense() {
        for (offset, value) in [(16, 7_u32), (48, 0), (52, 0), (228, 3 << 20)] {
            let mut bytes = FILES[2].1.to_vec();
            bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..288]);
            bytes[288..292].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(ControlFile::parse(&bytes), Err(ControlError::Implausible(_))), "offset {offset}");
        }
    }
}
