//! Real servers around one repository.

use crate::support::fake_s3::{ACCESS_KEY, BUCKET, FakeS3, SECRET_KEY};
use crate::support::postgres::{Builder, Postgres};
use crate::support::{self, binaries, user};
use std::time::Duration;

/// What a loaded machine may need for anything.
pub(super) const LONG: Duration = Duration::from_secs(90);

/// A false S3, and servers of one major that archive into it and restore from it.
pub(super) struct Site {
    pub(super) s3: FakeS3,
    major: u32,
    home: tempfile::TempDir,
}

impl Site {
    pub(super) fn new(major: u32) -> Self {
        let home = support::temporary();
        user::make_directory(home.path());
        Self { s3: FakeS3::start(), major, home }
    }

    /// A server with both commands, which reaches the store at `endpoint`. Servers of one `name` share a spool.
    pub(super) fn server_at(&self, name: &str, endpoint: &str) -> Builder {
        let command = |program: &str| binaries::directory().join(program).display().to_string();
        Postgres::builder(self.major)
            .archive_command(&format!("{} %p", command("walhalla-archive")))
            .restore_command(&format!("{} %f %p", command("walhalla-restore")))
            .setting("wal_retrieve_retry_interval", "500ms")
            .setting("archive_timeout", "0")
            .setting("autovacuum", "off")
            .env("WALHALLA_CONFIG", "/dev/null")
            .env("WALHALLA_SPOOL", self.home.path().join(name))
            .env("WALHALLA_STORAGE", format!("s3://{BUCKET}/cluster"))
            .env("WALHALLA_S3_ENDPOINT", endpoint)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }

    /// What the commands of the server of this name are told, for a program that calls them without the server.
    pub(super) fn environment(&self, name: &str) -> Vec<(&'static str, String)> {
        vec![
            ("WALHALLA_CONFIG", "/dev/null".to_owned()),
            ("WALHALLA_SPOOL", self.home.path().join(name).display().to_string()),
            ("WALHALLA_STORAGE", format!("s3://{BUCKET}/cluster")),
            ("WALHALLA_S3_ENDPOINT", self.s3.endpoint()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
    }

    /// [`Self::server_at`] the store itself.
    pub(super) fn server(&self, name: &str) -> Builder {
        self.server_at(name, &self.s3.endpoint())
    }

    /// A running primary with an empty table `t`.
    pub(super) fn primary(&self) -> Postgres {
        let primary = self.server("primary").start();
        primary.psql("CREATE TABLE t (a int)").unwrap();
        primary
    }

    /// The key of the only object of this WAL file.
    pub(super) fn key(&self, name: &str) -> String {
        let keys = self.s3.keys();
        keys.iter()
            .find(|key| key.ends_with(&format!("/{name}")))
            .unwrap_or_else(|| panic!("{name} is not in {keys:?}"))
            .clone()
    }
}

/// Adds a row, and waits until it is archived. Answers the segment.
pub(super) fn add_row(server: &Postgres, value: u32) -> String {
    server.psql(&format!("INSERT INTO t VALUES ({value})")).unwrap();
    let segment = server.switch_wal();
    server.wait_archived(&segment, LONG);
    segment
}

/// The rows of `t`, by comma.
pub(super) fn rows(server: &Postgres) -> String {
    server.psql("SELECT string_agg(a::text, ',' ORDER BY a) FROM t").unwrap()
}

/// The timeline that a server writes on.
pub(super) fn timeline(server: &Postgres) -> String {
    server.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").unwrap()
}

/// Waits until it is out of recovery.
pub(super) fn wait_primary(server: &Postgres) {
    server.wait_sql("SELECT pg_is_in_recovery()", "f", LONG);
}
