//! The account this program runs under, read from `/etc/passwd`: a static binary cannot ask the name service.

use std::path::PathBuf;

/// Name and home directory of the effective user, as far as `/etc/passwd` knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: Option<String>,
    pub(super) home: Option<PathBuf>,
}

impl Account {
    /// Of the effective user.
    pub(super) fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        std::fs::read_to_string("/etc/passwd").map(|text| Self::find(&text, uid)).unwrap_or_default()
    }

    fn find(passwd: &str, uid: u32) -> Self {
        passwd
            .lines()
            .find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, id, _, _, home, ..] = fields.as_slice() else { return None };
                (id.parse() == Ok(uid))
                    .then(|| Self { name: Some((*name).to_owned()), home: Some(PathBuf::from(*home)) })
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_id() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\npostgres:x:101:103:,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(Account::find(passwd, 101).name.as_deref(), Some("postgres"));
        assert_eq!(Account::find(passwd, 0).home, Some(PathBuf::from("/root")));
        assert_eq!(Account::find(passwd, 7), Account::default());
    }
}
