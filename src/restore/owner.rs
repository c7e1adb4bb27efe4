//! Who is to own what is restored.
//!
//! Postgres refuses to run as root, and refuses a data directory that is not its own. So what root restores belongs to the owner
//! of the target directory where that is not root, else to the user named `postgres`; `--owner` says otherwise.

use crate::account::{Account, Accounts};
use crate::error::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A user and their group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Owner {
    /// The user's name, or number where there is no name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// Their group's number.
    pub gid: u32,
}

/// Who shall own the files, if it is not simply whoever runs this. `asked` is `--owner`.
pub(super) fn find(to: &Path, asked: Option<&str>) -> Result<Option<Owner>> {
    decide(to, asked, rustix::process::geteuid().as_raw(), &Accounts::read())
}

fn decide(to: &Path, asked: Option<&str>, we: u32, accounts: &Accounts) -> Result<Option<Owner>> {
    if let Some(asked) = asked {
        let owner = accounts
            .named(asked)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("there is no user {asked:?} in /etc/passwd")))?;
        if owner.uid == 0 {
            return Err(Error::new(ErrorKind::Config, "root cannot own the files: Postgres refuses to run as root"));
        }
        if we != 0 && we != owner.uid {
            return Err(Error::new(ErrorKind::Denied, format!("only root can give the files to {asked}"))
                .hint(format!("run as {asked}, without --owner")));
        }
        return Ok((we == 0).then(|| Owner::from(owner)));
    }
    if we != 0 {
        return Ok(None);
    }
    match std::fs::metadata(to) {
        Ok(directory) if directory.uid() != 0 => Ok(Some(named(directory.uid(), directory.gid(), accounts))),
        _ => accounts.named("postgres").map(|account| Some(account.into())).ok_or_else(|| {
            Error::new(ErrorKind::Config, "root restores, but for whom: Postgres refuses to run as root")
                .hint("name the server's user with --owner")
        }),
    }
}

fn named(uid: u32, gid: u32, accounts: &Accounts) -> Owner {
    let name = accounts.of_uid(uid).map_or_else(|| uid.to_string(), |account| account.name.clone());
    Owner { name, uid, gid }
}

impl From<&Account> for Owner {
    fn from(account: &Account) -> Self {
        Self { name: account.name.clone(), uid: account.uid, gid: account.gid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:P:/var/lib/postgresql:/bin/bash\nbroken\n";

    #[test]
    fn root_gives_the_files_away() {
        let nowhere = Path::new("/nonexistent");
        let accounts = Accounts::parse(PASSWD);
        let postgres = Owner { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(decide(nowhere, None, 0, &accounts).unwrap(), Some(postgres.clone()));
        assert_eq!(decide(nowhere, None, 1000, &accounts).unwrap(), None);
        assert_eq!(decide(nowhere, Some("postgres"), 0, &accounts).unwrap(), Some(postgres));
        assert_eq!(decide(nowhere, Some("postgres"), 101, &accounts).unwrap(), None);
        assert_eq!(decide(nowhere, Some("postgres"), 1000, &accounts).unwrap_err().kind(), ErrorKind::Denied);
        for (asked, known) in [(None, &Accounts::default()), (Some("nobody"), &accounts), (Some("root"), &accounts)] {
            assert_eq!(decide(nowhere, asked, 0, known).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
