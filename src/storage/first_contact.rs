//! A short limit for the first answer.
//!
//! A long job must outlast an outage of minutes; but an operator who mistyped an endpoint must not wait for minutes to be told.
//! What tells the two apart is whether the store has ever answered.

use super::{Capabilities, ETag, Integrity, Key, Limits, ListPage, ListRequest, Object, PutMode};
use super::{Storage, StorageError, StorageErrorKind, StorageResult};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a store may take until it first answers, with all tries.
pub const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// A storage that must answer within [`FIRST_ANSWER`] of the first request; from then on its limits hold as they were.
///
/// It stands in front of the retry policy, and shares its limits: while nothing was answered they have a deadline.
#[derive(Debug)]
pub struct FirstContact {
    inner: Arc<dyn Storage>,
    limits: Limits,
    answer_within: Duration,
    asked: AtomicBool,
    answered: AtomicBool,
}

impl FirstContact {
    /// In front of a storage whose limits are these, and have no deadline yet.
    pub fn new(inner: Arc<dyn Storage>, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            answer_within: FIRST_ANSWER,
            asked: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        }
    }

    async fn watched<T>(&self, work: impl Future<Output = StorageResult<T>>) -> StorageResult<T> {
        if !self.asked.swap(true, Ordering::Relaxed) {
            let deadline = Instant::now() + self.answer_within;
            self.limits.change(|bounds| bounds.deadline = Some(deadline));
        }
        let outcome = work.await;
        let silent = matches!(&outcome, Err(StorageError { kind: StorageErrorKind::Unavailable, .. }));
        if !silent && !self.answered.swap(true, Ordering::Relaxed) {
            self.limits.change(|bounds| bounds.deadline = None);
        }
        outcome
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)] // A method that is not forwarded would silently lose the backend's own.
impl Storage for FirstContact {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        self.watched(self.inner.put(key, body, mode, integrity)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        self.watched(self.inner.get(key, range)).await
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        self.watched(self.inner.list(request)).await
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        self.watched(self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        self.watched(self.inner.delete(key)).await
    }

    fn prepare(&self) {
        self.inner.prepare();
    }

    fn capabilities(&self) -> Option<Capabilities> {
        self.inner.capabilities()
    }

    fn region_learnt(&self) -> Option<String> {
        self.inner.region_learnt()
    }

    fn location(&self) -> &str {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Bounds, MemoryStorage, Retrying};

    /// Never answers, or, once it is `up`, as its inner storage does.
    #[derive(Debug)]
    struct Silent {
        up: AtomicBool,
        inner: MemoryStorage,
    }

    #[async_trait::async_trait]
    impl Storage for Silent {
        async fn put(&self, _: &Key, _: Bytes, _: &PutMode, _: Integrity) -> StorageResult<Option<ETag>> {
            Err(StorageError::new(StorageErrorKind::Unavailable, "away"))
        }
        async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
            if self.up.load(Ordering::Relaxed) {
                return self.inner.get(key, range).await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            Err(StorageError::new(StorageErrorKind::Unavailable, "away"))
        }
        async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
            self.inner.list(request).await
        }
        async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
            self.inner.folders(prefix).await
        }
        async fn delete(&self, key: &Key) -> StorageResult<()> {
            self.inner.delete(key).await
        }
        fn capabilities(&self) -> Option<Capabilities> {
            None
        }
        fn location(&self) -> &str {
            "silent"
        }
    }

    #[tokio::test(start_paused = true)]
    async fn short_until_the_first_answer_and_patient_from_then_on() {
        let silent = Arc::new(Silent { up: AtomicBool::new(false), inner: MemoryStorage::default() });
        let limits = Limits::new(Bounds::PATIENT);
        let retrying = Retrying::new(Arc::clone(&silent) as Arc<dyn Storage>, limits.clone());
        let storage = FirstContact::new(Arc::new(retrying), limits.clone());
        let key = Key::new("x").unwrap();
        let begun = Instant::now();
        assert_eq!(storage.get(&key, None).await.unwrap_err().kind, StorageErrorKind::Unavailable);
        assert!(begun.elapsed() <= FIRST_ANSWER + Duration::from_secs(10), "{:?}", begun.elapsed());
        // The absence of the object is an answer.
        silent.up.store(true, Ordering::Relaxed);
        assert!(storage.get(&key, None).await.unwrap_err().is_not_found());
        assert_eq!(limits.now(), Bounds::PATIENT);
        // A later outage is waited out as ever.
        silent.up.store(false, Ordering::Relaxed);
        let begun = Instant::now();
        storage.get(&key, None).await.unwrap_err();
        assert!(begun.elapsed() > Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
