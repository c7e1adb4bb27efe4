//! What the object of a WAL file must say about itself.

use crate::codec::{Kind, Subject};
use crate::pg::{Lsn, SegmentSize, SystemIdentifier, WalFileName};

/// The subject of the object that holds this file of this cluster. `None` if no file of this segment size has this name.
pub(super) fn subject_of(name: &WalFileName, system: SystemIdentifier, size: SegmentSize) -> Option<Subject> {
    let start = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment.start(size)?,
        WalFileName::History(_) => Lsn::INVALID,
        WalFileName::BackupHistory { segment, offset } => {
            Lsn(segment.start(size)?.0.checked_add(u64::from(*offset))?)
        }
    };
    Some(Subject { kind: Kind::Wal, system_identifier: system, timeline: name.timeline().get(), start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_file() {
        let start = |text: &str, mib: u64| {
            let size = SegmentSize::new(mib << 20).unwrap();
            subject_of(&text.parse().unwrap(), SystemIdentifier(7), size).map(|s| (s.timeline, s.start.0))
        };
        assert_eq!(start("0000000100000002000000A3", 16), Some((1, 0x2_A300_0000)));
        assert_eq!(start("0000000300000002000000A3.partial", 16), Some((3, 0x2_A300_0000)));
        assert_eq!(start("0000000100000002000000A3.00000028.backup", 16), Some((1, 0x2_A300_0028)));
        assert_eq!(start("00000002.history", 16), Some((2, 0)));
        assert_eq!(start("0000000100000002000000A3", 1), Some((1, 0x2_0A30_0000)));
        assert_eq!(start("0000000100000002000000A3", 1024), None);
    }
}
