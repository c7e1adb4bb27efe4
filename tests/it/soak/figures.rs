//! What happened, counted by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

/// Counts by chapter and kind, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Figures {
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Figures {
    /// It happened once more.
    pub(super) fn count(&self, chapter: &'static str, kind: impl Into<String>) {
        self.add(chapter, kind, 1);
    }

    /// It happened so many times more.
    pub(super) fn add(&self, chapter: &'static str, kind: impl Into<String>, many: u64) {
        *self.counts.lock().unwrap().entry((chapter, kind.into())).or_default() += many;
    }

    /// All of a chapter.
    pub(super) fn total(&self, chapter: &str) -> u64 {
        self.counts.lock().unwrap().iter().filter(|((its, _), _)| *its == chapter).map(|(_, many)| many).sum()
    }

    /// A promise was broken.
    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// The promises that were broken.
    pub(super) fn broken(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap();
        let chapters: std::collections::BTreeSet<_> = counts.keys().map(|(chapter, _)| *chapter).collect();
        for chapter in chapters {
            let kinds: Vec<String> = counts
                .iter()
                .filter(|((its, _), _)| *its == chapter)
                .map(|((_, kind), many)| format!("{many} {kind}"))
                .collect();
            let total: u64 = counts.iter().filter(|((its, _), _)| *its == chapter).map(|(_, many)| many).sum();
            writeln!(f, "{chapter:<12} {total:>6}  {}", kinds.join(", "))?;
        }
        Ok(())
    }
}
