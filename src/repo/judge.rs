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
        let body = found.clone();
        let proof = tokio::task::spawn_blocking(move || codec::verify(&body)).await;
        Ok(match proof {
            Ok(Ok(_)) => Verdict::Same,
            Ok(Err(defect @ Defect::UnknownFormat { .. })) => Verdict::Other(self.unreadable(&defect)),
            Ok(Err(defect)) => Verdict::Worthless(defect.to_string()),
            Err(error) => {
                return Err(Error::new(ErrorKind::Bug, format!("cannot verify {}", self.place)).because(error));
            }
        })
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
        .hint(
            "another server archives under this name (two primaries, or a restored copy with archiving on): \
             stop the wrong one, or give it a prefix of its own",
        )
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
