//! Objects on their way to the storage: several at once, a bounded number of bytes.

use crate::codec::Encoded;
use crate::error::{Error, ErrorKind, Result};
use crate::repo::{Cluster, Deposited};
use crate::storage::Key;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many bytes may be under way at once; one object may always be.
const IN_FLIGHT: usize = 40 << 20;

/// An object and its place.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: Key,
    pub(super) object: Encoded,
}

/// Stores what comes until there is no more; how many bytes that were. The first failure ends it.
pub(super) async fn run(cluster: &Cluster, mut uploads: mpsc::Receiver<Upload>, at_once: usize) -> Result<u64> {
    let mut running = JoinSet::new();
    let (mut in_flight, mut stored) = (0, 0);
    let mut open = true;
    while open || !running.is_empty() {
        let room = running.is_empty() || (running.len() < at_once && in_flight < IN_FLIGHT);
        tokio::select! {
            upload = uploads.recv(), if open && room => match upload {
                Some(upload) => {
                    in_flight += upload.object.bytes.len();
                    let cluster = cluster.clone();
                    running.spawn(async move { store(&cluster, &upload).await });
                }
                None => open = false,
            },
            Some(outcome) = running.join_next(), if !running.is_empty() => {
                let bytes = outcome.map_err(|error| Error::new(ErrorKind::Bug, "storing ended").because(error))??;
                in_flight -= bytes;
                stored += bytes as u64;
            }
        }
    }
    Ok(stored)
}

/// Stores one object of a backup, under a key that is this backup's alone.
pub(super) async fn store(cluster: &Cluster, upload: &Upload) -> Result<usize> {
    let Upload { key, object } = upload;
    match cluster.deposit(key, object).await.map_err(|error| error.context(format!("storing {key}")))? {
        Deposited::Replaced(why) => {
            tracing::warn!("{key} replaced an object that nobody could have restored anything from ({why})");
        }
        Deposited::New | Deposited::Already | Deposited::Beside(_) => {}
    }
    Ok(object.bytes.len())
}
