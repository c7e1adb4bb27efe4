//! The table of `walhalla-restore`: every fault, in every mode, for both kinds of file, whatever the archive has.

use super::super::bench::{Answer, Bench, SEGMENT};
use super::faults::{self, Between};
use super::{World, is_asked_for, rows, run_all};
use crate::support::fake_s3::FakeS3;
use crate::support::long_run;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;
use walhalla::codec::{self, Encoding, Kind, Recipients, Subject};
use walhalla::pg::{Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineId};

pub(super) const TABLE: &str = "fetch.txt";

/// The columns, the files by which a server shows them, and the setting.
pub(super) const MODES: [(&str, &[&str], &str); 6] = [
    ("recovery", &["recovery.signal"], "off"),
    ("standby", &["standby.signal"], "off"),
    ("promotion", &["standby.signal", "promote"], "off"),
    ("promotion that needs the archive", &["standby.signal", "promote"], "on"),
    ("recovery is ending", &[], "off"),
    ("pg_rewind", &["standby.signal"], "off"),
];
const REWIND: usize = 5;

pub(super) const KINDS: [&str; 2] = ["segment", "history"];

/// What the archive has of the file, and the server.
pub(super) const STATES: [&str; 5] = ["present", "absent", "gap", "gap that fills", "in pg_wal"];

/// The segment that is asked for, and a real one's content: a server ended it by a switch.
const ASKED: &str = "00000001000000000000000F";
const BEFORE: &str = "00000001000000000000000E";
const BEHIND: &str = "000000010000000000000010";
const HISTORY: &str = "00000002.history";

/// A cell of the table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) fault: String,
    pub(super) mode: usize,
    pub(super) kind: usize,
    pub(super) state: usize,
    pub(super) status: i32,
}

/// The faults that are about one object: they strike where it is.
const ABOUT_THE_OBJECT: [&str; 12] = [
    "the object is empty",
    "the object is cut short",
    "a bit of the object is flipped",
    "the object is no object of ours",
    "the object is of a newer format",
    "the object is another file's",
    "the object is another cluster's",
    "the object is too long",
    "the body received is cut off",
    "the body received is reset",
    "the body received stalls",
    "a bit of the body received is flipped",
];

fn is_about_the_object(fault: &str) -> bool {
    ABOUT_THE_OBJECT.contains(&fault.trim_end_matches(", once"))
}

/// Where the fault can strike. A setting that nobody can read leaves a promotion its patience of a minute: once is enough.
pub(super) fn states_of(fault: &str) -> Vec<usize> {
    if is_about_the_object(fault) {
        vec![0, 4]
    } else if fault == WRONG_SETTING {
        vec![0]
    } else {
        (0..STATES.len()).collect()
    }
}

const WRONG_SETTING: &str = "the storage setting is wrong";

/// Whether the cell belongs to the short run. Where something goes wrong between the program and the store, no answer of the archive
/// comes through, and what it has cannot matter: the short run tries that where the file is present and where it is absent, the long
/// one wherever else it may be.
fn is_in_short_run(cell: &Cell) -> bool {
    let is_between = faults::between(&cell.fault).is_some() && !is_about_the_object(&cell.fault);
    !is_between || cell.state < 2
}

/// Every cell of the table, each once; panics where one is missing or said twice.
pub(super) fn cells() -> Vec<Cell> {
    let mut cells: BTreeMap<(usize, usize, usize, usize), Cell> = BTreeMap::new();
    let mut faults: Vec<String> = Vec::new();
    for row in rows(TABLE) {
        let [fault, kinds, states, statuses] = &row[..] else { panic!("not four fields: {row:?}") };
        if !faults.iter().any(|known| known == fault) {
            faults.push(fault.to_owned());
        }
        let index = faults.iter().position(|known| known == fault).unwrap();
        for kind in chosen(kinds, &KINDS, &[0, 1]) {
            for state in chosen(states, &STATES, &states_of(fault)) {
                for mode in 0..MODES.len() {
                    let status = match statuses.as_str() {
                        "as none" => cells[&(0, kind, state, mode)].status,
                        _ => statuses.split(' ').nth(mode).and_then(|status| status.parse().ok()).unwrap(),
                    };
                    let cell = Cell { fault: fault.clone(), mode, kind, state, status };
                    let earlier = cells.insert((index, kind, state, mode), cell);
                    assert!(earlier.is_none(), "said twice: {row:?} {kind} {state}");
                }
            }
        }
    }
    let expected: usize = faults.iter().map(|fault| states_of(fault).len() * KINDS.len() * MODES.len()).sum();
    assert_eq!(cells.len(), expected, "a cell has no row");
    cells.into_values().collect()
}

/// "any", or some of the names, by comma.
fn chosen(text: &str, names: &[&str], any: &[usize]) -> Vec<usize> {
    if text == "any" {
        return any.to_vec();
    }
    let index = |name: &str| names.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name:?}"));
    text.split(',').map(|name| index(name.trim())).collect()
}

/// A segment that is valid to its last page, of the bench's cluster. Page headers have no checksum, so the cluster can be changed.
fn valid_segment(system: u64) -> Vec<u8> {
    static SEGMENT: OnceLock<Vec<u8>> = OnceLock::new();
    let segment =
        SEGMENT.get_or_init(|| zstd::decode_all(&include_bytes!("../../../fixtures/pg/segment_15.zst")[..]).unwrap());
    let mut bytes = segment.clone();
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes
}

/// A history long enough that a line can break within it.
fn history() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let reason: String = std::iter::repeat_with(|| random.alphanumeric()).take(3000).collect();
    format!("1\t0/1000028\t{reason}\n").into_bytes()
}

fn subject(name: &str, system: u64) -> Subject {
    let (timeline, start) = match name.strip_suffix(".history") {
        Some(timeline) => (TimelineId::from_hex(timeline).unwrap().get(), Lsn::INVALID),
        None => (1, name.parse::<SegmentName>().unwrap().start(SegmentSize::new(1 << 20).unwrap()).unwrap()),
    };
    Subject { kind: Kind::Wal, system_identifier: SystemIdentifier(system), timeline, start }
}

fn object(plain: &[u8], subject: Subject) -> Vec<u8> {
    let encoding = Encoding { level: 1, recipients: Recipients::default() };
    codec::encode_bytes(plain, subject, &encoding).unwrap().bytes.to_vec()
}

/// The file that is asked for, and its object. They are made once.
fn asked(kind: usize, system: u64) -> (&'static str, &'static (Vec<u8>, Vec<u8>)) {
    static MADE: [OnceLock<(Vec<u8>, Vec<u8>)>; 2] = [const { OnceLock::new() }; 2];
    let name = [ASKED, HISTORY][kind];
    let made = MADE[kind].get_or_init(|| {
        let plain = if kind == 0 { valid_segment(system) } else { history() };
        let object = object(&plain, subject(name, system));
        (plain, object)
    });
    (name, made)
}

/// The archive in this state: what the file's own key holds is said by the state, what speaks against an absence too.
fn stock(s3: &FakeS3, bench: &Bench, kind: usize, state: usize, about_the_object: bool) {
    let system = bench.system();
    let (name, (plain, body)) = asked(kind, system);
    s3.insert(&format!("cluster/{system}/cluster.json"), identity(system, 15));
    s3.insert(&bench.key(BEFORE), "somebody's");
    let (key, later) = (bench.key(name), bench.key([BEHIND, "00000003.history"][kind]));
    match STATES[state] {
        "present" => s3.insert(&key, body.clone()),
        "absent" => {}
        "gap" => s3.insert(&later, "somebody's"),
        "gap that fills" => {
            s3.insert(&later, "somebody's");
            s3.arrives_once_listed(&format!("cluster/{system}/wal/"), &key, body.clone());
        }
        _ => {
            if about_the_object {
                s3.insert(&key, body.clone());
            }
            s3.insert(&later, "somebody's");
            bench.write(&format!("pg_wal/{name}"), plain);
        }
    }
}

fn identity(system: u64, major: u32) -> String {
    format!(
        "{{\"format\":1,\"system_identifier\":\"{system}\",\"postgres_major\":{major},\"wal_segment_size\":{SEGMENT}}}\n"
    )
}

/// Changes what the archive or the machine is like.
fn spoil(fault: &str, s3: &FakeS3, bench: &Bench, kind: usize) {
    let system = bench.system();
    let (name, (plain, body)) = asked(kind, system);
    let key = bench.key(name);
    let cluster_json = format!("cluster/{system}/cluster.json");
    match fault {
        "the object is empty" => s3.insert(&key, ""),
        "the object is cut short" => s3.insert(&key, body[..body.len() / 2].to_vec()),
        "a bit of the object is flipped" => s3.damage(&key, |body| *body.last_mut().unwrap() ^= 1),
        "the object is no object of ours" => s3.insert(&key, "<html>somebody's page</html>"),
        "the object is of a newer format" => {
            // The version lies behind the frame's head and the magic; the header's own sum is its last field.
            let mut newer = body.clone();
            newer[16] = 9;
            let sum = crc32fast::hash(&newer[..codec::HEADER_LEN - 4]);
            newer[codec::HEADER_LEN - 4..codec::HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
            s3.insert(&key, newer);
        }
        "the object is another file's" => {
            let other = [BEHIND, "00000004.history"][kind];
            s3.insert(&key, object(plain, subject(other, system)));
        }
        "the object is another cluster's" => s3.insert(&key, object(plain, subject(name, system + 1))),
        "the object is too long" => {
            s3.insert(&key, object(&vec![b'x'; SEGMENT + 1], subject(name, system)));
        }
        "the repository has no identity" => s3.remove(&cluster_json),
        "the identity is empty" => s3.insert(&cluster_json, ""),
        "the identity is another cluster's" => s3.insert(&cluster_json, identity(system, 16)),
        "the identity is of a newer format" => s3.insert(&cluster_json, "{\"format\":2}"),
        "the repository has a feature unknown here" => s3.insert(&format!("cluster/{system}/feature/later"), ""),
        "the repository has streamed WAL" => {
            let tail = ["00000001/000000010000000000000010", "00000002/000000020000000000000010"][kind];
            s3.insert(&format!("cluster/{system}/tail/{tail}/0-8192"), "x");
        }
        "pg_control is damaged" => {
            let mut control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
            control[100] ^= 1;
            bench.write("global/pg_control", control);
        }
        "pg_control hangs" => bench.hang("global/pg_control"),
        "PG_VERSION is missing" => std::fs::remove_file(bench.data().join("PG_VERSION")).unwrap(),
        "the file cannot be written" => {
            for name in ["RECOVERYXLOG", "RECOVERYHISTORY", ASKED, HISTORY] {
                let path = bench.data().join("pg_wal").join(name);
                // What lies there cannot be replaced by a file.
                if !path.exists() {
                    std::fs::create_dir_all(path.join("in the way")).unwrap();
                }
            }
        }
        _ => panic!("{fault:?} is no fault"),
    }
}

/// A setting that goes wrong.
fn setting(fault: &str) -> Option<(&'static str, &'static str)> {
    Some(match fault {
        WRONG_SETTING => ("WALHALLA_STORAGE", "ftp://nonsense"),
        "the secret key is wrong" => ("AWS_SECRET_ACCESS_KEY", "wrong"),
        "the bucket does not exist" => ("WALHALLA_STORAGE", "s3://elsewhere/cluster"),
        "the prefix is wrong" => ("WALHALLA_STORAGE", "s3://bucket/elsewhere"),
        "there is no spool" => ("WALHALLA_SPOOL", "/proc/nowhere"),
        _ => return None,
    })
}

/// Runs one cell, and answers the status. What must hold in every cell is asserted here.
fn run(world: &mut World, cell: &Cell) -> i32 {
    let Cell { fault, mode, kind, state, .. } = cell;
    let (s3, proxy) = (&world.s3, &world.proxy);
    s3.reset();
    proxy.always(Default::default());
    let (_, files, needs) = MODES[*mode];
    let mut bench = Bench::bare().at(&proxy.endpoint()).with("WALHALLA_PROMOTE_NEEDS_ARCHIVE", needs);
    let (name, (plain, _)) = asked(*kind, bench.system());
    for file in files {
        bench.write(file, "");
    }
    stock(s3, &bench, *kind, *state, is_about_the_object(fault));
    if fault != "none" {
        bench = strike(fault, world, bench, *kind);
    }
    let limit = limit(cell);
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", limit).with("WALHALLA_PROMOTE_TIMEOUT", limit);

    let asked_as = if *kind == 0 { "RECOVERYXLOG" } else { "RECOVERYHISTORY" };
    let destination = bench.data().join("pg_wal").join(if *mode == REWIND { name } else { asked_as });
    let in_the_way = destination.is_dir();
    if !destination.exists() {
        std::fs::write(&destination, "what was there").unwrap();
    }
    let before = std::fs::read(&destination).unwrap_or_default();
    let path = match *mode {
        REWIND => destination.display().to_string(),
        _ => format!("pg_wal/{asked_as}"),
    };
    let answer = bench.restore(&[name, &path]);
    check(cell, &bench, &answer, limit);
    let after = std::fs::read(&destination).unwrap_or_default();
    match answer.status {
        0 => assert!(after == *plain, "{cell:?}: delivered, and not whole"),
        _ => assert!(after == before && destination.is_dir() == in_the_way, "{cell:?}: not delivered, and changed"),
    }
    answer.status
}

/// A second where nothing but that can end the call, and more where the program must come through to the store first, however slow
/// this machine is.
fn limit(cell: &Cell) -> &'static str {
    let waits_for_nothing = [0, REWIND].contains(&cell.mode) && [1, 200, 203, 204].contains(&cell.status);
    match cell.status {
        0 => "30s",
        _ if waits_for_nothing => "30s",
        1 | 202 => "1s",
        _ => "4s",
    }
}

fn check(cell: &Cell, bench: &Bench, answer: &Answer, limit: &str) {
    let said = answer.stderr.lines().count();
    assert!(said <= 1, "{cell:?}: {answer:?}");
    // Silent is only what needs no word: success, and an absence that is looked for every few seconds.
    assert!(said == 1 || answer.status <= 1, "{cell:?}: {answer:?}");
    assert!(!answer.stderr.contains("internal error"), "{cell:?}: {answer:?}");
    let long = Duration::from_secs(if limit == "1s" && cell.fault != WRONG_SETTING { 20 } else { 75 });
    assert!(answer.took < long, "{cell:?}: {answer:?}");
    let left: Vec<_> = bench.pg_wal().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{cell:?}: {left:?} is left");
}

/// Brings the fault about.
fn strike(fault: &str, world: &World, bench: Bench, kind: usize) -> Bench {
    if let Some((name, value)) = setting(fault) {
        return bench.with(name, value);
    }
    let Some((between, lasts)) = faults::between(fault) else {
        spoil(fault, &world.s3, &bench, kind);
        return bench;
    };
    match between {
        Between::Says(says) => world.s3.fault(if lasts { says } else { says.times(1) }),
        Between::Line(plan) | Between::Whole(plan) if !lasts => world.proxy.next(plan),
        Between::Line(plan) | Between::Whole(plan) => world.proxy.always(plan),
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

#[test]
#[ignore = "takes minutes, and not all rows are settled yet"]
fn every_cell() {
    let mut cells = cells();
    let all = cells.len();
    cells.retain(|cell| (long_run() || is_in_short_run(cell)) && is_asked_for(&cell.fault));
    // What takes longest begins first.
    cells.sort_by_key(|cell| cell.fault != WRONG_SETTING);
    let results = run_all(&cells, run);
    println!("walhalla-restore: {} of {all} cells", cells.len());
    assert_eq!(results.len(), cells.len());
    let panics: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).cloned().collect();
    let statuses: Vec<i32> = results.into_iter().map(|result| result.unwrap_or(-1)).collect();
    let wrong = cells.iter().zip(&statuses).filter(|(cell, status)| cell.status != **status).count();
    let as_they_are = as_they_are(&cells, &statuses);
    assert!(wrong == 0, "{wrong} cells differ; as they are:\n{as_they_are}\n{}", panics.join("\n"));
}

/// The rows of those faults that differ.
fn as_they_are(cells: &[Cell], statuses: &[i32]) -> String {
    type Columns = BTreeMap<(usize, usize), Vec<String>>;
    let mut faults: BTreeMap<usize, (String, Columns)> = BTreeMap::new();
    let mut order: Vec<&str> = Vec::new();
    let mut wrong: Vec<&str> = Vec::new();
    for (cell, status) in cells.iter().zip(statuses) {
        if !order.contains(&cell.fault.as_str()) {
            order.push(&cell.fault);
        }
        let at = order.iter().position(|fault| *fault == cell.fault).unwrap();
        let (_, rows) = faults.entry(at).or_insert_with(|| (cell.fault.clone(), BTreeMap::new()));
        rows.entry((cell.kind, cell.state)).or_default().push(status.to_string());
        if cell.status != *status {
            wrong.push(&cell.fault);
        }
    }
    let mut text = String::new();
    for (fault, rows) in faults.values().filter(|(fault, _)| wrong.contains(&fault.as_str())) {
        let mut by_statuses: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (place, statuses) in rows {
            by_statuses.entry(statuses.join(" ")).or_default().push(*place);
        }
        for (statuses, places) in by_statuses {
            let all: Vec<_> =
                [0, 1].iter().flat_map(|kind| states_of(fault).into_iter().map(move |s| (*kind, s))).collect();
            if places == all {
                text += &format!("{fault} | any | any | {statuses}\n");
                continue;
            }
            for kind in [0, 1] {
                let states: Vec<_> = places.iter().filter(|(k, _)| *k == kind).map(|(_, s)| STATES[*s]).collect();
                if !states.is_empty() {
                    text += &format!("{fault} | {} | {} | {statuses}\n", KINDS[kind], states.join(", "));
                }
            }
        }
    }
    text
}
