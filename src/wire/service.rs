//! Service files: named groups of connection options.

use super::dsn::Pairs;
use crate::error::{Error, ErrorKind, Result};
use std::path::PathBuf;

/// The options of a service, from the first of these files that has it. Only the first file must exist, and only if the user
/// named it; a service that no file has is an error.
pub(super) fn read(service: &str, files: &[PathBuf]) -> Result<Pairs> {
    for path in files {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::local("read", path, error).with_kind(ErrorKind::Config)),
        };
        let found = find(&text, service)
            .map_err(|(line, why)| Error::new(ErrorKind::Config, format!("{}, line {line}: {why}", path.display())))?;
        if let Some(pairs) = found {
            return Ok(pairs);
        }
    }
    let places: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    Err(Error::new(ErrorKind::Config, format!("no definition of the service \"{service}\" in {}", places.join(" or "))))
}

fn find(text: &str, service: &str) -> Result<Option<Pairs>, (usize, String)> {
    let mut inside = false;
    let mut found = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if inside {
                break;
            }
            inside = name.strip_suffix(']') == Some(service);
            if inside {
                found = Some(Pairs::new());
            }
            continue;
        }
        let Some(pairs) = found.as_mut().filter(|_| inside) else { continue };
        let (key, value) = line.split_once('=').ok_or_else(|| (number, "not of the form key=value".to_owned()))?;
        if key == "service" {
            return Err((number, "a service cannot name another".to_owned()));
        }
        // libpq takes the first of two equal keys.
        if !pairs.iter().any(|(known, _)| known == key) {
            pairs.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_group_only() {
        let text = "# all\n[a]\nhost=one\n[b]\nhost=two\n port=5433\nhost=three\n[c]\nbroken\n";
        let pairs = find(text, "b").unwrap().unwrap();
        assert_eq!(pairs, [("host".to_owned(), "two".to_owned()), ("port".to_owned(), "5433".to_owned())]);
        assert_eq!(find(text, "d").unwrap(), None);
        assert_eq!(find(text, "c").unwrap_err().0, 9);
        assert!(find("[a]\nservice=b\n", "a").is_err());
        assert!(read("a", &[PathBuf::from("/nonexistent")]).unwrap_err().to_string().contains("\"a\""));
    }
}
