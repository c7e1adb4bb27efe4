//! Carrying out a plan: objects are fetched side by side, decoded on all processors, and written to their places.

use super::finish;
use super::inventory::part_count;
use super::make::Maker;
use super::object;
use super::place::{self, UNFINISHED};
use super::plan::RestorePlan;
use super::report::{RestoreReport, next_steps};
use super::unroll::{FileTarget, Job, Step, Unroller};
use crate::error::{Error, ErrorKind, Result};
use crate::reach::source::{Source, blocking};
use crate::repo::index::Record;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Stored bytes that may be under way or waiting to be decoded, in KiB.
const BUDGET_KIB: u32 = 32 << 10;
/// More threads than this do not decode: each takes some MiB.
const MOST_THREADS: usize = 8;

/// Who is told how far it has come.
pub trait Progress: Send + Sync {
    /// So many bytes more of the backup's tar streams are written.
    fn advance(&self, bytes: u64);
    /// What is being done now.
    fn stage(&self, what: &str);
}

/// Nobody is told.
impl Progress for () {
    fn advance(&self, _bytes: u64) {}
    fn stage(&self, _what: &str) {}
}

/// Carries out a plan. When this is not Ok, the directory holds a restore that did not finish and cannot be started: there is no
/// `global/pg_control`. The directories are looked at again first; if they are no longer empty, nothing is written.
pub async fn execute(source: &Source, plan: &RestorePlan, progress: &dyn Progress) -> Result<RestoreReport> {
    let began = Instant::now();
    let maker = Maker::new(plan.owner.clone());
    prepare(plan, &maker)?;
    let done = write_everything(source, plan, &maker, progress).await;
    let (counts, finished) = done.map_err(|error| unfinished(plan, error))?;
    Ok(RestoreReport {
        plan: plan.clone(),
        files: counts.files,
        bytes: counts.bytes,
        objects: counts.objects,
        fetched: counts.fetched,
        took: began.elapsed(),
        removed_settings: finished.removed_settings,
        written: finished.written,
        next: next_steps(plan),
    })
}

fn unfinished(plan: &RestorePlan, error: Error) -> Error {
    let rest = format!(
        "{} holds a restore that did not finish; it cannot be started: remove what is in it and run again",
        plan.to.display()
    );
    let hint = match error.advice() {
        Some(advice) => format!("{advice}; {rest}"),
        None => rest,
    };
    error.hint(hint)
}

/// The directories, with a note in each that the restore has not finished.
fn prepare(plan: &RestorePlan, maker: &Maker) -> Result<()> {
    let mut directories = vec![(&plan.to, if plan.group_access { 0o750 } else { 0o700 })];
    directories.extend(plan.tablespaces.iter().filter(|t| !t.in_place).map(|t| (&t.new, 0o700)));
    for (directory, _) in &directories {
        place::must_be_empty(directory, "the target")?;
    }
    let note = format!("backup {} is being restored into {}\n", plan.backup.id, plan.to.display());
    for (directory, mode) in directories {
        maker.directory(directory, mode)?;
        maker.write(&directory.join(UNFINISHED), note.as_bytes(), 0o600)?;
    }
    Ok(())
}

async fn write_everything(
    source: &Source,
    plan: &RestorePlan,
    maker: &Maker,
    progress: &dyn Progress,
) -> Result<(Counts, finish::Finished)> {
    progress.stage("writing files");
    let (counts, links) = write_files(source, plan, maker, progress).await?;
    progress.stage("writing WAL and settings");
    finish::write_own_wal(source, plan, maker).await?;
    let finished = finish::write_settings(source, plan, maker, &links).await?;
    progress.stage("syncing");
    let plan = plan.clone();
    blocking(move || finish::make_startable(&plan)).await?;
    Ok((counts, finished))
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    files: u64,
    bytes: u64,
    objects: u64,
    fetched: u64,
}

/// What all jobs share.
struct Shared {
    source: Source,
    system: crate::pg::SystemIdentifier,
    maker: Maker,
    backup: crate::repo::BackupId,
    budget: Arc<Semaphore>,
    requests: Semaphore,
    processors: Semaphore,
    stop: AtomicBool,
}

/// Oid and target of the links in `pg_tblspc`, where the backup has no tablespace map.
type Links = Vec<(String, String)>;

async fn write_files(
    source: &Source,
    plan: &RestorePlan,
    maker: &Maker,
    progress: &dyn Progress,
) -> Result<(Counts, Links)> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let shared = Arc::new(Shared {
        source: source.clone(),
        system: plan.manifest.system_identifier,
        maker: maker.clone(),
        backup: plan.backup.id.clone(),
        budget: Arc::new(Semaphore::new(BUDGET_KIB as usize)),
        requests: Semaphore::new(source.concurrency.max(1)),
        processors: Semaphore::new(processors),
        stop: AtomicBool::new(false),
    });
    let mut jobs = JoinSet::new();
    let result = run(&shared, plan, &mut jobs, progress).await;
    // What is in a thread cannot be dropped: it is told, and waited for, so that nothing writes once this has returned.
    if result.is_err() {
        shared.stop.store(true, Ordering::Relaxed);
        jobs.abort_all();
        while jobs.join_next().await.is_some() {}
        let _all = shared.processors.acquire_many(u32::try_from(processors).unwrap_or(1)).await;
    }
    result
}

async fn run(
    shared: &Arc<Shared>,
    plan: &RestorePlan,
    jobs: &mut JoinSet<Result<(u64, u64)>>,
    progress: &dyn Progress,
) -> Result<(Counts, Links)> {
    let backup = &plan.manifest;
    let mut roots = BTreeMap::from([("base".to_owned(), plan.to.clone())]);
    roots.extend(plan.tablespaces.iter().map(|tablespace| (tablespace.oid.clone(), tablespace.new.clone())));
    let mut unroller = Unroller::new(backup, roots);
    let mut counts = Counts::default();
    let parts = part_count(backup)?;
    for number in 0..parts {
        let records = shared.source.index_part(backup, number).await?;
        let maker = shared.maker.clone();
        let (back, steps) = blocking(move || unroll(unroller, records, &maker)).await?;
        unroller = back;
        counts.files += steps.files;
        counts.bytes += steps.bytes;
        for job in steps.jobs {
            counts.objects += 1;
            counts.fetched += job.object.size;
            let permit = room_for(shared, &job, jobs, progress).await?;
            let shared = Arc::clone(shared);
            jobs.spawn(async move { one(shared, job, permit).await });
        }
    }
    unroller.end()?;
    while let Some(done) = jobs.join_next().await {
        note(done, progress)?;
    }
    Ok((counts, unroller.links))
}

#[derive(Default)]
struct Steps {
    jobs: Vec<Job>,
    files: u64,
    bytes: u64,
}

/// Makes directories and empty files at once, and gathers the jobs.
fn unroll(mut unroller: Unroller, records: Vec<Record>, maker: &Maker) -> Result<(Unroller, Steps)> {
    let mut steps = Steps::default();
    for record in records {
        if let Record::File(member) = &record {
            steps.bytes += member.size;
            steps.files += u64::from(member.kind == crate::repo::index::MemberKind::File);
        }
        match unroller.next(record)? {
            None => {}
            Some(Step::Directory(path, mode)) => maker.directory(&path, mode)?,
            Some(Step::Empty(FileTarget { path, mode, mtime, .. })) => {
                let file = maker.open(&path)?;
                maker.finish(&file, &path, mode, Some(mtime))?;
            }
            Some(Step::Job(job)) => steps.jobs.push(job),
        }
    }
    Ok((unroller, steps))
}

/// Waits until the object fits into the budget, and meanwhile for those that end: the first failure ends everything.
async fn room_for(
    shared: &Shared,
    job: &Job,
    jobs: &mut JoinSet<Result<(u64, u64)>>,
    progress: &dyn Progress,
) -> Result<OwnedSemaphorePermit> {
    // One object that is larger than the budget may still go, alone.
    let kib = u32::try_from(job.object.size.div_ceil(1024)).unwrap_or(BUDGET_KIB).clamp(1, BUDGET_KIB);
    let permit = Arc::clone(&shared.budget).acquire_many_owned(kib);
    tokio::pin!(permit);
    loop {
        tokio::select! {
            biased;
            Some(done) = jobs.join_next() => note(done, progress)?,
            permit = &mut permit => return permit.map_err(closed),
        }
    }
}

fn note(done: Result<Result<(u64, u64)>, tokio::task::JoinError>, progress: &dyn Progress) -> Result<()> {
    let (plain, _) =
        done.map_err(|error| Error::new(ErrorKind::Bug, "a task of the restore died").because(error))??;
    progress.advance(plain);
    Ok(())
}

fn closed(error: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Bug, "a semaphore was closed").because(error)
}

/// Fetches, decodes and writes one object.
async fn one(shared: Arc<Shared>, job: Job, _room: OwnedSemaphorePermit) -> Result<(u64, u64)> {
    let key = shared.source.cluster.layout().backup_data(&shared.backup, &job.archive, job.object.number);
    let stored = {
        let _request = shared.requests.acquire().await.map_err(closed)?;
        shared.source.get(&key).await?.body
    };
    let _processor = shared.processors.acquire().await.map_err(closed)?;
    let done = (job.object.plain, job.object.size);
    let worker = Arc::clone(&shared);
    blocking(move || {
        let identities = &worker.source.identities;
        object::write(&stored, &job, worker.system, identities, &worker.maker, &worker.stop).map_err(
            |error| match error.kind() {
                ErrorKind::LocalIo => error,
                _ => error.context(&key),
            },
        )
    })
    .await?;
    Ok(done)
}
