//! Holding one request to the limits, whatever the peer does.

use super::{Limits, StorageError, StorageErrorKind};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often a waiting request looks at the limits, even if nobody told it that they changed.
const GLANCE: Duration = Duration::from_millis(200);

/// A request's pulse: when a byte last moved, and whether anybody still waits for it. Clones share.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    begun: Instant,
    shared: Arc<Pulse>,
}

#[derive(Debug, Default)]
struct Pulse {
    /// Milliseconds from `begun` to the last movement.
    last: AtomicU64,
    abandoned: AtomicBool,
}

impl Progress {
    /// A request that begins now.
    pub(super) fn start() -> Self {
        Self { begun: Instant::now(), shared: Arc::default() }
    }

    /// Something moved.
    pub(super) fn touch(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.last.store(millis, Ordering::Relaxed);
    }

    /// Whether nobody waits for the result any more: work on another thread should end without effect, if it still can.
    pub(super) fn is_abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.shared.last.load(Ordering::Relaxed))
    }

    /// Tells the limits, which all requests share, of what has moved. That a request was begun is no movement.
    fn tell(&self, limits: &Limits) {
        if self.shared.last.load(Ordering::Relaxed) > 0 {
            limits.moved(self.last());
        }
    }
}

/// Which limit ended a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overrun {
    /// No connection after this long.
    #[cfg(feature = "s3")]
    Connect(Duration),
    /// Nothing moved for this long.
    Stall(Duration),
    /// The request took this long in all.
    Request(Duration),
    /// The deadline of the whole program came.
    Deadline,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "s3")]
            Self::Connect(limit) => write!(f, "no connection after {limit:?}"),
            Self::Stall(limit) => write!(f, "no progress for {limit:?}"),
            Self::Request(limit) => write!(f, "not done after {limit:?}"),
            Self::Deadline => f.write_str("the time allowed is over"),
        }
    }
}

impl Overrun {
    /// The error of an operation that met this limit.
    pub(super) fn error(self, operation: &str) -> StorageError {
        StorageError::new(StorageErrorKind::Unavailable, format!("{operation}: {self}"))
    }
}

/// Drives a request to its end or into a limit. The limits are read again whenever they change.
pub(super) async fn bounded<T>(
    limits: &Limits,
    progress: &Progress,
    work: impl Future<Output = T>,
) -> Result<T, Overrun> {
    let _guard = Abandon(Arc::clone(&progress.shared));
    let done = within(limits, || nearest_end(limits, progress), work).await;
    progress.tell(limits);
    done
}

/// Drives the opening of a connection to its end or into its limit.
#[cfg(feature = "s3")]
pub(super) async fn connecting<T>(limits: &Limits, work: impl Future<Output = T>) -> Result<T, Overrun> {
    let begun = Instant::now();
    let end = || {
        let limit = limits.now().connect;
        (begun + limit, Overrun::Connect(limit))
    };
    within(limits, end, work).await
}

async fn within<T>(
    limits: &Limits,
    end: impl Fn() -> (Instant, Overrun),
    work: impl Future<Output = T>,
) -> Result<T, Overrun> {
    let mut work = std::pin::pin!(work);
    loop {
        let (end, overrun) = end();
        let now = Instant::now();
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = std::future::ready(()), if end <= now => return Err(overrun),
            () = limits.changed() => {}
            // A change just before `changed` subscribed would be missed: so nobody sleeps long.
            () = tokio::time::sleep_until(end.min(now + GLANCE)) => {}
        }
    }
}

/// The limit that ends the request first, as things stand.
fn nearest_end(limits: &Limits, progress: &Progress) -> (Instant, Overrun) {
    let bounds = limits.now();
    progress.tell(limits);
    let mut stall = (progress.last() + bounds.stall, Overrun::Stall(bounds.stall));
    if let (Some(end), Some(idle)) = (limits.idle_end(), bounds.idle)
        && end < stall.0
    {
        stall = (end, Overrun::Stall(idle));
    }
    let request = (progress.begun + bounds.request, Overrun::Request(bounds.request));
    let deadline = bounds.deadline.map(|deadline| (deadline, Overrun::Deadline));
    let first = if request.0 < stall.0 { request } else { stall };
    match deadline {
        Some(deadline) if deadline.0 < first.0 => deadline,
        _ => first,
    }
}

/// Marks the request as abandoned when its future ends or is dropped.
struct Abandon(Arc<Pulse>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Bounds;

    fn limits() -> Limits {
        Limits::new(Bounds::PATIENT)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_progress_ends_at_the_stall_limit() {
        let begun = Instant::now();
        let ended = bounded(&limits(), &Progress::start(), std::future::pending::<()>()).await;
        assert_eq!(ended, Err(Overrun::Stall(Duration::from_secs(20))));
        assert_eq!(begun.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_carries_it_on_until_the_request_limit() {
        let progress = Progress::start();
        let begun = Instant::now();
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                progress.touch();
            }
        };
        let ended: Result<(), _> = bounded(&limits(), &progress, trickle).await;
        assert_eq!(ended, Err(Overrun::Request(Duration::from_secs(300))));
        assert_eq!(begun.elapsed().as_secs(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_tightened_meanwhile_are_obeyed_at_once() {
        let limits = limits();
        let begun = Instant::now();
        let tighten = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            limits.change(|bounds| bounds.deadline = Some(Instant::now()));
            std::future::pending::<()>().await;
        };
        let progress = Progress::start();
        let ended = tokio::select! {
            ended = bounded(&limits, &progress, std::future::pending::<()>()) => ended,
            () = tighten => Ok(()),
        };
        assert_eq!(ended, Err(Overrun::Deadline));
        assert!(begun.elapsed() <= Duration::from_millis(3250), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_after_the_other_shares_the_time_without_progress() {
        let limits = limits();
        limits.change(|bounds| bounds.idle = Some(Duration::from_secs(20)));
        limits.moved(Instant::now());
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(15)).await;
        let ended = bounded(&limits, &Progress::start(), std::future::pending::<()>()).await;
        assert_eq!((ended, begun.elapsed().as_secs()), (Err(Overrun::Stall(Duration::from_secs(20))), 20));
        // One whose bytes move gives the others time.
        let progress = Progress::start();
        let trickle = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(5)).await;
                progress.touch();
            }
        };
        limits.moved(Instant::now());
        assert_eq!(bounded(&limits, &progress, trickle).await, Ok(()));
        let rest = limits.idle_end().map(|end| end.saturating_duration_since(Instant::now()).as_secs());
        assert_eq!(rest, Some(20));
    }

    #[tokio::test]
    async fn whoever_works_on_another_thread_learns_that_nobody_waits() {
        let progress = Progress::start();
        drop(Box::pin(bounded(&limits(), &progress, std::future::ready(()))));
        assert!(!progress.is_abandoned(), "it never began");
        bounded(&limits(), &progress, async { assert!(!progress.is_abandoned()) }).await.unwrap();
        assert!(progress.is_abandoned());
    }
}
