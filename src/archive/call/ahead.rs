//! Fetching ahead, as far as a call has to do with it. What fails here leaves everything to the attempt, which says why.

use super::{Call, GLANCE, LAST_WORDS, Outcome};
use crate::archive::patience;
use crate::archive::prefetch::{Ahead, Together};
use crate::archive::target::Target;
use crate::config;
use crate::exit::RecoveryMode;
use crate::pg::{SegmentName, WalFileName};
use std::time::Duration;
use tokio::time::Instant;

/// How long a call that has its own file goes on fetching the next ones: this, or so many times what its own took, and without
/// progress. Replay waits meanwhile.
const FOR_THE_NEXT: Duration = Duration::from_secs(5);
const TIMES_ITS_OWN: u32 = 4;
/// How long the end of a recovery waits for its folder to be cleared away.
const FOR_CLEARING: Duration = Duration::from_secs(1);
const STALL_OF_THE_NEXT: Duration = Duration::from_secs(3);

impl Call {
    /// Delivers the file out of the spool where a rename does it, and all that there is to do behind that. It needs no runtime,
    /// which is why it is asked first.
    pub(in crate::archive) fn is_at_hand(&self) -> bool {
        self.find_ahead();
        let (Some(ahead), Some(name)) = (self.ahead.get(), self.name.segment()) else { return false };
        self.allow(self.bytes());
        let is_taken = ahead.take_at_once(name, &self.arguments.path);
        if is_taken {
            self.delivered(ahead, name, None);
        }
        is_taken
    }

    /// Clears up behind a recovery that is ending.
    pub(in crate::archive) fn clear_up(&self) {
        self.find_ahead();
        if let Some(ahead) = self.ahead.get() {
            ahead.clear();
        }
    }

    fn find_ahead(&self) {
        let Ok(settings) = self.learn() else { return };
        let Some(control) = self.directory.control_at_once() else { return };
        let cluster = (control.system_identifier, control.wal_segment_size);
        if self.arguments.cluster.is_some_and(|asked| asked != cluster.0) {
            return;
        }
        let config = config::named_to_process(self.arguments.config.as_deref());
        if let Some(ahead) = Ahead::find(settings, self.spool(), &self.directory, cluster, config) {
            self.ahead.get_or_init(|| ahead);
        }
    }

    /// Delivers the file out of the spool, where it must be copied, or comes in time. A copy has as long as an attempt.
    pub(super) async fn prefetched(&self) -> Option<Outcome> {
        let (ahead, name) = (self.ahead.get()?, self.name.segment()?);
        self.allow(self.bytes());
        tokio::select! {
            biased;
            overdue = self.watch() => Some(overdue),
            taken = ahead.take(name, &self.arguments.path, self.left() / 2) => taken.then_some(Outcome::Delivered),
        }
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
                self.delivered(ahead, name, found);
            }
            (Outcome::Delivered, WalFileName::History(timeline)) => ahead.delivered_history(timeline),
            (Outcome::Absent, WalFileName::Segment(_)) => ahead.absent(),
            _ => {}
        }
        if self.mode() == RecoveryMode::Ending && matches!(self.name, WalFileName::History(_)) {
            self.leash.set((Instant::now() + FOR_CLEARING + LAST_WORDS).into_std());
            drop(tokio::time::timeout(FOR_CLEARING, ahead.ended()).await);
        }
    }

    fn delivered(&self, ahead: &Ahead, name: SegmentName, found: Option<usize>) {
        if matches!(self.mode(), RecoveryMode::Promoting { .. }) {
            self.take_back_the_note();
        }
        if ahead.delivered(name, found) && self.is_to_work_ahead() {
            ahead.start_helper();
        }
    }

    /// Waits for the next ones, as long as they come, and as long as the server is still at it. How many have come.
    async fn end_the_next(&self, mut together: Together) -> usize {
        let begun = Instant::now();
        let limit = self.left().min(FOR_THE_NEXT.max(self.asked.get().elapsed() * TIMES_ITS_OWN));
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
