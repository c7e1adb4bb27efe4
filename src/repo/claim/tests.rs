//! The claim protocol step by step, and then by chance: many writers, deaths and delays, and a store that ignores conditions.

use super::super::testing::{Fault, Personality, Shelf, cluster, object, segment};
use super::*;
use crate::codec::Encoded;
use crate::pg::WalFileName;
use crate::storage::StorageErrorKind;
use std::sync::{Arc, Mutex};

const KEY: &str = "7/wal/00000001/000000010000000000000001";
const CLAIMS: &str = "7/claim/00000001/000000010000000000000001/";
const WINDOW: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

async fn deposit(cluster: &Cluster, object: &Encoded) -> Result<Deposited> {
    cluster.deposit_wal(&WalFileName::Segment(segment(1)), object).await.map(|stored| stored.deposited)
}

fn ignoring() -> (Arc<Shelf>, Cluster) {
    let shelf = Arc::new(Shelf::new(Personality::IGNORING));
    let cluster = cluster(&shelf);
    (shelf, cluster)
}

/// Contents in the order of their hashes.
fn contents(count: usize) -> Vec<Encoded> {
    let mut objects: Vec<Encoded> = (0..count).map(|n| object(1, format!("content {n}").as_bytes())).collect();
    objects.sort_by_key(|object| object.header.plain_hash.to_string());
    objects
}

fn claim_of(object: &Encoded) -> String {
    format!("{CLAIMS}{}", object.header.plain_hash)
}

#[test]
fn the_window_follows_the_plain_size() {
    let window = |mib: u64| Pace::HOUSE.window(mib << 20).as_secs();
    assert_eq!([window(0), window(1), window(16), window(17), window(1024)], [5, 5, 5, 10, 320]);
}

#[tokio::test(start_paused = true)]
async fn alone() {
    let (shelf, cluster) = ignoring();
    let ours = object(1, b"plain");
    let began = Instant::now();
    assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::New);
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits without a rival");
    let claim = claim_of(&ours);
    assert_eq!(
        shelf.requests(),
        [
            format!("GET {KEY}"),
            format!("PUT {claim}"),
            format!("LIST {CLAIMS}"),
            format!("PUT {KEY}"),
            format!("GET {KEY}")
        ]
    );
    assert_eq!(deposit(&cluster, &ours).await.unwrap(), Deposited::Already);
    assert_eq!(shelf.requests(), [format!("GET {KEY}")]);
    assert_eq!(deposit(&cluster, &object(1, b"other")).await.unwrap_err().kind(), ErrorKind::Duplicate);
    assert_eq!(shelf.requests(), [format!("GET {KEY}")], "other content is refused before anything is claimed");
}

#[tokio::test(start_paused = true)]
async fn a_live_smaller_claim_comes_first() {
    let (shelf, cluster) = ignoring();
    let [small, large] = contents(2).try_into().unwrap();
    shelf.place(&claim_of(&small), "claim");
    let began = Instant::now();
    let error = deposit(&cluster, &large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&small.header.plain_hash.to_string()), "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO, "at once");
    assert!(shelf.body(KEY).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_larger_claim_is_waited_out() {
    let (shelf, cluster) = ignoring();
    let [small, large] = contents(2).try_into().unwrap();
    shelf.place(&claim_of(&large), "claim");
    let began = Instant::now();
    assert_eq!(deposit(&cluster, &small).await.unwrap(), Deposited::New);
    assert_eq!(began.elapsed(), WINDOW);
    // Its object came while we waited: with other content, with ours.
    for (theirs, ends) in [(&large, Err(ErrorKind::Duplicate)), (&small, Ok(Deposited::Already))] {
        let (shelf, cluster) = ignoring();
        shelf.place(&claim_of(&large), "claim");
        let waiting = deposit(&cluster, &small);
        let rival = async {
            tokio::time::sleep(WINDOW - Duration::from_millis(1)).await;
            shelf.place(KEY, theirs.bytes.clone());
        };
        let (ended, ()) = tokio::join!(waiting, rival);
        assert_eq!(ended.map_err(|error| error.kind()), ends);
        assert_eq!(shelf.history(KEY), std::slice::from_ref(&theirs.bytes));
    }
}

#[tokio::test(start_paused = true)]
async fn a_smaller_claim_that_came_while_waiting_comes_first() {
    let (shelf, cluster) = ignoring();
    let [small, middle, large] = contents(3).try_into().unwrap();
    shelf.place(&claim_of(&large), "claim");
    let rival = async {
        tokio::time::sleep(WINDOW / 2).await;
        shelf.place(&claim_of(&small), "claim");
    };
    let (ended, ()) = tokio::join!(deposit(&cluster, &middle), rival);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(shelf.body(KEY).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_claim_dies_after_an_hour() {
    let (shelf, cluster) = ignoring();
    let [small, large] = contents(2).try_into().unwrap();
    shelf.place(&claim_of(&small), "claim");
    tokio::time::sleep(HOUR - Duration::from_secs(1)).await;
    assert_eq!(deposit(&cluster, &large).await.unwrap_err().kind(), ErrorKind::Unavailable);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert_eq!(deposit(&cluster, &large).await.unwrap(), Deposited::New);
    assert_eq!(began.elapsed(), WINDOW, "a dead claim is waited out as well");
}

#[tokio::test(start_paused = true)]
async fn without_dates_a_claim_never_dies() {
    let (shelf, cluster) = ignoring();
    shelf.change(|personality| personality.dates = false);
    let [small, large] = contents(2).try_into().unwrap();
    shelf.place(&claim_of(&small), "claim");
    tokio::time::sleep(HOUR * 24).await;
    assert_eq!(deposit(&cluster, &large).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(deposit(&cluster, &small).await.unwrap(), Deposited::New);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_unknown_form_comes_first_while_it_lives() {
    let (shelf, cluster) = ignoring();
    shelf.place(&format!("{CLAIMS}zzz-of-a-later-version"), "claim");
    assert_eq!(deposit(&cluster, &object(1, b"x")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    tokio::time::sleep(HOUR).await;
    assert_eq!(deposit(&cluster, &object(1, b"x")).await.unwrap(), Deposited::New);
}

#[tokio::test(start_paused = true)]
async fn each_call_renews_its_claim() {
    let (shelf, cluster) = ignoring();
    let [small, large] = contents(2).try_into().unwrap();
    shelf.fault("PUT", KEY, Fault::Fail(StorageErrorKind::Unavailable));
    deposit(&cluster, &small).await.unwrap_err();
    tokio::time::sleep(HOUR * 2).await;
    shelf.fault("PUT", KEY, Fault::Fail(StorageErrorKind::Unavailable));
    deposit(&cluster, &small).await.unwrap_err();
    assert_eq!(deposit(&cluster, &large).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_put_is_cut_off() {
    let (shelf, cluster) = ignoring();
    shelf.fault("PUT", KEY, Fault::Stall(HOUR));
    let began = Instant::now();
    let error = deposit(&cluster, &object(1, b"plain")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), WINDOW);
    // On a line that is too slow no call ever ends otherwise: that must be said.
    let line = error.to_string();
    assert!(line.contains("line is too slow") && line.contains(&format!("{} s", WINDOW.as_secs())), "{line}");
    tokio::time::sleep(HOUR * 2).await;
    assert!(shelf.body(KEY).is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_slept_too_long_begins_anew() {
    let (shelf, cluster) = ignoring();
    let [small, large] = contents(2).try_into().unwrap();
    // Stopped while it waits for a rival: its own claim may be dead to others when it wakes.
    shelf.place(&claim_of(&large), "claim");
    shelf.fault("GET", "nothing", Fault::Stall(HOUR));
    let waiting = async {
        let ended = deposit(&cluster, &small).await;
        ended.unwrap_err()
    };
    let stop = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shelf.fault("GET", KEY, Fault::Stall(HOUR - Duration::from_secs(10)));
    };
    let (error, ()) = tokio::join!(waiting, stop);
    assert!(error.to_string().contains("too much time"), "{error}");
    assert!(shelf.body(KEY).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_it_claimed_must_be_listed() {
    let (shelf, cluster) = ignoring();
    let ours = object(1, b"plain");
    let vanish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shelf.remove(&claim_of(&ours), false);
    };
    shelf.place(&format!("{CLAIMS}{}", "f".repeat(64)), "claim");
    let (ended, ()) = tokio::join!(deposit(&cluster, &ours), vanish);
    let error = ended.unwrap_err();
    assert!(error.to_string().contains("does not list"), "{error}");
    assert!(shelf.body(KEY).is_none());
}

#[tokio::test(start_paused = true)]
async fn worthless_objects_are_replaced() {
    let ours = object(1, b"plain");
    for worthless in [Bytes::new(), ours.bytes.slice(..ours.bytes.len() - 1)] {
        let (shelf, cluster) = ignoring();
        shelf.place(KEY, worthless);
        assert!(matches!(deposit(&cluster, &ours).await.unwrap(), Deposited::Replaced(_)));
        assert_eq!(shelf.body(KEY).unwrap(), ours.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn one_garbled_answer_costs_no_good_object() {
    let (shelf, cluster) = ignoring();
    let theirs = object(1, b"theirs");
    shelf.place(KEY, theirs.bytes.clone());
    shelf.fault("GET", KEY, Fault::Answer(Bytes::from_static(b"<html>")));
    assert_eq!(deposit(&cluster, &object(1, b"ours")).await.unwrap_err().kind(), ErrorKind::Duplicate);
    shelf.fault("GET", KEY, Fault::Answer(Bytes::from_static(b"<html>")));
    shelf.fault("GET", KEY, Fault::Answer(Bytes::from_static(b"<html2>")));
    assert_eq!(deposit(&cluster, &object(1, b"ours")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(shelf.history(KEY), [theirs.bytes]);
}

#[tokio::test(start_paused = true)]
async fn what_was_put_is_read_back() {
    let ours = object(1, b"plain");
    for garbled in [Bytes::new(), ours.bytes.slice(..20)] {
        let (shelf, cluster) = ignoring();
        shelf.fault("PUT", KEY, Fault::Garble(garbled));
        assert_eq!(deposit(&cluster, &ours).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(matches!(deposit(&cluster, &ours).await.unwrap(), Deposited::Replaced(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_at_any_step_is_no_success() {
    for (operation, key) in [("GET", KEY), ("PUT", CLAIMS), ("LIST", CLAIMS), ("PUT", KEY)] {
        let (shelf, cluster) = ignoring();
        shelf.fault(operation, key, Fault::Fail(StorageErrorKind::Unavailable));
        assert_eq!(deposit(&cluster, &object(1, b"x")).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(deposit(&cluster, &object(1, b"x")).await.unwrap(), Deposited::New);
    }
    let (shelf, cluster) = ignoring();
    shelf.fault("PUT", KEY, Fault::LoseAnswer);
    deposit(&cluster, &object(1, b"x")).await.unwrap_err();
    assert_eq!(deposit(&cluster, &object(1, b"x")).await.unwrap(), Deposited::Already);
}

/// What one run by chance showed.
#[derive(Debug, Default)]
struct Run {
    /// Contents whose writers were told that they are stored.
    told: Vec<Bytes>,
    /// Contents that lay under the key, in order.
    history: Vec<Bytes>,
}

impl Run {
    /// At most one content ever, and whoever was told yes has its own there.
    fn is_sound(&self) -> bool {
        self.history.len() <= 1 && self.told.iter().all(|told| self.history == [told.clone()])
    }
}

/// One host that archives one content.
struct Writer {
    /// Contents are numbered in the order of their hashes.
    content: usize,
    start: Duration,
    /// Killed so long after its start, wherever it is.
    death: Option<Duration>,
    pace: Pace,
}

fn millis(rng: &mut fastrand::Rng, up_to: u64) -> Duration {
    Duration::from_millis(rng.u64(0..up_to))
}

/// Some writers with some contents, of whom some are killed.
fn a_crowd(rng: &mut fastrand::Rng) -> Vec<Writer> {
    let contents = rng.usize(2..4);
    let mut writer = || Writer {
        content: rng.usize(..contents),
        start: millis(rng, 3000),
        death: (rng.u8(..3) == 0).then(|| millis(rng, 40_000)),
        pace: Pace::HOUSE,
    };
    (0..4).map(|_| writer()).collect()
}

/// Two writers who nearly meet: the one that must yield to the other begins a little earlier.
fn a_duel(rng: &mut fastrand::Rng, larger: Pace) -> Vec<Writer> {
    let writer = |content, start, pace| Writer { content, start, death: None, pace };
    vec![writer(1, Duration::ZERO, larger), writer(0, millis(rng, 2000), Pace::HOUSE)]
}

/// Every writer calls again, as Postgres does, until it is told yes or told no. When all have ended, one more comes, alone, and
/// must come to an end within little more than an hour.
async fn run(seed: u64, cast: impl FnOnce(&mut fastrand::Rng) -> Vec<Writer>) -> Run {
    let mut rng = fastrand::Rng::with_seed(seed);
    // Puts of every length up to well beyond W, so that many are cut off.
    let shelf = Arc::new(Shelf::slow(Personality::IGNORING, rng.u64(..), Duration::from_secs(rng.u64(3..15))));
    let contents = contents(3);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in cast(&mut rng) {
        let content = contents[writer.content].clone();
        let cluster = Cluster { pace: writer.pace, ..cluster(&shelf) };
        let told = Arc::clone(&told);
        let mut again = rng.fork();
        writers.spawn(async move {
            tokio::time::sleep(writer.start).await;
            let life = write_until_answered(&cluster, &content, &told, &mut again);
            // Death: the future is dropped wherever it is.
            tokio::time::timeout(writer.death.unwrap_or(HOUR * 3), life).await.is_ok()
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let patience = HOUR + Duration::from_secs(600);
    let last = cluster(&shelf);
    let alone = write_until_answered(&last, &contents[2], &told, &mut rng);
    let ended = tokio::time::timeout(patience, alone).await;
    assert!(ended.is_ok(), "seed {seed}: the last writer, alone, was kept waiting for more than an hour");
    let told = told.lock().unwrap().clone();
    Run { told, history: shelf.history(KEY) }
}

async fn write_until_answered(cluster: &Cluster, content: &Encoded, told: &Mutex<Vec<Bytes>>, rng: &mut fastrand::Rng) {
    loop {
        match deposit(cluster, content).await {
            Ok(_) => break told.lock().unwrap().push(content.bytes.clone()),
            Err(error) if error.kind() == ErrorKind::Duplicate => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(500..2000))).await;
    }
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("WALHALLA_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = if first.is_some() { 1 } else { count };
    let first = first.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    println!("seeds {first}..{} (one alone: WALHALLA_SEED=…)", first + count);
    first..first + count
}

#[tokio::test(start_paused = true)]
async fn exactly_one_wins_whatever_happens() {
    for seed in seeds(300) {
        for run in [run(seed, a_crowd).await, run(seed, |rng| a_duel(rng, Pace::HOUSE)).await] {
            assert!(run.is_sound(), "seed {seed}: {run:?}");
            assert_eq!(run.history.len(), 1, "seed {seed}: nobody won");
        }
    }
}

/// The same test must be able to fail: where one host believes in a longer W than the others, somebody loses.
#[tokio::test(start_paused = true)]
async fn the_test_can_tell() {
    let stubborn = Pace { per_unit: Duration::from_secs(60), ..Pace::HOUSE };
    for seed in seeds(3000) {
        if !run(seed, |rng| a_duel(rng, stubborn)).await.is_sound() {
            return;
        }
    }
    panic!("three thousand runs of a broken protocol, and none was noticed");
}
