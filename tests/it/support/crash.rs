//! Crash points: a program is ended by a signal at each of its system calls that change anything, and what it leaves is judged.
//!
//! A [`Scenario`] is a value: how a place is prepared, which program is called in it, what must hold where it was ended in the
//! middle, and that the next run puts everything right. Strace counts the calls of each thread by itself, so a point is "the first
//! thread that comes to its nth call of this name", and where the call is about a path that is the same each time, "… on this path".

use super::strace::{self, Call, Program};
use super::{long_run, skipped};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The calls by which a program changes a disk or speaks to a peer.
const EFFECTS: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,\
    unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,truncate,ftruncate,copy_file_range,connect,sendto,sendmsg";

/// How many points are tried at once.
const SIDE_BY_SIDE: usize = 2;

/// What is broken off, and what must hold afterwards. `P` is a place: everything that one run needs for itself.
pub(crate) struct Scenario<'a, P> {
    pub(crate) name: &'a str,
    /// Makes a fresh place. The program must end with 0 in it.
    pub(crate) prepare: &'a (dyn Fn() -> P + Sync),
    /// The directory of a place: below it, paths are the same each time.
    pub(crate) root: &'a (dyn Fn(&P) -> PathBuf + Sync),
    /// The call that is broken off.
    pub(crate) program: &'a (dyn Fn(&P) -> Program + Sync),
    /// What must hold after it was ended, wherever that was.
    pub(crate) broken: &'a (dyn Fn(&P) + Sync),
    /// The next run, which must succeed, and what must hold then.
    pub(crate) again: &'a (dyn Fn(&P) + Sync),
}

/// Which of the points are tried where there is no time for all (`scripts/test --all` takes the time).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sample {
    All,
    /// As many of them, in an order drawn by a seed, as begin within this time; at least four.
    Within(Duration),
}

/// Where a program is ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    /// The path that it is about, in the place.
    path: Option<String>,
    nth: usize,
    signal: &'static str,
}

/// Ends the program at its points by each of these signals (`KILL` before the call takes effect, the others after it).
pub(crate) fn try_points<P>(scenario: &Scenario<'_, P>, signals: &[&'static str], sample: Sample) {
    if let Some(why) = strace::unavailable() {
        return skipped(&format!("crash points of {}", scenario.name), why);
    }
    let counted = counted(scenario);
    let with = |signal: &'static str| counted.iter().map(move |point| Point { signal, ..point.clone() });
    let mut points: Vec<Point> = signals.iter().flat_map(|signal| with(signal)).collect();
    let all = points.len();
    let seed = super::seed();
    if matches!(sample, Sample::Within(_)) && !long_run() {
        fastrand::Rng::with_seed(seed).shuffle(&mut points);
    }
    let (next, reached, began) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let late = match sample {
                Sample::Within(time) if !long_run() => at >= 4 && began.elapsed() > time,
                _ => false,
            };
            let (false, Some(point)) = (late || failed.lock().unwrap().is_some(), points.get(at)) else {
                next.fetch_sub(1, Ordering::Relaxed);
                return;
            };
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_one(scenario, point)));
            match tried {
                Ok(hit) => drop(reached.fetch_add(usize::from(hit), Ordering::Relaxed)),
                Err(_) => *failed.lock().unwrap() = Some(point.clone()),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(work);
        }
    });
    let (tried, reached) = (next.into_inner(), reached.into_inner());
    println!("{}: {tried} of {all} crash points tried, {reached} reached; seed {seed}", scenario.name);
    if let Some(point) = failed.into_inner().unwrap() {
        panic!("{}, ended at {point:?}: it does not hold; see above", scenario.name);
    }
    // Threads share the work differently each time, so that some points are not met again.
    assert!(reached * 4 >= tried, "{}: only {reached} of {tried} points were reached", scenario.name);
}

/// The points of one undisturbed run.
fn counted<P>(scenario: &Scenario<'_, P>) -> BTreeSet<Point> {
    let place = (scenario.prepare)();
    let ended = strace::trace(&(scenario.program)(&place), EFFECTS, None, None);
    assert_eq!(ended.status, Some(0), "{}: {}", scenario.name, ended.stderr);
    (scenario.again)(&place);
    let root = (scenario.root)(&place);
    let mut counts = HashMap::new();
    let mut points = BTreeSet::new();
    for call in &ended.calls {
        let path = path_in(call, &root);
        // Without a path in its filter strace counts every call of the name.
        let mut count = |path: Option<String>| {
            let nth = counts.entry((call.thread, call.name.clone(), path)).or_insert(0_usize);
            *nth += 1;
            *nth
        };
        let (any, here) = (count(None), path.clone().map(|path| count(Some(path))));
        if changes_something(call) {
            points.insert(Point { call: call.name.clone(), path, nth: here.unwrap_or(any), signal: "" });
        }
    }
    points
}

/// The path in the place that a call is about, if it is the same each time: the last that it names and that is not temporary.
fn path_in(call: &Call, root: &Path) -> Option<String> {
    let open = call.arguments.iter().filter(|argument| !argument.starts_with("AT_FDCWD"));
    let described = open.filter_map(|argument| Call::described(argument)).map(PathBuf::from);
    // Strace compares what is spelt, letter by letter.
    let whole = |at: &usize| call.arguments[*at].starts_with("\"/");
    let spelt = (0..call.arguments.len()).filter(whole).filter_map(|at| call.path(at));
    let mut paths = described.chain(spelt).filter_map(|path| path.strip_prefix(root).ok()?.to_str().map(str::to_owned));
    paths.rfind(|path| !path.is_empty() && !path.contains(".~") && !path.contains(".walhalla-"))
}

/// Whether anybody else can tell that it happened: not the runtime waking itself, and no word on stdout or stderr.
fn changes_something(call: &Call) -> bool {
    let to = call.arguments[0].as_str();
    let path = Call::described(to).unwrap_or_default();
    !path.starts_with("anon_inode:") && !path.starts_with("pipe:") && !to.starts_with("1<") && !to.starts_with("2<")
}

/// Whether the program was ended there.
fn try_one<P>(scenario: &Scenario<'_, P>, point: &Point) -> bool {
    let place = (scenario.prepare)();
    let strike = format!("inject={}:signal={}:when={}", point.call, point.signal, point.nth);
    let path = point.path.as_ref().map(|path| (scenario.root)(&place).join(path));
    let ended = strace::trace(&(scenario.program)(&place), EFFECTS, Some(&strike), path.as_deref());
    // A program may answer a signal by ending in order.
    let answered = point.signal != "KILL" && ended.status != Some(0);
    let hit = ended.status.is_none() || answered;
    assert!(hit || ended.status == Some(0), "{point:?}: {}", ended.stderr);
    let told = Told { point, calls: &ended.calls };
    (scenario.broken)(&place);
    (scenario.again)(&place);
    drop(told);
    hit
}

/// Tells of the point where what should hold does not.
struct Told<'a> {
    point: &'a Point,
    calls: &'a [Call],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = &self.calls[self.calls.len().saturating_sub(8)..];
            println!("ended at {:?}; the last calls: {last:#?}", self.point);
        }
    }
}
