//! Processes are killed at random.

use super::world::World;
use crate::support::postgres::{Postgres, Stop};
use crate::support::processes::working_below;
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use std::path::Path;
use std::time::Duration;

/// Kills until the world ends.
pub(super) fn kill(world: &World, random: &mut fastrand::Rng) {
    while !world.is_over() {
        world.sleep(Duration::from_millis(random.u64(500..3000)));
        if world.is_over() {
            return;
        }
        let act = random.u8(0..100);
        if act < 60 {
            one_of_ours(world, random);
            continue;
        }
        // While the primary is replaced only programs of ours are killed.
        let Ok(primary) = world.primary.try_read() else { continue };
        let server = &primary.server;
        let archiver = |pid: Pid| title(pid).starts_with("postgres: archiver");
        match act {
            60..72 => kill_one(world, server.data(), random, "archiver's group", archiver),
            72..78 => kill_one(world, server.data(), random, "archiver", archiver),
            78..84 => {
                kill_one(world, server.data(), random, "session", |pid| title(pid).contains("postgres postgres "))
            }
            84..90 => {
                world.figures.count("kills", "server");
                server.kill();
                revive(world, server);
            }
            90..94 => {
                world.figures.count("kills", "server (fast stop)");
                if let Err(why) = server.stop(Stop::Fast) {
                    world.figures.wrong(format!("a fast stop that does not end: {why}"));
                    server.kill();
                }
                revive(world, server);
            }
            _ => {}
        }
        if !server.is_running() {
            // It ended by itself: a crash that it could not recover from at once.
            revive(world, server);
        }
    }
}

/// A program of ours, or a helper of it, of any server.
fn one_of_ours(world: &World, random: &mut fastrand::Rng) {
    let targets = world.targets.lock().unwrap().clone();
    let Some((directory, _)) = random.choice(targets.iter().filter(|(_, left)| **left > 0).collect::<Vec<_>>()) else {
        return;
    };
    // Such a program lives for some milliseconds: it is waited for, a little.
    for _ in 0..50 {
        let ours: Vec<Pid> =
            working_below(directory).into_iter().filter(|pid| name(*pid).starts_with("walhalla-")).collect();
        if let Some(pid) = random.choice(&ours) {
            let signal = if random.u8(0..3) == 0 { Signal::TERM } else { Signal::KILL };
            // A restore that is ended by SIGTERM takes the startup process with it, as in a shutdown.
            let what = format!("{} ({})", name(*pid), if signal == Signal::KILL { "kill" } else { "term" });
            if kill_process(*pid, signal).is_ok() {
                world.figures.count("kills", what);
                world.targets.lock().unwrap().entry(directory.clone()).and_modify(|left| *left -= 1);
            }
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill_one(world: &World, data: &Path, random: &mut fastrand::Rng, what: &str, is_it: impl Fn(Pid) -> bool) {
    let found: Vec<Pid> = working_below(data).into_iter().filter(|pid| is_it(*pid)).collect();
    let Some(pid) = random.choice(&found) else { return };
    let group = getpgid(Some(*pid)).ok().filter(|group| group == pid && what.ends_with("group"));
    let killed = match group {
        Some(group) => kill_process_group(group, Signal::KILL),
        None => kill_process(*pid, Signal::KILL),
    };
    if killed.is_ok() {
        world.figures.count("kills", what);
    }
}

fn revive(world: &World, server: &Postgres) {
    for _ in 0..3 {
        if server.is_running() || server.start().is_ok() {
            return;
        }
    }
    if let Err(why) = server.start() {
        world.figures.wrong(format!("the server does not come up again: {why}"));
    }
}

fn name(pid: Pid) -> String {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
    name.trim_end().to_owned()
}

fn title(pid: Pid) -> String {
    let title = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&title).into_owned()
}
