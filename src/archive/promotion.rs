//! What a call knows of a promotion: whether it must have the archive, and whether an earlier call of the same promotion met
//! trouble. The main thread judges by it too, when the call itself breaks or does not end.

use crate::exit::RecoveryMode;
use crate::pg::WalFileName;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Clones share: the work learns it, the main thread reads it.
#[derive(Debug, Clone, Default)]
pub(super) struct Promotion(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    needs_archive: AtomicBool,
    met_trouble: OnceLock<bool>,
}

impl Promotion {
    /// `WALHALLA_PROMOTE_NEEDS_ARCHIVE` has been read.
    pub(super) fn learn(&self, needs_archive: bool) {
        self.0.needs_archive.store(needs_archive, Ordering::Relaxed);
    }

    /// Whether a promotion must have the archive; no, as long as nobody has read that it must.
    pub(super) fn needs_archive(&self) -> bool {
        self.0.needs_archive.load(Ordering::Relaxed)
    }

    /// Looks once whether an earlier call of this promotion met trouble. It must be asked before this call writes or removes a
    /// note: by its own it would judge itself.
    pub(super) fn recall(&self, look: impl FnOnce() -> bool) {
        self.0.met_trouble.get_or_init(look);
    }

    /// Whether an earlier call of this promotion met trouble, as far as this one has looked.
    pub(super) fn has_met_trouble(&self) -> bool {
        self.0.met_trouble.get().is_some_and(|met_trouble| *met_trouble)
    }

    /// Whether the answer to a call for this file decides the new timeline's number in a promotion that has met trouble. Then it
    /// must not be called absent without proof, or the number would be used twice. (`promote` may be there again: an operator who
    /// sees nothing happen orders twice.)
    pub(super) fn is_decided_by(&self, mode: RecoveryMode, name: &WalFileName) -> bool {
        let may_take_a_number = matches!(mode, RecoveryMode::Standby | RecoveryMode::Promoting { .. });
        may_take_a_number && matches!(name, WalFileName::History(_)) && self.has_met_trouble()
    }

    /// In which column of the table trouble with this file is judged: the mode's own, unless the file decides a timeline's number.
    pub(super) fn column(&self, mode: RecoveryMode, name: &WalFileName) -> RecoveryMode {
        if self.is_decided_by(mode, name) { RecoveryMode::Recovery } else { mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_trouble_a_history_is_judged_as_in_a_recovery() {
        let (history, segment): (WalFileName, WalFileName) =
            ("00000002.history".parse().unwrap(), "000000010000000000000002".parse().unwrap());
        let promoting = RecoveryMode::Promoting { needs_archive: false };
        for (met_trouble, mode, decides) in [
            (None, promoting, false),
            (Some(false), promoting, false),
            (Some(true), promoting, true),
            (Some(true), RecoveryMode::Standby, true),
            (Some(true), RecoveryMode::Ending, false),
            (Some(true), RecoveryMode::Recovery, false),
        ] {
            let promotion = Promotion::default();
            if let Some(met_trouble) = met_trouble {
                promotion.recall(|| met_trouble);
                promotion.recall(|| !met_trouble); // What this call writes does not change it.
            }
            let expected = if decides { RecoveryMode::Recovery } else { mode };
            assert_eq!(promotion.column(mode, &history), expected, "{met_trouble:?} {mode:?}");
            assert_eq!(promotion.column(mode, &segment), mode);
        }
    }

    #[test]
    fn what_one_thread_learns_the_other_knows() {
        let promotion = Promotion::default();
        let theirs = promotion.clone();
        assert!(!promotion.needs_archive());
        std::thread::spawn(move || theirs.learn(true)).join().unwrap();
        assert!(promotion.needs_archive());
    }
}
