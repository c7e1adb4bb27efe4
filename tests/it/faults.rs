//! Whatever the line does: a put that says Ok is there, what is there is whole, and what is there is never called absent.

use crate::support::fake_s3::FakeS3;
use crate::support::proxy::{Plan, Proxy};
use crate::support::{long_run, stores};
use bytes::Bytes;
use std::time::Duration;
use walhalla::storage::{Bounds, Integrity, Key, Limits, PutMode};

/// As many as five hundred broken lines, by lot; `WALHALLA_TEST_SEED` repeats a run.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_never_makes_a_liar() {
    let seed = std::env::var("WALHALLA_TEST_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("WALHALLA_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let settings = stores::settings(&stores::fake(&s3, &proxy.endpoint(), "p"));
    let short = Duration::from_secs(2);
    let bounds = Bounds { deadline: None, stall: short, idle: None, request: short * 2, connect: short, attempts: 1 };
    let (mut stored, mut read) = (0, 0);
    for round in 0..if long_run() { 500 } else { 80 } {
        let body = Bytes::from(vec![round as u8; random.usize(0..40_000)]);
        let key = Key::new(format!("wal/{round}")).unwrap();
        // Each round on connections of its own: the first has the fault, what follows does not.
        let plan = Plan::random(&mut random, 45_000);
        println!("round {round}: {} bytes, {plan:?}", body.len());
        proxy.next(plan);
        let storage = walhalla::storage::open(&settings, &Limits::new(bounds)).unwrap();
        let put = storage.put(&key, body.clone(), &PutMode::CreateOnly, Integrity::Sound).await;
        let there = s3.object(&format!("p/{key}"));
        assert!(there.as_ref().is_none_or(|object| object.body == body), "round {round}: torn, after {put:?}");
        if put.is_ok() {
            stored += 1;
            assert!(there.is_some(), "round {round}: it was called stored, and is not there");
        }

        s3.insert(&format!("p/{key}"), body.clone());
        let plan = Plan::random(&mut random, 45_000);
        let turned = format!("{plan:?}").contains("Flip");
        println!("round {round}: {plan:?}");
        proxy.next(plan);
        let storage = walhalla::storage::open(&settings, &Limits::new(bounds)).unwrap();
        match storage.get(&key, None).await {
            // A turned bit of the body is found by the stored object's own hash, a layer above.
            Ok(object) if !turned => {
                read += 1;
                assert!(object.body == body, "round {round}: {} of {} bytes", object.body.len(), body.len());
            }
            Ok(_) => {}
            Err(error) => assert!(!error.is_not_found(), "round {round}: called absent: {error}"),
        }
    }
    // Chance that strikes always or never tries nothing.
    assert!(stored > 0 && read > 0, "{stored} stored, {read} read");
}

/// A call is given up after so long without progress, however many tries that were, and long before its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn tries_without_progress_are_given_up_together() {
    let s3 = FakeS3::start();
    let proxy = Proxy::to(s3.port());
    let settings = stores::settings(&stores::fake(&s3, &proxy.endpoint(), "p"));
    let key = Key::new("wal/1").unwrap();
    for plan in [Plan::silence(), Plan::hang_up()] {
        proxy.always(plan);
        let (begun, second) = (std::time::Instant::now(), Duration::from_secs(1));
        let bounds = Bounds {
            deadline: Some(tokio::time::Instant::now() + second * 60),
            stall: second,
            idle: Some(second),
            request: second * 60,
            connect: second,
            attempts: u32::MAX,
        };
        let storage = walhalla::storage::open(&settings, &Limits::new(bounds)).unwrap();
        storage.get(&key, None).await.unwrap_err();
        assert!(begun.elapsed() < second * 20, "{:?}", begun.elapsed());
    }
}
