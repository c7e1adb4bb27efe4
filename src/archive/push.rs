//! `walhalla-archive`: one WAL file, proven to be stored.

use super::ahead::{self, Markers};
use super::arguments::{self, ArchiveArguments, Asked};
use super::data_directory::DataDirectory;
use super::encode::encode;
use super::patience;
use super::program::{self, Ended, Leash};
use super::source::{self, Source};
use crate::config::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::exit;
use crate::pg::WalFileName;
use crate::repo::{Cluster, ClusterIdentity, Deposited, Repository};
use crate::spool::Spool;
use crate::storage::{self, Limits, Retrying};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
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
    // A spool that cannot be used costs requests, never a WAL file; `walhalla check` tells of it.
    let spool = Spool::find(settings.spool.as_deref(), Some(directory.path())).unwrap_or_default();
    let call = Call { path, directory: &directory, identity, settings: &settings, limits: &limits, spool };
    let work = call.settle(source);
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

/// What a call has to go by.
struct Call<'a> {
    path: &'a Path,
    directory: &'a DataDirectory,
    identity: ClusterIdentity,
    settings: &'a Settings,
    limits: &'a Limits,
    spool: Option<Spool>,
}

impl Call<'_> {
    /// Ends with the file proven to be stored: by its marker, or by storing it. What the operator should know of it is returned.
    async fn settle(&self, source: Source) -> Result<Vec<String>> {
        let name = source.name;
        let (system, location) = (self.identity.system_identifier, storage::location(self.settings));
        let open = |spool: &Spool| Markers::open(spool, self.directory, system, &location).ok();
        let markers = self.spool.as_ref().and_then(open);
        let marker = markers.as_ref().and_then(|markers| Some((markers, markers.read(&name)?)));
        let Some((markers, marker)) = marker else { return self.store(source, markers).await };
        let proven = match ahead::word(markers, &marker, source).await? {
            // Nobody but the kernel answers for a directory: it is looked at each time.
            ahead::Word::Fresh if !self.settings.storage.is_local() => true,
            ahead::Word::Fresh | ahead::Word::Stale => {
                let (_, once) = self.clusters()?;
                let source = Source::open(self.path, &self.identity)?;
                let confirmed = ahead::is_confirmed(&once, &self.identity, markers, &marker, &source).await;
                // The time that a dead store has had is not given to it twice.
                confirmed.inspect_err(|_| self.limits.go_on()).unwrap_or(false)
            }
            ahead::Word::None => false,
        };
        if proven {
            markers.remove(&name);
            return Ok(Vec::new());
        }
        self.store(Source::open(self.path, &self.identity)?, Some(markers.clone())).await
    }

    /// Encodes the file while the cluster's identity is looked after, and stores it, and others beside it. Nothing of a cluster is
    /// ever stored before its identity is.
    async fn store(&self, source: Source, markers: Option<Markers>) -> Result<Vec<String>> {
        let name = source.name;
        // First: it takes the longest, and the rest is made ready beside it.
        let object = encode(source, self.settings, self.settings.compression_threads);
        let (cluster, once) = self.clusters()?;
        let begin = async {
            let identified = cluster.ensure_identity(&self.identity).await?;
            Ok((identified, markers.and_then(|markers| ahead::begin(self.task(name, once, markers)))))
        };
        let ((identified, ahead), object) = tokio::try_join!(begin, object)?;
        if let Some(ahead) = &ahead {
            ahead.own_is_encoded();
        }
        let deposited = cluster.deposit_wal(&name, &object).await?.deposited;
        drop(object);
        let ahead = match ahead {
            Some(ahead) => ahead.end(&deposited).await,
            None => None,
        };
        let remarks = [remark("cluster.json", identified), remark(&name.to_string(), deposited), cluster.take_remark()];
        Ok(remarks.into_iter().flatten().chain(ahead).collect())
    }

    /// The cluster behind the retry policy, and the same where everything is tried once.
    fn clusters(&self) -> Result<(Cluster, Cluster)> {
        let once = storage::open_once(self.settings, self.limits)?;
        once.prepare();
        let patient = Arc::new(Retrying::new(Arc::clone(&once), self.limits.clone()));
        let cluster = Repository::new(patient, self.spool.clone()).cluster(self.identity.system_identifier);
        let once = cluster.through(once);
        Ok((cluster, once))
    }

    fn task(&self, own: WalFileName, cluster: Cluster, markers: Markers) -> ahead::Task {
        let patience = patience::Ahead::of(&self.limits.now(), Instant::now());
        let (directory, settings) = (self.directory.clone(), self.settings.clone());
        ahead::Task { own, directory, identity: self.identity, settings, cluster, markers, patience }
    }
}

/// Looks after the limits: tightens them once the server is seen stopping, keeps the leash at their deadline, and ends a little
/// behind it.
async fn watch_server(directory: &DataDirectory, limits: &Limits, leash: &Leash) {
    let mut stopping = false;
    loop {
        if !stopping && let Some(already) = directory.server_is_stopping() {
            stopping = true;
            limits.change(|bounds| patience::while_stopping(bounds, Instant::now(), already));
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
