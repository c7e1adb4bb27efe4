//! What a backup consists of, and whether all of it is there: known before the first byte is written.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::reach::source::Source;
use crate::repo::index::{MemberKind, Record};
use crate::repo::manifest::Manifest;
use crate::storage::{Key, ListRequest};
use std::collections::BTreeMap;

/// What the index tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Inventory {
    /// Bytes that the files of each archive take on a disk, and how many there are.
    pub archives: BTreeMap<String, Extent>,
    /// The base archive has a `postgresql.conf`.
    pub has_configuration: bool,
    /// Data directory and files are readable for the group.
    pub group_access: bool,
}

/// How much an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// Bytes, each file rounded up to whole blocks of a disk.
    pub on_disk: u64,
    /// Regular files.
    pub files: u64,
}

/// Stored sizes of a backup's objects, as the listing shows them: 8 bytes each, 0 for what is missing.
#[derive(Debug, Default)]
struct Listed {
    data: BTreeMap<String, Vec<u64>>,
    index: Vec<u64>,
    pg_manifest: Vec<u64>,
    wal: Vec<String>,
}

/// What is missing, told by its first key.
#[derive(Debug, Default)]
struct Missing {
    first: Option<String>,
    count: u64,
}

impl Missing {
    fn note(&mut self, key: &Key, why: &str) {
        self.first.get_or_insert_with(|| format!("{key} {why}"));
        self.count += 1;
    }

    fn into_result(self, backup: &Manifest) -> Result<()> {
        let Some(first) = self.first else { return Ok(()) };
        let more = match self.count {
            1 => String::new(),
            count => format!(", and {} more", count - 1),
        };
        Err(Error::new(ErrorKind::Gap, format!("backup {} is not whole: {first}{more}", backup.id))
            .hint("nothing was written; restore from another backup with --backup"))
    }
}

/// Goes once through listing and index. Each object that the backup names must be there with the size it names.
pub(super) async fn take(source: &Source, backup: &Manifest) -> Result<Inventory> {
    let listed = list(source, backup).await?;
    let mut missing = Missing::default();
    check_small_objects(source, backup, &listed, &mut missing);
    if missing.count > 0 {
        return missing.into_result(backup).map(|()| Inventory::default());
    }
    let mut inventory = Inventory::default();
    let mut archive = String::new();
    for number in 0..part_count(backup)? {
        for record in source.index_part(backup, number).await? {
            match record {
                Record::Archive(name) => {
                    inventory.archives.entry(name.clone()).or_default();
                    archive = name;
                }
                Record::File(member) => inventory.count(&archive, &member),
                Record::Sum(_) => {}
                Record::Data(object) => {
                    let sizes = listed.data.get(&archive);
                    let size = sizes.and_then(|sizes| sizes.get(object.number as usize)).copied().unwrap_or(0);
                    let key = source.cluster.layout().backup_data(&backup.id, &archive, object.number);
                    check_size(&key, size, object.size, &mut missing);
                }
            }
        }
    }
    missing.into_result(backup)?;
    Ok(inventory)
}

impl Inventory {
    fn count(&mut self, archive: &str, member: &crate::repo::index::Member) {
        const BLOCK: u64 = 4096;
        let extent = self.archives.entry(archive.to_owned()).or_default();
        let blocks = member.size.div_ceil(BLOCK).max(u64::from(member.kind == MemberKind::Dir));
        extent.on_disk = extent.on_disk.saturating_add(blocks * BLOCK);
        extent.files += u64::from(member.kind == MemberKind::File);
        if archive == "base" {
            self.has_configuration |= member.path == "postgresql.conf";
            self.group_access |= member.path == "global" && member.mode & 0o050 == 0o050;
        }
    }
}

/// How many parts the index has; a backup without any is none.
pub(super) fn part_count(backup: &Manifest) -> Result<u32> {
    match u32::try_from(backup.index.len()) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::new(ErrorKind::Corrupt, format!("the manifest of backup {} names no index", backup.id))),
    }
}

async fn list(source: &Source, backup: &Manifest) -> Result<Listed> {
    let folder = source.cluster.layout().backup(&backup.id);
    let mut listed = Listed::default();
    for archive in &backup.archives {
        listed.data.insert(archive.name.clone(), vec![0; archive.objects as usize]);
    }
    listed.index = vec![0; backup.index.len()];
    listed.pg_manifest = vec![0; backup.pg_manifest.len()];
    let mut request = ListRequest::prefix(folder.clone());
    loop {
        let page = source.cluster.storage().list(&request).await?;
        for entry in &page.entries {
            if let Some(path) = entry.key.as_str().strip_prefix(&folder) {
                listed.note(path, entry.size);
            }
        }
        match page.next {
            Some(token) => request.token = Some(token),
            None => return Ok(listed),
        }
    }
}

impl Listed {
    fn note(&mut self, path: &str, size: u64) {
        let parts: Vec<&str> = path.split('/').collect();
        let (sizes, number) = match parts.as_slice() {
            ["data", archive, number] => (self.data.get_mut(*archive), *number),
            ["index", number] => (Some(&mut self.index), *number),
            ["pg_manifest", number] => (Some(&mut self.pg_manifest), *number),
            ["wal", name] => return self.wal.push((*name).to_owned()),
            _ => return,
        };
        let slot = number.parse::<usize>().ok().and_then(|number| sizes?.get_mut(number));
        if let Some(slot) = slot {
            *slot = size;
        }
    }
}

fn check_size(key: &Key, found: u64, wanted: u64, missing: &mut Missing) {
    if found == 0 {
        missing.note(key, "is missing");
    } else if found != wanted {
        missing.note(key, &format!("has {found} bytes instead of {wanted}"));
    }
}

/// Index, Postgres' manifest, the backup's own WAL.
fn check_small_objects(source: &Source, backup: &Manifest, listed: &Listed, missing: &mut Missing) {
    let layout = source.cluster.layout();
    for ((number, reference), size) in (0..).zip(&backup.index).zip(&listed.index) {
        check_size(&layout.backup_index(&backup.id, number), *size, reference.size, missing);
    }
    for ((number, reference), size) in (0..).zip(&backup.pg_manifest).zip(&listed.pg_manifest) {
        check_size(&layout.backup_pg_manifest(&backup.id, number), *size, reference.size, missing);
    }
    for needed in backup.wal.iter().filter(|needed| needed.own) {
        if !listed.wal.contains(&needed.name.to_string()) {
            missing.note(&layout.backup_wal(&backup.id, &WalFileName::Segment(needed.name)), "is missing");
        }
    }
}
