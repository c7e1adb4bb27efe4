//! The server's settings that matter, but for the commands.

use super::server::Facts;
use super::{Finding, Report};

/// A quiet server loses at most this much, in seconds, where all else fails.
const LONGEST_TIMEOUT: u64 = 3600;

/// A base backup streams and fetches WAL beside it.
const SENDERS: u64 = 2;

pub(super) fn judge(facts: &Facts, report: &mut Report) {
    report.add(wal_level(facts));
    report.add(senders(facts));
    report.add(durability(facts));
    report.add(checksums(facts));
}

fn wal_level(facts: &Facts) -> Finding {
    match facts.setting("wal_level") {
        "minimal" => {
            Finding::critical("wal_level", "wal_level = minimal: its WAL cannot be used for archiving or backups")
                .advise("set wal_level = replica, archive_mode = on and max_wal_senders = 10, and restart the server")
        }
        level => Finding::ok("wal_level", format!("wal_level = {level}")),
    }
}

fn senders(facts: &Facts) -> Finding {
    let count = |name: &str| facts.setting(name).parse::<u64>().unwrap_or(0);
    let (senders, slots) = (count("max_wal_senders"), count("max_replication_slots"));
    let text = format!("max_wal_senders = {senders}, max_replication_slots = {slots}");
    let advice = "set max_wal_senders = 10 and max_replication_slots = 10, and restart the server";
    if senders == 0 {
        return Finding::critical("senders", format!("{text}: no base backup can be taken")).advise(advice);
    }
    if senders < SENDERS {
        return Finding::warning("senders", format!("{text}: a base backup needs {SENDERS} senders")).advise(advice);
    }
    if slots == 0 {
        return Finding::warning("senders", format!("{text}: a base backup cannot hold the WAL that it needs"))
            .advise(advice);
    }
    Finding::ok("senders", text)
}

fn durability(facts: &Facts) -> Finding {
    let off = |name: &str| facts.setting(name) == "off";
    let wrong: Vec<&str> = ["fsync", "full_page_writes"].into_iter().filter(|name| off(name)).collect();
    if wrong.is_empty() {
        return Finding::ok("durability", "fsync and full_page_writes are on");
    }
    let text = format!("{} off: a crash of this machine can destroy the cluster", wrong.join(" and "));
    let fix: Vec<String> = wrong.iter().map(|name| format!("{name} = on")).collect();
    Finding::critical("durability", text).advise(format!("set {} and reload", fix.join(" and ")))
}

fn checksums(facts: &Facts) -> Finding {
    match facts.setting("data_checksums") {
        "on" => Finding::ok("data_checksums", "data_checksums is on: backups notice damaged pages"),
        _ => Finding::ok("data_checksums", "data_checksums is off: backups cannot notice damaged pages")
            .advise("at the next chance: stop the server, pg_checksums --enable"),
    }
}

/// What a quiet server may lose.
pub(super) fn archive_timeout(facts: &Facts) -> Finding {
    let seconds = facts.setting("archive_timeout").parse::<u64>().unwrap_or(0);
    let subject = "archive_timeout";
    if seconds == 0 {
        return Finding::warning(
            subject,
            "archive_timeout = 0: on a quiet server a commit may wait for ever to be archived",
        )
        .advise("set archive_timeout = 300 (the most that may be lost, in seconds) and reload");
    }
    if seconds > LONGEST_TIMEOUT {
        return Finding::warning(
            subject,
            format!("archive_timeout = {seconds} s: so much may be lost on a quiet server"),
        )
        .advise("set archive_timeout = 300 and reload");
    }
    Finding::ok(subject, format!("archive_timeout = {seconds} s: the most that a quiet server may lose"))
}
