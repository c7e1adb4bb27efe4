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
//! And it goes only where this server is the one that writes this timeline. Two servers promoted at one place, or a data directory
//! put back behind its archive, differ from what is stored from some segment on: that one is refused, and so nothing behind it ever
//! comes. Would it have gone ahead, it would lie under a name that the right server needs. So files are made ready beside the
//! call's own segment, and sent once that was stored anew: whoever stores a segment first has the timeline.

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
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::WalFileName;
use crate::repo::{Cluster, ClusterIdentity, Deposited, Stored};
use backlog::Backlog;
use budget::{Budget, Share};
use marker::{Marker, seconds};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
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
    work: JoinHandle<Option<String>>,
    own: watch::Sender<Own>,
}

/// Begins to work ahead, where that makes sense, and returns at once. The cluster's identity must have been looked after.
pub(super) fn begin(task: Task) -> Option<Ahead> {
    // Nothing goes beside a history: what is behind it may not be stored before it. Nor does it say who has the timeline, as little
    // as what may lie beside another's of its name.
    let alone = task.own.segment().is_none() || task.settings.concurrency < 2;
    if alone || task.directory.server_is_stopping().is_some() || task.markers.was_slow(SystemTime::now()) {
        return None;
    }
    let (own, watch) = watch::channel(Own::UnderWay);
    Some(Ahead { work: tokio::spawn(work(task, watch)), own })
}

impl Ahead {
    /// The call's own file is compressed: its processor is free.
    pub(super) fn own_is_encoded(&self) {
        self.own.send_replace(Own::Encoded);
    }

    /// The call's own segment was stored so. Where it is new, waits until what is under way has ended, or was given up; else gives
    /// it up. What the operator should know, if anything.
    pub(super) async fn end(mut self, own: &Deposited) -> Option<String> {
        if *own != Deposited::New {
            return None;
        }
        self.own.send_replace(Own::Stored);
        (&mut self.work).await.ok().flatten()
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
    budget: Budget,
    /// No further file is begun.
    enough: AtomicBool,
    own: watch::Receiver<Own>,
}

async fn work(task: Task, mut own: watch::Receiver<Own>) -> Option<String> {
    let reads_back = budget::reads_back(&task.cluster).await.ok()?;
    let (requests, size, level) =
        (task.settings.concurrency - 1, task.identity.wal_segment_size, task.settings.compression_level);
    let budget = Budget::new(requests, size, level, reads_back)?;
    let (task, files) = tokio::task::spawn_blocking(move || {
        let files = choose(&task);
        (task, files)
    })
    .await
    .ok()?;
    let mut uploads = JoinSet::new();
    let shared = Arc::new(Shared { task, budget, enough: AtomicBool::new(false), own: own.clone() });
    for name in files.unwrap_or_default() {
        uploads.spawn(upload(Arc::clone(&shared), name));
    }
    let mut own_is_encoded = false;
    let mut failures = Vec::new();
    loop {
        let next_look = shared.task.patience.next(Instant::now(), GLANCE);
        tokio::select! {
            ended = uploads.join_next() => match ended {
                None => break,
                Some(Ok(Err(error))) => failures.push(error),
                Some(Ok(Ok(()))) | Some(Err(_)) => {}
            },
            Ok(()) = own.changed(), if !own_is_encoded => {
                own_is_encoded = true;
                shared.budget.own_is_encoded();
            }
            () = tokio::time::sleep_until(next_look) => {
                if shared.give_up() {
                    break;
                }
            }
        }
    }
    said(&failures)
}

/// The files to go ahead, in Postgres' order; markers that nobody will ask for are removed on the way.
fn choose(task: &Task) -> Result<Vec<WalFileName>> {
    let marked = task.markers.names();
    let limit = task.settings.concurrency - 1;
    let backlog: Backlog = backlog::read(task.directory.path(), &task.own, &marked, limit)?;
    let unused: HashSet<_> = marked.iter().filter(|name| **name != task.own).copied().collect();
    task.markers.tidy(&unused, &backlog.waiting, SystemTime::now());
    let mut files = backlog::allowed(task.directory.path(), &backlog);
    files.retain(|name| name.timeline() == task.own.timeline());
    Ok(if files.is_empty() || task.markers.have_room() { files } else { Vec::new() })
}

impl Shared {
    /// Whether it is time to stop: at once, or not to begin anything more.
    fn give_up(&self) -> bool {
        let now = Instant::now();
        if now >= self.task.patience.begin {
            self.enough.store(true, Ordering::Relaxed);
        }
        if now >= self.task.patience.end {
            self.task.markers.note_slow(SystemTime::now());
            return true;
        }
        self.task.directory.server_is_stopping().is_some()
    }

    /// Waits until the call's own segment was stored. `false`: it was not.
    async fn own_is_stored(&self) -> bool {
        self.own.clone().wait_for(|own| *own == Own::Stored).await.is_ok()
    }

    fn goes_on(&self) -> bool {
        let in_time = Instant::now() < self.task.patience.begin;
        in_time && !self.enough.load(Ordering::Relaxed)
    }
}

/// Stores one file and leaves its marker. An error is one that somebody should hear of before the file's own turn.
async fn upload(shared: Arc<Shared>, name: WalFileName) -> Result<()> {
    let mut share = shared.budget.share().await?;
    let done = if shared.goes_on() { store(&shared, &mut share, name).await } else { Ok(()) };
    if done.is_err() {
        shared.enough.store(true, Ordering::Relaxed);
    }
    match done {
        // Its own turn will say so, and be refused.
        Err(error) if is_of_the_file(error.kind()) => Ok(()),
        done => done,
    }
}

/// What is wrong with the file itself, or with what lies under its name.
fn is_of_the_file(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Duplicate | ErrorKind::Corrupt | ErrorKind::Mismatch)
}

async fn store(shared: &Shared, share: &mut Share, name: WalFileName) -> Result<()> {
    let task = &shared.task;
    let path = task.directory.wal(&name);
    // Gone, too short, another's: whatever it is, its own turn says so.
    let Ok(source) = Source::open(&path, &task.identity) else { return Ok(()) };
    // Several files keep the processors busy by themselves.
    let object = encode(source, &task.settings, 1).await?;
    share.settle_for(&object);
    if !shared.own_is_stored().await {
        return Ok(());
    }
    let Stored { deposited, receipt } = task.cluster.deposit_wal(&name, &object).await?;
    if matches!(deposited, Deposited::New | Deposited::Already) {
        // What was replaced, or lies beside another, is worth a word: in its own turn, which finds it without a marker.
        let confirmed = seconds(SystemTime::now());
        task.markers.write(&Marker { name, hash: object.header.plain_hash, receipt, confirmed })?;
    }
    Ok(())
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
