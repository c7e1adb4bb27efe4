//! `walhalla init`: the probes, the identity, and the configuration file, which is whole or not there.

use super::Place;
use crate::support::crash::{Sample, Scenario, try_points};
use crate::support::forgetful::{self, Disk, Survives};
use crate::support::postgres::Postgres;
use crate::support::{skipped, strace};
use std::time::Duration;

fn arguments(place: &Place, cluster: &Postgres) -> Vec<String> {
    let (data, config) = (cluster.data().display().to_string(), place.path("walhalla.toml").display().to_string());
    ["init", "--data-directory", &data, "--write-config", &config].map(str::to_owned).to_vec()
}

fn all(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The configuration is whole, or not there.
fn configuration(place: &Place) -> Option<String> {
    let text = std::fs::read_to_string(place.path("walhalla.toml")).ok()?;
    assert!(text.contains("storage = ") && text.ends_with('\n'), "half a configuration: {text:?}");
    Some(text)
}

/// Run again, without asking for a configuration that is there: `init` writes over none.
fn init(place: &Place, cluster: &Postgres) {
    let arguments = arguments(place, cluster);
    let there = configuration(place).is_some();
    place.succeeds(&all(if there { &arguments[..3] } else { &arguments }));
    place.nothing_is_torn();
    assert!(configuration(place).is_some());
    assert!(place.objects().iter().any(|(key, _)| key.ends_with("/cluster.json")));
}

fn initialising(name: &str, cluster: &Postgres, prepare: &(dyn Fn() -> Place + Sync)) {
    let scenario = Scenario {
        name,
        prepare,
        root: &|place| place.home.path().to_owned(),
        program: &|place| place.program(&all(&arguments(place, cluster))),
        broken: &|place| {
            place.nothing_is_torn();
            configuration(place);
        },
        again: &|place| init(place, cluster),
    };
    try_points(&scenario, &["KILL", "TERM"], Sample::Within(Duration::from_secs(5)));
}

#[test]
fn ended_at_any_point() {
    let cluster = Postgres::builder(15).create();
    initialising("walhalla init in a directory", &cluster, &Place::in_directory);
    initialising("walhalla init in S3", &cluster, &Place::in_s3);
}

#[test]
fn power_loss() {
    if let Some(why) = strace::unavailable() {
        return skipped("power loss in walhalla init", why);
    }
    let (cluster, place) = (Postgres::builder(15).create(), Place::in_directory());
    let start = Disk::of(&[place.home.path().to_owned()]);
    let ended = strace::trace(&place.program(&all(&arguments(&place, &cluster))), forgetful::CALLS, None, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let counts = |path: &std::path::Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !name.starts_with(".~") && !name.starts_with(".walhalla-") && !path.starts_with(place.path("spool"))
    };
    let mut disk = start.clone();
    for (number, call) in ended.calls.iter().enumerate() {
        disk.apply(call);
        let torn: Vec<_> = disk.torn().into_iter().filter(|path| counts(path)).collect();
        assert!(torn.is_empty(), "after call {number}, {call:?}, a power loss tears {torn:?}");
    }
    let lost: Vec<_> = disk.undecided().into_iter().filter(|path| counts(path)).collect();
    assert!(lost.is_empty(), "exit 0, and a power loss takes {lost:?}");
    let contents = disk.contents();
    for survives in [Survives::Nothing, Survives::Names, Survives::Bytes] {
        let after = Place::in_directory();
        let mut disk = start.clone();
        ended.calls[..ended.calls.len() / 2].iter().for_each(|call| disk.apply(call));
        disk.learn(&contents);
        let remainder = disk.after_power_loss(survives);
        for name in ["repository", "spool"] {
            forgetful::lay_out(&remainder, &place.path(name), &after.path(name));
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(after.path(name), private).unwrap();
            crate::support::user::give(&after.path(name));
        }
        init(&after, &cluster);
    }
}
