//! Tablespaces: where each goes, and the map that tells Postgres.

use super::request::{Relocation, trim_slashes};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::tablespace_map::{self, TablespaceMap};
use crate::repo::Manifest;
use std::path::{Path, PathBuf};

/// A tablespace and its places.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Tablespace {
    /// Its oid, and the name of its archive.
    pub oid: String,
    /// Its directory on the server that was backed up.
    pub old: String,
    /// Its directory now.
    pub new: PathBuf,
    /// It lies in `pg_tblspc` itself (`allow_in_place_tablespaces`), and has no link.
    pub in_place: bool,
}

/// Where the tablespaces of a backup go. A mapping of a directory that is no tablespace's is an error that lists those there are.
pub(super) fn place(backup: &Manifest, to: &Path, relocations: &[Relocation]) -> Result<Vec<Tablespace>> {
    let with_location = backup.archives.iter().filter_map(|archive| Some((archive, archive.location.as_deref()?)));
    let tablespaces: Vec<Tablespace> = with_location
        .map(|(archive, old)| {
            let in_place = !old.starts_with('/');
            let moved = relocations.iter().find(|relocation| relocation.old == trim_slashes(old));
            let new = match moved {
                _ if in_place => to.join(old),
                Some(relocation) => relocation.new.clone(),
                None => PathBuf::from(old),
            };
            Tablespace { oid: archive.name.clone(), old: old.to_owned(), new, in_place }
        })
        .collect();
    let outside: Vec<&str> = tablespaces.iter().filter(|t| !t.in_place).map(|t| trim_slashes(&t.old)).collect();
    for (at, relocation) in relocations.iter().enumerate() {
        if !outside.contains(&relocation.old.as_str()) {
            let there = if outside.is_empty() { "none".to_owned() } else { outside.join(", ") };
            return Err(Error::new(
                ErrorKind::Config,
                format!("no tablespace of backup {} lay in {}", backup.id, relocation.old),
            )
            .hint(format!("its tablespaces: {there}")));
        }
        if relocations.iter().take(at).any(|other| other.old == relocation.old) {
            return Err(Error::new(ErrorKind::Config, format!("{} is mapped twice", relocation.old)));
        }
    }
    match tablespaces.iter().find(|t| t.new.to_str().is_none_or(|text| text.contains('\n'))) {
        Some(bad) => {
            Err(Error::new(ErrorKind::Config, format!("{} cannot be named in a tablespace map", bad.new.display())))
        }
        None => Ok(tablespaces),
    }
}

/// The content of `tablespace_map`.
pub(super) fn map(tablespaces: &[Tablespace]) -> Result<Vec<u8>> {
    let mut map = TablespaceMap::default();
    for tablespace in tablespaces.iter().filter(|tablespace| !tablespace.in_place) {
        let oid = tablespace.oid.parse().map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("the backup's archive {:?} is no tablespace's", tablespace.oid))
                .because(error)
        });
        map.tablespaces.push(tablespace_map::Tablespace { oid: oid?, path: tablespace.new.clone() });
    }
    Ok(map.to_bytes())
}

/// Whether any of them lies elsewhere than before, so that the map must be written anew.
pub(super) fn any_moved(tablespaces: &[Tablespace]) -> bool {
    tablespaces.iter().any(|tablespace| !tablespace.in_place && Path::new(&tablespace.old) != tablespace.new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::testing::backup;
    use crate::repo::manifest::Archive;

    fn with_tablespaces() -> Manifest {
        let mut backup = backup("a", 1, "0/3000028", "0/3000100");
        let archive = |name: &str, location: Option<&str>| Archive {
            name: name.into(),
            location: location.map(Into::into),
            objects: 1,
            tar_bytes: 1024,
        };
        backup.archives = vec![
            archive("16385", Some("/srv/fast")),
            archive("16386", Some("pg_tblspc/16386")),
            archive("16387", Some("/srv/b\\s")),
            archive("base", None),
        ];
        backup
    }

    #[test]
    fn some_move_and_some_stay() {
        let moves = ["/srv/fast=/new".parse().unwrap()];
        let placed = place(&with_tablespaces(), Path::new("/d"), &moves).unwrap();
        let news: Vec<_> = placed.iter().map(|tablespace| tablespace.new.to_str().unwrap()).collect();
        assert_eq!(news, ["/new", "/d/pg_tblspc/16386", "/srv/b\\s"]);
        assert_eq!(map(&placed).unwrap(), b"16385 /new\n16387 /srv/b\\\\s\n");
        assert!(any_moved(&placed));
        assert!(!any_moved(&place(&with_tablespaces(), Path::new("/d"), &[]).unwrap()));
    }

    #[test]
    fn an_unknown_directory_is_an_error_that_lists_what_is_there() {
        let moves = ["/srv/slow=/new".parse().unwrap()];
        let error = place(&with_tablespaces(), Path::new("/d"), &moves).unwrap_err().to_string();
        assert!(error.contains("/srv/slow") && error.contains("its tablespaces: /srv/fast, /srv/b"), "{error}");
        let twice = ["/srv/fast=/new".parse().unwrap(), "/srv/fast=/other".parse().unwrap()];
        assert!(place(&with_tablespaces(), Path::new("/d"), &twice).unwrap_err().to_string().contains("mapped twice"));
    }
}
