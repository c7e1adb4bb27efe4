//! `walhalla init`: the storage proven, the identity written, the lines for postgresql.conf printed.

use super::{args, open, show};
use crate::account::Accounts;
use crate::archive::data_directory::DataDirectory;
use crate::config::{self, StorageUrl};
use crate::durable::Staged;
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{PgMajor, SegmentSize};
use crate::repo::identity::FORMAT;
use crate::repo::{Cluster, ClusterIdentity, Deposited};
use crate::storage::Capabilities;
use crate::wire::{ConnectOptions, Connection, Mode};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::error::Elapsed;

/// How long the server may take to tell who it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server lets its programs be found, whatever its PATH is.
const USUAL_PLACES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin"];

pub(super) async fn run(config: Option<&Path>, verb: args::Init) -> Result<()> {
    let opened = open::open(config)?;
    if let Some(file) = &verb.write_config {
        refuse_existing(file)?;
    }
    let repository = match &opened.settings.storage {
        StorageUrl::File(root) if rustix::process::geteuid().is_root() => Some(servers_own(root)?),
        _ => None,
    };
    let (identity, directory) = find_identity(&verb).await?;
    let cluster = opened.repository.cluster(identity.system_identifier);
    let capabilities = prove(&cluster).await?;
    let identified = match cluster.ensure_identity(&identity).await? {
        Deposited::Already => "was there".to_owned(),
        Deposited::Replaced(why) => format!("replaced (nobody could have read what was there: {why})"),
        Deposited::New | Deposited::Beside(_) => "written".to_owned(),
    };
    if let Some((root, owner)) = repository {
        hand_over(root, &identity.system_identifier.to_string(), owner)?;
    }
    show::line(&format!("storage  {}", cluster.storage().location()));
    for line in explain(capabilities) {
        show::line(&format!("         {line}"));
    }
    show::line(&format!(
        "cluster  {}, Postgres {}, segments of {}: identity {}",
        identity.system_identifier,
        identity.postgres_major,
        show::bytes(identity.wal_segment_size.bytes()),
        identified,
    ));
    if let Some(file) = &verb.write_config {
        write_config(config, file, directory.as_deref())?;
        show::line(&format!("config   {} written", file.display()));
    }
    print_lines(config, &verb);
    if let Some(region) = cluster.storage().region_learnt() {
        show::note(&region_advice(&region));
    }
    Ok(())
}

/// The storage named another region than the settings: without them each process would learn it anew.
fn region_advice(region: &str) -> String {
    format!(
        "\nnote: the storage says that its region is another one, and every call asks twice until the settings say so: \
         s3_region = \"{region}\" in the configuration, or WALHALLA_S3_REGION={region}"
    )
}

/// Tries everything that archiving and restoring will need: create, read, list, and what the endpoint makes of conditions.
async fn prove(cluster: &Cluster) -> Result<Capabilities> {
    let capabilities = cluster.probe().await?;
    cluster.timelines().await.map_err(|error| error.context("cannot list what is archived"))?;
    Ok(capabilities)
}

fn explain(capabilities: Capabilities) -> [&'static str; 4] {
    let say = |shown: bool, good: &'static str, bad: &'static str| if shown { good } else { bad };
    [
        "stores, reads back, lists",
        say(
            capabilities.create_only,
            "refuses to create what exists",
            "does NOT refuse to create what exists: every file is stored by the claim protocol (five requests instead of one)",
        ),
        say(
            capabilities.verifies_integrity,
            "refuses bytes that were damaged on the way",
            "does NOT refuse damaged bytes: every file is read back",
        ),
        say(
            capabilities.if_match,
            "replaces an object only if it is the one that was read",
            "does NOT replace conditionally: an object damaged in the storage must be deleted by you before its name is free",
        ),
    ]
}

/// The cluster's identity, and its data directory where that can be read.
async fn find_identity(verb: &args::Init) -> Result<(ClusterIdentity, Option<PathBuf>)> {
    let environment = std::env::var_os("PGDATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    let here = Path::new("global/pg_control").exists().then(|| PathBuf::from("."));
    let directory = match (&verb.data_directory, &verb.server.dsn) {
        (Some(directory), _) => Some(directory.clone()),
        (None, Some(_)) => None,
        (None, None) => here.or(environment),
    };
    let Some(path) = directory else {
        let answer = tokio::time::timeout(PATIENCE, ask_server(verb)).await.map_err(|_: Elapsed| {
            Error::new(ErrorKind::Unavailable, format!("the server does not answer within {} s", PATIENCE.as_secs()))
        })?;
        return answer.map(|identity| (identity, None));
    };
    let directory = DataDirectory::at(&path);
    let control = directory.control().await?.ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("{} is no data directory: it has no global/pg_control", path.display()))
            .hint("name the cluster's data directory with --data-directory, or its server with --dsn")
    })?;
    Ok((directory.identity(&control)?, Some(path)))
}

async fn ask_server(verb: &args::Init) -> Result<ClusterIdentity> {
    let options = ConnectOptions::from_environment(verb.server.dsn.as_deref())?;
    let mut connection = Connection::connect(&options, Mode::Replication).await.map_err(|error| {
        let advice = error.advice().map(str::to_owned);
        let error = error.context("cannot learn which cluster this is");
        error.hint(
            advice.unwrap_or_else(|| "name its data directory with --data-directory, or its server with --dsn".into()),
        )
    })?;
    let system = connection.identify_system().await?;
    let version = connection.version_num().await?;
    let size = connection.show("wal_segment_size").await?;
    Ok(ClusterIdentity {
        format: FORMAT,
        system_identifier: system.system,
        postgres_major: PgMajor::from_version_num(version),
        wal_segment_size: SegmentSize::from_setting(&size)
            .map_err(|error| Error::new(ErrorKind::Protocol, "wal_segment_size").because(error))?,
    })
}

/// User and group of a repository's directory. What root makes in it must be theirs, or the archiver could not write beside it.
fn servers_own(root: &Path) -> Result<(&Path, (u32, u32))> {
    let metadata =
        std::fs::metadata(root).map_err(|error| Error::local("look at", root, error).with_kind(ErrorKind::Config))?;
    if metadata.uid() == 0 {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{} belongs to root: the server could not write into it", root.display()),
        )
        .hint(format!("give it to the server's user: chown postgres: {}", root.display())));
    }
    Ok((root, (metadata.uid(), metadata.gid())))
}

/// Gives what a call by root has just made to the owner of the repository's directory: nothing of anybody else's.
fn hand_over(root: &Path, system: &str, (uid, gid): (u32, u32)) -> Result<()> {
    let own = root.join(system);
    let mut made = vec![own.clone(), own.join("cluster.json"), own.join("probe")];
    for folder in [root, &own.join("probe")] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        made.extend(entries.map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    for path in made {
        let is_roots = std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.uid() == 0);
        if is_roots {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))
                .map_err(|error| Error::local("change the owner of", &path, error))?;
        }
    }
    Ok(())
}

fn refuse_existing(file: &Path) -> Result<()> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::local("look at", file, error)),
        Ok(_) => Err(Error::new(ErrorKind::Config, format!("{} exists and is not written over", file.display()))
            .hint("edit it, or name another file after --write-config")),
    }
}

/// 0640, and the group of the server's user, who must read it; nobody else may: it can hold secrets. Whole or not there, so that
/// an `init` that was broken off can be run again.
fn write_config(config: Option<&Path>, file: &Path, directory: Option<&Path>) -> Result<()> {
    let text = config::to_toml(config, &|name| std::env::var_os(name))?;
    let failed = |error| Error::local("write", file, error);
    let mut staged = Staged::beside(file, 0o640)?;
    staged.write_all(text.as_bytes()).map_err(failed)?;
    if let Some(group) = group(directory) {
        std::os::unix::fs::fchown(staged.file(), None, Some(group)).map_err(failed)?;
    }
    if staged.create_new()? { Ok(()) } else { refuse_existing(file) }
}

/// The group of the data directory's owner; where that is not at hand, of the account `postgres`. `None`: leave ours.
fn group(directory: Option<&Path>) -> Option<u32> {
    let group = match directory {
        Some(directory) => std::fs::metadata(directory).ok().map(|metadata| metadata.gid()),
        None => Accounts::read().named("postgres").map(|account| account.gid),
    };
    group.filter(|group| rustix::process::getegid().as_raw() != *group)
}

fn print_lines(config: Option<&Path>, verb: &args::Init) {
    let file = verb.write_config.as_deref().or(config);
    let option = match file {
        Some(file) if file != Path::new(config::DEFAULT_FILE) => {
            let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            format!("--config {} ", absolute.display())
        }
        _ => String::new(),
    };
    show::line("\nPut these lines into postgresql.conf, and restart the server once (archive_mode needs it):\n");
    show::line("archive_mode = on");
    show::line(&format!("archive_command = '{} {option}%p'", program("walhalla-archive")));
    show::line(&format!("restore_command = '{} {option}%f %p'", program("walhalla-restore")));
    if !Path::new(config::DEFAULT_FILE).exists() && file.is_none() {
        show::note(
            "\nnote: a server that already runs does not see this environment; --write-config puts what it says into /etc/walhalla.toml",
        );
    }
}

/// The program's bare name where every server finds it, else where it lies.
fn program(name: &str) -> String {
    let usual = USUAL_PLACES.iter().any(|place| Path::new(place).join(name).is_file());
    let beside = std::env::current_exe().map(|own| own.with_file_name(name)).ok().filter(|path| path.is_file());
    match beside {
        Some(path) if !usual => path.display().to_string(),
        _ => name.to_owned(),
    }
}
