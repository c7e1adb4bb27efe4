//! A file that is missing while later ones are there: whether the server has it itself, and what the operator can do.

use super::data_directory::DataDirectory;
use super::delivery::Wanted;
use crate::codec::{self, Identities};
use crate::pg::history::TimelineHistory;
use crate::pg::{SegmentChecker, SegmentName, TimelineId, WalFileName};
use crate::repo::Cluster;
use std::io::Read;

/// Whether `pg_wal` of this server holds a valid copy of the file: Postgres reads that when the archive has none.
///
/// Valid is a segment of full size whose every page fits its place to the last one (zero pages only behind a switch record),
/// and a history that can be read. A segment that was recycled, or written to in part, is not.
pub(super) fn is_in_pg_wal(directory: &DataDirectory, wanted: &Wanted) -> bool {
    let Ok(file) = std::fs::File::open(directory.wal(&wanted.name)) else { return false };
    match wanted.name {
        WalFileName::Segment(segment) => is_valid_segment(file, segment, wanted),
        WalFileName::History(timeline) => is_valid_history(file, timeline),
        WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => false,
    }
}

fn is_valid_segment(mut file: impl Read, segment: SegmentName, wanted: &Wanted) -> bool {
    let Ok(mut checker) = SegmentChecker::new(segment, wanted.segment_size, wanted.subject.system_identifier) else {
        return false;
    };
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return checker.finish().is_ok(),
            Ok(count) => {
                let Some(bytes) = buffer.get(..count) else { return false };
                if checker.feed(bytes).is_err() {
                    return false;
                }
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn is_valid_history(file: impl Read, timeline: TimelineId) -> bool {
    let mut bytes = Vec::new();
    let read = file.take(1 << 20).read_to_end(&mut bytes);
    read.is_ok() && TimelineHistory::parse(timeline, &bytes).is_ok_and(|history| !history.ancestors.is_empty())
}

/// What to do about a gap that stays.
pub(super) async fn cure(cluster: &Cluster, identities: &Identities, wanted: &Wanted) -> String {
    let name = &wanted.name;
    let WalFileName::History(timeline) = name else {
        return format!(
            "archive {name} again if any server still has it; to end recovery before it, losing all that follows, use: \
             walhalla restore --accept-gap {name}"
        );
    };
    match lines_in_a_later_history(cluster, identities, *timeline).await {
        Some((later, lines)) => format!(
            "its lines stand in {later}: put {lines:?} into pg_wal/{name} and archive it, in this cluster's data directory, \
             with: walhalla-archive pg_wal/{name}"
        ),
        None => format!("archive {name} again from the server that made it: walhalla-archive pg_wal/{name}"),
    }
}

/// The text of a timeline's lost history, out of the first later one that descends from it. Best effort: it is advice.
async fn lines_in_a_later_history(
    cluster: &Cluster,
    identities: &Identities,
    lost: TimelineId,
) -> Option<(WalFileName, String)> {
    for later in cluster.timelines().await.ok()?.into_iter().filter(|timeline| *timeline > lost) {
        let name = WalFileName::History(later);
        let Ok(object) = cluster.get(&cluster.layout().wal(&name)).await else { continue };
        let Ok((_, text)) = codec::plain_of(&object.body, identities) else { continue };
        if let Some(lines) = lines_before(lost, later, &text) {
            return Some((name, lines));
        }
    }
    None
}

/// The history of `lost` as the history of its descendant `later` begins: an ancestor's lines are repeated, then its own follows.
fn lines_before(lost: TimelineId, later: TimelineId, text: &[u8]) -> Option<String> {
    let history = TimelineHistory::parse(later, text).ok()?;
    if !history.contains(lost) || lost == later {
        return None;
    }
    let ancestors = history.ancestors.iter().filter(|ancestor| ancestor.timeline < lost);
    let lines: String = ancestors.map(|a| format!("{}\t{}\t{}\n", a.timeline, a.end, a.reason)).collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_history_stands_in_its_descendants() {
        let timeline = |number| TimelineId::new(number).unwrap();
        let text = b"1\t0/5000000\tno recovery target specified\n\n2\t0/7000028\tbefore 2026-01-01\n\n";
        let lines = lines_before(timeline(2), timeline(3), text);
        assert_eq!(lines.as_deref(), Some("1\t0/5000000\tno recovery target specified\n"));
        let lines = lines_before(timeline(2), timeline(4), b"1\t0/5000000\tx\n3\t0/7000028\ty\n");
        assert_eq!(lines, None, "timeline 4 does not descend from 2");
        assert_eq!(lines_before(timeline(3), timeline(3), text), None);
    }
}
