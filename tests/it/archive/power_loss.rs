//! Power loss on a local directory while `walhalla-archive` works: what was not synced may vanish, and nothing acknowledged does.

use super::bench::{Bench, segment_name};
use super::crash::Place;
use crate::support::forgetful::{self, Disk, Survives};
use crate::support::{long_run, seed, skipped, strace};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

/// The spool of a bench.
fn spool(bench: &Bench) -> PathBuf {
    PathBuf::from(&bench.environment()["WALHALLA_SPOOL"])
}

/// Records a call for segment 2, fails the power at every moment of it, and looks at everything that may be found then.
fn lose_power(what: &str, place: &Place) {
    if let Some(why) = strace::unavailable() {
        return skipped(&format!("power loss in {what}"), why);
    }
    let bench = &place.bench;
    std::fs::create_dir_all(spool(bench)).unwrap();
    std::os::unix::fs::chown(spool(bench), None, None).unwrap();
    std::fs::set_permissions(spool(bench), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let repository = Disk::of(&[bench.repository()]);
    let both = Disk::of(&[bench.repository(), spool(bench)]);
    let ended = strace::trace(&place.call("walhalla-archive", &[&bench.wal(2)]), forgetful::CALLS, None, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);

    // Whatever of the names survives, no key ever names bytes that may be lost; and what exit 0 claims is durable.
    let mut disk = repository;
    for (number, call) in ended.calls.iter().enumerate() {
        disk.apply(call);
        let torn: Vec<_> = disk.torn().into_iter().filter(|path| is_object(path)).collect();
        assert!(torn.is_empty(), "{what}: after call {number}, {call:?}, a power loss tears {torn:?}");
        let key = |name: &str| disk.undecided().into_iter().any(|path| path.ends_with(name));
        let archived =
            disk.find(&bench.repository().join(format!("{}/wal/00000001/{}", bench.system(), segment_name(2))));
        assert!(archived.is_none() || !key("cluster.json"), "{what}: WAL before the identity is durable");
    }
    let lost: Vec<_> = disk.undecided().into_iter().filter(|path| is_object(path)).collect();
    assert!(lost.is_empty(), "{what}: exit 0, and a power loss takes {lost:?}");

    let (found, seed) = (every_remainder(both, &ended.calls), seed());
    let mut order: Vec<_> = found.iter().collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let tried = if long_run() { order.len() } else { order.len().min(25) };
    println!("{what}: {tried} of {} remainders of {} calls tried; seed {seed}", order.len(), ended.calls.len());
    for remainder in &order[..tried] {
        let after = Place::in_directory();
        forgetful::lay_out(remainder, &bench.repository(), &after.bench.repository());
        forgetful::lay_out(remainder, &spool(bench), &spool(&after.bench));
        std::fs::set_permissions(spool(&after.bench), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        after.nothing_is_torn();
        after.bench.archive(&[&after.bench.wal(2)]).expect_silent_success();
        after.nothing_is_torn();
        after.holds(2);
    }
}

fn is_object(path: &std::path::Path) -> bool {
    !path.file_name().unwrap().to_str().unwrap().starts_with(".~")
}

/// Every different disk that may be found if the power fails between two calls.
fn every_remainder(start: Disk, calls: &[strace::Call]) -> Vec<std::collections::BTreeMap<PathBuf, forgetful::Item>> {
    let mut end = start.clone();
    calls.iter().for_each(|call| end.apply(call));
    let contents = end.contents();
    let (mut disk, mut seen, mut found) = (start, HashSet::new(), Vec::new());
    for (number, call) in (0..).zip(calls) {
        disk.apply(call);
        disk.learn(&contents);
        for survives in [Survives::Nothing, Survives::Names, Survives::Bytes, Survives::Some(number)] {
            let remainder = disk.after_power_loss(survives);
            let mut hasher = DefaultHasher::new();
            remainder.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                found.push(remainder);
            }
        }
    }
    found
}

#[test]
fn in_the_first_call() {
    lose_power("the first call", &Place::in_directory());
}

#[test]
fn in_a_later_call() {
    lose_power("a later call", &Place::in_directory().used());
}

/// The object is there already, by a call that was killed before it had synced anything: "stored" is said only once it is durable.
#[test]
fn in_a_call_that_finds_its_object() {
    let place = Place::in_directory().used();
    place.bench.archive(&[&place.bench.wal(2)]).expect_silent_success();
    if let Some(why) = strace::unavailable() {
        return skipped("power loss in a call that finds its object", why);
    }
    let repository = place.bench.repository();
    let mut disk = Disk::of(std::slice::from_ref(&repository));
    // As the killed call left it: whole, and nothing durable from the cluster's folder on.
    disk.forget_syncs();
    let ended = strace::trace(&place.call("walhalla-archive", &[&place.bench.wal(2)]), forgetful::CALLS, None, None);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    ended.calls.iter().for_each(|call| disk.apply(call));
    let object = repository.join(format!("{}/wal/00000001/{}", place.bench.system(), segment_name(2)));
    let on_the_way: Vec<_> = disk.undecided().into_iter().filter(|path| object.starts_with(path)).collect();
    assert!(on_the_way.is_empty(), "exit 0, and a power loss takes {on_the_way:?}");
}
