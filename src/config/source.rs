//! Where values come from: the environment under its several names, then the file.

use super::Keep;
use super::file::{FileSettings, parse_text};
use crate::error::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the file is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/walhalla.toml";

/// The variable that says where it is.
pub(super) const CONFIG_VARIABLE: &str = "WALHALLA_CONFIG";

/// Reads a variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A value as it was given.
pub(super) struct Given {
    /// Its text, trimmed and not empty.
    pub(super) text: String,
    /// Where it was given.
    pub(super) origin: Origin,
}

/// Where a value was given; what an error about it begins with.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A variable.
    Variable(String),
    /// A line of the file.
    Line { file: PathBuf, line: usize, key: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Line { file, line, key } => write!(f, "{}: line {line}: {key}", file.display()),
        }
    }
}

impl Given {
    /// Parses the value; an error names where it was given.
    pub(super) fn parse<T, E: fmt::Display>(&self, parser: impl FnOnce(&str) -> Result<T, E>) -> Result<T> {
        parser(&self.text).map_err(|why| config(format!("{}: {why}", self.origin)))
    }
}

/// An error of kind `Config`: the only kind that this room has, so that no missing file looks like a missing WAL file.
pub(super) fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn variable(environment: Environment<'_>, name: &str) -> Result<Option<Given>> {
    let Some(value) = environment(name) else { return Ok(None) };
    let value = value.into_string().map_err(|_| config(format!("{name}: the value is not UTF-8")))?;
    let text = value.trim();
    Ok((!text.is_empty()).then(|| Given { text: text.to_owned(), origin: Origin::Variable(name.to_owned()) }))
}

/// The file that is named, and by what: `explicit` (`--config`), else `$WALHALLA_CONFIG`.
fn named_file(explicit: Option<&Path>, environment: Environment<'_>) -> Result<Option<(PathBuf, &'static str)>> {
    match explicit {
        Some(path) => Ok(Some((path.to_owned(), "--config"))),
        None => Ok(variable(environment, CONFIG_VARIABLE)?.map(|given| (given.text.into(), CONFIG_VARIABLE))),
    }
}

/// The absolute path of the file that is named to this process (`explicit`, else `$WALHALLA_CONFIG`), for one that works in
/// another directory. `None` where none is named.
pub fn named_to_process(explicit: Option<&Path>) -> Option<PathBuf> {
    let (path, _) = named_file(explicit, &|name| std::env::var_os(name)).ok()??;
    std::path::absolute(path).ok()
}

/// The environment and the file.
pub(super) struct Sources<'a> {
    environment: Environment<'a>,
    file: FileSettings,
    path: PathBuf,
    /// Whether there was a file.
    found: bool,
}

impl<'a> Sources<'a> {
    /// Reads the file: the one named, else the one `$WALHALLA_CONFIG` names, else `default` if it exists.
    pub(super) fn open(explicit: Option<&Path>, environment: Environment<'a>, default: &Path) -> Result<Self> {
        let mut sources = Self { environment, file: FileSettings::default(), path: default.to_owned(), found: false };
        let named = named_file(explicit, environment)?;
        let must_exist = named.as_ref().map(|(_, by)| *by);
        if let Some((path, _)) = named {
            sources.path = path;
        }
        match std::fs::read_to_string(&sources.path) {
            Ok(text) => {
                sources.file = parse_text(&text).map_err(|error| error.context(sources.path.display()))?;
                sources.found = true;
            }
            Err(error) if must_exist.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let by = must_exist.map(|by| format!(", named by {by}")).unwrap_or_default();
                let message = format!("cannot read the configuration {}{by}", sources.path.display());
                let hint = "the file must be there and readable by the user that runs this program";
                return Err(config(message).because(error).hint(hint));
            }
        }
        Ok(sources)
    }

    /// What was looked at for a setting, for the error that says that it is nowhere.
    pub(super) fn consulted(&self, variables: &[&str], key: &str) -> String {
        let state = if self.found { "" } else { ", which does not exist" };
        format!("neither {} nor {key} in {}{state}", variables.join(", "), self.path.display())
    }

    /// A variable; empty is unset.
    pub(super) fn variable(&self, name: &str) -> Result<Option<Given>> {
        variable(self.environment, name)
    }

    /// A value of the file; empty is unset.
    pub(super) fn line(&self, key: &'static str) -> Option<Given> {
        let value = self.file.values.get(key).filter(|value| !value.text.is_empty())?;
        let origin = Origin::Line { file: self.path.clone(), line: value.line, key };
        Some(Given { text: value.text.clone(), origin })
    }

    /// The table `[keep]`, which only the file can have.
    pub(super) fn keep(&self) -> Keep {
        self.file.keep.clone()
    }

    /// A setting that is no secret: its variable, else the file.
    pub(super) fn setting(&self, key: &'static str) -> Result<Option<Given>> {
        Ok(self.variable(&variable_of(key))?.or_else(|| self.line(key)))
    }

    /// A setting that has other names in the environment too, the stronger first: its variable, else these (each also as
    /// `…_FILE`), else the file.
    pub(super) fn setting_or(&self, key: &'static str, others: &[&str]) -> Result<Option<Given>> {
        if let Some(given) = self.variable(&variable_of(key))? {
            return Ok(Some(given));
        }
        for other in others {
            if let Some(given) = self.secret_variable(other)? {
                return Ok(Some(given));
            }
        }
        Ok(self.line(key))
    }

    /// A secret from a variable, or from the file that the variable with `_FILE` names.
    pub(super) fn secret_variable(&self, name: &str) -> Result<Option<Given>> {
        let file = format!("{name}_FILE");
        one_of(self.variable(name)?, self.variable(&file)?)
    }

    /// A secret from the file, or from the other file that the key with `_file` names.
    pub(super) fn secret_line(&self, key: &'static str, file_key: &'static str) -> Result<Option<Given>> {
        one_of(self.line(key), self.line(file_key))
    }
}

/// The variable of a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("WALHALLA_{}", key.to_ascii_uppercase())
}

fn one_of(direct: Option<Given>, by_file: Option<Given>) -> Result<Option<Given>> {
    match (direct, by_file) {
        (Some(direct), Some(by_file)) => {
            Err(config(format!("{} and {} are both set", direct.origin, by_file.origin)).hint("set one of them"))
        }
        (Some(direct), None) => Ok(Some(direct)),
        (None, Some(by_file)) => read_secret(&by_file).map(Some),
        (None, None) => Ok(None),
    }
}

/// The content of the file that a value names, without the space around it.
fn read_secret(named: &Given) -> Result<Given> {
    let path = Path::new(&named.text);
    if !path.is_absolute() {
        return Err(config(format!("{}: it must be the absolute path of a file", named.origin)));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| config(format!("{}: cannot read {}", named.origin, shown(path))).because(error))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(config(format!("{}: {} is empty", named.origin, shown(path))));
    }
    Ok(Given { text: text.to_owned(), origin: named.origin.clone() })
}

/// A path that may be a secret put into the wrong variable: shown only if its folder exists. (A secret access key may well
/// begin with a slash.)
pub(super) fn shown(path: &Path) -> String {
    let folder = path.parent().filter(|folder| folder.parent().is_some() && folder.is_dir());
    folder.map_or_else(|| "the file it names".to_owned(), |_| path.display().to_string())
}
