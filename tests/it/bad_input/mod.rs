//! Bad input to the operator's program: each gets one line that says what, where, and what to do, and the right status; no line
//! holds a secret.

mod arguments;
mod init;
mod restore;
mod server;
mod storage;

use crate::support::binaries::{self, Output};
use crate::support::fake_s3;
use crate::support::stores::{self, Variables};
use crate::support::user;
use std::path::Path;

/// What is secret in these tests, and must never be printed.
const SECRETS: [&str; 2] = ["hunter2", fake_s3::SECRET_KEY];

/// A new storage in a directory of the server's user.
fn depot(place: &Path) -> Variables {
    let repository = place.join("repository");
    user::make_directory(&repository);
    stores::directory(&repository)
}

/// Whether nothing was ever stored in it.
fn is_empty(place: &Path) -> bool {
    std::fs::read_dir(place.join("repository")).unwrap().next().is_none()
}

/// Runs `walhalla` with these variables and no configuration file of this machine.
fn walhalla(place: &Path, variables: &Variables, arguments: &[&str]) -> Output {
    let mut variables = variables.clone();
    if !variables.iter().any(|(name, _)| *name == "WALHALLA_CONFIG") {
        variables.push(("WALHALLA_CONFIG", "/dev/null".to_owned()));
    }
    let output = binaries::run_as_server(&binaries::walhalla(), arguments, &variables, place);
    println!(
        "$ walhalla {}\n{}{}-> {:?} after {:.1?}",
        arguments.join(" "),
        output.stdout,
        output.stderr,
        output.status,
        output.took
    );
    must_be_clean(&output);
    output
}

/// No secret and no backtrace in anything that was printed.
fn must_be_clean(output: &Output) {
    for stream in [&output.stdout, &output.stderr] {
        for secret in SECRETS {
            assert!(!stream.contains(secret), "a secret is told: {stream}");
        }
        // The words are no secret, what follows them is.
        let mut keys = stream.split("AGE-SECRET-KEY-1").skip(1);
        assert!(!keys.any(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric())), "a key is told: {stream}");
        assert!(!stream.contains("panicked") && !stream.contains("backtrace"), "{stream}");
    }
}

/// Asserts that it ended with this status and one line that holds all these words; answers the line.
fn must_refuse(output: &Output, status: u8, words: &[&str]) -> String {
    must_be_clean(output);
    let mut lines: Vec<&str> = output.stderr.lines().collect();
    lines.retain(|line| !line.starts_with("note: "));
    let [line] = lines[..] else { panic!("not one line: {}", output.stderr) };
    assert!(line.starts_with("walhalla: "), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    assert_eq!(output.status, Some(i32::from(status)), "{line}");
    line.to_owned()
}

/// [`walhalla`], refused.
fn refused(place: &Path, variables: &Variables, arguments: &[&str], status: u8, words: &[&str]) -> String {
    must_refuse(&walhalla(place, variables, arguments), status, words)
}
