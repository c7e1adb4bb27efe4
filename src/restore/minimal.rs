//! The configuration of a server whose own lies outside its data directory, and so is in no backup.
//!
//! Enough to start and to look: the limits that hot standby demands, connections from this machine only.

use super::request::{Programs, Role};
use super::settings::{archive_command, quoted};
use crate::pg::control::StandbySettings;
use crate::repo::Manifest;
use std::path::Path;

/// Settings of the old server that a copy takes over, where the backup knows them.
const TAKEN_OVER: [&str; 9] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
    "wal_log_hints",
    "track_commit_timestamp",
    "shared_preload_libraries",
];

/// `postgresql.conf`. The limits come from the restored `pg_control` where it could be read: they are what the server will be
/// held to.
pub(super) fn postgresql_conf(
    backup: &Manifest,
    limits: Option<&StandbySettings>,
    role: Role,
    programs: &Programs,
) -> String {
    let mut text = String::from(
        "# Written by walhalla restore: the configuration of the server that was backed up lay outside of its data\n\
         # directory, and so is not in the backup. This is enough to start it and to look; put the real one in its place:\n",
    );
    for (name, path) in &backup.outside {
        text.push_str(&format!("#   {name} was {path}\n", path = path.replace(['\n', '\r'], " ")));
    }
    text.push_str("\nlisten_addresses = 'localhost'\nhot_standby = on\n\n# What replay demands of a hot standby, as it was on the old server:\n");
    let mut settings: Vec<(&str, String)> = TAKEN_OVER
        .iter()
        .filter_map(|name| Some((*name, backup.server_settings.get(*name)?.clone())))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    for (name, value) in limits.into_iter().flat_map(limits_of) {
        settings.retain(|(known, _)| *known != name);
        settings.push((name, value.to_string()));
    }
    for (name, value) in settings {
        text.push_str(&format!("{name} = {}\n", quoted(&value)));
    }
    if role != Role::Copy {
        let command = quoted(&archive_command(programs));
        text.push_str(&format!("\narchive_mode = on\narchive_command = {command}\n"));
    }
    text
}

fn limits_of(limits: &StandbySettings) -> [(&'static str, u32); 5] {
    [
        ("max_connections", limits.max_connections),
        ("max_worker_processes", limits.max_worker_processes),
        ("max_wal_senders", limits.max_wal_senders),
        ("max_prepared_transactions", limits.max_prepared_transactions),
        ("max_locks_per_transaction", limits.max_locks_per_transaction),
    ]
}

/// `pg_hba.conf`: over the socket, for the user of the same name; over the loopback with a password.
pub(super) const PG_HBA: &str = "\
# Written by walhalla restore: the file of the server that was backed up lay outside of its data directory.
# type  database     user  address       method
local   all          all                 peer
host    all          all   127.0.0.1/32  scram-sha-256
host    all          all   ::1/128       scram-sha-256
local   replication  all                 peer
";

/// `pg_ident.conf`: no mappings.
pub(super) const PG_IDENT: &str =
    "# Written by walhalla restore: the file of the server that was backed up lay outside of its data directory.\n";

/// The files to write, by name, given which the backup already has in the data directory. A `pg_hba.conf` or `pg_ident.conf` that
/// a `postgresql.conf` within the backup looks for elsewhere is written, too, if it is not there on this machine.
pub(super) fn files_needed(
    backup: &Manifest,
    has_configuration: bool,
    exists: impl Fn(&Path) -> bool,
) -> Vec<&'static str> {
    let mut files = Vec::new();
    if !has_configuration {
        files.push("postgresql.conf");
    }
    for (setting, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        if let Some(path) = backup.outside.get(setting)
            && (!has_configuration || !exists(Path::new(path)))
        {
            files.push(file);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::testing::backup;

    #[test]
    fn what_a_debian_server_needs() {
        let mut backup = backup("a", 1, "0/3000028", "0/3000100");
        for (setting, file) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            backup.outside.insert(setting.into(), format!("/etc/postgresql/15/main/{file}"));
        }
        backup.server_settings = [("max_connections", "200"), ("shared_preload_libraries", "it's")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        assert_eq!(files_needed(&backup, false, |_| true), ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"]);
        assert_eq!(files_needed(&backup, true, |_| true), [""; 0]);
        assert_eq!(files_needed(&backup, true, |_| false), ["pg_hba.conf", "pg_ident.conf"]);
        let text = postgresql_conf(&backup, None, Role::Copy, &Programs::default());
        assert!(text.contains("\nmax_connections = '200'\n") && text.contains("= 'it''s'\n"), "{text}");
        assert!(text.contains("config_file was /etc/postgresql/15/main/postgresql.conf"), "{text}");
        assert!(!text.contains("archive_mode"));
        let text = postgresql_conf(&backup, None, Role::Held, &Programs::default());
        assert!(text.contains("archive_command = 'walhalla-archive %p'\n"), "{text}");
    }
}
