//! `walhalla init`: what it refuses, and what it never overwrites.

use super::*;
use crate::support::postgres::Postgres;
use crate::support::{stores, synthetic, temporary, user};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use walhalla::pg::SegmentSize;
use walhalla::repo::{ClusterIdentity, Repository};

#[test]
fn a_configuration_file_is_never_written_over() {
    let server = Postgres::builder(15).create();
    let place = server.directory();
    let variables = depot(place);
    let data = server.data().display().to_string();
    let file = place.join("walhalla.toml");
    let name = file.display().to_string();
    let init = ["init", "--data-directory", &data, "--write-config", &name];
    let output = walhalla(place, &variables, &init);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("storage"), "{written}");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    refused(place, &variables, &init, 78, &[&name, "not written over"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    // Nor what a link leads to.
    let link = place.join("link.toml");
    std::os::unix::fs::symlink(place.join("elsewhere"), &link).unwrap();
    let name = link.display().to_string();
    refused(place, &variables, &["init", "-D", &data, "--write-config", &name], 78, &[&name]);
    assert!(!place.join("elsewhere").exists());
    let name = place.join("missing/walhalla.toml").display().to_string();
    let output = walhalla(place, &variables, &["init", "-D", &data, "--write-config", &name]);
    must_refuse(&output, output.status.and_then(|status| u8::try_from(status).ok()).unwrap(), &[&name]);
    assert_ne!(output.status, Some(0));
}

#[test]
fn another_cluster_has_its_own_folder_and_another_segment_size_is_refused() {
    let (one, two) = (Postgres::builder(15).start(), Postgres::builder(15).create());
    let place = temporary();
    user::give(place.path());
    let variables = depot(place.path());
    for server in [&one, &two, &one] {
        let data = server.data().display().to_string();
        let output = walhalla(place.path(), &variables, &["init", "-D", &data]);
        assert_eq!(output.status, Some(0), "{}", output.stderr);
    }
    // Which of the two is meant?
    refused(place.path(), &variables, &["list"], 78, &["--cluster"]);
    // The same cluster, but with other segments: `pg_resetwal --wal-segsize`.
    let identity = synthetic::identity(&one);
    let other = place.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let variables = stores::directory(&other);
    let storage = stores::open(&variables);
    let cluster = Repository::new(Arc::clone(&storage), None).cluster(identity.system_identifier);
    let before = ClusterIdentity { wal_segment_size: SegmentSize::DEFAULT, ..identity };
    tokio::runtime::Runtime::new().unwrap().block_on(cluster.ensure_identity(&before)).unwrap();
    user::give(&other);
    let data = one.data().display().to_string();
    for verb in [&["init", "-D", &data][..], &["backup", "--dsn", &one.dsn()]] {
        refused(place.path(), &variables, verb, 65, &["16777216", "1048576"]);
    }
}

#[test]
fn directories_that_are_none() {
    let place = temporary();
    user::give(place.path());
    let variables = depot(place.path());
    let nowhere = place.path().join("nowhere").display().to_string();
    refused(place.path(), &variables, &["init", "-D", &nowhere], 78, &[&nowhere, "--data-directory"]);
    let empty = place.path().display().to_string();
    refused(place.path(), &variables, &["init", "-D", &empty], 78, &[&empty, "no data directory"]);
    std::fs::create_dir(place.path().join("global")).unwrap();
    std::fs::write(place.path().join("global/pg_control"), "rubbish").unwrap();
    refused(place.path(), &variables, &["init", "-D", &empty], 65, &["pg_control"]);
    assert!(is_empty(place.path()));
}
