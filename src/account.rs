//! Accounts of the operating system, read from `/etc/passwd`.
//!
//! Read by ourselves because the programs are fully static: glibc's own lookup would load shared modules of the host.

use std::path::PathBuf;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

impl Account {
    /// The account of this user id.
    pub fn of_uid(uid: u32) -> Option<Self> {
        Self::all().into_iter().find(|account| account.uid == uid)
    }

    /// The account of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|account| account.name == name)
    }

    /// Whom Postgres runs as when we are root, which it refuses to be: `postgres`, else `nobody`.
    pub fn for_postgres() -> Option<Self> {
        Self::named("postgres").or_else(|| Self::named("nobody"))
    }

    fn all() -> Vec<Self> {
        let text = std::fs::read("/etc/passwd").unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(Self::parse).collect()
    }

    /// One line of passwd(5).
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = PathBuf::from(fields.nth(1)?);
        Some(Self { name, uid, gid, home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd() {
        let account = Account::parse("postgres:x:105:113:PostgreSQL,,,:/var/lib/postgresql:/bin/bash");
        let expected = Account { name: "postgres".into(), uid: 105, gid: 113, home: "/var/lib/postgresql".into() };
        assert_eq!(account, Some(expected));
        for line in ["", "#", "name:x:1", "name:x:a:2::/", ":x:1:2::/"] {
            assert_eq!(Account::parse(line), None, "{line}");
        }
    }

    #[test]
    fn root_is_there() {
        assert_eq!(Account::of_uid(0).map(|account| account.name), Some("root".into()));
    }
}
