//! A storage in memory, which keeps every promise: for tests, and for looking at plans.

use super::{Capabilities, ETag, Entry, Integrity, Key, ListPage, ListRequest, Object, PutMode};
use super::{Storage, StorageError, StorageErrorKind, StorageResult};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Entries of a page where the request names no limit; as S3 has it.
const PAGE: usize = 1000;

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<String, Stored>,
    puts: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    body: Bytes,
    etag: ETag,
    written: SystemTime,
}

impl MemoryStorage {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds the lock, and every change is a single insert: a poisoned map is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Storage for MemoryStorage {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        if integrity == Integrity::WrongOnPurpose {
            let message = format!("cannot store {key}: other bytes arrived than were announced");
            return Err(StorageError::new(StorageErrorKind::DamagedOnTheWay, message));
        }
        let mut inner = self.inner();
        let there = inner.objects.get(key.as_str()).map(|stored| &stored.etag);
        let refused = match mode {
            PutMode::CreateOnly => there.is_some(),
            PutMode::IfMatch(etag) => there != Some(etag),
            PutMode::Overwrite => false,
        };
        if refused {
            let message = format!("cannot store {key}: what is there is not what was expected");
            return Err(StorageError::new(StorageErrorKind::Precondition, message));
        }
        inner.puts += 1;
        let etag = ETag(format!("{:x}", inner.puts));
        let stored = Stored { body, etag: etag.clone(), written: SystemTime::now() };
        inner.objects.insert(key.as_str().to_owned(), stored);
        Ok(Some(etag))
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        let inner = self.inner();
        let Some(stored) = inner.objects.get(key.as_str()) else {
            let message = format!("cannot read {key}: no such key");
            return Err(StorageError::new(StorageErrorKind::NotFound { deleted: false }, message));
        };
        let body = match range {
            None => stored.body.clone(),
            Some(range) => stored.body.slice(clip(&range, stored.body.len())),
        };
        Ok(Object { body, etag: Some(stored.etag.clone()) })
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        let after = after(request).filter(|after| *after >= request.prefix.as_str());
        let from = after.map_or(Bound::Included(request.prefix.as_str()), Bound::Excluded);
        let limit = request.limit.unwrap_or(PAGE).max(1);
        let inner = self.inner();
        let mut found = inner
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&request.prefix))
            .filter_map(|(key, stored)| Some((Key::new(key.as_str())?, stored)));
        let entry = |(key, stored): (Key, &Stored)| Entry {
            key,
            size: stored.body.len() as u64,
            etag: Some(stored.etag.clone()),
            last_modified: Some(stored.written),
        };
        let entries: Vec<Entry> = found.by_ref().take(limit).map(entry).collect();
        let next = entries.last().filter(|_| found.next().is_some()).map(|last| last.key.as_str().to_owned());
        Ok(ListPage { entries, next, date: Some(SystemTime::now()) })
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        let inner = self.inner();
        let below = inner.objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let folders: BTreeSet<&str> = below
            .map_while(|(key, _)| key.strip_prefix(prefix))
            .filter_map(|rest| rest.split_once('/').map(|(folder, _)| folder))
            .collect();
        Ok(folders.into_iter().map(str::to_owned).collect())
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        self.inner().objects.remove(key.as_str());
        Ok(())
    }

    fn capabilities(&self) -> Option<Capabilities> {
        Some(Capabilities::ALL)
    }

    fn location(&self) -> &str {
        "memory"
    }
}

/// Behind which key a listing goes on: the later of its token and its `start_after`. Local backends' tokens are keys.
pub(super) fn after(request: &ListRequest) -> Option<&str> {
    request.token.as_deref().max(request.start_after.as_ref().map(Key::as_str))
}

/// The part of a range that lies within `length` bytes.
pub(super) fn clip(range: &Range<u64>, length: usize) -> Range<usize> {
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(length);
    let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::list_all;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[tokio::test]
    async fn conditions_hold_and_tags_change() {
        let storage = MemoryStorage::new();
        let put = async |body: &'static str, mode| storage.put(&key("k"), body.into(), &mode, Integrity::Sound).await;
        let first = put("1", PutMode::CreateOnly).await.unwrap().unwrap();
        assert_eq!(put("2", PutMode::CreateOnly).await.unwrap_err().kind, StorageErrorKind::Precondition);
        let second = put("2", PutMode::IfMatch(first.clone())).await.unwrap().unwrap();
        assert_eq!(put("3", PutMode::IfMatch(first)).await.unwrap_err().kind, StorageErrorKind::Precondition);
        let object = storage.get(&key("k"), None).await.unwrap();
        assert_eq!((object.body.as_ref(), object.etag), (&b"2"[..], Some(second)));
        storage.delete(&key("k")).await.unwrap();
        storage.delete(&key("k")).await.unwrap();
        assert!(storage.get(&key("k"), None).await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn pages_and_folders() {
        let storage = MemoryStorage::new();
        let names = ["a", "p/a-b", "p/a/b", "p/a/c", "p/b", "p/c/d", "q"];
        for name in names {
            storage.put(&key(name), Bytes::new(), &PutMode::Overwrite, Integrity::Sound).await.unwrap();
        }
        let mut request = ListRequest { limit: Some(2), start_after: Some(key("p/a-b")), ..ListRequest::prefix("p/") };
        let mut found = Vec::new();
        loop {
            let page = storage.list(&request).await.unwrap();
            found.extend(page.entries.into_iter().map(|entry| entry.key.as_str().to_owned()));
            request.token = page.next;
            if request.token.is_none() {
                break;
            }
        }
        assert_eq!(found, names[2..6]);
        assert_eq!(storage.folders("p/").await.unwrap(), ["a", "c"]);
        assert_eq!(list_all(&storage, "").await.unwrap().len(), names.len());
    }
}
