//! `walhalla prune`: what of the past goes, and what stays and why. Deletes nothing unless told to.

use super::{args, open, show};
use crate::config::Keep;
use crate::error::Result;
use crate::prune::{self, Backup, Done, Plan, Reason};
use crate::reach::Source;
use std::path::Path;

/// What `--json` prints; described in `docs/json.md`.
#[derive(Debug, serde::Serialize)]
struct Report<'a> {
    system_identifier: String,
    storage: String,
    #[serde(flatten)]
    plan: &'a Plan,
    /// From here on all WAL stays; absent where all of it does.
    wal_from: Option<String>,
    /// What goes, or went.
    goes: Done,
    /// Whether it went.
    deleted: bool,
}

pub(super) async fn run(config: Option<&Path>, verb: args::Prune) -> Result<()> {
    let opened = open::open(config)?;
    let cluster = opened.cluster(verb.cluster.as_deref()).await?;
    cluster.identity().await?;
    let source =
        Source { cluster, identities: opened.settings.identities.clone(), concurrency: opened.settings.concurrency };
    let plan = Plan::new(&prune::survey(&source).await?, &opened.settings.keep);
    let mut goes = prune::measure(&source, &plan).await?;
    if !verb.json {
        tell(&plan, &opened.settings.keep, &goes);
    }
    if verb.confirm && goes.objects > 0 {
        let progress = show::progress(Some(goes.bytes));
        goes = prune::execute(&source, &plan, |done| progress.set_position(done.bytes)).await?;
        progress.finish_and_clear();
    }
    if verb.json {
        return show::json(&Report {
            system_identifier: source.cluster.layout().system().to_string(),
            storage: source.cluster.storage().location().to_owned(),
            wal_from: plan.wal.from().map(|position| position.to_string()),
            plan: &plan,
            goes,
            deleted: verb.confirm,
        });
    }
    show::line(&match (goes.objects, verb.confirm) {
        (0, _) => "nothing goes".to_owned(),
        (_, false) => format!("{} would be freed; nothing was deleted: add --confirm", amount(&goes)),
        (_, true) => format!("deleted: {}", amount(&goes)),
    });
    Ok(())
}

fn amount(done: &Done) -> String {
    format!("{} in {} objects", show::bytes(done.bytes), done.objects)
}

fn tell(plan: &Plan, keep: &Keep, goes: &Done) {
    let rows: Vec<_> = plan.backups.iter().map(row).collect();
    if !rows.is_empty() {
        show::line(&show::table(&["BACKUP", "ENDED", "STORED", "", "WHY"], &rows));
    }
    for id in &plan.given_up {
        show::line(&format!("{id} goes: it was never finished, and begun more than a week ago"));
    }
    for id in &plan.under_way {
        show::line(&format!("{id} stays, with all WAL from its start on: it may be under way"));
    }
    for id in &plan.unreadable {
        show::line(&format!(
            "{id} stays, with all WAL from its start on: its manifest cannot be believed (delete its folder yourself if you give it up)"
        ));
    }
    match plan.wal.from() {
        Some(position) => show::line(&format!(
            "every moment since {} that can be restored now still can be (keep.window is {}): all WAL from {position} on stays",
            plan.window_from.map(|from| from.to_string()).unwrap_or_default(),
            window(keep),
        )),
        None => show::line("all WAL stays: no backup makes any of it superfluous"),
    }
    if goes.objects > 0 && plan.backups.iter().all(|backup| !backup.goes()) && plan.given_up.is_empty() {
        show::line("only WAL that no kept backup needs goes");
    }
}

fn window(keep: &Keep) -> String {
    let seconds = keep.window.as_secs();
    if seconds.is_multiple_of(24 * 3600) { format!("{}d", seconds / (24 * 3600)) } else { format!("{seconds}s") }
}

fn row(backup: &Backup) -> Vec<String> {
    let (verdict, why) = if backup.goes() {
        ("goes", String::new())
    } else {
        ("stays", backup.stays.iter().map(reason).collect::<Vec<_>>().join(", "))
    };
    let ended = backup.finished_at.clone();
    vec![backup.id.to_string(), ended, show::bytes(backup.stored_bytes), verdict.to_owned(), why]
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Permanent => "permanent".to_owned(),
        Reason::Last => "one of the newest".to_owned(),
        Reason::Window => "the window begins with it".to_owned(),
        Reason::Daily(day) => format!("newest of {day}"),
        Reason::Weekly(week) => format!("newest of {week}"),
        Reason::Parent(child) => format!("{child} builds upon it"),
        Reason::Unproven => "WAL that it needs is missing".to_owned(),
    }
}
