//! The real programs, as they are shipped: the two commands are built by themselves, without the operator's features.

use super::{checkout, processes, tools, user};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The directory that holds all three programs, readable by the server's user.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_walhalla")).parent().unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // What the outer cargo tells its tests: some build scripts (ring's) look at it, and everything would be built anew, each time.
        for (name, _) in std::env::vars_os() {
            let told = name.to_str().is_some_and(|name| {
                ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
                    .iter()
                    .any(|start| name.starts_with(start))
            });
            if told {
                build.env_remove(name);
            }
        }
        build.current_dir(checkout()).args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "archive-command",
            "-p",
            "restore-command",
        ]);
        // What cargo tells this crate's tests of it is not for another run of cargo: build scripts that look at such variables
        // would be run again, with all that depends on them, each time in turn.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
                build.env_remove(name);
            }
        }
        if built.ends_with("release") {
            build.arg("--release");
        }
        let output = build.output().unwrap();
        assert!(output.status.success(), "cargo build: {}", String::from_utf8_lossy(&output.stderr));
        if may_execute(&built.join("walhalla-archive")) { built.to_owned() } else { copied(built) }
    })
}

/// The operator's program.
pub(crate) fn walhalla() -> PathBuf {
    directory().join("walhalla")
}

/// The `archive_command`.
pub(crate) fn walhalla_archive() -> PathBuf {
    directory().join("walhalla-archive")
}

/// The `restore_command`.
pub(crate) fn walhalla_restore() -> PathBuf {
    directory().join("walhalla-restore")
}

fn may_execute(program: &Path) -> bool {
    user::command(Path::new("test"))
        .arg("-x")
        .arg(program)
        .current_dir("/")
        .status()
        .is_ok_and(|status| status.success())
}

/// A copy in the tools directory: the checkout lies where only its owner may look.
fn copied(built: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let place = tools().join("programs").join(checkout().display().to_string().replace('/', "_"));
    std::fs::create_dir_all(&place).unwrap();
    for name in ["walhalla", "walhalla-archive", "walhalla-restore"] {
        // Under a temporary name first: the old program may be running.
        let mut copy = tempfile::NamedTempFile::new_in(&place).unwrap();
        std::io::copy(&mut std::fs::File::open(built.join(name)).unwrap(), &mut copy).unwrap();
        std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (file, path) = copy.into_parts();
        drop(file);
        path.persist(place.join(name)).unwrap();
    }
    place
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit status; `None` where a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Runs a program with this environment and nothing else in it, to its end; panics where that takes more than two minutes.
pub(crate) fn run<V: AsRef<OsStr>>(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, V)],
    directory: &Path,
) -> Output {
    let mut command = Command::new(program);
    user::clean_environment(&mut command);
    finish(command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(directory))
}

/// As [`run`], as the server's user: as Postgres would.
pub(crate) fn run_as_server<V: AsRef<OsStr>>(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, V)],
    directory: &Path,
) -> Output {
    let mut command = user::command(program);
    finish(command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(directory))
}

fn finish(command: &mut Command) -> Output {
    let began = std::time::Instant::now();
    // Into files, not pipes: what a program leaves running must not keep us waiting for the end of its output.
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = processes::wait_for(&mut child, Duration::from_secs(120));
    let took = began.elapsed();
    let (stdout, stderr) = (text(&mut stdout), text(&mut stderr));
    let Some(status) = status else {
        child.kill().ok();
        child.wait().ok();
        panic!("{command:?} does not end\nstdout: {stdout}\nstderr: {stderr}");
    };
    Output { status: status.code(), stdout, stderr, took }
}

fn text(file: &mut std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
