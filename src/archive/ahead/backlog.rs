//! The backlog: the `.ready` files in `pg_wal/archive_status`, which is read and never written.
//!
//! Postgres asks for histories first, then for everything else in the order of its name (`pgarch.c`). One reading of the
//! directory finds the next few of however many there are; nothing is asked about a single file.

use crate::error::{Error, Result};
use crate::pg::{TimelineId, WalFileName};
use std::collections::{BinaryHeap, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const READY: &[u8] = b".ready";

/// What waits to be archived.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    /// The files that Postgres will ask for next, in its order, and of which nothing is known; no histories.
    pub(super) next: Vec<WalFileName>,
    /// The lowest timeline whose history waits.
    pub(super) history: Option<TimelineId>,
    /// Those of the files asked about that still wait.
    pub(super) waiting: HashSet<WalFileName>,
}

/// Where Postgres keeps the state of each file.
pub(super) fn archive_status(data_directory: &Path) -> PathBuf {
    data_directory.join("pg_wal/archive_status")
}

/// Whether this file still waits.
pub(super) fn waits(data_directory: &Path, name: &WalFileName) -> bool {
    archive_status(data_directory).join(format!("{name}.ready")).exists()
}

/// Reads the backlog: the first `limit` files but for `own` and those that have a marker (`marked`), which are looked for too.
pub(super) fn read(
    data_directory: &Path,
    own: &WalFileName,
    marked: &HashSet<WalFileName>,
    limit: usize,
) -> Result<Backlog> {
    let directory = archive_status(data_directory);
    let unreadable = |cause| Error::local("read the directory", &directory, cause);
    let mut backlog = Backlog::default();
    // The largest of the smallest is on top.
    let mut smallest: BinaryHeap<Vec<u8>> = BinaryHeap::with_capacity(limit + 1);
    for entry in fs::read_dir(&directory).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name();
        let Some(name) = file.as_bytes().strip_suffix(READY) else { continue };
        let too_late = smallest.len() >= limit && smallest.peek().is_none_or(|largest| name >= largest.as_slice());
        let is_history = name.ends_with(b".history");
        if too_late && !is_history && marked.is_empty() {
            continue;
        }
        let Some(parsed) = parse(name) else { continue };
        if let WalFileName::History(timeline) = parsed {
            backlog.history = Some(backlog.history.map_or(timeline, |lowest| lowest.min(timeline)));
        } else if marked.contains(&parsed) {
            backlog.waiting.insert(parsed);
        } else if !too_late && parsed != *own {
            smallest.push(name.to_vec());
            if smallest.len() > limit {
                smallest.pop();
            }
        }
    }
    backlog.next = smallest.into_sorted_vec().iter().filter_map(|name| parse(name)).collect();
    Ok(backlog)
}

/// Of the files that wait, those that may be stored before their turn.
///
/// A file of a later timeline may only once Postgres has marked its history as archived: `.done` is what remains when `.ready`
/// goes, so a directory that changes while it is read cannot hide a history. And nothing of a timeline whose history waits, or
/// of a later one.
pub(super) fn allowed(data_directory: &Path, backlog: &Backlog) -> Vec<WalFileName> {
    let directory = archive_status(data_directory);
    let mut known: Option<(TimelineId, bool)> = None;
    let mut is_allowed = |timeline: TimelineId| match known {
        Some((last, answer)) if last == timeline => answer,
        _ => {
            let history = WalFileName::History(timeline);
            let archived = timeline == TimelineId::FIRST || directory.join(format!("{history}.done")).exists();
            let answer = archived && backlog.history.is_none_or(|waiting| timeline < waiting);
            known = Some((timeline, answer));
            answer
        }
    };
    // What comes after a timeline that may not is of that one or a later one.
    backlog.next.iter().copied().take_while(|name| is_allowed(name.timeline())).collect()
}

fn parse(name: &[u8]) -> Option<WalFileName> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wal(text: &str) -> WalFileName {
        text.parse().unwrap()
    }

    fn data(names: &[&str]) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(archive_status(data.path())).unwrap();
        for name in names {
            fs::write(archive_status(data.path()).join(name), "").unwrap();
        }
        data
    }

    fn texts(names: &[WalFileName]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    const OWN: &str = "000000010000000000000001";

    #[test]
    fn the_next_few_in_the_order_of_postgres() {
        let data = data(&[
            "000000010000000000000005.ready",
            "000000010000000000000003.ready",
            "000000010000000000000003.00000028.backup.ready",
            "000000010000000000000001.ready",
            "000000010000000000000002.done",
            "000000010000000000000004.ready",
            "000000010000000000000006.partial.ready",
            "00000003.history.ready",
            "00000002.history.ready",
            "junk.ready",
            "00000001000000000000000a.ready",
            ".ready",
        ]);
        let marked = HashSet::from([wal("000000010000000000000004"), wal("000000010000000000000009")]);
        let backlog = read(data.path(), &wal(OWN), &marked, 3).unwrap();
        let expected =
            ["000000010000000000000003", "000000010000000000000003.00000028.backup", "000000010000000000000005"];
        assert_eq!(texts(&backlog.next), expected);
        assert_eq!(backlog.history, TimelineId::new(2));
        assert_eq!(backlog.waiting, HashSet::from([wal("000000010000000000000004")]));
        assert_eq!(read(data.path(), &wal(OWN), &HashSet::new(), 0).unwrap().next, []);
        assert!(read(&data.path().join("nowhere"), &wal(OWN), &HashSet::new(), 3).is_err());
    }

    #[test]
    fn history_first() {
        let first = "000000010000000000000003.ready";
        let (second, third) = ("000000020000000000000003.ready", "000000030000000000000004.ready");
        let allowed_of = |more: &[&str]| {
            let data = data(&[&[first, second, third], more].concat());
            let backlog = read(data.path(), &wal(OWN), &HashSet::new(), 8).unwrap();
            allowed(data.path(), &backlog).len()
        };
        let all = ["00000002.history.done", "00000003.history.done"];
        assert_eq!(allowed_of(&all), 3);
        assert_eq!(allowed_of(&[]), 1, "nobody knows of the histories");
        assert_eq!(allowed_of(&["00000003.history.done"]), 1, "nothing goes before what may not go");
        assert_eq!(allowed_of(&["00000002.history.done", "00000003.history.ready"]), 2);
        assert_eq!(allowed_of(&["00000002.history.ready", "00000003.history.done"]), 1);
        assert_eq!(allowed_of(&["00000002.history.done", "00000003.history.done", "00000002.history.ready"]), 1);
        assert_eq!(allowed_of(&["00000002.history.ready"]), 1, "what is older goes on");
        assert_eq!(allowed_of(&[&all[..], &["00000004.history.ready"]].concat()), 3);
    }

    proptest! {
        #[test]
        fn always_the_smallest(numbers in prop::collection::btree_set(2_u32..0xff, 0..60), limit in 0_usize..20) {
            let names: Vec<String> = numbers.iter().map(|n| format!("0000000100000000000000{n:02X}.ready")).collect();
            let data = data(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let found = read(data.path(), &wal(OWN), &HashSet::new(), limit).unwrap();
            let expected: Vec<String> = names.iter().take(limit).map(|name| name[..24].to_owned()).collect();
            prop_assert_eq!(texts(&found.next), expected);
        }
    }
}
