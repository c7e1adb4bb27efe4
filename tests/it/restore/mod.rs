//! `walhalla restore`: a real server is archived, backed up, and rebuilt from what lies in the repository.
//!
//! The backups here are made by `support::synthetic`, so that this room is proven against the format and not against a sibling.

mod archiving;
mod configuration;
mod interrupted;
mod refusals;
mod story;
mod tablespaces;
mod targets;
mod timelines;

use crate::support::postgres::{self, Postgres, client_program, postgres_majors};
use crate::support::{binaries, synthetic, user};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use walhalla::codec::{Identities, Recipients};
use walhalla::pg::{SegmentName, WalFileName};
use walhalla::reach::Source;
use walhalla::repo::{Cluster, Manifest, Repository};
use walhalla::restore::{self, RestorePlan, RestoreReport, RestoreRequest};
use walhalla::storage::{Bounds, Limits, Storage, file::FileStorage};

/// A server that archives into a directory, and the room of its tests.
struct World {
    server: Postgres,
    place: tempfile::TempDir,
    cluster: Cluster,
    recipients: Recipients,
    identities: Identities,
}

impl World {
    fn new(major: u32) -> Self {
        Self::with(major, |builder| builder)
    }

    fn with(major: u32, change: impl FnOnce(postgres::Builder) -> postgres::Builder) -> Self {
        let place = tempfile::Builder::new().prefix("walhalla-").tempdir_in(fast_place()).unwrap();
        user::make_directory(place.path());
        user::make_directory(&place.path().join("repository"));
        let archive = format!("{} %p", binaries::walhalla_archive().display());
        let builder = Postgres::builder(major)
            .archive_command(&archive)
            .env("WALHALLA_STORAGE", storage_url(place.path()))
            .env("WALHALLA_SPOOL", place.path().join("spool"));
        user::make_directory(&place.path().join("spool"));
        let server = change(builder).start();
        let identity = synthetic::identity(&server);
        let storage: Arc<dyn Storage> =
            Arc::new(FileStorage::new(place.path().join("repository"), Limits::new(Bounds::PATIENT)));
        let cluster = Repository::new(storage, None).cluster(identity.system_identifier);
        Self { server, place, cluster, recipients: Recipients::default(), identities: Identities::default() }
    }

    fn source(&self) -> Source {
        Source { cluster: self.cluster.clone(), identities: self.identities.clone(), concurrency: 8 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.psql(sql).unwrap()
    }

    fn backup(&self, id: &str) -> Manifest {
        self.backup_with(id, |_| {})
    }

    fn backup_with(&self, id: &str, change: impl FnOnce(&mut Manifest)) -> Manifest {
        self.backup_without(id, &[], change)
    }

    /// A backup without these files, as if they lay elsewhere.
    fn backup_without(
        &self,
        id: &str,
        without: &'static [&'static str],
        change: impl FnOnce(&mut Manifest),
    ) -> Manifest {
        let how = synthetic::How { recipients: self.recipients.clone(), without };
        let manifest = on_runtime(synthetic::backup(&self.server, &self.cluster, id, how, change));
        user::give(&self.path("repository"));
        manifest
    }

    /// Everything written so far is in the archive; answers the segment that it ends in.
    fn archive(&self) -> String {
        let name = self.server.switch_wal();
        self.server.wait_archived(&name, Duration::from_secs(60));
        name
    }

    /// A backup of another server of this cluster.
    fn backup_of(&self, server: &Postgres, id: &str) -> Manifest {
        on_runtime(synthetic::backup(server, &self.cluster, id, synthetic::How::default(), |_| {}))
    }

    fn request(&self, to: &str) -> RestoreRequest {
        let mut request = RestoreRequest::new(self.path(to));
        request.programs.restore = binaries::walhalla_restore();
        request.programs.archive = binaries::walhalla_archive();
        request
    }

    fn plan(&self, request: &RestoreRequest) -> walhalla::error::Result<RestorePlan> {
        on_runtime(restore::plan(&self.source(), request))
    }

    fn restore(&self, request: &RestoreRequest) -> RestoreReport {
        let plan = self.plan(request).unwrap();
        println!("{plan}");
        let report = on_runtime(restore::execute(&self.source(), &plan, &())).unwrap();
        println!("{report}");
        report
    }

    /// A server over what was restored; not started.
    fn adopt(&self, to: &str) -> Postgres {
        Postgres::builder(self.server.major())
            .env("WALHALLA_STORAGE", storage_url(self.place.path()))
            .env("WALHALLA_SPOOL", self.path("spool"))
            .env("WALHALLA_RESTORE_TIMEOUT", "5s")
            .adopt(&self.path(to))
    }

    /// Restores, verifies, starts, and waits until it is open for writing.
    fn open(&self, request: &RestoreRequest) -> Postgres {
        let to = request.to.file_name().unwrap().to_str().unwrap().to_owned();
        self.restore(request);
        self.verify(&request.to);
        let server = self.adopt(&to);
        server.start().unwrap();
        server.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
        server
    }

    /// The operator's program, as the server's user.
    fn walhalla(&self, arguments: &[&str]) -> binaries::Output {
        let url = storage_url(self.place.path());
        let environment = [("WALHALLA_STORAGE", url.as_str())];
        let output = binaries::run_as_server(&binaries::walhalla(), arguments, &environment, self.place.path());
        println!("walhalla {}\n{}{}", arguments.join(" "), output.stdout, output.stderr);
        output
    }

    /// The error of a plan that must fail.
    fn refused(&self, request: &RestoreRequest) -> String {
        self.plan(request).unwrap_err().to_string()
    }

    /// Takes a segment out of the archive.
    fn lose(&self, name: &str) {
        let name: SegmentName = name.parse().unwrap();
        let key = self.cluster.layout().wal(&WalFileName::Segment(name));
        std::fs::remove_file(self.path("repository").join(key.as_str())).unwrap();
    }

    fn verify(&self, data: &Path) {
        verify_backup(self.server.major(), data).unwrap_or_else(|error| panic!("pg_verifybackup: {error}"));
    }
}

/// Where syncing costs nothing, if there is room: dozens of whole servers are restored and synced here.
fn fast_place() -> &'static str {
    let free = rustix::fs::statvfs("/dev/shm").map_or(0, |figures| figures.f_bavail * figures.f_frsize);
    if free > 2 << 30 { "/dev/shm" } else { "/tmp" }
}

fn verify_backup(major: u32, data: &Path) -> Result<String, String> {
    let mut verify = user::command(&client_program(major, "pg_verifybackup"));
    postgres::run(verify.current_dir("/").args(["-n", "-e"]).arg(data))
}

fn storage_url(place: &Path) -> String {
    format!("file://{}", place.join("repository").display())
}

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

const FIRST: &str = "20261124T000000Z-000001";
const SECOND: &str = "20261124T000000Z-000002";
