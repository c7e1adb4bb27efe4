//! What the operator asked for.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Lsn, SegmentName};
use crate::reach::TargetTime;
use crate::reach::TargetTimeline;
use crate::repo::BackupId;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Everything that `walhalla restore` can be told.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The data directory to build: absent, or empty.
    pub to: PathBuf,
    /// This backup; else the right one is found for the target. A damaged backup is taken only when it is named here.
    pub backup: Option<BackupId>,
    /// Where replay ends.
    pub target: RecoveryTarget,
    /// Whether the target itself is replayed (time, LSN and xid only).
    pub inclusive: bool,
    /// Along which timeline.
    pub timeline: TargetTimeline,
    /// What the server does at the target; see [`default_action`] where unset.
    pub action: Option<TargetAction>,
    /// Where tablespaces go instead of their old places.
    pub tablespaces: Vec<Relocation>,
    /// Follow the primary rather than ending recovery: `standby.signal`.
    pub standby: bool,
    /// How a standby reaches its primary; none: it follows the archive alone.
    pub primary_conninfo: Option<String>,
    /// What the restored server is to be.
    pub role: Role,
    /// Segments whose absence the operator accepts: replay ends there.
    pub accept_gap: Vec<SegmentName>,
    /// The command that fetches WAL; else `walhalla-restore` with what it needs.
    pub restore_command: Option<String>,
    /// How the server finds our two commands, and they their settings.
    pub programs: Programs,
    /// Who is to own the files when root restores; else it is found out.
    pub owner: Option<String>,
}

impl RestoreRequest {
    /// To this directory, the newest backup and all WAL there is, archiving held.
    pub fn new(to: impl Into<PathBuf>) -> Self {
        Self {
            to: to.into(),
            backup: None,
            target: RecoveryTarget::Latest,
            inclusive: true,
            timeline: TargetTimeline::Latest,
            action: None,
            tablespaces: Vec::new(),
            standby: false,
            primary_conninfo: None,
            role: Role::Held,
            accept_gap: Vec::new(),
            restore_command: None,
            programs: Programs::default(),
            owner: None,
        }
    }
}

/// Where replay ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoveryTarget {
    /// The end of the archive.
    #[default]
    Latest,
    /// The last transaction that committed at or before this moment.
    Time(TargetTime),
    /// This position.
    Lsn(Lsn),
    /// The restore point of this name.
    Name(String),
    /// The commit or abort of this transaction.
    Xid(u32),
    /// As soon as the backup is consistent.
    Immediate,
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the archive"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Lsn(lsn) => write!(f, "position {lsn}"),
            Self::Name(name) => write!(f, "restore point \"{name}\""),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Immediate => f.write_str("the end of the backup"),
        }
    }
}

/// What the server does when it has reached the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// Waits, open for reading, until the operator resumes.
    Pause,
    /// Ends recovery and opens for writing.
    Promote,
    /// Stops; it can be started again with a later target.
    Shutdown,
}

impl TargetAction {
    /// Postgres' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

impl FromStr for TargetAction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pause" => Ok(Self::Pause),
            "promote" => Ok(Self::Promote),
            "shutdown" => Ok(Self::Shutdown),
            _ => Err(Error::new(ErrorKind::Config, format!("no target action: {text:?}"))
                .hint("give pause, promote or shutdown")),
        }
    }
}

/// The action where none was asked for.
///
/// A copy is for a look: it opens at the target. What may take over pauses there, readable, because promotion is what one cannot
/// take back without restoring anew; the operator looks, then resumes, or moves the target. Without a target Postgres ends
/// recovery at the end of the archive by itself, whatever the action.
pub fn default_action(role: Role, target: &RecoveryTarget) -> TargetAction {
    match (role, target) {
        (_, RecoveryTarget::Latest) | (Role::Copy, _) => TargetAction::Promote,
        (Role::Primary | Role::Held, _) => TargetAction::Pause,
    }
}

/// What the restored server is to be: what becomes of its archiving (requirement E4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// For a look or a drill: archiving is off, and held besides.
    Copy,
    /// Takes over: archiving stays on. Create-only objects and the new timeline protect what is there.
    Primary,
    /// Not said yet: archiving stays as it was configured, but is held until it is released.
    #[default]
    Held,
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "copy" => Ok(Self::Copy),
            "primary" => Ok(Self::Primary),
            _ => Err(Error::new(ErrorKind::Config, format!("cannot restore as {text:?}")).hint("give copy or primary")),
        }
    }
}

/// A tablespace's directory in the backup, and where it goes: `OLD=NEW`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Relocation {
    /// The directory on the server that was backed up.
    pub old: String,
    /// The directory to restore into.
    pub new: PathBuf,
}

impl FromStr for Relocation {
    type Err = Error;

    /// As `pg_basebackup --tablespace-mapping`: an equals sign within a path is written `\=`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Config, format!("no tablespace mapping: {text:?}: {why}"))
                .hint("give OLD=NEW, two absolute directories, with \\= for an equals sign within one")
        };
        let mut halves = vec![String::new()];
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\\' if rest.peek() == Some(&'=') => push_last(&mut halves, rest.next().unwrap_or('=')),
                '=' => halves.push(String::new()),
                other => push_last(&mut halves, other),
            }
        }
        let [old, new] = halves.as_slice() else { return Err(bad("it needs exactly one equals sign")) };
        if !old.starts_with('/') || !new.starts_with('/') {
            return Err(bad("both must be absolute"));
        }
        Ok(Self { old: trim_slashes(old).to_owned(), new: PathBuf::from(trim_slashes(new)) })
    }
}

fn push_last(halves: &mut [String], c: char) {
    if let Some(last) = halves.last_mut() {
        last.push(c);
    }
}

/// A path's text without closing slashes; the root stays.
pub(super) fn trim_slashes(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

/// How the restored server finds our commands, and they their settings.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `walhalla-restore`, by path or by name.
    pub restore: PathBuf,
    /// `walhalla-archive`, by path or by name.
    pub archive: PathBuf,
    /// The configuration file to name to them; none: they find the usual one, or the server's environment has it all.
    pub config: Option<PathBuf>,
}

impl Default for Programs {
    fn default() -> Self {
        Self { restore: "walhalla-restore".into(), archive: "walhalla-archive".into(), config: None }
    }
}

impl Programs {
    /// The commands that lie beside this program, by their path; by name where none does.
    pub fn beside(program: &Path, config: Option<PathBuf>) -> Self {
        let find = |name: &str| match program.parent().map(|dir| dir.join(name)) {
            Some(path) if path.is_file() => path,
            _ => PathBuf::from(name),
        };
        Self { restore: find("walhalla-restore"), archive: find("walhalla-archive"), config }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relocations() {
        let relocation: Relocation = "/srv/a\\=b/=/mnt/c".parse().unwrap();
        assert_eq!(relocation, Relocation { old: "/srv/a=b".into(), new: "/mnt/c".into() });
        for text in ["", "/a", "a=/b", "/a=b", "/a=/b=/c", "="] {
            assert!(text.parse::<Relocation>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_may_take_over_pauses_at_the_target() {
        let target = RecoveryTarget::Immediate;
        assert_eq!(default_action(Role::Copy, &target), TargetAction::Promote);
        assert_eq!(default_action(Role::Primary, &target), TargetAction::Pause);
        assert_eq!(default_action(Role::Held, &target), TargetAction::Pause);
        assert_eq!(default_action(Role::Primary, &RecoveryTarget::Latest), TargetAction::Promote);
    }
}
