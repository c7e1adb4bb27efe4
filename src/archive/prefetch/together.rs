//! Several segments in one call: while the call writes its own file, the next ones come in beside it. The call does not end
//! before they have, so that no process is left behind.

use super::source::{Fetched, Source};
use crate::pg::SegmentName;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Fetching under way; dropped, it is called off.
#[derive(Debug)]
pub(in crate::archive) struct Together(JoinSet<usize>);

impl Together {
    /// Begins to fetch up to `count` segments behind `position`, `at_once` of them at the same time.
    pub(super) fn begin(source: Source, position: SegmentName, count: usize, at_once: usize) -> Self {
        let mut work = JoinSet::new();
        work.spawn(fetch(Arc::new(source), position, count, at_once));
        Self(work)
    }

    /// Waits until it has ended; answers how many of the segments are there. May be dropped while it waits.
    pub(in crate::archive) async fn end(&mut self) -> usize {
        match self.0.join_next().await {
            Some(Ok(found)) => found,
            Some(Err(_)) | None => 0,
        }
    }
}

async fn fetch(source: Arc<Source>, position: SegmentName, count: usize, at_once: usize) -> usize {
    let history = match source.place.newest_history().filter(|newest| *newest > position.timeline()) {
        Some(timeline) => source.history(timeline).await,
        None => None,
    };
    let names = source.after(position, history.as_ref(), count);
    source.place.keep_only(&names, false);
    source.place.sweep();
    let (held, missing): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| source.place.holds(*name));
    let (mut found, mut names, mut tasks) = (held.len(), missing.into_iter(), JoinSet::new());
    loop {
        while tasks.len() < at_once && source.place.has_room(tasks.len()) {
            let Some(name) = names.next() else { break };
            let source = Arc::clone(&source);
            tasks.spawn(async move { source.fetch(name).await });
        }
        match tasks.join_next().await {
            None => return found,
            Some(Ok(Fetched::There)) => found += 1,
            // The end of the archive, or trouble: nothing further is begun.
            Some(_) => names = Vec::new().into_iter(),
        }
    }
}
