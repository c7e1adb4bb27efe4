//! Base backups of real servers, taken apart again: every object, every record, every file.

use crate::support::postgres::{Builder, Postgres, Stop, client_program, postgres_majors, run, server_programs};
use crate::support::{skipped, temporary, user};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use walhalla::backup::{self, BackupOptions, BackupReport, Phase, Progress};
use walhalla::codec::{self, ContentHash, Encoding, Identities, Kind, Subject};
use walhalla::config::{self, Settings};
use walhalla::error::{Error, ErrorKind};
use walhalla::pg::{Lsn, SegmentName, SegmentSize, WalFileName};
use walhalla::repo::index::{MemberKind, Record};
use walhalla::repo::{Cluster, Manifest, Repository};
use walhalla::storage::{self, Bounds, Limits};
use walhalla::wire::{ConnectOptions, Environment};

/// A repository in a directory.
struct Depot {
    directory: tempfile::TempDir,
    settings: Settings,
}

impl Depot {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(more: &[(&str, &str)]) -> Self {
        let directory = temporary();
        std::fs::create_dir(directory.path().join("repository")).unwrap();
        let storage = format!("file://{}", directory.path().join("repository").display());
        let spool = directory.path().join("spool").display().to_string();
        let variable = |name: &str| {
            let all = [("WALHALLA_STORAGE", storage.as_str()), ("WALHALLA_SPOOL", spool.as_str())];
            let mut all = all.iter().chain(more);
            all.find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        let settings = config::load(None, &variable).unwrap();
        Self { directory, settings }
    }

    fn cluster(&self, manifest: &Manifest) -> Cluster {
        let storage = storage::open(&self.settings, &Limits::new(Bounds::PATIENT)).unwrap();
        Repository::new(storage, None).cluster(manifest.system_identifier)
    }

    fn file(&self, key: &storage::Key) -> PathBuf {
        self.directory.path().join("repository").join(key.as_str())
    }

    /// Names of the objects below `backup/`, whatever they are worth.
    fn backup_objects(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.directory.path().join("repository")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(found.insert(path.display().to_string())),
                }
            }
        }
        found.retain(|path| path.contains("/backup/"));
        found
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Seen {
    phases: Mutex<Vec<Phase>>,
    received: Mutex<u64>,
}

impl Progress for Seen {
    fn phase(&self, phase: &Phase) {
        self.phases.lock().unwrap().push(phase.clone());
    }

    fn received(&self, bytes: u64) {
        *self.received.lock().unwrap() = bytes;
    }

    fn note(&self, _text: &str) {}
}

fn server_options(dsn: &str) -> ConnectOptions {
    let environment = Environment { variable: &|_| None, home: None, user: None };
    ConnectOptions::resolve(Some(dsn), &environment).unwrap()
}

async fn take_until(
    server: &Postgres,
    depot: &Depot,
    options: &BackupOptions,
    seen: &Seen,
    interrupted: impl Future<Output = ()>,
) -> Result<BackupReport, Error> {
    backup::run(&depot.settings, &server_options(&server.dsn()), options, seen, interrupted).await
}

async fn take(server: &Postgres, depot: &Depot) -> Result<BackupReport, Error> {
    take_until(server, depot, &BackupOptions::default(), &Seen::default(), pending()).await
}

/// What the objects of a backup hold, proven object by object.
struct Contents {
    /// Whole tar streams by archive.
    tars: BTreeMap<String, Vec<u8>>,
    pg_manifest: Vec<u8>,
}

async fn plain(cluster: &Cluster, key: &storage::Key, kind: Kind, identities: &Identities) -> Vec<u8> {
    let object = cluster.get(key).await.unwrap();
    codec::verify(&object.body).unwrap();
    let (header, plain) = codec::plain_of(&object.body, identities).unwrap();
    assert_eq!(header.subject.kind, kind, "{key}");
    plain
}

/// Reads a backup as a restore would, and asserts everything that the format promises.
async fn contents(depot: &Depot, manifest: &Manifest, identities: &Identities) -> Contents {
    let cluster = depot.cluster(manifest);
    let (layout, id) = (cluster.layout(), &manifest.id);
    assert_eq!(&cluster.manifest(id).await.unwrap(), manifest);
    let mut expected = BTreeSet::from([layout.backup_started(id), layout.backup_manifest(id)]);
    plain(&cluster, &layout.backup_started(id), Kind::BackupStarted, &Identities::default()).await;

    let mut index = Vec::new();
    for (number, reference) in (0..).zip(&manifest.index) {
        let key = layout.backup_index(id, number);
        let part = plain(&cluster, &key, Kind::BackupIndex, identities).await;
        assert_eq!((part.len() as u64, ContentHash::of(&part)), (reference.plain, reference.hash));
        assert!(part.len() <= 1 << 20 && part.ends_with(b"\n"));
        index.extend(part);
        expected.insert(key);
    }
    let mut pg_manifest = Vec::new();
    for (number, reference) in (0..).zip(&manifest.pg_manifest) {
        let key = layout.backup_pg_manifest(id, number);
        let part = plain(&cluster, &key, Kind::PgManifest, identities).await;
        assert_eq!((part.len() as u64, ContentHash::of(&part)), (reference.plain, reference.hash));
        pg_manifest.extend(part);
        expected.insert(key);
    }

    let mut tars: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut archive = String::new();
    let (mut members, mut sums) = (Vec::new(), BTreeMap::new());
    let mut all_files = 0;
    for line in index.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).unwrap() {
            Record::Archive(name) => {
                check_files(&archive, &tars, &members, &sums);
                (members, sums) = (Vec::new(), BTreeMap::new());
                tars.insert(name.clone(), Vec::new());
                archive = name;
            }
            Record::File(member) => {
                all_files += u64::from(member.kind == MemberKind::File);
                // Its header lies in no object that is complete already, unless it ends one.
                assert!(member.at >= tars[&archive].len() as u64, "{member:?}");
                members.push(member);
            }
            Record::Sum(sum) => drop(sums.insert(sum.at, sum.crc32c)),
            Record::Data(data) => {
                let tar = tars.get_mut(&archive).unwrap();
                assert_eq!(data.at, tar.len() as u64);
                let key = layout.backup_data(id, &archive, data.number);
                let object = cluster.get(&key).await.unwrap().body;
                assert_eq!(object.len() as u64, data.size);
                let (header, payload) = codec::unseal(&object, identities).unwrap();
                assert_eq!((header.plain_length, header.plain_hash), (data.plain, data.hash));
                let mut rest = &payload[..];
                let mut whole = Vec::new();
                for frame in &data.frames {
                    let (packed, after) = rest.split_at(frame.packed as usize);
                    whole.extend(codec::decode_frame(packed, frame.plain, frame.crc32).unwrap());
                    rest = after;
                }
                assert!(rest.is_empty());
                assert_eq!(ContentHash::of(&whole), data.hash);
                assert!(whole.len() <= 16 << 20);
                tar.extend(whole);
                expected.insert(key);
            }
        }
    }
    check_files(&archive, &tars, &members, &sums);
    assert_eq!(all_files, manifest.files);
    for (tar, archive) in tars.values().zip(manifest.archives.iter().map(|a| (a, tars[&a.name].len()))) {
        assert_eq!(archive.1 as u64, archive.0.tar_bytes);
        assert!(tar.len() % 512 == 0 && tar.ends_with(&[0; 1024]));
    }
    assert_eq!(tars.values().map(|tar| tar.len() as u64).sum::<u64>(), manifest.tar_bytes);
    for needed in manifest.wal.iter().filter(|needed| needed.own) {
        expected.insert(layout.backup_wal(id, &WalFileName::Segment(needed.name)));
    }
    if manifest.end_timeline.get() > 1 {
        let own = layout.backup_wal(id, &WalFileName::History(manifest.end_timeline));
        expected.extend(depot.file(&own).exists().then_some(own));
    }
    let found = storage::list_all(cluster.storage(), &layout.backup(id)).await.unwrap();
    let stored: u64 =
        found.iter().filter(|entry| entry.key != layout.backup_manifest(id)).map(|entry| entry.size).sum();
    assert_eq!(stored, manifest.stored_bytes);
    assert_eq!(found.into_iter().map(|entry| entry.key).collect::<BTreeSet<_>>(), expected);
    Contents { tars, pg_manifest }
}

fn check_files(
    archive: &str,
    tars: &BTreeMap<String, Vec<u8>>,
    members: &[walhalla::repo::index::Member],
    sums: &BTreeMap<u64, u32>,
) {
    let Some(tar) = tars.get(archive) else { return };
    let mut files = 0;
    for member in members.iter().filter(|member| member.kind == MemberKind::File) {
        let (from, size) = (member.at as usize, member.size as usize);
        assert_eq!(sums[&member.at], crc32c::crc32c(&tar[from..from + size]), "{}", member.path);
        files += usize::from(size > 0);
    }
    // Two empty files never share a position: a header lies between them.
    assert!(files <= sums.len());
    assert_eq!(sums.len(), members.iter().filter(|member| member.kind == MemberKind::File).count());
}

/// Unpacks as one would on the worst day without this program: `zstd -d | tar x`.
fn unpack(depot: &Depot, manifest: &Manifest, contents: &Contents, target: &Path) {
    let cluster = depot.cluster(manifest);
    let has_zstd = Command::new("zstd").arg("--version").output().is_ok();
    if !has_zstd {
        skipped("zstd -d over data objects", "there is no zstd");
    }
    for archive in &manifest.archives {
        let place = match archive.name.as_str() {
            "base" => target.to_owned(),
            oid => target.join("pg_tblspc").join(oid),
        };
        std::fs::create_dir_all(&place).unwrap();
        let tar = match has_zstd && !manifest.encrypted {
            true => {
                let objects = (0..archive.objects)
                    .map(|number| depot.file(&cluster.layout().backup_data(&manifest.id, &archive.name, number)));
                let output = Command::new("zstd").arg("-dcq").args(objects).output().unwrap();
                assert!(output.status.success(), "{output:?}");
                assert!(output.stdout == contents.tars[&archive.name]);
                output.stdout
            }
            false => contents.tars[&archive.name].clone(),
        };
        let mut child = Command::new("tar").arg("x").current_dir(&place).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&tar).unwrap();
        assert!(child.wait().unwrap().success());
    }
    std::fs::write(target.join("backup_manifest"), &contents.pg_manifest).unwrap();
}

/// Unpacks, puts the WAL there, and has Postgres' own tool judge it.
async fn verified(depot: &Depot, manifest: &Manifest) -> tempfile::TempDir {
    let contents = contents(depot, manifest, &depot.settings.identities).await;
    let directory = temporary();
    let target = directory.path().join("data");
    unpack(depot, manifest, &contents, &target);
    let cluster = depot.cluster(manifest);
    for needed in &manifest.wal {
        let name = WalFileName::Segment(needed.name);
        let key = match needed.own {
            true => cluster.layout().backup_wal(&manifest.id, &name),
            false => cluster.layout().wal(&name),
        };
        let segment = plain(&cluster, &key, Kind::Wal, &depot.settings.identities).await;
        assert_eq!(segment.len() as u64, manifest.wal_segment_size.bytes());
        std::fs::write(target.join("pg_wal").join(needed.name.to_string()), segment).unwrap();
    }
    let major = u32::from(manifest.postgres_major.0);
    let mut tool = Command::new(client_program(major, "pg_verifybackup"));
    let parses_wal = server_programs(major).is_some_and(|programs| programs.join("pg_waldump").exists());
    tool.args(if parses_wal { &["-e"][..] } else { &["-e", "-n"] }).arg(&target);
    run(&mut tool).unwrap_or_else(|error| panic!("pg_verifybackup: {error}"));
    directory
}

/// Starts what was unpacked and asks it something.
fn revived(directory: &tempfile::TempDir, major: u32) -> Postgres {
    use std::os::unix::fs::PermissionsExt;
    let data = directory.path().join("data");
    user::give(directory.path());
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let server = Postgres::builder(major).setting("archive_mode", "off").adopt(&data);
    server.start().unwrap();
    server
}

/// A server with all sorts of files.
fn furnished(builder: Builder) -> Postgres {
    let server = builder.start();
    let space = server.directory().join("space");
    user::make_directory(&space);
    server.psql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display())).unwrap();
    server
        .psql(
            "CREATE TABLE here AS SELECT i, repeat(md5(i::text), 10) AS t FROM generate_series(1, 100000) AS i;
             CREATE TABLE there TABLESPACE space AS SELECT i FROM generate_series(1, 1000) AS i;
             CREATE TABLE nothing (); CREATE UNLOGGED TABLE fleeting AS SELECT 1;",
        )
        .unwrap();
    for (name, size) in [("empty", 0), ("block", 512), ("odd", 513), ("ünïcode \"name\"", 100), ("large", 20 << 20)] {
        let content: Vec<u8> = (0..size).map(|i: u32| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        std::fs::write(server.data().join(name), content).unwrap();
        user::give(&server.data().join(name));
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_and_verified() {
    for major in postgres_majors() {
        let server = furnished(Postgres::builder(major));
        let depot = Depot::new();
        let seen = Seen::default();
        let options = BackupOptions { label: "it's a label".to_owned(), estimate: true, ..BackupOptions::default() };
        let report = take_until(&server, &depot, &options, &seen, pending()).await.unwrap();
        let manifest = report.manifest;
        assert_eq!(manifest.archives.len(), 2);
        assert_eq!(manifest.archives[0].location.as_deref(), server.directory().join("space").to_str());
        assert!(manifest.damaged.is_empty() && manifest.outside.is_empty(), "{manifest:?}");
        assert_eq!((manifest.label.as_str(), manifest.from_standby), ("it's a label", false));
        assert_eq!(manifest.server_settings["max_connections"], "30");
        for name in ["shared_preload_libraries", "synchronous_standby_names", "track_commit_timestamp", "wal_log_hints"]
        {
            assert!(manifest.server_settings.contains_key(name), "{name}");
        }
        // Archiving is off: nobody waits, and the backup carries its WAL.
        assert!(manifest.wal.iter().all(|needed| needed.own), "{:?}", manifest.wal);
        assert_eq!(*seen.received.lock().unwrap(), manifest.tar_bytes - if major < 15 { 1024 } else { 0 });
        let phases = seen.phases.lock().unwrap().clone();
        assert!(matches!(
            &phases[..],
            [Phase::Checkpoint, Phase::Streaming { estimate: Some(_) }, Phase::FetchingWal { .. }, ..]
        ));
        verified(&depot, &manifest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_again() {
    let server = Postgres::builder(15).start();
    server.psql("CREATE TABLE t AS SELECT generate_series(1, 100000)").unwrap();
    let depot = Depot::new();
    let manifest = take(&server, &depot).await.unwrap().manifest;
    let directory = verified(&depot, &manifest).await;
    server.stop(Stop::Fast).unwrap();
    let revived = revived(&directory, 15);
    assert_eq!(revived.psql("SELECT count(*) FROM t").unwrap(), "100000");
}

/// Stores what a server's `cp` archived, as the archiver would.
async fn archive(depot: &Depot, manifest_of: &Cluster, from: &Path, size: SegmentSize) -> usize {
    let mut stored = 0;
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let Ok(name) = entry.file_name().to_string_lossy().parse::<SegmentName>() else { continue };
        let content = std::fs::read(entry.path()).unwrap();
        if content.len() as u64 != size.bytes() {
            continue;
        }
        let subject = Subject {
            kind: Kind::Wal,
            system_identifier: manifest_of.layout().system(),
            timeline: name.timeline().get(),
            start: name.start(size).unwrap(),
        };
        let encoding = Encoding { level: 1, recipients: depot.settings.recipients.clone() };
        let object = codec::encode_bytes(&content, subject, &encoding).unwrap();
        manifest_of.deposit_wal(&WalFileName::Segment(name), &object).await.unwrap();
        stored += 1;
    }
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_the_archiver() {
    let server = Postgres::builder(15).archive_command("test -e ../go && cp %p ../archive/%f").create();
    user::make_directory(&server.directory().join("archive"));
    server.start().unwrap();
    let depot = Depot::new();
    let first = {
        let quick = BackupOptions { wal_timeout: Duration::from_millis(100), ..BackupOptions::default() };
        take_until(&server, &depot, &quick, &Seen::default(), pending()).await.unwrap()
    };
    // The archiver fails: what it did not deliver in time was fetched.
    assert!(first.manifest.wal.iter().all(|needed| needed.own));
    assert!(first.notes.iter().any(|note| note.contains("fetched from the server")), "{:?}", first.notes);
    verified(&depot, &first.manifest).await;

    let cluster = depot.cluster(&first.manifest);
    let seen = Seen::default();
    let archiver = async {
        // Only once somebody waits for it.
        while !seen.phases.lock().unwrap().iter().any(|phase| matches!(phase, Phase::WaitingForWal { .. })) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(server.directory().join("go"), "").unwrap();
        loop {
            archive(&depot, &cluster, &server.directory().join("archive"), first.manifest.wal_segment_size).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let options = BackupOptions::default();
    let second = tokio::select! {
        second = take_until(&server, &depot, &options, &seen, pending()) => second.unwrap(),
        () = archiver => unreachable!(),
    };
    assert!(second.manifest.wal.iter().all(|needed| !needed.own), "{:?}", second.manifest.wal);
    assert!(!depot.file(&cluster.layout().backup_manifest(&second.manifest.id)).with_file_name("wal").exists());
    verified(&depot, &second.manifest).await;
}

/// Cuts the connection whose slot holds the WAL, once all data is stored.
struct CutsTheSecond<'a>(&'a Postgres, Mutex<usize>);

impl Progress for CutsTheSecond<'_> {
    fn phase(&self, phase: &Phase) {
        if matches!(phase, Phase::FetchingWal { .. }) {
            let cut = self.0.psql("SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots").unwrap();
            *self.1.lock().unwrap() += cut.parse::<usize>().unwrap();
            self.0.wait_sql("SELECT count(*) FROM pg_replication_slots", "0", Duration::from_secs(20));
        }
    }

    fn received(&self, _bytes: u64) {}
    fn note(&self, _text: &str) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_that_was_cut_is_replaced() {
    let server = Postgres::builder(15).start();
    let depot = Depot::new();
    let cuts = CutsTheSecond(&server, Mutex::new(0));
    let options = BackupOptions::default();
    let report =
        backup::run(&depot.settings, &server_options(&server.dsn()), &options, &cuts, pending()).await.unwrap();
    assert_eq!(*cuts.1.lock().unwrap(), 1, "there was one to cut");
    assert!(report.manifest.wal.iter().all(|needed| needed.own));
    verified(&depot, &report.manifest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_wal_in_the_archive_is_no_backup() {
    let server = Postgres::builder(15).archive_command("cp %p ../archive/%f").create();
    user::make_directory(&server.directory().join("archive"));
    server.start().unwrap();
    let depot = Depot::new();
    let quick = BackupOptions { wal_timeout: Duration::from_millis(100), ..BackupOptions::default() };
    let first = take_until(&server, &depot, &quick, &Seen::default(), pending()).await.unwrap().manifest;
    // What the next backup will need, damaged behind its header.
    let cluster = depot.cluster(&first);
    let next = first.wal.last().unwrap().name.start(first.wal_segment_size).unwrap();
    let size = first.wal_segment_size.bytes();
    for number in 1..4 {
        let start = Lsn(next.0 + number * size);
        let name = SegmentName::at(first.end_timeline, start, first.wal_segment_size);
        let subject = Subject {
            kind: Kind::Wal,
            system_identifier: first.system_identifier,
            timeline: first.end_timeline.get(),
            start,
        };
        let encoding = Encoding { level: 1, recipients: depot.settings.recipients.clone() };
        let content = vec![1; usize::try_from(size).unwrap()];
        let object = codec::encode_bytes(&content, subject, &encoding).unwrap();
        let key = cluster.layout().wal(&WalFileName::Segment(name));
        cluster.deposit(&key, &object).await.unwrap();
        let mut body = object.bytes.to_vec();
        *body.last_mut().unwrap() ^= 1;
        std::fs::write(depot.file(&key), body).unwrap();
    }
    let error = take_until(&server, &depot, &quick, &Seen::default(), pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("no restore could get past it"), "{error}");
    assert_eq!(depot.backup_objects().iter().filter(|path| path.ends_with("/manifest")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_standby() {
    for major in postgres_majors() {
        let primary = Postgres::builder(major).start();
        primary.psql("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
        let standby = Postgres::builder(major)
            .setting("primary_conninfo", primary.dsn())
            .signal_file("standby.signal")
            .clone_of(&primary, true);
        standby.start().unwrap();
        primary.psql("INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
        let position = primary.psql("SELECT pg_current_wal_lsn()").unwrap();
        standby.wait_sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"), "t", Duration::from_secs(30));
        let depot = Depot::new();
        let manifest = take(&standby, &depot).await.unwrap().manifest;
        assert!(manifest.from_standby);
        assert!(manifest.wal.iter().all(|needed| needed.own));
        let directory = verified(&depot, &manifest).await;
        // Nothing but the backup: it becomes consistent, and a primary.
        std::fs::remove_file(directory.path().join("data/standby.signal")).unwrap();
        let revived = revived(&directory, major);
        assert_eq!(revived.psql("SELECT count(*) FROM t").unwrap(), "2000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_later_timeline() {
    let server = Postgres::builder(15).start();
    server.stop(Stop::Fast).unwrap();
    server.write("standby.signal", "");
    server.start().unwrap();
    server.promote();
    server.psql("CHECKPOINT").unwrap();
    let depot = Depot::new();
    let manifest = take(&server, &depot).await.unwrap().manifest;
    assert_eq!(manifest.end_timeline.get(), 2);
    verified(&depot, &manifest).await;
    let cluster = depot.cluster(&manifest);
    let key = cluster.layout().backup_wal(&manifest.id, &WalFileName::History(manifest.end_timeline));
    let history = plain(&cluster, &key, Kind::Wal, &Identities::default()).await;
    assert_eq!(history, std::fs::read(server.data().join("pg_wal/00000002.history")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_kept_and_told() {
    for major in postgres_majors() {
        let server = Postgres::builder(major).checksums(true).start();
        server.psql("CREATE TABLE t AS SELECT generate_series(1, 10000)").unwrap();
        let path = server.psql("CHECKPOINT").and_then(|_| server.psql("SELECT pg_relation_filepath('t')")).unwrap();
        server.stop(Stop::Fast).unwrap();
        let file = server.data().join(&path);
        let mut content = std::fs::read(&file).unwrap();
        content[8192 + 5000] ^= 1;
        std::fs::write(&file, content).unwrap();
        server.start().unwrap();
        let depot = Depot::new();
        let manifest = take(&server, &depot).await.unwrap().manifest;
        assert!(manifest.damaged.iter().any(|line| line.contains(&path)), "{:?}", manifest.damaged);
        verified(&depot, &manifest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted() {
    let identity = age_identity();
    let depot = Depot::with(&[("WALHALLA_RECIPIENTS", &identity.0), ("WALHALLA_IDENTITY", &identity.1)]);
    let server = furnished(Postgres::builder(15));
    let manifest = take(&server, &depot).await.unwrap().manifest;
    assert!(manifest.encrypted);
    verified(&depot, &manifest).await;
    // The manifest is for everybody; nothing else is.
    let cluster = depot.cluster(&manifest);
    for key in [
        cluster.layout().backup_data(&manifest.id, "base", 0),
        cluster.layout().backup_index(&manifest.id, 0),
        cluster.layout().backup_pg_manifest(&manifest.id, 0),
        cluster.layout().backup_wal(&manifest.id, &WalFileName::Segment(manifest.wal[0].name)),
    ] {
        let object = cluster.get(&key).await.unwrap().body;
        codec::verify(&object).unwrap();
        assert!(codec::plain_of(&object, &Identities::default()).is_err(), "{key}");
    }
}

/// A recipient and its identity; of this test alone.
fn age_identity() -> (String, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    (identity.to_public().to_string(), identity.to_string().expose_secret().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_or_refused_leaves_no_backup() {
    let server = furnished(Postgres::builder(15));
    let depot = Depot::new();
    // Slow enough that the interruption comes in the middle.
    let options = BackupOptions { max_rate: Some(4096), ..BackupOptions::default() };
    let seen = Seen::default();
    let started = async {
        while *seen.received.lock().unwrap() < 1 << 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = take_until(&server, &depot, &options, &seen, started).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let objects = depot.backup_objects();
    assert!(objects.iter().any(|path| path.ends_with("/started")), "{objects:?}");
    assert!(!objects.iter().any(|path| path.ends_with("/manifest")), "{objects:?}");
    // The server has given it up, too.
    server.wait_sql("SELECT count(*) FROM pg_stat_progress_basebackup", "0", Duration::from_secs(20));
    server.wait_sql("SELECT count(*) FROM pg_replication_slots", "0", Duration::from_secs(20));

    // A name that cannot be described.
    use std::os::unix::ffi::OsStrExt;
    let name = server.data().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::write(&name, "").unwrap();
    user::give(&name);
    let error = take(&server, &depot).await.unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
    std::fs::remove_file(&name).unwrap();

    // A storage that fails in the middle: where the index is to go stands a file.
    let depot = Depot::new();
    let error = backup::run(
        &depot.settings,
        &server_options(&server.dsn()),
        &BackupOptions::default(),
        &InTheWay(&depot),
        pending(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("storing") && error.to_string().contains("/index/"), "{error}");
    let objects = depot.backup_objects();
    assert!(objects.iter().any(|path| path.contains("/data/base/")), "{objects:?}");
    assert!(!objects.iter().any(|path| path.ends_with("/manifest")), "{objects:?}");
}

/// Puts a file in the way of the index as soon as data comes.
struct InTheWay<'a>(&'a Depot);

impl Progress for InTheWay<'_> {
    fn phase(&self, _phase: &Phase) {}

    fn received(&self, bytes: u64) {
        let started = self.0.backup_objects().into_iter().find(|path| path.ends_with("/started"));
        if bytes < 1 << 20 {
            std::fs::write(Path::new(&started.unwrap()).with_file_name("index"), "").unwrap();
        }
    }

    fn note(&self, _text: &str) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_privilege_and_one_connection() {
    let server = Postgres::builder(15).setting("max_wal_senders", 1).create();
    let elsewhere = server.directory().join("elsewhere_hba.conf");
    std::fs::write(
        &elsewhere,
        "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    user::give(&elsewhere);
    server.configure(&[("hba_file".to_owned(), elsewhere.display().to_string())]);
    std::fs::remove_file(server.data().join("pg_hba.conf")).unwrap();
    server.start().unwrap();
    server.psql("CREATE ROLE humble LOGIN REPLICATION").unwrap();
    let depot = Depot::new();
    let report = take(&server, &depot).await.unwrap();
    assert_eq!(report.manifest.outside["hba_file"], elsewhere.display().to_string());
    assert!(report.notes.iter().any(|note| note.contains("outside the data directory")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.contains("max_wal_senders")), "{:?}", report.notes);
    verified(&depot, &report.manifest).await;

    let options = server_options(&format!("{} user=humble", server.dsn()));
    let humble = backup::run(&depot.settings, &options, &BackupOptions::default(), &Seen::default(), pending()).await;
    let manifest = humble.unwrap().manifest;
    assert_eq!(manifest.outside.get("hba_file").map(String::as_str), Some("unknown"));
    verified(&depot, &manifest).await;
    assert_ne!(manifest.start_lsn, Lsn::INVALID);
}
