//! Programs under strace: every system call written down, or ended by a signal at a chosen one.

use super::{processes, user};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// How a program is called.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, OsString)>,
    pub(crate) directory: PathBuf,
    /// By the server's user, as Postgres would.
    pub(crate) as_server: bool,
}

/// A system call that has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// As strace prints them: quoted strings, numbers, descriptors with their path (`3</tmp/x>`).
    pub(crate) arguments: Vec<String>,
    /// What stands behind `=`; begins with `-1` for a failure, with `?` where the program was ended inside of it.
    pub(crate) result: String,
}

/// How a traced program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status; `None` where a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stderr: String,
    pub(crate) calls: Vec<Call>,
}

/// Whether there is a strace that may trace. If not: why.
pub(crate) fn unavailable() -> Option<&'static str> {
    static WHY: OnceLock<Option<&'static str>> = OnceLock::new();
    *WHY.get_or_init(|| {
        let inject = "inject=/^kill:signal=KILL:when=2000";
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", inject, "true"]);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Err(_) => Some("there is no strace"),
            Ok(status) if !status.success() => Some("strace may not trace here"),
            Ok(_) => None,
        }
    })
}

/// Runs a program and writes down these system calls (by comma), only those about `path` where there is one. `strike` is a
/// further expression of strace, such as `inject=…`. The paths of descriptors are printed whole.
pub(crate) fn trace(program: &Program, calls: &str, strike: Option<&str>, path: Option<&Path>) -> Ended {
    let place = super::temporary();
    user::give(place.path());
    let log = place.path().join("strace");
    // No core files, and a process group of its own. Not with --seccomp-bpf: it miscounts what `when` refers to.
    let script = ["-c", "ulimit -c 0; exec \"$@\"", "sh", "strace", "-f", "-y", "-s", "0", "-qq", "-o"];
    let shell = Path::new("/bin/sh");
    let mut command = if program.as_server { user::command(shell) } else { Command::new(shell) };
    user::clean_environment(&mut command);
    command.args(script).arg(&log).args(["-e", &format!("trace={calls}")]);
    if let Some(strike) = strike {
        command.args(["-e", strike]);
    }
    if let Some(path) = path {
        command.arg("-P").arg(path);
    }
    command.arg("--").arg(&program.path).args(&program.arguments);
    command.envs(program.environment.iter().map(|(name, value)| (name, value))).current_dir(&program.directory);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let stderr = place.path().join("stderr");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let Some(status) = processes::wait_for(&mut child, Duration::from_secs(180)) else {
        child.kill().ok();
        child.wait().ok();
        panic!("{program:?} does not end under strace");
    };
    let calls = calls_of(&String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()));
    let stderr = String::from_utf8_lossy(&std::fs::read(&stderr).unwrap_or_default()).into_owned();
    Ended { status: status.code(), stderr, calls }
}

/// The calls of a log, in the order of their returns.
fn calls_of(log: &str) -> Vec<Call> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let Ok(thread) = thread.parse::<u32>() else { continue };
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, head.trim_end().to_owned());
            continue;
        }
        let whole = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let tail = resumed.split_once(" resumed>").map_or("", |(_, tail)| tail);
                begun.remove(&thread).unwrap_or_default() + tail
            }
            None => rest.to_owned(),
        };
        calls.extend(call_of(thread, &whole));
    }
    // What was ended inside of a call does not return from it.
    calls.extend(begun.into_iter().filter_map(|(thread, head)| call_of(thread, &(head + ") = ?"))));
    calls
}

fn call_of(thread: u32, line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ").filter(|_| !line.starts_with(['+', '-']))?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    Some(Call { thread, name: name.to_owned(), arguments: split(arguments), result: result.to_owned() })
}

/// Arguments are parted by commas outside of quotes and brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '<' | '[' | '{' | '(' if !quoted => depth += 1,
            '>' | ']' | '}' | ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

impl Call {
    /// Whether it did what it was asked.
    pub(crate) fn succeeded(&self) -> bool {
        !self.result.starts_with(['-', '?'])
    }

    /// The path of a descriptor: of an argument, or of the result.
    pub(crate) fn described(text: &str) -> Option<&str> {
        let (_, path) = text.split_once('<')?;
        path.rsplit_once('>').map(|(path, _)| path)
    }

    /// The path that this argument spells, made absolute by the directory descriptor before it, if there is one.
    pub(crate) fn path(&self, at: usize) -> Option<PathBuf> {
        let text = self.arguments.get(at)?.strip_prefix('"')?.split('"').next()?;
        let base = at.checked_sub(1).and_then(|before| Self::described(&self.arguments[before]));
        Some(Path::new(base.unwrap_or("/")).join(text))
    }
}

#[test]
fn a_log_is_understood() {
    let log = r#"7  mkdir("/a,b", 0750) = -1 EEXIST (File exists)
7  fsync(7</a,b/c> <unfinished ...>
8  openat(AT_FDCWD</d>, "x", O_RDONLY|O_CLOEXEC) = 3</d/x>
7  <... fsync resumed>)              = 0
7  write(3<socket:[1]>, ""..., 8 <unfinished ...>
7  <... write resumed>)              = ?
8  --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER} ---
8  +++ killed by SIGKILL +++
"#;
    let calls = calls_of(log);
    let names: Vec<_> = calls.iter().map(|call| (call.thread, call.name.as_str(), call.succeeded())).collect();
    assert_eq!(names, [(7, "mkdir", false), (8, "openat", true), (7, "fsync", true), (7, "write", false)]);
    assert_eq!(calls[0].path(0).unwrap(), Path::new("/a,b"));
    assert_eq!((calls[1].path(1).unwrap(), Call::described(&calls[1].result)), ("/d/x".into(), Some("/d/x")));
    assert_eq!(Call::described(&calls[2].arguments[0]), Some("/a,b/c"));
}
