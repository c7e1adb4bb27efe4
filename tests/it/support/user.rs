//! Whom servers run as: Postgres refuses to be root.

use std::path::Path;
use std::process::Command;

/// An unprivileged user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that servers run as where this process is root: `postgres`, else `nobody`. `None` where it is not root: then they run as it.
pub(crate) fn unprivileged() -> Option<User> {
    if !is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name).map(|fields| {
            User { name: name.to_owned(), uid: fields[2].parse().unwrap(), gid: fields[3].parse().unwrap() }
        })
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("/etc/passwd has neither postgres nor nobody"))
}

/// A command that runs `program` as the unprivileged user, with an environment that holds nothing of ours.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = match unprivileged() {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--init-groups", "--"])
                .arg(program);
            command
        }
    };
    clean_environment(&mut command);
    command
}

/// The environment of every program that a test starts: what it needs to run, and no variable of ours by accident.
pub(crate) fn clean_environment(command: &mut Command) {
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C").env("TZ", "UTC");
}

/// Gives a file or a whole directory to the unprivileged user; nothing where this process is not root.
pub(crate) fn give(path: &Path) {
    let Some(user) = unprivileged() else { return };
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).unwrap();
    let is_directory = std::fs::symlink_metadata(path).unwrap().is_dir();
    if is_directory {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

/// Makes a directory with all its parents, the last of them 0700 and the unprivileged user's.
pub(crate) fn make_directory(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    give(path);
}
