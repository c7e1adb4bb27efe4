//! The plan of a restore: a value, made by looking only, printed by `--dry-run`, and carried out by [`super::execute`].

use super::choose::{self, Candidate};
use super::inventory::{self, Inventory};
use super::owner::{self, Owner};
use super::place::{self, Space};
use super::request::{Programs, RecoveryTarget, RestoreRequest, Role, TargetAction, default_action};
use super::settings::{self, Setting};
use super::tablespaces::{self, Tablespace};
use super::target;
use super::{checks, minimal, search};
use crate::error::Result;
use crate::pg::{Lsn, SegmentName, TimelineId};
use crate::reach::lineage::{Lineage, Lineages};
use crate::reach::{Chain, Source, Window, chain, lineage, walk, window};
use crate::repo::{BackupId, Manifest};
use std::path::PathBuf;

/// What a restore will do. Making it wrote nothing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RestorePlan {
    /// The data directory to build.
    pub to: PathBuf,
    /// The backup to begin with.
    pub backup: ChosenBackup,
    /// Where replay ends.
    pub target: RecoveryTarget,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// The timeline to follow.
    pub timeline: TimelineId,
    /// What the server does at the target.
    pub action: TargetAction,
    /// What the restored server is to be.
    pub role: Role,
    /// It follows its primary.
    pub standby: bool,
    /// The WAL that replay needs, or can use.
    pub wal: WalPlan,
    /// From when to when one can restore from this backup along this timeline.
    pub window: Window,
    /// Where the tablespaces go.
    pub tablespaces: Vec<Tablespace>,
    /// Regular files to write.
    pub files: u64,
    /// Bytes that they take on a disk.
    pub bytes: u64,
    /// Bytes of the backup's tar streams: what [`super::Progress::advance`] is told of in all.
    pub tar_bytes: u64,
    /// Room needed, by file system.
    pub space: Vec<Space>,
    /// Configuration files to write, because the backup has none.
    pub configuration: Vec<&'static str>,
    /// The signal file to write.
    pub signal: &'static str,
    /// The lines for `postgresql.auto.conf`, in order.
    #[serde(serialize_with = "without_secrets")]
    pub settings: Vec<Setting>,
    /// Who shall own the files; none: whoever runs this.
    pub owner: Option<Owner>,
    /// What the operator should know besides.
    pub notes: Vec<String>,
    /// The backup's manifest.
    #[serde(skip)]
    pub(super) manifest: Manifest,
    /// Histories that go to `pg_wal`, and the backup that carries each: the archive has none that can be read.
    #[serde(skip)]
    pub(super) histories: Vec<(TimelineId, BackupId)>,
    /// How the server finds our commands.
    #[serde(skip)]
    pub(super) programs: Programs,
    /// The data directory is readable for the group.
    #[serde(skip)]
    pub(super) group_access: bool,
}

/// The backup that a plan begins with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChosenBackup {
    /// Its id.
    pub id: BackupId,
    /// Why it is this one.
    pub why: String,
    /// Its label.
    pub label: String,
    /// When it began: RFC 3339, UTC.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// Where it is consistent.
    pub end_lsn: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Major version of Postgres that is needed to start it.
    pub postgres_major: crate::pg::PgMajor,
    /// What Postgres said about damaged pages.
    pub damaged: Vec<String>,
}

/// The WAL of a plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WalPlan {
    /// What is there without a hole, from the backup's start on.
    #[serde(flatten)]
    pub chain: Chain,
    /// Segments that come out of the backup itself.
    pub own: Vec<SegmentName>,
    /// Missing segments that the operator accepted: replay ends there.
    pub accepted: Vec<SegmentName>,
}

fn without_secrets<S: serde::Serializer>(settings: &[Setting], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        name: &'a str,
        value: &'a str,
    }
    serializer.collect_seq(settings.iter().map(|(name, value)| Line { name, value: shown(name, value) }))
}

/// A setting's value as it may be shown: a connection string may hold a password.
pub(super) fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if name == "primary_conninfo" && !value.is_empty() { "(as given)" } else { value }
}

/// Plans a restore: chooses the backup, proves that everything it needs is there, and that the target can be reached and written
/// to. Nothing is written.
pub async fn plan(source: &Source, request: &RestoreRequest) -> Result<RestorePlan> {
    checks::request_is_sane(request)?;
    let to = place::absolute(&request.to)?;
    place::must_be_empty(&to, "the target")?;
    checks::repository_is_understood(source).await?;

    let catalog = source.cluster.catalog().await?;
    let lineages = lineage::lineages(source, &catalog.backups).await?;
    let (candidate, why) = choose(source, request, &catalog.backups, &lineages).await?;
    let elsewhere = choose::newer_elsewhere(request, &candidate, &catalog.backups, &lineages);
    choose::must_not_be_stale(request, &candidate, elsewhere.as_ref())?;
    let Candidate { backup, lineage } = candidate;
    let mut notes: Vec<String> = catalog
        .damaged
        .iter()
        .map(|damaged| format!("backup {} cannot be used: {}", damaged.id, damaged.why))
        .collect();

    notes.extend(elsewhere.clone());
    let chain = window::chain(source, lineage, backup).await?;
    notes.extend(checks::wal_is_whole(request, backup, &chain)?);
    notes.extend(checks::histories_are_there(lineage, backup, &lineages)?);
    let histories = kept_histories(lineage, backup, &lineages);
    notes.extend(histories.iter().map(|(timeline, id)| {
        format!("{}.history is not in the archive: the one in backup {id} is put into pg_wal", timeline.hex())
    }));
    let tail = walk::last_commit(source, backup, lineage, &chain).await?;
    let window = Window { from: window::start(backup)?, end: tail.end(&chain), until: tail.found };
    notes.extend(target::must_come_before_damage(request, backup, &window, tail.damaged)?);
    let last_record = match request.target {
        RecoveryTarget::Lsn(_) => walk::last_record(source, backup, lineage, &chain).await?.found,
        _ => None,
    };
    notes.extend(target::must_be_reachable(request, &chain, &window, last_record, elsewhere.as_deref())?);

    let inventory = inventory::take(source, backup).await?;
    let tablespaces = tablespaces::place(backup, &to, &request.tablespaces)?;
    let space = room(&to, &tablespaces, backup, &inventory)?;
    let (timeline, note) = lineage::setting(request.timeline, lineage, backup, &lineages);
    notes.extend(note);
    let action = request.action.unwrap_or_else(|| default_action(request.role, &request.target));
    let configuration = minimal::files_needed(backup, inventory.has_configuration, std::path::Path::exists);
    notes.extend(checks::worth_knowing(request, backup, &configuration));
    let mut settings = settings::recovery_settings(request, action, &timeline);
    settings.splice(0..0, configuration_settings(&to, &configuration, inventory.has_configuration));

    Ok(RestorePlan {
        backup: ChosenBackup::of(backup, why),
        target: request.target.clone(),
        inclusive: request.inclusive,
        timeline: lineage.timeline(),
        action,
        role: request.role,
        standby: request.standby,
        wal: WalPlan {
            own: chain::own_segments(backup).into_iter().collect(),
            accepted: request.accept_gap.clone(),
            chain,
        },
        window,
        files: inventory.archives.values().map(|extent| extent.files).sum(),
        bytes: inventory.archives.values().map(|extent| extent.on_disk).sum(),
        tar_bytes: backup.archives.iter().map(|archive| archive.tar_bytes).sum(),
        space,
        tablespaces,
        configuration,
        signal: if request.standby { "standby.signal" } else { "recovery.signal" },
        settings,
        owner: owner::find(&to, request.owner.as_deref())?,
        notes,
        manifest: backup.clone(),
        histories,
        programs: request.programs.clone(),
        group_access: inventory.group_access,
        to,
    })
}

/// The backup, its way, and why. Names and transactions are looked for in the WAL.
async fn choose<'a>(
    source: &Source,
    request: &RestoreRequest,
    backups: &'a [Manifest],
    lineages: &'a Lineages,
) -> Result<(Candidate<'a>, String)> {
    let candidates = choose::candidates(request, backups, lineages)?;
    match &request.target {
        RecoveryTarget::Name(_) | RecoveryTarget::Xid(_) => {
            search::before_milestone(source, request, &candidates).await
        }
        _ => choose::before_target(request, &candidates),
    }
}

/// The histories that the server will ask for and that only backups carry.
fn kept_histories(lineage: &Lineage, backup: &Manifest, lineages: &Lineages) -> Vec<(TimelineId, BackupId)> {
    lineages
        .range(backup.start_timeline..=lineage.timeline())
        .filter_map(|(timeline, found)| Some((*timeline, found.kept_in()?.clone())))
        .collect()
}

/// Checks the directories, and the room there.
fn room(
    to: &std::path::Path,
    tablespaces: &[Tablespace],
    backup: &Manifest,
    inventory: &Inventory,
) -> Result<Vec<Space>> {
    let mut places = vec![("the target".to_owned(), to.to_path_buf())];
    let mut needs = Vec::new();
    let size = |archive: &str| inventory.archives.get(archive).map_or(0, |extent| extent.on_disk);
    let own_wal = chain::own_segments(backup).len() as u64 * backup.wal_segment_size.bytes();
    needs.push((to.to_path_buf(), size("base") + own_wal));
    for tablespace in tablespaces {
        needs.push((tablespace.new.clone(), size(&tablespace.oid)));
        if !tablespace.in_place {
            let what = format!("tablespace {}'s directory", tablespace.oid);
            place::must_be_empty(&tablespace.new, &what).map_err(|error| match tablespace.new.to_str() {
                Some(new) if new == tablespace.old => {
                    let hint = format!("send it elsewhere with --tablespace {new}=NEW; nothing was written");
                    error.hint(hint)
                }
                _ => error,
            })?;
            places.push((what, tablespace.new.clone()));
        }
    }
    place::must_be_apart(&places)?;
    let space = place::space(&needs)?;
    place::must_fit(&space)?;
    Ok(space)
}

/// Where a `postgresql.conf` from the backup looks for its fellows elsewhere, it must be led to those that are written.
fn configuration_settings(to: &std::path::Path, files: &[&str], has_configuration: bool) -> Vec<Setting> {
    let path = |file: &str| to.join(file).to_string_lossy().into_owned();
    let elsewhere = |file: &&str| has_configuration && files.contains(file);
    let pairs = [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];
    pairs.iter().filter(|(_, file)| elsewhere(file)).map(|(name, file)| (*name, path(file))).collect()
}

impl ChosenBackup {
    fn of(backup: &Manifest, why: String) -> Self {
        Self {
            id: backup.id.clone(),
            why,
            label: backup.label.clone(),
            started_at: backup.started_at.clone(),
            finished_at: backup.finished_at.clone(),
            start_lsn: backup.start_lsn,
            end_lsn: backup.end_lsn,
            timeline: backup.start_timeline,
            postgres_major: backup.postgres_major,
            damaged: backup.damaged.clone(),
        }
    }
}
