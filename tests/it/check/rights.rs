//! The least that a key needs: put, get, list. With that everything works; without one of them, check says which.

use super::*;
use crate::support::fake_s3::Right;

fn deny(site: &Site, rights: &[Right]) {
    let denied = rights.iter().map(|right| (*right, String::new())).collect();
    site.s3.personality(|personality| personality.denied = denied);
}

#[test]
fn with_put_get_and_list_everything_works() {
    let site = Site::new();
    deny(&site, &[Right::Delete]);
    let server = site.server(15);
    let output = site.walhalla(&["init", "--dsn", &server.dsn()]);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    server.psql("CREATE TABLE t (a int)").unwrap();
    site.backup(&server);
    server.psql("INSERT INTO t VALUES (42)").unwrap();
    let segment = server.switch_wal();
    server.wait_archived(&segment, LONG);
    let checked = site.check(&server, &[]);
    checked.expect_status(0).expect("permissions", "ok", &["put, get and list"]);
    checked.expect("delete", "ok", &["may not delete"]);
    assert_eq!(site.s3.requests_of("DELETE").len(), 1);
    // Asked once, then known.
    site.check(&server, &["--no-switch"]).expect("delete", "ok", &["may not delete"]);
    assert_eq!(site.s3.requests_of("DELETE").len(), 1);

    let copy = site.home.path().join("copy");
    let to = copy.display().to_string();
    let output = site.walhalla(&["restore", "--to", &to, "--as", "copy", "--target-action", "promote"]);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let mut builder = Postgres::builder(15).setting("archive_mode", "off");
    for (name, value) in site.variables() {
        builder = builder.env(name, value);
    }
    let copy = builder.adopt(&copy);
    copy.start().unwrap();
    copy.wait_sql("SELECT a FROM t", "42", LONG);
    // Nor was anything asked for outside of the prefix, to which a policy binds the key.
    let below = format!("{PREFIX}/");
    for request in site.s3.requests() {
        assert!(["PUT", "GET", "DELETE"].contains(&request.method.as_str()), "{request:?}");
        assert!(request.key.starts_with(&below) || request.prefix.starts_with(&below), "{request:?}");
    }
}

#[test]
fn without_one_of_them_check_says_which() {
    let site = Site::new();
    let server = site.ready(15);
    for (right, word, action) in [
        (Right::Put, "may not put", "s3:PutObject"),
        (Right::Get, "may not get", "s3:GetObject"),
        (Right::List, "may not list", "s3:ListBucket"),
    ] {
        deny(&site, &[right]);
        let checked = site.check(&server, &["--no-switch"]);
        checked.expect_status(2).expect("permissions", "critical", &[word, action, "AccessDenied"]);
        // What cannot be known without it is not called right.
        let unknown: &[&str] = match right {
            Right::Put => &["create_only", "integrity", "if_match"],
            Right::Get => &["identity", "archiver", "backups"],
            _ => &["listing", "clock", "backups"],
        };
        for subject in unknown {
            checked.expect(subject, "unknown", &[]);
        }
    }
    deny(&site, &[]);
    site.check(&server, &["--no-switch"]).expect_status(0);
}

#[test]
fn without_list_a_forced_segment_still_proves_archiving() {
    let site = Site::new();
    let server = site.ready(15);
    deny(&site, &[Right::List]);
    // A key that is missing is answered 403: whether it has come is not known until it is there.
    let checked = site.check(&server, &["--wait", "20s"]);
    checked.expect_status(2).expect("permissions", "critical", &["may not list"]);
    assert!(["ok", "unknown"].contains(&checked.said("arrival").severity.as_str()));
}
