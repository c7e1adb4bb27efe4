//! Real S3 servers, each in a directory of its own on free ports of 127.0.0.1, gone when the value is dropped.
//! `scripts/store` brings the programs; what is not there is skipped with a word.

use super::processes::{self, Guardian};
use super::{free_port, skipped, temporary, tools, wait_until};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running S3 server with one empty bucket.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) bucket: &'static str,
    pub(crate) access_key: &'static str,
    pub(crate) secret_key: &'static str,
    pub(crate) region: &'static str,
    /// Whether a create-only put is refused where the key is taken.
    pub(crate) create_only: bool,
    /// Whether a put whose body does not fit its Content-MD5 is refused.
    pub(crate) verifies_integrity: bool,
    command: Command,
    child: Child,
    guardian: Option<Guardian>,
    directory: tempfile::TempDir,
}

const BUCKET: &str = "walhalla";
const ACCESS_KEY: &str = "GK00112233445566778899aabb";
const SECRET_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What starts an engine; `None`, with a word said, where it cannot.
pub(crate) type Start = fn() -> Option<Engine>;

/// Every engine there is, by name.
pub(crate) const ENGINES: [(&str, Start); 3] = [("seaweedfs", seaweedfs), ("minio", minio), ("garage", garage)];

/// SeaweedFS: one process with all its servers.
pub(crate) fn seaweedfs() -> Option<Engine> {
    let program = program("weed", "SeaweedFS", "seaweedfs")?;
    let directory = temporary();
    let (port, [master, filer, volume, admin]) = (free_port(), [(); 4].map(|()| free_port_with_grpc()));
    let mut command = command(&program, directory.path());
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.arg("mini").arg(format!("-dir={}", directory.path().display()));
    command.args([
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]);
    // A bucket that is not there is not made: a mistyped name must be an error.
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]);
    command.arg(format!("-s3.port={port}")).arg(format!("-s3.port.grpc={}", free_port()));
    for (name, port) in [("master", master), ("filer", filer), ("volume", volume), ("admin", admin)] {
        command.arg(format!("-{name}.port={port}")).arg(format!("-{name}.port.grpc={}", port + 10_000));
    }
    command.arg(format!("-bucket={BUCKET}"));
    let engine = started("SeaweedFS", command, port, directory, true)?;
    // The bucket is made some time after the door is open; its files are a directory of the filer.
    wait_until("SeaweedFS has its bucket", Duration::from_secs(60), || {
        let bucket = format!("/buckets/{BUCKET}/?limit=1");
        answer(filer, &bucket).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    Some(engine)
}

/// MinIO.
pub(crate) fn minio() -> Option<Engine> {
    let program = program("minio", "MinIO", "minio")?;
    let directory = temporary();
    // Each folder of its data directory is a bucket.
    std::fs::create_dir_all(directory.path().join("data").join(BUCKET)).unwrap();
    let port = free_port();
    let mut command = command(&program, directory.path());
    command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY).env("MINIO_BROWSER", "off");
    command.env("MINIO_UPDATE", "off").arg("server").arg(directory.path().join("data"));
    command.args(["--address", &format!("127.0.0.1:{port}"), "--quiet"]);
    started("MinIO", command, port, directory, true)
}

/// Garage, which ignores conditions on puts.
pub(crate) fn garage() -> Option<Engine> {
    let program = program("garage", "Garage", "garage")?;
    let directory = temporary();
    let (port, rpc, admin) = (free_port(), free_port(), free_port());
    let home = directory.path().display();
    let config = format!(
        "metadata_dir = \"{home}/meta\"\ndata_dir = \"{home}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{SECRET_KEY}\"\n\
         [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{port}\"\n\
         [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n"
    );
    std::fs::write(directory.path().join("garage.toml"), config).unwrap();
    let mut command = command(&program, directory.path());
    command.env("GARAGE_CONFIG_FILE", directory.path().join("garage.toml"));
    command.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY).env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
    command.env("GARAGE_DEFAULT_BUCKET", BUCKET).args(["server", "--single-node", "--default-bucket"]);
    started("Garage", command, port, directory, false)
}

impl Engine {
    /// `http://127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Power loss: all its processes are gone at once. What it has stored stays.
    pub(crate) fn kill(&mut self) {
        drop(self.guardian.take());
        processes::signal(&self.child, Signal::KILL);
        self.child.wait().ok();
        processes::kill_below(self.directory.path());
    }

    /// Starts it again after [`Self::kill`], and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.guardian = Some(Guardian::over(&self.child, "KILL"));
        self.wait_up();
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        log_of(self.directory.path())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What it stored is thrown away: no need to ask politely.
        self.kill();
    }
}

/// Where a program is: in the tools directory, or on PATH.
fn program(program: &str, what: &str, script: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(tools().join("bin")).chain(std::env::split_paths(&path)).map(|dir| dir.join(program));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        skipped(what, &format!("no program {program}; scripts/store {script} brings it"));
    }
    found
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    super::user::clean_environment(&mut command);
    command.env("HOME", directory).current_dir(directory);
    command
}

/// A free port whose number plus 10000, where SeaweedFS' parts look for each other's other port, is free too.
fn free_port_with_grpc() -> u16 {
    (0..1000)
        .map(|_| free_port())
        .find(|port| *port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok())
        .expect("no pair of free ports")
}

fn started(
    name: &'static str,
    mut command: Command,
    port: u16,
    directory: tempfile::TempDir,
    create_only: bool,
) -> Option<Engine> {
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let guardian = Some(Guardian::over(&child, "KILL"));
    let mut engine = Engine {
        name,
        port,
        bucket: BUCKET,
        access_key: ACCESS_KEY,
        secret_key: SECRET_KEY,
        region: "us-east-1",
        create_only,
        verifies_integrity: true,
        command,
        child,
        guardian,
        directory,
    };
    engine.wait_up();
    Some(engine)
}

impl Engine {
    fn wait_up(&mut self) {
        wait_until(&format!("{} answers", self.name), Duration::from_secs(60), || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.log());
            self.is_up()
        });
    }

    /// Whether an unsigned request is refused, as it is once the server knows whom it trusts.
    fn is_up(&self) -> bool {
        answer(self.port, &format!("/{BUCKET}/none")).is_ok_and(|answer| answer.starts_with("HTTP/1.1 403"))
    }
}

/// The answer to an unsigned GET.
fn answer(port: u16, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn log_of(directory: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(directory.join("log")).unwrap_or_default()).into_owned()
}
