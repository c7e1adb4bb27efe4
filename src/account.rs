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

/// All accounts of the passwd file.
#[derive(Debug, Clone, Default)]
pub struct Accounts(Vec<Account>);

impl Accounts {
    /// The accounts of this machine; none where the file cannot be read.
    pub fn read() -> Self {
        Self::parse(&String::from_utf8_lossy(&std::fs::read("/etc/passwd").unwrap_or_default()))
    }

    /// The accounts in a text of passwd(5); lines that are none are left out.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Account::parse).collect())
    }

    /// The account of this user id.
    pub fn of_uid(&self, uid: u32) -> Option<&Account> {
        self.0.iter().find(|account| account.uid == uid)
    }

    /// The account of this name.
    pub fn named(&self, name: &str) -> Option<&Account> {
        self.0.iter().find(|account| account.name == name)
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
    fn the_accounts_of_this_machine() {
        let accounts = Accounts::read();
        assert_eq!(accounts.of_uid(0), accounts.named("root"));
        assert!(accounts.named("root").is_some());
    }
}
