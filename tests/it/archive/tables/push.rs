//! The table of `walhalla-archive`: every fault at every stage, on three kinds of store, for a server that runs and one that stops:
//! the status, what the store holds afterwards, and what the next call does when the fault is gone.

use super::super::bench::{Answer, Bench, SEGMENT, segment, segment_name};
use super::faults::{self, Between};
use super::{World, is_asked_for, rows, run_all};
use crate::support::fake_s3::{Answer as Says, Check, Condition, FakeS3, Fault, Personality};
use crate::support::proxy::Plan;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use walhalla::codec::{self, Encoding, Identities, Kind, Recipients, Subject};
use walhalla::pg::{Lsn, SystemIdentifier};

pub(super) const TABLE: &str = "push.txt";

/// What the store does with a conditional create.
pub(super) const STORES: [&str; 3] = ["works", "ignored", "refused"];

/// Where the fault strikes, and which requests that are: their method, and what is in their key.
const STAGES: [(&str, Option<&str>, &str); 7] = [
    ("before the storage", None, ""),
    ("any request", None, ""),
    ("probe", None, "/probe/"),
    ("identity", None, "/cluster.json"),
    ("claim", None, "/claim/"),
    ("put", Some("PUT"), "/wal/"),
    ("read back", Some("GET"), "/wal/"),
];

/// What must come of a cell: the status and what is under the key then; the same of the next call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) call: String,
    pub(super) next: String,
}

/// A cell of the table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) stage: usize,
    pub(super) fault: String,
    pub(super) store: usize,
    pub(super) server: usize,
    pub(super) outcome: Outcome,
}

/// Every cell of the table.
pub(super) fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for row in rows(TABLE) {
        let [stage, fault, running, stopping, next] = &row[..] else { panic!("not five fields: {row:?}") };
        let at = STAGES.iter().position(|(name, ..)| name == stage).unwrap_or_else(|| panic!("{stage:?}"));
        assert!(seen.insert((stage.clone(), fault.clone())), "said twice: {row:?}");
        for (server, calls) in [running, stopping].into_iter().enumerate() {
            for store in 0..STORES.len() {
                let outcome = Outcome { call: of_store(calls, store), next: of_store(next, store) };
                cells.push(Cell { stage: at, fault: fault.clone(), store, server, outcome });
            }
        }
    }
    cells
}

/// One text for all stores, or one for each, by slash.
fn of_store(text: &str, store: usize) -> String {
    let texts: Vec<&str> = text.split('/').map(str::trim).collect();
    texts.get(if texts.len() == 1 { 0 } else { store }).unwrap_or_else(|| panic!("{text:?}")).to_string()
}

fn personality(store: usize) -> Personality {
    match store {
        0 => Personality::honest(),
        1 => Personality::without_conditions(),
        _ => Personality::rejects_conditions(),
    }
}

/// What the server writes as its status.
fn postmaster(bench: &Bench, server: usize) {
    let word = ["ready   ", "stopping"][server];
    bench.write("postmaster.pid", format!("1\n/data\n1700000000\n5432\n/tmp\n*\n  1 2\n{word}\n"));
}

/// What an earlier call has left: the identity and the objects of the probe in the store, and in the spool what is known of them.
pub(super) struct Known {
    objects: BTreeMap<String, Vec<u8>>,
    notes: BTreeMap<std::ffi::OsString, Vec<u8>>,
}

impl Known {
    /// Lets a call leave it.
    fn learn(s3: &FakeS3, bench: &Bench) -> Self {
        let answer = bench.archive(&[&bench.wal(1)]);
        assert_eq!(answer.status, 0, "{answer:?}");
        let mut notes = BTreeMap::new();
        for entry in std::fs::read_dir(spool(bench)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                notes.insert(entry.file_name(), std::fs::read(entry.path()).unwrap());
            }
        }
        Self { objects: contents(s3), notes }
    }

    /// As if that call had been made here.
    fn recall(&self, s3: &FakeS3, bench: &Bench) {
        for (key, body) in &self.objects {
            s3.insert(key, body.clone());
        }
        let spool = spool(bench);
        std::fs::create_dir_all(&spool).unwrap();
        std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o700)).unwrap();
        for (name, text) in &self.notes {
            std::fs::write(spool.join(name), text).unwrap();
        }
    }
}

/// The file to be archived.
const NUMBER: u8 = 2;

/// Runs a cell. What must hold in every cell is asserted here.
fn run(world: &mut World, cell: &Cell) -> Outcome {
    let (s3, proxy) = (&world.s3, &world.proxy);
    s3.reset();
    proxy.always(Plan::pass());
    s3.personality(|p| *p = personality(cell.store));
    let bench = Bench::bare().at(&proxy.endpoint());
    let (stage, ..) = STAGES[cell.stage];
    if !["probe", "identity"].contains(&stage) {
        let known = world.known.entry(cell.store).or_insert_with(|| Known::learn(s3, &bench));
        known.recall(s3, &bench);
    }
    let path = bench.wal(NUMBER);
    if stage == "read back" {
        bench.archive(&[&path]);
    }
    postmaster(&bench, cell.server);
    let struck = strike(cell, world, bench);
    let bench = struck.with("WALHALLA_ARCHIVE_TIMEOUT", limit(cell));
    // What somebody else put there by the fault must not be touched either.
    let placed = contents(s3);
    let answer = bench.archive(&[&path]);
    let call = format!("{} {}", answer.status, held(s3, &bench));
    check(cell, &answer);
    untouched(cell, &placed, s3);

    let bench = heal(cell, world, bench);
    let again = bench.archive(&[&path]);
    let next = format!("{} {}", again.status, held(s3, &bench));
    check(cell, &again);
    untouched(cell, &placed, s3);
    // The promise itself, whatever the table says.
    for said in [&call, &next] {
        assert!(!said.starts_with("0 ") || said == "0 whole", "{cell:?}: {said}");
    }
    Outcome { call, next }
}

/// A second where nothing but that can end the call, and more where the program must come through to the store first, however slow
/// this machine is.
fn limit(cell: &Cell) -> &'static str {
    match cell.outcome.call.as_str() {
        "75 nothing" => "1s",
        call if call.starts_with("75 ") => "6s",
        _ => "30s",
    }
}

fn check(cell: &Cell, answer: &Answer) {
    assert!((0..=125).contains(&answer.status), "{cell:?}: {answer:?}");
    assert!(answer.stderr.lines().count() <= 1, "{cell:?}: {answer:?}");
    assert!(answer.status == 0 || !answer.stderr.is_empty(), "{cell:?}: {answer:?}");
    assert!(!answer.stderr.contains("internal error"), "{cell:?}: {answer:?}");
    assert!(answer.took < Duration::from_secs(75), "{cell:?}: {answer:?}");
}

fn contents(s3: &FakeS3) -> BTreeMap<String, Vec<u8>> {
    s3.keys().into_iter().filter_map(|key| Some((key.clone(), s3.object(&key)?.body.to_vec()))).collect()
}

/// What held something before holds the same now. (A probe and a claim are written anew, and what holds nothing is replaced.)
fn untouched(cell: &Cell, before: &BTreeMap<String, Vec<u8>>, s3: &FakeS3) {
    for (key, body) in before {
        let worthless = codec::verify(body).is_err();
        let may_change = key.contains("/probe/") || key.contains("/claim/") || (worthless && key.contains("/wal/"));
        let now = s3.object(key).map(|object| object.body.to_vec());
        assert!(may_change || now.as_ref() == Some(body), "{cell:?}: {key} was overwritten");
    }
}

/// What is under the key.
fn held(s3: &FakeS3, bench: &Bench) -> &'static str {
    let Some(object) = s3.object(&bench.key(&segment_name(NUMBER))) else { return "nothing" };
    if object.body.is_empty() {
        return "empty";
    }
    match codec::plain_of(&object.body, &Identities::default()) {
        Ok((_, plain)) if plain == segment(NUMBER) => "whole",
        Ok(_) => "theirs",
        Err(_) => "damaged",
    }
}

/// Brings the fault about.
fn strike(cell: &Cell, world: &World, bench: Bench) -> Bench {
    let (stage, method, key) = STAGES[cell.stage];
    if let Some((name, value)) = setting(&cell.fault) {
        return bench.with(name, value);
    }
    let Some((between, lasts)) = faults::between(&cell.fault) else {
        spoil(&cell.fault, &world.s3, &bench);
        return bench;
    };
    match between {
        Between::Says(says) => {
            let says = if lasts { says } else { says.times(1) }.on(key);
            world.s3.fault(match method {
                Some(method) => says.method(method),
                None => says,
            });
        }
        Between::Whole(plan) if lasts => world.proxy.always(plan),
        Between::Whole(plan) => world.proxy.next(plan),
        Between::Line(plan) => {
            let system = bench.system();
            let text = match stage {
                "put" => format!("PUT /bucket/cluster/{system}/wal"),
                "read back" => format!("GET /bucket/cluster/{system}/wal"),
                "any request" => "/bucket".to_owned(),
                _ => format!("/bucket/cluster/{system}{key}"),
            };
            let plan = plan.once_sent(&text);
            if lasts { world.proxy.always(plan) } else { world.proxy.next(plan) }
        }
        Between::Store(change) => world.s3.personality(change),
        Between::Elsewhere(elsewhere) => {
            let (endpoint, ca_file) = elsewhere.endpoint();
            let bench = bench.at(&endpoint);
            return match ca_file {
                Some(file) => bench.with("WALHALLA_S3_CA_FILE", file.display()),
                None => bench,
            };
        }
    }
    bench
}

/// A setting that goes wrong.
fn setting(fault: &str) -> Option<(&'static str, &'static str)> {
    Some(match fault {
        "the storage setting is wrong" => ("WALHALLA_STORAGE", "ftp://nonsense"),
        "a setting does not parse" => ("WALHALLA_COMPRESSION_LEVEL", "high"),
        "the secret key is wrong" => ("AWS_SECRET_ACCESS_KEY", "wrong"),
        "the bucket does not exist" => ("WALHALLA_STORAGE", "s3://elsewhere/cluster"),
        "there is no spool" => ("WALHALLA_SPOOL", "/proc/nowhere"),
        _ => return None,
    })
}

fn object(plain: &[u8], bench: &Bench, number: u8) -> Vec<u8> {
    let system_identifier = SystemIdentifier(bench.system());
    let subject = Subject { kind: Kind::Wal, system_identifier, timeline: 1, start: Lsn(u64::from(number) << 20) };
    let encoding = Encoding { level: 1, recipients: Recipients::default() };
    codec::encode_bytes(plain, subject, &encoding).unwrap().bytes.to_vec()
}

/// Changes what the data directory, or the archive, is like.
fn spoil(fault: &str, s3: &FakeS3, bench: &Bench) {
    let name = segment_name(NUMBER);
    let (path, key) = (format!("pg_wal/{name}"), bench.key(&name));
    let changed = |at: usize, with: &[u8]| {
        let mut bytes = segment(NUMBER);
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    let mut other = segment(NUMBER);
    other[SEGMENT - 1] ^= 1;
    let cluster_json = format!("cluster/{}/cluster.json", bench.system());
    match fault {
        "none" => {}
        "the file is gone" => std::fs::remove_file(bench.data().join(path)).unwrap(),
        "the file is empty" => bench.write(&path, ""),
        "the file is short" => bench.write(&path, &segment(NUMBER)[..SEGMENT / 2]),
        "the file is too long" => bench.write(&path, [&segment(NUMBER)[..], b"x"].concat()),
        "the file is another's" => bench.write(&path, segment(NUMBER + 1)),
        "the file is another cluster's" => bench.write(&path, changed(24, &4242_u64.to_le_bytes())),
        "the file is no segment" => bench.write(&path, vec![b'x'; SEGMENT]),
        "a directory is in its place" => {
            std::fs::remove_file(bench.data().join(&path)).unwrap();
            std::fs::create_dir(bench.data().join(&path)).unwrap();
        }
        "pg_control is missing" => std::fs::remove_file(bench.data().join("global/pg_control")).unwrap(),
        "pg_control is damaged" => {
            let mut control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
            control[100] ^= 1;
            bench.write("global/pg_control", control);
        }
        "pg_control hangs" => bench.hang("global/pg_control"),
        "PG_VERSION is missing" => std::fs::remove_file(bench.data().join("PG_VERSION")).unwrap(),
        "archiving is held" => bench.write("walhalla.held", ""),
        "the name is taken by other content" => s3.insert(&key, object(&other, bench, NUMBER)),
        "the same is there already" => s3.insert(&key, object(&segment(NUMBER), bench, NUMBER)),
        "an empty object is there" => s3.insert(&key, ""),
        "half an object is there" => {
            let mut half = object(&segment(NUMBER), bench, NUMBER);
            half.truncate(half.len() / 2);
            s3.insert(&key, half);
        }
        "the identity is another cluster's" => {
            let system = bench.system();
            let text = format!(
                "{{\"format\":1,\"system_identifier\":\"{system}\",\"postgres_major\":16,\"wal_segment_size\":{SEGMENT}}}\n"
            );
            s3.insert(&cluster_json, text);
        }
        "conditional create is answered with 409 once" => s3.personality(|p| p.create_only = Condition::Conflict409(1)),
        "conditional create is answered with 501 of late" => {
            s3.personality(|p| p.create_only = Condition::Reject501);
        }
        "conditional create is refused though nothing is there" => {
            s3.personality(|p| p.create_only = Condition::Refuse)
        }
        "checksums are ignored of late" => {
            s3.personality(|p| (p.md5, p.checksum) = (Check::Ignore, Check::Echo));
        }
        "a put that breaks leaves an empty object" => {
            s3.personality(|p| p.commits_empty = true);
        }
        "a rival has claimed the name" => {
            s3.insert(&format!("cluster/{}/claim/00000001/{name}/{}", bench.system(), "0".repeat(64)), "");
        }
        "a dead rival has claimed the name" => {
            let claim = format!("cluster/{}/claim/00000001/{name}/{}", bench.system(), "0".repeat(64));
            s3.insert(&claim, "");
            s3.age(&claim, Duration::from_secs(7200));
        }
        "nothing can be written any more" => {
            s3.fault(Fault::new(Says::error(507, "InsufficientStorage")).method("PUT"));
        }
        _ => panic!("{fault:?} is no fault"),
    }
}

fn spool(bench: &Bench) -> std::path::PathBuf {
    Path::new(&bench.environment()["WALHALLA_SPOOL"]).to_owned()
}

/// Takes the fault away. What somebody else has stored, and what the store has become, stays.
fn heal(cell: &Cell, world: &World, bench: Bench) -> Bench {
    world.s3.heal();
    world.proxy.always(Plan::pass());
    let lasting =
        cell.fault.contains("of late") || cell.fault == "conditional create is refused though nothing is there";
    if !lasting {
        world.s3.personality(|p| *p = personality(cell.store));
    }
    let spool = spool(&bench);
    let bench = bench
        .at(&world.proxy.endpoint())
        .without("WALHALLA_S3_CA_FILE")
        .without("WALHALLA_COMPRESSION_LEVEL")
        .without("WALHALLA_ARCHIVE_TIMEOUT");
    let bench = if spool.starts_with("/proc") { bench.without("WALHALLA_SPOOL") } else { bench };
    for name in ["walhalla.held", "postmaster.pid", "global/pg_control"] {
        std::fs::remove_file(bench.data().join(name)).ok();
    }
    std::fs::remove_dir(bench.data().join("pg_wal").join(segment_name(NUMBER))).ok();
    bench.restore_template();
    bench.wal(NUMBER);
    bench
}

#[test]
#[ignore = "takes minutes, and not all rows are settled yet"]
fn every_cell() {
    let mut cells = cells();
    let all = cells.len();
    cells.retain(|cell| is_asked_for(&cell.fault));
    let results = run_all(&cells, run);
    println!("walhalla-archive: {} of {all} cells", cells.len());
    assert_eq!(results.len(), cells.len());
    let panics: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).cloned().collect();
    let broken = || Outcome { call: "broken".to_owned(), next: "broken".to_owned() };
    let outcomes: Vec<Outcome> = results.into_iter().map(|result| result.unwrap_or_else(|_| broken())).collect();
    let wrong = cells.iter().zip(&outcomes).filter(|(cell, outcome)| cell.outcome != **outcome).count();
    let as_they_are = as_they_are(&cells, &outcomes);
    assert!(wrong == 0, "{wrong} cells differ; as they are:\n{as_they_are}\n{}", panics.join("\n"));
}

/// The rows that differ.
fn as_they_are(cells: &[Cell], outcomes: &[Outcome]) -> String {
    let merged = |texts: Vec<&str>| match texts.iter().all(|text| *text == texts[0]) {
        true => texts[0].to_owned(),
        false => texts.join(" / "),
    };
    let mut text = String::new();
    for (cells, outcomes) in cells.chunks(6).zip(outcomes.chunks(6)) {
        if cells.iter().zip(outcomes).all(|(cell, outcome)| cell.outcome == *outcome) {
            continue;
        }
        let calls = |from: usize| merged(outcomes[from..from + 3].iter().map(|o| o.call.as_str()).collect());
        let nexts: Vec<Vec<&str>> =
            [0, 3].map(|from| outcomes[from..from + 3].iter().map(|o| o.next.as_str()).collect()).into();
        let next = match nexts[0] == nexts[1] {
            true => merged(nexts[0].clone()),
            false => format!("{nexts:?}"),
        };
        let (stage, ..) = STAGES[cells[0].stage];
        text += &format!("{stage} | {} | {} | {} | {next}\n", cells[0].fault, calls(0), calls(3));
    }
    text
}
