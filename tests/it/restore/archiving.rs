//! What becomes of archiving in a restored server (requirement E4).

use super::*;
use walhalla::restore::Role;

fn with_backup() -> World {
    let world = World::new(15);
    world.sql("CREATE TABLE t (n int)");
    world.backup(FIRST);
    world.archive();
    world
}

fn archived(world: &World, name: &str) -> bool {
    let key = world.cluster.layout().wal(&name.parse().unwrap());
    world.path("repository").join(key.as_str()).exists()
}

#[test]
fn a_primary_archives_at_once() {
    let world = with_backup();
    world.server.kill();
    let primary = world.open(&RestoreRequest { role: Role::Primary, ..world.request("primary") });
    assert!(!primary.data().join(restore::HELD).exists());
    let name = primary.switch_wal();
    primary.wait_archived(&name, Duration::from_secs(60));
    assert!(archived(&world, "00000002.history") && archived(&world, &name));
}

#[test]
fn unsaid_it_is_held_until_it_is_released() {
    let world = with_backup();
    world.server.kill();
    let held = world.open(&world.request("held"));
    held.wait_log("walhalla restore --release", Duration::from_secs(60));
    assert!(!archived(&world, "00000002.history"));
    let release = restore::release(held.data()).unwrap();
    assert!(release.was_held && release.remains.is_none());
    let name = held.switch_wal();
    held.wait_archived(&name, Duration::from_secs(120));
    assert!(archived(&world, "00000002.history") && archived(&world, &name));
    assert!(!restore::release(held.data()).unwrap().was_held);

    // A backup of a held server: whether the next one is held is decided anew.
    let again = world.backup_of(&held, SECOND);
    let name = held.switch_wal();
    held.wait_archived(&name, Duration::from_secs(60));
    assert_eq!(again.end_timeline, synthetic::timeline(2));
}

#[test]
fn a_copy_does_not_archive() {
    let world = with_backup();
    let copy = world.open(&RestoreRequest { role: Role::Copy, ..world.request("copy") });
    assert_eq!(copy.psql("SHOW archive_mode").unwrap(), "off");
    assert!(copy.data().join(restore::HELD).exists());
    copy.switch_wal();
    assert!(!archived(&world, "00000002.history"));
    let release = restore::release(copy.data()).unwrap();
    assert!(release.remains.unwrap().contains("archive_mode is off"));
}

#[test]
fn a_backup_of_a_held_server_restored_as_primary_is_not_held() {
    let world = with_backup();
    let held = world.server.data().join(restore::HELD);
    std::fs::write(&held, "held").unwrap();
    user::give(&held);
    // Nothing is archived while the file is there, so the backup fetches its WAL by itself.
    let output = world.walhalla(&["backup", "--wal-timeout", "1s", "--dsn", &world.server.dsn()]);
    assert_eq!(output.status, Some(0));
    std::fs::remove_file(&held).unwrap();
    world.archive();
    let backup = on_runtime(world.cluster.backups()).unwrap().pop().unwrap();
    assert!(backup.wal.iter().all(|needed| needed.own));
    let request = RestoreRequest { backup: Some(backup.id), role: Role::Primary, ..world.request("primary") };
    world.restore(&request);
    world.verify(&world.path("primary"));
    assert!(!world.path("primary").join(restore::HELD).exists());
}
