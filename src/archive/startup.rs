//! The startup process that a restore call works for: so that one promotion is told from the next.

use std::fmt;

/// Postgres' startup process, by its number and the moment it was started; numbers alone are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartupProcess {
    pid: u32,
    /// Clock ticks from boot to its start (`starttime` of `proc_pid_stat(5)`).
    started: u64,
}

impl fmt::Display for StartupProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started)
    }
}

impl std::str::FromStr for StartupProcess {
    type Err = std::num::ParseIntError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pid, started) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Self { pid: pid.parse()?, started: started.parse()? })
    }
}

impl StartupProcess {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Clock ticks from boot to its start.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Whether this very process is still there.
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.is_ok_and(|stat| !is_zombie(&stat) && parent_and_start(&stat).is_some_and(|(_, at)| at == self.started))
    }

    /// The ancestor of this process that is a child of the postmaster. `None` where there is none, or no `/proc`.
    pub fn above_us(postmaster: u32) -> Option<Self> {
        Self::above(std::process::id(), postmaster, |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
    }

    fn above(us: u32, postmaster: u32, stat: impl Fn(u32) -> Option<String>) -> Option<Self> {
        let mut pid = us;
        // The shell of system(3), perhaps a wrapper of the user's: never many.
        for _ in 0..32 {
            let (parent, started) = parent_and_start(&stat(pid)?)?;
            if parent == postmaster {
                return Some(Self { pid, started });
            }
            if parent <= 1 {
                return None;
            }
            pid = parent;
        }
        None
    }
}

/// Fields 4 and 22 of `/proc/PID/stat`. The second field is the program's name in brackets, and may hold anything.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

/// Field 3: one that has ended, and that nobody has waited for yet.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| matches!(rest.trim_ascii_start().as_bytes().first(), Some(b'Z' | b'X')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: u32, name: &str, parent: u32, started: u64) -> String {
        format!("{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {started} 5 6 7")
    }

    #[test]
    fn the_child_of_the_postmaster_above_us() {
        let tree = |pid| match pid {
            40 => Some(stat(40, "walhalla-restore", 30, 400)),
            30 => Some(stat(30, "sh) S 1 (", 20, 300)),
            20 => Some(stat(20, "postgres: startup", 10, 200)),
            10 => Some(stat(10, "postgres", 1, 100)),
            _ => None,
        };
        assert_eq!(StartupProcess::above(40, 10, tree), Some(StartupProcess { pid: 20, started: 200 }));
        assert_eq!(StartupProcess::above(40, 11, tree), None);
        assert_eq!(StartupProcess::above(41, 10, tree), None);
    }

    #[test]
    fn the_postmaster_may_be_process_one() {
        let tree = |pid| match pid {
            40 => Some(stat(40, "walhalla-restore", 20, 400)),
            20 => Some(stat(20, "postgres: startup", 1, 200)),
            _ => None,
        };
        assert_eq!(StartupProcess::above(40, 1, tree), Some(StartupProcess { pid: 20, started: 200 }));
    }

    #[test]
    fn of_this_very_process() {
        let parent = std::os::unix::process::parent_id();
        let found = StartupProcess::above_us(parent).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(found.started > 0);
        assert_eq!(found.to_string().parse(), Ok(found));
    }

    #[test]
    fn a_process_that_has_ended_is_not_alive() {
        let us = StartupProcess::above_us(std::os::unix::process::parent_id()).unwrap();
        assert!(us.is_alive());
        assert!(!StartupProcess { started: us.started + 1, ..us }.is_alive(), "the number was used again");
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let theirs = StartupProcess { pid: child.id(), started: parent_and_start(&stat).unwrap().1 };
        assert!(theirs.is_alive());
        child.kill().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while theirs.is_alive() {
            assert!(std::time::Instant::now() < end, "a zombie is taken for alive");
        }
        child.wait().unwrap();
        assert!(!theirs.is_alive());
    }
}
