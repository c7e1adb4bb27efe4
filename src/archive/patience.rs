//! How long the two programs try: figures of the design, and the reasons for them.

use crate::config::Settings;
use crate::error::ErrorKind;
use crate::exit::RecoveryMode;
use crate::storage::Bounds;
use std::time::Duration;
use tokio::time::Instant;

/// Without progress for this long, nothing more is expected of a request. Postgres waits for each call: from version 14 on a
/// `DROP DATABASE` anywhere in the cluster waits for the running `archive_command` too.
const STALL: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(10);
/// What one archive call may take in all, besides a second for each MiB.
const ARCHIVE: Duration = Duration::from_secs(30);
/// While the server stops: what one call may take, and what all of them together may. A fast stop costs up to six of them, a
/// second apart, and is to be over within 30 s.
const STOPPING: Duration = Duration::from_secs(10);
const STOPPING_ALL: Duration = Duration::from_secs(18);
/// What one call may take that begins when nothing is left of that.
const STOPPING_LEAST: Duration = Duration::from_secs(1);
/// A stop that has lasted this long waits for something else than its archiver.
const STOPPING_LONG: Duration = Duration::from_secs(60);
const STOPPING_STALL: Duration = Duration::from_secs(2);
/// A standby has another source: it must get its answer, and may stream.
const STANDBY: Duration = Duration::from_secs(30);
/// A standby whose archive was out of reach within the last minute.
const STANDBY_IN_TROUBLE: Duration = Duration::from_secs(3);
/// At the very end of a recovery the answer decides nothing any more, and the server is not yet up.
const ENDING: Duration = Duration::from_secs(10);

/// One second for each started MiB.
pub fn by_size(bytes: u64) -> Duration {
    Duration::from_secs(bytes.div_ceil(1 << 20))
}

/// The bounds of a call of `walhalla-archive` that began at `begun`, with a file of this many bytes.
///
/// `timeout` (`WALHALLA_ARCHIVE_TIMEOUT`) replaces the whole limit; the one without progress is then the smaller of the two.
pub fn archive(begun: Instant, bytes: u64, timeout: Option<Duration>) -> Bounds {
    let whole = timeout.unwrap_or_else(|| ARCHIVE + by_size(bytes));
    let stall = STALL.min(whole);
    Bounds {
        deadline: Some(begun + whole),
        stall,
        idle: Some(stall),
        request: whole,
        connect: CONNECT.min(stall),
        attempts: u32::MAX, // The deadline decides.
    }
}

/// Tightens the bounds of a call that sees its server stopping, for so long `already`: one attempt, two seconds without progress,
/// ten in all; less where earlier calls of a stop that should soon be over have used up the time.
pub fn while_stopping(bounds: &mut Bounds, now: Instant, already: Duration) {
    // A smart stop waits for its clients, be it for hours, and a last checkpoint may take its time: no budget of 18 s is for those.
    let all = if already < STOPPING_LONG { STOPPING_ALL.saturating_sub(already) } else { STOPPING };
    let end = now + all.clamp(STOPPING_LEAST, STOPPING);
    bounds.deadline = Some(bounds.deadline.map_or(end, |deadline| deadline.min(end)));
    bounds.stall = bounds.stall.min(STOPPING_STALL);
    bounds.idle = Some(bounds.stall);
    bounds.connect = bounds.connect.min(STOPPING_STALL);
    bounds.request = bounds.request.min(STOPPING);
    bounds.attempts = 1;
}

/// How long after its own file was stored a call may begin further ones, and how long it may wait for them, each at most a quarter
/// of what the call may take: one that waits for them too long keeps Postgres from the next.
const AHEAD_BEGIN: Duration = Duration::from_secs(2);
const AHEAD_END: Duration = Duration::from_secs(6);

/// How long a call works ahead, from the moment at which its own file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    begin: Duration,
    end: Duration,
    deadline: Option<Instant>,
}

impl Ahead {
    /// Of a call with these bounds.
    pub fn of(bounds: &Bounds, now: Instant) -> Self {
        let whole = bounds.deadline.map_or(AHEAD_END * 4, |deadline| deadline.saturating_duration_since(now));
        Self { begin: AHEAD_BEGIN.min(whole / 4), end: AHEAD_END.min(whole / 4), deadline: bounds.deadline }
    }

    /// From when on it begins no further file, and from when on it waits for none, if its own was stored at this moment.
    pub fn from(&self, stored: Instant) -> (Instant, Instant) {
        let capped = |end: Instant| self.deadline.map_or(end, |deadline| end.min(deadline));
        (capped(stored + self.begin), capped(stored + self.end))
    }
}

/// How long one call of `walhalla-restore` goes on asking an archive in trouble.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// `WALHALLA_RESTORE_TIMEOUT`.
    pub recovery: Duration,
    /// `WALHALLA_PROMOTE_TIMEOUT`.
    pub promotion: Duration,
}

impl Patience {
    /// As long as the settings cannot be read.
    pub const DEFAULT: Patience = Patience { recovery: Duration::from_secs(300), promotion: Duration::from_secs(60) };

    /// As configured.
    pub fn of(settings: &Settings) -> Self {
        Self { recovery: settings.restore_timeout, promotion: settings.promote_timeout }
    }

    /// The limit in this mode. `lately`: the archive was out of reach within the last minute.
    pub fn limit(&self, mode: RecoveryMode, lately: bool) -> Duration {
        match mode {
            RecoveryMode::Recovery => self.recovery,
            RecoveryMode::Standby if lately => STANDBY_IN_TROUBLE.min(self.recovery),
            RecoveryMode::Standby => STANDBY.min(self.recovery),
            RecoveryMode::Promoting { .. } => self.promotion,
            RecoveryMode::Ending => ENDING.min(self.recovery),
        }
    }
}

/// The bounds of the next attempt of a restore call, of whose patience `left` is left, with a file of up to `bytes` bytes.
///
/// An attempt that makes no progress ends with the patience; one whose bytes flow may go on for a second per MiB behind it,
/// or a standby behind a slow line could never fetch anything. The attempts themselves are counted by the caller, who looks
/// at more than the storage between two of them.
pub fn attempt(now: Instant, left: Duration, bytes: u64) -> Bounds {
    let stall = left.clamp(Duration::from_millis(500), STALL);
    let whole = left + by_size(bytes);
    let connect = CONNECT.min(stall);
    Bounds { deadline: Some(now + whole), stall, idle: None, request: whole, connect, attempts: 1 }
}

/// Whether trouble of this kind may pass while the mode has patience. An ordered promotion waits for every cure: what it does
/// without the archive cannot be undone.
pub fn is_worth_asking_again(mode: RecoveryMode, kind: ErrorKind) -> bool {
    let is_promotion = matches!(mode, RecoveryMode::Promoting { .. });
    match kind {
        ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::LocalIo | ErrorKind::Protocol => true,
        ErrorKind::Config | ErrorKind::Corrupt | ErrorKind::Mismatch | ErrorKind::Duplicate => is_promotion,
        ErrorKind::Gap | ErrorKind::NotFound => is_promotion,
        ErrorKind::Held | ErrorKind::Interrupted | ErrorKind::Bug => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MODES: [RecoveryMode; 4] = [
        RecoveryMode::Recovery,
        RecoveryMode::Standby,
        RecoveryMode::Promoting { needs_archive: false },
        RecoveryMode::Ending,
    ];

    #[tokio::test]
    async fn an_archive_call_has_twenty_seconds_without_progress_and_thirty_and_one_a_mebibyte_in_all() {
        let now = Instant::now();
        let bounds = archive(now, 16 << 20, None);
        assert_eq!((bounds.deadline, bounds.stall, bounds.connect), (Some(now + S * 46), S * 20, S * 10));
        assert_eq!(archive(now, 300, None).deadline, Some(now + S * 31));
        assert_eq!(archive(now, 1 << 30, None).deadline, Some(now + S * 1054));
        let bounds = archive(now, 16 << 20, Some(S * 5));
        assert_eq!((bounds.deadline, bounds.stall, bounds.connect), (Some(now + S * 5), S * 5, S * 5));
        assert_eq!(archive(now, 16 << 20, Some(S * 300)).stall, S * 20);
    }

    #[tokio::test]
    async fn a_stopping_server_is_not_kept() {
        let begun = Instant::now();
        let mut bounds = archive(begun, 16 << 20, None);
        while_stopping(&mut bounds, begun + S * 3, S);
        let expected = Bounds {
            deadline: Some(begun + S * 13),
            stall: S * 2,
            idle: Some(S * 2),
            request: S * 10,
            connect: S * 2,
            attempts: 1,
        };
        assert_eq!(bounds, expected);
        let mut short = archive(begun, 16 << 20, Some(S));
        while_stopping(&mut short, begun, S);
        assert_eq!((short.deadline, short.stall), (Some(begun + S), S));
        // Peers that take it by the drop: all calls of one stop share its time.
        for (already, left) in [(0, 10), (8, 10), (11, 7), (17, 1), (18, 1), (59, 1), (60, 10), (3600, 10)] {
            let mut bounds = archive(begun, 16 << 20, None);
            while_stopping(&mut bounds, begun, S * already);
            assert_eq!(bounds.deadline, Some(begun + S * left), "{already}");
        }
    }

    #[tokio::test]
    async fn working_ahead_takes_no_more_than_a_quarter_of_a_call() {
        let now = Instant::now();
        let of = |timeout| Ahead::of(&archive(now, 16 << 20, timeout), now);
        assert_eq!(of(None).from(now), (now + S * 2, now + S * 6));
        assert_eq!(of(None).from(now + S * 20), (now + S * 22, now + S * 26));
        assert_eq!(of(None).from(now + S * 45), (now + S * 46, now + S * 46), "the call's own deadline");
        assert_eq!(of(Some(S * 2)).from(now), (now + S / 2, now + S / 2));
    }

    #[test]
    fn the_limits_of_a_restore_call() {
        let patience = Patience { recovery: S * 300, promotion: S * 60 };
        let limits = MODES.map(|m| patience.limit(m, false));
        assert_eq!(limits, [S * 300, S * 30, S * 60, S * 10]);
        assert_eq!(patience.limit(RecoveryMode::Standby, true), S * 3);
        assert_eq!(patience.limit(RecoveryMode::Recovery, true), S * 300);
        let short = Patience { recovery: S * 2, promotion: S * 60 };
        let limits = MODES.map(|m| short.limit(m, true));
        assert_eq!(limits, [S * 2, S * 2, S * 60, S * 2]);
    }

    #[tokio::test]
    async fn an_attempt_ends_with_the_patience_unless_its_bytes_flow() {
        let now = Instant::now();
        let bounds = attempt(now, S * 3, 16 << 20);
        assert_eq!((bounds.stall, bounds.connect, bounds.deadline), (S * 3, S * 3, Some(now + S * 19)));
        assert_eq!(attempt(now, S * 300, 16 << 20).stall, S * 20);
        assert_eq!(attempt(now, Duration::ZERO, 0).stall, Duration::from_millis(500));
    }
}
