//! Writers, and the jobs that go with a server's days: restore points, backups.

use super::world::World;
use crate::support::postgres::Postgres;
use crate::support::processes;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use walhalla::pg::Lsn;

/// The rows' table. What a row holds follows from its number.
pub(super) const TABLE: &str = "CREATE TABLE soak (id bigint PRIMARY KEY, what text NOT NULL)";

/// Rows whose content is not what it must be.
pub(super) const SPOILT: &str = "SELECT count(*) FROM soak WHERE what <> repeat(md5(id::text), 4)";

/// A session, for as long as it holds.
struct Session {
    server: Arc<Postgres>,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(server: Arc<Postgres>) -> Self {
        let mut command = server.client("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { server, child, input, output }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn position(&mut self) -> Option<Lsn> {
        self.line()?.parse().ok()
    }

    /// Adds a row. `None` where the session broke, at whatever moment of it.
    fn add_row(&mut self, world: &World, ballast: usize) -> Option<()> {
        let id = world.ledger.begin();
        let script = format!(
            "BEGIN;\nSELECT pg_current_wal_insert_lsn();\nINSERT INTO soak VALUES ({id}, repeat(md5('{id}'), 4));\n\
             SELECT pg_logical_emit_message(false, 'soak', repeat(md5('{id}'), {ballast})) IS NULL;\n\
             COMMIT;\n\\echo committed\nSELECT pg_current_wal_insert_lsn();\n"
        );
        self.input.write_all(script.as_bytes()).ok()?;
        world.ledger.began_at(id, self.position()?);
        self.line()?;
        (self.line()? == "committed").then(|| world.ledger.committed(id))?;
        world.ledger.ended_at(id, self.position()?);
        Some(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Adds rows until the world ends.
pub(super) fn write(world: &World, random: &mut fastrand::Rng) {
    let mut session: Option<Session> = None;
    while !world.is_over() {
        {
            let primary = world.primary.read().unwrap();
            if session.as_ref().is_none_or(|session| !Arc::ptr_eq(&session.server, &primary.server)) {
                session = Some(Session::open(primary.server.clone()));
            }
            let ballast = if random.u8(0..20) == 0 { random.usize(0..3000) } else { random.usize(0..200) };
            if let Some(open) = &mut session
                && open.add_row(world, ballast).is_none()
            {
                session = None;
            }
        }
        let pause = if session.is_none() { 200 } else { random.u64(5..60) };
        world.sleep(Duration::from_millis(pause));
    }
}

/// Now and then a restore point, or the end of a segment, until the world ends.
pub(super) fn mark(world: &World, random: &mut fastrand::Rng) {
    let mut number = 0;
    while !world.is_over() {
        world.sleep(Duration::from_millis(random.u64(500..3000)));
        let primary = world.primary.read().unwrap();
        if random.u8(0..4) == 0 {
            // A server that is just down has none of it.
            primary.server.psql("SELECT pg_switch_wal()").ok();
            continue;
        }
        number += 1;
        let name = format!("point-{number}-{}", random.u32(..));
        let sql = format!("SELECT pg_current_wal_insert_lsn(), pg_create_restore_point('{name}')");
        let Ok(answer) = primary.server.psql(&sql) else { continue };
        let Some((before, after)) = answer.split_once('|') else { continue };
        primary.points.lock().unwrap().push((name, before.parse().unwrap(), after.parse().unwrap()));
    }
}

/// One backup after the other, some of them killed, until the world ends.
pub(super) fn back_up(world: &World, random: &mut fastrand::Rng) {
    while !world.is_over() {
        world.sleep(Duration::from_millis(random.u64(2000..9000)));
        if world.is_over() {
            return;
        }
        let primary = world.primary.read().unwrap();
        let dsn = primary.server.dsn();
        let arguments = ["backup", "--dsn", &dsn, "--wal-timeout", "20s"];
        let child = world.walhalla(&arguments, &world.variables);
        let life = (random.u8(0..4) == 0).then(|| Duration::from_millis(random.u64(50..3000)));
        let no_time = || world.is_over() || world.hurry.load(Ordering::Relaxed);
        match end_of(child, life, no_time) {
            Some(true) => world.figures.count("backups", "complete"),
            Some(false) => world.figures.count("backups", "failed"),
            None => world.figures.count("kills", "walhalla backup"),
        }
    }
}

/// Waits for a program to end, or kills it: after `life`, where that is given; a few seconds after `no_time` began to hold.
/// Whether it succeeded, `None` where it was killed.
pub(super) fn end_of(mut child: Child, life: Option<Duration>, no_time: impl Fn() -> bool) -> Option<bool> {
    let (begun, mut hurried) = (Instant::now(), None);
    loop {
        if let Some(status) = processes::wait_for(&mut child, Duration::from_millis(100)) {
            return Some(status.success());
        }
        if no_time() {
            hurried = hurried.or(Some(Instant::now()));
        }
        let impatient = hurried.is_some_and(|hurried| hurried.elapsed() > Duration::from_secs(5));
        if impatient || life.is_some_and(|life| begun.elapsed() > life) {
            processes::signal(&child, rustix::process::Signal::KILL);
            child.wait().unwrap();
            return None;
        }
    }
}
