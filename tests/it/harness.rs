//! The means of testing, tested: what every other test relies on.

use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::{binaries, processes, temporary, wait_until};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Archives by `cp`, is cloned, replays from that archive, and is promoted: on every major that is asked for.
#[test]
fn a_real_postgres_archives_is_cloned_and_promoted() {
    for major in postgres_majors() {
        let archive = temporary();
        crate::support::user::make_directory(archive.path());
        let primary = Postgres::builder(major)
            .archive_command("test ! -f $ARCHIVE/%f && cp %p $ARCHIVE/%f")
            .env("ARCHIVE", archive.path())
            .start();
        assert_eq!(primary.psql("SHOW wal_segment_size").unwrap(), "1MB");
        assert!(primary.psql("SELECT version()").unwrap().starts_with(&format!("PostgreSQL {major}.")));
        primary.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").unwrap();

        let standby = Postgres::builder(major)
            .restore_command("cp $ARCHIVE/%f %p")
            .env("ARCHIVE", archive.path())
            .signal_file("standby.signal")
            .clone_of(&primary, false);
        primary.psql("INSERT INTO t VALUES (2)").unwrap();
        let segment = primary.switch_wal();
        primary.wait_archived(&segment, LONG);
        standby.configure(&[("archive_mode".into(), "off".into())]);
        standby.start().unwrap();
        standby.wait_sql("SELECT count(*) FROM t", "2", LONG);
        standby.promote();
        standby.psql("INSERT INTO t VALUES (3)").unwrap();
        assert_eq!(primary.psql("SELECT count(*) FROM t").unwrap(), "2");
        primary.stop(Stop::Fast).unwrap();
        primary.start().unwrap();
        assert_eq!(primary.psql("SELECT count(*) FROM t").unwrap(), "2");
    }
}

/// A test that panics, and a server that is shot, leave nothing behind.
#[test]
fn nothing_is_left_behind() {
    let server = Postgres::builder(15).archive_command("sleep 1000").start();
    server.switch_wal();
    let home = server.directory().to_owned();
    let commands = || processes::working_below(server.data()).len();
    wait_until("the archive command runs", LONG, || {
        std::fs::read_dir("/proc").unwrap().any(|entry| {
            let path = entry.unwrap().path();
            std::fs::read(path.join("cmdline")).is_ok_and(|line| line == b"sleep\x001000\0")
                && std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == server.data())
        })
    });
    assert!(commands() > 3);
    server.kill();
    assert_eq!(commands(), 0);
    server.start().unwrap();
    let panicked = std::thread::spawn(move || {
        let _server = server;
        panic!("on purpose");
    });
    panicked.join().unwrap_err();
    assert!(!home.exists());
}

/// What runs inside any image asks for no loader and no library: no program of ours has an interpreter segment.
#[test]
fn the_programs_run_as_the_servers_user_and_are_static() {
    for program in [binaries::walhalla(), binaries::walhalla_archive(), binaries::walhalla_restore()] {
        let directory = temporary();
        let none: [(&str, &str); 0] = [];
        let output = binaries::run_as_server(&program, &["--version"], &none, directory.path());
        assert!(output.status.is_some(), "{}: {output:?}", program.display());
        let elf = std::fs::read(&program).unwrap();
        assert_eq!(&elf[..5], b"\x7fELF\x02", "{}", program.display());
        let word =
            |at: usize, size: usize| elf[at..at + size].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let (table, size, count) = (word(32, 8), word(54, 2), word(56, 2));
        const INTERPRETER: usize = 3;
        assert!((0..count).all(|n| word(table + n * size, 4) != INTERPRETER), "{} is not static", program.display());
    }
}
