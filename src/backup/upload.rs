//! Objects on their way to the storage, several at once.

use super::budget::Share;
use crate::codec::Encoded;
use crate::error::{Error, ErrorKind, Result};
use crate::repo::{Cluster, Deposited};
use crate::storage::Key;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// An object and its place.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: Key,
    pub(super) object: Encoded,
    /// Its bytes of the budget; small objects take none.
    pub(super) share: Option<Share>,
}

/// Stores what comes until there is no more; how many bytes that were. The first failure ends it.
pub(super) async fn run(cluster: &Cluster, mut uploads: mpsc::Receiver<Upload>, at_once: usize) -> Result<u64> {
    let mut running = JoinSet::new();
    let mut stored = 0;
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            upload = uploads.recv(), if open && running.len() < at_once => match upload {
                Some(upload) => {
                    let cluster = cluster.clone();
                    running.spawn(async move { store(&cluster, upload).await });
                }
                None => open = false,
            },
            Some(outcome) = running.join_next(), if !running.is_empty() => {
                stored += outcome.map_err(|error| Error::new(ErrorKind::Bug, "storing ended").because(error))??;
            }
        }
    }
    Ok(stored)
}

/// Stores one object of a backup, under a key that is this backup's alone.
async fn store(cluster: &Cluster, upload: Upload) -> Result<u64> {
    let Upload { key, object, share } = upload;
    match cluster.deposit(&key, &object).await.map_err(|error| error.context(format!("storing {key}")))? {
        Deposited::Replaced(why) => {
            tracing::warn!("{key} replaced an object that nobody could have restored anything from ({why})");
        }
        Deposited::New | Deposited::Already | Deposited::Beside(_) => {}
    }
    let bytes = object.bytes.len() as u64;
    drop((object, share));
    Ok(bytes)
}
