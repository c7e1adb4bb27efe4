//! One call of `walhalla-restore`, from its arguments to its outcome: asks until there is an answer, or no patience left.

mod ahead;

use super::arguments::RestoreArguments;
use super::data_directory::DataDirectory;
use super::delivery::{self, Answer};
use super::notes::Notes;
use super::patience::{self, Patience};
use super::prefetch::{Ahead, Together};
use super::program::{self, Leash};
use super::promotion::Promotion;
use super::startup::StartupProcess;
use super::target::{self, Target};
use super::{gap, mode};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::exit::RecoveryMode;
use crate::pg::{SegmentSize, WalFileName};
use crate::repo::{Absence, Repository};
use crate::spool::Spool;
use crate::storage::{self, Limits};
use std::cell::{Cell, OnceCell, RefCell};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often a running call looks at what its server is doing.
const GLANCE: Duration = Duration::from_secs(1);
/// Upper bounds of the first pause between two attempts, and of any.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is too little for another attempt.
const NOTHING_LEFT: Duration = Duration::from_millis(100);
/// How long behind its deadline an attempt's own error, which says more, is waited for.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// What may be spent on words: on the proof of a gap that a standby only tells of, and on advice.
const FOR_THE_LOG: Duration = Duration::from_secs(5);

/// Why a file that the archive has not, or not whole, is no reason to stop.
const IN_PG_WAL: &str = "pg_wal has a valid copy, which Postgres reads instead";

/// How a call ended. What it means to Postgres depends on the mode ([`crate::exit`]).
#[derive(Debug)]
pub(super) enum Outcome {
    /// The file is there, whole and verified.
    Delivered,
    /// It is not in the archive: proven where the mode asks for that.
    Absent,
    /// It is missing before later ones, or damaged, and recovery may go on all the same: the text says why.
    Passed(String),
    /// It is missing before later ones.
    Gap(String),
    /// Nothing is known.
    Trouble(Error),
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    arguments: RestoreArguments,
    name: WalFileName,
    directory: DataDirectory,
    leash: Leash,
    promotion: Promotion,
    limits: Limits,
    begun: Instant,
    mode: Cell<RecoveryMode>,
    /// When this call first saw `promote`.
    promoted: Cell<Option<Instant>>,
    /// Whether the storage was out of reach within the last minute.
    lately: Cell<bool>,
    /// Whether an attempt of this call has met trouble.
    troubled: Cell<bool>,
    settings: OnceCell<Settings>,
    /// The one of the settings.
    spool: OnceCell<Option<Spool>>,
    notes: OnceCell<Notes>,
    target: OnceCell<Target>,
    /// What it has to do with fetching ahead.
    ahead: OnceCell<Ahead>,
    /// When this file was last asked for.
    asked: Cell<Instant>,
    /// The next ones, under way.
    together: RefCell<Option<Together>>,
}

impl Call {
    /// A call for this file, beginning now. What it learns of a promotion, it shares.
    pub(super) fn new(arguments: RestoreArguments, name: WalFileName, leash: Leash, promotion: Promotion) -> Self {
        let directory = DataDirectory::of(&arguments.path);
        let begun = Instant::now();
        let limits = Limits::new(patience::attempt(begun, Duration::from_secs(1), 0));
        let call = Self {
            arguments,
            name,
            directory,
            leash,
            promotion,
            limits,
            begun,
            mode: Cell::new(RecoveryMode::Recovery),
            promoted: Cell::new(None),
            lately: Cell::new(false),
            troubled: Cell::new(false),
            settings: OnceCell::new(),
            spool: OnceCell::new(),
            notes: OnceCell::new(),
            target: OnceCell::new(),
            ahead: OnceCell::new(),
            asked: Cell::new(begun),
            together: RefCell::new(None),
        };
        call.look();
        call
    }

    /// Takes the file out of the spool, else asks the archive for it; then sees to what comes next. It was not [at
    /// hand](Self::is_at_hand).
    pub(super) async fn run(&self) -> Outcome {
        let outcome = match self.prefetched().await {
            Some(outcome) => outcome,
            None => self.ask().await,
        };
        self.see_to_the_next(&outcome).await;
        outcome
    }

    /// Asks until there is an answer that this mode accepts, or no patience is left.
    async fn ask(&self) -> Outcome {
        let mut longest = FIRST_PAUSE;
        let mut earlier = None;
        loop {
            let asked_as = self.look();
            self.allow(self.bytes());
            let outcome = tokio::select! {
                biased;
                outcome = self.watch() => outcome,
                outcome = self.attempt(asked_as) => outcome.unwrap_or_else(Outcome::Trouble),
            };
            let now = self.look();
            if matches!(outcome, Outcome::Gap(_) | Outcome::Trouble(_)) {
                self.troubled.set(true);
                self.note_promotion();
            }
            match &outcome {
                // A promotion was ordered meanwhile: what was good enough for a standby is not for that.
                Outcome::Absent if asked_as == RecoveryMode::Standby && now != RecoveryMode::Standby => continue,
                Outcome::Gap(_) if now != RecoveryMode::Standby => {}
                Outcome::Trouble(error) if patience::is_worth_asking_again(now, error.kind()) => {}
                _ => return outcome,
            }
            // An attempt that ran out of time says less than the one before it, which found a gap, or was refused.
            let outcome = match (outcome, earlier.take()) {
                (Outcome::Trouble(error), Some(said)) if error.kind() == ErrorKind::Unavailable => said,
                (outcome, _) => outcome,
            };
            if !self.pause(longest.mul_f64(fastrand::f64())).await {
                return outcome;
            }
            let says_why = match &outcome {
                Outcome::Gap(_) => true,
                Outcome::Trouble(error) => error.kind() != ErrorKind::Unavailable,
                Outcome::Delivered | Outcome::Absent | Outcome::Passed(_) => false,
            };
            earlier = says_why.then_some(outcome);
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    /// The mode now.
    pub(super) fn mode(&self) -> RecoveryMode {
        self.mode.get()
    }

    /// Leaves word for the calls after this one about trouble of this kind that this one ends with.
    pub(super) fn note_trouble(&self, kind: ErrorKind) {
        self.recall();
        match self.mode() {
            RecoveryMode::Promoting { .. } => {
                self.write_promotion_note();
                self.notes().trouble(SystemTime::now());
            }
            mode @ RecoveryMode::Standby if !self.lately.get() && patience::is_worth_asking_again(mode, kind) => {
                self.notes().trouble(SystemTime::now());
            }
            RecoveryMode::Standby | RecoveryMode::Recovery | RecoveryMode::Ending => {}
        }
    }

    /// The storage has answered. A promotion that met trouble keeps its note to its end: what came back may go again before the
    /// new timeline has its number.
    fn reached(&self) {
        self.notes().reached();
        self.take_back_the_note();
    }

    /// What this call noted of a promotion in case that it met trouble, it takes back: it has met none.
    fn take_back_the_note(&self) {
        if !self.troubled.get() && !self.promotion.has_met_trouble() {
            self.notes().promotion_without_trouble();
        }
    }

    /// Notes that a promotion is without its archive, as soon as that may be so: this call may be ended before it answers. Where the
    /// storage answers at once, the note is removed.
    fn note_promotion(&self) {
        // Which spool it is, the settings say.
        if self.settings.get().is_some() && matches!(self.mode(), RecoveryMode::Promoting { .. }) {
            self.recall();
            self.write_promotion_note();
        }
    }

    fn write_promotion_note(&self) {
        if let Some(startup) = self.startup() {
            self.notes().promotion_in_trouble(&startup);
        }
    }

    fn recall(&self) {
        self.promotion.recall(|| self.startup().is_some_and(|startup| self.notes().is_promotion_in_trouble(&startup)));
    }

    fn startup(&self) -> Option<StartupProcess> {
        self.directory.postmaster().and_then(|postmaster| StartupProcess::above_us(postmaster.pid))
    }

    /// What to do about a gap that stays. It is advice, for which nobody waits long.
    pub(super) async fn cure(&self) -> Option<String> {
        let target = self.target.get()?;
        let end = Instant::now() + FOR_THE_LOG;
        self.limits.change(|bounds| *bounds = patience::attempt(Instant::now(), FOR_THE_LOG, 0));
        self.leash.set((end + LAST_WORDS).into_std());
        let cure = gap::cure(&target.cluster, &target.identities, &target.wanted);
        tokio::time::timeout_at(end, cure).await.ok()
    }

    /// One attempt.
    async fn attempt(&self, mode: RecoveryMode) -> Result<Outcome> {
        let target = self.target().await?;
        self.allow(self.bytes());
        if matches!(self.name, WalFileName::History(_)) {
            delivery::sweep(&self.arguments.path, delivery::ABANDONED);
        }
        // On a standby one GET is all, where no timeline's number depends on it; elsewhere the proof says the rest.
        let is_one_get = self.promotion.column(mode, &self.name) == RecoveryMode::Standby;
        let answer = match self.deliver(target).await {
            // A delete marker.
            Err(error) if error.kind() == ErrorKind::Gap && is_one_get => {
                let is_news = self.notes().absent(&self.name, SystemTime::now());
                return Ok(if is_news { Outcome::Gap(error.to_string()) } else { Outcome::Absent });
            }
            Err(error) if error.kind() == ErrorKind::Gap => Answer::NoSuchKey,
            Err(error) if self.is_useless(mode, &error) && self.is_in_pg_wal(target).await? => {
                self.reached();
                return Ok(Outcome::Passed(format!("{error}; {IN_PG_WAL}")));
            }
            answer => answer?,
        };
        self.reached();
        match answer {
            Answer::Delivered => Ok(Outcome::Delivered),
            Answer::NoSuchKey if is_one_get => {
                self.prove_for_the_log(target).await;
                Ok(Outcome::Absent)
            }
            Answer::NoSuchKey => self.absent(target).await,
        }
    }

    async fn deliver(&self, target: &Target) -> Result<Answer> {
        self.asked.set(Instant::now());
        let Some(object) = delivery::ask(&target.cluster, &target.wanted).await? else { return Ok(Answer::NoSuchKey) };
        self.begin_the_next(target);
        delivery::write(object, &target.cluster, &target.identities, &target.wanted).await?;
        Ok(Answer::Delivered)
    }

    /// There is no such key: the rest of the proof, and what speaks against it.
    async fn absent(&self, target: &Target) -> Result<Outcome> {
        self.allow(0);
        match self.prove(target).await? {
            Absence::Proven => Ok(Outcome::Absent),
            Absence::Unknown(what) => Err(self.unknown(&what)),
            Absence::Gap(found) => {
                if self.is_in_pg_wal(target).await? {
                    return Ok(Outcome::Passed(format!("{found}; {IN_PG_WAL}")));
                }
                if self.name.segment().is_some_and(|name| self.arguments.accepted_gaps.contains(&name)) {
                    let text = format!(
                        "{found}; its absence is accepted (--accept-gap): recovery goes on as if the archive ended here"
                    );
                    return Ok(Outcome::Passed(text));
                }
                Ok(Outcome::Gap(found))
            }
        }
    }

    /// Whether this is what the archive has under a segment's name, and nobody can use. A standby needs no such exception: it is
    /// answered as absent, whatever the trouble is.
    fn is_useless(&self, mode: RecoveryMode, error: &Error) -> bool {
        mode != RecoveryMode::Standby
            && self.name.segment().is_some()
            && matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch)
    }

    async fn prove(&self, target: &Target) -> Result<Absence> {
        target.cluster.prove_absent_for(target.local.as_ref(), &self.name).await
    }

    fn unknown(&self, what: &str) -> Error {
        Error::new(ErrorKind::Config, format!("{}: {what}", self.name))
            .hint("use a newer version of Walhalla: this one cannot tell whether the file is absent")
    }

    /// On a standby neither a gap nor a repository that proves nothing changes the answer, but somebody should know of one that stays.
    async fn prove_for_the_log(&self, target: &Target) {
        if !self.notes().absent(&self.name, SystemTime::now()) {
            return;
        }
        let left = self.left().min(FOR_THE_LOG);
        self.limits.change(|bounds| *bounds = patience::attempt(Instant::now(), left, 0));
        // What does not come to its end in time is tried again in five minutes.
        if let Ok(Some(line)) = tokio::time::timeout(left, self.what_stays(target)).await {
            program::say(super::fetch::PROGRAM, &line);
        }
    }

    /// What the proof says that time alone does not mend.
    async fn what_stays(&self, target: &Target) -> Option<String> {
        let error = match self.prove(target).await {
            Ok(Absence::Proven) => return None,
            Ok(Absence::Gap(_)) if self.is_in_pg_wal(target).await.unwrap_or(false) => return None,
            Ok(Absence::Gap(found)) => {
                let cure = gap::cure(&target.cluster, &target.identities, &target.wanted).await;
                return Some(format!("there is a gap in the archive: {found}; {cure}"));
            }
            Ok(Absence::Unknown(what)) => self.unknown(&what),
            Err(error) => error,
        };
        let stays = match error.kind() {
            ErrorKind::Config | ErrorKind::Mismatch | ErrorKind::Corrupt | ErrorKind::Denied => true,
            // The answer itself has said it, or the next one does.
            ErrorKind::Unavailable | ErrorKind::Protocol | ErrorKind::LocalIo | ErrorKind::NotFound => false,
            ErrorKind::Gap | ErrorKind::Duplicate | ErrorKind::Held | ErrorKind::Interrupted | ErrorKind::Bug => false,
        };
        stays.then(|| format!("{} is answered as absent, which nothing proves: {error}", self.name))
    }

    async fn is_in_pg_wal(&self, target: &Target) -> Result<bool> {
        let (directory, wanted) = (self.directory.clone(), target.wanted.clone());
        tokio::task::spawn_blocking(move || gap::is_in_pg_wal(&directory, &wanted))
            .await
            .map_err(|cause| Error::new(ErrorKind::Bug, "cannot look into pg_wal").because(cause))
    }

    /// Where the file comes from: found once; an attempt that cannot find out leaves it to the next.
    async fn target(&self) -> Result<&Target> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let found = self.find_target().await?;
        Ok(self.target.get_or_init(|| found))
    }

    async fn find_target(&self) -> Result<Target> {
        let settings = self.learn()?;
        self.recall();
        let repository = Repository::new(storage::open(settings, &self.limits)?, self.spool());
        let asked = self.arguments.cluster;
        target::find(&self.directory, &repository, asked, self.name, &self.arguments.path, &settings.identities).await
    }

    /// Reads the settings, and what depends on them: what the leash and the answer to trouble are judged by.
    fn learn(&self) -> Result<&Settings> {
        let settings = self.settings()?;
        self.promotion.learn(settings.promote_needs_archive);
        self.lately.set(self.notes().in_trouble_lately(SystemTime::now()));
        self.look();
        // What comes next may hang: the data directory as well as the spool.
        self.note_promotion();
        self.allow(0);
        Ok(settings)
    }

    fn settings(&self) -> Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let read = Settings::from_process(self.arguments.config.as_deref())?;
        Ok(self.settings.get_or_init(|| read))
    }

    /// The spool that is set, or the default one; also where the settings cannot be read, because the notes matter then too.
    fn spool(&self) -> Option<Spool> {
        let find = |setting| Spool::find(setting, Some(self.directory.path())).unwrap_or_default();
        match self.settings.get() {
            Some(settings) => self.spool.get_or_init(|| find(settings.spool.as_deref())).clone(),
            None => find(None),
        }
    }

    fn notes(&self) -> &Notes {
        self.notes.get_or_init(|| Notes::new(self.spool(), self.directory.path()))
    }

    /// Looks at what the server is doing.
    fn look(&self) -> RecoveryMode {
        let mode = mode::detect(self.directory.path(), &self.arguments.path, self.promotion.needs_archive());
        if matches!(mode, RecoveryMode::Promoting { .. }) && self.promoted.get().is_none() {
            self.promoted.set(Some(Instant::now()));
        }
        self.mode.set(mode);
        mode
    }

    /// What is left of the patience that the mode allows.
    fn left(&self) -> Duration {
        let patience = self.settings.get().map_or(Patience::DEFAULT, Patience::of);
        let from = match self.mode.get() {
            RecoveryMode::Promoting { .. } => self.promoted.get().unwrap_or(self.begun),
            RecoveryMode::Recovery | RecoveryMode::Standby | RecoveryMode::Ending => self.begun,
        };
        let end = from + patience.limit(self.mode.get(), self.lately.get());
        end.saturating_duration_since(Instant::now())
    }

    /// Sets the bounds of what follows, in which up to `bytes` bytes flow, and the leash behind them.
    fn allow(&self, bytes: u64) {
        let now = Instant::now();
        let left = self.left();
        self.limits.change(|bounds| *bounds = patience::attempt(now, left, bytes));
        self.leash.set((now + left + patience::by_size(self.bytes()) + LAST_WORDS).into_std());
    }

    fn bytes(&self) -> u64 {
        match self.name {
            WalFileName::History(_) | WalFileName::BackupHistory { .. } => 0,
            WalFileName::Segment(_) | WalFileName::Partial(_) => {
                let wanted = self.target.get().map(|target| target.wanted.segment_size);
                wanted.or_else(|| self.ahead.get().map(Ahead::segment_size)).map_or(0, SegmentSize::bytes)
            }
        }
    }

    /// Looks at the server each second while an attempt runs: where the mode changes, so do the limits. Ends when an attempt has
    /// outlived its deadline.
    async fn watch(&self) -> Outcome {
        loop {
            let before = self.mode.get();
            if self.look() != before {
                self.allow(self.bytes());
            }
            let end = self.limits.now().deadline.map(|deadline| deadline + LAST_WORDS);
            let now = Instant::now();
            match end {
                Some(end) if end <= now => return Outcome::Trouble(overdue()),
                _ => tokio::time::sleep_until(end.map_or(now + GLANCE, |end| end.min(now + GLANCE))).await,
            }
        }
    }

    /// Pauses, as long as the mode has patience for another attempt behind it. `false`: it has none.
    async fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause.min(self.left() / 2);
        loop {
            self.look();
            if self.left() < NOTHING_LEFT {
                return false;
            }
            let now = Instant::now();
            if until <= now {
                return true;
            }
            tokio::time::sleep_until(until.min(now + GLANCE)).await;
        }
    }
}

/// What an attempt that hangs is given up with.
pub(super) fn overdue() -> Error {
    Error::new(ErrorKind::Unavailable, "it is not done after the time allowed")
        .hint("a file or the storage does not answer (WALHALLA_RESTORE_TIMEOUT is the limit in a recovery)")
}
