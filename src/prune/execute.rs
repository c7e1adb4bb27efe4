//! Carrying a plan out.

use super::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::reach::Source;
use crate::repo::{BackupId, Cluster};
use crate::storage::{self, Entry, Key};
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// How much was deleted, or will be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// Objects.
    pub objects: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
}

impl Done {
    fn add(&mut self, entry: &Entry) {
        self.objects += 1;
        self.bytes += entry.size;
    }
}

/// How much a plan deletes. Lists everything that goes, so that whatever cannot be listed is met before the first delete.
pub async fn measure(source: &Source, plan: &Plan) -> Result<Done> {
    let mut measured = Done::default();
    for group in groups(&source.cluster, plan) {
        storage::each_page(source.cluster.storage(), &group.prefix, |page| {
            page.iter().filter(|entry| group.goes(plan, &entry.key)).for_each(|entry| measured.add(entry));
        })
        .await?;
    }
    Ok(measured)
}

/// Deletes what goes, and shows how far it is. It may be interrupted and begun anew at any moment: a backup loses its manifest, by
/// which it exists, first of all; WAL goes from the oldest on, so that no hole comes about.
pub async fn execute(source: &Source, plan: &Plan, mut show: impl FnMut(&Done)) -> Result<Done> {
    let mut done = Done::default();
    let cluster = &source.cluster;
    for backup in plan.backups.iter().filter(|backup| backup.goes()) {
        let manifest = cluster.layout().backup_manifest(&backup.id);
        let found = storage::list_all(cluster.storage(), manifest.as_str()).await?;
        delete_together(cluster, &found).await?;
        found.iter().for_each(|entry| done.add(entry));
    }
    for group in groups(cluster, plan) {
        let mut going = Vec::new();
        storage::each_page(cluster.storage(), &group.prefix, |page| {
            going.extend(page.into_iter().filter(|entry| group.goes(plan, &entry.key)));
        })
        .await?;
        going.sort_by(|a, b| a.key.cmp(&b.key));
        going.dedup_by(|a, b| a.key == b.key);
        for some in going.chunks(source.concurrency.max(1)) {
            delete_together(cluster, some).await?;
            some.iter().for_each(|entry| done.add(entry));
            show(&done);
        }
    }
    Ok(done)
}

async fn delete_together(cluster: &Cluster, entries: &[Entry]) -> Result<()> {
    let mut deleting = JoinSet::new();
    for entry in entries {
        let (cluster, key) = (cluster.clone(), entry.key.clone());
        deleting.spawn(async move { delete(&cluster, &key).await });
    }
    while let Some(deleted) = deleting.join_next().await {
        deleted.map_err(|error| Error::new(ErrorKind::Bug, "cannot delete").because(error))??;
    }
    Ok(())
}

async fn delete(cluster: &Cluster, key: &Key) -> Result<()> {
    cluster.storage().delete(key).await.map_err(|error| {
        let error = Error::from(error);
        match error.kind() {
            ErrorKind::Denied => error.hint("prune needs credentials that may delete (docs/storage.md)"),
            _ => error,
        }
    })
}

/// Objects that lie together.
struct Group {
    prefix: String,
    what: What,
}

enum What {
    /// All of a backup.
    Backup,
    /// The WAL of a timeline.
    Wal,
    /// The claims on keys.
    Claims(BTreeSet<BackupId>),
}

impl Group {
    fn goes(&self, plan: &Plan, key: &Key) -> bool {
        match &self.what {
            What::Backup => true,
            What::Wal => wal_goes(plan, key.name()),
            What::Claims(backups) => {
                // claim/<timeline>/<name>/<hash>, claim/backup/<id>/…/<hash>
                let mut parts = key.as_str().strip_prefix(&self.prefix).unwrap_or_default().split('/');
                match (parts.next(), parts.next()) {
                    (Some("backup"), Some(id)) => id.parse().is_ok_and(|id| backups.contains(&id)),
                    (Some(_), Some(name)) => wal_goes(plan, name),
                    _ => false,
                }
            }
        }
    }
}

/// Whether the object of this name goes. A name that says nothing stays.
fn wal_goes(plan: &Plan, name: &str) -> bool {
    // What lies beside the first of its name has the hash of its content behind it.
    let name = match name.rsplit_once('-') {
        Some((first, hash)) if hash.len() == 64 => first,
        _ => name,
    };
    name.parse::<WalFileName>().is_ok_and(|name| !plan.wal.stays(&name))
}

/// In the order in which they go: backups, WAL, and the claims on what went.
fn groups(cluster: &Cluster, plan: &Plan) -> Vec<Group> {
    let layout = cluster.layout();
    let backups = plan.gone().map(|id| Group { prefix: layout.backup(id), what: What::Backup });
    let wal = plan.wal.timelines().map(|timeline| Group { prefix: layout.wal_of(timeline), what: What::Wal });
    let claims = Group { prefix: layout.claims(), what: What::Claims(plan.gone().cloned().collect()) };
    backups.chain(wal).chain([claims]).collect()
}
