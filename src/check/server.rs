//! The server, asked.

use super::time::Deadline;
use super::{Finding, Report, Request, Severity, number, or_unknown};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, PgMajor, SegmentSize, SystemIdentifier, TimelineId};
use crate::wire::{Connection, Host, Mode, ResultSet, server_error};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long it may take until the server is ready, and to answer one question. The server itself gives up a little earlier, so
/// that the connection stays usable.
const CONNECT: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(12);

/// The newest major that this version was tried with.
const NEWEST: PgMajor = PgMajor(18);

/// Nothing that a database's owner put in its way is called, and nothing is waited for without end.
const PREPARE: &str = "SET search_path = pg_catalog, pg_temp; SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
                       SET default_transaction_read_only = off";

/// Settings that matter; a server leaves out those of other majors. `archive_command` is shown as "(disabled)" while archiving is
/// off, but not as the value that RESET would bring back.
const SETTINGS: &str = "SELECT name, CASE name WHEN 'archive_command' THEN reset_val ELSE setting END, pending_restart FROM pg_settings WHERE name IN ('archive_mode', \
     'archive_command', 'archive_library', 'archive_timeout', 'wal_level', 'max_wal_senders', 'max_replication_slots', \
     'wal_segment_size', 'restore_command', 'data_checksums', 'full_page_writes', 'fsync', 'server_version', \
     'server_version_num', 'data_directory')";

const POSITION: &str = "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), \
     CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_control_checkpoint()) \
     ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
     CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, \
     extract(epoch FROM clock_timestamp())::float8";

const ROLE: &str = "SELECT rolreplication OR rolsuper, \
     has_function_privilege('pg_ls_archive_statusdir()', 'EXECUTE') AND has_function_privilege('pg_ls_waldir()', 'EXECUTE'), \
     has_function_privilege('pg_switch_wal()', 'EXECUTE') FROM pg_roles WHERE rolname = current_user";

/// A server that can be asked, until it does not answer in time.
#[derive(Debug)]
pub(super) struct Server {
    connection: Option<Connection>,
    /// The server that answered.
    pub(super) host: Host,
    /// The role that it is asked as.
    pub(super) role: String,
}

impl Server {
    /// The rows of one question.
    pub(super) async fn ask(&mut self, deadline: &Deadline, what: &str, sql: &str) -> Result<ResultSet> {
        // Taken out: what is dropped in the middle is of no more use.
        let Some(mut connection) = self.connection.take() else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("{what}: the server did not answer an earlier question"),
            ));
        };
        let asked = deadline.bounded(what, ANSWER, async {
            let answer = connection.simple_query(sql).await;
            Ok((connection, answer))
        });
        let (connection, answer) = asked.await?;
        let lost = answer.as_ref().is_err_and(|error| !said_by_server(error));
        self.connection = (!lost).then_some(connection);
        let answer = answer.map_err(|error| self.privilege(error).context(what))?;
        Ok(answer.into_iter().next_back().unwrap_or_default())
    }

    /// What a check lacks is another privilege than what a backup lacks.
    fn privilege(&self, error: Error) -> Error {
        let lacks = server_error(&error).is_some_and(|error| error.code == "42501");
        if lacks { error.hint(format!("as a superuser: GRANT pg_monitor TO \"{}\"", self.role)) } else { error }
    }
}

fn said_by_server(error: &Error) -> bool {
    server_error(error).is_some()
}

/// Connects; what is wrong is a finding.
pub(super) async fn connect(request: &Request, deadline: &Deadline, report: &mut Report) -> Option<Server> {
    match deadline.step("connecting", open(request, deadline)).await {
        Ok(server) => Some(server),
        Err(error) => {
            // Who may not come in cannot tell what is inside; a server that is not there is another thing.
            let is_down = error.kind() == ErrorKind::Unavailable;
            let severity = if is_down { Severity::Critical } else { Severity::Unknown };
            let finding = Finding::of_error("server", severity, &error);
            report.add(finding.advise_else("start the server, or name the right one with --dsn or PGHOST and PGPORT"));
            None
        }
    }
}

async fn open(request: &Request, deadline: &Deadline) -> Result<Server> {
    let connect = |options| async move { Connection::connect(&options, Mode::Sql).await };
    let options = request.server.clone();
    let mut opened = deadline.bounded("connecting", CONNECT, connect(options.clone())).await;
    let no_database = |error: &Error| server_error(error).is_some_and(|error| error.code == "3D000");
    if options.database.is_none() && opened.as_ref().is_err_and(no_database) {
        // Any database will do: libpq's default, named like the role, is seldom there for a role that only watches.
        let mut options = options.clone();
        options.database = Some("postgres".to_owned());
        opened = deadline.bounded("connecting", CONNECT, connect(options)).await;
    }
    let connection = opened?;
    let host = connection.host().clone();
    let mut server = Server { connection: Some(connection), host, role: options.user };
    server.ask(deadline, "preparing the session", PREPARE).await?;
    Ok(server)
}

/// A setting's value, and whether the file has another that waits for a restart.
#[derive(Debug, Clone, Default)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) pending_restart: bool,
}

/// What the role may do.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    pub(super) replication: bool,
    pub(super) look: bool,
    pub(super) switch: bool,
}

/// What the server told of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) major: PgMajor,
    pub(super) settings: BTreeMap<String, Setting>,
    pub(super) system: SystemIdentifier,
    pub(super) segment_size: SegmentSize,
    pub(super) in_recovery: bool,
    pub(super) timeline: TimelineId,
    pub(super) position: Lsn,
    /// How far its clock is ahead of this process', in seconds.
    pub(super) clock_ahead: f64,
    pub(super) rights: Rights,
}

impl Facts {
    pub(super) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", |setting| setting.value.as_str())
    }

    pub(super) fn waits_for_restart(&self, name: &str) -> bool {
        self.settings.get(name).is_some_and(|setting| setting.pending_restart)
    }
}

/// Asks the server for all that; what it is, and what is wrong, are findings.
pub(super) async fn facts(server: &mut Server, deadline: &Deadline, report: &mut Report) -> Option<Facts> {
    let asked = async {
        let settings = server.ask(deadline, "asking for the server's settings", SETTINGS).await?;
        let before = SystemTime::now();
        let position = server.ask(deadline, "asking where the server is", POSITION).await?;
        let clock = (before, SystemTime::now());
        let role = server.ask(deadline, "asking what the role may do", ROLE).await?;
        understand(&settings, &position, clock, &role)
    };
    match asked.await {
        Ok(facts) => {
            report.add(describe(server, &facts));
            report.add(rights(server, &facts));
            Some(facts)
        }
        Err(error) => {
            report.add(Finding::of_error("server", Severity::Unknown, &error));
            None
        }
    }
}

fn understand(
    settings: &ResultSet,
    position: &ResultSet,
    clock: (SystemTime, SystemTime),
    role: &ResultSet,
) -> Result<Facts> {
    let all: BTreeMap<String, Setting> = (0..settings.rows.len())
        .filter_map(|row| {
            let value = settings.text(row, 1).unwrap_or_default().into_owned();
            let pending_restart = settings.text(row, 2).as_deref() == Some("t");
            Some((settings.text(row, 0)?.into_owned(), Setting { value, pending_restart }))
        })
        .collect();
    let value = |name: &str| all.get(name).map(|setting| setting.value.clone());
    let is = |result: &ResultSet, column| result.text(0, column).as_deref() == Some("t");
    let version: u32 = or_unknown(value("server_version_num").and_then(|text| text.parse().ok()), "its version")?;
    let size: u64 = or_unknown(value("wal_segment_size").and_then(|text| text.parse().ok()), "its segments' size")?;
    let in_recovery = is(position, 0);
    let timeline = position.text(0, 2).and_then(|text| match in_recovery {
        true => text.parse().ok().and_then(TimelineId::new),
        false => TimelineId::from_hex(&text).ok(),
    });
    let system: i64 = or_unknown(number(position.text(0, 1)), "its system identifier")?;
    let now: f64 = or_unknown(number(position.text(0, 4)), "the time")?;
    Ok(Facts {
        major: PgMajor::from_version_num(version),
        system: SystemIdentifier(system.cast_unsigned()),
        segment_size: SegmentSize::new(size)
            .map_err(|error| Error::new(ErrorKind::Protocol, "wal_segment_size").because(error))?,
        in_recovery,
        timeline: or_unknown(timeline, "its timeline")?,
        // A standby that has replayed nothing yet tells none.
        position: number(position.text(0, 3)).unwrap_or(Lsn::INVALID),
        clock_ahead: now - between(clock),
        rights: Rights { replication: is(role, 0), look: is(role, 1), switch: is(role, 2) },
        settings: all,
    })
}

/// The middle of two moments, in seconds since 1970.
pub(super) fn between((before, after): (SystemTime, SystemTime)) -> f64 {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    f64::midpoint(seconds(before), seconds(after))
}

fn describe(server: &Server, facts: &Facts) -> Finding {
    let role = if facts.in_recovery { "a standby" } else { "the primary" };
    let text = format!(
        "PostgreSQL {} at {}, {role}, timeline {}, position {}",
        facts.setting("server_version"),
        server.host,
        facts.timeline,
        facts.position
    );
    if facts.major < PgMajor::OLDEST {
        return Finding::critical(
            "server",
            format!("{text}: older than {}, the oldest that is supported", PgMajor::OLDEST),
        )
        .advise("upgrade it with pg_upgrade or pg_dump");
    }
    if facts.major > NEWEST {
        return Finding::warning(
            "server",
            format!("{text}: newer than {NEWEST}, the newest this version was tried with"),
        )
        .advise("use a newer version of Walhalla");
    }
    Finding::ok("server", text)
}

fn rights(server: &Server, facts: &Facts) -> Finding {
    let Rights { replication, look, switch } = facts.rights;
    let role = &server.role;
    let mut grants = Vec::new();
    if !look {
        grants.push(format!("GRANT pg_monitor TO \"{role}\""));
    }
    if !switch && !facts.in_recovery {
        grants.push(format!("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO \"{role}\" (in this database)"));
    }
    let backups = match replication {
        true => "it may take backups",
        false => "it may not take backups (no REPLICATION), which another role may",
    };
    if grants.is_empty() {
        return Finding::ok("role", format!("\"{role}\" may look at everything; {backups}"));
    }
    let lacks = match (look, switch) {
        (false, true) => "may not look into pg_wal",
        (true, _) => "may not end a WAL segment",
        (false, false) => "may neither look into pg_wal nor end a WAL segment",
    };
    let text = format!("\"{role}\" {lacks}; {backups}");
    let advice = format!("as a superuser: {}", grants.join("; "));
    // Without the look the backlog is not seen; without the switch one can still be told not to ask for it.
    let severity = if look { Severity::Ok } else { Severity::Unknown };
    Finding::of("role", severity, text).advise(advice)
}
