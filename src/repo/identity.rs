//! `cluster.json`: which cluster a folder of the repository belongs to.
//!
//! Its bytes are exactly these, whoever writes them, so that two honest first writers agree: compact JSON, the four fields in
//! this order, one LF at the end.
//!
//! ```text
//! {"format":1,"system_identifier":"7442190265218741297","postgres_major":15,"wal_segment_size":16777216}
//! ```

use super::judge::Offer;
use super::notes;
use super::repository::{Cluster, Deposited};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{PgMajor, SegmentSize, SystemIdentifier};
use bytes::Bytes;

/// The version of the repository's format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The identity of a cluster. Any difference makes it another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIdentity {
    /// Format of the repository.
    pub format: u32,
    /// The number `initdb` gave the cluster.
    pub system_identifier: SystemIdentifier,
    /// Major version of Postgres.
    pub postgres_major: PgMajor,
    /// Size of a WAL segment, in bytes.
    pub wal_segment_size: SegmentSize,
}

/// Why bytes are no identity of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoIdentity {
    /// Empty or no JSON at all: nobody could ever have read anything from it.
    Worthless(String),
    /// JSON, but not an identity.
    Foreign(String),
    /// An identity of a format that this version does not know.
    Format(u64),
}

impl ClusterIdentity {
    /// The identity of a cluster, in the format that this version writes.
    pub fn new(
        system_identifier: SystemIdentifier,
        postgres_major: PgMajor,
        wal_segment_size: SegmentSize,
    ) -> ClusterIdentity {
        ClusterIdentity { format: FORMAT, system_identifier, postgres_major, wal_segment_size }
    }

    /// The exact bytes of `cluster.json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { format, system_identifier, postgres_major, wal_segment_size } = self;
        format!(
            "{{\"format\":{format},\"system_identifier\":\"{system_identifier}\",\"postgres_major\":{postgres_major},\
             \"wal_segment_size\":{}}}\n",
            wal_segment_size.bytes()
        )
        .into_bytes()
    }

    /// Reads an identity: any JSON of these four fields and no other.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NoIdentity> {
        if bytes.is_empty() {
            return Err(NoIdentity::Worthless("it is empty".to_owned()));
        }
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| NoIdentity::Worthless(format!("it is no JSON: {error}")))?;
        // The format first: what the other fields of an unknown one mean is not ours to say.
        match json.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(NoIdentity::Format(format)),
            None => return Err(NoIdentity::Foreign("it has no number called format".to_owned())),
        }
        serde_json::from_value(json).map_err(|error| NoIdentity::Foreign(error.to_string()))
    }

    /// Whether the identity found in the repository is this one; else `Mismatch`, naming both values of what differs.
    pub fn compare(&self, found: &ClusterIdentity) -> Result<()> {
        let pairs = [
            ("format", u64::from(found.format), u64::from(self.format)),
            ("system identifier", found.system_identifier.0, self.system_identifier.0),
            ("Postgres major version", found.postgres_major.0.into(), self.postgres_major.0.into()),
            ("WAL segment size", found.wal_segment_size.bytes(), self.wal_segment_size.bytes()),
        ];
        let differences: Vec<String> = pairs
            .iter()
            .filter(|(_, there, here)| there != here)
            .map(|(what, there, here)| format!("{what} {there} there, {here} here"))
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Mismatch, format!("the repository is another cluster's: {}", differences.join("; ")))
            .hint("use a new prefix in WALHALLA_STORAGE for this cluster"))
    }
}

impl NoIdentity {
    /// As an error about the object at `place`.
    pub(super) fn into_error(self, place: &str) -> Error {
        match self {
            Self::Worthless(why) | Self::Foreign(why) => {
                Error::new(ErrorKind::Corrupt, format!("{place} is no identity of a cluster: {why}"))
                    .hint("run walhalla init on the database server, which replaces it if nobody could have read it")
            }
            Self::Format(format) => Error::new(
                ErrorKind::Config,
                format!("{place} is of repository format {format}, and this version knows format {FORMAT} only"),
            )
            .hint("use a newer version of Walhalla"),
        }
    }
}

const NOTE: &str = "identity";

impl Cluster {
    /// Reads `cluster.json`. `NotFound` if there is none; damaged, or of another format: `Corrupt`, `Config`; of another
    /// cluster than the folder it lies in: `Mismatch`.
    pub async fn identity(&self) -> Result<ClusterIdentity> {
        let key = self.layout.identity();
        let object = self.get(&key).await?;
        let place = self.place(&key);
        let identity = ClusterIdentity::parse(&object.body).map_err(|defect| defect.into_error(&place))?;
        if identity.system_identifier != self.layout.system() {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{place} names cluster {}, not that of its folder", identity.system_identifier),
            )
            .hint("the folder was copied or renamed: put it back under its cluster's own number"));
        }
        Ok(identity)
    }

    /// Makes sure that `cluster.json` is there and says exactly this; writes it where it is missing, and says what was done. Any
    /// difference: `Mismatch`.
    ///
    /// Remembered in the spool, so that the steady state costs no request. Should somebody remove it meanwhile, that is noticed
    /// within a week, or by [`Self::confirm_identity`]. A local storage, which answers for nothing, is looked at each time: one
    /// that has lost its `cluster.json` is a volume that is not mounted, and is not filled (`Config`).
    pub async fn ensure_identity(&self, identity: &ClusterIdentity) -> Result<Deposited> {
        if identity.system_identifier != self.layout.system() {
            let folder = self.layout.system();
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("cluster {} does not belong into the folder of {folder}", identity.system_identifier),
            ));
        }
        let about = self.note_about();
        let spool = self.spool.as_ref();
        if self.is_local() {
            if self.is_still_there(identity).await? {
                return Ok(Deposited::Already);
            }
        } else if notes::recall::<ClusterIdentity>(spool, NOTE, &about).as_ref() == Some(identity) {
            return Ok(Deposited::Already);
        }
        let offer = Offer::identity(self.place(&self.layout.identity()), self.layout.identity(), *identity);
        let deposited = self.store(&offer).await?.deposited;
        notes::remember(spool, NOTE, &about, *identity);
        Ok(deposited)
    }

    /// Whether this is a directory of this host, which the kernel presents whether its volume is mounted or not.
    pub(super) fn is_local(&self) -> bool {
        self.storage.capabilities().is_some()
    }

    /// Whether `cluster.json` says this, where it was stored before. `false` where nothing is known of it, or it is damaged:
    /// storing it decides.
    async fn is_still_there(&self, identity: &ClusterIdentity) -> Result<bool> {
        if notes::recall_ever::<ClusterIdentity>(self.spool.as_ref(), NOTE, &self.note_about()).is_none() {
            return Ok(false);
        }
        match self.identity().await {
            Ok(found) => identity.compare(&found).map(|()| true),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let place = self.place(&self.layout.identity());
                let message = format!("{place} was there before, and is not there now: nothing is stored");
                let hint = "is the volume mounted? If the repository was removed on purpose, run walhalla init";
                Err(Error::new(ErrorKind::Config, message).hint(hint))
            }
            Err(error) => Err(error),
        }
    }

    /// [`Self::ensure_identity`] by the storage's own word, whatever the spool remembers: for whoever can spare a request, as a
    /// backup can, which nobody could restore without the identity.
    pub async fn confirm_identity(&self, identity: &ClusterIdentity) -> Result<Deposited> {
        // A local storage is looked at anyway; the note tells it from a mount point without its volume.
        if !self.is_local() {
            notes::forget(self.spool.as_ref(), NOTE, &self.note_about());
        }
        self.ensure_identity(identity).await
    }

    /// Forgets what the spool remembers of this cluster's identity and of its storage: the next call asks the storage itself.
    pub fn forget_notes(&self) {
        notes::forget(self.spool.as_ref(), NOTE, &self.note_about());
        self.forget_capabilities();
    }

    fn note_about(&self) -> String {
        format!("{} {}", self.layout.system(), self.storage.location())
    }
}

impl Offer {
    /// The identity, to be stored as `cluster.json`.
    pub(super) fn identity(place: String, key: crate::storage::Key, identity: ClusterIdentity) -> Self {
        Self::new(place, key, Bytes::from(identity.to_bytes()), super::judge::Content::Identity(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Repository;
    use super::super::testing::{Personality, SYSTEM, Shelf, cluster, identity, spool};
    use super::*;
    use crate::storage::Storage;
    use std::sync::Arc;

    const KEY: &str = "7/cluster.json";

    #[test]
    fn exact_bytes() {
        let identity = ClusterIdentity::new(
            SystemIdentifier(7_442_190_265_218_741_297),
            PgMajor(15),
            SegmentSize::new(16 << 20).unwrap(),
        );
        let bytes = identity.to_bytes();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\"format\":1,\"system_identifier\":\"7442190265218741297\",\"postgres_major\":15,\
             \"wal_segment_size\":16777216}\n"
        );
        assert_eq!(ClusterIdentity::parse(&bytes), Ok(identity));
        assert_eq!(bytes, [serde_json::to_vec(&identity).unwrap(), b"\n".to_vec()].concat());
    }

    #[test]
    fn every_difference_is_named() {
        let here = identity();
        let there = ClusterIdentity {
            format: 1,
            system_identifier: SystemIdentifier(8),
            postgres_major: PgMajor(16),
            wal_segment_size: SegmentSize::new(1 << 20).unwrap(),
        };
        let error = here.compare(&there).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let line = error.to_string();
        for part in ["identifier 8 there, 7 here", "version 16 there, 15 here", "size 1048576 there, 16777216 here"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.contains("use a new prefix"), "{line}");
        assert!(here.compare(&here).is_ok());
    }

    #[tokio::test]
    async fn read() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let cluster = cluster(&shelf);
        assert_eq!(cluster.identity().await.unwrap_err().kind(), ErrorKind::NotFound);
        shelf.place(KEY, identity().to_bytes());
        assert_eq!(cluster.identity().await.unwrap(), identity());
        for (content, kind) in [
            ("", ErrorKind::Corrupt),
            ("{\"format\":1", ErrorKind::Corrupt),
            ("[]", ErrorKind::Corrupt),
            ("{\"format\":\"1\"}", ErrorKind::Corrupt),
            ("{\"format\":2,\"whatever\":[]}", ErrorKind::Config),
            (
                "{\"format\":1,\"system_identifier\":\"8\",\"postgres_major\":15,\"wal_segment_size\":16777216}",
                ErrorKind::Mismatch,
            ),
            (
                "{\"format\":1,\"system_identifier\":\"7\",\"postgres_major\":15,\"wal_segment_size\":16777217}",
                ErrorKind::Corrupt,
            ),
        ] {
            shelf.place(KEY, content);
            assert_eq!(cluster.identity().await.unwrap_err().kind(), kind, "{content}");
        }
        shelf.remove(KEY, true);
        assert_eq!(cluster.identity().await.unwrap_err().kind(), ErrorKind::Gap);
    }

    #[tokio::test]
    async fn written_once_and_then_remembered() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let (_dir, spool) = spool();
        let repository = Repository::new(Arc::clone(&shelf) as Arc<dyn Storage>, Some(spool));
        let cluster = repository.cluster(SYSTEM);
        cluster.probe().await.unwrap();
        shelf.requests();
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::New);
        assert_eq!(shelf.body(KEY).unwrap(), identity().to_bytes());
        assert_eq!(shelf.requests(), ["PUT create 7/cluster.json"]);
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::Already);
        assert_eq!(shelf.requests(), [""; 0], "the steady state costs no request");

        // What the note does not say is asked of the storage, whatever the note says.
        let other = ClusterIdentity { postgres_major: PgMajor(16), ..identity() };
        assert_eq!(cluster.ensure_identity(&other).await.unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(shelf.body(KEY).unwrap(), identity().to_bytes());
        shelf.requests();
        cluster.forget_notes();
        cluster.ensure_identity(&identity()).await.unwrap();
        let requests = shelf.requests();
        assert!(requests.ends_with(&["PUT create 7/cluster.json".to_owned(), "GET 7/cluster.json".to_owned()]));

        // Somebody emptied the bucket: the note does not know, the storage does.
        shelf.remove(KEY, false);
        cluster.ensure_identity(&identity()).await.unwrap();
        assert_eq!(shelf.body(KEY), None);
        cluster.confirm_identity(&identity()).await.unwrap();
        assert_eq!(shelf.body(KEY).unwrap(), identity().to_bytes());
        shelf.remove(KEY, false);
        cluster.probe().await.unwrap();
        cluster.ensure_identity(&identity()).await.unwrap();
        assert_eq!(shelf.body(KEY).unwrap(), identity().to_bytes(), "init and check ask the storage itself");

        let error = repository.cluster(SystemIdentifier(8)).ensure_identity(&identity()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }

    /// A directory is there whether its volume is mounted or not.
    #[tokio::test]
    async fn a_local_storage_that_lost_it_is_not_filled() {
        let shelf = Arc::new(Shelf::new(Personality::HONEST));
        let (_dir, spool) = spool();
        let repository = Repository::new(Arc::clone(&shelf) as Arc<dyn Storage>, Some(spool));
        let cluster = repository.cluster(SYSTEM);
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::New);
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::Already);
        assert_eq!(shelf.requests(), ["PUT create 7/cluster.json", "GET 7/cluster.json"]);

        shelf.remove(KEY, false);
        for _ in 0..2 {
            let answers = [cluster.ensure_identity(&identity()).await, cluster.confirm_identity(&identity()).await];
            for error in answers.map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::Config);
                let line = error.to_string();
                assert!(line.contains("volume mounted") && line.contains("walhalla init"), "{line}");
            }
        }
        assert_eq!(shelf.keys(), [""; 0]);
        // Mounted again; damaged; another's.
        shelf.place(KEY, identity().to_bytes());
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::Already);
        shelf.place(KEY, "");
        let replaced = cluster.ensure_identity(&identity()).await.unwrap();
        assert_eq!(replaced, Deposited::Replaced("it is empty".to_owned()));
        let resized = ClusterIdentity { wal_segment_size: SegmentSize::new(64 << 20).unwrap(), ..identity() };
        assert_eq!(cluster.ensure_identity(&resized).await.unwrap_err().kind(), ErrorKind::Mismatch);
        // On purpose.
        shelf.remove(KEY, false);
        cluster.forget_notes();
        assert_eq!(cluster.ensure_identity(&identity()).await.unwrap(), Deposited::New);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worthless_one_is_replaced_whatever_the_store_can() {
        for personality in [Personality::HONEST, Personality::IGNORING] {
            for worthless in ["", "{\"format\":1,\"sys"] {
                let shelf = Arc::new(Shelf::new(personality));
                shelf.place(KEY, worthless);
                let cluster = cluster(&shelf);
                let offer = Offer::identity(KEY.to_owned(), cluster.layout.identity(), identity());
                assert!(matches!(cluster.store(&offer).await.unwrap().deposited, Deposited::Replaced(_)));
                assert_eq!(shelf.body(KEY).unwrap(), identity().to_bytes());
            }
            for kept in ["{\"format\":2}", "{\"format\":1}"] {
                let shelf = Arc::new(Shelf::new(personality));
                shelf.place(KEY, kept);
                assert!(cluster(&shelf).ensure_identity(&identity()).await.is_err());
                assert_eq!(shelf.body(KEY).unwrap(), kept);
            }
        }
    }
}
