//! What is read back from a repository and from the spool: whatever lies there, it is believed only where it is what it must be.

use bytes::Bytes;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use walhalla::archive::notes::Notes;
use walhalla::codec::{
    Encoding, FRAME_PLAIN_MAX, Identities, Kind, Recipients, Subject, decode_frame, encode_bytes, encode_frame,
};
use walhalla::pg::{Lsn, SystemIdentifier, WalFileName};
use walhalla::reach::Source;
use walhalla::repo::manifest::{Manifest, ObjectRef};
use walhalla::repo::{BackupId, Cluster, ClusterIdentity, Repository};
use walhalla::spool::Spool;
use walhalla::storage::{Integrity, Key, MemoryStorage, PutMode, Storage};

/// The cluster of the seeds.
const SYSTEM: SystemIdentifier = SystemIdentifier(7_442_190_265_218_741_297);
/// The backup of the seeds.
const BACKUP: &str = "20261123T170159Z-7f3a1c";
/// A manifest of that backup; the target for the index fills in what its index is.
const MANIFEST: &[u8] = include_bytes!("../corpus/backup_manifest/one");

fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// A cluster's folder that holds one object.
fn with(key: impl FnOnce(&Cluster) -> Key, body: Bytes) -> Cluster {
    let storage = Arc::new(MemoryStorage::new());
    let cluster = Repository::new(Arc::clone(&storage) as Arc<dyn Storage>, None).cluster(SYSTEM);
    let key = key(&cluster);
    let put = storage.put(&key, body, &PutMode::CreateOnly, Integrity::Sound);
    block_on(put).unwrap();
    cluster
}

fn object(kind: Kind, plain: &[u8]) -> (Bytes, ObjectRef) {
    let subject = Subject { kind, system_identifier: SYSTEM, timeline: 1, start: Lsn(0x0200_0028) };
    let encoding = Encoding { level: 1, recipients: Recipients::default() };
    let encoded = encode_bytes(plain, subject, &encoding).unwrap();
    let reference = ObjectRef {
        size: encoded.bytes.len() as u64,
        plain: encoded.header.plain_length,
        hash: encoded.header.plain_hash,
    };
    (encoded.bytes, reference)
}

/// `cluster.json`.
pub fn cluster_json(data: &[u8]) {
    let cluster = with(|cluster| cluster.layout().identity(), Bytes::copy_from_slice(data));
    match block_on(cluster.identity()) {
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line"),
        Ok(identity) => {
            assert_eq!(identity.system_identifier, SYSTEM);
            let written: Result<ClusterIdentity, _> = serde_json::from_slice(&identity.to_bytes());
            assert_eq!(written.unwrap(), identity);
        }
    }
}

/// A backup's own manifest.
pub fn backup_manifest(data: &[u8]) {
    let id: BackupId = BACKUP.parse().unwrap();
    let (body, _) = object(Kind::BackupManifest, data);
    let cluster = with(|cluster| cluster.layout().backup_manifest(&id), body);
    match block_on(cluster.manifest(&id)) {
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line"),
        Ok(manifest) => {
            assert_eq!((&manifest.id, manifest.system_identifier), (&id, SYSTEM));
            let written: Manifest = serde_json::from_slice(&serde_json::to_vec(&manifest).unwrap()).unwrap();
            assert_eq!(written, manifest);
        }
    }
}

/// One part of a backup's index.
pub fn backup_index(data: &[u8]) {
    let id: BackupId = BACKUP.parse().unwrap();
    let (body, reference) = object(Kind::BackupIndex, data);
    let cluster = with(|cluster| cluster.layout().backup_index(&id, 0), body);
    let mut manifest: Manifest = serde_json::from_slice(MANIFEST).unwrap();
    manifest.index = vec![reference];
    let source = Source { cluster, identities: Identities::default(), concurrency: 1 };
    if let Ok(records) = block_on(source.index_part(&manifest, 0)) {
        for record in records {
            let line = serde_json::to_vec(&record).unwrap();
            assert!(!line.contains(&b'\n'), "a record is one line");
        }
    }
}

/// One frame of a backup's data: as it is, and as the frame of what it would be. First four bytes: the length that is claimed.
pub fn frame(data: &[u8]) {
    let Some((claimed, packed)) = data.split_first_chunk::<4>() else { return };
    let claimed = u32::from_le_bytes(*claimed) % (FRAME_PLAIN_MAX + 2);
    if let Ok(plain) = decode_frame(packed, claimed, 0) {
        assert_eq!((plain.len(), crc32fast::hash(&plain)), (claimed as usize, 0));
    }
    let mut frames = Vec::new();
    let (length, crc32) = encode_frame(packed, 1, &mut frames).unwrap();
    assert_eq!(length as usize, frames.len());
    assert_eq!(decode_frame(&frames, packed.len() as u32, crc32).unwrap(), packed);
    assert!(decode_frame(&frames, packed.len() as u32, crc32 ^ 1).is_err());
}

/// Notes in the spool: whatever they say, they are believed or not, and never in the way.
pub fn spool_notes(data: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    let spool = Spool::find(Some(&home.path().join("spool")), None).unwrap().unwrap();
    let notes = Notes::new(Some(spool.clone()), home.path());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let names: [WalFileName; 2] = ["000000010000000000000007", "00000002.history"].map(|name| name.parse().unwrap());
    let ask = || {
        for name in &names {
            black_box(notes.absent(name, now));
        }
        black_box(notes.in_trouble_lately(now));
    };
    notes.trouble(now);
    ask();
    let identity =
        ClusterIdentity::new(SYSTEM, walhalla::pg::PgMajor(15), walhalla::pg::SegmentSize::new(1 << 24).unwrap());
    let cluster = Repository::new(Arc::new(MemoryStorage::new()), Some(spool.clone())).cluster(SYSTEM);
    block_on(cluster.ensure_identity(&identity)).unwrap();
    for entry in std::fs::read_dir(spool.directory()).unwrap() {
        std::fs::write(entry.unwrap().path(), data).unwrap();
    }
    ask();
    block_on(cluster.ensure_identity(&identity)).unwrap();
}
