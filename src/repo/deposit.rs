//! Storing under a key that nobody may have used: Ok means durable, and proven.

use super::judge::{Offer, Verdict};
use super::repository::{Cluster, Deposited, Stored};
use crate::codec::{Encoded, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::storage::{Integrity, Key, Object, PutMode, StorageErrorKind};

/// How often one deposit begins anew because the object under its key came or went meanwhile.
const ROUNDS: usize = 4;

impl Cluster {
    /// Stores an object under a key that nobody may have used: create-only, resolved by reading back, or by the claim protocol.
    /// Ok means durable and proven; other content under the key is `Duplicate`. An object from which nobody could restore
    /// anything, and which this storage offers no safe way to replace, is `Corrupt`.
    pub async fn deposit(&self, key: &Key, object: &Encoded) -> Result<Deposited> {
        Ok(self.lay_down(key, object).await?.deposited)
    }

    /// [`Self::deposit`], with the receipt.
    async fn lay_down(&self, key: &Key, object: &Encoded) -> Result<Stored> {
        let subject = object.header.subject;
        if subject.system_identifier != self.layout.system() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{} is about cluster {}, not about this one", self.place(key), subject.system_identifier),
            ));
        }
        self.store(&Offer::object(self.place(key), key.clone(), object)).await
    }

    /// [`Self::deposit`] of a WAL file under its name, a second `.partial` or `.backup` beside the first: for these two kinds
    /// never `Duplicate`, so that two promotions never wedge an archiver.
    pub async fn deposit_wal(&self, name: &WalFileName, object: &Encoded) -> Result<Stored> {
        refuse_confusion(name, object)?;
        let first = self.lay_down(&self.layout.wal(name), object).await;
        let may_lie_beside = matches!(name, WalFileName::Partial(_) | WalFileName::BackupHistory { .. });
        match first {
            Err(error) if may_lie_beside && matches!(error.kind(), ErrorKind::Duplicate | ErrorKind::Corrupt) => {
                let key = self.layout.wal_beside(name, &object.header.plain_hash);
                let first = match error.kind() {
                    ErrorKind::Duplicate => "other content (another promotion's)",
                    _ => "something that nobody could restore, and that cannot safely be replaced here",
                };
                match self.lay_down(&key, object).await {
                    Ok(stored) => Ok(Stored { deposited: Deposited::Beside(first.to_owned()), ..stored }),
                    // The key carries the hash: other content there is no second promotion, but something amiss.
                    Err(error) if error.kind() == ErrorKind::Duplicate => Err(error.with_kind(ErrorKind::Corrupt)),
                    Err(error) => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// [`Self::deposit_wal`] before the file's turn, where nobody else should be. `None`: something lies under its name, or somebody
    /// has a claim on it. What it is, is not asked: that is the business of the file's own turn.
    pub async fn deposit_wal_ahead(&self, name: &WalFileName, object: &Encoded) -> Result<Option<Stored>> {
        refuse_confusion(name, object)?;
        let key = self.layout.wal(name);
        let offer = Offer::object(self.place(&key), key, object);
        let capabilities = self.capabilities().await?;
        let stored = if capabilities.create_only {
            match self.storage.put(&offer.key, offer.body.clone(), &PutMode::CreateOnly, Integrity::Sound).await {
                Ok(etag) if capabilities.verifies_integrity => {
                    return Ok(Some(Stored::new(Deposited::New, offer.body.len(), etag)));
                }
                Ok(_) => self.settle(&offer, Deposited::New).await,
                Err(error) if error.kind == StorageErrorKind::Precondition => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else {
            self.create_by_claim(&offer).await
        };
        match stored {
            // Read back, it was another's.
            Err(error) if error.kind() == ErrorKind::Duplicate => Ok(None),
            stored => stored,
        }
    }

    /// Stores an object or the identity by whatever means the endpoint has.
    pub(super) async fn store(&self, offer: &Offer) -> Result<Stored> {
        for _ in 0..ROUNDS {
            let capabilities = self.capabilities().await?;
            if !capabilities.create_only {
                return self.store_by_claim(offer).await;
            }
            let put = self.storage.put(&offer.key, offer.body.clone(), &PutMode::CreateOnly, Integrity::Sound).await;
            let settled = match put {
                Ok(etag) if capabilities.verifies_integrity => {
                    return Ok(Stored::new(Deposited::New, offer.body.len(), etag));
                }
                Ok(_) => self.settle(offer, Deposited::New).await?,
                Err(error) if error.kind == StorageErrorKind::Precondition => {
                    self.settle(offer, Deposited::Already).await?
                }
                Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => {
                    self.refute_create_only(&error.to_string());
                    None
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(stored) = settled {
                return Ok(stored);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "{} could not be settled in {ROUNDS} tries: it is there when written and gone when read, or changes",
                offer.place
            ),
        )
        .hint("something else writes or deletes under this key, or the storage contradicts itself"))
    }

    /// Reads back what is under the key. The same content ends well, as `same`; other content is refused; what nobody could
    /// restore is replaced, after a second look. `None`: it has changed meanwhile, begin anew.
    async fn settle(&self, offer: &Offer, same: Deposited) -> Result<Option<Stored>> {
        let object = match self.storage.get(&offer.key, None).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(Error::from(error).context("reading back what was to be stored")),
        };
        match offer.judge(&object.body).await? {
            Verdict::Same => Ok(Some(Stored::new(same, object.body.len(), object.etag))),
            Verdict::Other(refusal) => Err(refusal),
            Verdict::Worthless(why) => match self.reads_the_same(offer, &object).await? {
                true => self.replace(offer, object.etag, &why).await,
                false => Ok(None),
            },
        }
    }

    /// Whether the key reads once more as it just did. `If-Match` on a tag proves that the object is still the one that was
    /// read, not that it was read right: one garbled answer must not cost a good object.
    async fn reads_the_same(&self, offer: &Offer, first: &Object) -> Result<bool> {
        match self.storage.get(&offer.key, None).await {
            Ok(again) => Ok(again.body == first.body && again.etag == first.etag),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(Error::from(error).context("reading once more what seemed worthless")),
        }
    }
}

/// A WAL file's object must be of its kind and timeline.
fn refuse_confusion(name: &WalFileName, object: &Encoded) -> Result<()> {
    let subject = object.header.subject;
    if subject.kind == Kind::Wal && subject.timeline == name.timeline().get() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Mismatch,
        format!("{name} and its object disagree: {:?} of timeline {}", subject.kind, subject.timeline),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Checksums, Condition, Fault, Personality, SYSTEM, Shelf, cluster, encoded, object, segment, wal, with_version,
    };
    use super::*;
    use crate::codec::HEADER_LEN;
    use crate::pg::Lsn;
    use crate::storage::Capabilities;
    use bytes::Bytes;
    use std::sync::Arc;

    const KEY: &str = "7/wal/00000001/000000010000000000000001";

    fn shelf(personality: Personality) -> (Arc<Shelf>, Cluster) {
        let shelf = Arc::new(Shelf::new(personality));
        let cluster = cluster(&shelf);
        (shelf, cluster)
    }

    fn known(change: impl FnOnce(&mut Capabilities)) -> Personality {
        let mut capabilities = Capabilities::ALL;
        change(&mut capabilities);
        Personality {
            checksums: if capabilities.verifies_integrity { Checksums::Verify } else { Checksums::Ignore },
            if_match: if capabilities.if_match { Condition::Honour } else { Condition::Ignore },
            known: Some(capabilities),
            ..Personality::HONEST
        }
    }

    async fn deposit(cluster: &Cluster, object: &Encoded) -> Result<Deposited> {
        cluster.deposit_wal(&WalFileName::Segment(segment(1)), object).await.map(|stored| stored.deposited)
    }

    #[tokio::test]
    async fn one_request_in_the_steady_state() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let ours = object(1, b"plain");
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::New);
        assert_eq!(shelf.requests(), [format!("PUT create {KEY}")]);
        assert_eq!(shelf.body(KEY).unwrap(), ours.bytes);
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::Already);
        assert_eq!(shelf.requests(), [format!("PUT create {KEY}"), format!("GET {KEY}")]);
    }

    /// Before its turn, a file that is not the first under its name is not looked at, and nothing is written.
    #[tokio::test]
    async fn ahead_of_its_turn_whatever_is_met_is_left_alone() {
        let name = WalFileName::Segment(segment(1));
        let ours = object(1, b"plain");
        for there in [ours.bytes.clone(), object(1, b"theirs").bytes, Bytes::new()] {
            let (shelf, cluster) = shelf(Personality::HONEST);
            shelf.place(KEY, there.clone());
            assert!(cluster.deposit_wal_ahead(&name, &ours).await.unwrap().is_none());
            assert_eq!(shelf.requests(), [format!("PUT create {KEY}")]);

            let (shelf, cluster) = super::tests::shelf(Personality::IGNORING);
            shelf.place(KEY, there.clone());
            assert!(cluster.deposit_wal_ahead(&name, &ours).await.unwrap().is_none());
            assert_eq!(shelf.history(KEY), [there]);
        }
        for personality in [Personality::HONEST, known(|known| known.verifies_integrity = false), Personality::IGNORING]
        {
            let (shelf, cluster) = shelf(personality);
            let stored = cluster.deposit_wal_ahead(&name, &ours).await.unwrap().unwrap();
            assert_eq!((stored.deposited, shelf.body(KEY).unwrap()), (Deposited::New, ours.bytes.clone()));
        }
        // A rival's claim is enough, be it smaller or larger.
        for rival in ["0".repeat(64), "f".repeat(64)] {
            let (shelf, cluster) = shelf(Personality::IGNORING);
            shelf.place(&format!("7/claim/00000001/000000010000000000000001/{rival}"), "");
            assert!(cluster.deposit_wal_ahead(&name, &ours).await.unwrap().is_none());
            assert_eq!(shelf.body(KEY), None);
        }
    }

    #[tokio::test]
    async fn an_unverified_put_is_read_back() {
        let (shelf, cluster) = shelf(known(|known| known.verifies_integrity = false));
        let ours = object(1, b"plain");
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::New);
        assert_eq!(shelf.requests(), [format!("PUT create {KEY}"), format!("GET {KEY}")]);

        // Damaged on its way, or lost: noticed, and put right.
        for garbled in [Bytes::new(), ours.bytes.slice(..HEADER_LEN), Bytes::from_static(b"x")] {
            shelf.remove(KEY, false);
            shelf.fault("PUT", KEY, Fault::Garble(garbled));
            assert!(matches!(deposit(&cluster, &ours).await.unwrap(), Deposited::Replaced(_)));
            assert_eq!(shelf.body(KEY).unwrap(), ours.bytes);
        }
        // The replacement is read back as well.
        shelf.remove(KEY, false);
        shelf.fault("PUT", KEY, Fault::Garble(Bytes::new()));
        shelf.fault("PUT", KEY, Fault::Garble(Bytes::from_static(b"still not")));
        assert!(matches!(deposit(&cluster, &ours).await.unwrap(), Deposited::Replaced(_)));
        assert_eq!(shelf.body(KEY).unwrap(), ours.bytes);
        // Acknowledged and not there, again and again: never a success.
        shelf.remove(KEY, false);
        for _ in 0..ROUNDS {
            shelf.fault("GET", KEY, Fault::Fail(StorageErrorKind::NotFound { deleted: false }));
        }
        assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_lost_answer_is_settled_by_the_retry() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let ours = object(1, b"plain");
        shelf.fault("PUT", KEY, Fault::LoseAnswer);
        assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::Already);
    }

    #[tokio::test]
    async fn other_content_is_never_overwritten() {
        for personality in [Personality::HONEST, known(|known| known.verifies_integrity = false)] {
            let (shelf, cluster) = shelf(personality);
            let theirs = object(1, b"theirs");
            shelf.place(KEY, theirs.bytes.clone());
            assert_eq!(deposit(&cluster, &object(1, b"ours")).await.unwrap_err().kind(), ErrorKind::Duplicate);
            let newer = with_version(&theirs.bytes, 9);
            shelf.place(KEY, newer.clone());
            assert_eq!(deposit(&cluster, &theirs).await.unwrap_err().kind(), ErrorKind::Duplicate);
            assert_eq!(shelf.body(KEY).unwrap(), newer);
        }
    }

    #[tokio::test]
    async fn what_nobody_could_restore_is_replaced_on_its_tag() {
        let ours = object(1, b"plain");
        for worthless in [Bytes::new(), Bytes::from_static(b"junk"), ours.bytes.slice(..ours.bytes.len() - 1)] {
            let (shelf, cluster) = shelf(Personality::HONEST);
            shelf.place(KEY, worthless.clone());
            let Deposited::Replaced(why) = deposit(&cluster, &ours).await.unwrap() else { panic!("not replaced") };
            assert!(!why.is_empty());
            let (create, read, replace) =
                (format!("PUT create {KEY}"), format!("GET {KEY}"), format!("PUT match {KEY}"));
            assert_eq!(shelf.requests(), [create, read.clone(), read, replace]);
            assert_eq!(shelf.body(KEY).unwrap(), ours.bytes);
        }
        // Somebody was faster with the same, or with something else.
        let (shelf, cluster) = shelf(Personality::HONEST);
        for (theirs, ends) in [(ours.clone(), Ok(Deposited::Already)), (object(1, b"x"), Err(ErrorKind::Duplicate))] {
            shelf.place(KEY, "");
            // The first fault is met by the create-only put, which is refused either way.
            shelf.fault("PUT", KEY, Fault::Fail(StorageErrorKind::Precondition));
            shelf.fault("PUT", KEY, Fault::Meanwhile(theirs.bytes.clone()));
            assert_eq!(deposit(&cluster, &ours).await.map_err(|error| error.kind()), ends);
            assert_eq!(shelf.body(KEY).unwrap(), theirs.bytes);
        }
    }

    /// A tag proves that the object is the one that was read, not that it was read right.
    #[tokio::test]
    async fn one_garbled_answer_costs_no_good_object() {
        let (theirs, ours) = (object(1, b"theirs"), object(1, b"ours"));
        let html = || Fault::Answer(Bytes::from_static(b"<html>captive portal</html>"));
        let (shelf, cluster) = shelf(Personality::HONEST);
        shelf.place(KEY, theirs.bytes.clone());
        shelf.fault("GET", KEY, html());
        assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ErrorKind::Duplicate);
        assert_eq!(deposit(&cluster, &theirs).await.unwrap(), Deposited::Already);
        // Each reading another: nothing can be said, and nothing is written.
        for number in 0..2 * ROUNDS {
            shelf.fault("GET", KEY, Fault::Answer(format!("<html>{number}</html>").into()));
        }
        assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ErrorKind::Unavailable);
        // It is gone, or out of reach, at the second look.
        for (kind, ends) in [
            (StorageErrorKind::NotFound { deleted: false }, ErrorKind::Duplicate),
            (StorageErrorKind::Unavailable, ErrorKind::Unavailable),
        ] {
            shelf.fault("GET", KEY, html());
            shelf.fault("GET", KEY, Fault::Fail(kind));
            assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ends);
        }
        assert_eq!(shelf.history(KEY), [theirs.bytes]);

        let identity = "7/cluster.json";
        let (shelf, cluster) = super::tests::shelf(Personality::HONEST);
        let resized = super::super::testing::identity();
        let resized = super::super::ClusterIdentity {
            wal_segment_size: crate::pg::SegmentSize::new(64 << 20).unwrap(),
            ..resized
        };
        shelf.place(identity, resized.to_bytes());
        shelf.fault("GET", identity, html());
        let error = cluster.ensure_identity(&super::super::testing::identity()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert_eq!(shelf.history(identity), [Bytes::from(resized.to_bytes())]);
    }

    #[tokio::test]
    async fn refused_where_nothing_makes_replacing_safe() {
        let (shelf, cluster) = shelf(known(|known| known.if_match = false));
        shelf.place(KEY, "");
        let error = deposit(&cluster, &object(1, b"plain")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let line = error.to_string();
        assert!(line.contains(KEY) && line.contains("delete that object"), "{line}");
        assert_eq!(shelf.body(KEY).unwrap(), "");

        // Believed to be able, and then not.
        let (shelf, cluster) =
            super::tests::shelf(Personality { if_match: Condition::Unsupported, ..Personality::HONEST });
        shelf.place(KEY, "");
        assert_eq!(deposit(&cluster, &object(1, b"plain")).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(shelf.body(KEY).unwrap(), "");
    }

    #[tokio::test]
    async fn unknown_whether_tags_are_honoured_is_found_out_when_it_matters() {
        let (shelf, cluster) = shelf(Personality::PROBED);
        shelf.place(KEY, "");
        assert!(matches!(deposit(&cluster, &object(1, b"plain")).await.unwrap(), Deposited::Replaced(_)));
    }

    #[tokio::test]
    async fn a_name_that_comes_and_goes_is_bounded() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        for _ in 0..ROUNDS {
            shelf.fault("PUT", KEY, Fault::Fail(StorageErrorKind::Precondition));
        }
        let error = deposit(&cluster, &object(1, b"plain")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(shelf.requests().len(), 2 * ROUNDS);
        // A delete marker counts as absent for a conditional create.
        shelf.remove(KEY, true);
        assert_eq!(deposit(&cluster, &object(1, b"plain")).await.unwrap(), Deposited::New);
    }

    #[tokio::test]
    async fn trouble_is_never_a_success() {
        for kind in [StorageErrorKind::Unavailable, StorageErrorKind::Denied, StorageErrorKind::Config] {
            let (shelf, cluster) = shelf(Personality::HONEST);
            shelf.fault("PUT", KEY, Fault::Fail(kind));
            assert!(deposit(&cluster, &object(1, b"plain")).await.is_err());
            deposit(&cluster, &object(1, b"plain")).await.unwrap();
            shelf.fault("GET", KEY, Fault::Fail(kind));
            assert!(deposit(&cluster, &object(1, b"plain")).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_turns_out_unable_gets_the_claim_protocol() {
        let (shelf, cluster) = shelf(Personality { create: Condition::Unsupported, ..Personality::HONEST });
        let ours = object(1, b"plain");
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::New);
        let claim = format!("7/claim/00000001/000000010000000000000001/{}", ours.header.plain_hash);
        assert_eq!(shelf.keys(), [claim, KEY.to_owned()]);
        shelf.requests();
        assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::Already);
        assert_eq!(shelf.requests(), [format!("GET {KEY}")], "the condition is not tried again");
        let remark = cluster.take_remark().unwrap();
        assert!(remark.contains("put") && remark.contains("claim protocol"), "{remark}");
        assert_eq!(cluster.take_remark(), None, "said once");
    }

    #[tokio::test]
    async fn a_second_partial_or_backup_lies_beside_the_first() {
        for name in ["000000010000000000000001.partial", "000000010000000000000001.00000028.backup"] {
            let (shelf, cluster) = shelf(known(|known| known.if_match = false));
            let name = wal(name);
            let (first, second) = (object(1, b"first"), object(1, b"second"));
            assert_eq!(cluster.deposit_wal(&name, &first).await.unwrap().deposited, Deposited::New);
            assert!(matches!(cluster.deposit_wal(&name, &second).await.unwrap().deposited, Deposited::Beside(_)));
            assert!(matches!(cluster.deposit_wal(&name, &second).await.unwrap().deposited, Deposited::Beside(_)));
            assert_eq!(cluster.deposit_wal(&name, &first).await.unwrap().deposited, Deposited::Already);
            let key = format!("7/wal/00000001/{name}");
            let beside = format!("{key}-{}", second.header.plain_hash);
            assert_eq!(shelf.keys(), [key.clone(), beside.clone()]);
            assert_eq!(shelf.body(&key).unwrap(), first.bytes);
            // What may not be replaced does not wedge the archiver either.
            shelf.place(&key, "");
            let why = "something that nobody could restore, and that cannot safely be replaced here".to_owned();
            assert_eq!(cluster.deposit_wal(&name, &first).await.unwrap().deposited, Deposited::Beside(why));
            // Something amiss with the key that carries the hash is never called a duplicate.
            shelf.place(&key, first.bytes.clone());
            shelf.place(&beside, with_version(&second.bytes, 3));
            assert_eq!(cluster.deposit_wal(&name, &second).await.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[tokio::test]
    async fn histories_and_segments_never_lie_beside() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let history = |plain| encoded(Kind::Wal, 2, Lsn(0), plain, 1);
        let name = wal("00000002.history");
        cluster.deposit_wal(&name, &history(b"one")).await.unwrap();
        assert_eq!(cluster.deposit_wal(&name, &history(b"two")).await.unwrap_err().kind(), ErrorKind::Duplicate);
        assert_eq!(shelf.keys().len(), 1);
    }

    #[tokio::test]
    async fn an_object_about_something_else_is_not_even_sent() {
        let (shelf, cluster) = shelf(Personality::HONEST);
        let mut foreign = object(1, b"plain");
        foreign.header.subject.system_identifier.0 = SYSTEM.0 + 1;
        assert_eq!(deposit(&cluster, &foreign).await.unwrap_err().kind(), ErrorKind::Mismatch);
        let other_timeline = encoded(Kind::Wal, 2, Lsn(1 << 24), b"plain", 1);
        assert_eq!(deposit(&cluster, &other_timeline).await.unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(shelf.requests(), [""; 0]);
    }
}
