//! The programs are fully static: they work where there is nothing but themselves.

use super::bench::{Answer, Bench, finish, segment, segment_name};
use crate::support::fake_s3::FakeS3;
use crate::support::{binaries, skipped, temporary, user};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const PROGRAMS: [&str; 3] = ["walhalla", "walhalla-archive", "walhalla-restore"];

/// Runs a program with `root` as its root directory.
fn run(root: &Path, bench: &Bench, program: &str, arguments: &[&str]) -> Answer {
    let mut command = Command::new("chroot");
    user::clean_environment(&mut command);
    command.arg(root).arg(format!("/{program}")).args(arguments).envs(bench.environment());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), Instant::now())
}

#[test]
fn a_segment_goes_out_and_comes_back_where_there_is_nothing_else() {
    if !user::is_root() {
        return skipped("programs in an empty chroot", "only root can change its root directory");
    }
    let s3 = FakeS3::start();
    // By number first; by name as soon as there is a file that knows one, which is all that a static resolver needs.
    for (host, hosts) in [("127.0.0.1", None), ("store.test", Some("127.0.0.1 store.test\n"))] {
        let root = temporary();
        let bench = Bench::bare().at(&format!("http://{host}:{}", s3.port())).with("WALHALLA_SPOOL", "/spool");
        let data = root.path().join("data");
        for directory in ["data/global", "data/pg_wal", "etc"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["global/pg_control", "PG_VERSION"] {
            std::fs::copy(bench.data().join(file), data.join(file)).unwrap();
        }
        for program in PROGRAMS {
            std::fs::copy(binaries::directory().join(program), root.path().join(program)).unwrap();
        }
        if let Some(hosts) = hosts {
            std::fs::write(root.path().join("etc/hosts"), hosts).unwrap();
        }
        let name = segment_name(1);
        std::fs::write(data.join("pg_wal").join(&name), segment(1)).unwrap();

        run(root.path(), &bench, "walhalla-archive", &[&format!("/data/pg_wal/{name}")]).expect_silent_success();
        assert!(s3.keys().contains(&bench.key(&name)), "{:?}", s3.keys());
        run(root.path(), &bench, "walhalla-restore", &[&name, "/data/pg_wal/fetched"]).expect_silent_success();
        assert!(std::fs::read(data.join("pg_wal/fetched")).unwrap() == segment(1), "other bytes came back");
        let answer = run(root.path(), &bench, "walhalla", &["--version"]);
        assert_eq!(answer.status, 0, "{answer:?}");
    }
}
