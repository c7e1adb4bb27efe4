//! Fetching ahead of replay (`WALHALLA_PREFETCH`): the next segments lie in the spool, whole and verified, before they are asked
//! for.
//!
//! | file | subject |
//! |---|---|
//! | `plan` | which segments come next, and how many of them |
//! | `place` | where they lie: a folder of the spool, bound to one recovery and one repository |
//! | `source` | one segment into its place |
//! | `together` | several in one call |
//! | `helper` | a process beside replay |
//!
//! Only segments lie there: that a file is absent, and what a history says, is never answered from the spool. Nothing begins before
//! a call has delivered a segment, nor during a promotion, nor for `pg_rewind` and calls by hand: it works for a startup process
//! alone. Whatever fails here fails in silence, and leaves the file to its own call, which judges.

pub(super) mod helper;
mod place;
mod plan;
mod source;
mod together;

pub(super) use place::Bound;
pub(super) use together::Together;

use super::data_directory::DataDirectory;
use super::delivery;
use super::startup::StartupProcess;
use super::target::Target;
use crate::config::{Prefetch, Settings};
use crate::pg::{SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use crate::spool::Spool;
use helper::Server;
use place::{Place, Position};
use source::Source;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a call waits for a helper that gets nowhere. One that gets on touches its announcement twice a second.
const SILENCE: Duration = Duration::from_secs(2);
const HELPER_GLANCE: Duration = Duration::from_millis(2);
/// A temporary file in `pg_wal` that nobody has written to for this long is that of a copy that was given up: a startup process
/// has one call at a time.
const UNFINISHED: Duration = Duration::from_secs(60);

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The next few in the call itself.
    Together,
    /// A helper beside replay.
    Beside,
}

/// What a call has to do with fetching ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    how: How,
    place: Place,
    server: Server,
    size: SegmentSize,
    concurrency: usize,
    config: Option<PathBuf>,
}

impl Ahead {
    /// For a call of the server in this directory. `None` where nothing is fetched ahead: it is off, there is no spool, or no
    /// startup process that the call works for.
    pub(super) fn find(
        settings: &Settings,
        spool: Option<Spool>,
        directory: &DataDirectory,
        cluster: (SystemIdentifier, SegmentSize),
        config: Option<PathBuf>,
    ) -> Option<Self> {
        let postmaster = directory.postmaster()?.pid;
        let how = match settings.prefetch {
            Prefetch::Off => return None,
            Prefetch::Call => How::Together,
            Prefetch::Helper => How::Beside,
            Prefetch::Auto => How::by_itself(postmaster),
        };
        let startup = StartupProcess::above_us(postmaster)?;
        let real = directory.path().canonicalize().ok()?;
        let (system, size) = cluster;
        let place = Place::of(spool?, &startup, &Bound { settings, system, size, data_directory: &real })?;
        let server = Server { directory: real, postmaster, startup };
        Some(Self { how, place, server, size, concurrency: settings.concurrency, config })
    }

    /// What each segment of this cluster has.
    pub(super) fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Delivers a segment that was prefetched, where a rename does it.
    pub(super) fn take_at_once(&self, name: SegmentName, destination: &Path) -> bool {
        self.place.take_at_once(name, destination)
    }

    /// Delivers one of which [`Self::take_at_once`] has said no: by a copy from another file system, after waiting up to `limit`
    /// for a helper that is fetching it, and gets on with it.
    pub(super) async fn take(&self, name: SegmentName, destination: &Path, limit: Duration) -> bool {
        if !self.place.holds(name) && !self.has_come(name, limit).await {
            return false;
        }
        let (place, destination) = (self.place.clone(), destination.to_owned());
        let copy = move || {
            delivery::sweep(&destination, UNFINISHED);
            place.take(name, &destination)
        };
        tokio::task::spawn_blocking(copy).await.is_ok_and(|taken| taken)
    }

    /// Waits for it, if it is coming. Given up, it is the call's own: the helper drops it.
    async fn has_come(&self, name: SegmentName, limit: Duration) -> bool {
        let begun = Instant::now();
        let is_moving = || self.place.silence(name, begun).is_some_and(|silence| silence < SILENCE);
        while self.place.is_coming(name) {
            if begun.elapsed() >= limit || !is_moving() {
                self.place.give_up(name);
                break;
            }
            tokio::time::sleep(HELPER_GLANCE).await;
        }
        self.place.holds(name)
    }

    /// Begins to fetch what lies behind this segment, whose object has just come, in the call itself, where that is the way.
    ///
    /// At first one, then twice as many and one more each time that they were found: at the end of the archive, where a standby
    /// lives, little is asked for in vain.
    pub(super) fn together(&self, name: SegmentName, target: &Target) -> Option<Together> {
        let found = self.place.position().map_or(0, |position| position.found);
        let count = found.saturating_mul(2).saturating_add(1).min(plan::together(self.size));
        if self.how != How::Together || count == 0 || !self.place.make() {
            return None;
        }
        let source = Source {
            cluster: target.cluster.clone(),
            identities: target.identities.clone(),
            size: self.size,
            place: self.place.clone(),
            directory: DataDirectory::at(&self.server.directory),
        };
        Some(Together::begin(source, name, count, plan::at_once(self.size, self.concurrency)))
    }

    /// The segment was delivered. `found`: how many of the next were, if this call has looked. Answers whether a helper is of use:
    /// not at the end of the archive, where the last call met nothing, nor where no helper could read the position.
    pub(super) fn delivered(&self, name: SegmentName, found: Option<usize>) -> bool {
        let before = self.place.position().map(|position| position.found);
        let found = match self.how {
            How::Together => found.or(before).unwrap_or(0),
            How::Beside => 1,
        };
        self.place.tell(&Position { name, found }) && before != Some(0)
    }

    /// The archive has no such segment: what comes next is looked for with care.
    pub(super) fn absent(&self) {
        if let Some(position) = self.place.position().filter(|position| position.found > 0) {
            self.place.tell(&Position { found: 0, ..position });
        }
    }

    /// The history of this timeline was delivered.
    pub(super) fn delivered_history(&self, timeline: TimelineId) {
        self.place.tell_history(timeline);
    }

    /// Sees to it that there is a helper, where that is the way.
    pub(super) fn start_helper(&self) {
        if self.how == How::Beside && !self.place.has_helper() {
            helper::start(&self.server, self.config.as_deref());
        }
    }

    /// The recovery is ending: clears up. May be dropped while it does.
    pub(super) async fn ended(&self) {
        let place = self.place.clone();
        drop(tokio::task::spawn_blocking(move || place.remove()).await);
    }

    /// The same without a runtime.
    pub(super) fn clear(&self) {
        self.place.remove();
    }
}
