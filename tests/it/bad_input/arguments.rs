//! Arguments and settings: wrong, missing, half-written.

use super::*;
use crate::support::{temporary, user};

#[test]
fn arguments_that_make_no_sense() {
    let place = temporary();
    let variables = depot(place.path());
    for (arguments, words) in [
        (&["frobnicate"][..], &["frobnicate"][..]),
        (&["restore"], &["--to"]),
        (&["restore", "--to"], &["--to", "value"]),
        (&["restore", "--to", "x", "--target-xid", "abc"], &["--target-xid", "abc"]),
        (&["restore", "--to", "x", "--target-action", "explode"], &["explode", "pause, promote, shutdown"]),
        (&["restore", "--to", "x", "--as", "king"], &["king", "copy, primary"]),
        (
            &["restore", "--to", "x", "--target-lsn", "0/1", "--target-name", "n"],
            &["--target-lsn", "cannot be used with", "--target-name"],
        ),
        (&["restore", "--to", "x", "--release", "y"], &["--release", "--to"]),
        (&["backup", "--max-rate", "fast"], &["--max-rate", "fast"]),
        (&["list", "--no-such"], &["--no-such"]),
        (&["list", "surplus"], &["surplus"]),
        (&["init", "--data-directory"], &["--data-directory"]),
    ] {
        let line = refused(place.path(), &variables, arguments, 64, words);
        assert!(line.contains("--help"), "{line}");
    }
    // Nothing asked for: told what there is, and still no success.
    let output = walhalla(place.path(), &variables, &[]);
    assert_eq!(output.status, Some(64));
    assert!(output.stderr.contains("Usage: walhalla") && output.stderr.contains("restore"), "{}", output.stderr);
    assert_eq!(walhalla(place.path(), &variables, &["restore", "--help"]).status, Some(0));
}

#[test]
fn values_that_cannot_be_read() {
    let place = temporary();
    let variables = depot(place.path());
    let long = "n".repeat(64);
    for (option, value, words) in [
        ("--target-lsn", "zzz", &["--target-lsn", "zzz"][..]),
        ("--target-lsn", "0/1/2", &["--target-lsn", "0/1/2"]),
        ("--target-time", "yesterday", &["--target-time", "yesterday", "write it like"]),
        ("--target-time", "2026-11-24 14:03:59", &["2026-11-24 14:03:59", "zone"]),
        ("--target-time", "2026-13-24 14:03:59+00", &["2026-13-24"]),
        ("--target-name", "", &["--target-name"]),
        ("--target-name", &long, &["--target-name", "63"]),
        ("--target-xid", "0", &["--target-xid"]),
        ("--target-xid", "99999999999", &["--target-xid", "32 bits"]),
        ("--target-timeline", "0", &["--target-timeline", "0"]),
        ("--target-timeline", "newest", &["--target-timeline", "newest"]),
        ("--backup", "latest", &["--backup", "latest", "20261123T170159Z-7f3a1c"]),
        ("--accept-gap", "3", &["--accept-gap", "3"]),
        ("--tablespace", "here", &["here", "OLD=NEW"]),
        ("--cluster", "mine", &["--cluster", "mine"]),
    ] {
        refused(place.path(), &variables, &["restore", "--to", "target", option, value], 78, words);
    }
    refused(place.path(), &variables, &["list", "--cluster", "x"], 78, &["--cluster", "x"]);
    refused(place.path(), &variables, &["backup", "--wal-timeout", "soon"], 78, &["--wal-timeout", "soon"]);
    assert!(!place.path().join("target").exists());
}

/// A configuration file with this text, which the server's user may read.
fn file(place: &Path, text: &str) -> String {
    let path = place.join("walhalla.toml");
    std::fs::write(&path, text).unwrap();
    user::give(&path);
    path.display().to_string()
}

#[test]
fn the_configuration_file() {
    let place = temporary();
    for (text, words) in [
        ("storage = \"file:///srv/x\"\nstorrage = 1\n", &["walhalla.toml: line 2: storrage"][..]),
        ("storage = \"file:///srv/x\"\narchive_timeout = \"soon\"\n", &["walhalla.toml", "archive_timeout", "soon"]),
        ("storage = \"file:///srv/x\"\nconcurrency = 0\n", &["walhalla.toml", "concurrency"]),
        ("storage = \"file:///srv/x\"\nrestore_timeout = [1]\n", &["walhalla.toml", "restore_timeout"]),
        ("storage = \"file:///srv/x\n", &["walhalla.toml: line 1"]),
        (
            "storage = \"s3://bucket\"\naws_secret_access_key = \"hunter2\"\n",
            &["aws_secret_access_key", "aws_access_key_id"],
        ),
        ("storage = \"s3://bucket\"\naws_secret_access_key = hunter2\n", &["walhalla.toml: line 2"]),
        ("storage = \"s3://key:hunter2@bucket\"\n", &["walhalla.toml", "storage"]),
        ("", &["no storage is configured", "WALHALLA_STORAGE"]),
    ] {
        let config = file(place.path(), text);
        refused(place.path(), &Vec::new(), &["--config", &config, "list"], 78, words);
    }
    let nowhere = place.path().join("nowhere.toml").display().to_string();
    refused(place.path(), &Vec::new(), &["--config", &nowhere, "list"], 78, &["nowhere.toml"]);
}

#[test]
fn the_environment() {
    let place = temporary();
    let s3 = ("WALHALLA_STORAGE", "s3://bucket/x".to_owned());
    for (variables, words) in [
        (vec![], &["no storage is configured", "WALHALLA_STORAGE"][..]),
        (vec![("WALHALLA_STORAGE", "bucket".to_owned())], &["WALHALLA_STORAGE", "s3://"]),
        (vec![("WALHALLA_STORAGE", "s3://key:hunter2@bucket/x".to_owned())], &["WALHALLA_STORAGE"]),
        (
            vec![s3.clone(), ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned())],
            &["AWS_SECRET_ACCESS_KEY is set", "AWS_ACCESS_KEY_ID is not"],
        ),
        (vec![s3.clone(), ("WALHALLA_S3_ENDPOINT", "https://key:hunter2@host".to_owned())], &["WALHALLA_S3_ENDPOINT"]),
        (vec![s3.clone(), ("WALHALLA_ARCHIVE_TIMEOUT", "1 fortnight".to_owned())], &["WALHALLA_ARCHIVE_TIMEOUT"]),
        (vec![s3.clone(), ("WALHALLA_IDENTITY", "hunter2".to_owned())], &["WALHALLA_IDENTITY"]),
        (vec![s3.clone(), ("WALHALLA_IDENTITY", "AGE-SECRET-KEY-1HUNTER2".to_owned())], &["WALHALLA_IDENTITY"]),
        (vec![s3.clone(), ("WALHALLA_RECIPIENTS", "age1x".to_owned())], &["WALHALLA_RECIPIENTS"]),
        (vec![s3, ("WALHALLA_S3_CA_FILE", "/nowhere/ca.pem".to_owned())], &["/nowhere/ca.pem"]),
    ] {
        for verb in [&["list"][..], &["backup"], &["restore", "--to", "x"], &["init"]] {
            refused(place.path(), &variables, verb, 78, words);
        }
    }
}

#[test]
fn connection_strings() {
    let place = temporary();
    let variables = depot(place.path());
    for (dsn, words) in [
        ("nonsense", &["connection string", "host=…"][..]),
        ("postgre://me:hunter2@db/x?sslmode=require", &["connection string", "postgres://"]),
        ("postgres://me:hun/hunter2@db/x", &["connection string", "%2F"]),
        ("postgres://me:hunter2%zz@db", &["connection string", "hexadecimal"]),
        ("host=db password='hunter2", &["connection string", "quoted"]),
        ("host=db sslpassword=hunter2", &["sslpassword", "not supported"]),
        ("host=db port=99999", &["port", "99999"]),
        ("host=db gssencmode=require", &["gssencmode=require", "not supported"]),
        ("service=none", &["none"]),
    ] {
        for verb in ["backup", "init"] {
            refused(place.path(), &variables, &[verb, "--dsn", dsn], 78, words);
        }
    }
}
