//! Backups that are too old, damaged or not there, and gaps.

use super::*;

#[test]
fn no_backup_and_an_old_one() {
    let site = Site::new();
    let server = site.server(15);
    let first = server.switch_wal();
    server.wait_archived(&first, LONG);
    let checked = site.check(&server, &[]);
    checked.expect_status(2).expect("backups", "critical", &["no backup", "walhalla backup"]);
    assert_eq!(checked.complaints(), ["backups", "gaps"]);
    site.backup(&server);
    for (limits, severity, status) in [
        (["--backup-age-warning", "0s", "--backup-age-critical", "1d"], "warning", 1),
        (["--backup-age-warning", "0s", "--backup-age-critical", "0s"], "critical", 2),
        (["--backup-age-warning", "1d", "--backup-age-critical", "2d"], "ok", 0),
    ] {
        let checked = site.check(&server, &[&limits[..], &["--no-switch"]].concat());
        checked.expect_status(status).expect("backups", severity, &["1 backups", "old"]);
    }
}

#[test]
fn gaps_behind_the_newest_and_behind_an_older_backup() {
    let site = Site::new();
    let server = site.ready(15);
    let lost = server.switch_wal();
    let next = server.switch_wal();
    server.wait_archived(&next, LONG);
    let key = site.key(&lost);
    let object = site.s3.object(&key).unwrap();
    site.s3.remove(&key);
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(2).expect("gaps", "critical", &[&lost, "new backup"]);
    // A newer backup lies behind it.
    site.backup(&server);
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(1).expect("gaps", "warning", &[&lost, "newest backup has no gap"]);
    checked.expect("backups", "ok", &["2 backups"]);
    // It comes after all.
    site.s3.insert(&key, object.body);
    site.check(&server, &["--no-switch"]).expect_status(0).expect("gaps", "ok", &[]);
}

#[test]
fn a_backup_whose_own_wal_is_gone_and_a_manifest_that_is_damaged() {
    let site = Site::new();
    let server = site.ready(15);
    let manifest = site.s3.keys().into_iter().find(|key| key.ends_with("/manifest")).unwrap();
    let wal: Vec<String> = site.s3.keys().into_iter().filter(|key| key.contains("/wal/0")).collect();
    let bodies: Vec<_> = wal.iter().map(|key| (key.clone(), site.s3.object(key).unwrap().body)).collect();
    for key in &wal {
        site.s3.remove(key);
    }
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(2).expect("gaps", "critical", &["cannot be restored", "new backup"]);
    for (key, body) in bodies {
        site.s3.insert(&key, body);
    }
    site.backup(&server);
    site.s3.damage(&manifest, |body| {
        let at = body.len() - 3;
        body[at] ^= 1;
    });
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(1).expect("damaged", "warning", &["no backup any more"]);
}
