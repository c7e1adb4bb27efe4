//! What the operator can type.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// A WAL archiver for PostgreSQL that cannot lie.
///
/// Postgres itself calls walhalla-archive and walhalla-restore; this program is for you. Start with `walhalla init`: it proves
/// your storage and prints the lines for postgresql.conf. Then `walhalla backup`, nightly. On the worst day: `walhalla restore`.
///
/// One setting is enough: WALHALLA_STORAGE=s3://bucket/prefix, or file:///srv/backup; or `storage = "…"` in /etc/walhalla.toml.
#[derive(Debug, Parser)]
#[command(name = "walhalla", version, max_term_width = 100, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "See the whole story in under a minute, on a throwaway server: walhalla demo")]
pub struct Arguments {
    /// Configuration file, in place of $WALHALLA_CONFIG and /etc/walhalla.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Prove that the storage works, write the cluster's identity, and print the lines for postgresql.conf
    Init(Init),
    /// Check everything end to end: server, storage, a segment arriving, backups, gaps; a line each, with what to do
    Check(Box<Check>),
    /// Take a base backup over the replication protocol, straight to the storage
    Backup(Backup),
    /// Show the backups, and from when to when each can be restored
    List(List),
    /// Rebuild a data directory, to a moment if you name one
    Restore(Box<Restore>),
    /// Show what of the past goes and what stays; delete it with --confirm
    Prune(Prune),
    /// The whole story on a throwaway Postgres: archive, back up, destroy, restore to a second
    Demo(Demo),
    /// Print a completion script for your shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// An existing directory
        directory: PathBuf,
    },
}

/// How to reach the server; libpq's variables (PGHOST, PGPORT, PGUSER, PGPASSFILE, PGSSLMODE …) count too.
#[derive(Debug, Args)]
pub struct Server {
    /// Connection string or URI as libpq takes it; no password is needed where PGPASSFILE or the socket will do
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,
}

/// `walhalla init`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  WALHALLA_STORAGE=s3://backups/prod walhalla init --data-directory /var/lib/postgresql/15/main --write-config
  WALHALLA_STORAGE=file:///srv/backup walhalla init --dsn 'host=/var/run/postgresql user=postgres'")]
pub struct Init {
    /// The cluster's data directory; else $PGDATA, else the current directory if it is one, else the server is asked
    #[arg(long, short = 'D', value_name = "DIR")]
    pub data_directory: Option<PathBuf>,
    /// The server, where the data directory cannot be read from here
    #[command(flatten)]
    pub server: Server,
    /// Write the settings given into FILE (0640, group of the server's user); never over another file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = crate::config::DEFAULT_FILE)]
    pub write_config: Option<PathBuf>,
}

/// `walhalla check`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status, as Nagios plugins have it: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. What cannot be looked at is UNKNOWN, never OK.

Ends one WAL segment early, to see it arrive; a role needs EXECUTE on pg_switch_wal() for that, and pg_monitor for the rest.
On the server's machine, as the server's user or root, it sees more: the program, the server's environment, the spool.
For a monitoring system that asks every few minutes: walhalla check --nagios --no-switch")]
pub struct Check {
    /// The server
    #[command(flatten)]
    pub server: Server,
    /// The cluster's system identifier, where the server cannot be asked and the repository holds several
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// End no WAL segment to see it arrive
    #[arg(long)]
    pub no_switch: bool,
    /// How long to wait for that segment
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub wait: String,
    /// How long everything may take together
    #[arg(long, value_name = "TIME", default_value = "3min")]
    pub timeout: String,
    /// Warn where this many files wait to be archived
    #[arg(long, value_name = "FILES", default_value_t = 64)]
    pub backlog_warning: u64,
    /// Critical where this many files wait to be archived
    #[arg(long, value_name = "FILES", default_value_t = 512)]
    pub backlog_critical: u64,
    /// Warn where a file has waited this long
    #[arg(long, value_name = "TIME", default_value = "5min")]
    pub delay_warning: String,
    /// Critical where a file has waited this long
    #[arg(long, value_name = "TIME", default_value = "30min")]
    pub delay_critical: String,
    /// Warn where the newest backup is this old
    #[arg(long, value_name = "TIME", default_value = "26h")]
    pub backup_age_warning: String,
    /// Critical where the newest backup is this old
    #[arg(long, value_name = "TIME", default_value = "50h")]
    pub backup_age_critical: String,
    /// Print JSON (docs/json.md)
    #[arg(long, conflicts_with = "nagios")]
    pub json: bool,
    /// Put the closing line first, which is the one that monitoring systems show, and leave out what is OK
    #[arg(long)]
    pub nagios: bool,
}

/// `walhalla backup`
#[derive(Debug, Args)]
#[command(after_help = "\
Needs a role with REPLICATION, a line `host replication …` (or `local replication …`) in pg_hba.conf, and two of max_wal_senders.
Success means: every file and every WAL segment that the backup needs is in the repository.")]
pub struct Backup {
    /// The server
    #[command(flatten)]
    pub server: Server,
    /// A label, kept in backup_label and in the manifest
    #[arg(long, default_value = "walhalla", value_name = "TEXT")]
    pub label: String,
    /// Spread the starting checkpoint over time instead of forcing it; takes minutes, is gentle
    #[arg(long)]
    pub spread_checkpoint: bool,
    /// How long to wait for the archive to hold the last segment before fetching it from the server
    #[arg(long, value_name = "TIME", default_value = "10min")]
    pub wal_timeout: String,
    /// The most that the server may send, in kB/s
    #[arg(long, value_name = "KB")]
    pub max_rate: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `walhalla list`
#[derive(Debug, Args)]
pub struct List {
    /// The cluster's system identifier, where the repository holds several
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// Print JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// `walhalla prune`
#[derive(Debug, Args)]
#[command(after_help = "\
The policy is the table [keep] of the configuration file, here with its defaults:
  [keep]
  last = 1            the newest backups, whatever their age
  daily = 7           the newest backup of each of the last 7 days that have one
  weekly = 4          the same by weeks
  window = \"30d\"      every moment of the last 30 days stays restorable
  permanent = []      ids or labels of backups that stay for ever")]
pub struct Prune {
    /// The cluster's system identifier, where the repository holds several
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// Delete what goes; without, only the plan is printed
    #[arg(long)]
    pub confirm: bool,
    /// Print JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// What a restored server may do with the archive it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// For a look, or a drill: archiving is off, and held
    Copy,
    /// It takes over: archiving stays on; create-only and the new timeline protect what is there
    Primary,
}

/// What the server does once it reached the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Wait, readable, for pg_wal_replay_resume()
    Pause,
    /// Open for writing on a new timeline
    Promote,
    /// Stop
    Shutdown,
}

/// `walhalla restore`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  walhalla restore --to /var/lib/postgresql/15/new --target-time '2026-11-24 14:03:59+00' --target-action promote --as primary
  walhalla restore --to /tmp/look --as copy            everything that the archive has, for a look
  walhalla restore --to /tmp/look --dry-run            only the plan
  walhalla restore --release /var/lib/postgresql/15/new  let a held server archive again")]
pub struct Restore {
    /// Where to; must be empty or missing
    #[arg(long, value_name = "DIR", required_unless_present = "release")]
    pub to: Option<PathBuf>,
    /// This backup, in place of the one that suits the target
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// The cluster's system identifier, where the repository holds several
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// Up to this moment, as Postgres writes it, with a time zone: '2026-11-24 14:03:59+00'
    #[arg(long, value_name = "TIME", group = "target")]
    pub target_time: Option<String>,
    /// Up to this position
    #[arg(long, value_name = "LSN", group = "target")]
    pub target_lsn: Option<String>,
    /// Up to this restore point (pg_create_restore_point)
    #[arg(long, value_name = "NAME", group = "target")]
    pub target_name: Option<String>,
    /// Up to this transaction
    #[arg(long, value_name = "XID", group = "target")]
    pub target_xid: Option<u64>,
    /// Only until the backup is consistent
    #[arg(long, group = "target")]
    pub target_immediate: bool,
    /// Stop just before the target instead of just after it
    #[arg(long)]
    pub target_exclusive: bool,
    /// Along this timeline: a number, `current` (the backup's) or `latest`
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    pub target_timeline: String,
    /// What the server does at the target; promote for a copy, else pause, unless said
    #[arg(long, value_enum, value_name = "ACTION")]
    pub target_action: Option<Action>,
    /// Put a tablespace elsewhere (repeatable)
    #[arg(long, value_name = "OLD=NEW")]
    pub tablespace: Vec<String>,
    /// Come up as a standby (standby.signal)
    #[arg(long)]
    pub standby: bool,
    /// How that standby reaches its primary; without, it follows the archive alone
    #[arg(long, value_name = "DSN", requires = "standby")]
    pub primary_conninfo: Option<String>,
    /// Who shall own the files when root restores; else the owner of DIR, else the account postgres
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// What the restored server may do with the archive; unsaid, on a terminal you are asked, else archiving is held
    #[arg(long = "as", value_enum, value_name = "ROLE")]
    pub role: Option<Role>,
    /// Let archiving go on in a data directory where it is held
    #[arg(long, value_name = "DIR", conflicts_with_all = ["to", "backup", "target", "standby", "role", "dry_run"])]
    pub release: Option<PathBuf>,
    /// Go past this missing segment, knowing that what follows it is lost (repeatable)
    #[arg(long, value_name = "NAME")]
    pub accept_gap: Vec<String>,
    /// Print the plan; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print plan and result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `walhalla demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Directory of Postgres' programs; else pg_config's, else the newest in /usr/lib/postgresql
    #[arg(long, value_name = "DIR")]
    pub bin_directory: Option<PathBuf>,
    /// Keep the directory with everything in it
    #[arg(long)]
    pub keep: bool,
}
