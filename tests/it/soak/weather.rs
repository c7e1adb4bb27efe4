//! The store, and a line to it that misbehaves by lot.

use super::figures::Figures;
use super::world::World;
use crate::support::engines::{self, Engine};
use crate::support::fake_s3::{Answer, Check, Condition, FakeS3, Fault, Moment, Personality};
use crate::support::proxy::{Break, Plan, Proxy};
use crate::support::stores::{self, Variables};
use std::collections::VecDeque;
use std::time::Duration;

/// Where the repository is.
// One of it is made in all.
#[allow(clippy::large_enum_variant)]
pub(super) enum Store {
    Fake(FakeS3),
    Engine(Engine),
}

impl Store {
    /// A store: `fake`, or the name of an engine.
    pub(super) fn named(name: &str, random: &mut fastrand::Rng) -> Self {
        if name == "fake" {
            return Self::Fake(FakeS3::with(personality(random), false));
        }
        let found = engines::ENGINES.into_iter().find(|(engine, _)| *engine == name);
        let (_, start) = found.unwrap_or_else(|| panic!("there is no store {name}"));
        Self::Engine(start().unwrap_or_else(|| panic!("{name} is not here: scripts/store {name} brings it")))
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Fake(s3) => s3.port(),
            Self::Engine(engine) => engine.port,
        }
    }

    /// The variables that name it, behind this endpoint.
    pub(super) fn variables(&self, endpoint: &str) -> Variables {
        match self {
            Self::Fake(s3) => stores::fake(s3, endpoint, "soak"),
            Self::Engine(engine) => {
                stores::s3_at(endpoint, engine.bucket, "soak", engine.access_key, engine.secret_key)
            }
        }
    }

    fn down(&mut self) {
        match self {
            Self::Fake(s3) => s3.down(),
            Self::Engine(engine) => engine.kill(),
        }
    }

    fn up(&mut self) {
        match self {
            Self::Fake(s3) => s3.up(),
            Self::Engine(engine) => engine.start_again(),
        }
    }
}

/// One of the kinds of service that there are.
fn personality(random: &mut fastrand::Rng) -> Personality {
    let honest = Personality::honest;
    let commits_empty = Personality { commits_empty: true, ..honest() };
    let conflicts = Personality { create_only: Condition::Conflict409(20), etag_is_md5: false, ..honest() };
    // On a line that turns bits over, a store that verifies nothing at all stores what it gets: the archiver reads back.
    let ignores = Personality { checksum: Check::Echo, md5: Check::Ignore, etag_is_md5: false, ..honest() };
    let kinds = [
        honest(),
        commits_empty,
        conflicts,
        ignores,
        Personality::without_conditions(),
        Personality::rejects_conditions(),
        Personality::old_ceph(),
    ];
    kinds[random.usize(0..kinds.len())].clone()
}

/// The line, and what is planned for its next connections.
pub(super) struct Line {
    proxy: Proxy,
    planned: VecDeque<&'static str>,
    seen: usize,
}

impl Line {
    pub(super) fn to(port: u16) -> Self {
        Self { proxy: Proxy::to(port), planned: VecDeque::new(), seen: 0 }
    }

    pub(super) fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    /// Counts the plans that connections have taken, and makes new ones.
    fn plan(&mut self, random: &mut fastrand::Rng, figures: &Figures) {
        while self.seen < self.proxy.connections() {
            self.seen += 1;
            match self.planned.pop_front() {
                None | Some("passes") => {}
                Some(kind) => figures.count("lines", kind),
            }
        }
        while self.planned.len() < 30 {
            let (kind, plan) = fate(random);
            self.planned.push_back(kind);
            self.proxy.next(plan);
        }
    }

    /// What is planned is called off.
    fn calm(&mut self) {
        self.proxy.forget_plans();
        self.planned.clear();
        self.seen = self.proxy.connections();
    }
}

/// What befalls a connection.
fn fate(random: &mut fastrand::Rng) -> (&'static str, Plan) {
    let reach = if random.bool() { 1_000 } else { 300_000 };
    let after = random.u64(0..reach);
    match random.u8(0..100) {
        0..70 => ("passes", Plan::pass()),
        70..74 => ("cut", if random.bool() { Plan::up(Break::Fin, after) } else { Plan::down(Break::Fin, after) }),
        74..78 => ("reset", if random.bool() { Plan::up(Break::Rst, after) } else { Plan::down(Break::Rst, after) }),
        78..84 => {
            ("bit turned", if random.bool() { Plan::up(Break::Flip, after) } else { Plan::down(Break::Flip, after) })
        }
        84..87 => {
            ("stalled", if random.bool() { Plan::up(Break::Stall, after) } else { Plan::down(Break::Stall, after) })
        }
        87..88 => ("silent", Plan::silence()),
        88..91 => {
            let drop = Break::Trickle { bytes: 500, pause: Duration::from_millis(5) };
            ("trickled", if random.bool() { Plan::up(drop, after) } else { Plan::down(drop, after) })
        }
        _ => ("answer lost", Plan::lose_answer().once_sent("PUT ")),
    }
}

/// Bad weather until the world ends, then good weather.
pub(super) fn weather(world: &World, random: &mut fastrand::Rng) {
    while !world.is_over() {
        world.line.lock().unwrap().plan(random, &world.figures);
        match random.u8(0..100) {
            0..3 => outage(world, random),
            3..5 => store_dies(world, random),
            5..8 => {
                world.figures.count("line as such", "pause");
                world.line.lock().unwrap().proxy.pause();
                world.sleep(Duration::from_millis(random.u64(200..2500)));
                world.line.lock().unwrap().proxy.resume();
            }
            8..12 => answers(world, random),
            _ => {}
        }
        world.sleep(Duration::from_millis(random.u64(50..400)));
    }
    world.line.lock().unwrap().calm();
    if let Store::Fake(s3) = &*world.store.lock().unwrap() {
        s3.heal();
        s3.personality(|p| p.latency = Duration::ZERO);
    }
}

fn outage(world: &World, random: &mut fastrand::Rng) {
    world.figures.count("line as such", "outage");
    world.line.lock().unwrap().proxy.cut();
    world.sleep(Duration::from_millis(random.u64(500..6000)));
    world.line.lock().unwrap().proxy.restore();
}

fn store_dies(world: &World, random: &mut fastrand::Rng) {
    world.figures.count("kills", "store");
    world.store.lock().unwrap().down();
    world.sleep(Duration::from_millis(random.u64(100..3000)));
    world.store.lock().unwrap().up();
}

/// Answers that a service gives on a bad day. A real engine gives its own.
fn answers(world: &World, random: &mut fastrand::Rng) {
    let store = world.store.lock().unwrap();
    let Store::Fake(s3) = &*store else { return };
    if random.u8(0..4) == 0 {
        s3.forget_requests();
        s3.personality(|p| p.latency = Duration::from_millis(random.u64(0..150)));
    }
    let (kind, answer, moment) = match random.u8(0..8) {
        0 => ("SlowDown", Answer::slow_down(), Moment::Instead),
        1 => ("SlowDown before the body", Answer::slow_down(), Moment::Early),
        2 => ("TooManyRequests", Answer::too_many_requests(), Moment::Instead),
        3 => ("throttled as 403", Answer::wasabi_throttle(), Moment::Instead),
        4 => ("InternalError", Answer::internal_error(), Moment::Instead),
        5 => ("InternalError after the deed", Answer::internal_error(), Moment::AfterCommit),
        6 => ("bad gateway", Answer::bad_gateway(), Moment::AfterCommit),
        _ => ("captive portal", Answer::captive_portal(), Moment::Instead),
    };
    let times = random.usize(1..4);
    world.figures.add("answers", kind, times as u64);
    s3.fault(Fault::new(answer).moment(moment).times(times));
}
