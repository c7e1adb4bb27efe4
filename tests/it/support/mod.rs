//! What the integration tests stand on: real Postgres servers, S3 servers false and true, and lines that break.

pub(crate) mod binaries;
pub(crate) mod crash;
pub(crate) mod engines;
pub(crate) mod fake_s3;
pub(crate) mod forgetful;
pub(crate) mod postgres;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod stores;
pub(crate) mod strace;
pub(crate) mod synthetic;
pub(crate) mod unreachable;
pub(crate) mod user;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Polls until `condition` holds; panics with `what` where it does not within `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on, and that this process has not given out before.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
    panic!("no free port")
}

/// A directory of its own, 0755, gone when dropped. Its path is short: the paths of sockets are limited to 107 bytes.
/// `scripts/test` gives each run its own place for them (`WALHALLA_TEST_TMP`), so that it can tell what is left behind.
pub(crate) fn temporary() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let place = std::env::var_os("WALHALLA_TEST_TMP").unwrap_or_else(|| "/tmp".into());
    let directory = tempfile::Builder::new().prefix("walhalla-").tempdir_in(place).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Whether there is time for more rounds than usual (`scripts/test --all`).
pub(crate) fn long_run() -> bool {
    std::env::var_os("WALHALLA_TEST_LONG").is_some()
}

/// What chance begins with: `WALHALLA_TEST_SEED`, else the time. Whoever uses it prints it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("WALHALLA_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64)
}

/// The checkout.
pub(crate) fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where `scripts/postgres` and `scripts/store` put what they bring; the same rule as in `scripts/common`.
pub(crate) fn tools() -> PathBuf {
    match std::env::var_os("WALHALLA_TOOLS").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None if user::is_root() => "/var/lib/walhalla-test".into(),
        None => checkout().join(".tools"),
    }
}

/// Says that something was left out, and why. `scripts/test` collects these lines and prints them at its end.
pub(crate) fn skipped(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}");
    eprintln!("{line}");
    let Some(path) = std::env::var_os("WALHALLA_SKIPPED") else { return };
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
}
