//! Letting a restored server archive again.

use crate::error::{Error, ErrorKind, Result};
use std::path::Path;

/// The file that holds archiving: `walhalla-archive` looks for it before anything else.
pub const HELD: &str = "walhalla.held";

/// Its content, for whoever finds it.
pub(super) fn held_text(to: &Path) -> String {
    format!(
        "This server was restored, and whether it may write into the archive was not decided.\n\
         walhalla-archive refuses every file while this one is here. When the server takes over:\n\
         walhalla restore --release {}\n",
        to.display()
    )
}

/// What came of a release.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Release {
    /// The file was there, and is gone.
    pub was_held: bool,
    /// What else stands in the way of archiving, and what to do about it.
    pub remains: Option<String>,
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.was_held { "archiving is released" } else { "archiving was not held" })?;
        match &self.remains {
            Some(remains) => write!(f, "; {remains}"),
            None => Ok(()),
        }
    }
}

/// Removes the file that holds archiving, durably. Says so if `archive_mode` is still off in what `restore --as copy` wrote.
pub fn release(directory: &Path) -> Result<Release> {
    if !directory.join("PG_VERSION").is_file() {
        return Err(Error::new(ErrorKind::Config, format!("{} is no data directory", directory.display()))
            .hint("give the directory that was restored into"));
    }
    let held = directory.join(HELD);
    let was_held = match std::fs::remove_file(&held) {
        Ok(()) => true,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => return Err(Error::local("remove", &held, cause)),
    };
    crate::durable::sync_directory(directory)?;
    let auto_conf = std::fs::read_to_string(directory.join("postgresql.auto.conf")).unwrap_or_default();
    let remains = archiving_is_off(&auto_conf).then(|| {
        "archive_mode is off in postgresql.auto.conf, as restored for a copy: ALTER SYSTEM RESET archive_mode, \
         then restart the server; what it wrote until then, its timeline's history among it, is archived by neither"
            .to_owned()
    });
    Ok(Release { was_held, remains })
}

/// The last assignment counts.
fn archiving_is_off(auto_conf: &str) -> bool {
    let value = |line: &str| -> Option<String> {
        let rest = line.trim().strip_prefix("archive_mode")?.trim_start().trim_start_matches('=');
        Some(rest.trim().trim_matches('\'').to_ascii_lowercase())
    };
    auto_conf.lines().filter_map(value).next_back().is_some_and(|value| value == "off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releasing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(release(path).unwrap_err().kind(), ErrorKind::Config);
        std::fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(path.join(HELD), held_text(path)).unwrap();
        assert_eq!(release(path).unwrap(), Release { was_held: true, remains: None });
        assert!(!path.join(HELD).exists());
        std::fs::write(path.join("postgresql.auto.conf"), "archive_mode = 'on'\narchive_mode = 'off'\n").unwrap();
        let again = release(path).unwrap();
        assert!(!again.was_held && again.remains.unwrap().contains("archive_mode is off"));
    }
}
