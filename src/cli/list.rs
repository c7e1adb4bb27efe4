//! `walhalla list`: the backups, and from when to when each can be restored, computed from what is really there.

use super::{args, open, show};
use crate::error::{Error, Result};
use crate::reach::{Reach, Source, TargetTime, lineage, window};
use crate::repo::{BackupId, Catalog, Manifest};
use std::path::Path;

/// What `--json` prints; described in `docs/json.md`.
#[derive(Debug, serde::Serialize)]
struct Listing {
    system_identifier: String,
    storage: String,
    backups: Vec<Item>,
    /// Their manifest is there but cannot be believed.
    damaged: Vec<Broken>,
    /// No manifest: under way, or given up. No backups.
    unfinished: Vec<BackupId>,
}

#[derive(Debug, serde::Serialize)]
struct Item {
    #[serde(flatten)]
    manifest: Summary,
    /// How far one can go; absent where that could not be found out, and then `trouble` says why.
    reach: Option<Reach>,
    trouble: Option<String>,
}

#[derive(Debug, serde::Serialize)]
struct Summary {
    id: BackupId,
    label: String,
    postgres_major: u16,
    from_standby: bool,
    started_at: String,
    finished_at: String,
    start_lsn: String,
    end_lsn: String,
    timeline: u32,
    files: u64,
    bytes: u64,
    stored_bytes: u64,
    encrypted: bool,
    damaged_pages: Vec<String>,
}

#[derive(Debug, serde::Serialize)]
struct Broken {
    id: BackupId,
    why: String,
}

pub(super) async fn run(config: Option<&Path>, verb: args::List) -> Result<()> {
    let opened = open::open(config)?;
    let cluster = opened.cluster(verb.cluster.as_deref()).await?;
    cluster.identity().await?;
    let catalog = cluster.catalog().await?;
    let source =
        Source { cluster, identities: opened.settings.identities.clone(), concurrency: opened.settings.concurrency };
    let listing = listing(&source, catalog).await?;
    if verb.json {
        return show::json(&listing);
    }
    tell(&listing);
    Ok(())
}

async fn listing(source: &Source, catalog: Catalog) -> Result<Listing> {
    let lineages = lineage::lineages(source, &catalog.backups).await;
    let mut backups = Vec::new();
    for manifest in &catalog.backups {
        let reach = match &lineages {
            Ok(lineages) => window::reach(source, manifest, lineages).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (reach, trouble) = match reach {
            Ok(Some(reach)) => (Some(reach), None),
            Ok(None) => (None, Some("no timeline of the archive leads on from it".to_owned())),
            // Without the key, or with an object that is out of reach, the list itself is still worth having.
            Err(error) => (None, Some(error)),
        };
        backups.push(Item { manifest: summary(manifest), reach, trouble });
    }
    Ok(Listing {
        system_identifier: source.cluster.layout().system().to_string(),
        storage: source.cluster.storage().location().to_owned(),
        backups,
        damaged: catalog
            .damaged
            .into_iter()
            .map(|damaged| Broken { id: damaged.id, why: damaged.why.to_string() })
            .collect(),
        unfinished: catalog.unfinished,
    })
}

fn summary(manifest: &Manifest) -> Summary {
    Summary {
        id: manifest.id.clone(),
        label: manifest.label.clone(),
        postgres_major: manifest.postgres_major.0,
        from_standby: manifest.from_standby,
        started_at: manifest.started_at.clone(),
        finished_at: manifest.finished_at.clone(),
        start_lsn: manifest.start_lsn.to_string(),
        end_lsn: manifest.end_lsn.to_string(),
        timeline: manifest.end_timeline.get(),
        files: manifest.files,
        bytes: manifest.tar_bytes,
        stored_bytes: manifest.stored_bytes,
        encrypted: manifest.encrypted,
        damaged_pages: manifest.damaged.clone(),
    }
}

fn tell(listing: &Listing) {
    if listing.backups.is_empty() {
        show::line(&format!("no backups of cluster {} in {}", listing.system_identifier, listing.storage));
    } else {
        let heading = ["BACKUP", "SIZE", "STORED", "RESTORES FROM", "TO", "TIMELINE", ""];
        let rows: Vec<_> = listing.backups.iter().map(row).collect();
        show::line(&show::table(&heading, &rows));
    }
    for item in &listing.backups {
        if let Some(hole) = item.reach.as_ref().and_then(|reach| reach.chain.hole.as_ref()) {
            show::note(&format!(
                "gap behind {}: {} is missing, while {} is there; nothing behind it can be restored from this backup",
                item.manifest.id, hole.missing, hole.next
            ));
        }
        if let Some(trouble) = &item.trouble {
            show::note(&format!("how far {} reaches is not known: {trouble}", item.manifest.id));
        }
    }
    for damaged in &listing.damaged {
        show::note(&format!("damaged: {} is no backup any more: {}", damaged.id, damaged.why));
    }
    for id in &listing.unfinished {
        show::note(&format!("unfinished: {id} is under way, or was given up; it is no backup"));
    }
}

fn row(item: &Item) -> Vec<String> {
    let manifest = &item.manifest;
    let until = match &item.reach {
        None => "?".to_owned(),
        Some(reach) => match &reach.window.until {
            Some(last) => last.time.to_string(),
            None => format!("at least then ({})", reach.window.end),
        },
    };
    let marks = [
        (!manifest.damaged_pages.is_empty(), "damaged pages"),
        (item.reach.as_ref().is_some_and(|reach| reach.chain.hole.is_some()), "gap"),
        (manifest.encrypted, "encrypted"),
        (manifest.from_standby, "standby"),
    ];
    let marks: Vec<_> = marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect();
    vec![
        manifest.id.to_string(),
        show::bytes(manifest.bytes),
        show::bytes(manifest.stored_bytes),
        moment(&manifest.finished_at),
        until,
        item.reach.as_ref().map_or(manifest.timeline, |reach| reach.timeline.get()).to_string(),
        marks.join(", "),
    ]
}

/// A manifest's moment in the words of the table's other one.
fn moment(text: &str) -> String {
    TargetTime::from_manifest(text).map_or_else(|_: Error| text.to_owned(), |time| time.to_string())
}
