//! Fetching ahead, as far as a call has to do with it. What fails here leaves everything to the attempt, which says why.

use super::{Call, GLANCE, LAST_WORDS, Outcome};
use crate::archive::patience;
use crate::archive::prefetch::{Ahead, Together};
use crate::archive::target::Target;
use crate::exit::RecoveryMode;
use crate::pg::WalFileName;
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for a file that a helper is fetching, besides a quarter of a second per MiB, before it fetches it itself.
const FOR_A_HELPER: Duration = Duration::from_secs(2);
const HELPER_GLANCE: Duration = Duration::from_millis(2);
/// How long a call that has its own file goes on fetching the next ones, besides a second per MiB, and without progress.
const FOR_THE_NEXT: Duration = Duration::from_secs(10);
const STALL_OF_THE_NEXT: Duration = Duration::from_secs(3);

impl Call {
    pub(super) async fn find_ahead(&self) {
        let Ok(settings) = self.settings() else { return };
        let Ok(Some(control)) = self.directory.control().await else { return };
        let cluster = (control.system_identifier, control.wal_segment_size);
        if self.arguments.cluster.is_some_and(|asked| asked != cluster.0) {
            return;
        }
        let config = self.arguments.config.as_deref();
        if let Some(ahead) = Ahead::find(settings, self.spool(), &self.directory, cluster, config) {
            self.ahead.get_or_init(|| ahead);
        }
    }

    /// Delivers the file out of the spool, where it is there, or comes in time.
    pub(super) async fn is_prefetched(&self) -> bool {
        let (Some(ahead), Some(name)) = (self.ahead.get(), self.name.segment()) else { return false };
        if ahead.take(name, &self.arguments.path) {
            return true;
        }
        let bytes = ahead.segment_size().bytes();
        self.allow(bytes);
        let end = Instant::now() + (self.left() / 2).min(FOR_A_HELPER + patience::by_size(bytes) / 4);
        let mut waited = false;
        while ahead.is_coming(name) && Instant::now() < end {
            tokio::time::sleep(HELPER_GLANCE).await;
            waited = true;
        }
        waited && ahead.take(name, &self.arguments.path)
    }

    /// This file's object is there: the next ones may be, too.
    pub(super) fn begin_the_next(&self, target: &Target) {
        let (Some(ahead), Some(name)) = (self.ahead.get(), self.name.segment()) else { return };
        if self.is_to_work_ahead() {
            *self.together.borrow_mut() = ahead.together(name, target);
        }
    }

    /// Not in a promotion, nor at the end: what comes next there is not replay.
    fn is_to_work_ahead(&self) -> bool {
        matches!(self.mode(), RecoveryMode::Recovery | RecoveryMode::Standby)
    }

    pub(super) async fn see_to_the_next(&self, outcome: &Outcome) {
        let Some(ahead) = self.ahead.get() else { return };
        match (outcome, self.name) {
            (Outcome::Delivered, WalFileName::Segment(name)) => {
                let together = self.together.take();
                let found = match together {
                    Some(together) => Some(self.end_the_next(together).await),
                    None => None,
                };
                ahead.delivered(name, found);
                if self.is_to_work_ahead() {
                    ahead.start_helper();
                }
            }
            (Outcome::Delivered, WalFileName::History(timeline)) => ahead.delivered_history(timeline),
            (Outcome::Absent, WalFileName::Segment(_)) => ahead.absent(),
            _ => {}
        }
        if self.mode() == RecoveryMode::Ending && matches!(self.name, WalFileName::History(_)) {
            ahead.ended();
        }
    }

    /// Waits for the next ones, as long as they come, and as long as the server is still at it. How many have come.
    async fn end_the_next(&self, mut together: Together) -> usize {
        let begun = Instant::now();
        let limit = self.left().min(FOR_THE_NEXT + patience::by_size(self.bytes()) * 8);
        self.limits.change(|bounds| {
            *bounds = patience::attempt(begun, limit, 0);
            bounds.stall = bounds.stall.min(STALL_OF_THE_NEXT);
        });
        self.leash.set((begun + limit + LAST_WORDS).into_std());
        let mut end = std::pin::pin!(together.end());
        loop {
            if let Ok(found) = tokio::time::timeout(GLANCE, &mut end).await {
                return found;
            }
            self.look();
            if begun.elapsed() > limit || !self.is_to_work_ahead() || self.directory.server_is_stopping().is_some() {
                return 0;
            }
        }
    }
}
