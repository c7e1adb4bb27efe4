//! One file out of the repository: asked for, verified, and only then there.

use super::source::LONGEST_TEXT;
use crate::codec::{self, Identities, Subject};
use crate::durable::{self, Staged};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SegmentSize, WalFileName};
use crate::repo::Cluster;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A temporary file of ours that is older than this belongs to no running call.
pub(super) const ABANDONED: Duration = Duration::from_secs(3600);

/// What is wanted, and what its object must say to be it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: WalFileName,
    pub(super) subject: Subject,
    pub(super) segment_size: SegmentSize,
    /// `%p`.
    pub(super) destination: PathBuf,
}

/// What the store says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is at its destination, whole and verified.
    Delivered,
    /// There is no such key. Nothing is proven by that alone.
    NoSuchKey,
}

/// Asks for the object of the file, with one request. `None` is the store's own "no such key", and nothing else is.
pub(super) async fn ask(cluster: &Cluster, wanted: &Wanted) -> Result<Option<Bytes>> {
    match cluster.get(&cluster.layout().wal(&wanted.name)).await {
        Ok(object) => Ok(Some(object.body)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Verifies the object, and delivers the file.
pub(super) async fn write(object: Bytes, cluster: &Cluster, identities: &Identities, wanted: &Wanted) -> Result<()> {
    let place = format!("{} in {}", cluster.layout().wal(&wanted.name), cluster.storage().location());
    let (wanted, identities) = (wanted.clone(), identities.clone());
    tokio::task::spawn_blocking(move || write_out(&object, &identities, &wanted, &place))
        .await
        .map_err(|cause| Error::new(ErrorKind::Bug, "cannot deliver the file").because(cause))?
}

/// Verifies the object and writes its plain bytes: under a temporary name, renamed when all of it is proven. Postgres syncs
/// the file itself.
fn write_out(object: &Bytes, identities: &Identities, wanted: &Wanted, place: &str) -> Result<()> {
    let header = codec::header_of(object).map_err(|defect| Error::from(defect).context(place))?;
    if header.subject != wanted.subject {
        let (theirs, ours) = (header.subject, wanted.subject);
        let text = format!(
            "{place} is not the file that its key says: it holds {:?} of cluster {}, timeline {}, position {}, \
             and {} is of cluster {}, timeline {}, position {}",
            theirs.kind,
            theirs.system_identifier,
            theirs.timeline,
            theirs.start,
            wanted.name,
            ours.system_identifier,
            ours.timeline,
            ours.start
        );
        return Err(Error::new(ErrorKind::Mismatch, text));
    }
    check_length(header.plain_length, wanted, place)?;
    // Whatever is missing here, it is not the object: `NotFound` has one meaning in this room.
    let local = |error: Error| error.with_kind(ErrorKind::LocalIo);
    let mut staged = Staged::beside(&wanted.destination, 0o600).map_err(local)?;
    codec::decode(object, identities, &mut staged).map_err(|error| error.context(place))?;
    staged.publish_unsynced().map_err(local)
}

/// What an object says of its length bounds what is written into `pg_wal`: a full volume there stops the server.
fn check_length(length: u64, wanted: &Wanted, place: &str) -> Result<()> {
    let refusal = match wanted.name {
        WalFileName::Segment(_) | WalFileName::Partial(_) => {
            let expected = wanted.segment_size.bytes();
            (length != expected).then(|| format!("and a segment of this cluster has {expected}"))
        }
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => {
            (length > LONGEST_TEXT).then(|| format!("which is too long for {}", wanted.name))
        }
    };
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(Error::new(ErrorKind::Mismatch, format!("{place} holds {length} bytes, {refusal}"))),
    }
}

/// Removes temporary files of calls that were killed while they wrote: what nobody has written to for longer than `untouched`.
pub(super) fn sweep(destination: &Path, untouched: Duration) {
    let Some(entries) = destination.parent().and_then(|directory| std::fs::read_dir(directory).ok()) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(durable::TEMPORARY_PREFIX));
        let is_old = || {
            let written = entry.metadata().ok()?.modified().ok()?;
            Some(SystemTime::now().duration_since(written).ok()? > untouched)
        };
        if is_ours && is_old() == Some(true) {
            std::fs::remove_file(entry.path()).unwrap_or(()); // The next call tries again.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::subject_of;
    use super::*;
    use crate::codec::Encoding;
    use crate::pg::SystemIdentifier;

    fn written(name: &str, length: usize) -> (tempfile::TempDir, Result<()>) {
        let directory = tempfile::tempdir().unwrap();
        let (name, segment_size) = (name.parse().unwrap(), SegmentSize::new(1 << 20).unwrap());
        let subject = subject_of(&name, SystemIdentifier(7), segment_size).unwrap();
        let encoding = Encoding { level: 1, recipients: crate::codec::Recipients::default() };
        let object = codec::encode_bytes(&vec![b'x'; length], subject, &encoding).unwrap();
        let wanted = Wanted { name, subject, segment_size, destination: directory.path().join("RECOVERY") };
        let result = write_out(&object.bytes, &Identities::default(), &wanted, "the object");
        (directory, result)
    }

    #[test]
    fn no_more_is_written_than_a_file_of_this_name_can_have() {
        let (segment, history, backup) =
            ("000000010000000000000002", "00000002.history", "000000010000000000000002.00000028.backup");
        let text = usize::try_from(LONGEST_TEXT).unwrap();
        for (name, length, said) in [
            (segment, 1 << 20, None),
            (segment, (1 << 20) + 1, Some("a segment of this cluster has 1048576")),
            (segment, 100, Some("a segment of this cluster has 1048576")),
            (history, text, None),
            (history, text + 1, Some("holds 1048577 bytes, which is too long for 00000002.history")),
            (backup, text, None),
            (backup, text + 1, Some("too long")),
        ] {
            let (directory, result) = written(name, length);
            let left = std::fs::read_dir(directory.path()).unwrap().count();
            match said {
                None => assert!(result.is_ok() && left == 1, "{name} {length}: {result:?}"),
                Some(said) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Mismatch);
                    assert!(error.to_string().contains(said), "{error}");
                    assert_eq!(left, 0);
                }
            }
        }
    }
}
