//! A real `pg_rewind --restore-target-wal`, which calls `walhalla-restore` by an absolute path for what is gone from `pg_wal`.

use super::super::site::{LONG, Site, add_row, rows, wait_primary};
use super::servers::{Triple, controlled, spoil};
use crate::support::postgres::{self, Stop, server_programs};
use crate::support::{skipped, user};
use std::collections::BTreeSet;
use std::path::Path;

/// A primary that went on alone while its standby was promoted is rewound. Whatever it is answered but the file itself, it gives up and
/// has changed nothing; then it gets the file, and the server follows the new primary.
pub(super) fn rewinds(major: u32, place: &Path, triples: &BTreeSet<Triple>, covered: &mut BTreeSet<Triple>) {
    let asked = triples.iter().filter(|(_, mode, _)| *mode == "pg_rewind");
    let program = server_programs(major).map(|directory| directory.join("pg_rewind"));
    if !program.as_ref().is_some_and(|program| program.exists()) {
        skipped(&format!("pg_rewind of {major}"), "this build of Postgres has none");
        covered.extend(asked);
        return;
    }
    let site = Site::new(major);
    let (control, builder) = controlled(&site, place, "old", "standby.signal");
    let old = builder.checksums(true).create();
    std::fs::remove_file(old.data().join("standby.signal")).unwrap();
    old.start().unwrap();
    old.psql("CREATE TABLE t (a int)").unwrap();
    let new = site.server("new").signal_file("standby.signal").clone_of(&old, false);
    add_row(&old, 1);
    new.start().unwrap();
    new.wait_sql("SELECT count(*) FROM t", "1", LONG);
    new.promote();
    add_row(&new, 2);
    let mut segments: Vec<String> = (10..13).map(|value| add_row(&old, value)).collect();
    old.stop(Stop::Fast).unwrap();
    let names: Vec<String> =
        site.s3.keys().iter().filter_map(|key| Some(key.split("/wal/00000001/").nth(1)?.to_owned())).collect();
    spoil(&site.s3, &names);
    // What is archived is gone from pg_wal, as after checkpoints.
    segments.extend(names);
    for name in &segments {
        std::fs::remove_file(old.data().join("pg_wal").join(name)).ok();
    }

    let environment = site.environment("old");
    let rewind = || {
        let mut command = user::command(program.as_ref().unwrap());
        command.current_dir(old.directory()).envs(environment.iter().map(|(name, value)| (name, value)));
        command.env("WALHALLA_RESTORE_TIMEOUT", "5s");
        command.args(["-c", "-D"]).arg(old.data()).args(["--source-server", &new.dsn()]);
        postgres::run(&mut command)
    };
    let state = || std::fs::read(old.data().join("global/pg_control")).unwrap();
    let before = state();
    for triple in asked.clone().filter(|(status, ..)| *status != 0) {
        control.set(triple.0, triple.2, "true");
        let error = rewind().expect_err("it went on without the file");
        assert!(error.contains(&format!("answered {} for segment", triple.0)), "{triple:?}: {error}");
        assert!(state() == before, "{triple:?}: it was changed");
        covered.insert(*triple);
    }
    control.clear();
    rewind().unwrap();
    covered.insert((0, "pg_rewind", "segment"));
    // It has the settings of the new primary now, and follows its history.
    user::give(old.data());
    old.write("standby.signal", "");
    old.start().unwrap();
    new.wait_sql("SELECT count(*) FROM t", "2", LONG);
    add_row(&new, 3);
    old.wait_sql("SELECT count(*) FROM t", "3", LONG);
    assert_eq!(rows(&old), "1,2,3");
    old.promote();
    wait_primary(&old);
    old.restart();
    assert_eq!(rows(&old), "1,2,3");
}
