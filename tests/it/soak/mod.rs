//! The soak: a real server under load, a line and a store that misbehave at random, processes that are killed at random; and all
//! the while restores to random moments, whose rows are held against what was committed. No row is lost, none appears that must
//! not, nothing is called archived that is not.
//!
//! | file | subject |
//! |---|---|
//! | `world` | what everybody shares |
//! | `load` | writers, restore points, backups |
//! | `ledger` | what was committed, and what a restored server must show of it |
//! | `weather` | the store, and the line to it |
//! | `kills` | who is killed |
//! | `audit` | whatever is called archived is in the store |
//! | `restores` | restores, and switches to a restored server |
//!
//! `scripts/soak MINUTES SEED` runs it for long. The seed decides what is drawn, not how the threads meet.

mod audit;
mod figures;
mod kills;
mod ledger;
mod load;
mod restores;
mod weather;
mod world;

use crate::support::postgres::server_programs;
use crate::support::{skipped, wait_until};
use restores::Target;
use std::time::{Duration, Instant};
use walhalla::pg::Lsn;
use world::World;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn a_minute_of_everything() {
    soak(Duration::from_secs(60));
}

/// `scripts/soak`: WALHALLA_SOAK_MINUTES, and as many more of them as a restore takes.
#[test]
#[ignore = "scripts/soak runs it, for as long as it is told"]
fn for_as_long_as_told() {
    let minutes: f64 = variable("WALHALLA_SOAK_MINUTES").map_or(1.0, |minutes| minutes.parse().unwrap());
    soak(Duration::from_secs_f64(minutes * 60.0));
}

/// Ends the world also where a thread panics, so that the others do not go on for ever.
struct EndOfTheWorld<'a>(&'a World);

impl Drop for EndOfTheWorld<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn soak(time: Duration) {
    if server_programs(15).is_none() {
        return skipped("the soak", "Postgres 15 is not here; scripts/postgres 15 brings it");
    }
    let seed = variable("WALHALLA_TEST_SEED").map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    let store = variable("WALHALLA_SOAK_STORE").unwrap_or_else(|| "fake".to_owned());
    println!("WALHALLA_TEST_SEED={seed} WALHALLA_SOAK_STORE={store}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(15, &store, &mut random);
    prepare(&mut world);
    live(&world, time, &mut random);
    println!("it is over: {:?}", world.figures.broken());
    settle(&world, &mut random);

    let (begun, committed) = world.ledger.counts();
    world.figures.add("rows", "begun", begun as u64);
    world.figures.add("rows", "committed", committed as u64);
    println!("WALHALLA_TEST_SEED={seed} WALHALLA_SOAK_STORE={store}\n{}", world.figures);
    let broken = world.figures.broken();
    assert!(broken.is_empty(), "{} promises were broken:\n{}", broken.len(), broken.join("\n\n"));
    for chapter in ["archived", "restores", "lines", "kills"] {
        assert!(world.figures.total(chapter) > 0, "nothing was tried of: {chapter}");
    }
}

/// A backup in good weather, which every restore can fall back on.
fn prepare(world: &mut World) {
    let server = world.primary.get_mut().unwrap().server.clone();
    let mut backup = world.walhalla(&["backup", "--dsn", &server.dsn()], &world.direct);
    assert!(backup.wait().unwrap().success(), "{}", std::fs::read_to_string(world.log()).unwrap());
    world.first_backup = server.psql("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap();
    world.primary.get_mut().unwrap().floor = world.first_backup;
}

/// Everything at once, for this long.
fn live(world: &World, time: Duration, random: &mut fastrand::Rng) {
    let (begun, end) = (Instant::now(), Instant::now() + time);
    std::thread::scope(|scope| {
        let _end = EndOfTheWorld(world);
        for job in [load::write, load::write, load::write, load::mark, load::back_up, kills::kill, weather::weather] {
            let mut random = random.fork();
            scope.spawn(move || {
                let _end = EndOfTheWorld(world);
                job(world, &mut random);
            });
        }
        scope.spawn(move || audit::watch(world));
        while Instant::now() < end && world.figures.broken().is_empty() && !world.is_over() {
            world.sleep(Duration::from_millis(random.u64(500..4000)));
            if random.u8(0..5) == 0 {
                restores::switch(world, random);
            } else {
                let target = Target::draw(world, &world.primary.read().unwrap(), random);
                restores::try_one(world, &target, random);
            }
            println!("after {:?}: {} rows\n{}", begun.elapsed(), world.ledger.counts().1, world.figures);
        }
    });
}

/// In good weather again: archiving has caught up by itself, and every row that was committed is there.
fn settle(world: &World, random: &mut fastrand::Rng) {
    if !world.figures.broken().is_empty() {
        return;
    }
    let primary = world.primary.read().unwrap();
    let server = &primary.server;
    if !server.is_running() {
        server.start().unwrap();
    }
    server.wait_sql("SELECT 1", "1", world::LONG);
    let before: Lsn = server.psql("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap();
    let last = server.switch_wal();
    server.wait_archived(&last, world::LONG);
    wait_until("nothing was passed over", world::LONG, || {
        audit::look(world);
        audit::archived_up_to(world, &primary) >= before
    });
    restores::try_one(world, &Target::latest(world, &primary), random);
}
