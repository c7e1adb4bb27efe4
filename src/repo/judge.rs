//! What is to be stored, and what an object found under its key means to it.

use super::identity::{ClusterIdentity, NoIdentity};
use crate::codec::{self, ContentHash, Defect, Encoded, ObjectHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Key;
use bytes::Bytes;

/// Bytes to be stored under a key that nobody may have used for anything else.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// Key and storage, for messages.
    pub(super) place: String,
    pub(super) key: Key,
    pub(super) body: Bytes,
    content: Content,
}

/// What the bytes are.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A stored object with this header.
    Object(Box<ObjectHeader>),
    /// `cluster.json`.
    Identity(ClusterIdentity),
}

/// What an object found under the key is.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The same content, proven by reading all of it.
    Same,
    /// Something that must not be touched; the refusal, ready to be returned.
    Other(Error),
    /// Nothing that anyone could restore; why.
    Worthless(String),
}

impl Offer {
    pub(super) fn new(place: String, key: Key, body: Bytes, content: Content) -> Self {
        Self { place, key, body, content }
    }

    pub(super) fn object(place: String, key: Key, object: &Encoded) -> Self {
        Self::new(place, key, object.bytes.clone(), Content::Object(Box::new(object.header)))
    }

    /// What an object under this key would have to be; with no bytes of its own to store.
    pub(super) fn expected(place: String, key: Key, header: ObjectHeader) -> Self {
        Self::new(place, key, Bytes::new(), Content::Object(Box::new(header)))
    }

    /// The hash that a claim on the key carries.
    pub(super) fn hash(&self) -> ContentHash {
        match &self.content {
            Content::Object(header) => header.plain_hash,
            Content::Identity(_) => ContentHash::of(&self.body),
        }
    }

    /// Length of the plain bytes; the claim protocol's window depends on it, so every host must come to the same figure.
    pub(super) fn plain_length(&self) -> u64 {
        match &self.content {
            Content::Object(header) => header.plain_length,
            Content::Identity(_) => self.body.len() as u64,
        }
    }

    /// What the whole object `found` under the key is.
    pub(super) async fn judge(&self, found: &Bytes) -> Result<Verdict> {
        match &self.content {
            Content::Object(header) => self.judge_object(header, found).await,
            Content::Identity(identity) => Ok(self.judge_identity(identity, found)),
        }
    }

    async fn judge_object(&self, ours: &ObjectHeader, found: &Bytes) -> Result<Verdict> {
        let theirs = match codec::header_of(found) {
            Ok(header) => header,
            Err(defect @ Defect::UnknownFormat { .. }) => return Ok(Verdict::Other(self.unreadable(&defect))),
            Err(defect) => return Ok(Verdict::Worthless(defect.to_string())),
        };
        if theirs.plain_hash != ours.plain_hash {
            return Ok(Verdict::Other(self.other_hash(&theirs, ours)));
        }
        if theirs.subject != ours.subject || theirs.plain_length != ours.plain_length {
            return Ok(Verdict::Other(self.other_subject(&theirs, ours)));
        }
        Ok(match self.verify(found, ours.plain_length).await? {
            Ok(_) => Verdict::Same,
            Err(defect @ Defect::UnknownFormat { .. }) => Verdict::Other(self.unreadable(&defect)),
            Err(defect) => Verdict::Worthless(defect.to_string()),
        })
    }

    /// Verifies a payload, a large one beside the runtime: deadlines and the server's shutdown are watched meanwhile.
    async fn verify(&self, found: &Bytes, plain_length: u64) -> Result<Result<ObjectHeader, Defect>> {
        if plain_length <= 1 << 20 {
            return Ok(codec::verify(found));
        }
        let body = found.clone();
        tokio::task::spawn_blocking(move || codec::verify(&body))
            .await
            .map_err(|error| Error::new(ErrorKind::Bug, format!("cannot verify {}", self.place)).because(error))
    }

    fn judge_identity(&self, ours: &ClusterIdentity, found: &Bytes) -> Verdict {
        match ClusterIdentity::parse(found) {
            Ok(theirs) => match ours.compare(&theirs) {
                Ok(()) => Verdict::Same,
                Err(error) => Verdict::Other(error.context(&self.place)),
            },
            Err(NoIdentity::Worthless(why)) => Verdict::Worthless(why),
            Err(defect) => Verdict::Other(defect.into_error(&self.place)),
        }
    }

    fn unreadable(&self, defect: &Defect) -> Error {
        Error::new(ErrorKind::Duplicate, format!("{} is taken, and was not touched: {defect}", self.place))
            .hint("a newer version of Walhalla wrote it: use that one")
    }

    fn other_hash(&self, theirs: &ObjectHeader, ours: &ObjectHeader) -> Error {
        Error::new(
            ErrorKind::Duplicate,
            format!(
                "{} is taken by other content, and was not touched: BLAKE3 {} there, {} here",
                self.place, theirs.plain_hash, ours.plain_hash
            ),
        )
        .hint(if self.key.as_str().ends_with(".history") {
            "two servers were promoted to the same timeline, and the other one's came first: stop the wrong one; rebuild it \
             from the other, or give it a prefix of its own"
        } else {
            "another server archives under this name (two primaries, or a restored copy with archiving on), or an older copy of \
             this data directory was put back: stop the wrong one, or give it a prefix of its own and back it up there"
        })
    }

    fn other_subject(&self, theirs: &ObjectHeader, ours: &ObjectHeader) -> Error {
        let say = |header: &ObjectHeader| {
            let subject = header.subject;
            format!(
                "kind {:?}, cluster {}, timeline {}, position {}, {} bytes",
                subject.kind, subject.system_identifier, subject.timeline, subject.start, header.plain_length
            )
        };
        Error::new(
            ErrorKind::Duplicate,
            format!(
                "{} is taken, and was not touched: the same hash {}, but {} there, {} here",
                self.place,
                ours.plain_hash,
                say(theirs),
                say(ours)
            ),
        )
        .hint("the object lies under a name that is not its own: move it away and archive again")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SYSTEM, identity, object, offer, with_version};
    use super::*;
    use crate::codec::HEADER_LEN;
    use crate::pg::{Lsn, SystemIdentifier};

    async fn verdict(ours: &Encoded, found: &[u8]) -> Verdict {
        offer(ours).judge(&Bytes::copy_from_slice(found)).await.unwrap()
    }

    fn refusal(verdict: Verdict) -> Error {
        match verdict {
            Verdict::Other(error) => error,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_same_content_whatever_its_compression() {
        let ours = object(1, b"plain");
        assert!(matches!(verdict(&ours, &ours.bytes).await, Verdict::Same));
        let plain = vec![7; 3 << 20];
        let fast = object(1, &plain);
        let slow = super::super::testing::object_at_level(1, &plain, 19);
        assert_ne!(fast.bytes, slow.bytes);
        assert!(matches!(verdict(&fast, &slow.bytes).await, Verdict::Same), "also beside the runtime");
    }

    #[tokio::test]
    async fn what_nobody_could_restore_is_worthless() {
        let ours = object(1, b"plain");
        let whole = ours.bytes.to_vec();
        let mut header_damaged = whole.clone();
        header_damaged[60] ^= 1;
        let mut payload_damaged = whole.clone();
        *payload_damaged.last_mut().unwrap() ^= 1;
        let mut too_long = whole.clone();
        too_long.push(0);
        for (what, found) in [
            ("empty", Vec::new()),
            ("foreign", b"<html>captive portal</html>".to_vec()),
            ("no header", whole[..HEADER_LEN - 1].to_vec()),
            ("header damaged", header_damaged),
            ("no payload", whole[..HEADER_LEN].to_vec()),
            ("cut short", whole[..whole.len() - 1].to_vec()),
            ("payload damaged", payload_damaged),
            ("too long", too_long),
        ] {
            let verdict = verdict(&ours, &found).await;
            assert!(matches!(verdict, Verdict::Worthless(_)), "{what}: {verdict:?}");
        }
    }

    #[tokio::test]
    async fn other_content_is_refused_and_both_hashes_are_named() {
        let (ours, theirs) = (object(1, b"plain"), object(1, b"other"));
        let error = refusal(verdict(&ours, &theirs.bytes).await);
        assert_eq!(error.kind(), ErrorKind::Duplicate);
        let line = error.to_string();
        for part in [ours.header.plain_hash.to_string(), theirs.header.plain_hash.to_string(), "shelf".to_owned()] {
            assert!(line.contains(&part), "{line}");
        }
        assert!(error.advice().is_some());
        // Its payload is none of our business: a valid header with another hash is other content.
        let error = refusal(verdict(&ours, &theirs.bytes[..HEADER_LEN]).await);
        assert_eq!(error.kind(), ErrorKind::Duplicate);
    }

    #[tokio::test]
    async fn the_same_bytes_about_something_else_are_refused() {
        let ours = object(1, b"plain");
        let mut header = ours.header;
        let whole = |header: ObjectHeader| [&header.to_bytes()[..], &ours.bytes[HEADER_LEN..]].concat();
        header.subject.start = Lsn(0x2000_0000);
        assert!(refusal(verdict(&ours, &whole(header)).await).to_string().contains("0/20000000"));
        let mut header = ours.header;
        header.subject.system_identifier = SystemIdentifier(SYSTEM.0 + 1);
        assert_eq!(refusal(verdict(&ours, &whole(header)).await).kind(), ErrorKind::Duplicate);
    }

    #[tokio::test]
    async fn a_later_version_is_never_replaced() {
        let ours = object(1, b"plain");
        let error = refusal(verdict(&ours, &with_version(&ours.bytes, 2)).await);
        assert_eq!(error.kind(), ErrorKind::Duplicate);
        assert!(error.to_string().contains("newer version"), "{error}");
    }

    #[tokio::test]
    async fn identities() {
        let ours = Offer::identity("cluster.json in shelf".to_owned(), offer(&object(1, b"")).key, identity());
        let judge = async |found: &[u8]| ours.judge(&Bytes::copy_from_slice(found)).await.unwrap();
        assert!(matches!(judge(&ours.body).await, Verdict::Same));
        for worthless in [&b""[..], b"{\"format\":1,", b"\0\0\0"] {
            assert!(matches!(judge(worthless).await, Verdict::Worthless(_)), "{worthless:?}");
        }
        let error = refusal(judge(b"{\"format\":2}").await);
        assert_eq!(error.kind(), ErrorKind::Config);
        let error = refusal(judge(b"{\"format\":1,\"more\":2}").await);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let other = String::from_utf8(ours.body.to_vec()).unwrap().replace("16777216", "67108864");
        let error = refusal(judge(other.as_bytes()).await);
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let line = error.to_string();
        assert!(line.contains("67108864 there, 16777216 here") && line.contains("new prefix"), "{line}");
    }
}
