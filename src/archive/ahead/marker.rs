//! A marker: this content, under this name, is durable at this place.
//!
//! One line of JSON, and a seal: a hash over the place and that line. So a marker that was cut short, altered, or brought from
//! another place is none. It is written without a rename or a sync; a torn one costs an upload.

use crate::codec::ContentHash;
use crate::pg::WalFileName;
use crate::repo::Receipt;
use crate::spool;
use crate::storage::ETag;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// For how long the storage's own word is believed without asking it again.
const FRESH: Duration = Duration::from_secs(30);
/// How long a marker may lie unused. Whoever was away for longer asks the storage.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// No marker is longer.
pub(super) const LONGEST: u64 = 4096;

/// What is known of a file that was stored ahead of its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) struct Marker {
    pub(super) name: WalFileName,
    /// BLAKE3 of the file's bytes.
    pub(super) hash: ContentHash,
    /// What the storage said of its object.
    pub(super) receipt: Receipt,
    /// When it last said so, in seconds since 1970.
    pub(super) confirmed: u64,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    hash: String,
    length: u64,
    etag: Option<String>,
    confirmed: u64,
}

impl Marker {
    /// Its bytes, for this place.
    pub(super) fn to_bytes(&self, place: &str) -> Vec<u8> {
        let text = Text {
            name: self.name.to_string(),
            hash: self.hash.to_string(),
            length: self.receipt.length,
            etag: self.receipt.etag.as_ref().map(|tag| tag.0.clone()),
            confirmed: self.confirmed,
        };
        // Plain values always serialise; an empty marker would simply not be believed.
        let line = serde_json::to_string(&text).unwrap_or_default();
        format!("{line}\n{}\n", seal(place, &line)).into_bytes()
    }

    /// The marker in these bytes, if they are a whole one of this place.
    pub(super) fn parse(bytes: &[u8], place: &str) -> Option<Self> {
        let (line, rest) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        if rest.strip_suffix('\n')? != seal(place, line) {
            return None;
        }
        let text: Text = serde_json::from_str(line).ok()?;
        Some(Self {
            name: text.name.parse().ok()?,
            hash: text.hash.parse().ok()?,
            receipt: Receipt { length: text.length, etag: text.etag.map(ETag) },
            confirmed: text.confirmed,
        })
    }

    /// Whether the storage has confirmed it so lately that it need not be asked. A moment in the future is no memory: the clock
    /// was set back.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        self.age(now).is_some_and(|age| age < FRESH)
    }

    /// Whether it has lain for so long that nobody will come for it.
    pub(super) fn is_old(&self, now: SystemTime) -> bool {
        self.age(now).is_some_and(|age| age >= WEEK)
    }

    /// Whether the clock was set back since. Once it has come there again, such a marker would be believed.
    pub(super) fn is_from_the_future(&self, now: SystemTime) -> bool {
        self.age(now).is_none()
    }

    fn age(&self, now: SystemTime) -> Option<Duration> {
        seconds(now).checked_sub(self.confirmed).map(Duration::from_secs)
    }
}

fn seal(place: &str, line: &str) -> String {
    spool::tag([place.as_bytes(), line.as_bytes()])
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: &str = "7 s3://bucket/prefix at http://store";

    pub(in crate::archive::ahead) fn marker(number: u8, confirmed: u64) -> Marker {
        Marker {
            name: format!("0000000100000000000000{number:02X}").parse().unwrap(),
            hash: ContentHash::of(&[number]),
            receipt: Receipt { length: 4711, etag: Some(ETag("\"abc\"".to_owned())) },
            confirmed,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_marker_cut_in_two_or_altered_is_none() {
        let bytes = marker(1, 1000).to_bytes(PLACE);
        assert!(bytes.len() as u64 <= LONGEST);
        for end in 0..bytes.len() {
            assert_eq!(Marker::parse(&bytes[..end], PLACE), None, "{end} bytes");
            let mut zeros = bytes.clone();
            zeros[end..].fill(0);
            assert_eq!(Marker::parse(&zeros, PLACE), None, "zeros from {end}");
            let mut flipped = bytes.clone();
            flipped[end] ^= 1;
            assert_eq!(Marker::parse(&flipped, PLACE), None, "a bit of byte {end}");
        }
        assert_eq!(Marker::parse(&[&bytes[..], b"x"].concat(), PLACE), None);
    }

    #[test]
    fn a_marker_of_another_place_is_none() {
        let bytes = marker(1, 1000).to_bytes(PLACE);
        for place in ["", "8 s3://bucket/prefix at http://store", "7 s3://bucket/prefix at http://other"] {
            assert_eq!(Marker::parse(&bytes, place), None, "{place}");
        }
    }

    #[test]
    fn the_storages_word_is_believed_for_thirty_seconds_and_never_from_the_future() {
        let marker = marker(1, 1000);
        for (now, fresh, old) in [
            (1000, true, false),
            (1029, true, false),
            (1030, false, false),
            (999, false, false),
            (0, false, false),
            (1000 + WEEK.as_secs() - 1, false, false),
            (1000 + WEEK.as_secs(), false, true),
        ] {
            assert_eq!((marker.is_fresh(at(now)), marker.is_old(at(now))), (fresh, old), "{now}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(hash: [u8; 32], length: u64, etag: Option<String>, confirmed: u64, place: String) {
            let receipt = Receipt { length, etag: etag.map(ETag) };
            let marker = Marker { hash: ContentHash(hash), receipt, confirmed, ..marker(1, 0) };
            prop_assert_eq!(Marker::parse(&marker.to_bytes(&place), &place), Some(marker));
        }

        #[test]
        fn nothing_else_is(bytes: Vec<u8>, place: String) {
            prop_assert_eq!(Marker::parse(&bytes, &place), None);
        }
    }
}
