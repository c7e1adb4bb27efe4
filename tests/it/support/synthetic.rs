//! A backup made without the backup room: what `pg_basebackup -Ft` wrote, cut into objects to the letter of `docs/format.md`.
//!
//! Its slices are small and cut without regard for files, so that a reader meets every way in which a file can lie across
//! frames and objects.

use super::postgres::{self, Postgres};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use walhalla::codec::{self, ContentHash, Encoded, Encoding, Kind, Recipients, Subject};
use walhalla::pg::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use walhalla::pg::{backup_label::BackupLabel, pg_manifest::ManifestReader};
use walhalla::repo::index::{DataObject, Frame, Member, MemberKind, Record, Sum};
use walhalla::repo::manifest::{Archive, NeededWal, ObjectRef};
use walhalla::repo::{BackupId, Cluster, ClusterIdentity, Manifest};
use walhalla::storage::{Integrity, Key, PutMode};

/// Plain bytes of a data object, and of a frame of it.
const OBJECT: usize = 700_000;
const FRAME: usize = 150_000;
/// Index records in one part.
const RECORDS: usize = 500;

/// How a backup is made.
#[derive(Debug, Default)]
pub(crate) struct How {
    /// Whom it is encrypted to.
    pub(crate) recipients: Recipients,
    /// Files of the base archive that the index does not name.
    pub(crate) without: &'static [&'static str],
}

/// Takes a backup of a running server and stores it. `change` sees the manifest before it is written.
pub(crate) async fn backup(
    server: &Postgres,
    cluster: &Cluster,
    id: &str,
    how: How,
    change: impl FnOnce(&mut Manifest),
) -> Manifest {
    let place = server.directory().join(format!("tar-{id}"));
    let mut command = server.client("pg_basebackup");
    postgres::run(command.arg("-D").arg(&place).args(["-Ft", "-X", "none", "-c", "fast", "-N", "-l", "synthetic"]))
        .unwrap();
    let finished =
        server.psql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')").unwrap();
    let writer = Writer::new(server, cluster, id.parse().unwrap(), how, &place);
    let manifest = writer.write(&place, finished, change).await;
    std::fs::remove_dir_all(&place).unwrap();
    manifest
}

struct Writer<'a> {
    server: &'a Postgres,
    cluster: &'a Cluster,
    id: BackupId,
    subject: Subject,
    encoding: Encoding,
    without: &'static [&'static str],
    records: Vec<Record>,
    files: u64,
}

impl<'a> Writer<'a> {
    fn new(server: &'a Postgres, cluster: &'a Cluster, id: BackupId, how: How, place: &Path) -> Self {
        let label = label(place);
        let subject = Subject {
            kind: Kind::BackupData,
            system_identifier: cluster.layout().system(),
            timeline: label.start_timeline.get(),
            start: label.start,
        };
        let encoding = Encoding { level: 1, recipients: how.recipients };
        Self { server, cluster, id, subject, encoding, without: how.without, records: Vec::new(), files: 0 }
    }

    async fn write(mut self, place: &Path, finished: String, change: impl FnOnce(&mut Manifest)) -> Manifest {
        let locations = self
            .server
            .psql("SELECT oid || ' ' || pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_'")
            .unwrap();
        let locations: BTreeMap<String, String> = locations
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(oid, path)| (oid.into(), path.into()))
            .collect();
        let mut archives = Vec::new();
        for (oid, location) in &locations {
            archives.push(self.archive(place, oid, Some(location.clone())).await);
        }
        archives.push(self.archive(place, "base", None).await);
        let index = self.index().await;
        let pg = std::fs::read(place.join("backup_manifest")).unwrap();
        let mut pg_manifest = Vec::new();
        for (number, slice) in (0..).zip(pg.chunks(10_000)) {
            let key = self.cluster.layout().backup_pg_manifest(&self.id, number);
            pg_manifest.push(self.put_plain(&key, slice, Kind::PgManifest).await);
        }
        let mut manifest = self.manifest(place, &pg, finished, archives);
        (manifest.index, manifest.pg_manifest) = (index, pg_manifest);
        change(&mut manifest);
        let key = self.cluster.layout().backup_manifest(&self.id);
        self.encoding.recipients = Recipients::default();
        self.put_plain(&key, &serde_json::to_vec(&manifest).unwrap(), Kind::BackupManifest).await;
        manifest
    }

    fn manifest(&self, place: &Path, pg: &[u8], finished: String, archives: Vec<Archive>) -> Manifest {
        let label = label(place);
        let mut reader = ManifestReader::new();
        let mut rest = pg;
        while reader.next(&mut rest).unwrap().is_some() {}
        let range = reader.finish().unwrap().wal_ranges[0];
        let size = SegmentSize::new(1 << 20).unwrap();
        let mut wal = vec![SegmentName::at(label.start_timeline, label.start, size)];
        while *wal.last().unwrap() < SegmentName::at(range.timeline, Lsn(range.end.0 - 1), size) {
            wal.push(wal.last().unwrap().next(size).unwrap());
        }
        let version: u32 = self.server.psql("SHOW server_version_num").unwrap().parse().unwrap();
        let limits = "SELECT name || ' ' || setting FROM pg_settings WHERE name ~ '^max_(conn|worker_p|wal_se|prepared|locks_per_t)'";
        let limits = self.server.psql(limits).unwrap();
        Manifest {
            format: Manifest::FORMAT,
            id: self.id.clone(),
            system_identifier: self.cluster.layout().system(),
            postgres_major: PgMajor::from_version_num(version),
            server_version_num: version,
            wal_segment_size: size,
            parent: None,
            label: label.label,
            from_standby: false,
            started_at: finished.clone(),
            finished_at: finished,
            start_lsn: label.start,
            start_timeline: label.start_timeline,
            end_lsn: range.end,
            end_timeline: range.timeline,
            wal: wal.into_iter().map(|name| NeededWal { name, own: false }).collect(),
            tar_bytes: archives.iter().map(|archive| archive.tar_bytes).sum(),
            archives,
            index: Vec::new(),
            pg_manifest: Vec::new(),
            encrypted: false,
            damaged: Vec::new(),
            outside: BTreeMap::new(),
            server_settings: limits
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(a, b)| (a.into(), b.into()))
                .collect(),
            files: self.files,
            stored_bytes: 0,
            written_by: "walhalla test".into(),
        }
    }

    async fn archive(&mut self, place: &Path, name: &str, location: Option<String>) -> Archive {
        let tar = std::fs::read(place.join(format!("{name}.tar"))).unwrap();
        self.records.push(Record::Archive(name.to_owned()));
        let wanted = |(member, _): &(Member, Option<Sum>)| !self.without.contains(&member.path.as_str());
        let mut members = members(&tar).into_iter().filter(wanted).collect::<Vec<_>>().into_iter().peekable();
        let mut ending: Vec<(u64, Sum)> = Vec::new();
        let mut objects = 0;
        for (number, slice) in (0..).zip(tar.chunks(OBJECT)) {
            let at = u64::from(number) * OBJECT as u64;
            let end = at + slice.len() as u64;
            // A member is told of when its header has passed, which may be in an earlier object than its first byte.
            while let Some((member, sum)) = members.next_if(|(member, _)| member.at <= end) {
                if let Some(sum) = sum {
                    self.files += 1;
                    ending.push((member.at + member.size, sum));
                }
                self.records.push(Record::File(member));
            }
            let (ended, open): (Vec<_>, Vec<_>) = ending.into_iter().partition(|(last, _)| *last <= end);
            self.records.extend(ended.into_iter().map(|(_, sum)| Record::Sum(sum)));
            ending = open;
            self.data(name, number, at, slice).await;
            objects += 1;
        }
        assert!(ending.is_empty() && members.next().is_none());
        Archive { name: name.to_owned(), location, objects, tar_bytes: tar.len() as u64 }
    }

    async fn data(&mut self, archive: &str, number: u32, at: u64, slice: &[u8]) {
        let (mut packed, mut frames) = (Vec::new(), Vec::new());
        for plain in slice.chunks(FRAME) {
            let frame = zstd::bulk::compress(plain, 1).unwrap();
            frames.push(Frame { packed: frame.len() as u32, plain: plain.len() as u32, crc32: crc32fast::hash(plain) });
            packed.extend(frame);
        }
        let hash = ContentHash::of(slice);
        let subject = Subject { kind: Kind::BackupData, ..self.subject };
        let object = codec::seal(packed, slice.len() as u64, hash, subject, &self.encoding.recipients).unwrap();
        let key = self.cluster.layout().backup_data(&self.id, archive, number);
        let size = object.bytes.len() as u64;
        self.put(&key, object).await;
        self.records.push(Record::Data(DataObject { number, at, plain: slice.len() as u64, hash, size, frames }));
    }

    async fn index(&mut self) -> Vec<ObjectRef> {
        let mut index = Vec::new();
        for (number, records) in (0..).zip(std::mem::take(&mut self.records).chunks(RECORDS)) {
            let lines: String = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
            let key = self.cluster.layout().backup_index(&self.id, number);
            index.push(self.put_plain(&key, lines.as_bytes(), Kind::BackupIndex).await);
        }
        index
    }

    async fn put_plain(&self, key: &Key, plain: &[u8], kind: Kind) -> ObjectRef {
        let object = codec::encode_bytes(plain, Subject { kind, ..self.subject }, &self.encoding).unwrap();
        let reference =
            ObjectRef { size: object.bytes.len() as u64, plain: plain.len() as u64, hash: ContentHash::of(plain) };
        self.put(key, object).await;
        reference
    }

    async fn put(&self, key: &Key, object: Encoded) {
        self.cluster.storage().put(key, object.bytes, &PutMode::CreateOnly, Integrity::Sound).await.unwrap();
    }
}

fn label(place: &Path) -> BackupLabel {
    let tar = std::fs::read(place.join("base.tar")).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap(), Path::new("backup_label"));
    let mut label = Vec::new();
    entry.read_to_end(&mut label).unwrap();
    BackupLabel::parse(&label).unwrap()
}

/// The members of a tar stream; regular files with their checksum.
fn members(tar: &[u8]) -> Vec<(Member, Option<Sum>)> {
    let mut archive = tar::Archive::new(tar);
    let mut members = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        let (kind, target) = match header.entry_type() {
            tar::EntryType::Directory => (MemberKind::Dir, None),
            tar::EntryType::Symlink => {
                (MemberKind::Link, Some(entry.link_name().unwrap().unwrap().to_str().unwrap().to_owned()))
            }
            other => (if other.is_file() { MemberKind::File } else { panic!("{other:?}") }, None),
        };
        let path = entry.path().unwrap();
        let path = path.to_str().unwrap().trim_start_matches("./").trim_end_matches('/').to_owned();
        let at = entry.raw_file_position();
        let size = if kind == MemberKind::File { entry.size() } else { 0 };
        let bytes = &tar[at as usize..(at + size) as usize];
        let sum = (kind == MemberKind::File).then(|| Sum { at, crc32c: crc32c::crc32c(bytes) });
        let member =
            Member { kind, path, size, mode: header.mode().unwrap(), mtime: header.mtime().unwrap(), target, at };
        members.push((member, sum));
    }
    members
}

/// The identity of a server's cluster, whose segments have 1 MiB.
pub(crate) fn identity(server: &Postgres) -> ClusterIdentity {
    let system = server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    ClusterIdentity {
        format: walhalla::repo::identity::FORMAT,
        system_identifier: SystemIdentifier(system.parse().unwrap()),
        postgres_major: PgMajor(server.major() as u16),
        wal_segment_size: SegmentSize::new(1 << 20).unwrap(),
    }
}

/// Shorthand.
pub(crate) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}
