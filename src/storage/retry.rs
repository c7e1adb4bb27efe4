//! The one retry policy of the house.
//!
//! Only transient kinds are tried again, after a pause drawn from zero to an exponentially growing bound ("full jitter": the
//! many archivers of one outage come back spread out), or as long as the store asked for. The limits are read before every
//! try and while pausing, since they may tighten meanwhile.

use super::{Capabilities, ETag, Integrity, Key, Limits, ListPage, ListRequest, Object, PutMode};
use super::{Storage, StorageError, StorageErrorKind, StorageResult};
use backon::BackoffBuilder;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Upper bound of the first pause; it doubles from try to try.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Upper bound of any pause that the store did not ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How often a pause looks at the limits.
const GLANCE: Duration = Duration::from_millis(200);

/// A storage whose operations are tried again as the policy allows.
#[derive(Debug)]
pub struct Retrying {
    inner: Arc<dyn Storage>,
    limits: Limits,
}

impl Retrying {
    /// Puts the policy in front of a backend. Both look at the same limits.
    pub fn new(inner: Arc<dyn Storage>, limits: Limits) -> Self {
        Self { inner, limits }
    }

    /// Tries until it is done, cannot be done, or may not be tried any more.
    async fn tried<T, F>(&self, worth: fn(StorageErrorKind) -> bool, mut attempt: impl FnMut() -> F) -> StorageResult<T>
    where
        F: Future<Output = StorageResult<T>>,
    {
        let begun = Instant::now();
        self.limits.begin(begun);
        let mut pauses = pauses();
        let mut tries = 0_u32;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tries = tries.saturating_add(1);
            if !worth(error.kind) {
                return Err(error);
            }
            let bound = pauses.next().unwrap_or(LONGEST_PAUSE);
            let pause = error.retry_after.unwrap_or_else(|| bound.mul_f64(fastrand::f64()));
            if !self.pause(tries, pause, error.retry_after.is_some()).await {
                return Err(given_up(error, tries, begun.elapsed()));
            }
        }
    }

    /// Pauses before the next try. `false` as soon as the limits leave no room for one.
    ///
    /// A pause of our own shrinks to half of what is left, so that the time allowed is used, down to the first bound; one that
    /// the store asked for does not: asking earlier would be refused.
    async fn pause(&self, tries: u32, pause: Duration, asked_for: bool) -> bool {
        let begun = Instant::now();
        loop {
            let bounds = self.limits.now();
            let now = Instant::now();
            let mut until = begun + pause;
            // A pause that was asked for is no want of progress.
            let idle_end = self.limits.idle_end().filter(|_| !asked_for);
            if let Some(deadline) = bounds.deadline.into_iter().chain(idle_end).min() {
                if !asked_for {
                    until = until.min(begun + deadline.saturating_duration_since(begun) / 2);
                }
                if deadline <= until || deadline < begun + FIRST_PAUSE {
                    return false;
                }
            }
            if tries >= bounds.attempts {
                return false;
            }
            if until <= now {
                if asked_for {
                    self.limits.moved(now);
                }
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(now + GLANCE)) => {}
                () = self.limits.changed() => {}
            }
        }
    }
}

/// The bounds of the pauses, one after the other.
fn pauses() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

/// The last error, told with what it took.
fn given_up(mut error: StorageError, tries: u32, time: Duration) -> StorageError {
    let tries = if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") };
    error.message = format!("{}, after {tries} in {:.1} s", error.message, time.as_secs_f64());
    error
}

/// A put that is wrong on purpose is answered by its refusal: sending it again would only be refused again.
fn transient_but_damage(kind: StorageErrorKind) -> bool {
    kind.is_transient() && kind != StorageErrorKind::DamagedOnTheWay
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)] // A method that is not forwarded would silently lose the policy or the backend's own.
impl Storage for Retrying {
    async fn put(&self, key: &Key, body: Bytes, mode: &PutMode, integrity: Integrity) -> StorageResult<Option<ETag>> {
        let worth = match integrity {
            Integrity::Sound => StorageErrorKind::is_transient,
            Integrity::WrongOnPurpose => transient_but_damage,
        };
        self.tried(worth, || self.inner.put(key, body.clone(), mode, integrity)).await
    }

    async fn get(&self, key: &Key, range: Option<Range<u64>>) -> StorageResult<Object> {
        self.tried(StorageErrorKind::is_transient, || self.inner.get(key, range.clone())).await
    }

    async fn list(&self, request: &ListRequest) -> StorageResult<ListPage> {
        self.tried(StorageErrorKind::is_transient, || self.inner.list(request)).await
    }

    async fn folders(&self, prefix: &str) -> StorageResult<Vec<String>> {
        self.tried(StorageErrorKind::is_transient, || self.inner.folders(prefix)).await
    }

    async fn delete(&self, key: &Key) -> StorageResult<()> {
        self.tried(StorageErrorKind::is_transient, || self.inner.delete(key)).await
    }

    fn prepare(&self) {
        self.inner.prepare();
    }

    fn capabilities(&self) -> Option<Capabilities> {
        self.inner.capabilities()
    }

    fn location(&self) -> &str {
        self.inner.location()
    }

    fn region_learnt(&self) -> Option<String> {
        self.inner.region_learnt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Bounds;
    use std::sync::Mutex;

    /// Answers each operation with the next scripted trouble, then with success.
    #[derive(Debug, Default)]
    struct Scripted {
        troubles: Mutex<Vec<StorageError>>,
        asked: Mutex<Vec<Instant>>,
    }

    impl Scripted {
        fn answer(&self) -> StorageResult<()> {
            self.asked.lock().unwrap().push(Instant::now());
            self.troubles.lock().unwrap().pop().map_or(Ok(()), Err)
        }
    }

    #[async_trait::async_trait]
    impl Storage for Scripted {
        async fn put(&self, _: &Key, _: Bytes, _: &PutMode, _: Integrity) -> StorageResult<Option<ETag>> {
            self.answer().map(|()| None)
        }
        async fn get(&self, _: &Key, _: Option<Range<u64>>) -> StorageResult<Object> {
            self.answer().map(|()| Object { body: Bytes::new(), etag: None })
        }
        async fn list(&self, _: &ListRequest) -> StorageResult<ListPage> {
            self.answer().map(|()| ListPage::default())
        }
        async fn folders(&self, _: &str) -> StorageResult<Vec<String>> {
            self.answer().map(|()| Vec::new())
        }
        async fn delete(&self, _: &Key) -> StorageResult<()> {
            self.answer()
        }
        fn capabilities(&self) -> Option<Capabilities> {
            Some(Capabilities::NONE)
        }
        fn location(&self) -> &str {
            "scripted"
        }
    }

    fn troubles(kind: StorageErrorKind, count: usize) -> Arc<Scripted> {
        let troubles = (0..count).map(|_| StorageError::new(kind, "cannot read x: away")).collect();
        Arc::new(Scripted { troubles: Mutex::new(troubles), asked: Mutex::default() })
    }

    fn behind_policy(scripted: &Arc<Scripted>, change: impl FnOnce(&mut Bounds)) -> Retrying {
        let limits = Limits::new(Bounds::PATIENT);
        limits.change(change);
        Retrying::new(Arc::clone(scripted) as Arc<dyn Storage>, limits)
    }

    fn key() -> Key {
        Key::new("x").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn every_operation_is_tried_until_it_is_done() {
        let wrong = Integrity::WrongOnPurpose;
        for operation in ["put", "probe", "get", "list", "folders", "delete"] {
            let scripted = troubles(StorageErrorKind::Throttled, 3);
            let storage = behind_policy(&scripted, |_| ());
            match operation {
                "put" => drop(storage.put(&key(), Bytes::new(), &PutMode::CreateOnly, Integrity::Sound).await.unwrap()),
                "probe" => drop(storage.put(&key(), Bytes::new(), &PutMode::CreateOnly, wrong).await.unwrap()),
                "get" => drop(storage.get(&key(), None).await.unwrap()),
                "list" => drop(storage.list(&ListRequest::default()).await.unwrap()),
                "folders" => drop(storage.folders("").await.unwrap()),
                _ => storage.delete(&key()).await.unwrap(),
            }
            assert_eq!(scripted.asked.lock().unwrap().len(), 4, "{operation}");
            assert_eq!((storage.capabilities(), storage.location()), (Some(Capabilities::NONE), "scripted"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_retry_can_change_is_asked_once() {
        use StorageErrorKind as Kind;
        for kind in [
            Kind::NotFound { deleted: false },
            Kind::Precondition,
            Kind::ConditionUnsupported,
            Kind::Denied,
            Kind::Config,
            Kind::LocalIo,
        ] {
            let scripted = troubles(kind, 1);
            let error = behind_policy(&scripted, |_| ()).get(&key(), None).await.unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (kind, "cannot read x: away"));
            assert_eq!(scripted.asked.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_wrong_on_purpose_is_refused_once_and_a_sound_one_sent_again() {
        for (integrity, asked) in [(Integrity::WrongOnPurpose, 1), (Integrity::Sound, 2)] {
            let scripted = troubles(StorageErrorKind::DamagedOnTheWay, 1);
            let storage = behind_policy(&scripted, |_| ());
            let answer = storage.put(&key(), Bytes::new(), &PutMode::CreateOnly, integrity).await;
            assert_eq!(answer.is_ok(), integrity == Integrity::Sound);
            assert_eq!(scripted.asked.lock().unwrap().len(), asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_after_the_tries_allowed_and_says_so() {
        let scripted = troubles(StorageErrorKind::Unavailable, 100);
        let error = behind_policy(&scripted, |bounds| bounds.attempts = 5).get(&key(), None).await.unwrap_err();
        assert_eq!(scripted.asked.lock().unwrap().len(), 5);
        assert!(error.message.starts_with("cannot read x: away, after 5 tries in "), "{}", error.message);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_sleeps_past_the_deadline() {
        for seconds in [0, 1, 7, 60] {
            let scripted = troubles(StorageErrorKind::Unavailable, 10_000);
            let begun = Instant::now();
            let deadline = begun + Duration::from_secs(seconds);
            let storage = behind_policy(&scripted, |bounds| {
                bounds.deadline = Some(deadline);
                bounds.attempts = u32::MAX;
            });
            storage.get(&key(), None).await.unwrap_err();
            assert!(Instant::now() <= deadline);
            assert!(begun.elapsed().as_secs_f64() >= seconds as f64 * 0.85, "the time allowed is used");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tries_without_progress_end_long_before_the_deadline() {
        let scripted = troubles(StorageErrorKind::Unavailable, 10_000);
        let begun = Instant::now();
        let storage = behind_policy(&scripted, |bounds| {
            bounds.deadline = Some(begun + Duration::from_secs(46));
            bounds.idle = Some(Duration::from_secs(20));
            bounds.attempts = u32::MAX;
        });
        storage.get(&key(), None).await.unwrap_err();
        let took = begun.elapsed().as_secs_f64();
        assert!(took > 17.0 && took <= 20.0, "{took}");
        assert!(scripted.asked.lock().unwrap().len() > 3);
        // One that only goes on has no time left: it is tried once.
        let before = scripted.asked.lock().unwrap().len();
        storage.limits.go_on();
        storage.get(&key(), None).await.unwrap_err();
        assert_eq!(scripted.asked.lock().unwrap().len(), before + 1);
        // The next operation has its own time.
        storage.limits.change(|bounds| bounds.deadline = None);
        scripted.troubles.lock().unwrap().truncate(2);
        storage.get(&key(), None).await.unwrap();
        // The pause that a store asks for is no want of progress.
        scripted.troubles.lock().unwrap().push(StorageError {
            retry_after: Some(Duration::from_secs(30)),
            ..StorageError::new(StorageErrorKind::Throttled, "later")
        });
        storage.get(&key(), None).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_given_the_pause_it_asked_for_or_no_further_request() {
        for (deadline, asked) in [(60, 2), (20, 1)] {
            let scripted = troubles(StorageErrorKind::Throttled, 1);
            scripted.troubles.lock().unwrap()[0].retry_after = Some(Duration::from_secs(30));
            let begun = Instant::now();
            let bound = begun + Duration::from_secs(deadline);
            let storage = behind_policy(&scripted, |bounds| bounds.deadline = Some(bound));
            assert_eq!(storage.get(&key(), None).await.is_ok(), asked == 2);
            let times = scripted.asked.lock().unwrap().clone();
            assert_eq!(times.len(), asked);
            assert!(times.iter().skip(1).all(|time| time.duration_since(begun) >= Duration::from_secs(30)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_when_the_limits_tighten() {
        let scripted = troubles(StorageErrorKind::Throttled, 1);
        scripted.troubles.lock().unwrap()[0].retry_after = Some(Duration::from_secs(1000));
        let storage = behind_policy(&scripted, |_| ());
        let limits = storage.limits.clone();
        let begun = Instant::now();
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            limits.change(|bounds| bounds.attempts = 1);
            std::future::pending::<()>().await;
        };
        let name = key();
        let answer = tokio::select! {
            answer = storage.delete(&name) => answer,
            () = stopping => Ok(()),
        };
        assert!(answer.is_err());
        assert!(begun.elapsed() <= Duration::from_millis(2250));
    }
}
