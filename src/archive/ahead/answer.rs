//! A call whose file went ahead of it: answered from its marker.

use super::marker::{Marker, seconds};
use super::markers::Markers;
use crate::archive::source::Source;
use crate::codec::ContentHash;
use crate::error::{Error, ErrorKind, Result};
use crate::repo::{Cluster, ClusterIdentity, Presence};
use std::io::Read;
use std::time::SystemTime;

/// How much is read at once.
const PIECE: usize = 128 << 10;

/// What a marker is worth to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) enum Word {
    /// There is none for this content.
    None,
    /// The storage said so just now.
    Fresh,
    /// It must be asked again.
    Stale,
}

/// What the marker says of exactly this file, as it is now. One that speaks of other content is removed.
pub(in crate::archive) async fn word(markers: &Markers, marker: &Marker, file: Source) -> Result<Word> {
    let name = file.name;
    let hash = tokio::task::spawn_blocking(move || hash(file))
        .await
        .map_err(|cause| Error::new(ErrorKind::Bug, "cannot hash the file").because(cause))??;
    if hash != marker.hash {
        markers.remove(&name);
        return Ok(Word::None);
    }
    let now = SystemTime::now();
    if marker.is_from_the_future(now) {
        markers.remove(&name);
    }
    Ok(if marker.is_fresh(now) { Word::Fresh } else { Word::Stale })
}

fn hash(file: Source) -> Result<ContentHash> {
    let name = file.name;
    let mut reader = file.into_reader();
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(ContentHash(*hasher.finalize().as_bytes())),
            Ok(read) => hasher.update(&piece[..read]),
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(Error::new(ErrorKind::LocalIo, format!("cannot read {name}")).because(cause)),
        };
    }
}

/// Whether the storage still has what the marker says, by its own word: one look for all markers at once, which confirms or
/// removes each; where that is not enough for this one, its object is read back. `false`: it is to be stored, which decides; so it
/// is after an error, which says that the storage did not answer.
pub(in crate::archive) async fn is_confirmed(
    cluster: &Cluster,
    identity: &ClusterIdentity,
    markers: &Markers,
    marker: &Marker,
    file: &Source,
) -> Result<bool> {
    // A directory that lost its identity is a volume that is not mounted.
    cluster.ensure_identity(identity).await?;
    match confirm(cluster, markers, marker).await {
        Ok(Presence::Same) => Ok(true),
        // No right to list, perhaps.
        Ok(Presence::Unclear) | Err(_) => cluster.holds_wal(&marker.name, file.subject, file.length, marker.hash).await,
        Ok(Presence::Absent) => {
            markers.remove(&marker.name);
            Ok(false)
        }
    }
}

/// Confirms all markers, and says what became of this one.
async fn confirm(cluster: &Cluster, markers: &Markers, marker: &Marker) -> Result<Presence> {
    let mut all = markers.all();
    // It was read before, and may have vanished meanwhile.
    all.retain(|other| other.name != marker.name);
    all.insert(0, marker.clone());
    let asked: Vec<_> = all.iter().map(|marker| (marker.name, marker.receipt.clone())).collect();
    // What the answer says was so when it was asked, at the latest.
    let now = seconds(SystemTime::now());
    let found = cluster.confirm_wal(&asked).await?;
    for (mut other, presence) in all.into_iter().zip(&found).skip(1) {
        match presence {
            Presence::Same => {
                other.confirmed = now;
                // Not confirmed, as far as the next call will know.
                drop(markers.write(&other));
            }
            Presence::Absent => markers.remove(&other.name),
            // Its own turn reads it back.
            Presence::Unclear => {}
        }
    }
    Ok(found.first().copied().unwrap_or(Presence::Unclear))
}
