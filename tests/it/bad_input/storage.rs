//! Storages that refuse, that are not there, that are not what they are taken for.

use super::*;
use crate::support::fake_s3::{ACCESS_KEY, BUCKET, FakeS3, Personality, Right, SECRET_KEY};
use crate::support::postgres::Postgres;
use crate::support::{free_port, stores, temporary};
use std::net::TcpListener;
use std::time::Duration;

/// All verbs that touch the storage first, in this state of things.
fn all_refused(server: &Postgres, variables: &Variables, status: u8, words: &[&str]) {
    let (data, dsn) = (server.data().display().to_string(), server.dsn());
    let to = server.directory().join("target").display().to_string();
    for verb in [
        &["list"][..],
        &["list", "--cluster", "7000000000000000000"],
        &["restore", "--to", &to],
        &["init", "--data-directory", &data],
        &["backup", "--dsn", &dsn],
    ] {
        refused(server.directory(), variables, verb, status, words);
        assert!(!server.directory().join("target").exists());
    }
}

#[test]
fn refusals() {
    let server = Postgres::builder(15).start();
    let s3 = FakeS3::start();
    let endpoint = s3.endpoint();
    let right = stores::fake(&s3, &endpoint, "p");
    let wrong = stores::s3_at(&endpoint, BUCKET, "p", ACCESS_KEY, "hunter2");
    all_refused(&server, &wrong, 77, &[&endpoint, "SignatureDoesNotMatch"]);
    let unknown = stores::s3_at(&endpoint, BUCKET, "p", "AKIDOTHER", SECRET_KEY);
    all_refused(&server, &unknown, 77, &[&endpoint, "InvalidAccessKeyId"]);
    s3.personality(|store| store.no_such_bucket = true);
    all_refused(&server, &right, 78, &["bucket", &endpoint, "NoSuchBucket"]);
    s3.personality(|store| *store = Personality::honest());
    // A missing key answers 403 then, which must not look like an empty repository.
    s3.personality(|store| store.denied = vec![(Right::List, String::new())]);
    all_refused(&server, &right, 77, &[&endpoint, "AccessDenied"]);
    s3.personality(|store| store.denied = vec![(Right::Put, String::new())]);
    let data = server.data().display().to_string();
    refused(server.directory(), &right, &["init", "--data-directory", &data], 77, &["AccessDenied", &endpoint]);
    assert!(!s3.keys().iter().any(|key| key.contains("/backup/")), "{:?}", s3.keys());
}

#[test]
fn a_wrong_region_is_corrected_or_told() {
    let server = Postgres::builder(15).create();
    let s3 = FakeS3::start();
    s3.personality(|store| store.region = Some("eu-central-1".to_owned()));
    let mut variables = stores::fake(&s3, &s3.endpoint(), "p");
    variables.push(("WALHALLA_S3_REGION", "us-west-2".to_owned()));
    let data = server.data().display().to_string();
    let output = walhalla(server.directory(), &variables, &["init", "--data-directory", &data]);
    if output.status != Some(0) {
        must_refuse(&output, 78, &["eu-central-1", "s3_region"]);
    }
}

#[test]
fn an_authority_that_nobody_knows() {
    let server = Postgres::builder(15).create();
    let s3 = FakeS3::start_https();
    let mut variables = stores::fake(&s3, &s3.endpoint(), "p");
    variables.retain(|(name, _)| *name != "WALHALLA_S3_CA_FILE");
    let data = server.data().display().to_string();
    for verb in [&["list"][..], &["init", "--data-directory", &data]] {
        refused(server.directory(), &variables, verb, 78, &[&s3.endpoint(), "certificate", "s3_ca_file"]);
    }
}

#[test]
fn out_of_reach() {
    let place = temporary();
    // Accepts and never answers; and nobody there at all.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [
        format!("http://127.0.0.1:{}", free_port()),
        format!("http://{}", deaf.local_addr().unwrap()),
        "http://walhalla.invalid".to_owned(),
    ];
    std::thread::scope(|scope| {
        for endpoint in &endpoints {
            let place = place.path();
            scope.spawn(move || {
                let variables = stores::s3_at(endpoint, BUCKET, "p", ACCESS_KEY, SECRET_KEY);
                let output = walhalla(place, &variables, &["list"]);
                must_refuse(&output, 75, &[endpoint]);
                assert!(output.took < Duration::from_secs(60), "{endpoint}: {:?}", output.took);
            });
        }
    });
}

#[test]
fn directories() {
    let place = temporary();
    let server = Postgres::builder(15).create();
    let data = server.data().display().to_string();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(
        place.path(),
        &stores::directory(&file),
        &["init", "--data-directory", &data],
        78,
        &["file", "no directory"],
    );
    let nowhere = place.path().join("nowhere");
    let line = walhalla(place.path(), &stores::directory(&nowhere), &["list"]);
    must_refuse(&line, 78, &["nowhere", "does not exist"]);
    if crate::support::user::is_root() {
        let closed = place.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        refused(
            place.path(),
            &stores::directory(&closed),
            &["init", "--data-directory", &data],
            77,
            &["closed", "right to read and write"],
        );
    }
}
