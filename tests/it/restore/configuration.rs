//! Configuration, encryption, standbys, and WAL that the backup brings itself.

use super::*;
use walhalla::pg::control::ControlFile;
use walhalla::repo::manifest::NeededWal;
use walhalla::restore::{RecoveryTarget, Role};

#[test]
fn a_cluster_whose_configuration_lies_elsewhere_gets_what_it_needs() {
    let world = World::with(15, |builder| builder.setting("max_locks_per_transaction", "80"));
    world.sql("CREATE TABLE t AS SELECT 1 AS n");
    world.backup_without(FIRST, &["postgresql.conf", "pg_hba.conf", "pg_ident.conf"], |manifest| {
        for (setting, file) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            manifest.outside.insert(setting.into(), format!("/etc/postgresql/15/main/{file}"));
        }
    });
    world.archive();
    let report = world.restore(&RestoreRequest { role: Role::Copy, ..world.request("copy") });
    assert!(report.to_string().contains("/etc/postgresql/15/main/postgresql.conf"), "{report}");
    world.verify(&world.path("copy"));
    let copy = world.adopt("copy");
    copy.start().unwrap();
    copy.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
    assert_eq!(copy.psql("SHOW max_locks_per_transaction").unwrap(), "80");
    assert_eq!(copy.psql("SELECT n FROM t").unwrap(), "1");
}

#[test]
fn an_encrypted_backup() {
    let mut world = World::new(15);
    let key = age::x25519::Identity::generate();
    world.recipients = Recipients::parse(&key.to_public().to_string()).unwrap();
    world.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 5000) n");
    world.backup(FIRST);
    world.archive();
    let request = RestoreRequest { role: Role::Copy, ..world.request("copy") };
    let text = world.refused(&request);
    assert!(text.contains("WALHALLA_IDENTITY"), "{text}");
    world.identities = Identities::parse(age::secrecy::ExposeSecret::expose_secret(&key.to_string())).unwrap();
    let copy = world.open(&request);
    assert_eq!(copy.psql("SELECT count(*) FROM t").unwrap(), "5000");
}

#[test]
fn wal_that_the_backup_brings_itself() {
    let world = World::new(15);
    world.sql("CREATE TABLE t AS SELECT 1 AS n");
    let backup = world.backup_with(FIRST, |manifest| {
        manifest.wal = manifest.wal.iter().map(|needed| NeededWal { own: true, ..needed.clone() }).collect();
    });
    world.archive();
    let layout = world.cluster.layout();
    for needed in &backup.wal {
        let name = WalFileName::Segment(needed.name);
        let from = world.path("repository").join(layout.wal(&name).as_str());
        let to = world.path("repository").join(layout.backup_wal(&backup.id, &name).as_str());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&from, to).unwrap();
        std::fs::remove_file(from).unwrap();
    }
    user::give(&world.path("repository"));
    let request = RestoreRequest { target: RecoveryTarget::Immediate, role: Role::Copy, ..world.request("copy") };
    world.restore(&request);
    let own = world.path("copy/pg_wal").join(backup.wal[0].name.to_string());
    assert_eq!(std::fs::metadata(own).unwrap().len(), 1 << 20);
    assert!(world.path("copy/pg_wal/archive_status").join(format!("{}.done", backup.wal[0].name)).exists());
    let copy = world.adopt("copy");
    copy.start().unwrap();
    copy.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
    assert_eq!(copy.psql("SELECT n FROM t").unwrap(), "1");
}

#[test]
fn a_standby_follows_its_primary() {
    let world = World::new(15);
    world.sql("CREATE TABLE t AS SELECT 1 AS n");
    world.backup(FIRST);
    world.archive();
    let request = RestoreRequest {
        standby: true,
        primary_conninfo: Some(format!("{} application_name=it''s", world.server.dsn())),
        ..world.request("standby")
    };
    let plan = world.plan(&request).unwrap();
    assert!(!plan.to_string().contains("127.0.0.1") && !serde_json::to_string(&plan).unwrap().contains("127.0.0.1"));
    world.restore(&RestoreRequest { primary_conninfo: Some(world.server.dsn()), ..request });
    assert!(world.path("standby/standby.signal").exists());
    let standby = world.adopt("standby");
    standby.start().unwrap();
    world.sql("INSERT INTO t VALUES (2)");
    standby.wait_sql("SELECT count(*) FROM t", "2", Duration::from_secs(60));
    let control = std::fs::read(standby.data().join("global/pg_control")).unwrap();
    assert_eq!(ControlFile::parse(&control).unwrap().system_identifier, world.cluster.layout().system());
}
