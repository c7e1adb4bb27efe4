//! The last steps: what makes the files a server, in an order that never lets half a one start.

use super::make::{Maker, failed};
use super::manifest_edit::ManifestEditor;
use super::minimal;
use super::place::UNFINISHED;
use super::plan::RestorePlan;
use super::release::{HELD, held_text};
use super::request::Role;
use super::settings;
use super::tablespaces;
use super::unroll::{LEFT_OUT, PG_CONTROL, PG_CONTROL_STAGED};
use crate::codec::{self, Kind};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SegmentName, WalFileName, control::ControlFile};
use crate::reach::lineage::own_history;
use crate::reach::source::{Source, blocking, must_belong};
use crate::reach::time;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was written besides the files of the backup.
#[derive(Debug, Clone, Default)]
pub(super) struct Finished {
    /// Settings taken out of `postgresql.auto.conf`.
    pub removed_settings: Vec<String>,
    /// Files written.
    pub written: Vec<PathBuf>,
}

/// Directories that the server needs and does not make itself. They come with the backup; object stores have no empty ones, so
/// nothing is taken for granted.
const NEEDED: [&str; 21] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// WAL that the backup carries itself, and histories that only backups carry, go to `pg_wal`, marked as archived: they must never
/// be sent to the archive from here. Recovery reads there what the archive does not have.
pub(super) async fn write_own_wal(source: &Source, plan: &RestorePlan, maker: &Maker) -> Result<()> {
    let mode = if plan.group_access { 0o750 } else { 0o700 };
    for directory in ["pg_wal", "pg_wal/archive_status"] {
        maker.directory(&plan.to.join(directory), mode)?;
    }
    for name in &plan.wal.own {
        write_segment(source, plan, maker, *name).await?;
    }
    for (timeline, id) in &plan.histories {
        let name = WalFileName::History(*timeline);
        let (content, _) = own_history(source, id, *timeline).await?.ok_or_else(|| {
            Error::new(ErrorKind::Gap, format!("{name} is neither in the archive nor in backup {id} any more"))
        })?;
        let (path, done) = wal_paths(plan, &name);
        let maker = maker.clone();
        blocking(move || {
            maker.write(&path, &content, 0o600)?;
            maker.write(&done, b"", 0o600)
        })
        .await?;
    }
    Ok(())
}

/// Where a WAL file goes, and the note that it is archived.
fn wal_paths(plan: &RestorePlan, name: &WalFileName) -> (PathBuf, PathBuf) {
    let directory = plan.to.join("pg_wal");
    (directory.join(name.to_string()), directory.join("archive_status").join(format!("{name}.done")))
}

async fn write_segment(source: &Source, plan: &RestorePlan, maker: &Maker, name: SegmentName) -> Result<()> {
    let backup = &plan.manifest;
    let file_name = WalFileName::Segment(name);
    let key = source.cluster.layout().backup_wal(&backup.id, &file_name);
    let object = source.get(&key).await?;
    let (identities, maker) = (source.identities.clone(), maker.clone());
    let (system, size) = (backup.system_identifier, backup.wal_segment_size);
    let (path, done) = wal_paths(plan, &file_name);
    blocking(move || {
        let mut file = maker.open(&path)?;
        let header = codec::decode(&object.body, &identities, &mut file).map_err(|error| error.context(&key))?;
        must_belong(&header, Kind::Wal, system).map_err(|error| error.context(&key))?;
        if header.plain_length != size.bytes() || name.start(size) != Some(header.subject.start) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{key}: the object is another segment, or no whole one"),
            ));
        }
        maker.finish(&file, &path, 0o600, None)?;
        maker.write(&done, b"", 0o600)
    })
    .await
}

/// Everything that is not in the backup as such: tablespace map and links, configuration, settings, signal, hold, and at last
/// Postgres' manifest, which describes all of it.
pub(super) async fn write_settings(
    source: &Source,
    plan: &RestorePlan,
    maker: &Maker,
    links: &[(String, String)],
) -> Result<Finished> {
    let mut files = Files { plan, maker, edits: BTreeMap::new(), finished: Finished::default() };
    for name in LEFT_OUT {
        files.edits.insert(name.to_owned(), None);
    }
    make_needed_directories(plan, maker)?;
    tablespace_map(&mut files)?;
    tablespace_links(plan, maker, links)?;
    configuration(&mut files)?;
    auto_conf(&mut files)?;
    if plan.role != Role::Primary {
        files.write(HELD, held_text(&plan.to).as_bytes())?;
    }
    maker.write(&plan.to.join(plan.signal), b"", 0o600)?;
    files.finished.written.push(plan.to.join(plan.signal));
    let Files { edits, finished, .. } = files;
    backup_manifest(source, plan, maker, edits).await?;
    Ok(finished)
}

/// Files besides the backup's, and what they mean for Postgres' manifest.
struct Files<'a> {
    plan: &'a RestorePlan,
    maker: &'a Maker,
    edits: BTreeMap<String, Option<Vec<u8>>>,
    finished: Finished,
}

impl Files<'_> {
    fn write(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.plan.to.join(name);
        let mode = if self.plan.group_access { 0o640 } else { 0o600 };
        self.maker.write(&path, content, mode)?;
        self.edits.insert(name.to_owned(), Some(content.to_vec()));
        self.finished.written.push(path);
        Ok(())
    }
}

fn make_needed_directories(plan: &RestorePlan, maker: &Maker) -> Result<()> {
    let mode = if plan.group_access { 0o750 } else { 0o700 };
    for name in NEEDED {
        let path = plan.to.join(name);
        if !path.is_dir() {
            maker.directory(&path, mode)?;
        }
    }
    Ok(())
}

fn tablespace_map(files: &mut Files<'_>) -> Result<()> {
    let tablespaces = &files.plan.tablespaces;
    if !tablespaces::any_moved(tablespaces) {
        return Ok(());
    }
    files.write("tablespace_map", &tablespaces::map(tablespaces)?)
}

/// The server makes the links itself from the map; they are there before, so that `pg_verifybackup` finds its way.
fn tablespace_links(plan: &RestorePlan, maker: &Maker, links: &[(String, String)]) -> Result<()> {
    for tablespace in plan.tablespaces.iter().filter(|tablespace| !tablespace.in_place) {
        maker.link(&plan.to.join("pg_tblspc").join(&tablespace.oid), &tablespace.new)?;
    }
    match links.iter().find(|(oid, _)| !plan.tablespaces.iter().any(|tablespace| tablespace.oid == *oid)) {
        None => Ok(()),
        Some((oid, target)) => Err(Error::new(
            ErrorKind::Corrupt,
            format!("the backup links tablespace {oid} to {target} and does not hold it"),
        )),
    }
}

fn configuration(files: &mut Files<'_>) -> Result<()> {
    let plan = files.plan;
    for name in &plan.configuration {
        let content = match *name {
            "postgresql.conf" => {
                let control = std::fs::read(plan.to.join(PG_CONTROL_STAGED)).ok();
                let control = control.and_then(|bytes| ControlFile::parse(&bytes).ok());
                let limits = control.as_ref().map(|control| &control.settings);
                minimal::postgresql_conf(&plan.manifest, limits, plan.role, &plan.programs)
            }
            "pg_hba.conf" => minimal::PG_HBA.to_owned(),
            _ => minimal::PG_IDENT.to_owned(),
        };
        files.write(name, content.as_bytes())?;
    }
    Ok(())
}

fn auto_conf(files: &mut Files<'_>) -> Result<()> {
    let plan = files.plan;
    let path = plan.to.join("postgresql.auto.conf");
    let old = match std::fs::read(&path) {
        Ok(old) => old,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(cause) => return Err(Error::local("read", &path, cause)),
    };
    let heading = format!("from backup {} to {}, {}", plan.backup.id, plan.target, time::now());
    let (content, removed) = settings::auto_conf(&old, &plan.settings, &heading.replace(['\n', '\r'], " "));
    let mode = if plan.group_access { 0o640 } else { 0o600 };
    files.maker.write(&path, &content, mode)?;
    files.finished.removed_settings = removed;
    files.finished.written.push(path);
    // `pg_verifybackup` passes over this one.
    Ok(())
}

/// Postgres' manifest, slice by slice.
async fn backup_manifest(
    source: &Source,
    plan: &RestorePlan,
    maker: &Maker,
    edits: BTreeMap<String, Option<Vec<u8>>>,
) -> Result<()> {
    if plan.manifest.pg_manifest.is_empty() {
        return Ok(());
    }
    let path = plan.to.join("backup_manifest");
    let mut file = maker.open(&path)?;
    let mut editor = ManifestEditor::new(edits, time::now_for_postgres());
    for (number, reference) in (0..).zip(&plan.manifest.pg_manifest) {
        let key = source.cluster.layout().backup_pg_manifest(&plan.manifest.id, number);
        let slice = source.vouched(&plan.manifest, key, Kind::PgManifest, reference).await?;
        let target = path.clone();
        (editor, file) = blocking(move || {
            let mut copy = Vec::with_capacity(slice.len() + 1024);
            editor.feed(&slice, &mut copy)?;
            file.write_all(&copy).map_err(|cause| failed("write", &target, cause))?;
            Ok((editor, file))
        })
        .await?;
    }
    editor.finish()?;
    maker.finish(&file, &path, if plan.group_access { 0o640 } else { 0o600 }, None)
}

/// Syncs everything, then gives `pg_control` its name: from here on the directory can be started.
pub(super) fn make_startable(plan: &RestorePlan) -> Result<()> {
    let staged = plan.to.join(PG_CONTROL_STAGED);
    if !staged.is_file() {
        return Err(Error::new(ErrorKind::Corrupt, format!("backup {} has no {PG_CONTROL}", plan.backup.id)));
    }
    let roots: Vec<&Path> = std::iter::once(plan.to.as_path())
        .chain(
            plan.tablespaces
                .iter()
                .filter(|tablespace| !tablespace.in_place)
                .map(|tablespace| tablespace.new.as_path()),
        )
        .collect();
    for root in &roots {
        sync_file_system(root)?;
        durable::sync_tree(root).map_err(|error| error.with_kind(ErrorKind::LocalIo))?;
        if let Some(parent) = root.parent() {
            durable::sync_directory(parent)?;
        }
    }
    // As late as can be: syncing takes long, and whatever ends it shall find the directory marked.
    for root in &roots {
        let note = root.join(UNFINISHED);
        std::fs::remove_file(&note).map_err(|cause| failed("remove", &note, cause))?;
        durable::sync_directory(root)?;
    }
    durable::publish(&staged, &plan.to.join(PG_CONTROL))
}

/// Late writes that failed, on a full disk for one, are told here at the latest.
fn sync_file_system(root: &Path) -> Result<()> {
    let directory = File::open(root).map_err(|cause| failed("open", root, cause))?;
    rustix::fs::syncfs(&directory).map_err(|cause| failed("sync the file system of", root, cause.into()))
}
