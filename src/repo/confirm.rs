//! Whether what was stored earlier is still there.
//!
//! A listing answers that for many WAL files at once: it shows an object's length and its tag, and both together change when the
//! content does. Where a store's tags say nothing, the object is read back.

use super::judge::{Offer, Verdict};
use super::repository::{Cluster, Receipt};
use crate::codec::{ContentHash, HEADER_LEN, ObjectHeader, Subject, header_of};
use crate::error::Result;
use crate::pg::WalFileName;
use crate::storage::{ETag, Entry, Key, list_all};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry::Vacant;

/// How many digits at the end of a segment's name are left out of the prefix that lists it and its neighbours: 256 segments, whose
/// entries fit into one page.
const NEIGHBOURS: usize = 2;
/// The digits of a segment's name.
const SEGMENT_DIGITS: usize = 24;

/// What a receipt was found to be worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The object is there, unchanged.
    Same,
    /// Something is there: changed, or of a store that does not say. Reading it tells.
    Unclear,
    /// Nothing is there.
    Absent,
}

impl Cluster {
    /// Whether the objects of these WAL files are still those of their receipts, in the order asked: by one listing for each run
    /// of neighbours; in a directory of this host, by a look at each.
    pub async fn confirm_wal(&self, asked: &[(WalFileName, Receipt)]) -> Result<Vec<Presence>> {
        if self.is_local() {
            let mut found = Vec::with_capacity(asked.len());
            for (name, receipt) in asked {
                found.push(self.look_at(&self.layout.wal(name), receipt).await?);
            }
            return Ok(found);
        }
        let mut listed: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (name, _) in asked {
            let prefix = self.neighbours(name);
            if let Vacant(place) = listed.entry(prefix) {
                let entries = list_all(self.storage.as_ref(), place.key()).await?;
                place.insert(entries);
            }
        }
        let presence = |(name, receipt): &(WalFileName, Receipt)| {
            let key = self.layout.wal(name);
            let entry = listed.get(&self.neighbours(name))?.iter().find(|entry| entry.key == key)?;
            let same = entry.size == receipt.length && is_same(entry.etag.as_ref(), receipt.etag.as_ref());
            Some(if same { Presence::Same } else { Presence::Unclear })
        };
        Ok(asked.iter().map(|one| presence(one).unwrap_or(Presence::Absent)).collect())
    }

    /// Whether the object of this WAL file holds exactly this content: read back whole. `false` says nothing about what is there
    /// instead; storing the file does.
    pub async fn holds_wal(
        &self,
        name: &WalFileName,
        subject: Subject,
        plain_length: u64,
        plain_hash: ContentHash,
    ) -> Result<bool> {
        let key = self.layout.wal(name);
        let object = match self.storage.get(&key, None).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let header = ObjectHeader { subject, plain_length, plain_hash, seal: None };
        let verdict = Offer::expected(self.place(&key), key, header).judge(&object.body).await?;
        Ok(matches!(verdict, Verdict::Same))
    }

    /// Keys that begin as this one's do, up to the last digits of a segment's name.
    fn neighbours(&self, name: &WalFileName) -> String {
        let key = self.layout.wal(name);
        let (folder, file) = key.as_str().rsplit_once('/').unwrap_or_default();
        let stem = file.get(..SEGMENT_DIGITS - NEIGHBOURS).unwrap_or(file);
        format!("{folder}/{stem}")
    }

    /// A local storage is asked for the object itself: its tag holds length, time and place on the disk.
    async fn look_at(&self, key: &Key, receipt: &Receipt) -> Result<Presence> {
        match self.storage.get(key, Some(0..HEADER_LEN as u64)).await {
            Ok(head) if is_same(head.etag.as_ref(), receipt.etag.as_ref()) && header_of(&head.body).is_ok() => {
                Ok(Presence::Same)
            }
            Ok(_) => Ok(Presence::Unclear),
            Err(error) if error.is_not_found() => Ok(Presence::Absent),
            Err(error) => Err(error.into()),
        }
    }
}

/// Some stores put quotation marks around a tag in one answer and none in another.
fn is_same(one: Option<&ETag>, other: Option<&ETag>) -> bool {
    let bare = |tag: &ETag| tag.0.trim_start_matches("W/").trim_matches('"').to_owned();
    match (one.map(bare), other.map(bare)) {
        (Some(one), Some(other)) => one == other && !one.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Repository;
    use super::super::testing::{Personality, SYSTEM, Shelf, cluster, object, segment};
    use super::*;
    use crate::storage::{Bounds, FileStorage, Limits};
    use std::sync::Arc;

    fn name(number: u64) -> WalFileName {
        WalFileName::Segment(segment(number))
    }

    fn remote() -> (Arc<Shelf>, Cluster) {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let cluster = cluster(&shelf);
        (shelf, cluster)
    }

    async fn stored(cluster: &Cluster, numbers: impl IntoIterator<Item = u64>) -> Vec<(WalFileName, Receipt)> {
        let mut asked = Vec::new();
        for number in numbers {
            let stored = cluster.deposit_wal(&name(number), &object(number, &number.to_le_bytes())).await.unwrap();
            asked.push((name(number), stored.receipt));
        }
        asked
    }

    /// The prefixes listed, each once however many pages it has.
    fn listings(shelf: &Shelf) -> usize {
        shelf.requests().into_iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    #[tokio::test]
    async fn one_listing_confirms_a_run_of_neighbours() {
        let (shelf, cluster) = remote();
        let asked = stored(&cluster, 1..=9).await;
        shelf.requests();
        assert_eq!(cluster.confirm_wal(&asked).await.unwrap(), [Presence::Same; 9]);
        assert_eq!(listings(&shelf), 1);
        // Two runs, two listings: never all that there is.
        let asked = stored(&cluster, [0xfe, 0xff, 0x100, 0x101]).await;
        shelf.requests();
        assert_eq!(cluster.confirm_wal(&asked).await.unwrap(), [Presence::Same; 4]);
        assert_eq!(listings(&shelf), 2);
        assert_eq!(cluster.confirm_wal(&[]).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_gone_or_changed_is_not_confirmed() {
        let (shelf, cluster) = remote();
        let mut asked = stored(&cluster, 1..=3).await;
        shelf.remove(cluster.layout().wal(&name(1)).as_str(), false);
        // The same length, another content.
        let other = object(2, &7_u64.to_le_bytes());
        assert_eq!(other.bytes.len() as u64, asked[1].1.length);
        shelf.place(cluster.layout().wal(&name(2)).as_str(), other.bytes);
        let expected = [Presence::Absent, Presence::Unclear, Presence::Same];
        assert_eq!(cluster.confirm_wal(&asked).await.unwrap(), expected);
        asked[2].1.etag = None;
        assert_eq!(cluster.confirm_wal(&asked[2..]).await.unwrap(), [Presence::Unclear], "a store without tags");
    }

    #[tokio::test]
    async fn a_directory_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(root.path(), Limits::new(Bounds::PATIENT));
        let cluster = Repository::new(Arc::new(storage), None).cluster(SYSTEM);
        let asked = stored(&cluster, 1..=4).await;
        let file = |number| root.path().join(cluster.layout().wal(&name(number)).as_str());
        std::fs::remove_file(file(1)).unwrap();
        std::fs::remove_file(file(2)).unwrap();
        std::fs::write(file(2), object(2, &7_u64.to_le_bytes()).bytes).unwrap();
        std::fs::OpenOptions::new().write(true).open(file(3)).unwrap().set_len(10).unwrap();
        let expected = [Presence::Absent, Presence::Unclear, Presence::Unclear, Presence::Same];
        assert_eq!(cluster.confirm_wal(&asked).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn reading_back_tells() {
        let (shelf, cluster) = remote();
        let ours = object(1, b"ours");
        let header = ours.header;
        let holds = async || cluster.holds_wal(&name(1), header.subject, header.plain_length, header.plain_hash).await;
        assert!(!holds().await.unwrap());
        let key = cluster.layout().wal(&name(1));
        shelf.place(key.as_str(), ours.bytes.clone());
        assert!(holds().await.unwrap());
        for other in [object(1, b"else").bytes, ours.bytes.slice(..ours.bytes.len() - 1), bytes::Bytes::new()] {
            shelf.place(key.as_str(), other);
            assert!(!holds().await.unwrap());
        }
    }

    #[test]
    fn tags_are_compared_without_their_quotation_marks() {
        let tag = |text: &str| Some(ETag(text.to_owned()));
        for (one, other, same) in [
            (tag("\"a\""), tag("a"), true),
            (tag("W/\"a\""), tag("\"a\""), true),
            (tag("a"), tag("b"), false),
            (tag(""), tag("\"\""), false),
            (None, None, false),
            (tag("a"), None, false),
        ] {
            assert_eq!(is_same(one.as_ref(), other.as_ref()), same, "{one:?} {other:?}");
        }
    }
}
