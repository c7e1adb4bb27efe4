//! The promises of a storage, held by every backend: what stands on `storage::Storage` is tried here, on memory, a directory, the false
//! S3, and every real engine that is there.

use crate::support::engines::ENGINES;
use crate::support::fake_s3::{FakeS3, Personality};
use crate::support::{stores, temporary};
use bytes::Bytes;
use std::sync::Arc;
use walhalla::storage::{
    ETag, Integrity, Key, ListRequest, PutMode, Storage, StorageErrorKind, StorageResult, list_all,
};

/// What is to be expected of a backend.
#[derive(Debug, Clone, Copy)]
struct Manners {
    create_only: bool,
    verifies_integrity: bool,
    if_match: bool,
    /// Whether `start_after` is exact.
    start_after: bool,
    /// Whether a folder goes with its last object. SeaweedFS shows it for a while longer, so `folders` may name an empty one.
    folders_go: bool,
}

const HONEST: Manners =
    Manners { create_only: true, verifies_integrity: true, if_match: true, start_after: true, folders_go: true };

fn key(text: impl Into<String>) -> Key {
    let text = text.into();
    Key::new(text.clone()).unwrap_or_else(|| panic!("{text:?} is no key"))
}

async fn put(storage: &dyn Storage, name: &str, body: impl Into<Bytes>, mode: PutMode) -> StorageResult<Option<ETag>> {
    storage.put(&key(name), body.into(), &mode, Integrity::Sound).await
}

async fn body(storage: &dyn Storage, name: &str) -> Bytes {
    storage.get(&key(name), None).await.unwrap_or_else(|error| panic!("{name}: {error}")).body
}

fn kind<T: std::fmt::Debug>(result: StorageResult<T>) -> StorageErrorKind {
    let error = result.unwrap_err();
    assert!(!error.message.contains('\n'), "more than a line: {error}");
    error.kind
}

const NOT_FOUND: StorageErrorKind = StorageErrorKind::NotFound { deleted: false };

/// The whole suite, on one storage that is empty.
async fn hold(storage: Arc<dyn Storage>, manners: Manners) {
    println!("{}: {manners:?}", storage.location());
    if let Some(known) = storage.capabilities() {
        assert_eq!((known.create_only, known.if_match), (manners.create_only, manners.if_match), "it knows itself");
    }
    let storage_ref = storage.as_ref();
    what_was_put_is_there(storage_ref).await;
    ranges_are_clipped(storage_ref).await;
    absence_is_said_by_the_store(storage_ref).await;
    deleting_is_idempotent(storage_ref).await;
    bodies_of_any_size_come_back(storage_ref).await;
    conditions_hold(storage_ref, manners).await;
    damage_on_the_way_is_refused(storage_ref, manners).await;
    folders_are_found(storage_ref, manners).await;
    listings_are_whole(storage_ref, manners).await;
    one_creator_wins(storage, manners).await;
}

async fn what_was_put_is_there(storage: &dyn Storage) {
    put(storage, "seen/a", "one", PutMode::CreateOnly).await.unwrap();
    let object = storage.get(&key("seen/a"), None).await.unwrap();
    assert_eq!(object.body, "one");
    let page = storage.list(&ListRequest::prefix("seen/")).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (1, None));
    assert_eq!((&page.entries[0].key, page.entries[0].size), (&key("seen/a"), 3));
    assert_eq!(page.entries[0].etag, object.etag, "one tag, whoever tells it");
    let (date, modified) = (page.date.unwrap(), page.entries[0].last_modified.unwrap());
    let age = date.duration_since(modified).unwrap_or_else(|early| early.duration());
    assert!(age.as_secs() < 60, "both by the store's clock: {age:?}");

    let first = object.etag;
    put(storage, "seen/a", "two", PutMode::Overwrite).await.unwrap();
    let object = storage.get(&key("seen/a"), None).await.unwrap();
    assert_eq!(object.body, "two");
    assert!(object.etag.is_some() && object.etag != first, "the tag changes with the content");
}

async fn ranges_are_clipped(storage: &dyn Storage) {
    put(storage, "range", "0123456789", PutMode::CreateOnly).await.unwrap();
    for (range, expected) in [(0..4, "0123"), (3..4, "3"), (0..10, "0123456789"), (5..1000, "56789"), (9..10, "9")] {
        let part = storage.get(&key("range"), Some(range.clone())).await.unwrap_or_else(|e| panic!("{range:?}: {e}"));
        assert_eq!(part.body, expected, "{range:?}");
    }
}

async fn absence_is_said_by_the_store(storage: &dyn Storage) {
    // Below nothing, beside an object, and below one.
    put(storage, "near/object", "x", PutMode::CreateOnly).await.unwrap();
    for name in ["none", "near/none", "near/objec", "near/object1", "near", "deep/er/none"] {
        assert_eq!(kind(storage.get(&key(name), None).await), NOT_FOUND, "{name}");
        assert_eq!(kind(storage.get(&key(name), Some(0..10)).await), NOT_FOUND, "{name}");
    }
    assert!(storage.list(&ListRequest::prefix("nowhere/")).await.unwrap().entries.is_empty());
    assert!(storage.folders("nowhere/").await.unwrap().is_empty());
}

async fn deleting_is_idempotent(storage: &dyn Storage) {
    put(storage, "gone/a", "x", PutMode::CreateOnly).await.unwrap();
    for _ in 0..2 {
        storage.delete(&key("gone/a")).await.unwrap();
        let error = storage.get(&key("gone/a"), None).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
    storage.delete(&key("never/was/there")).await.unwrap();
    assert!(list_all(storage, "gone/").await.unwrap().is_empty());
    put(storage, "gone/a", "again", PutMode::CreateOnly).await.unwrap();
    assert_eq!(body(storage, "gone/a").await, "again");
}

async fn bodies_of_any_size_come_back(storage: &dyn Storage) {
    let mut random = fastrand::Rng::with_seed(7);
    for size in [0, 1, 65_535, 65_536, 1 << 20, 32 << 20] {
        let bytes: Bytes = std::iter::repeat_with(|| random.u8(..)).take(size).collect::<Vec<_>>().into();
        let name = format!("size/{size}");
        put(storage, &name, bytes.clone(), PutMode::CreateOnly).await.unwrap();
        assert!(body(storage, &name).await == bytes, "{size} bytes");
    }
    let middle = storage.get(&key("size/33554432"), Some(20_000_000..20_000_010)).await.unwrap();
    assert_eq!(middle.body.len(), 10);
    let entries = list_all(storage, "size/").await.unwrap();
    let sizes: u64 = entries.iter().map(|entry| entry.size).sum();
    assert_eq!((entries.len(), sizes), (6, 1 + 65_535 + 65_536 + (1 << 20) + (32 << 20)));
    for entry in entries {
        storage.delete(&entry.key).await.unwrap();
    }
}

async fn conditions_hold(storage: &dyn Storage, manners: Manners) {
    put(storage, "condition", "first", PutMode::CreateOnly).await.unwrap();
    if manners.create_only {
        assert_eq!(
            kind(put(storage, "condition", "second", PutMode::CreateOnly).await),
            StorageErrorKind::Precondition
        );
        assert_eq!(kind(put(storage, "condition", "first", PutMode::CreateOnly).await), StorageErrorKind::Precondition);
        assert_eq!(body(storage, "condition").await, "first");
    }
    if manners.if_match {
        let tag = storage.get(&key("condition"), None).await.unwrap().etag.unwrap();
        put(storage, "condition", "third", PutMode::IfMatch(tag.clone())).await.unwrap();
        let stale = put(storage, "condition", "fourth", PutMode::IfMatch(tag.clone())).await;
        assert_eq!(kind(stale), StorageErrorKind::Precondition);
        assert_eq!(body(storage, "condition").await, "third");
        let absent = kind(put(storage, "condition-none", "x", PutMode::IfMatch(tag)).await);
        assert!(matches!(absent, StorageErrorKind::Precondition | StorageErrorKind::NotFound { .. }), "{absent:?}");
        assert_eq!(kind(storage.get(&key("condition-none"), None).await), NOT_FOUND);
    }
}

async fn damage_on_the_way_is_refused(storage: &dyn Storage, manners: Manners) {
    if !manners.verifies_integrity {
        return;
    }
    put(storage, "damage/old", "old", PutMode::CreateOnly).await.unwrap();
    for (name, mode) in [("damage/new", PutMode::CreateOnly), ("damage/old", PutMode::Overwrite)] {
        let wrong = storage.put(&key(name), Bytes::from_static(b"damaged"), &mode, Integrity::WrongOnPurpose).await;
        assert_eq!(kind(wrong), StorageErrorKind::DamagedOnTheWay, "{name}");
    }
    assert_eq!(kind(storage.get(&key("damage/new"), None).await), NOT_FOUND);
    assert_eq!(body(storage, "damage/old").await, "old");
}

async fn folders_are_found(storage: &dyn Storage, manners: Manners) {
    for name in ["tree/b/1", "tree/b/2", "tree/a/x/1", "tree/c-d/1", "tree/file", "treetop/z/1"] {
        put(storage, name, "x", PutMode::CreateOnly).await.unwrap();
    }
    assert_eq!(storage.folders("tree/").await.unwrap(), ["a", "b", "c-d"]);
    assert_eq!(storage.folders("tree/a/").await.unwrap(), ["x"]);
    assert!(storage.folders("tree/b/").await.unwrap().is_empty());
    let top = storage.folders("").await.unwrap();
    assert!(top.contains(&"tree".to_owned()) && top.contains(&"treetop".to_owned()), "{top:?}");
    assert!(top.is_sorted(), "{top:?}");
    storage.delete(&key("tree/c-d/1")).await.unwrap();
    if manners.folders_go {
        assert_eq!(storage.folders("tree/").await.unwrap(), ["a", "b"]);
    }
}

async fn listings_are_whole(storage: &dyn Storage, manners: Manners) {
    const COUNT: usize = 1003;
    let names: Vec<String> = (0..COUNT).map(|n| format!("many/{n:08X}")).collect();
    for chunk in names.chunks(16) {
        let puts = chunk.iter().map(|name| put(storage, name, "x", PutMode::CreateOnly));
        for result in join_all(puts).await {
            result.unwrap();
        }
    }
    let listed: Vec<String> = keys(&list_all(storage, "many/").await.unwrap());
    assert_eq!(listed, names);

    // By pages, each no longer than asked, none twice.
    let (mut request, mut pages, mut seen) = (ListRequest::prefix("many/"), 0, Vec::new());
    request.limit = Some(100);
    loop {
        let page = storage.list(&request).await.unwrap();
        assert!(page.entries.len() <= 100);
        pages += 1;
        seen.extend(keys(&page.entries));
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, names);
    assert!(pages >= 11, "{pages}");

    // A prefix may end in the middle of a name.
    assert_eq!(keys(&list_all(storage, "many/0000001").await.unwrap()), names[0x10..0x20]);
    assert_eq!(keys(&list_all(storage, "many/000003EA").await.unwrap()), [names[0x3EA].clone()]);
    assert!(list_all(storage, "many/F").await.unwrap().is_empty());
    // With a slash or without it: all of them.
    assert_eq!(list_all(storage, "many").await.unwrap().len(), COUNT);

    if manners.start_after {
        let request = ListRequest { start_after: Some(key(names[999].clone())), ..ListRequest::prefix("many/") };
        let mut rest = keys(&storage.list(&request).await.unwrap().entries);
        rest.sort();
        assert_eq!(rest, names[1000..]);
    }
}

/// Twenty rounds of eight creators: exactly one is told yes, and it is the one whose bytes are there.
async fn one_creator_wins(storage: Arc<dyn Storage>, manners: Manners) {
    if !manners.create_only {
        return;
    }
    for round in 0..20 {
        let name = format!("race/{round}");
        let racers = (0..8).map(|racer| {
            let (storage, name) = (storage.clone(), name.clone());
            // Bodies of the size of a WAL segment take their time, which is what a race is about.
            let bytes = Bytes::from(vec![racer as u8; 300_000 + racer]);
            tokio::spawn(async move { put(storage.as_ref(), &name, bytes, PutMode::CreateOnly).await })
        });
        let mut winners = Vec::new();
        for (racer, task) in racers.collect::<Vec<_>>().into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(_) => winners.push(racer),
                Err(error) => assert_eq!(error.kind, StorageErrorKind::Precondition, "round {round}: {error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let there = body(storage.as_ref(), &name).await;
        assert_eq!((there.len(), there[0] as usize), (300_000 + winners[0], winners[0]), "round {round}");
    }
}

fn keys(entries: &[walhalla::storage::Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.key.as_str().to_owned()).collect()
}

/// All of some futures at once.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    hold(Arc::new(walhalla::storage::memory::MemoryStorage::new()), HONEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let directory = temporary();
    hold(stores::open(&stores::directory(directory.path())), HONEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_s3() {
    let s3 = FakeS3::start();
    hold(stores::open(&stores::fake(&s3, &s3.endpoint(), "some/prefix")), HONEST).await;
    // Nothing was written outside of the prefix, and nothing in parts.
    assert!(s3.keys().iter().all(|key| key.starts_with("some/prefix/")));
    assert!(s3.requests_of("POST").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_s3_over_https_without_a_prefix() {
    let s3 = FakeS3::start_https();
    hold(stores::open(&stores::fake(&s3, &s3.endpoint(), "")), HONEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_with_every_vice() {
    let s3 = FakeS3::with(Personality::liar(), false);
    s3.personality(|p| p.page = 7);
    let manners = Manners {
        create_only: false,
        verifies_integrity: false,
        if_match: false,
        start_after: false,
        folders_go: true,
    };
    hold(stores::open(&stores::fake(&s3, &s3.endpoint(), "p")), manners).await;
}

/// One after the other: the real engines are heavy.
#[tokio::test(flavor = "multi_thread")]
async fn real_engines() {
    for (_, start) in ENGINES {
        let Some(engine) = tokio::task::spawn_blocking(start).await.unwrap() else { continue };
        let manners = Manners {
            create_only: engine.create_only,
            verifies_integrity: engine.verifies_integrity,
            if_match: engine.create_only,
            start_after: true,
            folders_go: engine.name != "SeaweedFS",
        };
        hold(stores::open(&stores::engine(&engine, "repository")), manners).await;
    }
}
