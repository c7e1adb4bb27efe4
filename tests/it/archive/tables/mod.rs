//! The truth tables: every fault, wherever it can strike, and what the real programs make of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `push.txt`, `fetch.txt` | the tables: what goes wrong, and what must come of it. The one source of the tests and of `docs/exit-codes.md` |
//! | `push.rs`, `fetch.rs` | how a cell is run, and what is looked at afterwards |
//! | `faults.rs` | what the words for faults mean |
//! | `docs.rs` | the tables as `docs/exit-codes.md` shows them: `WALHALLA_WRITE_DOCS=1 cargo test --test it archive::tables::docs` |
//! | `servers.rs`, `rewind.rs` | what real servers, and a real `pg_rewind`, make of each answer that `fetch.txt` holds |
//!
//! Where a table and the programs differ, the test prints the rows as they would have to be: to be judged, not to be copied.

mod docs;
mod faults;
mod fetch;
mod push;
mod rewind;
mod servers;

use crate::support::checkout;
use crate::support::fake_s3::FakeS3;
use crate::support::proxy::Proxy;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store and the line to it, for one cell after the other.
struct World {
    s3: FakeS3,
    proxy: Proxy,
    /// What earlier calls of `walhalla-archive` left, by kind of store.
    known: BTreeMap<usize, push::Known>,
}

impl World {
    fn new() -> Self {
        let s3 = FakeS3::start();
        let proxy = Proxy::to(s3.port());
        Self { s3, proxy, known: BTreeMap::new() }
    }
}

/// Runs all cells, many at a time: most of them wait for a deadline. What `run` answers comes back in the order of the cells; where it
/// panics, why.
fn run_all<C: Sync, T: Send>(cells: &[C], run: impl Fn(&mut World, &C) -> T + Sync) -> Vec<Result<T, String>> {
    const AT_ONCE: usize = 24;
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<T, String>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(cells.len()) {
            scope.spawn(|| {
                let mut world = World::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(at) else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| run(&mut world, cell))).map_err(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
                    });
                    results.lock().unwrap().push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The rows of a table: lines of fields parted by `|`; what begins with `#` is a remark.
fn rows(table: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(checkout().join("tests/it/archive/tables").join(table)).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split('|').map(|field| field.trim().to_owned()).collect()).collect()
}

/// Whether a fault is to be tried now: all, unless `WALHALLA_TEST_FAULT` holds a part of its words.
fn is_asked_for(fault: &str) -> bool {
    std::env::var("WALHALLA_TEST_FAULT").map_or(true, |part| fault.contains(&part))
}
