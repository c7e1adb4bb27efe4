//! The repository's rules on every store there is: what the probe shows, that of two writers exactly one wins, that a dead one
//! wedges nobody, that what nobody could restore is replaced, and that absence is proven or not.

use crate::support::engines::ENGINES;
use crate::support::fake_s3::{Answer, FakeS3, Fault, Moment, Personality, Right};
use crate::support::stores;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use walhalla::codec::{Encoded, Encoding, Identities, Kind, Recipients, Subject, encode_bytes, plain_of};
use walhalla::error::{ErrorKind, Result};
use walhalla::pg::{Lsn, PgMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId, WalFileName};
use walhalla::repo::{Absence, Cluster, ClusterIdentity, Deposited, Repository};
use walhalla::storage::{Capabilities, Integrity, Key, PutMode, Storage};

const SYSTEM: SystemIdentifier = SystemIdentifier(7_442_190_265_218_741_297);

fn segment(number: u64) -> WalFileName {
    WalFileName::Segment(SegmentName::at(TimelineId::FIRST, Lsn(number << 24), SegmentSize::DEFAULT))
}

fn object(number: u64, plain: &[u8]) -> Encoded {
    let subject = Subject { kind: Kind::Wal, system_identifier: SYSTEM, timeline: 1, start: Lsn(number << 24) };
    encode_bytes(plain, subject, &Encoding { level: 1, recipients: Recipients::default() }).unwrap()
}

fn identity() -> ClusterIdentity {
    ClusterIdentity::new(SYSTEM, PgMajor(15), SegmentSize::DEFAULT)
}

fn cluster(storage: &Arc<dyn Storage>) -> Cluster {
    Repository::new(Arc::clone(storage), None).cluster(SYSTEM)
}

/// Everything, on a store that is empty and of which this must be shown.
async fn hold(storage: Arc<dyn Storage>, expected: Capabilities) {
    println!("{}: {expected:?}", storage.location());
    let shown = cluster(&storage).probe().await.unwrap();
    assert_eq!(shown, expected, "{}", storage.location());
    assert_eq!(cluster(&storage).probe().await.unwrap(), expected, "on the objects that are there now");
    one_identity(&storage).await;
    of_two_writers_one_wins(&storage).await;
    what_nobody_could_restore_is_replaced(&storage, expected).await;
    absence(&storage).await;
}

async fn one_identity(storage: &Arc<dyn Storage>) {
    let first = cluster(storage);
    assert_eq!(first.identity().await.unwrap_err().kind(), ErrorKind::NotFound);
    let (one, other) = (cluster(storage), cluster(storage));
    let identity = identity();
    let (one, other) = tokio::join!(one.ensure_identity(&identity), other.ensure_identity(&identity));
    one.and(other).unwrap();
    assert_eq!(first.identity().await.unwrap(), identity);
    let resized = ClusterIdentity { wal_segment_size: SegmentSize::new(64 << 20).unwrap(), ..identity };
    assert_eq!(first.ensure_identity(&resized).await.unwrap_err().kind(), ErrorKind::Mismatch);
}

/// As Postgres does: again and again, until it is told yes, or told that it is other content.
async fn until_answered(cluster: &Cluster, name: &WalFileName, object: &Encoded) -> Result<Deposited> {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        match cluster.deposit_wal(name, object).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < limit => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => return answer.map(|stored| stored.deposited),
        }
    }
}

/// Twenty names, two writers with other contents at each: one is told yes, the other no, and what lies there is the winner's.
async fn of_two_writers_one_wins(storage: &Arc<dyn Storage>) {
    let duels = (100..120).map(|number| {
        let (one, other) = (cluster(storage), cluster(storage));
        tokio::spawn(async move {
            let name = segment(number);
            let contents = [b"one", b"two"].map(|text| object(number, &text.repeat(100_000)));
            let (first, second) =
                tokio::join!(until_answered(&one, &name, &contents[0]), until_answered(&other, &name, &contents[1]));
            let winner = match (&first, &second) {
                (Ok(Deposited::New), Err(error)) if error.kind() == ErrorKind::Duplicate => 0,
                (Err(error), Ok(Deposited::New)) if error.kind() == ErrorKind::Duplicate => 1,
                _ => panic!("{name}: {first:?} and {second:?}"),
            };
            let there = one.get(&one.layout().wal(&name)).await.unwrap();
            assert_eq!(there.body, contents[winner].bytes, "{name}");
            // And it stays so for whoever asks again.
            assert_eq!(until_answered(&one, &name, &contents[winner]).await.unwrap(), Deposited::Already);
            let loser = until_answered(&other, &name, &contents[1 - winner]).await;
            assert_eq!(loser.unwrap_err().kind(), ErrorKind::Duplicate);
        })
    });
    for duel in duels.collect::<Vec<_>>() {
        duel.await.unwrap();
    }
}

async fn what_nobody_could_restore_is_replaced(storage: &Arc<dyn Storage>, known: Capabilities) {
    let cluster = cluster(storage);
    let ours = object(200, &b"ours".repeat(1000));
    let name = segment(200);
    let key = cluster.layout().wal(&name);
    for worthless in [Bytes::new(), ours.bytes.slice(..100), ours.bytes.slice(..ours.bytes.len() - 1)] {
        storage.delete(&key).await.unwrap();
        overwrite(storage, &key, worthless.clone()).await;
        let answer = until_answered(&cluster, &name, &ours).await;
        if known.create_only && !known.if_match {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(key.as_str()), "{error}");
            assert_eq!(storage.get(&key, None).await.unwrap().body, worthless);
        } else {
            assert!(matches!(answer.unwrap(), Deposited::Replaced(_)));
            let there = storage.get(&key, None).await.unwrap();
            assert_eq!(plain_of(&there.body, &Identities::default()).unwrap().1, b"ours".repeat(1000));
        }
    }
    storage.delete(&key).await.unwrap();
}

async fn overwrite(storage: &Arc<dyn Storage>, key: &Key, body: Bytes) {
    storage.put(key, body, &PutMode::Overwrite, Integrity::Sound).await.unwrap();
}

async fn absence(storage: &Arc<dyn Storage>) {
    let cluster = cluster(storage);
    assert_eq!(cluster.prove_absent(&segment(120)).await.unwrap(), Absence::Proven);
    assert!(matches!(cluster.prove_absent(&segment(99)).await.unwrap(), Absence::Gap(_)));
    let history = WalFileName::History(TimelineId::new(2).unwrap());
    assert_eq!(cluster.prove_absent(&history).await.unwrap(), Absence::Proven);
    let segments = cluster.segments(TimelineId::FIRST, None).await.unwrap();
    let expected: Vec<_> = (100..120).filter_map(|number| segment(number).segment()).collect();
    assert_eq!(segments, expected);
    let feature = Key::new(format!("{}sparse", cluster.layout().features())).unwrap();
    overwrite(storage, &feature, Bytes::from_static(b"{}\n")).await;
    assert!(matches!(cluster.prove_absent(&segment(120)).await.unwrap(), Absence::Unknown(_)));
    storage.delete(&feature).await.unwrap();
}

const UNCONDITIONAL: Capabilities = Capabilities { create_only: false, if_match: false, ..Capabilities::ALL };

async fn hold_fake(personality: Personality, expected: Capabilities) {
    let s3 = FakeS3::with(personality, false);
    hold(stores::open(&stores::fake(&s3, &s3.endpoint(), "some/prefix")), expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    let storage = Arc::new(walhalla::storage::memory::MemoryStorage::new());
    let known = storage.capabilities().unwrap();
    hold(storage, known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let directory = tempfile::tempdir().unwrap();
    let storage = stores::open(&stores::directory(directory.path()));
    let known = storage.capabilities().unwrap();
    hold(storage, known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_s3() {
    hold_fake(Personality::honest(), Capabilities::ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_ignores_conditions() {
    hold_fake(Personality::without_conditions(), UNCONDITIONAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_rejects_conditions() {
    hold_fake(Personality::rejects_conditions(), UNCONDITIONAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_like_old_ceph() {
    hold_fake(Personality::old_ceph(), Capabilities { if_match: false, ..Capabilities::ALL }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_with_every_vice() {
    hold_fake(Personality::liar(), Capabilities::NONE).await;
}

/// What an engine does about conditions and bodies is known; tags and listings are its own affair.
#[tokio::test(flavor = "multi_thread")]
async fn real_engines() {
    for (_, start) in ENGINES {
        let Some(engine) = start() else { continue };
        let storage = stores::open(&stores::engine(&engine, "some/prefix"));
        let shown = cluster(&storage).probe().await.unwrap();
        assert_eq!(
            (shown.create_only, shown.verifies_integrity),
            (engine.create_only, engine.verifies_integrity),
            "{}",
            engine.name
        );
        hold(storage, shown).await;
    }
}

/// The answer to the put is lost each time, after the store has carried it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_no_loss() {
    for personality in [Personality::honest(), Personality::without_conditions()] {
        let s3 = FakeS3::with(personality, false);
        let storage = stores::open(&stores::fake(&s3, &s3.endpoint(), ""));
        let cluster = cluster(&storage);
        cluster.capabilities().await.unwrap();
        let lost = Fault::new(Answer::internal_error()).moment(Moment::AfterCommit).method("PUT").on("wal/").times(2);
        s3.fault(lost);
        let ours = object(1, b"ours");
        until_answered(&cluster, &segment(1), &ours).await.unwrap();
        let other = until_answered(&cluster, &segment(1), &object(1, b"other")).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Duplicate);
        assert_eq!(s3.object(cluster.layout().wal(&segment(1)).as_str()).unwrap().body, ours.bytes);
    }
}

/// A writer that dies between its claim and its object wedges nobody: its claim dies an hour later.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_writer_wedges_nobody() {
    let s3 = FakeS3::with(Personality::without_conditions(), false);
    let storage = stores::open(&stores::fake(&s3, &s3.endpoint(), ""));
    let mut contents = [object(1, b"one"), object(1, b"two")];
    contents.sort_by_key(|content| content.header.plain_hash.to_string());
    let [smaller, larger] = contents;
    let cluster = cluster(&storage);
    cluster.capabilities().await.unwrap();

    // A claim's name holds no `wal/`: the claim is put, the object is not.
    s3.fault(Fault::new(Answer::error(403, "AccessDenied")).method("PUT").on("wal/00000001").times(1));
    assert_eq!(cluster.deposit_wal(&segment(1), &smaller).await.unwrap_err().kind(), ErrorKind::Denied);
    let claim = cluster.layout().claim(&cluster.layout().wal(&segment(1)), &smaller.header.plain_hash);
    assert!(s3.object(claim.as_str()).is_some(), "{:?}", s3.keys());

    let error = cluster.deposit_wal(&segment(1), &larger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "while it lives it comes first");
    // `Date` has no fractions of a second, `Last-Modified` of a listing may have.
    s3.age(claim.as_str(), Duration::from_secs(3602));
    assert_eq!(cluster.deposit_wal(&segment(1), &larger).await.unwrap().deposited, Deposited::New);
    assert_eq!(cluster.deposit_wal(&segment(1), &smaller).await.unwrap_err().kind(), ErrorKind::Duplicate);
}

/// Nothing but the store's own "no such key", with everything else beyond doubt, is absence.
#[tokio::test(flavor = "multi_thread")]
async fn absence_is_never_concluded_from_trouble() {
    let s3 = FakeS3::start();
    let storage = stores::open(&stores::fake(&s3, &s3.endpoint(), ""));
    let cluster = cluster(&storage);
    let next = segment(2);
    assert_eq!(cluster.prove_absent(&next).await.unwrap_err().kind(), ErrorKind::Config, "no identity");
    cluster.ensure_identity(&identity()).await.unwrap();
    cluster.deposit_wal(&segment(1), &object(1, b"one")).await.unwrap();
    assert_eq!(cluster.prove_absent(&next).await.unwrap(), Absence::Proven);

    // Without the right to list, AWS says 403 of a key that is missing; without the right to read, of any.
    for right in [Right::List, Right::Get] {
        s3.personality(|personality| personality.denied = vec![(right, String::new())]);
        assert_eq!(cluster.prove_absent(&next).await.unwrap_err().kind(), ErrorKind::Denied, "{right:?}");
    }
    s3.personality(|personality| personality.denied.clear());
    s3.personality(|personality| personality.no_such_bucket = true);
    assert_eq!(cluster.prove_absent(&next).await.unwrap_err().kind(), ErrorKind::Config);
    s3.personality(|personality| personality.no_such_bucket = false);
    // Somebody in between who answers 200 to everything.
    s3.fault(Fault::new(Answer::captive_portal()).times(200));
    cluster.prove_absent(&next).await.unwrap_err();
    s3.heal();

    // Deleted is not absent.
    s3.personality(|personality| personality.versioned = true);
    s3.remove(cluster.layout().wal(&segment(1)).as_str());
    assert!(matches!(cluster.prove_absent(&segment(1)).await.unwrap(), Absence::Gap(_)));
    assert_eq!(cluster.get(&cluster.layout().wal(&segment(1))).await.unwrap_err().kind(), ErrorKind::Gap);
    // And yet it may be put back.
    assert_eq!(cluster.deposit_wal(&segment(1), &object(1, b"one")).await.unwrap().deposited, Deposited::New);
}
