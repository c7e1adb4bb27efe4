//! The recovery settings: what goes into `postgresql.auto.conf`, and what comes out of it.
//!
//! That file is read last, so that what stands there counts whatever the operator's own files say. Settings of an earlier
//! recovery are taken out, and the targets that are not meant are emptied *before* the one that is meant is set: each
//! assignment to a target is refused while another is set, an empty one too (`error_multiple_recovery_targets`).

use super::request::{Programs, RecoveryTarget, RestoreRequest, Role, TargetAction};
use crate::pg::SegmentName;
use std::path::Path;

/// A setting and its value, unquoted.
pub(super) type Setting = (&'static str, String);

/// Settings that an earlier recovery may have left behind, or that would make a restored server act on another one's behalf.
const INHERITED: [&str; 15] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_target_timeline",
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "recovery_min_apply_delay",
    "promote_trigger_file",
    "primary_conninfo",
    "primary_slot_name",
];

/// The targets, of which at most one may be set.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn"];

/// All settings of a restore, in the order in which they must stand.
pub(super) fn recovery_settings(request: &RestoreRequest, action: TargetAction, timeline: &str) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let command = request.restore_command.clone();
    settings
        .push(("restore_command", command.unwrap_or_else(|| restore_command(&request.programs, &request.accept_gap))));
    settings.extend(["recovery_end_command", "archive_cleanup_command"].map(|name| (name, String::new())));
    settings.extend(TARGETS.map(|name| (name, String::new())));
    settings.push(("recovery_target_timeline", timeline.to_owned()));
    settings.push(("recovery_target_inclusive", on_off(request.inclusive).to_owned()));
    settings.push(("recovery_target_action", action.as_str().to_owned()));
    if !request.standby {
        settings.push(("recovery_min_apply_delay", "0".to_owned()));
    }
    if let Some(conninfo) = &request.primary_conninfo {
        settings.push(("primary_conninfo", conninfo.clone()));
    }
    if request.role == Role::Copy {
        settings.push(("archive_mode", "off".to_owned()));
        // A copy has no standbys: its first commit would wait for them for ever.
        settings.push(("synchronous_standby_names", String::new()));
    }
    settings.extend(target_setting(&request.target));
    settings
}

fn target_setting(target: &RecoveryTarget) -> Option<Setting> {
    match target {
        RecoveryTarget::Latest => None,
        RecoveryTarget::Immediate => Some(("recovery_target", "immediate".to_owned())),
        RecoveryTarget::Time(time) => Some(("recovery_target_time", time.for_postgres())),
        RecoveryTarget::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
        RecoveryTarget::Name(name) => Some(("recovery_target_name", name.clone())),
        RecoveryTarget::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
    }
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

/// The `restore_command`: our program, with what it must be told.
pub(super) fn restore_command(programs: &Programs, accept_gap: &[SegmentName]) -> String {
    let mut command = program_with_config(&programs.restore, programs.config.as_deref());
    for name in accept_gap {
        command.push_str(&format!(" --accept-gap {name}"));
    }
    command.push_str(" %f %p");
    command
}

/// The `archive_command`.
pub(super) fn archive_command(programs: &Programs) -> String {
    program_with_config(&programs.archive, programs.config.as_deref()) + " %p"
}

fn program_with_config(program: &Path, config: Option<&Path>) -> String {
    let mut command = for_shell(program);
    if let Some(config) = config {
        command.push_str(" --config ");
        command.push_str(&for_shell(config));
    }
    command
}

/// A path as one word of the shell, its percent signs doubled, because Postgres replaces `%p` and its like first.
fn for_shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+:,@".contains(&b));
    let word = if plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) };
    word.replace('%', "%%")
}

/// A value between the quotes of a configuration file.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

/// The content of `postgresql.auto.conf`: the old one without what an earlier recovery left, then our settings. Also the names of
/// what was taken out (their values may hold passwords).
pub(super) fn auto_conf(old: &[u8], settings: &[Setting], heading: &str) -> (Vec<u8>, Vec<String>) {
    let mut content = Vec::with_capacity(old.len() + 1024);
    let mut removed: Vec<String> = Vec::new();
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        match setting_of(line) {
            Some(name) if is_replaced(&name, settings) => removed.push(name),
            _ if line.starts_with(HEADING_MARK.as_bytes()) => {}
            _ => content.extend_from_slice(line),
        }
    }
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
    }
    content.extend_from_slice(format!("{HEADING_MARK}{heading}\n").as_bytes());
    for (name, value) in settings {
        content.extend_from_slice(format!("{name} = {}\n", quoted(value)).as_bytes());
    }
    removed.dedup();
    (content, removed)
}

const HEADING_MARK: &str = "# walhalla restore: ";

fn is_replaced(name: &str, settings: &[Setting]) -> bool {
    INHERITED.contains(&name) || settings.iter().any(|(ours, _)| *ours == name)
}

/// The name of the setting that a line sets, in lower case; none for comments and blank lines.
fn setting_of(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii_start();
    let end = line.iter().position(|b| !(b.is_ascii_alphanumeric() || b"_.$".contains(b))).unwrap_or(line.len());
    let name = line.get(..end).filter(|name| !name.is_empty())?;
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::testing::{lsn, names};

    #[test]
    fn what_an_earlier_recovery_left_is_taken_out() {
        let old = b"# Do not edit this file manually!\nwork_mem = '4MB'\n  Recovery_Target_Time='2020-01-01'\n\
            restore_command 'cp /a/%f %p'\nprimary_conninfo = 'password=x'\n#recovery_target = 'immediate'\nport=5433";
        let settings = [("restore_command", "it's \\ %f".to_owned())];
        let (content, removed) = auto_conf(old, &settings, "a backup");
        assert_eq!(
            String::from_utf8(content.clone()).unwrap(),
            "# Do not edit this file manually!\nwork_mem = '4MB'\n#recovery_target = 'immediate'\nport=5433\n\
             # walhalla restore: a backup\nrestore_command = 'it''s \\\\ %f'\n"
        );
        assert_eq!(removed, ["recovery_target_time", "restore_command", "primary_conninfo"]);
        // A backup of what we restored, restored again: the block does not pile up.
        let (again, _) = auto_conf(&content, &settings, "a backup");
        assert_eq!(again, content);
    }

    #[test]
    fn the_target_that_is_meant_comes_last() {
        let request = RestoreRequest {
            target: RecoveryTarget::Lsn(lsn("0/3000028")),
            role: Role::Copy,
            ..RestoreRequest::new("/d")
        };
        let settings = recovery_settings(&request, TargetAction::Promote, "latest");
        assert_eq!(settings.last(), Some(&("recovery_target_lsn", "0/3000028".to_owned())));
        let emptied: Vec<_> =
            settings.iter().filter(|(name, value)| TARGETS.contains(name) && value.is_empty()).collect();
        assert_eq!(emptied.len(), 5);
        assert!(settings.contains(&("archive_mode", "off".to_owned())));
        let primary = RestoreRequest { role: Role::Primary, ..RestoreRequest::new("/d") };
        let settings = recovery_settings(&primary, TargetAction::Promote, "latest");
        assert!(settings.iter().all(|(name, _)| *name != "archive_mode"));
    }

    #[test]
    fn commands_survive_the_shell_and_postgres() {
        let programs = Programs {
            restore: "/opt/it's 100%/walhalla-restore".into(),
            config: Some("/etc/walhalla.toml".into()),
            ..Programs::default()
        };
        assert_eq!(
            restore_command(&programs, &names(&["0000000100000000000000A3"])),
            r"'/opt/it'\''s 100%%/walhalla-restore' --config /etc/walhalla.toml --accept-gap 0000000100000000000000A3 %f %p"
        );
        assert_eq!(restore_command(&Programs::default(), &[]), "walhalla-restore %f %p");
        assert_eq!(archive_command(&Programs::default()), "walhalla-archive %p");
    }
}
