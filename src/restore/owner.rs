//! Who is to own what is restored.
//!
//! Postgres refuses to run as root, and refuses a data directory that is not its own. So what root restores belongs to the owner
//! of the target directory where that is not root, else to the user named `postgres`; `--owner` says otherwise.

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
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    decide(to, asked, rustix::process::geteuid().as_raw(), &passwd)
}

fn decide(to: &Path, asked: Option<&str>, we: u32, passwd: &str) -> Result<Option<Owner>> {
    if let Some(asked) = asked {
        let owner = users(passwd)
            .find(|user| user.name == asked)
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("there is no user {asked:?} in /etc/passwd")))?;
        if owner.uid == 0 {
            return Err(Error::new(ErrorKind::Config, "root cannot own the files: Postgres refuses to run as root"));
        }
        if we != 0 && we != owner.uid {
            return Err(Error::new(ErrorKind::Denied, format!("only root can give the files to {asked}"))
                .hint(format!("run as {asked}, without --owner")));
        }
        return Ok((we == 0).then_some(owner));
    }
    if we != 0 {
        return Ok(None);
    }
    match std::fs::metadata(to) {
        Ok(directory) if directory.uid() != 0 => Ok(Some(named(directory.uid(), directory.gid(), passwd))),
        _ => users(passwd).find(|user| user.name == "postgres").map(Some).ok_or_else(|| {
            Error::new(ErrorKind::Config, "root restores, but for whom: Postgres refuses to run as root")
                .hint("name the server's user with --owner")
        }),
    }
}

fn named(uid: u32, gid: u32, passwd: &str) -> Owner {
    let name = users(passwd).find(|user| user.uid == uid).map_or_else(|| uid.to_string(), |user| user.name);
    Owner { name, uid, gid }
}

fn users(passwd: &str) -> impl Iterator<Item = Owner> + '_ {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Owner { name, uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:P:/var/lib/postgresql:/bin/bash\nbroken\n";

    #[test]
    fn root_gives_the_files_away() {
        let nowhere = Path::new("/nonexistent");
        let postgres = Owner { name: "postgres".into(), uid: 101, gid: 104 };
        assert_eq!(decide(nowhere, None, 0, PASSWD).unwrap(), Some(postgres.clone()));
        assert_eq!(decide(nowhere, None, 1000, PASSWD).unwrap(), None);
        assert_eq!(decide(nowhere, Some("postgres"), 0, PASSWD).unwrap(), Some(postgres));
        assert_eq!(decide(nowhere, Some("postgres"), 101, PASSWD).unwrap(), None);
        assert_eq!(decide(nowhere, Some("postgres"), 1000, PASSWD).unwrap_err().kind(), ErrorKind::Denied);
        for (asked, passwd) in [(None, ""), (Some("nobody"), PASSWD), (Some("root"), PASSWD)] {
            assert_eq!(decide(nowhere, asked, 0, passwd).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
