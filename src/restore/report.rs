//! Plans and reports as text.

use super::plan::{RestorePlan, shown};
use super::request::{RecoveryTarget, Role, TargetAction};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a restore did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RestoreReport {
    /// The plan that was carried out.
    pub plan: RestorePlan,
    /// Regular files written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects fetched.
    pub objects: u64,
    /// Bytes fetched.
    pub fetched: u64,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// Settings of an earlier recovery that were taken out of `postgresql.auto.conf`, by name.
    pub removed_settings: Vec<String>,
    /// Files that were written besides those of the backup.
    pub written: Vec<PathBuf>,
    /// What to do now, one step a line.
    pub next: Vec<String>,
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

/// A number of bytes for people: `512 B`, `1.50 GiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backup = &self.backup;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, text: &dyn fmt::Display| writeln!(f, "  {what:<13} {text}");
        writeln!(f, "Restore into {}", self.to.display())?;
        line(f, "backup", &format_args!("{} ({}), of {}", backup.id, backup.why, backup.finished_at))?;
        line(f, "target", &format_args!("{}{}", self.target, self.exclusion()))?;
        line(f, "timeline", &self.timeline)?;
        line(f, "at the target", &self.action_in_words())?;
        line(f, "WAL", &self.wal_in_words())?;
        line(f, "one can go", &self.window_in_words())?;
        line(f, "size", &format_args!("{} files, {}", self.files, bytes(self.bytes)))?;
        for tablespace in &self.tablespaces {
            line(
                f,
                "tablespace",
                &format_args!("{} from {} to {}", tablespace.oid, tablespace.old, tablespace.new.display()),
            )?;
        }
        for space in &self.space {
            let text =
                format!("{} needed in {}, {} free", bytes(space.needed), space.directory.display(), bytes(space.free));
            line(f, "room", &text)?;
        }
        if let Some(owner) = &self.owner {
            line(f, "owner", &owner.name)?;
        }
        line(f, "archiving", &self.archiving_in_words())?;
        line(f, "signal file", &self.signal)?;
        for (name, value) in self.settings.iter().filter(|(_, value)| !value.is_empty()) {
            line(f, "setting", &format_args!("{name} = {}", super::settings::quoted(shown(name, value))))?;
        }
        for note in &self.notes {
            line(f, "note", note)?;
        }
        Ok(())
    }
}

impl RestorePlan {
    fn exclusion(&self) -> &'static str {
        if self.inclusive { "" } else { ", itself left out" }
    }

    fn action_in_words(&self) -> &'static str {
        match (&self.target, self.standby, self.action) {
            (RecoveryTarget::Latest, true, _) => "follow the primary until it is promoted",
            (RecoveryTarget::Latest, false, _) => "open for writing, on a new timeline",
            (_, _, TargetAction::Promote) => "open for writing, on a new timeline (promote)",
            (_, _, TargetAction::Pause) => "wait, open for reading (pause)",
            (_, _, TargetAction::Shutdown) => "stop (shutdown)",
        }
    }

    fn wal_in_words(&self) -> String {
        let chain = &self.wal.chain;
        let last = chain.last.map_or_else(String::new, |last| format!(" to {last}"));
        let own = match self.wal.own.len() {
            0 => String::new(),
            count => format!(", {count} of them from the backup"),
        };
        format!("{}{last}, {} segments without a hole{own}", chain.first, chain.segments)
    }

    /// From when to when one can restore.
    pub fn window_in_words(&self) -> String {
        match &self.window.until {
            Some(last) if last.time <= self.window.from => {
                format!("to {}, the end of the backup: nothing was committed after it", self.window.from)
            }
            Some(last) => format!("from {} to {}", self.window.from, last.time),
            None => format!("from {} on; when the WAL ends, at {}, is not known", self.window.from, self.window.end),
        }
    }

    fn archiving_in_words(&self) -> &'static str {
        match self.role {
            Role::Copy => "off, and held (a copy)",
            Role::Primary => "stays on (takes over)",
            Role::Held => "held until it is released",
        }
    }
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Restored backup {} into {}: {} files, {}, from {} objects in {:.1} s.",
            self.plan.backup.id,
            self.plan.to.display(),
            self.files,
            bytes(self.bytes),
            self.objects,
            self.took.as_secs_f64()
        )?;
        writeln!(f, "One can go {}.", self.plan.window_in_words())?;
        if !self.removed_settings.is_empty() {
            writeln!(f, "Taken out of postgresql.auto.conf: {}.", self.removed_settings.join(", "))?;
        }
        for path in &self.written {
            writeln!(f, "Written: {}", path.display())?;
        }
        for note in &self.plan.notes {
            writeln!(f, "Note: {note}")?;
        }
        writeln!(f, "Next:")?;
        for step in &self.next {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

/// What the operator does after the restore.
pub(super) fn next_steps(plan: &RestorePlan) -> Vec<String> {
    let to = plan.to.display();
    let user = plan.owner.as_ref().map_or_else(String::new, |owner| format!(" (as {})", owner.name));
    let mut steps = vec![format!("start it with Postgres {}: pg_ctl -D {to} start{user}", plan.backup.postgres_major)];
    let has_target = plan.target != RecoveryTarget::Latest;
    if has_target && plan.action == TargetAction::Pause {
        steps.push("it pauses at the target: look, then open it with SELECT pg_wal_replay_resume();".to_owned());
        steps.push("or stop it, set a later target in postgresql.auto.conf, and start it again".to_owned());
    }
    if has_target && plan.action == TargetAction::Shutdown {
        steps.push("it stops at the target; a later start goes on from there".to_owned());
    }
    match plan.role {
        Role::Primary => {}
        Role::Held => steps.push(format!("once it takes over: walhalla restore --release {to}, and archiving goes on")),
        Role::Copy => steps.push(format!(
            "should the copy take over after all: set archive_mode = on, walhalla restore --release {to}, restart"
        )),
    }
    steps
}
