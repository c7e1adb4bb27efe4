//! The markers of one server and one place: a folder in the spool, one small file for each.
//!
//! The folder's name tells place, cluster and data directory apart; so does each marker's seal. All of it may vanish at any moment.

use super::marker::{LONGEST, Marker, seconds};
use crate::archive::data_directory::DataDirectory;
use crate::error::{Error, Result};
use crate::pg::{SystemIdentifier, WalFileName};
use crate::spool::{self, Spool};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const FOLDER: &str = "ahead-";
/// The note that files go one by one.
const ALONE: &str = "alone";
/// For how long it keeps this server from working ahead.
const ALONE_FOR: Duration = Duration::from_secs(10 * 60);
/// The note of the files that are under way.
const SENDING: &str = "sending";
/// A file that is written to see whether the disk takes one more.
const TRIAL: &str = "trial";
/// After this long, markers of other places go: nobody will ask for them any more.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The folder.
#[derive(Debug, Clone)]
pub(in crate::archive) struct Markers {
    spool: PathBuf,
    folder: PathBuf,
    /// What they speak of: sealed into each.
    place: String,
}

impl Markers {
    /// The markers of this server at this place (`location`: endpoint, bucket and prefix). Fails where the spool takes no folder.
    pub(in crate::archive) fn open(
        spool: &Spool,
        directory: &DataDirectory,
        system: SystemIdentifier,
        location: &str,
    ) -> Result<Self> {
        let place = format!("{system} {location}");
        let tag = spool::tag([place.as_bytes(), directory.shown().as_bytes()]);
        let folder = spool.folder(&format!("{FOLDER}{tag}"))?;
        Ok(Self { spool: spool.directory().to_owned(), folder, place })
    }

    /// The marker of this file, if there is one that may be believed.
    pub(in crate::archive) fn read(&self, name: &WalFileName) -> Option<Marker> {
        self.read_at(&self.path(name)).filter(|marker| marker.name == *name)
    }

    fn read_at(&self, path: &Path) -> Option<Marker> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(LONGEST + 1).read_to_end(&mut bytes).ok()?;
        Marker::parse(&bytes, &self.place)
    }

    /// Writes a marker: not synced, and under its own name at once. One that is cut short is no marker.
    pub(super) fn write(&self, marker: &Marker) -> Result<()> {
        let path = self.path(&marker.name);
        fs::write(&path, marker.to_bytes(&self.place)).map_err(|cause| {
            remove(&path);
            Error::local("write", &path, cause)
        })
    }

    /// Removes a marker that was used, or that speaks of something else.
    pub(in crate::archive) fn remove(&self, name: &WalFileName) {
        remove(&self.path(name));
    }

    /// The files that have a marker, be it a good one or not.
    pub(super) fn names(&self) -> HashSet<WalFileName> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// All markers that may be believed.
    pub(super) fn all(&self) -> Vec<Marker> {
        self.names().iter().filter_map(|name| self.read(name)).collect()
    }

    /// Whether one more marker can be written: without one, what goes ahead would be sent twice.
    pub(super) fn have_room(&self) -> bool {
        let path = self.folder.join(TRIAL);
        let written = fs::write(&path, [b'-'; LONGEST as usize]);
        remove(&path);
        written.is_ok()
    }

    /// The line turned out too slow to share, or another server seems to write this timeline.
    pub(super) fn note_alone(&self, now: SystemTime) {
        // A note that cannot be written is a note lost.
        fs::write(self.folder.join(ALONE), seconds(now).to_string()).unwrap_or(());
    }

    /// Whether that was so within the last minutes: then files go one by one.
    pub(super) fn goes_alone(&self, now: SystemTime) -> bool {
        let note = fs::read_to_string(self.folder.join(ALONE)).ok().and_then(|text| text.parse::<u64>().ok());
        let age = note.and_then(|then| seconds(now).checked_sub(then));
        age.is_some_and(|age| age < ALONE_FOR.as_secs())
    }

    /// The files that a call may have sent whose end nobody knows.
    pub(super) fn sending(&self) -> HashSet<WalFileName> {
        let text = fs::read_to_string(self.folder.join(SENDING)).unwrap_or_default();
        text.split_whitespace().filter_map(|name| name.parse().ok()).collect()
    }

    /// Notes these as such files.
    pub(super) fn note_sending(&self, names: &HashSet<WalFileName>) -> Result<()> {
        let path = self.folder.join(SENDING);
        if names.is_empty() {
            remove(&path);
            return Ok(());
        }
        let text: Vec<String> = names.iter().map(ToString::to_string).collect();
        fs::write(&path, text.join("\n")).map_err(|cause| Error::local("write", &path, cause))
    }

    /// Removes what nobody will ask for: of `known`, the files that do not wait any more (`waiting`), the markers that are old or
    /// none, and folders of other places that were not touched for a week.
    pub(super) fn tidy(&self, known: &HashSet<WalFileName>, waiting: &HashSet<WalFileName>, now: SystemTime) {
        for name in known {
            let good = || self.read(name).is_some_and(|marker| !marker.is_old(now) && !marker.is_from_the_future(now));
            if !waiting.contains(name) || !good() {
                self.remove(name);
            }
        }
        for entry in fs::read_dir(&self.spool).into_iter().flatten().flatten() {
            let is_folder = entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER));
            let path = entry.path();
            if is_folder && path != self.folder && untouched_for(&path, now) >= FORGOTTEN {
                // What stays is no worse than what was never removed.
                fs::remove_dir_all(&path).unwrap_or(());
            }
        }
    }

    fn path(&self, name: &WalFileName) -> PathBuf {
        self.folder.join(name.to_string())
    }
}

fn remove(path: &Path) {
    // A marker that stays is judged by whoever reads it.
    fs::remove_file(path).unwrap_or(());
}

fn untouched_for(path: &Path, now: SystemTime) -> Duration {
    let modified = path.symlink_metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|then| now.duration_since(then).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::marker::tests::marker;
    use super::*;
    use std::time::UNIX_EPOCH;

    struct Place {
        above: tempfile::TempDir,
        spool: Spool,
    }

    fn place() -> Place {
        let above = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(above.path().join(name)).unwrap();
        }
        let spool = Spool::find(Some(&above.path().join("spool")), None).unwrap().unwrap();
        Place { above, spool }
    }

    impl Place {
        fn markers(&self, data: &str, system: u64, location: &str) -> Markers {
            let directory = DataDirectory::at(&self.above.path().join(data));
            Markers::open(&self.spool, &directory, SystemIdentifier(system), location).unwrap()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn written_read_and_removed() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        let (one, two) = (marker(1, 1000), marker(2, 1001));
        assert_eq!(markers.read(&one.name), None);
        markers.write(&one).unwrap();
        markers.write(&two).unwrap();
        assert_eq!(markers.read(&one.name).as_ref(), Some(&one));
        assert_eq!(markers.all().len(), 2);
        // Under another file's name it says nothing.
        fs::copy(markers.path(&one.name), markers.path(&two.name)).unwrap();
        assert_eq!(markers.read(&two.name), None);
        markers.remove(&one.name);
        markers.remove(&one.name);
        assert_eq!(markers.all(), []);
        assert!(markers.have_room());
        assert_eq!(markers.names(), HashSet::from([two.name]));
    }

    #[test]
    fn another_place_cluster_or_data_directory_has_its_own() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        let one = marker(1, 1000);
        markers.write(&one).unwrap();
        for other in [("b", 7, "s3://x"), ("a", 8, "s3://x"), ("a", 7, "s3://y")] {
            let other = place.markers(other.0, other.1, other.2);
            assert_eq!(other.read(&one.name), None);
            // Not even when somebody copies the file.
            fs::copy(markers.path(&one.name), other.path(&one.name)).unwrap();
            assert_eq!(other.read(&one.name).is_some(), other.place == markers.place);
        }
        assert_eq!(place.markers("a", 7, "s3://x").read(&one.name), Some(one));
    }

    #[test]
    fn what_nobody_will_ask_for_is_removed() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        let other = place.markers("a", 7, "s3://y");
        let (waits, gone, old) = (marker(1, 1_000_000), marker(2, 1_000_000), marker(3, 1));
        for marker in [&waits, &gone, &old] {
            markers.write(marker).unwrap();
        }
        other.write(&waits).unwrap();
        let torn = marker(4, 1_000_000).name;
        fs::write(markers.path(&torn), b"{").unwrap();
        let waiting = HashSet::from([waits.name, old.name, torn]);
        markers.tidy(&markers.names(), &waiting, at(1_000_001));
        assert_eq!(markers.names(), HashSet::from([waits.name]));
        assert!(other.folder.exists(), "touched lately");
        markers.tidy(&markers.names(), &waiting, SystemTime::now() + FORGOTTEN + Duration::from_secs(60));
        assert!(!other.folder.exists());
        assert!(markers.folder.exists());
    }

    #[test]
    fn what_keeps_a_server_from_working_ahead_is_remembered_for_ten_minutes() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        assert!(!markers.goes_alone(at(1000)));
        markers.note_alone(at(1000));
        for (now, alone) in [(1000, true), (1599, true), (1600, false), (999, false)] {
            assert_eq!(markers.goes_alone(at(now)), alone, "{now}");
        }
        assert_eq!(markers.names(), HashSet::new());
    }

    #[test]
    fn what_is_under_way_is_noted_until_it_has_ended() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        assert!(markers.sending().is_empty());
        let names = HashSet::from([1, 2].map(|number| marker(number, 1).name));
        markers.note_sending(&names).unwrap();
        assert_eq!((markers.sending(), markers.names()), (names, HashSet::new()));
        markers.note_sending(&HashSet::new()).unwrap();
        assert!(markers.sending().is_empty());
    }

    #[test]
    fn a_folder_that_vanished_is_no_trouble() {
        let place = place();
        let markers = place.markers("a", 7, "s3://x");
        fs::remove_dir_all(&markers.folder).unwrap();
        assert!(markers.write(&marker(1, 1)).is_err());
        assert!(!markers.have_room());
        assert_eq!((markers.all(), markers.names()), (Vec::new(), HashSet::new()));
        markers.tidy(&HashSet::new(), &HashSet::new(), at(1));
        assert!(place.markers("a", 7, "s3://x").have_room());
    }
}
