use super::*;
use crate::storage::{Bounds, list_all};
use std::path::Path;
use tempfile::TempDir;

fn storage() -> (TempDir, FileStorage) {
    let root = tempfile::tempdir().unwrap();
    let storage = at(root.path());
    (root, storage)
}

fn at(root: &Path) -> FileStorage {
    FileStorage::new(root, Limits::new(Bounds::PATIENT))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(storage: &FileStorage, name: &str, body: &'static [u8], mode: PutMode) -> StorageResult<ETag> {
    storage.put(&key(name), Bytes::from_static(body), &mode, Integrity::Sound).await.map(Option::unwrap)
}

fn names(entries: &[crate::storage::Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[tokio::test]
async fn a_missing_root_is_never_an_empty_archive() {
    let (root, _) = storage();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for root in [root.path().join("missing"), root.path().join("missing/deeper"), file] {
        let storage = at(&root);
        let kinds = [
            storage.get(&key("a/b"), None).await.unwrap_err().kind,
            put(&storage, "a/b", b"x", PutMode::CreateOnly).await.unwrap_err().kind,
            put(&storage, "a/b", b"x", PutMode::Overwrite).await.unwrap_err().kind,
            storage.list(&ListRequest::prefix("a/")).await.unwrap_err().kind,
            storage.folders("").await.unwrap_err().kind,
            storage.delete(&key("a/b")).await.unwrap_err().kind,
        ];
        assert_eq!(kinds, [StorageErrorKind::Config; 6], "{root:?}");
    }
    assert!(!root.path().join("missing").exists());
}

#[tokio::test]
async fn created_once_and_read_back() {
    let (_root, storage) = storage();
    let etag = put(&storage, "7/wal/a", b"0123456789", PutMode::CreateOnly).await.unwrap();
    let error = put(&storage, "7/wal/a", b"other", PutMode::CreateOnly).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Precondition);
    let object = storage.get(&key("7/wal/a"), None).await.unwrap();
    assert_eq!((object.body.as_ref(), object.etag), (&b"0123456789"[..], Some(etag)));
    for (range, part) in [(2..4, &b"23"[..]), (8..99, b"89"), (10..12, b""), (3..3, b""), (0..10, b"0123456789")] {
        let object = storage.get(&key("7/wal/a"), Some(range)).await.unwrap();
        assert_eq!(object.body, part);
    }
    for absent in ["7/wal/b", "7/wal", "7/wal/a/b", "8/wal/a"] {
        let error = storage.get(&key(absent), None).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::NotFound { deleted: false }, "{absent}");
    }
}

#[tokio::test]
async fn of_racing_creators_exactly_one_wins_and_nothing_is_left_over() {
    let (root, storage) = storage();
    let storage = Arc::new(storage);
    for round in 0..20 {
        let name = key(&format!("race/{round}"));
        let racers: Vec<_> = (0..8_u8)
            .map(|racer| {
                let (storage, name) = (Arc::clone(&storage), name.clone());
                tokio::spawn(async move {
                    let body = Bytes::from(vec![racer; 100_000]);
                    (racer, storage.put(&name, body, &PutMode::CreateOnly, Integrity::Sound).await)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                (racer, Ok(_)) => winners.push(racer),
                (_, Err(error)) => assert_eq!(error.kind, StorageErrorKind::Precondition),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(storage.get(&name, None).await.unwrap().body, vec![winners[0]; 100_000]);
    }
    assert_eq!(std::fs::read_dir(root.path().join("race")).unwrap().count(), 20);
}

#[tokio::test]
async fn of_racing_replacers_exactly_one_wins() {
    let (_root, storage) = storage();
    let storage = Arc::new(storage);
    let mut etag = put(&storage, "k", b"first", PutMode::CreateOnly).await.unwrap();
    for _ in 0..20 {
        let racers: Vec<_> = (0..8_u8)
            .map(|racer| {
                let (storage, mode) = (Arc::clone(&storage), PutMode::IfMatch(etag.clone()));
                tokio::spawn(
                    async move { storage.put(&key("k"), vec![racer; 64].into(), &mode, Integrity::Sound).await },
                )
            })
            .collect();
        let mut winners = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(etag) => winners.push(etag.unwrap()),
                Err(error) => assert_eq!(error.kind, StorageErrorKind::Precondition),
            }
        }
        assert_eq!(winners.len(), 1);
        etag = winners.remove(0);
        assert_eq!(storage.get(&key("k"), None).await.unwrap().etag.as_ref(), Some(&etag));
    }
    let error = put(&storage, "absent", b"x", PutMode::IfMatch(etag)).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Precondition);
}

#[tokio::test]
async fn listed_in_byte_order_across_folders_and_pages() {
    let (root, storage) = storage();
    let sorted = ["a-b", "a.b", "a/0", "a/b-c", "a/b.c", "a/b/c", "a/b0", "a0", "b/x/y/z", "c"];
    let mut shuffled = sorted;
    fastrand::shuffle(&mut shuffled);
    for name in shuffled {
        put(&storage, name, b"xy", PutMode::Overwrite).await.unwrap();
    }
    // What is no object of ours: a staged file that a crash left, foreign names, an empty folder.
    std::fs::write(root.path().join("a/.~left"), "x").unwrap();
    std::fs::write(root.path().join("a/with space"), "x").unwrap();
    std::fs::create_dir_all(root.path().join("a/empty/deeper")).unwrap();
    std::fs::create_dir(root.path().join("lost+found")).unwrap();

    assert_eq!(names(&list_all(&storage, "").await.unwrap()), sorted);
    for limit in 1..12 {
        for prefix in ["", "a", "a/", "a/b", "a/b/", "b/", "c", "d", "../", "//"] {
            let wanted: Vec<_> = sorted.into_iter().filter(|name| name.starts_with(prefix)).collect();
            let mut request = ListRequest { limit: Some(limit), ..ListRequest::prefix(prefix) };
            let mut found = Vec::new();
            loop {
                let page = storage.list(&request).await.unwrap();
                assert!(page.entries.len() <= limit && page.date.is_some());
                assert!(page.entries.iter().all(|entry| entry.size == 2 && entry.etag.is_some()));
                found.extend(page.entries);
                request.token = page.next;
                if request.token.is_none() {
                    break;
                }
            }
            assert_eq!(names(&found), wanted, "{prefix:?} by {limit}");
        }
    }
    for after in sorted.into_iter().chain(["0", "a", "a/b", "z"]) {
        for prefix in ["", "a", "a/", "a/b", "b/"] {
            let request = ListRequest { start_after: Some(key(after)), ..ListRequest::prefix(prefix) };
            let wanted: Vec<_> = sorted.into_iter().filter(|name| name.starts_with(prefix) && *name > after).collect();
            let found = storage.list(&request).await.unwrap().entries;
            assert_eq!(names(&found), wanted, "{prefix:?} behind {after}");
        }
    }
    assert_eq!(storage.folders("").await.unwrap(), ["a", "b"]);
    assert_eq!(storage.folders("a/").await.unwrap(), ["b"]);
    assert!(storage.folders("none/").await.unwrap().is_empty());
}

/// A folder of the storage may be a link to another volume. When that one is not mounted, what lies there is not absent.
#[tokio::test]
async fn a_link_that_leads_nowhere_is_no_absence() {
    let (root, storage) = storage();
    let volume = tempfile::tempdir().unwrap();
    put(&storage, "7/cluster.json", b"x", PutMode::CreateOnly).await.unwrap();
    std::fs::create_dir(volume.path().join("wal")).unwrap();
    let mount = || std::os::unix::fs::symlink("wal", volume.path().join("mounted")).unwrap();
    mount();
    std::os::unix::fs::symlink(volume.path().join("mounted"), root.path().join("7/wal")).unwrap();
    put(&storage, "7/wal/1/a", b"x", PutMode::CreateOnly).await.unwrap();
    assert_eq!(names(&list_all(&storage, "7/").await.unwrap()), ["7/cluster.json", "7/wal/1/a"]);
    assert!(storage.get(&key("7/wal/1/b"), None).await.unwrap_err().is_not_found());
    assert!(list_all(&storage, "7/wal/2/").await.unwrap().is_empty());

    std::fs::remove_file(volume.path().join("mounted")).unwrap();
    let mut errors = Vec::new();
    for name in ["7/wal", "7/wal/1/a", "7/wal/1/b"] {
        errors.push(storage.get(&key(name), None).await.unwrap_err());
    }
    for prefix in ["", "7/", "7/w", "7/wal", "7/wal/", "7/wal/1/", "7/wal/1/a"] {
        errors.push(storage.list(&ListRequest::prefix(prefix)).await.unwrap_err());
    }
    for prefix in ["7/", "7/wal/", "7/wal/1/"] {
        errors.push(storage.folders(prefix).await.unwrap_err());
    }
    errors.push(storage.delete(&key("7/wal/1/a")).await.unwrap_err());
    errors.push(put(&storage, "7/wal/1/b", b"x", PutMode::CreateOnly).await.unwrap_err());
    for error in errors {
        assert_eq!(error.kind, StorageErrorKind::LocalIo, "{error}");
        assert!(error.message.contains("7/wal") && error.hint.unwrap().contains("mounted"), "{}", error.message);
    }
    // What lies elsewhere is no concern of it.
    assert_eq!(names(&list_all(&storage, "7/cluster").await.unwrap()), ["7/cluster.json"]);
    assert!(storage.get(&key("7/other"), None).await.unwrap_err().is_not_found());
    mount();
    storage.get(&key("7/wal/1/a"), None).await.unwrap();
}

#[tokio::test]
async fn what_is_larger_than_any_object_of_ours_is_not_read() {
    let (root, storage) = storage();
    let sparse = std::fs::File::create(root.path().join("a")).unwrap();
    sparse.set_len(crate::storage::LARGEST_OBJECT + 1).unwrap();
    let error = storage.get(&key("a"), None).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Config, "{error}");
    assert!(error.message.contains("no object of ours"), "{error}");
    assert_eq!(storage.get(&key("a"), Some(0..3)).await.unwrap().body, vec![0; 3]);
}

#[tokio::test]
async fn deleting_leaves_no_empty_folders() {
    let (root, storage) = storage();
    put(&storage, "backup/1/data/0", b"x", PutMode::CreateOnly).await.unwrap();
    put(&storage, "backup/1/manifest", b"x", PutMode::CreateOnly).await.unwrap();
    storage.delete(&key("backup/1/data/0")).await.unwrap();
    storage.delete(&key("backup/1/data/0")).await.unwrap();
    storage.delete(&key("backup/1")).await.unwrap();
    assert_eq!(storage.folders("backup/1/").await.unwrap(), [""; 0]);
    assert_eq!(storage.folders("backup/").await.unwrap(), ["1"]);
    storage.delete(&key("backup/1/manifest")).await.unwrap();
    assert!(!root.path().join("backup").exists() && root.path().exists());
    put(&storage, "backup/1/manifest", b"x", PutMode::CreateOnly).await.unwrap();
}

#[tokio::test]
async fn creating_and_deleting_side_by_side_disturb_each_other_not() {
    let (_root, storage) = storage();
    let storage = Arc::new(storage);
    let mut workers = Vec::new();
    for worker in 0..4 {
        let storage = Arc::clone(&storage);
        workers.push(tokio::spawn(async move {
            for round in 0..50 {
                let name = key(&format!("deep/folder/{worker}-{round}"));
                storage.put(&name, Bytes::new(), &PutMode::CreateOnly, Integrity::Sound).await.unwrap();
                assert_eq!(storage.get(&name, None).await.unwrap().body, Bytes::new());
                storage.delete(&name).await.unwrap();
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(list_all(storage.as_ref(), "").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_put_wrong_on_purpose_is_refused() {
    let (_root, storage) = storage();
    let put = storage.put(&key("probe"), Bytes::new(), &PutMode::CreateOnly, Integrity::WrongOnPurpose).await;
    assert_eq!(put.unwrap_err().kind, StorageErrorKind::DamagedOnTheWay);
    assert!(storage.get(&key("probe"), None).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn files_and_folders_are_not_for_the_world() {
    use std::os::unix::fs::PermissionsExt;
    let (root, storage) = storage();
    put(&storage, "a/b", b"x", PutMode::CreateOnly).await.unwrap();
    for name in ["a", "a/b"] {
        let mode = root.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{name}: {mode:o}");
    }
}

#[tokio::test]
async fn a_name_that_is_both_file_and_folder_is_said_to_be() {
    let (_root, storage) = storage();
    put(&storage, "a/b", b"x", PutMode::CreateOnly).await.unwrap();
    for name in ["a", "a/b/c"] {
        for mode in [PutMode::CreateOnly, PutMode::Overwrite] {
            let error = put(&storage, name, b"x", mode).await.unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::Config, "{name}: {error}");
            assert!(error.hint.is_some());
        }
    }
}

#[test]
fn the_kernels_words_become_kinds_and_advice() {
    use StorageErrorKind::{Config, Denied, LocalIo, Unavailable};
    use rustix::io::Errno;
    for (errno, kind, advice) in [
        (Errno::NOSPC, LocalIo, "full"),
        (Errno::ROFS, LocalIo, "read-only"),
        (Errno::ACCESS, Denied, "right"),
        (Errno::XDEV, Config, "two file systems"),
        (Errno::PERM, Config, "hard links"),
        (Errno::STALE, Unavailable, "network file system"),
    ] {
        let cause = std::io::Error::from_raw_os_error(errno.raw_os_error());
        let path = Path::new("/srv/a");
        let through_durable = trouble::durable(&crate::error::Error::local("link", path, cause));
        let cause = std::io::Error::from_raw_os_error(errno.raw_os_error());
        for error in [trouble::failed("write", path, &cause), through_durable] {
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains("/srv/a") && error.hint.unwrap().contains(advice));
        }
    }
}

#[tokio::test]
async fn a_disk_that_hangs_is_given_up() {
    let (root, _) = storage();
    let limits = Limits::new(Bounds { stall: std::time::Duration::from_millis(300), ..Bounds::PATIENT });
    let storage = FileStorage::new(root.path(), limits);
    let lock = std::fs::File::create(root.path().join(".~lock")).unwrap();
    lock.lock().unwrap();
    let error = put(&storage, "a", b"x", PutMode::Overwrite).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable);
    assert!(error.message.contains("no progress for 300ms"), "{error}");
}
