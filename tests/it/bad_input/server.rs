//! Servers that refuse, are too old, or are not there; a backup that the operator stops.

use super::*;
use crate::support::postgres::Postgres;
use crate::support::{free_port, processes, temporary, user, wait_until};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn who_may_not() {
    let server = Postgres::builder(15).start();
    server
        .psql("CREATE ROLE humble LOGIN PASSWORD 'x'; CREATE ROLE backup LOGIN REPLICATION PASSWORD 'x'; CREATE ROLE far LOGIN REPLICATION")
        .unwrap();
    let hba = "local all all trust\n\
               host all all 127.0.0.1/32 scram-sha-256\n\
               host replication humble,backup 127.0.0.1/32 scram-sha-256\n";
    server.write("pg_hba.conf", hba);
    server.psql("SELECT pg_reload_conf()").unwrap();
    let port = server.port().to_string();
    let at = format!("127.0.0.1:{port}");
    let mut variables = depot(server.directory());
    for (role, password, words) in [
        ("humble", Some("x"), &["humble", "ALTER ROLE \"humble\" REPLICATION"][..]),
        ("backup", Some("hunter2"), &["backup", "PGPASSWORD"]),
        ("backup", None, &["backup", "PGPASSWORD"]),
        ("nobody-here", Some("hunter2"), &["nobody-here"]),
        ("far", Some("x"), &["pg_hba.conf", "host replication \"far\""]),
    ] {
        variables.retain(|(name, _)| *name != "PGPASSWORD");
        variables.extend(password.map(|password| ("PGPASSWORD", password.to_owned())));
        let dsn = format!("host=127.0.0.1 port={port} user={role}");
        for verb in ["backup", "init"] {
            refused(server.directory(), &variables, &[verb, "--dsn", &dsn], 77, &[&[at.as_str()], words].concat());
        }
    }
    // The password in the string itself.
    let dsn = format!("postgres://backup:hunter2@{at}/postgres");
    refused(server.directory(), &variables, &["backup", "--dsn", &dsn], 77, &["PGPASSWORD"]);
    let dsn = format!("{dsn}?sslmode=require");
    refused(server.directory(), &variables, &["backup", "--dsn", &dsn], 78, &["TLS", "sslmode"]);
    assert!(is_empty(server.directory()));
}

#[test]
fn no_slot_left_or_no_server() {
    let server = Postgres::builder(15).setting("max_wal_senders", 0).start();
    let variables = depot(server.directory());
    refused(server.directory(), &variables, &["backup", "--dsn", &server.dsn()], 75, &["max_wal_senders"]);
    let dsn = format!("host=127.0.0.1 port={}", free_port());
    for verb in ["backup", "init"] {
        let words = ["cannot reach the server at 127.0.0.1", "--dsn"];
        refused(server.directory(), &variables, &[verb, "--dsn", &dsn], 75, &words);
    }
    let dsn = format!("host={} port={}", server.socket_directory().display(), free_port());
    refused(server.directory(), &variables, &["backup", "--dsn", &dsn], 75, &["cannot reach the server", ".s.PGSQL."]);
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The next thing that a client sends, behind its length.
fn packet(client: &mut TcpStream, tagged: bool) -> Option<Vec<u8>> {
    let mut head = vec![0; if tagged { 5 } else { 4 }];
    client.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes(*head.last_chunk()?);
    let mut body = vec![0; usize::try_from(length.checked_sub(4)?).ok()?];
    client.read_exact(&mut body).ok()?;
    Some(body)
}

/// One connection to a server of version 12: greeted, and answered what a backup asks first.
fn old(mut client: TcpStream) -> Option<()> {
    if packet(&mut client, false)? == 80_877_103_u32.to_be_bytes() {
        client.write_all(b"N").ok()?;
        packet(&mut client, false)?;
    }
    client.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).ok()?;
    loop {
        let body = packet(&mut client, true)?;
        let command = String::from_utf8_lossy(&body).into_owned();
        let values: &[&str] = match command.trim_end_matches('\0') {
            "SHOW server_version_num" => &["120022"],
            "SHOW wal_segment_size" => &["16MB"],
            "IDENTIFY_SYSTEM" => &["7000000000000000000", "1", "0/3000000"],
            _ => return None,
        };
        let count = u16::try_from(values.len()).unwrap().to_be_bytes();
        let (mut description, mut row) = (count.to_vec(), count.to_vec());
        for value in values {
            description.extend(b"c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
            row.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            row.extend(value.as_bytes());
        }
        let answer = [message(b'T', &description), message(b'D', &row), message(b'C', b"SHOW\0"), message(b'Z', b"I")];
        client.write_all(&answer.concat()).ok()?;
    }
}

#[test]
fn a_server_that_is_too_old() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            old(client);
        }
    });
    let place = temporary();
    user::give(place.path());
    let variables = depot(place.path());
    let dsn = format!("host=127.0.0.1 port={port} user=postgres");
    for verb in ["backup", "init"] {
        refused(place.path(), &variables, &[verb, "--dsn", &dsn], 78, &["PostgreSQL 12", "13 is the oldest"]);
    }
    assert!(is_empty(place.path()));
}

/// Everything below a directory.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[test]
fn a_backup_that_is_interrupted() {
    let server = Postgres::builder(15).start();
    let repository = server.directory().join("repository");
    for signal in [Signal::INT, Signal::TERM] {
        let variables = depot(server.directory());
        let mut command = user::command(&binaries::walhalla());
        let (out, err) = (server.directory().join("out"), server.directory().join("err"));
        command
            .args(["backup", "--max-rate", "1024", "--dsn", &server.dsn()])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("WALHALLA_CONFIG", "/dev/null")
            // Each repository with a spool of its own: a repository that vanishes is taken for a volume that is not mounted.
            .env("WALHALLA_SPOOL", server.directory().join(format!("spool-{}", signal.as_raw())))
            .current_dir(server.directory())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        server.wait_sql("SELECT count(*) FROM pg_stat_progress_basebackup", "1", Duration::from_secs(30));
        wait_until("the backup has begun", Duration::from_secs(30), || {
            files(&repository).iter().any(|file| file.ends_with("/started"))
        });
        processes::signal(&child, signal);
        let status = processes::wait_for(&mut child, Duration::from_secs(20)).expect("it ends");
        let read = |path| std::fs::read_to_string(path).unwrap();
        let output =
            Output { status: status.code(), stdout: read(out), stderr: read(err), took: Duration::from_secs(0) };
        must_refuse(&output, 1, &["interrupted"]);
        let objects = files(&repository);
        assert!(!objects.iter().any(|file| file.ends_with("/manifest")), "{objects:?}");
        server.wait_sql("SELECT count(*) FROM pg_stat_progress_basebackup", "0", Duration::from_secs(20));
        std::fs::remove_dir_all(&repository).unwrap();
    }
}
