//! What one call of `walhalla-restore` tells the next, through notes in the spool. Every note may be lost: then a call is more
//! patient than it need be, or less alarmed.

use super::startup::StartupProcess;
use crate::pg::WalFileName;
use crate::spool::{self, Spool};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For how long after a failure a standby's calls are short.
const LATELY: Duration = Duration::from_secs(60);
/// After this long, and then each time as long, the absence of one name on a standby is proven in full.
const LONG_ABSENT: Duration = Duration::from_secs(300);

/// The notes of one data directory.
#[derive(Debug, Clone)]
pub struct Notes {
    spool: Option<Spool>,
    /// What keeps the notes of several servers apart in one spool.
    server: String,
}

impl Notes {
    /// The notes of the server in this data directory; without a spool nothing is noted.
    pub fn new(spool: Option<Spool>, data_directory: &Path) -> Self {
        let place = std::path::absolute(data_directory).unwrap_or_else(|_| data_directory.to_owned());
        let place = place.canonicalize().unwrap_or(place);
        let server = spool::tag([place.as_os_str().as_encoded_bytes()]);
        Self { spool, server }
    }

    /// The storage was out of reach until now.
    pub fn trouble(&self, now: SystemTime) {
        self.write("trouble", &seconds(now).to_string());
    }

    /// Whether it was within the last minute.
    pub fn in_trouble_lately(&self, now: SystemTime) -> bool {
        self.read("trouble").and_then(|text| text.parse().ok()).is_some_and(|then| within(then, now, LATELY))
    }

    /// A call of this startup process saw a promotion ordered, and the archive in trouble.
    pub fn promotion_in_trouble(&self, startup: &StartupProcess) {
        self.write("promotion", &startup.to_string());
    }

    /// Whether one did.
    pub fn is_promotion_in_trouble(&self, startup: &StartupProcess) -> bool {
        self.read("promotion").is_some_and(|text| text == startup.to_string())
    }

    /// The storage answered: what was noted of its trouble is over.
    pub fn reached(&self) {
        if let Some(spool) = &self.spool {
            spool.remove(&self.name("trouble"));
        }
    }

    /// The promotion that was noted has met no trouble after all.
    pub fn promotion_without_trouble(&self) {
        if let Some(spool) = &self.spool {
            spool.remove(&self.name("promotion"));
        }
    }

    /// The storage says that this file is not there. Whether it has said so for so long that a full proof is due: at the first
    /// time five minutes after it began, then every five minutes.
    pub fn absent(&self, name: &WalFileName, now: SystemTime) -> bool {
        let note = absence_note(name);
        let known =
            self.read(note).and_then(|text| Absent::parse(&text)).filter(|absent| absent.name == name.to_string());
        let next = seconds(now) + LONG_ABSENT.as_secs();
        match known {
            // A clock that was set back would silence the note for as long.
            Some(absent) if absent.next_proof <= next => {
                let due = absent.next_proof <= seconds(now);
                if due {
                    self.write(note, &Absent { name: absent.name, next_proof: next }.to_string());
                }
                due
            }
            _ => {
                self.write(note, &Absent { name: name.to_string(), next_proof: next }.to_string());
                false
            }
        }
    }

    fn name(&self, note: &str) -> String {
        format!("restore-{note}-{}", self.server)
    }

    fn read(&self, note: &str) -> Option<String> {
        String::from_utf8(self.spool.as_ref()?.read(&self.name(note))?).ok()
    }

    fn write(&self, note: &str, text: &str) {
        if let Some(spool) = &self.spool {
            // A note that cannot be written is a note lost.
            drop(spool.write(&self.name(note), text.as_bytes()));
        }
    }
}

/// A standby polls for the next segment and the next history in turn: each has its own note.
fn absence_note(name: &WalFileName) -> &'static str {
    match name {
        WalFileName::History(_) => "absent-history",
        _ => "absent-segment",
    }
}

struct Absent {
    name: String,
    next_proof: u64,
}

impl Absent {
    fn parse(text: &str) -> Option<Self> {
        let (name, next_proof) = text.split_once(' ')?;
        Some(Self { name: name.to_owned(), next_proof: next_proof.parse().ok()? })
    }
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.next_proof)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A moment in the future is no memory: the clock was set back.
fn within(then: u64, now: SystemTime, span: Duration) -> bool {
    seconds(now).checked_sub(then).is_some_and(|age| age < span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> (tempfile::TempDir, Notes) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::find(Some(&directory.path().join("spool")), None).unwrap();
        assert!(spool.is_some());
        let notes = Notes::new(spool, directory.path());
        (directory, notes)
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second)
    }

    #[test]
    fn trouble_is_remembered_for_a_minute_or_until_the_storage_answers() {
        let (_directory, notes) = notes();
        assert!(!notes.in_trouble_lately(at(0)));
        notes.trouble(at(0));
        assert!(notes.in_trouble_lately(at(0)) && notes.in_trouble_lately(at(59)));
        assert!(!notes.in_trouble_lately(at(60)));
        notes.trouble(at(100));
        assert!(!notes.in_trouble_lately(at(50)), "the clock was set back");
        assert!(notes.in_trouble_lately(at(110)));
        notes.reached();
        assert!(!notes.in_trouble_lately(at(110)));
    }

    #[test]
    fn a_promotion_is_known_by_its_startup_process() {
        let (_directory, notes) = notes();
        let startup = StartupProcess::above_us(std::os::unix::process::parent_id()).unwrap();
        assert!(!notes.is_promotion_in_trouble(&startup));
        notes.promotion_in_trouble(&startup);
        assert!(notes.is_promotion_in_trouble(&startup));
        let init = StartupProcess::above_us(0);
        assert!(init.is_none_or(|other| !notes.is_promotion_in_trouble(&other)));
        notes.reached();
        assert!(notes.is_promotion_in_trouble(&startup), "what came back may go again");
        notes.promotion_without_trouble();
        assert!(!notes.is_promotion_in_trouble(&startup));
    }

    #[test]
    fn a_name_absent_for_five_minutes_is_proven_each_five_minutes() {
        let (_directory, notes) = notes();
        let segment: WalFileName = "0000000100000000000000A3".parse().unwrap();
        let history: WalFileName = "00000002.history".parse().unwrap();
        let due: Vec<u64> = (0..=1000)
            .step_by(5)
            .filter(|second| {
                let due = notes.absent(&segment, at(*second));
                assert_eq!(notes.absent(&history, at(*second)), due);
                due
            })
            .collect();
        assert_eq!(due, [300, 600, 900]);
        let next: WalFileName = "0000000100000000000000A4".parse().unwrap();
        assert!(!notes.absent(&next, at(5000)), "another name begins anew");
        assert!(!notes.absent(&next, at(10)), "the clock was set back: it begins anew");
        assert!(notes.absent(&next, at(310)));
    }

    #[test]
    fn two_servers_do_not_share_notes_and_without_a_spool_nothing_is_noted() {
        let (directory, notes) = notes();
        notes.trouble(at(0));
        let other = Notes::new(notes.spool.clone(), &directory.path().join("other"));
        assert!(!other.in_trouble_lately(at(1)));
        let none = Notes::new(None, directory.path());
        none.trouble(at(0));
        assert!(!none.in_trouble_lately(at(1)));
    }
}
