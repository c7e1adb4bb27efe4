//! What the storage does, whose the repository is, and what the key may do.

use super::server::{Facts, between};
use super::time::Deadline;
use super::{Finding, Opened, Report, Request, Severity};
use crate::config::StorageUrl;
use crate::error::{Error, ErrorKind};
use crate::pg::SystemIdentifier;
use crate::repo::{Cluster, ClusterIdentity, Examination};
use crate::storage::{StorageError, StorageErrorKind, StorageResult};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How far clocks may be apart. S3 refuses what is more than 15 minutes off.
const SKEW: f64 = 60.0;
const SKEW_REFUSED: f64 = 900.0;

/// Everything that is asked of the storage itself.
const EXAMINE: Duration = Duration::from_secs(45);

/// How bad it is that a storage cannot be asked: out of reach or set up wrongly, nothing is archived; what only this process
/// does not get, says nothing of the server.
pub(super) fn severity(kind: ErrorKind) -> Severity {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Config | ErrorKind::LocalIo | ErrorKind::Denied => Severity::Critical,
        _ => Severity::Unknown,
    }
}

/// Looks at the storage. Whether the repository in it can be asked further.
pub(super) async fn judge(
    request: &Request,
    cluster: &Cluster,
    opened: &Opened,
    facts: Option<&Facts>,
    deadline: &Deadline,
    report: &mut Report,
) -> bool {
    let key = cluster.layout().identity();
    let there = match deadline.step("asking the storage", cluster.get(&key)).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Config | ErrorKind::LocalIo) => {
            let finding = Finding::of_error("storage", severity(error.kind()), &error);
            report.add(finding.advise_else("check WALHALLA_STORAGE and its endpoint, and that the storage is up"));
            return false;
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gap) => false,
        // A refusal is told below, right by right.
        _ => true,
    };
    report.add(Finding::ok("storage", cluster.storage().location()));
    report.add(encryption(request));
    if !there {
        report.add(missing(opened, cluster, deadline).await);
        // Nothing is written where nobody has begun.
        let text = "not tried in a place that holds no identity of this cluster";
        report.add(Finding::unknown("permissions", text).advise("run walhalla init, which tries everything"));
        return false;
    }
    report.add(identity(cluster, facts, deadline).await);
    match &request.settings.storage {
        StorageUrl::File(root) if !is_ours(root, cluster.layout().system()) => {
            foreign_directory(cluster, deadline, report).await
        }
        storage => {
            let is_local = matches!(storage, StorageUrl::File(_));
            examine(cluster, opened, facts, is_local, deadline, report).await;
        }
    }
    true
}

fn encryption(request: &Request) -> Finding {
    let settings = &request.settings;
    let text = match (settings.recipients.is_empty(), settings.identities.is_empty()) {
        (true, _) => "what is stored is not encrypted by Walhalla",
        (false, true) => "what is stored is encrypted; the key that opens it is not on this machine",
        (false, false) => "what is stored is encrypted; the key that opens it is on this machine",
    };
    Finding::ok("encryption", text)
}

/// There is no identity: nothing was ever archived here, or elsewhere.
async fn missing(opened: &Opened, cluster: &Cluster, deadline: &Deadline) -> Finding {
    let system = cluster.layout().system();
    let others = deadline.step("looking for clusters", opened.repository.clusters()).await.unwrap_or_default();
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let (text, advice) = match others.as_slice() {
        [] => ("nothing was ever archived into it".to_owned(), "run walhalla init on the server's machine"),
        others => (
            format!("it is another cluster's: {}", others.join(", ")),
            "name this cluster's repository with WALHALLA_STORAGE; a new one: run walhalla init",
        ),
    };
    Finding::critical("identity", format!("the repository has no cluster.json of cluster {system}: {text}"))
        .advise(advice)
}

async fn identity(cluster: &Cluster, facts: Option<&Facts>, deadline: &Deadline) -> Finding {
    let found = match deadline.step("reading the identity", cluster.identity()).await {
        Ok(found) => found,
        Err(error) => {
            let is_known = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch | ErrorKind::Config);
            let severity = if is_known { Severity::Critical } else { Severity::Unknown };
            return Finding::of_error("identity", severity, &error);
        }
    };
    let text = format!(
        "cluster {}, PostgreSQL {}, segments of {} bytes",
        found.system_identifier,
        found.postgres_major,
        found.wal_segment_size.bytes()
    );
    let Some(facts) = facts else { return Finding::ok("identity", text) };
    match ClusterIdentity::new(facts.system, facts.major, facts.segment_size).compare(&found) {
        Ok(()) => Finding::ok("identity", format!("{text}: as the server's")),
        Err(error) => Finding::of_error("identity", Severity::Critical, &error),
    }
}

/// Whether what this process makes in a directory would be the server's as well.
fn is_ours(root: &Path, system: SystemIdentifier) -> bool {
    let own = rustix::process::geteuid().as_raw();
    root.join(system.to_string()).metadata().is_ok_and(|metadata| metadata.uid() == own)
}

/// In a directory of somebody else's nothing is written: what root makes there, the server could not replace.
async fn foreign_directory(cluster: &Cluster, deadline: &Deadline, report: &mut Report) {
    let listed = deadline.step("listing", cluster.timelines()).await;
    report.add(match listed {
        Ok(_) => Finding::skipped("permissions", "this user reads and lists; writing is left to the directory's owner"),
        Err(error) => Finding::of_error("permissions", Severity::Unknown, &error),
    });
}

async fn examine(
    cluster: &Cluster,
    opened: &Opened,
    facts: Option<&Facts>,
    is_local: bool,
    deadline: &Deadline,
    report: &mut Report,
) {
    let shown = deadline.bounded("trying what the storage does", EXAMINE, async { Ok(cluster.examine().await) }).await;
    let shown = match shown {
        Ok(shown) => shown,
        Err(error) => {
            report.add(Finding::of_error("permissions", Severity::Unknown, &error));
            return;
        }
    };
    report.add(permissions(&shown));
    report.add(listing(&shown));
    let missing = "is not known: the key may not store";
    report.add(shown.create_only.as_ref().map_or_else(|| Finding::unknown("create_only", missing), create_only));
    report.add(shown.verifies_integrity.as_ref().map_or_else(|| Finding::unknown("integrity", missing), integrity));
    report.add(shown.if_match.as_ref().map_or_else(|| Finding::unknown("if_match", missing), if_match));
    if is_local {
        return;
    }
    report.add(deletes(cluster, opened, deadline).await);
    let (finding, skew) = clock(&shown, facts);
    report.add(finding);
    if let Some(skew) = skew {
        report.measure("clock_skew", skew, "s");
    }
}

/// What the archiver needs: put, get, list.
fn permissions(shown: &Examination) -> Finding {
    let subject = "permissions";
    let list = shown.list.as_ref().map(|_| &());
    let rights = [
        ("put", "s3:PutObject on the prefix", shown.put.as_ref()),
        ("get", "s3:GetObject on the prefix", shown.get.as_ref()),
        ("list", "s3:ListBucket on the bucket", list),
    ];
    let denied = |error: &StorageError| error.kind == StorageErrorKind::Denied;
    let lacking: Vec<_> = rights.iter().filter(|(_, _, right)| right.is_err_and(denied)).collect();
    if let [(_, _, Err(error)), ..] = lacking.as_slice() {
        let names: Vec<&str> = lacking.iter().map(|(name, _, _)| *name).collect();
        let actions: Vec<&str> = lacking.iter().map(|(_, action, _)| *action).collect();
        let advice = format!("check the key; allow it {} (docs/storage.md has the policy)", actions.join(", "));
        return Finding::critical(subject, format!("the key may not {}: {error}", names.join(", "))).advise(advice);
    }
    match rights.iter().find_map(|(_, _, right)| right.err()) {
        Some(error) => Finding::unknown(subject, error.to_string()),
        None => Finding::ok(subject, "the key may put, get and list, which is all that archiving needs"),
    }
}

fn listing(shown: &Examination) -> Finding {
    let subject = "listing";
    let exact = matches!(shown.start_after, Some(Ok(true)));
    match &shown.list {
        Err(error) => Finding::unknown(subject, format!("not seen: {error}")),
        Ok(listed) if !listed.complete => {
            Finding::critical(subject, "a listing leaves out what was just stored: a recovery could not find its end")
                .advise("use a storage that lists what it acknowledged")
        }
        Ok(_) if exact => Finding::ok(subject, "lists what was just stored; from a key on, exactly"),
        Ok(_) => {
            Finding::ok(subject, "lists what was just stored; from a key on not exactly, so all is listed each time")
        }
    }
}

/// Lacking a capability is slower and no less safe: it is told, and is no warning that nobody could ever end.
fn capability(subject: &'static str, shown: &StorageResult<bool>, good: &str, bad: &str) -> Finding {
    match shown {
        Ok(true) => Finding::ok(subject, good),
        Ok(false) => Finding::ok(subject, bad),
        Err(error) if error.kind == StorageErrorKind::Denied => Finding::ok(subject, format!("not let in: {bad}")),
        Err(error) => Finding::unknown(subject, error.to_string()),
    }
}

fn create_only(shown: &StorageResult<bool>) -> Finding {
    let bad = "does NOT refuse to create what exists: every file is stored by the claim protocol (five requests instead of one)";
    capability("create_only", shown, "refuses to create what exists: nothing is overwritten", bad)
}

fn integrity(shown: &StorageResult<bool>) -> Finding {
    let bad = "does NOT refuse bytes that were damaged on the way: every file is read back";
    capability("integrity", shown, "refuses bytes that were damaged on the way", bad)
}

fn if_match(shown: &StorageResult<bool>) -> Finding {
    let bad = "does NOT replace conditionally: an object damaged in the storage must be deleted by you before its name is free";
    capability("if_match", shown, "replaces an object only if it is the one that was read", bad)
}

/// More than is needed: whoever gets the key can destroy the archive.
async fn deletes(cluster: &Cluster, opened: &Opened, deadline: &Deadline) -> Finding {
    let subject = "delete";
    if !opened.remembers {
        return Finding::skipped(subject, "not tried: there is no spool to remember the answer in");
    }
    let tried = deadline.step("trying to delete", async { cluster.may_delete().await.map_err(Error::from) }).await;
    match tried {
        Ok(false) => Finding::ok(subject, "the key may not delete: nothing on this machine can destroy the archive"),
        Ok(true) => Finding::ok(subject, "the key may also delete, which archiving does not need")
            .advise("give this machine a key without s3:DeleteObject, and prune with another"),
        Err(error) => Finding::of_error(subject, Severity::Unknown, &error),
    }
}

/// The store's clock against ours and the server's.
fn clock(shown: &Examination, facts: Option<&Facts>) -> (Finding, Option<f64>) {
    let subject = "clock";
    let date = shown.list.as_ref().ok().and_then(|listed| Some((listed.date?, listed.asked)));
    let Some((date, asked)) = date else {
        return (Finding::unknown(subject, "the storage does not tell its time"), None);
    };
    // Its date has whole seconds.
    let ahead = between((date, date)) + 0.5 - between(asked);
    let server = facts.map_or(0.0, |facts| facts.clock_ahead);
    let (whose, worst) = match (ahead - server).abs() > ahead.abs() {
        true => ("the server's", ahead - server),
        false => ("this machine's", ahead),
    };
    let text = format!(
        "the storage's clock is {:.0} s {} {whose}",
        worst.abs(),
        if worst < 0.0 { "behind" } else { "ahead of" }
    );
    let finding = match worst.abs() {
        skew if skew >= SKEW_REFUSED => Finding::critical(subject, text),
        skew if skew >= SKEW => Finding::warning(subject, text),
        skew if skew < 2.0 => Finding::ok(subject, "the storage's clock and ours agree"),
        _ => Finding::ok(subject, text),
    };
    let finding = if finding.severity == Severity::Ok {
        finding
    } else {
        finding.advise("set the clocks by NTP: S3 refuses requests that are 15 minutes off")
    };
    (finding, Some(worst))
}
