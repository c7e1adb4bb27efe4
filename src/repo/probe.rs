//! What an endpoint really does, shown on three permanent objects.
//!
//! Services differ and some deceive, so nothing is taken from a service's name. The objects stay where they are and keep fixed
//! content: no right to delete is needed, and several hosts may probe at once. What cannot be shown is taken to be missing; only
//! a storage that is out of reach is an error. The backend retries beneath (R2 allows one write a second to a key).

use super::layout::Layout;
use super::notes;
use super::repository::Cluster;
use crate::error::{Error, Result};
use crate::storage::{
    Capabilities, ETag, Integrity, Key, ListRequest, PutMode, Storage, StorageError, StorageErrorKind, StorageResult,
    list_all,
};
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const NOTE: &str = "probe";
const DELETE_NOTE: &str = "delete";
const SOUND: &[u8] = b"walhalla probe\n";
const STRAY: &[u8] = b"walhalla probe: this must never be stored\n";

/// What a process has learnt of its storage. Shared by all clusters of a repository: it is the storage's doing, not theirs.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    known: Mutex<Option<Known>>,
    /// One probe at a time; the others wait for its result.
    probing: tokio::sync::Mutex<()>,
    /// What the operator should know of it and has not been told.
    remark: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    capabilities: Capabilities,
    /// All four were looked at; else `create_only` alone, and the rest is the worst.
    whole: bool,
    at: Instant,
}

/// What must be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Whether it creates conditionally. Anything else may stay unknown, hence the worst.
    Create,
    /// Everything.
    All,
}

/// What each trial of a storage showed.
#[derive(Debug)]
pub struct Examination {
    /// Whether it lets us store.
    pub put: StorageResult<()>,
    /// Whether it lets us read.
    pub get: StorageResult<()>,
    /// What a listing showed.
    pub list: StorageResult<Listed>,
    /// [`Capabilities::create_only`]; `None` where it lets us not store, or could not be asked.
    pub create_only: Option<StorageResult<bool>>,
    /// [`Capabilities::verifies_integrity`].
    pub verifies_integrity: Option<StorageResult<bool>>,
    /// [`Capabilities::if_match`].
    pub if_match: Option<StorageResult<bool>>,
    /// [`Capabilities::start_after`].
    pub start_after: Option<StorageResult<bool>>,
}

/// What a listing showed.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Whether what had just been stored was in it.
    pub complete: bool,
    /// The store's clock, where it tells.
    pub date: Option<SystemTime>,
    /// Our clock before and after.
    pub asked: (SystemTime, SystemTime),
}

impl Examination {
    /// What is to be remembered: everything came out.
    fn capabilities(&self) -> Option<Capabilities> {
        let shown = |answer: &Option<StorageResult<bool>>| answer.as_ref()?.as_ref().ok().copied();
        Some(Capabilities {
            create_only: shown(&self.create_only)?,
            verifies_integrity: shown(&self.verifies_integrity)?,
            if_match: shown(&self.if_match)?,
            start_after: shown(&self.start_after)?,
        })
    }
}

impl Learnt {
    fn get(&self) -> Option<Known> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|known| known.at.elapsed() < notes::WEEK)
    }

    fn set(&self, known: Option<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl Cluster {
    /// What the endpoint really does: known by construction, remembered in the spool for 7 days, or probed now.
    ///
    /// Without a spool the answer could not be kept, so only conditional creation is probed, and the rest is the worst.
    pub async fn capabilities(&self) -> Result<Capabilities> {
        self.learn(Need::Create).await
    }

    /// Probes everything now, whatever was known before, and remembers it: what `init` and `check` show. Whoever asks for that
    /// wants the storage's own word: the note about the identity is forgotten too.
    pub async fn probe(&self) -> Result<Capabilities> {
        self.forget_notes();
        self.learn(Need::All).await
    }

    /// Tries everything, each by itself, and remembers it if all of it came out: what `check` tells line by line. Never an error:
    /// what could not be tried says why.
    pub async fn examine(&self) -> Examination {
        let _one_at_a_time = self.learnt.probing.lock().await;
        let shown = examine(self.storage.as_ref(), self.layout).await;
        if let Some(capabilities) = shown.capabilities() {
            self.learnt.set(Some(Known { capabilities, whole: true, at: Instant::now() }));
            notes::remember(self.spool.as_ref(), NOTE, self.storage.location(), capabilities);
        }
        shown
    }

    /// Whether the storage lets us delete, tried on a key that never exists. The answer is remembered for a week, because a bucket
    /// that keeps versions keeps a marker of each try.
    pub async fn may_delete(&self) -> StorageResult<bool> {
        let place = self.storage.location();
        if let Some(known) = notes::recall(self.spool.as_ref(), DELETE_NOTE, place) {
            return Ok(known);
        }
        let may = match self.storage.delete(&self.layout.probe("delete")).await {
            Ok(()) => true,
            Err(error) if error.kind == StorageErrorKind::Denied => false,
            Err(error) => return Err(error),
        };
        notes::remember(self.spool.as_ref(), DELETE_NOTE, place, may);
        Ok(may)
    }

    pub(super) async fn learn(&self, need: Need) -> Result<Capabilities> {
        if let Some(capabilities) = self.recalled(need) {
            return Ok(capabilities);
        }
        let _one_at_a_time = self.learnt.probing.lock().await;
        if let Some(capabilities) = self.recalled(need) {
            return Ok(capabilities);
        }
        let whole = need == Need::All || self.spool.is_some();
        let capabilities = probe(self.storage.as_ref(), self.layout, whole).await.map_err(|error| {
            Error::from(error).context(format!("cannot probe what the storage at {} does", self.storage.location()))
        })?;
        self.learnt.set(Some(Known { capabilities, whole, at: Instant::now() }));
        if whole {
            notes::remember(self.spool.as_ref(), NOTE, self.storage.location(), capabilities);
        }
        Ok(capabilities)
    }

    /// What is known without a request; the worst where nothing is. What readers go by, who may lack the right to write.
    pub(super) fn known_capabilities(&self) -> Capabilities {
        self.recalled(Need::Create).unwrap_or(Capabilities::NONE)
    }

    fn recalled(&self, need: Need) -> Option<Capabilities> {
        let learnt = self.learnt.get().filter(|known| known.whole || need == Need::Create);
        learnt
            .map(|known| known.capabilities)
            .or_else(|| self.storage.capabilities())
            .or_else(|| notes::recall(self.spool.as_ref(), NOTE, self.storage.location()))
    }

    /// What the operator should know of the storage since the last call of this: that it turned out unable to create
    /// conditionally. One line, for a program to print.
    pub fn take_remark(&self) -> Option<String> {
        self.learnt.remark.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The store has just said, in these words, that it cannot do what the probe, or its construction, promised.
    pub(super) fn refute_create_only(&self, words: &str) {
        let remark = format!("{words}: storing by the claim protocol, which takes five requests instead of one");
        *self.learnt.remark.lock().unwrap_or_else(PoisonError::into_inner) = Some(remark);
        let capabilities = Capabilities { create_only: false, ..self.known_capabilities() };
        self.forget_capabilities();
        self.learnt.set(Some(Known { capabilities, whole: true, at: Instant::now() }));
    }

    pub(super) fn forget_capabilities(&self) {
        self.learnt.set(None);
        notes::forget(self.spool.as_ref(), NOTE, self.storage.location());
    }
}

async fn probe(storage: &dyn Storage, layout: Layout, whole: bool) -> StorageResult<Capabilities> {
    let create_only = creates_only(storage, &layout.probe("create")).await?;
    if !whole {
        return Ok(Capabilities { create_only, ..Capabilities::NONE });
    }
    let shown = |answer: StorageResult<bool>| match answer {
        Err(error) if !error.kind.is_transient() => {
            tracing::debug!("the probe was refused, the worst is assumed: {error}");
            Ok(false)
        }
        answer => answer,
    };
    Ok(Capabilities {
        create_only,
        verifies_integrity: shown(verifies(storage, &layout.probe("checksum")).await)?,
        if_match: shown(matches(storage, &layout.probe("match")).await)?,
        start_after: shown(starts_after(storage, &layout.probes()).await)?,
    })
}

async fn examine(storage: &dyn Storage, layout: Layout) -> Examination {
    let key = layout.probe("create");
    let put = match put(storage, &key, SOUND, PutMode::CreateOnly).await {
        Ok(()) => Ok(()),
        // It looked at the condition, so it would have stored.
        Err(error) if error.kind == StorageErrorKind::Precondition => Ok(()),
        // The way of stores without conditions.
        Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => {
            put(storage, &layout.probe("checksum"), SOUND, PutMode::Overwrite).await
        }
        Err(error) => Err(error),
    };
    let get = look(storage, &key).await.map(drop);
    let list = listed(storage, layout).await;
    let mut shown =
        Examination { put, get, list, create_only: None, verifies_integrity: None, if_match: None, start_after: None };
    if shown.put.is_ok() {
        shown.create_only = Some(creates_only(storage, &key).await);
        shown.verifies_integrity = Some(verifies(storage, &layout.probe("checksum")).await);
        shown.if_match = Some(match matches(storage, &layout.probe("match")).await {
            Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => Ok(false),
            answer => answer,
        });
    }
    if shown.list.is_ok() {
        shown.start_after = Some(starts_after(storage, &layout.probes()).await);
    }
    shown
}

/// Lists the probes, which have just been stored.
async fn listed(storage: &dyn Storage, layout: Layout) -> StorageResult<Listed> {
    let before = SystemTime::now();
    let page = storage.list(&ListRequest::prefix(layout.probes())).await?;
    let asked = (before, SystemTime::now());
    let any = ["create", "checksum", "match"].map(|name| layout.probe(name));
    let complete = page.entries.iter().any(|entry| any.contains(&entry.key));
    Ok(Listed { complete, date: page.date, asked })
}

async fn put(storage: &dyn Storage, key: &Key, body: &'static [u8], mode: PutMode) -> StorageResult<()> {
    storage.put(key, Bytes::from_static(body), &mode, Integrity::Sound).await.map(drop)
}

/// The object's body and tag, or `None` where the store says that there is none.
async fn look(storage: &dyn Storage, key: &Key) -> StorageResult<Option<(Bytes, Option<ETag>)>> {
    match storage.get(key, None).await {
        Ok(object) => Ok(Some((object.body, object.etag))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates twice: the second time must be refused. Where already the first is, the object must be there: stores were seen that
/// refuse exactly when it is *not*.
async fn creates_only(storage: &dyn Storage, key: &Key) -> StorageResult<bool> {
    for _ in 0..2 {
        match put(storage, key, SOUND, PutMode::CreateOnly).await {
            Ok(()) => {}
            Err(error) if error.kind == StorageErrorKind::Precondition => {
                return Ok(look(storage, key).await?.is_some_and(|(body, _)| body == SOUND));
            }
            Err(error) if error.kind == StorageErrorKind::ConditionUnsupported => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Puts bytes under another body's checksum: that must be refused, and the object must be what it was.
///
/// Where the store refuses and commits all the same, another host's repair may hide it from us. That does no harm: such a store
/// also refuses a put that was damaged on its way, and the next try finds the damaged object and replaces it.
async fn verifies(storage: &dyn Storage, key: &Key) -> StorageResult<bool> {
    match look(storage, key).await? {
        Some((body, _)) if body == SOUND => {}
        _ => put(storage, key, SOUND, PutMode::Overwrite).await?,
    }
    let stray = format!("walhalla probe: wrong checksum {:016x}\n", fastrand::u64(..));
    match storage.put(key, Bytes::from(stray), &PutMode::Overwrite, Integrity::WrongOnPurpose).await {
        Err(StorageError { kind: StorageErrorKind::DamagedOnTheWay, .. }) => {}
        Ok(_) => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(look(storage, key).await?.is_some_and(|(body, _)| body == SOUND))
}

/// A put on a wrong tag must be refused, and one on the right tag done. A few rounds, because another host that probes may
/// change the tag between our reading and our putting.
async fn matches(storage: &dyn Storage, key: &Key) -> StorageResult<bool> {
    for _ in 0..3 {
        let tag = match look(storage, key).await? {
            Some((_, Some(tag))) => tag,
            Some((_, None)) => return Ok(false),
            None => {
                put(storage, key, SOUND, PutMode::Overwrite).await?;
                continue;
            }
        };
        match put(storage, key, STRAY, PutMode::IfMatch(other_than(&tag))).await {
            Err(error) if error.kind == StorageErrorKind::Precondition => {}
            Ok(()) => return Ok(false),
            Err(error) => return Err(error),
        }
        // If the stray body was stored in spite of the refusal, the right tag is no longer right.
        match put(storage, key, SOUND, PutMode::IfMatch(tag)).await {
            Ok(()) => return Ok(true),
            Err(error) if error.kind == StorageErrorKind::Precondition => {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(50..250))).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A tag of the same form that is another.
fn other_than(tag: &ETag) -> ETag {
    let mut changed = false;
    let text = tag
        .0
        .chars()
        .map(|c| match c {
            _ if changed => c,
            '0' => {
                changed = true;
                '1'
            }
            c if c.is_ascii_alphanumeric() => {
                changed = true;
                '0'
            }
            c => c,
        })
        .collect::<String>();
    if changed { ETag(text) } else { ETag("\"0\"".to_owned()) }
}

/// Every listing from a key on, and from a name that is no key, must be the tail of the plain listing.
async fn starts_after(storage: &dyn Storage, folder: &str) -> StorageResult<bool> {
    let all: Vec<Key> = list_all(storage, folder).await?.into_iter().map(|entry| entry.key).collect();
    if all.len() < 2 {
        return Ok(false);
    }
    let between = Key::new(format!("{folder}d"));
    for after in all.iter().cloned().chain(between) {
        let mut request =
            ListRequest { start_after: Some(after.clone()), limit: Some(1), ..ListRequest::prefix(folder) };
        let mut listed = Vec::new();
        loop {
            let page = storage.list(&request).await?;
            listed.extend(page.entries.into_iter().map(|entry| entry.key));
            match page.next {
                Some(token) => request.token = Some(token),
                None => break,
            }
            if listed.len() > all.len() {
                return Ok(false);
            }
        }
        if !listed.iter().eq(all.iter().filter(|key| **key > after)) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Checksums, Condition, Fault, Personality, SYSTEM, Shelf, cluster, spool};
    use super::super::{Layout, Repository};
    use super::*;
    use crate::error::ErrorKind;
    use std::sync::Arc;

    async fn probed(personality: Personality) -> Capabilities {
        let shelf = Arc::new(Shelf::new(personality));
        let cluster = cluster(&shelf);
        let first = cluster.probe().await.unwrap();
        let again = cluster.probe().await.unwrap();
        assert_eq!(first, again, "the permanent objects are there the second time: {personality:?}");
        assert_eq!(shelf.keys(), ["7/probe/checksum", "7/probe/create", "7/probe/match"]);
        first
    }

    #[tokio::test(start_paused = true)]
    async fn an_honest_store() {
        assert_eq!(probed(Personality::PROBED).await, Capabilities::ALL);
        assert_eq!(probed(Personality { random_tags: true, ..Personality::PROBED }).await, Capabilities::ALL);
    }

    #[tokio::test(start_paused = true)]
    async fn conditional_creation() {
        for create in [Condition::Ignore, Condition::Unsupported, Condition::Inverted] {
            let shown = probed_create(create).await;
            assert_eq!(shown, Capabilities { create_only: false, ..Capabilities::ALL }, "{create:?}");
        }
    }

    async fn probed_create(create: Condition) -> Capabilities {
        let shelf = Arc::new(Shelf::new(Personality { create, ..Personality::PROBED }));
        for name in ["create", "checksum", "match"] {
            shelf.place(Layout::new(SYSTEM).probe(name).as_str(), SOUND);
        }
        let full = cluster(&shelf).probe().await.unwrap();
        shelf.remove("7/probe/create", false);
        let empty = cluster(&shelf).capabilities().await.unwrap();
        assert!(!empty.create_only, "{create:?} on an empty store");
        full
    }

    #[tokio::test(start_paused = true)]
    async fn checksums() {
        for checksums in [Checksums::Ignore, Checksums::CommitAnyway] {
            let shown = probed(Personality { checksums, ..Personality::PROBED }).await;
            assert_eq!(shown, Capabilities { verifies_integrity: false, ..Capabilities::ALL }, "{checksums:?}");
        }
        // Better than before: what an earlier probe left is repaired.
        let shelf = Arc::new(Shelf::new(Personality { checksums: Checksums::Ignore, ..Personality::PROBED }));
        assert!(!cluster(&shelf).probe().await.unwrap().verifies_integrity);
        shelf.change(|personality| personality.checksums = Checksums::Verify);
        assert!(cluster(&shelf).probe().await.unwrap().verifies_integrity);
    }

    #[tokio::test(start_paused = true)]
    async fn conditions_on_tags() {
        for if_match in [Condition::Ignore, Condition::Unsupported, Condition::Inverted] {
            let shown = probed(Personality { if_match, ..Personality::PROBED }).await;
            assert_eq!(shown, Capabilities { if_match: false, ..Capabilities::ALL }, "{if_match:?}");
        }
        // Ceph 16: the right tag is refused as well.
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        for _ in 0..6 {
            shelf.fault("PUT", "probe/match", Fault::Fail(StorageErrorKind::Precondition));
        }
        shelf.place("7/probe/match", SOUND);
        assert!(!cluster(&shelf).probe().await.unwrap().if_match);
    }

    #[tokio::test(start_paused = true)]
    async fn another_host_probes_at_the_same_moment() {
        let shelf = Arc::new(Shelf::new(Personality { random_tags: true, ..Personality::PROBED }));
        shelf.place("7/probe/match", SOUND);
        shelf.fault("PUT", "probe/match", Fault::Meanwhile(Bytes::from_static(SOUND)));
        shelf.fault("PUT", "probe/match", Fault::Meanwhile(Bytes::from_static(SOUND)));
        assert_eq!(cluster(&shelf).probe().await.unwrap(), Capabilities::ALL);

        let shelf = Arc::new(Shelf::slow(
            Personality { random_tags: true, ..Personality::PROBED },
            1,
            Duration::from_millis(200),
        ));
        let mut hosts = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let cluster = cluster(&shelf);
            hosts.spawn(async move { cluster.probe().await.unwrap() });
        }
        while let Some(shown) = hosts.join_next().await {
            let shown = shown.unwrap();
            assert!(shown.create_only && shown.verifies_integrity && shown.start_after, "{shown:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn listings_from_a_key_on() {
        let shown = probed(Personality { exact: false, ..Personality::PROBED }).await;
        assert_eq!(shown, Capabilities { start_after: false, ..Capabilities::ALL });
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_the_worst_and_trouble_is_an_error() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        shelf.fault("PUT", "probe/checksum", Fault::Fail(StorageErrorKind::Denied));
        shelf.fault("GET", "probe/match", Fault::Fail(StorageErrorKind::Denied));
        shelf.fault("LIST", "probe/", Fault::Fail(StorageErrorKind::Denied));
        let shown = cluster(&shelf).probe().await.unwrap();
        assert_eq!(shown, Capabilities { create_only: true, ..Capabilities::NONE });

        for (operation, key) in [
            ("PUT", "probe/create"),
            ("PUT", "probe/checksum"),
            ("GET", "probe/checksum"),
            ("PUT", "probe/match"),
            ("GET", "probe/match"),
            ("LIST", "probe/"),
        ] {
            let shelf = Arc::new(Shelf::new(Personality::PROBED));
            shelf.fault(operation, key, Fault::Fail(StorageErrorKind::Unavailable));
            let error = cluster(&shelf).probe().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation} {key}");
            assert!(error.to_string().contains("cannot probe"), "{error}");
        }
        // Who may not even write is told so.
        shelf.fault("PUT", "probe/create", Fault::Fail(StorageErrorKind::Denied));
        assert_eq!(cluster(&shelf).probe().await.unwrap_err().kind(), ErrorKind::Denied);
    }

    #[tokio::test(start_paused = true)]
    async fn examined_each_trial_by_itself() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let shown = cluster(&shelf).examine().await;
        assert_eq!(shown.capabilities(), Some(Capabilities::ALL));
        assert!(shown.put.is_ok() && shown.get.is_ok() && shown.list.is_ok_and(|listed| listed.complete));
        assert_eq!(shelf.keys(), ["7/probe/checksum", "7/probe/create", "7/probe/match"]);
        let denied = |error: &StorageError| error.kind == StorageErrorKind::Denied;
        for operation in ["PUT", "GET", "LIST"] {
            let shelf = Arc::new(Shelf::new(Personality::PROBED));
            let key = if operation == "LIST" { "probe/" } else { "probe/create" };
            shelf.fault(operation, key, Fault::Fail(StorageErrorKind::Denied));
            let shown = cluster(&shelf).examine().await;
            assert_eq!(shown.put.as_ref().is_err_and(denied), operation == "PUT");
            assert_eq!(shown.get.as_ref().is_err_and(denied), operation == "GET");
            assert_eq!(shown.list.as_ref().is_err_and(denied), operation == "LIST");
            assert_eq!(shown.create_only.is_none(), operation == "PUT", "nothing is tried that was just refused");
            assert_eq!(shown.start_after.is_none(), operation == "LIST");
        }
        // A store without conditions lets us store all the same.
        let create = Condition::Unsupported;
        let shelf = Arc::new(Shelf::new(Personality { create, ..Personality::PROBED }));
        let shown = cluster(&shelf).examine().await;
        assert!(shown.put.is_ok() && shown.list.is_ok_and(|listed| listed.complete));
        assert!(matches!(shown.create_only, Some(Ok(false))));
        let if_match = Condition::Unsupported;
        let shelf = Arc::new(Shelf::new(Personality { if_match, ..Personality::PROBED }));
        assert!(matches!(cluster(&shelf).examine().await.if_match, Some(Ok(false))));
    }

    #[tokio::test(start_paused = true)]
    async fn whether_it_may_delete_is_asked_once_a_week() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let (_dir, spool) = spool();
        let open = || Repository::new(Arc::clone(&shelf) as Arc<dyn Storage>, Some(spool.clone())).cluster(SYSTEM);
        shelf.fault("DELETE", "probe/delete", Fault::Fail(StorageErrorKind::Unavailable));
        assert!(open().may_delete().await.is_err());
        shelf.fault("DELETE", "probe/delete", Fault::Fail(StorageErrorKind::Denied));
        assert!(!open().may_delete().await.unwrap());
        assert_eq!(shelf.requests(), ["DELETE 7/probe/delete"; 2]);
        assert!(!open().may_delete().await.unwrap());
        assert_eq!(shelf.requests(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_in_the_spool_for_a_week() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let (_dir, spool) = spool();
        let open = || Repository::new(Arc::clone(&shelf) as Arc<dyn Storage>, Some(spool.clone())).cluster(SYSTEM);
        assert_eq!(open().capabilities().await.unwrap(), Capabilities::ALL);
        assert!(!shelf.requests().is_empty());
        let next_process = open();
        assert_eq!(next_process.known_capabilities(), Capabilities::ALL);
        assert_eq!(next_process.capabilities().await.unwrap(), Capabilities::ALL);
        assert_eq!(shelf.requests(), [""; 0]);
        next_process.refute_create_only("501 NotImplemented");
        assert!(!next_process.capabilities().await.unwrap().create_only);
        assert_eq!(shelf.requests(), [""; 0], "this process has learnt better");
        assert!(open().capabilities().await.unwrap().create_only, "the next one asks again");
        assert!(!shelf.requests().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_spool_only_what_the_call_needs() {
        let shelf = Arc::new(Shelf::new(Personality::PROBED));
        let cluster = cluster(&shelf);
        assert_eq!(cluster.known_capabilities(), Capabilities::NONE);
        let known = cluster.capabilities().await.unwrap();
        assert_eq!(known, Capabilities { create_only: true, ..Capabilities::NONE });
        let key = "7/probe/create";
        let asked = [format!("PUT create {key}"), format!("PUT create {key}"), format!("GET {key}")];
        assert_eq!(shelf.requests(), asked);
        cluster.capabilities().await.unwrap();
        assert_eq!(shelf.requests(), [""; 0], "one process asks once");
        assert_eq!(cluster.learn(Need::All).await.unwrap(), Capabilities::ALL);

        let by_construction = super::super::testing::cluster(&Arc::new(Shelf::new(Personality::HONEST)));
        assert_eq!(by_construction.known_capabilities(), Capabilities::ALL);
    }

    #[test]
    fn another_tag_of_the_same_form() {
        for (tag, other) in [("\"0a\"", "\"1a\""), ("\"ab-2\"", "\"0b-2\""), ("\"\"", "\"0\""), ("", "\"0\"")] {
            assert_eq!(other_than(&ETag(tag.to_owned())).0, other);
        }
    }
}
