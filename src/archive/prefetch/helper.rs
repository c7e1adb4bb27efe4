//! The helper: a process of its own that fetches beside replay, as long as calls take what it fetches.
//!
//! It is started by a call and left alone. It has a session of its own, nothing of its caller's open, `/` as its directory; it
//! says nothing, and ends with status 0 in whatever way it ends: where Postgres is process 1, it adopts orphans, and takes one
//! that ends badly for a crash of its own.

use super::place::{Announced, Bound, Place, Position};
use super::source::{Fetched, Source};
use super::{How, plan};
use crate::archive::data_directory::DataDirectory;
use crate::archive::patience;
use crate::archive::program::{self, Leash};
use crate::archive::startup::StartupProcess;
use crate::config::Settings;
use crate::exit;
use crate::pg::{SegmentName, SegmentSize, TimelineHistory, TimelineId};
use crate::repo::Repository;
use crate::spool::Spool;
use crate::storage::{self, Bounds, Limits};
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The first word of a helper's command line.
pub(in crate::archive) const HELPER: &str = "--prefetch-for";

/// How often a helper looks where replay is: while it moves, and after a while without.
const GLANCE: Duration = Duration::from_millis(10);
const LAZY_GLANCE: Duration = Duration::from_millis(100);
const WHILE: Duration = Duration::from_secs(2);
/// How often it looks whether its server is there.
const ROUND: Duration = Duration::from_millis(250);
/// Without a step of replay for this long, and half a second more for each MiB of a segment, it ends.
const IDLE: Duration = Duration::from_secs(10);
/// Without progress for this long it gives a file up: its own call may wait for it meanwhile.
const STALL: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(60);
/// What an object that has come may take to be written, and half a second more for each 8 MiB: for so long it counts as coming on.
const WRITING: Duration = Duration::from_secs(5);
/// For how long it asks for a history, and when again for one that it did not get.
const HISTORY: Duration = Duration::from_secs(20);
const NO_HISTORY: Duration = Duration::from_secs(5);
/// For how long it rests after trouble, at first and at most.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(16);
/// When a segment that was missing may be asked for again, and one that was useless.
const MISSING: Duration = Duration::from_secs(1);
const USELESS: Duration = Duration::from_secs(3600);
/// A turn of its loop that takes longer than this hangs.
const HANGING: Duration = Duration::from_secs(60);

/// For whom a helper works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// The data directory's real path.
    pub(super) directory: PathBuf,
    /// Its postmaster's process id.
    pub(super) postmaster: u32,
    pub(super) startup: StartupProcess,
}

impl Server {
    /// Whether this recovery goes on.
    fn is_there(&self) -> bool {
        let postmaster = DataDirectory::at(&self.directory).postmaster();
        postmaster.is_some_and(|found| found.pid == self.postmaster && !found.is_stopping()) && self.startup.is_alive()
    }

    /// Waits until it does not.
    async fn is_gone(&self) {
        while self.is_there() {
            tokio::time::sleep(ROUND).await;
        }
    }

    fn words(&self) -> [OsString; 3] {
        [self.directory.clone().into(), self.postmaster.to_string().into(), self.startup.to_string().into()]
    }

    fn parse(words: &[OsString]) -> Option<Self> {
        let [directory, postmaster, startup] = words else { return None };
        let directory = PathBuf::from(directory);
        Some(Self {
            directory,
            postmaster: postmaster.to_str()?.parse().ok()?,
            startup: startup.to_str()?.parse().ok()?,
        })
    }
}

/// Starts a helper, if that can be: without one every call fetches its own file. `/proc/self/exe` is this very program, whatever
/// PATH says and whatever has become of its file.
///
/// Nobody waits for it: this call ends at once, and the helper is then the child of whoever adopts orphans. It begins with its
/// signals blocked, which the standard library's `Command` cannot do: one that came before it has let go of its caller would end
/// it by a signal.
pub(super) fn start(server: &Server, config: Option<&Path>) {
    let mut words = vec![OsString::from(super::super::fetch::PROGRAM), HELPER.into()];
    words.extend(server.words());
    words.extend(config.and_then(|config| std::path::absolute(config).ok()).map(OsString::from));
    let environment = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    spawn(&texts(words), &texts(environment)).map(drop).unwrap_or(());
}

fn spawn(words: &[CString], environment: &[CString]) -> nix::Result<Pid> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigmask(&signals())?;
    let mut files = PosixSpawnFileActions::init()?;
    for number in 0..=2 {
        files.add_open(number, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    posix_spawn("/proc/self/exe", &files, &attributes, words, environment)
}

/// What holds a zero byte cannot have come from a command line or an environment.
fn texts(words: impl IntoIterator<Item = OsString>) -> Vec<CString> {
    words.into_iter().filter_map(|word| CString::new(word.into_encoded_bytes()).ok()).collect()
}

/// The whole helper, from the words behind [`HELPER`] to its exit status.
pub(in crate::archive) fn run(words: &[OsString]) -> u8 {
    let stop = Arc::new(Notify::new());
    detach();
    let (server, config) = words.split_at(words.len().min(3));
    let (Some(server), true) = (Server::parse(server), end_by_signal(&stop)) else { return exit::SUCCESS };
    let config = config.first().map(PathBuf::from);
    program::supervise(HANGING, move |leash| async move {
        let opened = tokio::select! {
            () = stop.notified() => return,
            opened = Helper::open(server, config.as_deref()) => opened,
        };
        let Some(mut helper) = opened else { return };
        tokio::select! {
            () = stop.notified() => {}
            () = work(&mut helper, leash) => {}
        }
        helper.end().await;
    });
    exit::SUCCESS
}

/// Lets go of the caller: its session, its directory, its files. What fails here fails without harm.
fn detach() {
    signals().thread_block().unwrap_or(());
    std::env::set_current_dir("/").unwrap_or(());
    rustix::process::setsid().map(drop).unwrap_or(());
    let listed = std::fs::read_dir("/proc/self/fd").map(|entries| {
        let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers.filter(|number| *number > 2).collect::<Vec<_>>()
    });
    for number in listed.unwrap_or_default() {
        nix::unistd::close(number).unwrap_or(());
    }
    // Started by that name, it is called "exe" otherwise.
    std::fs::write("/proc/self/comm", "walhalla-ahead").unwrap_or(());
}

/// Those that would end it with a status other than 0.
fn signals() -> SigSet {
    let all = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
    all.into_iter().collect()
}

/// From now on a signal is a request to end. `false`: it cannot be heard.
fn end_by_signal(stop: &Arc<Notify>) -> bool {
    let stop = Arc::clone(stop);
    let listen = move || {
        let _heard = signals().wait();
        stop.notify_one();
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).is_ok()
}

async fn work(helper: &mut Helper, leash: Leash) {
    while helper.turn().await {
        leash.set((Instant::now() + HANGING).into_std());
        helper.pause().await;
    }
}

#[derive(Debug)]
struct Helper {
    server: Server,
    source: Arc<Source>,
    limits: Limits,
    concurrency: usize,
    /// Held as long as it lives.
    _lock: std::fs::File,
    position: Position,
    /// When replay came there.
    moved: Instant,
    /// When the server was last looked at.
    looked: Instant,
    history: Option<TimelineHistory>,
    /// The history that could not be had, and until when it is not asked for again.
    unread: Option<(TimelineId, Instant)>,
    /// What is to lie ahead, oldest first.
    plan: Vec<SegmentName>,
    /// `None`: its call has given up waiting, and fetches it itself.
    running: JoinSet<(SegmentName, Option<Fetched>)>,
    coming: BTreeSet<SegmentName>,
    /// What is or was ahead, or is fetched by its own call. What is gone of it was taken, though no call may have said so yet.
    served: BTreeSet<SegmentName>,
    /// What is not asked for until then.
    left: BTreeMap<SegmentName, Instant>,
    /// Nothing is asked for until then, and how long it rests the next time.
    resting: Instant,
    rest: Duration,
    found: usize,
}

impl Helper {
    /// `None` where there is nothing to do: another helper is at work, or this one could not.
    async fn open(server: Server, config: Option<&Path>) -> Option<Self> {
        let settings = Settings::from_process(config).ok()?;
        let directory = DataDirectory::at(&server.directory);
        let control = directory.control().await.ok()??;
        let (system, size) = (control.system_identifier, control.wal_segment_size);
        let spool = Spool::find(settings.spool.as_deref(), Some(&server.directory)).ok()??;
        let bound = Bound { settings: &settings, system, size, data_directory: &server.directory };
        let place = Place::of(spool.clone(), &server.startup, &bound)?;
        let lock = lock(&place).await?;
        let position = place.position()?;
        let limits = Limits::new(bounds(size));
        let storage = storage::open(&settings, &limits).ok()?;
        let cluster = Repository::new(storage, Some(spool)).cluster(system);
        let now = Instant::now();
        let source = Source { cluster, identities: settings.identities, size, place, directory };
        let mut helper = Self {
            server,
            source: Arc::new(source),
            limits,
            concurrency: settings.concurrency,
            _lock: lock,
            position,
            moved: now,
            looked: now,
            history: None,
            unread: None,
            plan: Vec::new(),
            running: JoinSet::new(),
            coming: BTreeSet::new(),
            served: BTreeSet::new(),
            left: BTreeMap::new(),
            resting: now,
            rest: REST,
            found: 0,
        };
        helper.plan().await;
        // What one that was killed left behind is whole, or a temporary file.
        helper.place().keep_only(&helper.plan, false);
        // It may take a while, and nobody waits for it.
        let place = helper.place().clone();
        drop(tokio::task::spawn_blocking(move || place.sweep()));
        Some(helper)
    }

    /// What lies ahead is left to the next helper, where there may be one: replay that is slow, or waits, outlives many.
    async fn end(mut self) {
        self.running.shutdown().await;
        if self.server.is_there() {
            self.place().keep_only(&self.plan, false);
        } else {
            self.place().remove();
        }
    }

    fn place(&self) -> &Place {
        &self.source.place
    }

    /// Looks around and begins what can be begun. `false`: there is no more to do.
    async fn turn(&mut self) -> bool {
        let now = Instant::now();
        if now - self.looked >= ROUND {
            self.looked = now;
            if !self.server.is_there() {
                return false;
            }
        }
        // None: the calls have other settings now.
        let Some(position) = self.place().position() else { return false };
        if position != self.position {
            self.position = position;
            self.moved = now;
            self.plan().await;
        } else if now - self.moved > IDLE + patience::by_size(self.source.size.bytes()) / 2 {
            return false;
        }
        self.begin(now);
        !self.is_at_the_end()
    }

    /// Decides anew what shall lie ahead, and drops what shall not.
    async fn plan(&mut self) {
        let newest = self.place().newest_history().filter(|newest| *newest > self.position.name.timeline());
        if newest != self.history.as_ref().map(|history| history.timeline) {
            self.history = match newest {
                Some(newest) => self.history_of(newest).await,
                None => None,
            };
        }
        let (position, count) = (self.position.name, plan::beside(self.source.size));
        self.plan = self.source.after(position, self.history.as_ref(), count);
        self.place().keep_only(&self.plan, true);
        self.left.retain(|name, _| self.plan.contains(name));
        self.served.retain(|name| self.plan.contains(name));
    }

    async fn history_of(&mut self, timeline: TimelineId) -> Option<TimelineHistory> {
        if self.unread.is_some_and(|(unread, until)| unread == timeline && Instant::now() < until) {
            return None;
        }
        let history = tokio::select! {
            history = self.source.history(timeline) => history,
            () = self.server.is_gone() => None,
            () = tokio::time::sleep(HISTORY) => None,
        };
        self.unread = history.is_none().then(|| (timeline, Instant::now() + NO_HISTORY));
        history
    }

    fn begin(&mut self, now: Instant) {
        // One at first: where the archive ends here, no more is asked.
        let at_once = plan::at_once(self.source.size, self.concurrency).min(self.found + 1);
        if now < self.resting {
            return;
        }
        for name in self.plan.clone() {
            if self.coming.len() >= at_once {
                return;
            }
            // Replay cannot pass it: what lies behind it has time.
            if self.left.get(&name).is_some_and(|until| now < *until || self.moved < *until - MISSING) {
                return;
            }
            if self.place().holds(name) {
                self.served.insert(name);
            }
            if self.coming.contains(&name) || self.served.contains(&name) {
                continue;
            }
            if !self.place().has_room(self.coming.len()) {
                return self.rest(now);
            }
            self.coming.insert(name);
            let (announced, source) = (self.place().announce(name), Arc::clone(&self.source));
            let limits = self.limits.clone();
            self.running.spawn(async move { (name, fetch(&source, name, &announced, &limits).await) });
        }
    }

    /// Waits for the next that has come, but not for long.
    async fn pause(&mut self) {
        let glance = if self.moved.elapsed() < WHILE { GLANCE } else { LAZY_GLANCE };
        let ended = tokio::select! {
            Some(ended) = self.running.join_next() => ended,
            () = tokio::time::sleep(glance) => return,
        };
        let now = Instant::now();
        // A task that broke has told no name: it is not asked for again.
        let Ok((name, fetched)) = ended else { return self.rest(now) };
        self.coming.remove(&name);
        if matches!(fetched, Some(Fetched::There) | None) {
            self.served.insert(name);
        }
        let Some(fetched) = fetched else { return };
        match fetched {
            Fetched::There => {
                self.found += 1;
                self.rest = REST;
                if !self.plan.contains(&name) {
                    self.place().keep_only(&self.plan, true);
                }
            }
            Fetched::Missing => drop(self.left.insert(name, now + MISSING)),
            Fetched::Useless => drop(self.left.insert(name, now + USELESS)),
            Fetched::Trouble => self.rest(now),
        }
    }

    fn rest(&mut self, now: Instant) {
        self.resting = now + self.rest;
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }

    /// Whether the archive has no more, and everything that it had is taken.
    fn is_at_the_end(&self) -> bool {
        let is_missing = |name: &SegmentName| self.left.contains_key(name);
        self.coming.is_empty()
            && self.plan.first().is_none_or(is_missing)
            && !self.plan.iter().any(|name| self.place().holds(*name))
    }
}

/// One segment; `None` where its announcement was withdrawn meanwhile.
async fn fetch(source: &Source, name: SegmentName, announced: &Announced, limits: &Limits) -> Option<Fetched> {
    let longest = WRITING + patience::by_size(source.size.bytes()) / 16;
    let come = OnceLock::new();
    let moves = || come.get().map_or_else(|| limits.last_moved(), |come| Instant::now().min(*come + longest));
    tokio::select! {
        fetched = source.fetch_noting(name, || come.set(Instant::now()).unwrap_or(())) => Some(fetched),
        () = announced.withdrawn(moves) => None,
    }
}

/// A call that looks whether there is a helper holds the lock for a moment.
async fn lock(place: &Place) -> Option<std::fs::File> {
    for _ in 0..5 {
        if let Some(lock) = place.lock() {
            place.remove_announced();
            return Some(lock);
        }
        tokio::time::sleep(GLANCE).await;
    }
    None
}

fn bounds(size: SegmentSize) -> Bounds {
    let request = REQUEST + patience::by_size(size.bytes());
    Bounds { deadline: None, stall: STALL, idle: None, request, connect: STALL, attempts: 1 }
}

/// Whether these are a helper's words; answers those behind the first.
pub(in crate::archive) fn words_of_helper(words: &[OsString]) -> Option<&[OsString]> {
    words.split_first().filter(|(first, _)| *first == OsStr::new(HELPER)).map(|(_, rest)| rest)
}

impl How {
    /// What `auto` means below a postmaster with this process id.
    pub(super) fn by_itself(postmaster: u32) -> Self {
        if postmaster == 1 { Self::Together } else { Self::Beside }
    }
}
