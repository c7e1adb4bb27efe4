//! Each kind of target reaches exactly the rows it should.

use super::*;
use walhalla::pg::Lsn;
use walhalla::reach::TargetTime;
use walhalla::restore::{RecoveryTarget, Role, TargetAction};

#[test]
fn to_the_end_of_the_archive() {
    for major in postgres_majors() {
        let world = World::new(major);
        world.sql("CREATE TABLE t AS SELECT n, repeat('x', 200) AS filler FROM generate_series(1, 20000) n");
        let backup = world.backup(FIRST);
        world.sql("INSERT INTO t SELECT n, 'after' FROM generate_series(20001, 20010) n");
        world.archive();
        let request = RestoreRequest { role: Role::Copy, ..world.request("copy") };
        let plan = world.plan(&request).unwrap();
        assert_eq!((plan.backup.id.clone(), plan.files), (backup.id, backup.files));
        assert!(plan.window.until.unwrap().time > TargetTime::from_manifest(&backup.finished_at).unwrap());
        assert_eq!(serde_json::to_value(&plan).unwrap()["wal"]["hole"], serde_json::Value::Null);
        let copy = world.open(&request);
        assert_eq!(copy.psql("SELECT count(*), sum(n) FROM t").unwrap(), world.sql("SELECT count(*), sum(n) FROM t"));
        let mode = std::fs::metadata(copy.data()).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o700);
    }
}

/// Five rows, each in its own transaction; what happened right behind the third is the target.
struct Story {
    world: World,
    time: TargetTime,
    lsn: Lsn,
    xid: u32,
}

fn story() -> Story {
    // A recovery target of long ago in the operator's own file must not get in the way.
    let world = World::with(15, |builder| {
        builder.setting("recovery_target_name", "long ago").setting("recovery_min_apply_delay", "1h")
    });
    world.sql("ALTER SYSTEM SET recovery_target_lsn = '0/1'");
    world.sql("CREATE TABLE t (n int)");
    world.backup(FIRST);
    let mut points = None;
    for n in 1..=5 {
        let xid = world.sql(&format!("INSERT INTO t VALUES ({n}) RETURNING pg_current_xact_id()"));
        if n == 3 {
            let time =
                world.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'");
            let lsn = world.sql("SELECT pg_current_wal_insert_lsn()");
            world.sql("SELECT pg_create_restore_point('here')");
            points = Some((time, lsn, xid));
        }
    }
    world.archive();
    // A newer backup, ended behind the target: not the one to begin with.
    world.backup(SECOND);
    world.sql("INSERT INTO t VALUES (6)");
    world.archive();
    let (time, lsn, xid) = points.unwrap();
    Story { world, time: time.parse().unwrap(), lsn: lsn.parse().unwrap(), xid: xid.parse().unwrap() }
}

#[test]
fn a_time_a_position_a_name_a_transaction() {
    let story = story();
    let targets = [
        ("time", RecoveryTarget::Time(story.time), true, "3"),
        ("lsn", RecoveryTarget::Lsn(story.lsn), false, "3"),
        ("name", RecoveryTarget::Name("here".into()), true, "3"),
        ("xid", RecoveryTarget::Xid(story.xid), true, "3"),
        ("xid-excluded", RecoveryTarget::Xid(story.xid), false, "2"),
    ];
    for (to, target, inclusive, rows) in targets {
        let request = RestoreRequest { target, inclusive, role: Role::Copy, ..story.world.request(to) };
        let plan = story.world.plan(&request).unwrap();
        assert_eq!(plan.backup.id.as_str(), FIRST, "{to}: {}", plan.backup.why);
        let copy = story.world.open(&request);
        assert_eq!(copy.psql("SELECT count(*) FROM t").unwrap(), rows, "{to}");
    }
}

#[test]
fn the_end_of_the_backup_and_a_pause_there() {
    let story = story();
    let request = RestoreRequest { target: RecoveryTarget::Immediate, ..story.world.request("held") };
    let plan = story.world.plan(&request).unwrap();
    assert_eq!((plan.backup.id.as_str(), plan.action), (SECOND, TargetAction::Pause));
    let report = story.world.restore(&request);
    assert!(report.removed_settings.contains(&"recovery_target_lsn".to_owned()), "{:?}", report.removed_settings);
    let held = story.world.adopt("held");
    held.start().unwrap();
    held.wait_sql("SELECT pg_get_wal_replay_pause_state()", "paused", Duration::from_secs(60));
    assert_eq!(held.psql("SELECT count(*) FROM t").unwrap(), "5");
    held.psql("SELECT pg_wal_replay_resume()").unwrap();
    held.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
}

#[test]
fn a_target_that_is_never_reached_is_refused_before_anything_is_written() {
    let story = story();
    let refused = |target: RecoveryTarget| {
        let text = story.world.refused(&RestoreRequest { target, ..story.world.request("nowhere") });
        println!("{text}");
        assert!(!story.world.path("nowhere").exists());
        text
    };
    let late = refused(RecoveryTarget::Time("2100-01-01 00:00:00Z".parse().unwrap()));
    assert!(late.contains("the last transaction in the archive ended at"), "{late}");
    let early = refused(RecoveryTarget::Time("2000-01-01 00:00:00Z".parse().unwrap()));
    assert!(early.contains("the earliest that can be restored to"), "{early}");
    let far = refused(RecoveryTarget::Lsn("FF/0".parse().unwrap()));
    assert!(far.contains("the last record in the archive begins at"), "{far}");
    let name = refused(RecoveryTarget::Name("elsewhere".into()));
    assert!(name.contains("the restore points in it: here"), "{name}");
    let xid = refused(RecoveryTarget::Xid(1_000_000));
    assert!(xid.contains("is not in the archived WAL"), "{xid}");
}
