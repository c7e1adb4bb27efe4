//! Working ahead: while a backlog exists, one call of `walhalla-archive` stores further `.ready` files beside its own, and leaves
//! a marker in the spool for each that is durable. The call that Postgres then makes for such a file is answered from its marker.
//!
//! | file | subject |
//! |---|---|
//! | `backlog` | which files wait, and which of them may go before their turn |
//! | `budget` | how many at once: requests, processors, memory |
//! | `marker`, `markers` | what one call leaves for the next |
//! | `answer` | a call that finds its marker |
//!
//! What goes ahead can never harm: it is stored by the same function as every file, create-only, after the same checks; it may be
//! given up at any moment; its failure is nobody's but its own, in its own turn.
//!
//! And it goes only where this server is the one that writes this timeline. Two servers promoted at one place, a data directory put
//! back behind its archive, or a clone that drains the same backlog, differ from what is stored from some segment on: that one is
//! refused, and so nothing behind it ever comes. Would it have gone ahead, it would lie under a name that the right server needs.
//! So files are made ready beside the call's own segment, and sent once that was stored anew. Whoever finds anything under a name,
//! its own segment's or one ahead, is not the first there: it sends no more, and goes one by one for ten minutes. What this server
//! itself may have left there, by a call that was killed, is in a note (`sending`): that is no sign of another.
//!
//! This is no lock. What remains: of the few files under way at once, one is lost or late, and another server that comes behind,
//! one by one, takes its name just where the two begin to differ; and a storage that loses what it acknowledged, as an
//! asynchronous copy of a volume does, calls a name new twice.

mod answer;
mod backlog;
mod budget;
mod marker;
mod markers;

pub(super) use answer::{Word, is_confirmed, word};
pub(super) use markers::Markers;

use super::data_directory::DataDirectory;
use super::encode::encode;
use super::patience::Ahead as Patience;
use super::source::Source;
use crate::codec::Encoded;
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::repo::{Cluster, ClusterIdentity, Deposited, Stored};
use backlog::Backlog;
use budget::{Budget, Share};
use marker::{Marker, seconds};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{OnceCell, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How often it is looked whether the server is stopping.
const GLANCE: Duration = Duration::from_secs(1);

/// Everything that going ahead needs to know.
#[derive(Debug)]
pub(super) struct Task {
    /// The call's own file.
    pub(super) own: WalFileName,
    pub(super) directory: DataDirectory,
    pub(super) identity: ClusterIdentity,
    pub(super) settings: Settings,
    /// The cluster, through a storage that tries everything once.
    pub(super) cluster: Cluster,
    pub(super) markers: Markers,
    /// Until when it may go on.
    pub(super) patience: Patience,
}

/// How far the call's own segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    UnderWay,
    /// Its processor is free.
    Encoded,
    /// Stored by this call: nobody else had it.
    Stored,
}

/// Files under way ahead of their turn. Dropped, they are given up.
#[derive(Debug)]
pub(super) struct Ahead {
    work: JoinHandle<()>,
    own: watch::Sender<Own>,
    shared: Arc<Shared>,
}

/// Begins to work ahead, where that makes sense, and returns at once. The cluster's identity must have been looked after.
pub(super) fn begin(task: Task) -> Option<Ahead> {
    // Nothing goes beside a history: what is behind it may not be stored before it. Nor does it say who has the timeline, as little
    // as what may lie beside another's of its name.
    let alone = task.own.segment().is_none() || task.settings.concurrency < 2;
    if alone || task.directory.server_is_stopping().is_some() || task.markers.goes_alone(SystemTime::now()) {
        return None;
    }
    let (own, watch) = watch::channel(Own::UnderWay);
    let shared = Arc::new(Shared {
        task,
        plan: OnceLock::new(),
        enough: AtomicBool::new(false),
        sending: AtomicUsize::new(0),
        noted: OnceCell::new(),
        failures: Mutex::default(),
        own: watch,
    });
    Some(Ahead { work: tokio::spawn(work(Arc::clone(&shared))), own, shared })
}

impl Ahead {
    /// The call's own file is compressed: its processor is free.
    pub(super) fn own_is_encoded(&self) {
        self.own.send_replace(Own::Encoded);
    }

    /// The call's own segment was stored so. Where it is new, waits until what is under way has ended, or was given up; else gives
    /// it up. What the operator should know, if anything.
    pub(super) async fn end(mut self, own: &Deposited) -> Option<String> {
        if *own == Deposited::New {
            self.own.send_replace(Own::Stored);
            // A panic of it is none of the call's.
            (&mut self.work).await.unwrap_or(());
        } else {
            // Nothing was sent yet.
            self.work.abort();
            (&mut self.work).await.unwrap_or(());
            self.shared.own_was_there(own);
        }
        said(&self.shared.failures())
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// What the uploads of one call share.
#[derive(Debug)]
struct Shared {
    task: Task,
    plan: OnceLock<Plan>,
    /// No further file is begun.
    enough: AtomicBool,
    /// How many are under way to the storage.
    sending: AtomicUsize,
    /// Set once the note says what this call sends.
    noted: OnceCell<()>,
    failures: Mutex<Vec<Error>>,
    own: watch::Receiver<Own>,
}

/// What one call sends ahead.
#[derive(Debug)]
struct Plan {
    files: Vec<WalFileName>,
    /// Files that calls before this one may have left in the storage without a marker.
    left: HashSet<WalFileName>,
}

/// How a file ahead ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It is stored, or was never sent.
    Known,
    /// Its own turn tells.
    Unknown,
    /// Another server's, so it seems, was there.
    Met,
}

/// Works until all is done, or it is time to give up; what is under way is then dropped.
async fn work(shared: Arc<Shared>) {
    tokio::select! {
        () = uploads(&shared) => {}
        () = time_is_up(&shared) => {}
    }
}

async fn uploads(shared: &Arc<Shared>) {
    let Some(budget) = make_ready(shared).await else { return };
    let (budget, mut own) = (Arc::new(budget), shared.own.clone());
    let mut uploads = JoinSet::new();
    for name in shared.plan.get().into_iter().flat_map(|plan| &plan.files) {
        uploads.spawn(upload(Arc::clone(shared), Arc::clone(&budget), *name));
    }
    // The news may have come before: then it is none.
    let mut own_is_encoded = *own.borrow_and_update() != Own::UnderWay;
    if own_is_encoded {
        budget.own_is_encoded();
    }
    let mut all_known = true;
    loop {
        tokio::select! {
            ended = uploads.join_next() => match ended {
                None => break,
                Some(Ok(End::Known)) => {}
                // What is under way beside it is given up, and from now on each file is looked at in its own turn.
                Some(Ok(End::Met)) => {
                    shared.task.markers.note_alone(SystemTime::now());
                    return shared.note_ended(true);
                }
                Some(Ok(End::Unknown) | Err(_)) => all_known = false,
            },
            Ok(()) = own.changed(), if !own_is_encoded => {
                own_is_encoded = true;
                budget.own_is_encoded();
            }
        }
    }
    if all_known && *shared.own.borrow() == Own::Stored {
        shared.note_ended(true);
    }
}

/// Chooses the files, and notes the call's own. `None`: none should go.
async fn make_ready(shared: &Arc<Shared>) -> Option<Budget> {
    let task = &shared.task;
    let reads_back = budget::reads_back(&task.cluster).await.ok()??;
    let (requests, size, level) =
        (task.settings.concurrency - 1, task.identity.wal_segment_size, task.settings.compression_level);
    let budget = Budget::new(requests, size, level, reads_back)?;
    let chosen = Arc::clone(shared);
    let plan = tokio::task::spawn_blocking(move || choose(&chosen.task)).await.ok()?.ok()?;
    if plan.files.is_empty() {
        return None;
    }
    let mut noted = plan.left.clone();
    noted.insert(task.own);
    task.markers.note_sending(&noted).ok()?;
    shared.plan.set(plan).ok()?;
    Some(budget)
}

/// Ends when nothing more should be waited for.
async fn time_is_up(shared: &Shared) {
    let stopping = async {
        let mut glances = tokio::time::interval(GLANCE);
        while shared.task.directory.server_is_stopping().is_none() {
            glances.tick().await;
        }
    };
    let over = async {
        if !shared.own_is_stored().await {
            return;
        }
        let (begin, end) = shared.task.patience.from(Instant::now());
        tokio::time::sleep_until(begin).await;
        shared.enough.store(true, Ordering::Relaxed);
        tokio::time::sleep_until(end).await;
        if shared.sending.load(Ordering::Relaxed) > 0 {
            shared.task.markers.note_alone(SystemTime::now());
        }
    };
    tokio::select! {
        () = stopping => {}
        () = over => {}
    }
}

/// The files to go ahead, in Postgres' order; markers that nobody will ask for are removed on the way.
fn choose(task: &Task) -> Result<Plan> {
    let marked = task.markers.names();
    let limit = task.settings.concurrency - 1;
    let backlog: Backlog = backlog::read(task.directory.path(), &task.own, &marked, limit)?;
    let unused: HashSet<_> = marked.iter().filter(|name| **name != task.own).copied().collect();
    task.markers.tidy(&unused, &backlog.waiting, SystemTime::now());
    let mut files = backlog::allowed(task.directory.path(), &backlog);
    files.retain(|name| name.timeline() == task.own.timeline());
    let mut left = task.markers.sending();
    left.retain(|name| *name == task.own || backlog::waits(task.directory.path(), name));
    // Those first, by themselves: that they are there tells nothing, and so nothing new goes beside them.
    if files.iter().any(|name| left.contains(name)) {
        files.retain(|name| left.contains(name));
    }
    if !files.is_empty() && !task.markers.have_room() {
        files.clear();
    }
    Ok(Plan { files, left })
}

impl Shared {
    /// Waits until the call's own segment was stored. `false`: it was not.
    async fn own_is_stored(&self) -> bool {
        self.own.clone().wait_for(|own| *own == Own::Stored).await.is_ok()
    }

    /// The call's own segment was in the storage, and not by a call of ours that nobody heard the end of: somebody else writes this
    /// timeline. It is looked at anew by the first call after the ten minutes.
    fn own_was_there(&self, own: &Deposited) {
        let Some(plan) = self.plan.get() else { return };
        if *own == Deposited::Already && !plan.left.contains(&self.task.own) {
            self.task.markers.note_alone(SystemTime::now());
        }
        self.note_ended(false);
    }

    /// Strikes the call's own file off the note of what is under way, and those ahead too if they have ended (`all`).
    fn note_ended(&self, all: bool) {
        let Some(plan) = self.plan.get() else { return };
        let mut left = plan.left.clone();
        left.remove(&self.task.own);
        if all {
            left.retain(|name| !plan.files.contains(name));
        }
        // Names too many cost a look at each.
        self.task.markers.note_sending(&left).unwrap_or(());
    }

    /// Notes all that this call sends.
    fn note_sending(&self) -> Result<()> {
        let Some(plan) = self.plan.get() else { return Ok(()) };
        let mut names = plan.left.clone();
        names.extend(&plan.files);
        self.task.markers.note_sending(&names)
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<Error>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores one file and leaves its marker.
async fn upload(shared: Arc<Shared>, budget: Arc<Budget>, name: WalFileName) -> End {
    let Ok(mut share) = budget.share().await else { return End::Known };
    if shared.enough.load(Ordering::Relaxed) {
        return End::Known;
    }
    let end = store(&shared, &mut share, name).await;
    if !matches!(end, Ok(End::Known)) {
        shared.enough.store(true, Ordering::Relaxed);
    }
    match end {
        Ok(end) => end,
        // Other content, under a name that a call of ours noted.
        Err(error) if error.kind() == ErrorKind::Duplicate => End::Met,
        // Its own turn will say so, and be refused.
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch) => End::Unknown,
        Err(error) => {
            shared.failures().push(error);
            End::Unknown
        }
    }
}

async fn store(shared: &Shared, share: &mut Share, name: WalFileName) -> Result<End> {
    let task = &shared.task;
    let path = task.directory.wal(&name);
    // Gone, too short, another's: whatever it is, its own turn says so.
    let Ok(source) = Source::open(&path, &task.identity) else { return Ok(End::Known) };
    // Several files keep the processors busy by themselves.
    let object = encode(source, &task.settings, 1).await?;
    share.settle_for(&object);
    if !shared.own_is_stored().await {
        return Ok(End::Known);
    }
    shared.noted.get_or_try_init(async || shared.note_sending()).await?;
    let asked = seconds(SystemTime::now());
    let Some(Stored { deposited, receipt }) = send(shared, &name, &object).await? else { return Ok(End::Met) };
    if matches!(deposited, Deposited::New | Deposited::Already) {
        // What was replaced, or lies beside another, is worth a word: in its own turn, which finds it without a marker.
        task.markers.write(&Marker { name, hash: object.header.plain_hash, receipt, confirmed: asked })?;
    }
    Ok(End::Known)
}

/// Sends one file. `None`: something was there.
async fn send(shared: &Shared, name: &WalFileName, object: &Encoded) -> Result<Option<Stored>> {
    let _one = Sending::of(&shared.sending);
    let cluster = &shared.task.cluster;
    // What a call of ours may have left there is read back, as in its own turn.
    match shared.plan.get().is_some_and(|plan| plan.left.contains(name)) {
        true => cluster.deposit_wal(name, object).await.map(Some),
        false => cluster.deposit_wal_ahead(name, object).await,
    }
}

/// One of those under way, until it is dropped.
struct Sending<'a>(&'a AtomicUsize);

impl<'a> Sending<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One text about all that went wrong.
fn said(failures: &[Error]) -> Option<String> {
    let first = failures.first()?;
    let others = match failures.len() {
        1 => String::new(),
        more => format!(" (and {} more)", more - 1),
    };
    Some(format!("working ahead stopped, and each file will have its own turn: {first}{others}"))
}
