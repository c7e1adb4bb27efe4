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
use super::startup::StartupProcess;
use super::target::Target;
use crate::config::{Prefetch, Settings};
use crate::pg::{SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use crate::spool::Spool;
use helper::Server;
use place::{Place, Position};
use source::Source;
use std::path::{Path, PathBuf};

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
        config: Option<&Path>,
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
        Some(Self { how, place, server, size, concurrency: settings.concurrency, config: config.map(Path::to_owned) })
    }

    /// What each segment of this cluster has.
    pub(super) fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Delivers a segment that was prefetched.
    pub(super) fn take(&self, name: SegmentName, destination: &Path) -> bool {
        self.place.take(name, destination)
    }

    /// Whether a helper is fetching it at this moment.
    pub(super) fn is_coming(&self, name: SegmentName) -> bool {
        self.place.is_coming(name)
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

    /// The segment was delivered. `found`: how many of the next were, if this call has looked.
    pub(super) fn delivered(&self, name: SegmentName, found: Option<usize>) {
        if self.place.make() {
            let found = found.or_else(|| self.place.position().map(|position| position.found)).unwrap_or(0);
            self.place.tell(&Position { name, found });
        }
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

    /// The recovery is ending.
    pub(super) fn ended(&self) {
        self.place.remove();
    }
}
