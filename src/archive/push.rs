//! `walhalla-archive`: one WAL file, proven to be stored.

use super::arguments::{self, ArchiveArguments, Asked};
use super::data_directory::DataDirectory;
use super::patience;
use super::program::{self, Ended, Leash};
use super::source::{self, Source};
use crate::codec::{self, Encoded, Encoding};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::exit;
use crate::repo::{ClusterIdentity, Deposited, Repository};
use crate::spool::Spool;
use crate::storage::{self, Limits};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const PROGRAM: &str = "walhalla-archive";

/// How long what comes before the storage may take: a handful of small local files.
const BEFORE_STORAGE: Duration = Duration::from_secs(20);
/// How often a running call looks whether its server is stopping.
const GLANCE: Duration = Duration::from_secs(1);
/// How long behind the deadline the storage's own error, which says more, is waited for.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The whole program: from its arguments (its own name left out) to the exit status. At most one line is printed.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    program::one_line_panics(PROGRAM);
    let arguments = match arguments::archive(words) {
        Ok(Asked::Work(arguments)) => arguments,
        Ok(Asked::Help) => {
            program::show(arguments::ARCHIVE_HELP);
            return exit::SUCCESS;
        }
        Ok(Asked::Version) => {
            program::show(&program::version(PROGRAM));
            return exit::SUCCESS;
        }
        Err(error) => {
            program::say(PROGRAM, &error.to_string());
            return exit::USAGE;
        }
    };
    let shown = arguments.path.display().to_string();
    match program::supervise(BEFORE_STORAGE, move |leash| async move { push(&arguments, &leash).await }) {
        Ended::Done(Ok(line)) => {
            if let Some(line) = line {
                program::say(PROGRAM, &line);
            }
            exit::SUCCESS
        }
        Ended::Done(Err(error)) => refuse(&shown, error),
        Ended::Panicked => exit::PANIC,
        Ended::Overdue => refuse(&shown, overdue()),
        Ended::Unable(cause) => refuse(&shown, program::unable(&cause)),
    }
}

fn refuse(shown: &str, error: Error) -> u8 {
    let error = error.context(format!("cannot archive {shown}"));
    program::say(PROGRAM, &error.to_string());
    exit::archive_status(&error)
}

fn overdue() -> Error {
    Error::new(ErrorKind::Unavailable, "it is not done after the time allowed")
        .hint("a file or the storage does not answer; Postgres asks again (WALHALLA_ARCHIVE_TIMEOUT is the limit)")
}

/// Archives the file. Ok: it is proven to be stored, and perhaps there is something that the operator should know.
async fn push(arguments: &ArchiveArguments, leash: &Leash) -> Result<Option<String>> {
    let begun = Instant::now();
    let path = arguments.path.as_path();
    let directory = DataDirectory::of(path);
    directory.refuse_if_held()?;
    source::name_of(path)?;
    let settings = Settings::from_process(arguments.config.as_deref())?;
    if let Some(timeout) = settings.archive_timeout {
        // The data directory may hang as well as the storage.
        leash.set((begun + timeout.min(BEFORE_STORAGE) + LAST_WORDS).into_std());
    }
    let control = directory.control().await?.ok_or_else(|| {
        let text = format!("there is no global/pg_control in {}", directory.shown());
        Error::new(ErrorKind::Config, text)
            .hint("run it in the data directory, as Postgres does, or give the file's whole path")
    })?;
    let identity = directory.identity(&control)?;
    let source = Source::open(path, &identity)?;
    let odd = source.odd.clone();

    let limits = Limits::new(patience::archive(begun, source.length, settings.archive_timeout));
    let work = store(source, &identity, &settings, &limits, directory.path());
    let mut remarks = tokio::select! {
        biased; // The server is looked at before the first request.
        () = watch_server(&directory, &limits, leash) => Err(overdue()),
        stored = work => stored,
    }?;
    remarks.extend(odd);
    Ok((!remarks.is_empty()).then(|| remarks.join("; ")))
}

/// What the operator should know of a file that was stored.
fn remark(name: &str, deposited: Deposited) -> Option<String> {
    match deposited {
        Deposited::New | Deposited::Already => None,
        Deposited::Beside(first) => {
            Some(format!("{name} is in the repository as {first}: this one is stored beside it"))
        }
        Deposited::Replaced(why) => {
            Some(format!("{name} in the repository held nothing that could be restored ({why}): replaced"))
        }
    }
}

/// Encodes the file while the cluster's identity is looked after, and stores it. Nothing of a cluster is ever stored before its
/// identity is. What the operator should know of it is returned.
async fn store(
    source: Source,
    identity: &ClusterIdentity,
    settings: &Settings,
    limits: &Limits,
    data_directory: &Path,
) -> Result<Vec<String>> {
    let storage = storage::open(settings, limits)?;
    // A spool that cannot be used costs requests, never a WAL file; `walhalla check` tells of it.
    let spool = Spool::find(settings.spool.as_deref(), Some(data_directory)).unwrap_or_default();
    let cluster = Repository::new(storage, spool).cluster(identity.system_identifier);
    let name = source.name;
    let encoding = Encoding { level: settings.compression_level, recipients: settings.recipients.clone() };
    let (identified, object) = tokio::try_join!(cluster.ensure_identity(identity), encode(source, encoding))?;
    let deposited = cluster.deposit_wal(&name, &object).await?.deposited;
    let remarks = [remark("cluster.json", identified), remark(&name.to_string(), deposited), cluster.take_remark()];
    Ok(remarks.into_iter().flatten().collect())
}

/// Reads, hashes and compresses the file in one pass, beside the runtime: deadlines are watched meanwhile.
async fn encode(source: Source, encoding: Encoding) -> Result<Encoded> {
    let (length, subject) = (source.length, source.subject);
    tokio::task::spawn_blocking(move || codec::encode(&mut source.into_reader(), length, subject, &encoding))
        .await
        .map_err(|cause| Error::new(ErrorKind::Bug, "cannot encode the file").because(cause))?
}

/// Looks after the limits: tightens them once the server is seen stopping, keeps the leash at their deadline, and ends a little
/// behind it.
async fn watch_server(directory: &DataDirectory, limits: &Limits, leash: &Leash) {
    let mut stopping = false;
    loop {
        if !stopping && directory.server_is_stopping() {
            stopping = true;
            limits.change(|bounds| patience::while_stopping(bounds, Instant::now()));
        }
        let Some(deadline) = limits.now().deadline else { return };
        let end = deadline + LAST_WORDS;
        leash.set(end.into_std());
        if end <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(end.min(Instant::now() + GLANCE)).await;
    }
}
