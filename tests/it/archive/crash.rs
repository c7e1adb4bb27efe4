//! The two programs, ended at each of their crash points (`support/crash.rs`).

use super::bench::{Bench, SEGMENT, segment, segment_name};
use crate::support::binaries;
use crate::support::crash::{Sample, Scenario, try_points};
use crate::support::fake_s3::{Condition, FakeS3};
use crate::support::stores;
use crate::support::strace::Program;
use std::time::Duration;
use walhalla::codec;

/// A data directory and its repository.
pub(super) struct Place {
    // The store of `bench`, where that is not a directory.
    s3: Option<FakeS3>,
    pub(super) bench: Bench,
}

impl Place {
    pub(super) fn in_directory() -> Self {
        Self { s3: None, bench: Bench::on_directory() }
    }

    fn in_s3() -> Self {
        let s3 = FakeS3::start();
        Self { bench: Bench::on(&s3), s3: Some(s3) }
    }

    /// A store without conditional create: claims instead.
    fn in_s3_by_claims() -> Self {
        let place = Self::in_s3();
        place.s3.as_ref().unwrap().personality(|p| p.create_only = Condition::Ignore);
        place
    }

    /// One that has archived before: the steady state.
    pub(super) fn used(self) -> Self {
        self.bench.archive(&[&self.bench.wal(1)]).expect_silent_success();
        self
    }

    pub(super) fn call(&self, program: &str, arguments: &[&str]) -> Program {
        Program {
            path: binaries::directory().join(program),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: self.bench.environment().iter().map(|(name, value)| (name.clone(), value.into())).collect(),
            directory: self.bench.data(),
            as_server: false,
        }
    }

    /// Every object there is, by key, the cluster's folder left out.
    fn objects(&self) -> Vec<(String, Vec<u8>)> {
        match &self.s3 {
            Some(s3) => {
                s3.keys().into_iter().map(|key| (key.clone(), s3.object(&key).unwrap().body.to_vec())).collect()
            }
            None => stores::objects_in(&self.bench.repository()),
        }
    }

    /// No object under a key is torn: each is whole, and says of itself what its key says.
    pub(super) fn nothing_is_torn(&self) {
        for (key, body) in self.objects() {
            if key.contains("/wal/") {
                let header =
                    codec::verify(&body).unwrap_or_else(|defect| panic!("{key} ({} bytes): {defect}", body.len()));
                let number = header.subject.start.0 >> 20;
                assert!(key.ends_with(&segment_name(number as u8)), "{key}: {header:?}");
            } else if key.ends_with("/cluster.json") {
                let identity: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(identity["system_identifier"], self.bench.system().to_string());
            }
        }
    }

    /// The segment of this number is in the repository, whole.
    pub(super) fn holds(&self, number: u8) {
        let key = format!("/{}", segment_name(number));
        let objects = self.objects();
        let found =
            objects.iter().filter(|(name, _)| name.contains("/wal/") && name.ends_with(&key)).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{key}");
        let (_, plain) = codec::plain_of(&found[0].1, &codec::Identities::default()).unwrap();
        assert!(plain == segment(number), "{key} has other content");
    }
}

/// `walhalla-archive` of segment 2.
fn archiving(name: &str, prepare: &(dyn Fn() -> Place + Sync), sample: Sample, signals: &[&'static str]) {
    let scenario = Scenario {
        name,
        prepare: &|| {
            let place = prepare();
            place.bench.wal(2);
            place
        },
        root: &|place| place.bench.data().parent().unwrap().to_owned(),
        program: &|place| place.call("walhalla-archive", &[&format!("pg_wal/{}", segment_name(2))]),
        broken: &Place::nothing_is_torn,
        again: &|place| {
            place.bench.archive(&[&format!("pg_wal/{}", segment_name(2))]).expect_silent_success();
            place.nothing_is_torn();
            place.holds(2);
        },
    };
    try_points(&scenario, signals, sample);
}

const EVERY_SIGNAL: &[&str] = &["KILL", "TERM", "QUIT"];
/// For what there is more of than time.
const SOME: Sample = Sample::Within(Duration::from_secs(5));

#[test]
fn archiving_into_a_directory() {
    archiving("the first call into a directory", &Place::in_directory, Sample::All, &["KILL"]);
    archiving("walhalla-archive into a directory", &|| Place::in_directory().used(), Sample::All, EVERY_SIGNAL);
    archiving("the first call into a directory, other signals", &Place::in_directory, SOME, &["TERM", "QUIT"]);
}

#[test]
fn archiving_into_s3() {
    archiving("the first call into S3", &Place::in_s3, Sample::All, &["KILL"]);
    archiving("walhalla-archive into S3", &|| Place::in_s3().used(), Sample::All, EVERY_SIGNAL);
    archiving("the first call into S3, other signals", &Place::in_s3, SOME, &["TERM", "QUIT"]);
}

#[test]
fn archiving_by_claims() {
    archiving("walhalla-archive by claims", &|| Place::in_s3_by_claims().used(), SOME, EVERY_SIGNAL);
}

/// `walhalla-restore` of segment 2, in a recovery.
fn fetching(name: &str, prepare: &(dyn Fn() -> Place + Sync), signals: &[&'static str]) {
    let (asked, delivered) = (segment_name(2), "pg_wal/RECOVERYXLOG");
    let scenario = Scenario {
        name,
        prepare: &|| {
            let place = prepare();
            for number in 1..=3 {
                place.bench.archive(&[&place.bench.wal(number)]).expect_silent_success();
                std::fs::remove_file(place.bench.data().join("pg_wal").join(segment_name(number))).unwrap();
            }
            place.bench.write("recovery.signal", "");
            place
        },
        root: &|place| place.bench.data().parent().unwrap().to_owned(),
        program: &|place| place.call("walhalla-restore", &[&asked, delivered]),
        broken: &|place| {
            place.nothing_is_torn();
            if let Ok(content) = std::fs::read(place.bench.data().join(delivered)) {
                assert!(content == segment(2), "half a file of {} bytes was delivered", content.len());
            }
        },
        again: &|place| {
            place.bench.restore(&[&asked, delivered]).expect_silent_success();
            assert!(std::fs::read(place.bench.data().join(delivered)).unwrap() == segment(2));
            // And the one after it, from wherever it comes.
            place.bench.restore(&[&segment_name(3), delivered]).expect_silent_success();
            let next = std::fs::read(place.bench.data().join(delivered)).unwrap();
            assert!(next.len() == SEGMENT && next == segment(3));
        },
    };
    try_points(&scenario, signals, Sample::All);
}

#[test]
fn fetching_from_a_directory() {
    fetching("walhalla-restore from a directory", &Place::in_directory, EVERY_SIGNAL);
}

#[test]
fn fetching_from_s3() {
    fetching("walhalla-restore from S3", &Place::in_s3, EVERY_SIGNAL);
}
