//! Ending what was started, and whatever that started in its turn.

use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    // It may have ended by itself in the meantime.
    kill_process(pid, signal).ok();
}

/// Waits for a child to end; `None` where it does not within `limit`.
pub(crate) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes that work below a directory: a server's helpers and the commands it called keep its working directory.
/// A zombie has none, so it is not among them.
pub(crate) fn working_below(directory: &Path) -> Vec<Pid> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid as u32 != own)
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&directory)))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Kills the processes that work below a directory, until there are none.
pub(crate) fn kill_below(directory: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let found = working_below(directory);
        if found.is_empty() {
            return;
        }
        for pid in found {
            kill_process(pid, Signal::KILL).ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("processes below {} cannot be ended: {:?}", directory.display(), working_below(directory));
}

/// Ends a server when this process ends in whatever way, also by SIGKILL: a shell that reads from a pipe of ours, sees it close,
/// and signals the server. Dropping it calls it off.
#[derive(Debug)]
pub(crate) struct Guardian(Child);

impl Guardian {
    /// Watches over this child; it is sent `signal` (a name such as `QUIT`).
    pub(crate) fn over(child: &Child, signal: &str) -> Self {
        let script = format!("read word; [ -n \"$word\" ] || kill -{signal} {}", child.id());
        Guardian(
            Command::new("/bin/sh")
                .args(["-c", &script])
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            pipe.write_all(b"done\n").ok();
        }
        self.0.wait().ok();
    }
}
