//! Where prefetched segments lie: a folder of the spool for each recovery.
//!
//! | name | what it is |
//! |---|---|
//! | `NAME.BINDING` | a segment, whole and verified; nothing else ever has such a name |
//! | `NAME.BINDING.coming` | a helper is fetching it at this moment |
//! | `position` | the segment that was delivered last |
//! | `history` | the newest timeline whose history was delivered |
//! | `helper` | locked by the helper while it lives |
//! | `.walhalla-…` | a note being written, or the folder of a segment being fetched |
//!
//! A segment's content is synced before it has its name, so that what could not be stored is never there; the names are not
//! synced. The folder's name is that of one startup process, of one boot: after a power loss, or in the next
//! recovery, nothing in it is believed. The binding holds what else a file depends on: repository, cluster, data directory,
//! segment size.

use crate::archive::startup::StartupProcess;
use crate::config::{Settings, StorageUrl};
use crate::durable;
use crate::error::Error;
use crate::pg::{SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use crate::spool::{self, Spool};
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const PREFIX: &str = "prefetch-";
const POSITION: &str = "position";
const HISTORY: &str = "history";
const LOCK: &str = "helper";
const COMING: &str = ".coming";

/// A folder of a process that cannot be seen from here (another host's, another container's) is left alone for this long.
const LONG_UNTOUCHED: Duration = Duration::from_secs(3600);
/// How many segments' worth of free space a prefetched one must leave at least. The volume may be the one of `pg_wal`.
const ROOM: u64 = 4;
/// And how many bytes; of a small volume a quarter.
const RESERVE: u64 = 1 << 30;
/// How often whoever fetches looks whether it is still to, and says that it comes on.
const TICK: Duration = Duration::from_millis(200);

/// What a prefetched file depends on, besides its recovery.
#[derive(Debug, Clone, Copy)]
pub(in crate::archive) struct Bound<'a> {
    pub(in crate::archive) settings: &'a Settings,
    pub(in crate::archive) system: SystemIdentifier,
    pub(in crate::archive) size: SegmentSize,
    /// Its real path.
    pub(in crate::archive) data_directory: &'a Path,
}

impl Bound<'_> {
    fn tag(&self) -> String {
        let s3 = &self.settings.s3;
        let source: [&[u8]; 4] = match &self.settings.storage {
            StorageUrl::File(root) => [b"file", root.as_os_str().as_encoded_bytes(), b"", b""],
            StorageUrl::S3 { bucket, prefix } => {
                let service = s3.endpoint.as_deref().unwrap_or(&s3.region);
                [b"s3", service.as_bytes(), bucket.as_bytes(), prefix.as_bytes()]
            }
        };
        let (system, size) = (self.system.0.to_le_bytes(), self.size.bytes().to_le_bytes());
        let own: [&[u8]; 3] = [&system, &size, self.data_directory.as_os_str().as_encoded_bytes()];
        spool::tag(source.into_iter().chain(own))
    }
}

/// Where replay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment that was delivered last.
    pub(super) name: SegmentName,
    /// How many of those behind it were found when a call last looked for them.
    pub(super) found: usize,
}

/// The folder of one recovery, and what is believed in it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    spool: Spool,
    folder: String,
    binding: String,
    size: SegmentSize,
}

impl Place {
    /// The place of this recovery; nothing is made yet. `None` where the system does not tell its boots apart.
    pub(super) fn of(spool: Spool, startup: &StartupProcess, bound: &Bound<'_>) -> Option<Self> {
        let folder = format!("{PREFIX}{}-{}-{}", Here::look()?, startup.pid(), startup.started());
        Some(Self { spool, folder, binding: bound.tag(), size: bound.size })
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.spool.directory().join(&self.folder)
    }

    /// Makes the folder. `false`: there is none to be had.
    pub(super) fn make(&self) -> bool {
        self.spool.folder(&self.folder).is_ok()
    }

    /// Where this segment lies, or would.
    pub(super) fn path(&self, name: SegmentName) -> PathBuf {
        self.directory().join(format!("{name}.{}", self.binding))
    }

    pub(super) fn holds(&self, name: SegmentName) -> bool {
        self.path(name).symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == self.size.bytes())
    }

    /// Gives the segment its place in `pg_wal`, if it is here. It is not here any more then: Postgres recycles the file in place.
    pub(super) fn take(&self, name: SegmentName, destination: &Path) -> bool {
        self.holds(name) && durable::hand_over(&self.path(name), destination, 0o600).is_ok()
    }

    /// The same, only where it takes no copy.
    pub(super) fn take_at_once(&self, name: SegmentName, destination: &Path) -> bool {
        self.holds(name) && durable::move_within(&self.path(name), destination).is_ok_and(|moved| moved)
    }

    /// What the last call said. `None` also where it had other settings.
    pub(super) fn position(&self) -> Option<Position> {
        let path = self.directory().join(POSITION);
        // It is written in place: a reader may meet half of it, but not three times.
        let sealed = (0..3).find_map(|_| Some(unsealed(&std::fs::read_to_string(&path).ok()?)?.to_owned()))?;
        let mut words = sealed.split(' ');
        let (name, found, binding) = (words.next()?, words.next()?, words.next()?);
        let position = Position { name: name.parse().ok()?, found: found.parse().ok()? };
        (binding == self.binding).then_some(position)
    }

    /// Tells those who fetch ahead where replay is: in place, because each call does so. `false`: it cannot be written.
    pub(super) fn tell(&self, position: &Position) -> bool {
        let Position { name, found } = position;
        let text = sealed(&format!("{name} {found:03} {}", self.binding));
        let path = self.directory().join(POSITION);
        let overwritten = File::options().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        overwritten.is_ok() || (self.make() && durable::write_unsynced(&path, text.as_bytes(), 0o600).is_ok())
    }

    /// The newest timeline of which a history was delivered in this recovery: the one it follows, as far as can be known.
    pub(super) fn newest_history(&self) -> Option<TimelineId> {
        TimelineId::from_hex(&std::fs::read_to_string(self.directory().join(HISTORY)).ok()?).ok()
    }

    pub(super) fn tell_history(&self, timeline: TimelineId) {
        if self.newest_history().is_none_or(|newest| newest < timeline) && self.make() {
            self.note(HISTORY, &format!("{:08X}", timeline.get()));
        }
    }

    /// What cannot be written is not known to the next: it fetches one file more, or one less.
    fn note(&self, name: &str, text: &str) {
        drop(durable::write_unsynced(&self.directory().join(name), text.as_bytes(), 0o600));
    }

    /// For how long the helper that said so has got nowhere with it. `None`: nothing is coming. Its clock may be another one: what
    /// it did in the future, it did at `begun`.
    pub(super) fn silence(&self, name: SegmentName, begun: Instant) -> Option<Duration> {
        let moved = self.coming(name).symlink_metadata().and_then(|found| found.modified()).ok()?;
        Some(SystemTime::now().duration_since(moved).unwrap_or_else(|_| begun.elapsed()))
    }

    /// Tells the helper that nobody waits for it any more.
    pub(super) fn give_up(&self, name: SegmentName) {
        remove(&self.coming(name));
    }

    /// Says that the segment is being fetched, as long as the answer lives.
    pub(super) fn announce(&self, name: SegmentName) -> Announced {
        let path = self.coming(name);
        // Unannounced, it is not fetched.
        drop(File::create(&path).and_then(|file| file.set_modified(SystemTime::now())));
        Announced(path)
    }

    /// Removes what a helper announced that was killed. For whoever has the lock, before anything else: with a living helper a
    /// call would wait for it.
    pub(super) fn remove_announced(&self) {
        let Ok(entries) = self.directory().read_dir() else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(COMING)) {
            remove(&entry.path());
        }
    }

    /// A folder for one file that is to get its name here. It is gone when dropped.
    pub(super) fn temporary_folder(&self) -> Result<tempfile::TempDir, Error> {
        let made = tempfile::Builder::new().prefix(durable::TEMPORARY_PREFIX).tempdir_in(self.directory());
        made.map_err(|error| Error::local("create a folder in", &self.directory(), error))
    }

    /// Whether a living helper is fetching it.
    pub(super) fn is_coming(&self, name: SegmentName) -> bool {
        self.coming(name).symlink_metadata().is_ok() && self.has_helper()
    }

    fn coming(&self, name: SegmentName) -> PathBuf {
        let mut path = self.path(name).into_os_string();
        path.push(COMING);
        path.into()
    }

    pub(super) fn has_helper(&self) -> bool {
        let lock = File::open(self.directory().join(LOCK));
        lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The lock of the only helper of this recovery. `None` where another has it.
    pub(super) fn lock(&self) -> Option<File> {
        let path = self.directory().join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path).ok()?;
        file.try_lock().ok()?;
        // The folder may have been removed, and made anew, in between.
        let (ours, there) = (file.metadata().ok()?, path.symlink_metadata().ok()?);
        ((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(file)
    }

    /// Whether one more segment leaves room enough for others, while `coming` more are on their way.
    pub(super) fn has_room(&self, coming: usize) -> bool {
        let Ok(volume) = rustix::fs::statvfs(self.directory()) else { return false };
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        let on_their_way = (coming as u64).saturating_add(1).saturating_mul(self.size.bytes());
        bytes(volume.f_bavail) >= reserve(bytes(volume.f_blocks), self.size).saturating_add(on_their_way)
    }

    /// Removes every segment but these, and whatever a fetch that was killed left behind. For whoever fetches here alone.
    pub(super) fn keep_only(&self, names: &[SegmentName], running: bool) {
        let Ok(entries) = self.directory().read_dir() else { return };
        let kept: Vec<_> = names.iter().map(|name| format!("{name}.{}", self.binding)).collect();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_file_in_work = name.starts_with(durable::TEMPORARY_PREFIX) || name.ends_with(COMING);
            let stays = matches!(&*name, POSITION | HISTORY | LOCK)
                || kept.iter().any(|kept| *kept == name)
                || (running && is_file_in_work);
            if stays {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => remove_folder(&entry.path()),
                _ => remove(&entry.path()),
            }
        }
    }

    /// Removes all of it: this recovery needs no more.
    pub(super) fn remove(&self) {
        // Once more where a thread that wrote was just finishing.
        for _ in 0..3 {
            remove_folder(&self.directory());
            if !self.directory().exists() {
                return;
            }
        }
    }

    /// Removes the folders of recoveries that have ended.
    pub(super) fn sweep(&self) {
        let (Some(here), Ok(entries)) = (Here::look(), self.spool.directory().read_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && **name != self.folder) else {
                continue;
            };
            if here.is_over(name).unwrap_or_else(|| is_long_untouched(&entry.path())) {
                remove_folder(&entry.path());
            }
        }
    }
}

/// A text that tells whether it was read whole.
fn sealed(text: &str) -> String {
    format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
}

fn unsealed(text: &str) -> Option<&str> {
    let (unsealed, _) = text.rsplit_once(' ')?;
    (sealed(unsealed) == text).then_some(unsealed)
}

/// A segment said to be coming, until this is dropped.
#[derive(Debug)]
pub(super) struct Announced(PathBuf);

impl Announced {
    /// Ends when the announcement is gone: a call has given up waiting, and fetches the file itself. Until then its time of
    /// modification is that of the last progress, as `moves` tells it.
    pub(super) async fn withdrawn(&self, moves: impl Fn() -> Instant) {
        let mut last = moves();
        loop {
            tokio::time::sleep(TICK).await;
            let now = moves();
            let there = if now > last { self.touch() } else { self.0.symlink_metadata().map(drop) };
            last = now;
            if there.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                return;
            }
        }
    }

    fn touch(&self) -> std::io::Result<()> {
        File::options().write(true).open(&self.0)?.set_modified(SystemTime::now())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// This boot, and the process numbers that are seen from here.
#[derive(Debug, PartialEq, Eq)]
struct Here {
    boot: String,
    pids: String,
}

impl std::fmt::Display for Here {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.boot, self.pids)
    }
}

impl Here {
    fn look() -> Option<Self> {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let pids = namespace.to_str()?.chars().filter(char::is_ascii_digit).collect();
        Some(Self { boot: spool::tag([boot.trim_ascii()]), pids })
    }

    /// Whether the startup process of this folder is gone. `None`: it cannot be seen from here.
    fn is_over(&self, folder: &str) -> Option<bool> {
        let process = folder.strip_prefix(PREFIX)?.strip_prefix(&format!("{self}-"))?.replace('-', " ");
        Some(!process.parse::<StartupProcess>().ok()?.is_alive())
    }
}

/// What must stay free, in bytes, of a volume with `total` bytes.
fn reserve(total: u64, size: SegmentSize) -> u64 {
    RESERVE.min(total / 4).max(size.bytes().saturating_mul(ROOM))
}

fn is_long_untouched(folder: &Path) -> bool {
    let touched = folder.symlink_metadata().and_then(|found| found.modified());
    touched.is_ok_and(|touched| SystemTime::now().duration_since(touched).is_ok_and(|age| age > LONG_UNTOUCHED))
}

/// What stays is found by the next sweep.
fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap_or(());
}

fn remove_folder(path: &Path) {
    std::fs::remove_dir_all(path).unwrap_or(());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn settings(storage: &str, endpoint: &str) -> Settings {
        let look = |name: &str| match name {
            "WALHALLA_STORAGE" => Some(storage.into()),
            "WALHALLA_S3_ENDPOINT" => Some(endpoint.into()),
            _ => None,
        };
        crate::config::load(Some(Path::new("/dev/null")), &look).unwrap()
    }

    fn us() -> StartupProcess {
        StartupProcess::above_us(std::os::unix::process::parent_id()).unwrap()
    }

    fn bound(settings: &Settings) -> Bound<'_> {
        Bound {
            settings,
            system: SystemIdentifier(7),
            size: SegmentSize::new(SIZE).unwrap(),
            data_directory: Path::new("/data"),
        }
    }

    fn place() -> (tempfile::TempDir, Place) {
        let home = tempfile::tempdir().unwrap();
        let spool = Spool::find(Some(&home.path().join("spool")), None).unwrap().unwrap();
        let place = Place::of(spool, &us(), &bound(&settings("s3://bucket/p", "http://host"))).unwrap();
        assert!(place.make());
        (home, place)
    }

    fn name(number: u64) -> SegmentName {
        SegmentName::at(TimelineId::FIRST, crate::pg::Lsn(number * SIZE), SegmentSize::new(SIZE).unwrap())
    }

    #[test]
    fn bound_to_everything_a_file_depends_on() {
        let (one, two) = (settings("s3://bucket/p", "http://host"), settings("s3://bucket/q", "http://host"));
        let (three, four) = (settings("s3://bucket/p", "http://guest"), settings("file:///bucket/p", "http://host"));
        let tags = [
            bound(&one).tag(),
            bound(&two).tag(),
            bound(&three).tag(),
            bound(&four).tag(),
            Bound { system: SystemIdentifier(8), ..bound(&one) }.tag(),
            Bound { size: SegmentSize::DEFAULT, ..bound(&one) }.tag(),
            Bound { data_directory: Path::new("/date"), ..bound(&one) }.tag(),
        ];
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(tag), "{at}");
        }
        assert_eq!(tags[0], bound(&settings("s3://bucket/p", "http://host")).tag());
    }

    #[test]
    fn a_file_is_taken_once_and_only_whole() {
        let (home, place) = place();
        let to = home.path().join("RECOVERYXLOG");
        assert!(!place.take(name(1), &to));
        std::fs::write(place.path(name(1)), vec![1; SIZE as usize - 1]).unwrap();
        assert!(!place.take(name(1), &to), "too short");
        std::fs::write(place.path(name(1)), vec![1; SIZE as usize]).unwrap();
        assert!(!place.take(name(2), &to));
        assert!(place.take(name(1), &to) && !place.take(name(1), &to));
        assert_eq!(std::fs::read(&to).unwrap(), vec![1; SIZE as usize]);
        // A link is not followed.
        std::os::unix::fs::symlink(&to, place.path(name(3))).unwrap();
        assert!(!place.take(name(3), &home.path().join("other")));
    }

    #[test]
    fn positions_and_histories() {
        let (_home, place) = place();
        assert_eq!(place.position(), None);
        for (at, found) in [(3, 5), (4, 0), (5, 64)] {
            let position = Position { name: name(at), found };
            assert!(place.tell(&position));
            assert_eq!(place.position(), Some(position), "the same length each time");
        }
        let file = place.directory().join(POSITION);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("05 064", "06 064")).unwrap();
        assert_eq!(place.position(), None, "half of one and half of another");
        std::fs::write(&file, text).unwrap();
        let other = Place { binding: "x".into(), ..place.clone() };
        assert_eq!(other.position(), None);
        assert_eq!(place.newest_history(), None);
        for (told, newest) in [(2, 2), (4, 4), (3, 4)] {
            place.tell_history(TimelineId::new(told).unwrap());
            assert_eq!(place.newest_history(), TimelineId::new(newest));
        }
    }

    #[test]
    fn one_helper_and_what_it_announces() {
        let (_home, place) = place();
        assert!(!place.has_helper());
        let announced = place.announce(name(1));
        assert!(!place.is_coming(name(1)), "nobody lives who would fetch it");
        let lock = place.lock().unwrap();
        assert!(place.lock().is_none() && place.has_helper() && place.is_coming(name(1)) && !place.is_coming(name(2)));
        drop(announced);
        assert!(!place.is_coming(name(1)));
        drop(lock);
        assert!(!place.has_helper() && place.lock().is_some());
    }

    #[test]
    fn what_a_killed_helper_announced_is_removed() {
        let (_home, place) = place();
        std::mem::forget(place.announce(name(1)));
        std::fs::write(place.path(name(2)), "x").unwrap();
        let _lock = place.lock().unwrap();
        assert!(place.is_coming(name(1)));
        place.remove_announced();
        assert!(!place.is_coming(name(1)) && place.path(name(2)).exists());
    }

    #[tokio::test]
    async fn an_announcement_tells_of_progress_and_may_be_withdrawn() {
        let (_home, place) = place();
        let announced = place.announce(name(1));
        let path = place.coming(name(1));
        let touched = || path.symlink_metadata().unwrap().modified().unwrap();
        assert!(touched().elapsed().unwrap() < Duration::from_secs(60));
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let age = || File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        // Nothing moves.
        age();
        let still = Instant::now();
        tokio::time::timeout(TICK * 4, announced.withdrawn(|| still)).await.unwrap_err();
        assert_eq!(touched(), long_ago);
        // Something does.
        let on = async {
            while touched() == long_ago {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = announced.withdrawn(Instant::now) => panic!("it is there"),
            ended = tokio::time::timeout(Duration::from_secs(30), on) => ended.unwrap(),
        }
        std::fs::remove_file(&path).unwrap();
        for moves in [&(|| still) as &dyn Fn() -> Instant, &Instant::now] {
            tokio::time::timeout(Duration::from_secs(30), announced.withdrawn(moves)).await.unwrap();
        }
        assert!(!path.exists(), "it is not made anew");
    }

    #[test]
    fn what_stays_free() {
        let size = |mib: u64| SegmentSize::new(mib << 20).unwrap();
        for (total, mib, expected) in [
            (100 << 30, 1, 1 << 30),
            (4 << 30, 16, 1 << 30),
            (1 << 30, 16, 256 << 20),
            (128 << 20, 16, 64 << 20),
            (100 << 30, 1024, 4 << 30),
            (0, 1, 4 << 20),
        ] {
            assert_eq!(reserve(total, size(mib)), expected, "{total} {mib}");
        }
    }

    #[test]
    fn what_nobody_needs_is_removed() {
        let (_home, place) = place();
        let write = |file: &str| std::fs::write(place.directory().join(file), "x").unwrap();
        assert!(place.tell(&Position { name: name(1), found: 0 }));
        std::fs::write(place.path(name(2)), "x").unwrap();
        std::fs::write(place.path(name(3)), "x").unwrap();
        write(".walhalla-1");
        let folder = place.temporary_folder().unwrap().keep();
        let folder = folder.file_name().unwrap().to_str().unwrap();
        write(&format!("{folder}/segment"));
        write(&format!("{}.other", name(2)));
        let files = || {
            let mut names: Vec<_> = place
                .directory()
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let second = place.path(name(2)).file_name().unwrap().to_str().unwrap().to_owned();
        place.keep_only(&[name(2)], true);
        let mut expected = [".walhalla-1", folder, &second, "position"];
        expected.sort_unstable();
        assert_eq!(files(), expected);
        place.keep_only(&[name(2)], false);
        assert_eq!(files(), [&second, "position"]);
        place.remove();
        assert!(!place.directory().exists());
    }

    #[test]
    fn recoveries_that_have_ended_are_swept_and_others_left_alone() {
        let (home, place) = place();
        let here = Here::look().unwrap();
        let spool = home.path().join("spool");
        let (pid, started) = (us().pid(), us().started());
        let alive = format!("prefetch-{here}-{pid}-{started}");
        let over = format!("prefetch-{here}-{pid}-{}", started + 1);
        let (elsewhere, old) = ("prefetch-0-1-2-3".to_owned(), "prefetch-0-1-2-4".to_owned());
        for folder in [&over, &elsewhere, &old, &"ahead-1".to_owned()] {
            std::fs::create_dir(spool.join(folder)).unwrap();
        }
        let long_ago = SystemTime::now() - LONG_UNTOUCHED * 2;
        File::open(spool.join(&old)).unwrap().set_modified(long_ago).unwrap();
        let other = Place { folder: "prefetch-0-0-0-0".into(), ..place };
        other.sweep();
        let left = |folder: &str| spool.join(folder).exists();
        assert!(left(&alive) && left(&elsewhere) && left("ahead-1") && !left(&over) && !left(&old));
    }
}
