//! A storage for this room's tests: honest or lying as its personality says, with a clock that follows tokio's (paused) one.

use super::judge::Offer;
use super::manifest::NeededWal;
use super::{BackupId, Cluster, ClusterIdentity, Layout, Manifest, Repository};
use crate::codec::{self, Encoded, Encoding, HEADER_LEN, Kind, Recipients, Subject};
use crate::pg::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId, WalFileName};
use crate::spool::Spool;
use crate::storage::{
    Capabilities, ETag, Entry, Integrity, Key, ListPage, ListRequest, Object, PutMode, Storage, StorageError,
    StorageErrorKind, StorageResult,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// The cluster of all tests.
pub(super) const SYSTEM: SystemIdentifier = SystemIdentifier(7);

pub(super) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// The first timeline's segment of this number.
pub(super) fn segment(number: u64) -> SegmentName {
    SegmentName::at(TimelineId::FIRST, Lsn(number << 24), SegmentSize::DEFAULT)
}

pub(super) fn wal(name: &str) -> WalFileName {
    name.parse().unwrap()
}

pub(super) fn identity() -> ClusterIdentity {
    ClusterIdentity::new(SYSTEM, PgMajor(15), SegmentSize::DEFAULT)
}

/// A WAL object of the first timeline.
pub(super) fn object(number: u64, plain: &[u8]) -> Encoded {
    object_at_level(number, plain, 1)
}

pub(super) fn object_at_level(number: u64, plain: &[u8], level: i32) -> Encoded {
    encoded(Kind::Wal, 1, Lsn(number << 24), plain, level)
}

pub(super) fn encoded(kind: Kind, timeline: u32, start: Lsn, plain: &[u8], level: i32) -> Encoded {
    let subject = Subject { kind, system_identifier: SYSTEM, timeline, start };
    codec::encode_bytes(plain, subject, &Encoding { level, recipients: Recipients::default() }).unwrap()
}

/// A small whole backup of the first timeline.
pub(super) fn manifest(id: &BackupId) -> Manifest {
    Manifest {
        format: 1,
        id: id.clone(),
        system_identifier: SYSTEM,
        postgres_major: PgMajor(15),
        server_version_num: 150_018,
        wal_segment_size: SegmentSize::DEFAULT,
        parent: None,
        label: "nightly".to_owned(),
        from_standby: false,
        started_at: "2026-11-23T17:01:59Z".to_owned(),
        finished_at: "2026-11-23T17:02:30Z".to_owned(),
        start_lsn: Lsn(0x200_0028),
        start_timeline: TimelineId::FIRST,
        end_lsn: Lsn(0x200_0130),
        end_timeline: TimelineId::FIRST,
        wal: vec![NeededWal { name: segment(2), own: false }],
        archives: Vec::new(),
        index: Vec::new(),
        pg_manifest: Vec::new(),
        encrypted: false,
        damaged: Vec::new(),
        outside: BTreeMap::new(),
        server_settings: BTreeMap::new(),
        files: 0,
        tar_bytes: 0,
        stored_bytes: 0,
        written_by: "0.1.0".to_owned(),
    }
}

pub(super) fn offer(object: &Encoded) -> Offer {
    let key = Layout::new(SYSTEM).wal(&WalFileName::Segment(segment(1)));
    Offer::object(format!("{key} in memory:shelf"), key, object)
}

/// The object as a later version might write it: another version in a header whose checksum fits.
pub(super) fn with_version(object: &[u8], version: u8) -> Vec<u8> {
    let mut bytes = object.to_vec();
    bytes[16] = version;
    let sum = crc32fast::hash(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The cluster on this shelf, without a spool.
pub(super) fn cluster(shelf: &Arc<Shelf>) -> Cluster {
    Repository::new(Arc::clone(shelf) as Arc<dyn Storage>, None).cluster(SYSTEM)
}

/// A spool in a directory of its own, which goes with the first value.
pub(super) fn spool() -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::find(Some(&dir.path().join("spool")), None).unwrap().unwrap();
    (dir, spool)
}

/// What it does about a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Honour,
    /// Stores whatever is there.
    Ignore,
    /// Says that it cannot.
    Unsupported,
    /// Refuses exactly when it should not, as a gateway once did.
    Inverted,
}

/// What it does about a wrong checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    Verify,
    Ignore,
    /// Refuses, and has stored it.
    CommitAnyway,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Personality {
    pub(super) create: Condition,
    pub(super) if_match: Condition,
    pub(super) checksums: Checksums,
    /// Whether `start_after` leaves out the key itself.
    pub(super) exact: bool,
    /// Whether listings and answers carry dates.
    pub(super) dates: bool,
    /// Whether tags are random rather than hashes of the content.
    pub(super) random_tags: bool,
    pub(super) known: Option<Capabilities>,
}

impl Personality {
    pub(super) const HONEST: Self = Self {
        create: Condition::Honour,
        if_match: Condition::Honour,
        checksums: Checksums::Verify,
        exact: true,
        dates: true,
        random_tags: false,
        known: Some(Capabilities::ALL),
    };
    /// The same, but only a probe can tell.
    pub(super) const PROBED: Self = Self { known: None, ..Self::HONEST };
    /// Ignores conditions, and says so.
    pub(super) const IGNORING: Self = Self {
        create: Condition::Ignore,
        if_match: Condition::Ignore,
        known: Some(Capabilities { create_only: false, if_match: false, ..Capabilities::ALL }),
        ..Self::HONEST
    };
}

/// What happens to the next request of an operation on a key.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It fails with this kind and does nothing.
    Fail(StorageErrorKind),
    /// It is done, and its answer is lost.
    LoseAnswer,
    /// A put is acknowledged and these bytes are stored.
    Garble(Bytes),
    /// A get answers these bytes.
    Answer(Bytes),
    /// It takes this long before anything happens.
    Stall(Duration),
    /// Before it is carried out, somebody else puts this.
    Meanwhile(Bytes),
}

#[derive(Debug, Clone)]
struct Stored {
    body: Bytes,
    tag: ETag,
    modified: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    deleted: Vec<String>,
    faults: Vec<(&'static str, String, Fault)>,
    log: Vec<String>,
    /// Every body that was ever stored under each key, in order, an unchanged one once.
    history: BTreeMap<String, Vec<Bytes>>,
    tags: u64,
}

#[derive(Debug)]
pub(super) struct Shelf {
    personality: Mutex<Personality>,
    state: Mutex<State>,
    start: Instant,
    /// Sleeps up to this long before and after each effect.
    jitter: Option<(Mutex<fastrand::Rng>, Duration)>,
    page: usize,
}

impl Shelf {
    pub(super) fn new(personality: Personality) -> Self {
        Self {
            personality: Mutex::new(personality),
            state: Mutex::default(),
            start: Instant::now(),
            jitter: None,
            page: 2,
        }
    }

    pub(super) fn slow(personality: Personality, seed: u64, up_to: Duration) -> Self {
        Self { jitter: Some((Mutex::new(fastrand::Rng::with_seed(seed)), up_to)), ..Self::new(personality) }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Personality)) {
        change(&mut self.personality.lock().unwrap());
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.start.elapsed()
    }

    /// The next `operation` ("PUT", "GET", "LIST") on a key that contains `key` meets this fault.
    pub(super) fn fault(&self, operation: &'static str, key: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((operation, key.to_owned(), fault));
    }

    /// Stores without a request.
    pub(super) fn place(&self, key: &str, body: impl Into<Bytes>) {
        let body = body.into();
        self.commit(key, body);
    }

    /// Removes without a request; `marker` leaves a delete marker.
    pub(super) fn remove(&self, key: &str, marker: bool) {
        let mut state = self.state.lock().unwrap();
        state.objects.remove(key);
        if marker {
            state.deleted.push(key.to_owned());
        }
    }

    pub(super) fn body(&self, key: &str) -> Option<Bytes> {
        self.state.lock().unwrap().objects.get(key).map(|stored| stored.body.clone())
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(super) fn history(&self, key: &str) -> Vec<Bytes> {
        self.state.lock().unwrap().history.get(key).cloned().unwrap_or_default()
    }

    /// The requests since the last call, like `PUT create 7/wal/…`.
    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    fn commit(&self, key: &str, body: Bytes) -> ETag {
        let modified = self.now();
        let random = self.personality.lock().unwrap().random_tags;
        let mut state = self.state.lock().unwrap();
        state.tags += 1;
        let tag = if random {
            ETag(format!("\"t{}\"", state.tags))
        } else {
            ETag(format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]))
        };
        let history = state.history.entry(key.to_owned()).or_default();
        if history.last() != Some(&body) {
            history.push(body.clone());
        }
        state.deleted.retain(|deleted| deleted != key);
        state.objects.insert(key.to_owned(), Stored { body, tag: tag.clone(), modified });
        tag
    }

    /// Quick or, `slowly` of 256 times, as slow as can be.
    async fn pause(&self, slowly: u8) {
        let Some((rng, up_to)) = &self.jitter else { return };
        let millis = u64::try_from(up_to.as_millis()).unwrap();
        let nap = {
            let mut rng = rng.lock().unwrap();
            if rng.u8(..) < slowly { rng.u64(0..=millis) } else { rng.u64(0..=millis / 20) }
        };
        tokio::time::sleep(Duration::from_millis(nap)).await;
    }

    fn enter(&self, operation: &'static str, detail: &str, key: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.log.push(format!("{operation}{detail} {key}"));
        let at = state.faults.iter().position(|(op, part, _)| *op == operation && key.contains(part.as_str()))?;
        Some(state.faults.remove(at).2)
    }

    fn error(&self, kind: StorageErrorKind, operation: &str, key: &str) -> StorageError {
        StorageError::new(kind, format!("cannot {operation} {key} at {}: {kind:?}", self.location()))
    }

    fn condition(&self, key: &str, mode: &PutMode) -> Result<(), StorageErrorKind> {
        let there = self.state.lock().unwrap().objects.get(key).map(|stored| stored.tag.clone());
        let personality = *self.personality.lock().unwrap();
        let (behaviour, holds) = match mode {
            PutMode::Overwrite => return Ok(()),
            PutMode::CreateOnly => (personality.create, there.is_none()),
            PutMode::IfMatch(tag) => (personality.if_match, there.as_ref() == Some(tag)),
        };
        match (behaviour, holds) {
            (Condition::Unsupported, _) => Err(StorageErrorKind::ConditionUnsupported),
            (Condition::Ignore, _) | (Condition::Honour, true) | (Condition::Inverted, false) => Ok(()),
            (Condition::Honour, false) | (Condition::Inverted, true) => Err(StorageErrorKind::Precondition),
        }
    }
}

#[async_trait::async_trait]
impl Storage for Shelf {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        let name = key.as_str();
        let detail = match (mode, integrity) {
            (_, Integrity::WrongOnPurpose) => " wrong",
            (PutMode::CreateOnly, _) => " create",
            (PutMode::IfMatch(_), _) => " match",
            (PutMode::Overwrite, _) => "",
        };
        let fault = self.enter("PUT", detail, name);
        self.pause(if name.contains("/claim/") { 25 } else { 200 }).await;
        let mut body = body;
        let mut lose = false;
        match fault {
            Some(Fault::Fail(kind)) => return Err(self.error(kind, "put", name)),
            Some(Fault::LoseAnswer) => lose = true,
            Some(Fault::Garble(other)) => body = other,
            Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
            Some(Fault::Meanwhile(other)) => self.place(name, other),
            Some(Fault::Answer(_)) | None => {}
        }
        self.condition(name, mode).map_err(|kind| self.error(kind, "put", name))?;
        let checksums = self.personality.lock().unwrap().checksums;
        if integrity == Integrity::WrongOnPurpose && checksums != Checksums::Ignore {
            if checksums == Checksums::CommitAnyway {
                self.commit(name, body);
            }
            return Err(self.error(StorageErrorKind::DamagedOnTheWay, "put", name));
        }
        let tag = self.commit(name, body);
        self.pause(25).await;
        if lose { Err(self.error(StorageErrorKind::Unavailable, "put", name)) } else { Ok(Some(tag)) }
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        assert!(range.is_none(), "this room reads whole objects");
        let name = key.as_str();
        let fault = self.enter("GET", "", name);
        self.pause(25).await;
        let answer = {
            let state = self.state.lock().unwrap();
            match state.objects.get(name) {
                Some(stored) => Ok(Object { body: stored.body.clone(), etag: Some(stored.tag.clone()) }),
                None => Err(StorageErrorKind::NotFound { deleted: state.deleted.iter().any(|key| key == name) }),
            }
        };
        match fault {
            Some(Fault::Fail(kind)) => return Err(self.error(kind, "get", name)),
            // Damaged on its way: the head, and the tag in it, is the right one.
            Some(Fault::Answer(body)) => {
                let etag = answer.map_or_else(|_| ETag("\"garbled\"".to_owned()).into(), |object| object.etag);
                return Ok(Object { body, etag });
            }
            Some(Fault::Stall(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        self.pause(25).await;
        answer.map_err(|kind| self.error(kind, "get", name))
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        let fault = self.enter("LIST", if request.start_after.is_some() { " after" } else { "" }, &request.prefix);
        self.pause(25).await;
        if let Some(Fault::Fail(kind)) = fault {
            return Err(self.error(kind, "list", &request.prefix));
        }
        let page = {
            let state = self.state.lock().unwrap();
            let personality = *self.personality.lock().unwrap();
            let behind = |key: &str| match (&request.token, &request.start_after) {
                (Some(token), _) => key > token.as_str(),
                (None, Some(after)) if personality.exact => key > after.as_str(),
                (None, Some(after)) => key >= after.as_str(),
                (None, None) => true,
            };
            let matching = state.objects.iter().filter(|(key, _)| key.starts_with(&request.prefix) && behind(key));
            let limit = request.limit.unwrap_or(self.page).min(self.page);
            let mut entries: Vec<Entry> = matching
                .take(limit + 1)
                .map(|(key, stored)| Entry {
                    key: Key::new(key.clone()).unwrap(),
                    size: stored.body.len() as u64,
                    etag: Some(stored.tag.clone()),
                    last_modified: personality.dates.then_some(stored.modified),
                })
                .collect();
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| more).map(|entry| entry.key.as_str().to_owned());
            // Within a page in no order that anyone might rely on.
            entries.reverse();
            ListPage { entries, next, date: personality.dates.then(|| self.now()) }
        };
        self.pause(25).await;
        Ok(page)
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        if let Some(Fault::Fail(kind)) = self.enter("LIST", " folders", prefix) {
            return Err(self.error(kind, "list", prefix));
        }
        let state = self.state.lock().unwrap();
        let mut folders: Vec<String> = state
            .objects
            .keys()
            .filter_map(|key| key.strip_prefix(prefix)?.split_once('/').map(|(folder, _)| folder.to_owned()))
            .collect();
        folders.dedup();
        Ok(folders)
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        // A key that never exists, to find out whether we may.
        assert!(key.as_str().ends_with("/probe/delete"), "this room deletes nothing: {key}");
        match self.enter("DELETE", "", key.as_str()) {
            Some(Fault::Fail(kind)) => Err(self.error(kind, "delete", key.as_str())),
            _ => Ok(()),
        }
    }

    fn capabilities(&self) -> Option<Capabilities> {
        self.personality.lock().unwrap().known
    }

    fn location(&self) -> &str {
        "memory:shelf"
    }
}
