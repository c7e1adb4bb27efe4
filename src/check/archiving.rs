//! `archive_mode` and the two commands, held against what Postgres makes of them.
//!
//! The commands are never repeated in whole: they may hold secrets.

use super::command::{self, Expanded, Line};
use super::server::Facts;
use super::settings::archive_timeout;
use super::{Finding, Report, Severity};
use crate::archive::arguments::{self, Asked};
use crate::pg::PgMajor;
use std::ffi::OsString;

const ARCHIVE: &str = "walhalla-archive";
const RESTORE: &str = "walhalla-restore";
const RIGHT: &str = "set archive_command = 'walhalla-archive %p' and reload";

/// What stands for a WAL file while a command is looked at.
const NAME: &str = "000000010000000000000001";
const PATH: &str = "pg_wal/000000010000000000000001";

/// Up to 15 the expanded command is cut at this many bytes, silently (`MAXPGPATH`, less one).
const LONGEST: usize = 1023;

/// Programs that archive, or pretend to, and not into our repository.
const OTHERS: [&str; 14] = [
    "cp",
    "mv",
    "ln",
    "dd",
    "rsync",
    "scp",
    "gzip",
    "aws",
    "wal-g",
    "wal-e",
    "pgbackrest",
    "pg_probackup",
    "barman-wal-archive",
    "barman-cloud-wal-archive",
];

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.add(archive_mode(facts));
    report.add(archive_command(facts));
    report.add(archive_timeout(facts));
    report.add(restore_command(facts));
}

fn archive_mode(facts: &Facts) -> Finding {
    let subject = "archive_mode";
    match (facts.setting(subject), facts.in_recovery) {
        ("off", _) if facts.waits_for_restart(subject) => {
            Finding::critical(subject, "archive_mode = off: the file has another value, which waits for a restart")
                .advise("restart the server")
        }
        ("off", _) => Finding::critical(subject, "archive_mode = off: nothing is archived")
            .advise("set archive_mode = on and restart the server"),
        ("on", true) => Finding::ok(subject, "archive_mode = on: this standby archives once it is promoted"),
        (mode, _) => Finding::ok(subject, format!("archive_mode = {mode}")),
    }
}

/// The part of `archive_command` that is ours.
pub(super) fn archive_line(facts: &Facts) -> Option<Line> {
    let expanded = expand_archive(facts);
    Some(command::read(&expanded.text, ARCHIVE)).filter(|line| line.program.is_some())
}

fn expand_archive(facts: &Facts) -> Expanded {
    command::expand(facts.setting("archive_command"), &[('p', PATH), ('f', NAME)])
}

fn archive_command(facts: &Facts) -> Finding {
    let subject = "archive_command";
    let (text, library) = (facts.setting(subject), facts.setting("archive_library"));
    match (text.is_empty(), library.is_empty()) {
        (false, false) if facts.major >= PgMajor(16) => {
            return Finding::critical(
                subject,
                "archive_command and archive_library are both set: the server refuses both",
            )
            .advise("clear archive_library and reload");
        }
        (_, false) => {
            return Finding::critical(subject, "archive_library is set: archive_command is not called")
                .advise("clear archive_library, set archive_command = 'walhalla-archive %p', and reload");
        }
        (true, true) => {
            return Finding::critical(
                subject,
                "archive_command is empty: WAL piles up in pg_wal, and none is archived",
            )
            .advise(RIGHT);
        }
        (false, true) => {}
    }
    let expanded = expand_archive(facts);
    let line = command::read(&expanded.text, ARCHIVE);
    let wrong = placeholders(facts, subject, &expanded, 'p')
        .or_else(|| too_long(facts, &expanded))
        .or_else(|| line.program.is_none().then(|| other_program(&line)))
        .or_else(|| hidden(subject, &line))
        .or_else(|| archive_arguments(&line))
        .or_else(|| passed_on(subject, &expanded));
    wrong.unwrap_or_else(|| Finding::ok(subject, "archive_command calls walhalla-archive as it must be called"))
}

/// A placeholder that is not there, or one that the server refuses: from 16 on each call ends with an error.
fn placeholders(facts: &Facts, subject: &'static str, expanded: &Expanded, needed: char) -> Option<Finding> {
    if let Some(unknown) = expanded.unknown.first().filter(|_| facts.major >= PgMajor(16)) {
        let text = format!("{subject} has {unknown}, which PostgreSQL {} refuses", facts.major);
        return Some(Finding::critical(subject, text).advise(plain(unknown)));
    }
    let right = if subject == "archive_command" { RIGHT } else { RIGHT_RESTORE };
    (!expanded.used.contains(&needed)).then(|| {
        Finding::critical(subject, format!("{subject} has no %{needed}: the program does not learn which file"))
            .advise(right)
    })
}

/// Up to 15 what is no placeholder is passed on.
fn passed_on(subject: &'static str, expanded: &Expanded) -> Option<Finding> {
    let unknown = expanded.unknown.first()?;
    let text = format!("{subject} has {unknown}, which is passed on as it stands, and refused from PostgreSQL 16 on");
    Some(Finding::warning(subject, text).advise(plain(unknown)))
}

fn plain(unknown: &str) -> String {
    format!("write %{unknown} for a plain {unknown}, or leave it out")
}

fn too_long(facts: &Facts, expanded: &Expanded) -> Option<Finding> {
    (facts.major < PgMajor(16) && expanded.text.len() > LONGEST).then(|| {
        let text = format!("archive_command has {} bytes, and is cut after {LONGEST}", expanded.text.len());
        Finding::critical("archive_command", text).advise("put settings into the configuration file instead")
    })
}

fn other_program(line: &Line) -> Finding {
    let subject = "archive_command";
    let first = line.first.clone().unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    let is_null = line.first.is_none() || matches!(name, "true" | ":" | "exit" | "echo" | "test" | "[");
    if is_null {
        return Finding::critical(subject, format!("archive_command ({name}) archives nothing, and says that it did"))
            .advise(format!("{RIGHT}; then take a new backup: the WAL until now is lost"));
    }
    if name == "false" {
        return Finding::critical(subject, "archive_command (false) always fails: WAL piles up in pg_wal")
            .advise(RIGHT);
    }
    if OTHERS.contains(&name) {
        return Finding::critical(subject, format!("archive_command calls {name}: nothing comes into this repository"))
            .advise(RIGHT);
    }
    Finding::warning(
        subject,
        format!("archive_command calls {name}, not walhalla-archive: what it does cannot be seen"),
    )
    .advise("call walhalla-archive itself, or see below whether segments arrive")
}

fn hidden(subject: &'static str, line: &Line) -> Option<Finding> {
    line.hides_failure.then(|| {
        let text = format!("{subject} throws the program's exit status away: a failure looks like a success");
        Finding::critical(subject, text)
            .advise("remove what follows the program's arguments (`|| …`, `; …`, `| …`, `&`)")
    })
}

fn archive_arguments(line: &Line) -> Option<Finding> {
    let words = line.arguments.iter().map(OsString::from);
    let refused = match arguments::archive(words) {
        Ok(Asked::Work(work)) if work.path.ends_with(PATH) => return None,
        Ok(Asked::Work(_)) => "the file's path is not %p".to_owned(),
        Ok(Asked::Help | Asked::Version) => "it only asks for help".to_owned(),
        Err(error) => return Some(Finding::of_error("archive_command", Severity::Critical, &error).advise(RIGHT)),
    };
    Some(Finding::critical("archive_command", format!("walhalla-archive is called wrongly: {refused}")).advise(RIGHT))
}

const RIGHT_RESTORE: &str = "set restore_command = 'walhalla-restore %f %p' and reload (13: restart)";

fn restore_command(facts: &Facts) -> Finding {
    let subject = "restore_command";
    let text = facts.setting(subject);
    if text.is_empty() && facts.in_recovery {
        return Finding::warning(subject, "restore_command is empty: this standby cannot take WAL from the archive")
            .advise(RIGHT_RESTORE);
    }
    if text.is_empty() {
        return Finding::ok(subject, "restore_command is not set: `walhalla restore` writes its own");
    }
    let expanded = command::expand(text, &[('p', "pg_wal/RECOVERYXLOG"), ('f', NAME), ('r', NAME)]);
    let line = command::read(&expanded.text, RESTORE);
    let called = || {
        if line.program.is_some() {
            return None;
        }
        let text = "restore_command does not call walhalla-restore: a recovery takes WAL from elsewhere";
        Some(Finding::warning(subject, text).advise(RIGHT_RESTORE))
    };
    let understood = || match arguments::restore(line.arguments.iter().map(OsString::from)) {
        Ok(Asked::Work(work)) if work.name == NAME => None,
        Ok(_) => Some(Finding::critical(subject, "walhalla-restore is called wrongly").advise(RIGHT_RESTORE)),
        Err(error) => Some(Finding::of_error(subject, Severity::Critical, &error).advise(RIGHT_RESTORE)),
    };
    let wrong = called()
        .or_else(|| placeholders(facts, subject, &expanded, 'p'))
        .or_else(|| placeholders(facts, subject, &expanded, 'f'))
        .or_else(|| hidden(subject, &line))
        .or_else(understood)
        .or_else(|| passed_on(subject, &expanded));
    wrong.unwrap_or_else(|| Finding::ok(subject, "restore_command calls walhalla-restore as it must be called"))
}

#[cfg(test)]
mod tests {
    use super::super::server::{Rights, Setting};
    use super::*;
    use crate::pg::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

    fn facts(major: u16, settings: &[(&str, &str)]) -> Facts {
        let setting = |value: &str| Setting { value: value.to_owned(), pending_restart: false };
        Facts {
            major: PgMajor(major),
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), setting(value))).collect(),
            system: SystemIdentifier(7),
            segment_size: SegmentSize::DEFAULT,
            in_recovery: false,
            timeline: TimelineId::FIRST,
            position: Lsn(0),
            clock_ahead: 0.0,
            rights: Rights::default(),
        }
    }

    #[test]
    fn every_way_to_get_the_archive_command_wrong() {
        use Severity::{Critical, Ok, Warning};
        let long = format!("walhalla-archive --config /{} %p", "x".repeat(1100));
        for (major, command, severity, text) in [
            (15, "walhalla-archive %p", Ok, "as it must be called"),
            (15, "/usr/bin/walhalla-archive --config /etc/w.toml \"%p\"", Ok, "as it must be called"),
            (15, "walhalla-archive /data/%p", Ok, "as it must be called"),
            (15, "", Critical, "empty"),
            (15, "walhalla-archive", Critical, "no %p"),
            (15, "walhalla-archive %f", Critical, "no %p"),
            (15, "walhalla-archive %p %f", Critical, "one path is expected"),
            (15, "walhalla-archive --frob %p", Critical, "--frob"),
            (15, "walhalla-archive %p || true", Critical, "throws the program's exit status away"),
            (15, "walhalla-archive %p %x", Critical, "one path is expected"),
            (15, "walhalla-archive --config /etc/%x.toml %p", Warning, "passed on as it stands"),
            (16, "walhalla-archive %p %x", Critical, "%x, which PostgreSQL 16 refuses"),
            (18, "walhalla-archive %p 100%", Critical, "%"),
            (15, "/bin/true %p", Critical, "archives nothing"),
            (15, "cp %p /srv/%f", Critical, "calls cp"),
            (15, "/etc/archive.sh %p", Warning, "archive.sh"),
            (15, long.as_str(), Critical, "cut after 1023"),
            (16, long.as_str(), Ok, "as it must be called"),
        ] {
            let finding = archive_command(&facts(major, &[("archive_command", command)]));
            assert_eq!(finding.severity, severity, "{command}: {finding:?}");
            assert!(finding.text.contains(text), "{command}: {finding:?}");
            assert_eq!(finding.advice.is_some(), severity != Ok, "{finding:?}");
        }
        let both = [("archive_command", "walhalla-archive %p"), ("archive_library", "basic_archive")];
        assert!(archive_command(&facts(15, &both)).text.contains("not called"));
        assert!(archive_command(&facts(16, &both)).text.contains("refuses both"));
    }

    #[test]
    fn secrets_are_not_repeated() {
        for command in
            ["AWS_SECRET_ACCESS_KEY=hunter2 walhalla-archive %p %x", "KEY=hunter2 /bin/thing --password hunter2 %p"]
        {
            let finding = archive_command(&facts(17, &[("archive_command", command)]));
            assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
        }
    }

    #[test]
    fn restoring() {
        use Severity::{Critical, Ok, Warning};
        for (command, severity) in [
            ("", Ok),
            ("walhalla-restore %f %p", Ok),
            ("walhalla-restore %p %f", Critical),
            ("walhalla-restore %f", Critical),
            ("walhalla-restore %f %p || true", Critical),
            ("walhalla-restore %f %p %r", Critical),
            ("cp /srv/%f %p", Warning),
        ] {
            let finding = restore_command(&facts(17, &[("restore_command", command)]));
            assert_eq!(finding.severity, severity, "{command}: {finding:?}");
        }
        let standby = Facts { in_recovery: true, ..facts(17, &[]) };
        assert_eq!(restore_command(&standby).severity, Warning);
    }
}
