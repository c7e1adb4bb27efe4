//! What is wrong is told before anything is written, and by its name.

use super::*;
use walhalla::error::ErrorKind;
use walhalla::restore::{RecoveryTarget, Role};

fn with_backup() -> (World, Manifest) {
    let world = World::new(15);
    world.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 30000) n");
    let backup = world.backup(FIRST);
    world.archive();
    (world, backup)
}

#[test]
fn a_directory_that_is_not_empty() {
    let (world, _) = with_backup();
    let to = world.path("full");
    std::fs::create_dir(&to).unwrap();
    std::fs::write(to.join("keep"), "me").unwrap();
    let text = world.refused(&world.request("full"));
    assert!(text.contains("is not empty: it holds keep"), "{text}");
    assert_eq!(std::fs::read(to.join("keep")).unwrap(), b"me");
    // Filled between plan and execution.
    let plan = world.plan(&world.request("late")).unwrap();
    std::fs::create_dir(world.path("late")).unwrap();
    std::fs::write(world.path("late/keep"), "me").unwrap();
    let error = on_runtime(restore::execute(&world.source(), &plan, &())).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert_eq!(std::fs::read_dir(world.path("late")).unwrap().count(), 1);
}

#[test]
fn missing_objects_are_named() {
    let (world, backup) = with_backup();
    let layout = world.cluster.layout();
    let object = world.path("repository").join(layout.backup_data(&backup.id, "base", 3).as_str());
    let content = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let error = world.plan(&world.request("to")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert!(error.to_string().contains("data/base/00000003 is missing"), "{error}");
    std::fs::write(&object, &content[..content.len() - 1]).unwrap();
    let text = world.refused(&world.request("to"));
    assert!(text.contains(&format!("has {} bytes instead of {}", content.len() - 1, content.len())), "{text}");
    std::fs::write(&object, &content).unwrap();
    std::fs::remove_file(world.path("repository").join(layout.backup_index(&backup.id, 0).as_str())).unwrap();
    assert!(world.refused(&world.request("to")).contains("index/00000000 is missing"));
    assert!(!world.path("to").exists());
}

#[test]
fn a_damaged_object_ends_the_restore_and_nothing_can_be_started() {
    let (world, backup) = with_backup();
    let object = world.path("repository").join(world.cluster.layout().backup_data(&backup.id, "base", 5).as_str());
    let mut content = std::fs::read(&object).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&object, &content).unwrap();
    let plan = world.plan(&world.request("to")).unwrap();
    let error = on_runtime(restore::execute(&world.source(), &plan, &())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains("data/base/00000005") && text.contains("cannot be started"), "{text}");
    assert!(!world.path("to/global/pg_control").exists());
    let text = world.refused(&world.request("to"));
    assert!(text.contains("holds a restore that did not finish"), "{text}");
}

#[test]
fn holes_in_the_wal() {
    let (world, backup) = with_backup();
    let mut names = vec![world.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap()];
    for n in 0..3 {
        world.sql(&format!("INSERT INTO t VALUES (-1, '{n}')"));
        world.archive();
        names.push(world.server.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap());
    }
    world.lose(&names[1]);
    let request = RestoreRequest { role: Role::Copy, ..world.request("to") };
    let error = world.plan(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    let text = error.to_string();
    assert!(text.contains(&format!("{} is missing, while {} is there", names[1], names[2])), "{text}");
    // A target before it is none of its business.
    let immediate = RestoreRequest { target: RecoveryTarget::Immediate, ..request.clone() };
    world.plan(&immediate).unwrap();
    // Accepted: what lies before it comes back.
    let accepted = RestoreRequest { accept_gap: vec![names[1].parse().unwrap()], ..request.clone() };
    let copy = world.open(&accepted);
    assert_eq!(copy.psql("SELECT count(*) FROM t WHERE n = -1").unwrap(), "1");
    // What the backup itself needs cannot be given up.
    world.lose(&backup.wal[0].name.to_string());
    let text = world.refused(&RestoreRequest { accept_gap: vec![backup.wal[0].name], ..world.request("other") });
    assert!(text.contains(&format!("needs {}", backup.wal[0].name)), "{text}");
}

#[test]
fn no_backup_a_damaged_one_and_an_unknown_one() {
    let world = World::new(15);
    world.archive();
    assert!(world.refused(&world.request("to")).contains("there is no backup in the repository"));
    world.backup_with(FIRST, |manifest| manifest.damaged.push("page 7 of base/1/1259".into()));
    world.archive();
    let text = world.refused(&world.request("to"));
    assert!(text.contains("only damaged backups"), "{text}");
    let named = RestoreRequest { backup: FIRST.parse().ok(), ..world.request("to") };
    let plan = world.plan(&named).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("page 7")), "{:?}", plan.notes);
    let unknown = RestoreRequest { backup: SECOND.parse().ok(), ..world.request("to") };
    assert!(world.refused(&unknown).contains("there is no backup"));
}
