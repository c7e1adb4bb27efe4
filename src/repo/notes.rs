//! What was learnt of a storage, remembered in the spool for a week, so that the steady state costs no request.
//!
//! A note is JSON: when it was written, of what it speaks, and what was learnt. Its name is a hash of what it speaks of. A note
//! that is old, from the future (the clock was set back), about something else or unreadable is no note. Losing one costs
//! requests and nothing else.

use crate::spool::Spool;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a note is believed.
pub(super) const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Serialize, Deserialize)]
struct Note<T> {
    /// Seconds since 1970.
    at: u64,
    about: String,
    learnt: T,
}

/// The note's file name: `kind` and the beginning of a hash of what it speaks of.
fn name(kind: &str, about: &str) -> String {
    let hash = blake3::hash(about.as_bytes()).to_hex();
    format!("{kind}-{}.json", &hash[..32])
}

/// What was learnt about `about`, if the spool still knows.
pub(super) fn recall<T: DeserializeOwned>(spool: Option<&Spool>, kind: &str, about: &str) -> Option<T> {
    let content = spool?.read(&name(kind, about))?;
    read(&content, about, SystemTime::now())
}

/// What was once learnt about `about`, however long ago and whatever the clock has done since: for what was true once.
pub(super) fn recall_ever<T: DeserializeOwned>(spool: Option<&Spool>, kind: &str, about: &str) -> Option<T> {
    let note: Note<T> = serde_json::from_slice(&spool?.read(&name(kind, about))?).ok()?;
    (note.about == about).then_some(note.learnt)
}

/// Remembers what was learnt; a note that cannot be written is none.
pub(super) fn remember<T: Serialize>(spool: Option<&Spool>, kind: &str, about: &str, learnt: T) {
    let Some(spool) = spool else { return };
    let content = write(about, learnt, SystemTime::now());
    if let Err(error) = spool.write(&name(kind, about), &content) {
        tracing::debug!("a note in the spool was lost: {error}");
    }
}

/// Forgets what was learnt.
pub(super) fn forget(spool: Option<&Spool>, kind: &str, about: &str) {
    if let Some(spool) = spool {
        spool.remove(&name(kind, about));
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn write<T: Serialize>(about: &str, learnt: T, now: SystemTime) -> Vec<u8> {
    let note = Note { at: seconds(now), about: about.to_owned(), learnt };
    // Plain values always serialise; an empty note would simply not be believed.
    serde_json::to_vec(&note).unwrap_or_default()
}

fn read<T: DeserializeOwned>(content: &[u8], about: &str, now: SystemTime) -> Option<T> {
    let note: Note<T> = serde_json::from_slice(content).ok()?;
    let age = seconds(now).checked_sub(note.at)?;
    (note.about == about && age < WEEK.as_secs()).then_some(note.learnt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn a_note_is_believed_for_a_week() {
        let now = UNIX_EPOCH + NOW;
        let note = write("s3://b/p", 7_u32, now);
        let at = |time: SystemTime| read::<u32>(&note, "s3://b/p", time);
        assert_eq!(at(now), Some(7));
        assert_eq!(at(now + WEEK - Duration::from_secs(1)), Some(7));
        assert_eq!(at(now + WEEK), None, "too old");
        assert_eq!(at(now - Duration::from_secs(1)), None, "from the future");
        assert_eq!(read::<u32>(&note, "s3://b/q", now), None, "about another storage");
        assert_eq!(read::<u32>(&note[..note.len() - 1], "s3://b/p", now), None, "half a note");
        assert_eq!(read::<u32>(b"", "s3://b/p", now), None);
        assert_eq!(read::<String>(&note, "s3://b/p", now), None, "of another form");
    }

    #[test]
    fn names_are_plain_and_differ() {
        let one = name("probe", "http://127.0.0.1:9000 bucket b, prefix p");
        assert!(one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b)), "{one}");
        assert_ne!(one, name("probe", "http://127.0.0.1:9000 bucket b, prefix q"));
        assert_ne!(one, name("identity", "http://127.0.0.1:9000 bucket b, prefix p"));
    }
}
