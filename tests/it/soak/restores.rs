//! Restores to random moments, in bad weather, and what the restored servers show.

use super::audit::archived_up_to;
use super::ledger::{Micros, Moment};
use super::load::{self, end_of};
use super::world::{LONG, Primary, World};
use crate::support::postgres::Postgres;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use walhalla::pg::{Lsn, TimelineId};

/// Where to, and what that means.
pub(super) struct Target {
    pub(super) kind: &'static str,
    arguments: Vec<String>,
    moment: Moment,
    timeline: TimelineId,
}

impl Target {
    /// All that there is.
    pub(super) fn latest(world: &World, primary: &Primary) -> Self {
        let all_before = archived_up_to(world, primary);
        let moment = Moment::Position { all_before, none_after: Lsn(u64::MAX) };
        Self { kind: "latest", arguments: Vec::new(), moment, timeline: primary.timeline }
    }

    /// A moment that the archive reaches, by lot; `latest` where there is none yet.
    pub(super) fn draw(world: &World, primary: &Primary, random: &mut fastrand::Rng) -> Self {
        let archived = archived_up_to(world, primary);
        let Some((time, position)) = world.ledger.some_moment(random, world.first_backup, archived) else {
            return Self::latest(world, primary);
        };
        match random.u8(0..10) {
            0..3 => Self::time(time, primary.timeline),
            3..6 => {
                Self::at("position", &["--target-lsn", &position.to_string()], position, position, primary.timeline)
            }
            6..8 => {
                let points = primary.points.lock().unwrap();
                let reached = points.iter().filter(|(_, from, to)| *from > world.first_backup && *to < archived);
                match random.choice(reached.collect::<Vec<_>>()) {
                    Some((name, from, to)) => {
                        Self::at("restore point", &["--target-name", name], *from, *to, primary.timeline)
                    }
                    None => Self::latest(world, primary),
                }
            }
            _ => Self::latest(world, primary),
        }
    }

    fn time(micros: Micros, timeline: TimelineId) -> Self {
        let time = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        let time = as_typed(&time);
        let moment = Moment::Time { all_before: micros, none_after: micros };
        Self { kind: "time", arguments: vec!["--target-time".to_owned(), time], moment, timeline }
    }

    fn at(kind: &'static str, arguments: &[&str], all_before: Lsn, none_after: Lsn, timeline: TimelineId) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { kind, arguments, moment: Moment::Position { all_before, none_after }, timeline }
    }
}

/// Seconds since 1970 as the operator would type them; GNU date knows the calendar.
fn as_typed(seconds: &str) -> String {
    let mut date = std::process::Command::new("date");
    let output = date.args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M:%S.%6N+00"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A server restored to the target, open for writing, and the rows it shows.
pub(super) struct Restored {
    pub(super) server: Postgres,
    pub(super) rows: BTreeSet<i64>,
    directory: PathBuf,
}

impl Restored {
    /// Throws it away.
    pub(super) fn remove(self, world: &World) {
        world.targets.lock().unwrap().remove(&self.directory);
        drop(self.server);
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Restores in whatever weather there is, as often as it takes; `Err` where that does not help within the limit.
pub(super) fn restore(
    world: &World,
    target: &Target,
    role: &str,
    random: &mut fastrand::Rng,
) -> Result<Restored, String> {
    let number = world.figures.total("restores") + world.figures.total("switches");
    let directory = world.place.path().join(format!("restored-{number}"));
    fetch(world, target, role, &directory, random)?;
    let server = world.adopt(&directory);
    open(world, &server).map_err(|why| format!("{}: {why}\n{}", target.kind, end(&server.log())))?;
    let ids = server.psql("SELECT id FROM soak")?;
    let rows = ids.lines().map(|id| id.parse().unwrap()).collect();
    match server.psql(load::SPOILT)?.as_str() {
        "0" => Ok(Restored { server, rows, directory }),
        spoilt => Err(format!("{spoilt} rows hold what was never written")),
    }
}

/// Runs `walhalla restore` until it succeeds, now and then killing it.
fn fetch(world: &World, target: &Target, role: &str, to: &Path, random: &mut fastrand::Rng) -> Result<(), String> {
    let to_text = to.display().to_string();
    let mut arguments = vec!["restore", "--to", &to_text, "--as", role, "--target-action", "promote"];
    if target.arguments.is_empty() {
        arguments.truncate(5);
    }
    arguments.extend(target.arguments.iter().map(String::as_str));
    // Backups of what was given up may be the newest there are: then it must be said which way is meant.
    let timeline = target.timeline.to_string();
    if world.went_back.load(Ordering::Relaxed) {
        arguments.extend(["--target-timeline", &timeline]);
    }
    for attempt in 0..8 {
        // The last tries are made in good weather: what then fails would never succeed.
        let variables = if attempt < 6 { &world.variables } else { &world.direct };
        let child = world.walhalla(&arguments, variables);
        let life = (attempt < 6 && random.u8(0..5) == 0).then(|| Duration::from_millis(random.u64(20..2000)));
        match end_of(child, life, || false) {
            Some(true) => return Ok(()),
            Some(false) => world.figures.count("troubles", "walhalla restore gave up"),
            None => world.figures.count("kills", "walhalla restore"),
        }
        if to.exists() {
            std::fs::remove_dir_all(to).unwrap();
        }
    }
    let log = std::fs::read_to_string(world.log()).unwrap_or_default();
    Err(format!("walhalla {} does not succeed:\n{}", arguments.join(" "), end(&log)))
}

/// Starts it until it has recovered and been promoted: an archive in trouble stops it, and then it is started again.
fn open(world: &World, server: &Postgres) -> Result<(), String> {
    let limit = Instant::now() + LONG;
    let mut starts = 0;
    while Instant::now() < limit {
        if !server.is_running() {
            starts += 1;
            server.launch();
        }
        if server.status() == "ready" && server.psql("SELECT pg_is_in_recovery()").as_deref() == Ok("f") {
            world.figures.add("troubles", "a recovery stopped, and was started again", starts - 1);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("no end of recovery after {LONG:?} and {starts} starts"))
}

fn end(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Restores a copy, compares its rows, throws it away.
pub(super) fn try_one(world: &World, target: &Target, random: &mut fastrand::Rng) {
    let outcome = restore(world, target, "copy", random).and_then(|restored| {
        world.figures.count("restores", target.kind);
        let compared = world.ledger.compare(&restored.rows, target.moment);
        let said = end(&restored.server.log());
        restored.remove(world);
        compared.map_err(|why| format!("restored to {} {:?}: {why}\n{said}", target.kind, target.arguments))
    });
    match outcome {
        Ok(decided) => world.figures.add("rows", "compared", decided as u64),
        Err(why) => world.figures.wrong(why),
    }
}

/// The primary is lost, and another is restored, to the archive's end or to an earlier moment, and goes on in its place.
pub(super) fn switch(world: &World, random: &mut fastrand::Rng) {
    world.hurry.store(true, Ordering::Relaxed);
    let mut primary = world.primary.write().unwrap();
    world.hurry.store(false, Ordering::Relaxed);
    primary.server.kill();
    let back = random.bool();
    let target = if back { Target::draw(world, &primary, random) } else { Target::latest(world, &primary) };
    world.targets.lock().unwrap().clear();
    std::fs::remove_dir_all(primary.server.data()).unwrap();
    let restored = match restore(world, &target, "primary", random) {
        Ok(restored) => restored,
        Err(why) => return world.figures.wrong(why),
    };
    world.went_back.fetch_or(back, Ordering::Relaxed);
    if let Err(why) = world.ledger.compare(&restored.rows, target.moment) {
        world.figures.wrong(format!("going on from {} {:?}: {why}", target.kind, target.arguments));
    }
    world.figures.count("switches", target.kind);
    let floor = restored.server.psql("SELECT pg_current_wal_lsn()").unwrap().parse().unwrap();
    world.ledger.go_on_with(&restored.rows, floor);
    world.targets.lock().unwrap().insert(restored.server.data().to_owned(), u32::MAX);
    let next = Primary::of(restored.server, floor);
    // Without it the next restore would not find this timeline.
    let history = format!("{}.history", next.timeline.hex());
    let done = next.server.data().join("pg_wal/archive_status").join(format!("{history}.done"));
    let limit = Instant::now() + LONG;
    while !done.exists() {
        if Instant::now() > limit {
            world.figures.wrong(format!("{history} is not archived:\n{}", end(&next.server.log())));
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    *primary = next;
}
