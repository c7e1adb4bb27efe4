//! Storages with vices, or none at all; a repository of somebody else's.

use super::*;
use crate::support::fake_s3::Personality;
use crate::support::free_port;

#[test]
fn what_the_store_does_is_told_line_by_line() {
    let site = Site::new();
    let server = site.ready(15);
    let honest = ("refuses to create what exists", "refuses bytes that were damaged", "replaces an object only if");
    let vices = ("by the claim protocol", "every file is read back", "must be deleted by you");
    for (personality, create, integrity, if_match) in [
        (Personality::honest(), honest.0, honest.1, honest.2),
        (Personality::without_conditions(), vices.0, honest.1, vices.2),
        (Personality::rejects_conditions(), vices.0, honest.1, vices.2),
        (Personality::old_ceph(), honest.0, honest.1, vices.2),
        (Personality::liar(), vices.0, vices.1, vices.2),
    ] {
        site.s3.personality(|now| *now = personality.clone());
        let checked = site.check(&server, &["--no-switch"]);
        checked.expect("create_only", "ok", &[create]);
        checked.expect("integrity", "ok", &[integrity]);
        checked.expect("if_match", "ok", &[if_match]);
        checked.expect("permissions", "ok", &[]).expect("listing", "ok", &[]).expect_status(0);
    }
}

#[test]
fn no_bucket_no_store_no_credentials() {
    let mut site = Site::new();
    let server = site.ready(15);
    site.s3.personality(|personality| personality.no_such_bucket = true);
    let checked = site.check(&server, &[]);
    checked.expect_status(2).expect("storage", "critical", &["NoSuchBucket"]);
    checked.expect("backups", "unknown", &[]).expect("arrival", "unknown", &[]);
    site.s3.personality(|personality| personality.no_such_bucket = false);

    let mut variables = site.variables();
    for (name, value) in &mut variables {
        if *name == "AWS_SECRET_ACCESS_KEY" {
            *value = "wrong".to_owned();
        }
    }
    let checked =
        Checked::of(site.walhalla_with(&variables, &["check", "--json", "--no-switch", "--dsn", &server.dsn()]));
    checked.expect_status(2).expect("permissions", "critical", &["put, get, list", "SignatureDoesNotMatch"]);

    site.s3.down();
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(2).expect("storage", "critical", &["cannot read", "check WALHALLA_STORAGE"]);
    let mut variables = site.variables();
    for (name, value) in &mut variables {
        if *name == "WALHALLA_S3_ENDPOINT" {
            *value = format!("http://127.0.0.1:{}", free_port());
        }
    }
    let checked =
        Checked::of(site.walhalla_with(&variables, &["check", "--json", "--no-switch", "--dsn", &server.dsn()]));
    checked.expect("storage", "critical", &["127.0.0.1"]);
}

#[test]
fn a_store_that_hangs_ends_no_check() {
    let site = Site::new();
    let server = site.ready(15);
    site.s3.personality(|personality| personality.latency = Duration::from_secs(600));
    let checked = site.check(&server, &["--no-switch", "--timeout", "8s"]);
    checked.expect_status(2).expect("storage", "critical", &[]);
    checked.expect("backups", "unknown", &[]);
}

#[test]
fn clocks() {
    let site = Site::new();
    let server = site.ready(15);
    for (clock, severity, words) in
        [(0, "ok", "agree"), (30, "ok", "30 s ahead"), (120, "warning", "ahead of"), (-120, "warning", "behind")]
    {
        site.s3.personality(|personality| personality.clock = clock);
        let checked = site.check(&server, &["--no-switch"]);
        checked.expect("clock", severity, &[if clock == 30 { "ahead of" } else { words }]);
        assert!((checked.measure("clock_skew") - clock as f64).abs() < 5.0, "{:#}", checked.json);
    }
    // Refused beyond 15 minutes.
    site.s3.personality(|personality| personality.clock = 1200);
    let checked = site.check(&server, &["--no-switch"]);
    checked.expect_status(2).expect("permissions", "critical", &["RequestTimeTooSkewed", "clock"]);
    checked.expect("clock", "unknown", &[]);
}

#[test]
fn somebody_elses_repository() {
    let site = Site::new();
    let first = site.ready(15);
    let theirs = first.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    drop(first);
    let keys = site.s3.keys();
    // Of another cluster: it has archived nothing yet.
    let other = site.builder(15).setting("archive_mode", "off").start();
    let checked = site.check(&other, &[]);
    checked.expect_status(2).expect("identity", "critical", &["another cluster's", &theirs]);
    assert_eq!(site.s3.keys(), keys, "nothing is written there");
    // In its own folder, and it says something else.
    let system = other.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    let json = |major: u32, size: u64| {
        format!(
            "{{\"format\":1,\"system_identifier\":\"{system}\",\"postgres_major\":{major},\"wal_segment_size\":{size}}}\n"
        )
    };
    let key = format!("{PREFIX}/{system}/cluster.json");
    for (content, words) in [
        (json(14, 1 << 20), &["major version 14 there, 15 here"][..]),
        (json(15, 16 << 20), &["segment size 16777216 there, 1048576 here"]),
        ("no json".to_owned(), &["no identity"]),
    ] {
        site.s3.insert(&key, content);
        site.check(&other, &[]).expect_status(2).expect("identity", "critical", words);
    }
}
