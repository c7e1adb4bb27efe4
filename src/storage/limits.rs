//! How long a program may try: one shared value, consulted by every request, changed while requests run.
//!
//! A program's outlook changes under it: the server begins to stop, a promotion is ordered. So the limits are one shared
//! handle: whoever watches the server tightens it, and the requests under way notice at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The bounds in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// When everything must have ended, whatever happens. `None`: no end of its own (a base backup).
    pub deadline: Option<Instant>,
    /// How long a request may go without a byte moving either way.
    pub stall: Duration,
    /// How long all of them together may, with the pauses between their tries. `None`: only each by itself is held to that.
    pub idle: Option<Duration>,
    /// How long one request may take in all.
    pub request: Duration,
    /// How long to wait for a connection: name, TCP and TLS together.
    pub connect: Duration,
    /// How many times one operation may be tried; at least 1.
    pub attempts: u32,
}

impl Bounds {
    /// Without a deadline: 20 s without progress, five minutes a request, ten tries. What long jobs start from.
    pub const PATIENT: Bounds = Bounds {
        deadline: None,
        stall: Duration::from_secs(20),
        idle: None,
        request: Duration::from_secs(300),
        connect: Duration::from_secs(10),
        attempts: 10,
    };
}

/// The shared handle to the bounds. Clones share.
#[derive(Debug, Clone)]
pub struct Limits {
    bounds: Arc<watch::Sender<Bounds>>,
    begun: Instant,
    /// Milliseconds from `begun` to the last movement that any request saw.
    moved: Arc<AtomicU64>,
    /// Whether the next operation goes on with the time without progress of the one before it.
    goes_on: Arc<AtomicBool>,
}

impl Limits {
    /// Starts with these bounds.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds: Arc::new(watch::Sender::new(bounds)),
            begun: Instant::now(),
            moved: Arc::default(),
            goes_on: Arc::default(),
        }
    }

    /// The bounds now.
    pub fn now(&self) -> Bounds {
        *self.bounds.borrow()
    }

    /// Changes the bounds; requests under way notice.
    pub fn change(&self, change: impl FnOnce(&mut Bounds)) {
        self.bounds.send_modify(change);
    }

    /// Waits for the next change of the bounds.
    pub async fn changed(&self) {
        let mut receiver = self.bounds.subscribe();
        // The sender lives as long as self: this ends with a change and never with an error.
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Something moved at that moment.
    pub(super) fn moved(&self, at: Instant) {
        let millis = u64::try_from(at.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        self.moved.fetch_max(millis, Ordering::Relaxed);
    }

    /// The next operation follows one that failed, for the same end: it does not have the whole time without progress once more.
    pub fn go_on(&self) {
        self.goes_on.store(true, Ordering::Relaxed);
    }

    /// An operation begins.
    pub(super) fn begin(&self, at: Instant) {
        if !self.goes_on.swap(false, Ordering::Relaxed) {
            self.moved(at);
        }
    }

    /// When a request last saw a byte move, to a fraction of a second; when these limits began, if none has yet.
    pub fn last_moved(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// When everything has gone without progress for too long, if nothing moves until then.
    pub(super) fn idle_end(&self) -> Option<Instant> {
        self.now().idle.map(|idle| self.last_moved() + idle)
    }

    /// What is left until the deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.now().deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
