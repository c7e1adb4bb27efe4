//! No false success: whatever the server believes archived is in the store, whole, and its own.

use super::world::{Primary, World};
use std::path::Path;
use std::time::Duration;
use walhalla::codec::{Identities, plain_of};
use walhalla::pg::{Lsn, SegmentName, SegmentSize, SystemIdentifier, WalFileName};
use walhalla::repo::Layout;

/// The segments of all servers here.
pub(super) const SEGMENT: u64 = 1 << 20;

/// The names below `archive_status` with this ending, without it.
pub(super) fn files(data: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(data.join("pg_wal/archive_status")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect();
    names.sort();
    names
}

/// Looks again and again until the world ends.
pub(super) fn watch(world: &World) {
    while !world.is_over() {
        look(world);
        world.sleep(Duration::from_millis(100));
    }
}

/// Holds every file that the primary calls archived against the store, each once.
pub(super) fn look(world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let primary = world.primary.read().unwrap();
    let data = primary.server.data();
    for name in files(data, ".done") {
        if primary.given.contains(&name) || primary.verified.lock().unwrap().contains(&name) {
            continue;
        }
        // Bytes that are there as long as the server calls the file by this name; it is recycled sooner or later.
        let local = std::fs::read(data.join("pg_wal").join(&name)).ok();
        let local = local.filter(|_| data.join("pg_wal").join(&name).exists());
        // The store itself may be down just now.
        let Some(stored) = runtime.block_on(stored(world, &name)) else { continue };
        primary.verified.lock().unwrap().insert(name.clone());
        match stored {
            Err(why) => world.figures.wrong(format!("{name} is called archived: {why}")),
            Ok(plain) if name.len() == 24 && plain.len() as u64 != SEGMENT => {
                world.figures.wrong(format!("{name} is archived with {} bytes", plain.len()));
            }
            Ok(plain) if local.as_ref().is_some_and(|local| *local != plain) => {
                world.figures.wrong(format!("{name} is archived with other content"));
            }
            Ok(_) => {
                let kind = if name.len() == 24 { "segments" } else { "others" };
                let how = if local.is_some() { "compared" } else { "verified" };
                world.figures.count("archived", format!("{kind} {how}"));
            }
        }
    }
}

/// The plain content of a WAL file in the store, or what is wrong with it; `None` where the store does not answer.
async fn stored(world: &World, name: &str) -> Option<Result<Vec<u8>, String>> {
    let parsed: WalFileName = name.parse().unwrap();
    let layout = Layout::new(world.system);
    let key = layout.wal(&parsed);
    let object = match world.storage.get(&key, None).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Some(Err(format!("{key} is not there"))),
        Err(_) => return None,
    };
    Some(match plain_of(&object.body, &Identities::default()) {
        Err(error) => Err(format!("{key}: {error}")),
        Ok((header, _)) if header.subject.system_identifier != world.system => Err(format!("{header:?}")),
        Ok((_, plain)) => Ok(plain),
    })
}

/// Up to where a primary believes its WAL archived, without a hole.
pub(super) fn archived_up_to(world: &World, primary: &Primary) -> Lsn {
    let size = SegmentSize::new(SEGMENT).unwrap();
    let mut archived = primary.verified.lock().unwrap().clone();
    archived.extend(files(primary.server.data(), ".done").into_iter().filter(|name| !primary.given.contains(name)));
    let segments = archived.iter().filter_map(|name| name.parse::<SegmentName>().ok());
    let newest = segments.filter(|name| name.timeline() == primary.timeline).max();
    let mut next = SegmentName::at(primary.timeline, primary.floor.max(world.first_backup), size);
    let mut end = primary.floor;
    // One that is older and gone was called archived, or it would still be there, and was gone before we looked.
    let gone = |name: &str| !primary.server.data().join("pg_wal").join(name).exists();
    while newest.is_some_and(|newest| next <= newest)
        && (archived.contains(&next.to_string()) || gone(&next.to_string()))
    {
        next = next.next(size).unwrap();
        end = next.start(size).unwrap();
    }
    end
}

/// The cluster's identifier, from its control file.
pub(super) fn system(data: &Path) -> SystemIdentifier {
    let control = std::fs::read(data.join("global/pg_control")).unwrap();
    SystemIdentifier(u64::from_le_bytes(control[..8].try_into().unwrap()))
}
