//! The command lines of the two programs: few words, read by hand, because Postgres waits for every one of these processes.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::{SegmentName, SystemIdentifier};
use std::ffi::OsString;
use std::path::PathBuf;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<T> {
    /// The program's work.
    Work(T),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// `walhalla-archive [--config FILE] %p`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveArguments {
    /// `%p`: the file to archive.
    pub path: PathBuf,
    /// The configuration file, where given.
    pub config: Option<PathBuf>,
}

/// `walhalla-restore [--config FILE] [--cluster ID] [--accept-gap NAME]… %f %p`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreArguments {
    /// `%f`: the name wanted.
    pub name: String,
    /// `%p`: where to put it.
    pub path: PathBuf,
    /// The configuration file, where given.
    pub config: Option<PathBuf>,
    /// The cluster, where no data directory tells it.
    pub cluster: Option<SystemIdentifier>,
    /// Segments whose absence the operator has accepted.
    pub accepted_gaps: Vec<SegmentName>,
}

/// What `walhalla-archive --help` prints.
pub const ARCHIVE_HELP: &str = "\
Archives one WAL file: Postgres' archive_command.

Usage: walhalla-archive [--config FILE] %p

In postgresql.conf:
    archive_mode = on
    archive_command = 'walhalla-archive %p'

Exit status 0 means that this very file is proven to be in the repository. Nothing is ever overwritten. Every failure
ends with a status from 1 to 125, so that Postgres keeps the file and asks again (docs/exit-codes.md).

The data directory is the working directory or, where %p is absolute, two steps above it. The repository is named by
WALHALLA_STORAGE, or by `storage` in the configuration file: --config, else $WALHALLA_CONFIG, else /etc/walhalla.toml.

Options:
    --config FILE    read this configuration file
    --help           print this
    --version        print the version
";

/// What `walhalla-restore --help` prints.
pub const RESTORE_HELP: &str = "\
Fetches one WAL file: Postgres' restore_command.

Usage: walhalla-restore [--config FILE] [--cluster ID] [--accept-gap NAME]... %f %p

In postgresql.conf:
    restore_command = 'walhalla-restore %f %p'

Exit status 0: the file is at %p, whole and verified. 1: it is proven not to be in the archive; on a standby also: the
archive is in trouble. 200 and up: the archive is in trouble, and recovery must not go on as if it had ended
(docs/exit-codes.md).

The repository is named by WALHALLA_STORAGE, or by `storage` in the configuration file: --config, else
$WALHALLA_CONFIG, else /etc/walhalla.toml.

Options:
    --config FILE        read this configuration file
    --cluster ID         the cluster's system identifier, where no data directory tells it
    --accept-gap NAME    go on as if the archive ended before this segment, although later ones are there; what those
                         hold is lost. May be given several times. Never for a .history file
    --help               print this
    --version            print the version
";

/// Reads the arguments of `walhalla-archive`, the program's own name left out.
pub fn archive(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked<ArchiveArguments>> {
    let mut rest = arguments.into_iter();
    let (mut config, mut paths) = (None, Vec::new());
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Asked::Help),
            Some("--version" | "-V") => return Ok(Asked::Version),
            Some("--config") => config = Some(PathBuf::from(value("--config", rest.next())?)),
            Some(option) if option.starts_with('-') => return Err(usage(format!("unknown option {option}"), ARCHIVE)),
            _ => paths.push(PathBuf::from(argument)),
        }
    }
    match <[PathBuf; 1]>::try_from(paths) {
        Ok([path]) if !path.as_os_str().is_empty() => Ok(Asked::Work(ArchiveArguments { path, config })),
        Ok(_) => Err(usage("the path is empty", ARCHIVE)),
        Err(paths) => Err(usage(format!("one path is expected, and {} are given", paths.len()), ARCHIVE)),
    }
}

/// Reads the arguments of `walhalla-restore`, the program's own name left out.
pub fn restore(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked<RestoreArguments>> {
    let mut rest = arguments.into_iter();
    let (mut config, mut cluster, mut accepted_gaps, mut words) = (None, None, Vec::new(), Vec::new());
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Asked::Help),
            Some("--version" | "-V") => return Ok(Asked::Version),
            Some("--config") => config = Some(PathBuf::from(value("--config", rest.next())?)),
            Some(option @ "--cluster") => cluster = Some(parsed(option, rest.next())?),
            Some(option @ "--accept-gap") => accepted_gaps.push(parsed(option, rest.next())?),
            Some(option) if option.starts_with('-') => return Err(usage(format!("unknown option {option}"), RESTORE)),
            _ => words.push(argument),
        }
    }
    match <[OsString; 2]>::try_from(words) {
        Ok([name, path]) if !path.is_empty() => {
            let name = name.to_string_lossy().into_owned();
            Ok(Asked::Work(RestoreArguments { name, path: path.into(), config, cluster, accepted_gaps }))
        }
        Ok(_) => Err(usage("the path is empty", RESTORE)),
        Err(words) => {
            Err(usage(format!("a name and a path are expected, and {} words are given", words.len()), RESTORE))
        }
    }
}

const ARCHIVE: &str = "archive_command = 'walhalla-archive %p'";
const RESTORE: &str = "restore_command = 'walhalla-restore %f %p'";

fn usage(what: impl std::fmt::Display, right: &str) -> Error {
    Error::new(ErrorKind::Config, format!("wrong arguments: {what}")).hint(format!("use {right}"))
}

fn value(option: &str, value: Option<OsString>) -> Result<OsString> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("wrong arguments: {option} needs a value")).hint("see --help")
    })
}

fn parsed<T>(option: &str, text: Option<OsString>) -> Result<T>
where
    T: std::str::FromStr<Err = crate::pg::ParseError>,
{
    let text = value(option, text)?;
    text.to_string_lossy().parse().map_err(|cause: crate::pg::ParseError| {
        Error::new(ErrorKind::Config, format!("wrong arguments: {option}")).because(cause).hint("see --help")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').filter(|word| !word.is_empty()).map(|word| word.trim_matches('\'').into()).collect()
    }

    #[test]
    fn archive_takes_exactly_one_path() {
        let asked = archive(words("pg_wal/0000000100000000000000A3")).unwrap();
        let expected = ArchiveArguments { path: "pg_wal/0000000100000000000000A3".into(), config: None };
        assert_eq!(asked, Asked::Work(expected.clone()));
        let asked = archive(words("--config /etc/w.toml pg_wal/0000000100000000000000A3")).unwrap();
        assert_eq!(asked, Asked::Work(ArchiveArguments { config: Some("/etc/w.toml".into()), ..expected }));
        for line in ["", "a b", "--config", "--config ''", "--frobnicate a", "-x", "''", "a --config"] {
            let error = archive(words(line)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{line}");
            assert!(error.to_string().starts_with("wrong arguments: "), "{error}");
        }
        assert_eq!(archive(words("--help")).unwrap(), Asked::Help);
        assert_eq!(archive(words("a b --version")).unwrap(), Asked::Version);
    }

    #[test]
    fn restore_takes_a_name_and_a_path() {
        let line = "--accept-gap 0000000100000000000000A3 00000002.history pg_wal/RECOVERYHISTORY \
                    --cluster 7 --accept-gap 0000000100000000000000A4";
        let expected = RestoreArguments {
            name: "00000002.history".into(),
            path: "pg_wal/RECOVERYHISTORY".into(),
            config: None,
            cluster: Some(SystemIdentifier(7)),
            accepted_gaps: vec![
                "0000000100000000000000A3".parse().unwrap(),
                "0000000100000000000000A4".parse().unwrap(),
            ],
        };
        assert_eq!(restore(words(line)).unwrap(), Asked::Work(expected));
        for line in ["", "a", "a b c", "a ''", "--accept-gap 00000002.history a b", "--cluster x a b", "a b --cluster"]
        {
            assert_eq!(restore(words(line)).unwrap_err().kind(), ErrorKind::Config, "{line}");
        }
        assert_eq!(restore(words("-h")).unwrap(), Asked::Help);
    }
}
