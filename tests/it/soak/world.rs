//! What everybody in the soak shares: the store behind its line, the server, the ledger, the figures.

use super::figures::Figures;
use super::ledger::Ledger;
use super::weather::{Line, Store};
use crate::support::postgres::{Builder, Postgres};
use crate::support::stores::{self, Variables};
use crate::support::{binaries, temporary, user};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use walhalla::pg::{Lsn, SystemIdentifier, TimelineId};
use walhalla::storage::Storage;

/// What a loaded machine in bad weather may need for anything.
pub(super) const LONG: Duration = Duration::from_secs(240);

/// Everything there is.
pub(super) struct World {
    pub(super) place: tempfile::TempDir,
    pub(super) store: Mutex<Store>,
    pub(super) line: Mutex<Line>,
    /// For the programs, through the line.
    pub(super) variables: Variables,
    /// The same without the line: for judges.
    pub(super) direct: Variables,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) system: SystemIdentifier,
    /// The primary. Whoever works with it holds this for reading; for a switch it is held for writing.
    pub(super) primary: RwLock<Primary>,
    pub(super) ledger: Ledger,
    pub(super) figures: Figures,
    /// Servers whose commands are killed at random, by their directories, and how many of them at most: a recovery begins anew each
    /// time, and must come to an end.
    pub(super) targets: Mutex<BTreeMap<PathBuf, u32>>,
    /// Somebody waits to replace the primary: who works with it for long shall end.
    pub(super) hurry: AtomicBool,
    /// A server went on from an earlier moment, and backups of what was given up are still there.
    pub(super) went_back: AtomicBool,
    /// Where the first backup had ended: everything from here on can be restored to.
    pub(super) first_backup: Lsn,
    over: AtomicBool,
}

/// The server that rows are written to.
pub(super) struct Primary {
    pub(super) server: Arc<Postgres>,
    pub(super) timeline: TimelineId,
    /// Where its timeline began to be its own, or what the first backup needs at least.
    pub(super) floor: Lsn,
    /// WAL files that it believes to be archived because its restore said so.
    pub(super) given: BTreeSet<String>,
    /// WAL files that it calls archived, and that were found in the store.
    pub(super) verified: Mutex<BTreeSet<String>>,
    /// Restore points: the name, no earlier than, no later than.
    pub(super) points: Mutex<Vec<(String, Lsn, Lsn)>>,
}

impl Primary {
    pub(super) fn of(server: Postgres, floor: Lsn) -> Self {
        let timeline = server.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").unwrap();
        let timeline = TimelineId::from_hex(&timeline).unwrap();
        let given = super::audit::files(server.data(), ".done").into_iter().collect();
        Self { server: Arc::new(server), timeline, floor, given, verified: Mutex::default(), points: Mutex::default() }
    }
}

impl World {
    /// A store of this name, and a fresh server that archives into it; nothing is misbehaving yet.
    pub(super) fn new(major: u32, store: &str, random: &mut fastrand::Rng) -> Self {
        let place = temporary();
        user::make_directory(place.path());
        let store = Store::named(store, random);
        let line = Line::to(store.port());
        let mut variables = store.variables(&line.endpoint());
        let mut direct = store.variables(&format!("http://127.0.0.1:{}", store.port()));
        let storage = stores::open(&direct);
        for (name, value) in [
            ("WALHALLA_CONFIG", "/dev/null".to_owned()),
            ("WALHALLA_SPOOL", place.path().join("spool").display().to_string()),
            ("WALHALLA_ARCHIVE_TIMEOUT", "8s".to_owned()),
            ("WALHALLA_RESTORE_TIMEOUT", "20s".to_owned()),
            ("WALHALLA_CONCURRENCY", random.choice(["1", "4", "8"]).unwrap().to_owned()),
        ] {
            variables.push((name, value.clone()));
            direct.push((name, value));
        }
        let server = builder(major, &variables).start();
        server.psql(super::load::TABLE).unwrap();
        let targets = Mutex::new(BTreeMap::from([(server.data().to_owned(), u32::MAX)]));
        Self {
            place,
            store: Mutex::new(store),
            line: Mutex::new(line),
            variables,
            direct,
            storage,
            system: super::audit::system(server.data()),
            primary: RwLock::new(Primary::of(server, Lsn(0))),
            ledger: Ledger::default(),
            figures: Figures::default(),
            targets,
            hurry: AtomicBool::new(false),
            went_back: AtomicBool::new(false),
            first_backup: Lsn(0),
            over: AtomicBool::new(false),
        }
    }

    /// A server over a restored directory, not started.
    pub(super) fn adopt(&self, directory: &Path) -> Postgres {
        let builder = Postgres::builder(15);
        let builder = self.variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        let server = builder.adopt(directory);
        self.targets.lock().unwrap().insert(directory.to_owned(), 3);
        server
    }

    /// Whether everybody shall stop.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Everybody shall stop.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Pauses, and wakes early where everybody shall stop.
    pub(super) fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// The operator's program, as the server's user.
    pub(super) fn walhalla(&self, arguments: &[&str], variables: &Variables) -> std::process::Child {
        let mut command = user::command(&binaries::walhalla());
        command.args(arguments).envs(variables.iter().map(|(name, value)| (*name, value))).current_dir("/");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    /// Where the operator's program says what it says.
    pub(super) fn log(&self) -> PathBuf {
        self.place.path().join("operator.log")
    }
}

fn builder(major: u32, variables: &Variables) -> Builder {
    let command = |program: &Path| program.display().to_string();
    let builder = Postgres::builder(major)
        .archive_command(&format!("{} %p", command(&binaries::walhalla_archive())))
        .restore_command(&format!("{} %f %p", command(&binaries::walhalla_restore())))
        .setting("wal_retrieve_retry_interval", "500ms")
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "8MB")
        .setting("max_wal_senders", "10")
        .setting("checkpoint_timeout", "30s")
        .setting("autovacuum", "off");
    variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value))
}
