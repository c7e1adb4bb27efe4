//! The wire client against real servers: every way to authenticate, every `sslmode`, WAL as it streams.

use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::skipped;
use std::path::Path;
use walhalla::error::{Error, ErrorKind};
use walhalla::pg::{Lsn, SegmentName, SegmentSize, TimelineId};
use walhalla::wire::{ConnectOptions, Connection, Environment, Mode, StreamEnd, server_error};

/// Options from a connection string, and from nothing else.
fn options(dsn: &str) -> ConnectOptions {
    let environment = Environment { variable: &|_| None, home: None, user: Some("nobody".to_owned()) };
    ConnectOptions::resolve(Some(dsn), &environment).unwrap()
}

async fn connect(server: &Postgres, more: &str, mode: Mode) -> Result<Connection, Error> {
    Connection::connect(&options(&format!("{} {more}", server.dsn())), mode).await
}

async fn replication(server: &Postgres) -> Connection {
    connect(server, "", Mode::Replication).await.unwrap()
}

/// A server with these lines in pg_hba.conf, and roles that differ in what they may.
fn guarded(lines: &str) -> Postgres {
    let server = Postgres::builder(15).start();
    server
        .psql(
            "SET password_encryption = 'md5'; CREATE ROLE old LOGIN REPLICATION PASSWORD 'hush old';
             SET password_encryption = 'scram-sha-256'; CREATE ROLE new LOGIN REPLICATION PASSWORD 'hush new';
             CREATE ROLE plain LOGIN PASSWORD 'hush plain'",
        )
        .unwrap();
    server.write("pg_hba.conf", &format!("local all all trust\nlocal replication all trust\n{lines}\n"));
    server.psql("SELECT pg_reload_conf()").unwrap();
    server
}

#[tokio::test]
async fn commands_of_every_major() {
    for major in postgres_majors() {
        let server = Postgres::builder(major).start();
        let mut connection = replication(&server).await;
        let system = connection.identify_system().await.unwrap();
        assert_eq!(system.timeline, TimelineId::FIRST);
        let control = server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
        assert_eq!(system.system.to_string(), control);
        let clock = connection.server_time(&system).await.unwrap();
        assert!(clock.elapsed().unwrap() < std::time::Duration::from_secs(5), "{clock:?}");
        assert_eq!(connection.show("wal_segment_size").await.unwrap(), "1MB");
        let number: u32 = connection.show("server_version_num").await.unwrap().parse().unwrap();
        assert_eq!(number / 10_000, major);
        // What the server refuses leaves the connection usable.
        let refused = connection.show("no_such_setting").await.unwrap_err();
        assert_eq!(server_error(&refused).unwrap().code, "42704");
        let missing = connection.timeline_history(TimelineId::new(7).unwrap()).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        connection.temporary_slot("walhalla_test").await.unwrap();
        assert_eq!(server.psql("SELECT count(*) FROM pg_replication_slots").unwrap(), "1");
        drop(connection);
        server.wait_sql("SELECT count(*) FROM pg_replication_slots", "0", std::time::Duration::from_secs(10));
    }
}

#[tokio::test]
async fn sql_over_socket_and_tcp() {
    let server = Postgres::builder(15).start();
    let socket = format!("host={} port={} user=postgres", server.socket_directory().display(), server.port());
    for dsn in [socket, server.dsn()] {
        let mut connection = Connection::connect(&options(&dsn), Mode::Sql).await.unwrap();
        let results = connection
            .simple_query("SELECT 1 AS a, NULL AS b; CREATE TABLE t (); DROP TABLE t; VALUES ('x'), ('y')")
            .await
            .unwrap();
        assert_eq!(results.len(), 2);
        assert_eq!(results[0].columns, ["a", "b"]);
        assert_eq!((results[0].text(0, 0).as_deref(), results[0].text(0, 1)), (Some("1"), None));
        assert_eq!(results[1].text(1, 0).as_deref(), Some("y"));
        connection.simple_query("DO $$ BEGIN RAISE WARNING 'look out'; END $$").await.unwrap();
        assert_eq!(connection.take_notices()[0].message, "look out");
        let error = connection.simple_query("SELECT 1; nonsense").await.unwrap_err();
        assert!(error.to_string().contains("42601"), "{error}");
        connection.simple_query("").await.unwrap();
        assert!(connection.parameter("server_version").is_some());
    }
}

#[tokio::test]
async fn passwords() {
    let server = guarded(
        "host replication old 127.0.0.1/32 md5\nhost replication new 127.0.0.1/32 scram-sha-256\n\
         host postgres plain 127.0.0.1/32 password\nhost replication plain 127.0.0.1/32 trust",
    );
    for (role, mode) in [("old", Mode::Replication), ("new", Mode::Replication), ("plain", Mode::Sql)] {
        connect(&server, &format!("user={role} password='hush {role}'"), mode).await.unwrap();
        let wrong = connect(&server, &format!("user={role} password=hush"), mode).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Denied, "{wrong}");
        assert!(wrong.advice().unwrap().contains("PGPASSWORD"), "{wrong}");
        assert!(!wrong.to_string().contains("hush"), "{wrong}");
        let none = connect(&server, &format!("user={role}"), mode).await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Denied, "{none}");
        assert!(none.to_string().contains(".pgpass"), "{none}");
    }
    // No channel to bind to without TLS.
    let unbound = connect(&server, "user=new password='hush new' channel_binding=require", Mode::Replication).await;
    assert_eq!(unbound.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let server = guarded("host replication plain 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust");
    for (more, kind, hint) in [
        ("user=new", ErrorKind::Denied, "host replication \"new\""),
        ("user=plain", ErrorKind::Denied, "ALTER ROLE \"plain\" REPLICATION"),
        ("port=1", ErrorKind::Unavailable, "PGPORT"),
        ("host=/nonexistent", ErrorKind::Unavailable, "PGHOST"),
    ] {
        let error = connect(&server, more, Mode::Replication).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(hint), "{more}: {error}");
    }
    let dsn = format!("host=127.0.0.1,127.0.0.1 port=1,{} user=postgres", server.port());
    Connection::connect(&options(&dsn), Mode::Replication).await.unwrap();
}

#[tokio::test]
async fn no_sender_left() {
    let server = Postgres::builder(15).setting("max_wal_senders", 1).start();
    let _first = replication(&server).await;
    let error = connect(&server, "", Mode::Replication).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("raise max_wal_senders"), "{error}");
}

/// Certificates for a server, and for a client.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority");
        write("root.crt", authority.self_signed(&authority_key).unwrap().pem());
        let issuer = Issuer::new(authority, authority_key);
        for (name, names, common) in [
            ("localhost", vec!["localhost".to_owned()], "elsewhere"),
            ("common", vec![], "localhost"),
            ("client", vec![], "new"),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, common);
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

/// Gives the server this certificate and switches TLS on.
fn secure(server: &Postgres, certificate: &Path, key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    server.write("server.crt", &std::fs::read_to_string(certificate).unwrap());
    server.write("server.key", &std::fs::read_to_string(key).unwrap());
    std::fs::set_permissions(server.data().join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    server.reconfigure("ssl", "on");
    server.wait_sql("SHOW ssl", "on", std::time::Duration::from_secs(10));
}

#[tokio::test]
async fn every_sslmode() {
    let certificates = Certificates::new();
    let server = guarded("host replication postgres 127.0.0.1/32 trust");
    let local = format!("host=localhost hostaddr=127.0.0.1 sslrootcert={}", certificates.path("root.crt"));
    let absent = format!("host=localhost hostaddr=127.0.0.1 sslrootcert={}", certificates.path("absent.crt"));
    let encrypted =
        async |dsn: String| connect(&server, &dsn, Mode::Replication).await.map(|connection| connection.is_encrypted());
    // A server without TLS.
    for (mode, expected) in
        [("disable", Some(false)), ("allow", Some(false)), ("prefer", Some(false)), ("require", None)]
    {
        let outcome = encrypted(format!("{local} sslmode={mode}")).await;
        assert_eq!(outcome.as_ref().ok(), expected.as_ref(), "{mode}: {outcome:?}");
    }
    secure(&server, certificates.path("localhost.crt").as_ref(), certificates.path("localhost.key").as_ref());
    for (dsn, expected) in [
        (format!("{local} sslmode=disable"), Ok(false)),
        (format!("{local} sslmode=allow"), Ok(false)),
        (format!("{local} sslmode=prefer"), Ok(true)),
        (format!("{local} sslmode=require"), Ok(true)),
        (format!("{local} sslmode=verify-ca"), Ok(true)),
        (format!("{local} sslmode=verify-full"), Ok(true)),
        (format!("{local} host=127.0.0.1 sslmode=verify-ca"), Ok(true)),
        (format!("{local} host=127.0.0.1 sslmode=verify-full"), Err(ErrorKind::Config)),
        (format!("{absent} sslmode=require"), Ok(true)),
        (format!("{absent} sslmode=verify-ca"), Err(ErrorKind::Config)),
        // An authority that did not sign it; `require` looks at it too, once a file is there.
        (format!("{local} sslmode=require sslrootcert={}", certificates.path("client.crt")), Err(ErrorKind::Config)),
        (format!("{local} sslmode=prefer sslrootcert={}", certificates.path("client.crt")), Ok(true)),
        // OpenSSL trusts a server that shows the trusted certificate itself.
        (format!("{local} sslmode=verify-full sslrootcert={}", certificates.path("localhost.crt")), Ok(true)),
    ] {
        let outcome = encrypted(dsn.clone()).await.map_err(|error| error.kind());
        assert_eq!(outcome, expected, "{dsn}");
    }
    // A name in the common name counts only where there is no other.
    secure(&server, certificates.path("common.crt").as_ref(), certificates.path("common.key").as_ref());
    assert!(encrypted(format!("{local} sslmode=verify-full")).await.unwrap());
    // On a Unix socket nothing is encrypted, whatever the mode.
    let socket = format!("host={} sslmode=verify-full", server.socket_directory().display());
    assert!(!encrypted(socket).await.unwrap());
}

#[tokio::test]
async fn rules_for_one_kind_of_connection() {
    let certificates = Certificates::new();
    let server = guarded("hostssl replication new 127.0.0.1/32 trust\nhostnossl replication old 127.0.0.1/32 trust");
    secure(&server, certificates.path("localhost.crt").as_ref(), certificates.path("localhost.key").as_ref());
    for (more, expected) in [
        ("user=new sslmode=allow", Some(true)),
        ("user=new sslmode=prefer", Some(true)),
        ("user=new sslmode=disable", None),
        ("user=old sslmode=allow", Some(false)),
        ("user=old sslmode=prefer", Some(false)),
        ("user=old sslmode=require", None),
    ] {
        let outcome = connect(&server, more, Mode::Replication).await.map(|connection| connection.is_encrypted());
        assert_eq!(outcome.as_ref().ok(), expected.as_ref(), "{more}: {outcome:?}");
    }
}

#[tokio::test]
async fn bound_to_the_channel() {
    use std::os::unix::fs::PermissionsExt;
    let certificates = Certificates::new();
    let server =
        guarded("hostssl replication new 127.0.0.1/32 scram-sha-256\nhostssl replication postgres 127.0.0.1/32 trust");
    secure(&server, certificates.path("localhost.crt").as_ref(), certificates.path("localhost.key").as_ref());
    for binding in ["disable", "prefer", "require"] {
        let more = format!("user=new password='hush new' sslmode=require channel_binding={binding}");
        connect(&server, &more, Mode::Replication).await.unwrap();
    }
    let trusted = connect(&server, "sslmode=require channel_binding=require", Mode::Replication).await;
    assert_eq!(trusted.unwrap_err().kind(), ErrorKind::Denied);
    // A client certificate instead of a password.
    server.write("root.crt", &std::fs::read_to_string(certificates.path("root.crt")).unwrap());
    server.write("pg_hba.conf", "local all all trust\nhostssl replication new 127.0.0.1/32 cert\n");
    server.reconfigure("ssl_ca_file", "root.crt");
    server.wait_sql("SHOW ssl_ca_file", "root.crt", std::time::Duration::from_secs(10));
    let key = certificates.path("client.key");
    let more = format!("user=new sslmode=require sslcert={} sslkey={key}", certificates.path("client.crt"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = connect(&server, &more, Mode::Replication).await.unwrap_err();
    assert!(open.to_string().contains("open to others"), "{open}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    connect(&server, &more, Mode::Replication).await.unwrap();
}

/// The recipe of Postgres' own manual makes a certificate of version 1, which rustls alone refuses.
#[tokio::test]
async fn certificates_of_version_1() {
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        command.current_dir(directory.path()).args(arguments.split(' ')).output()
    };
    if openssl("version").is_err() {
        return skipped("certificates of version 1", "there is no openssl");
    }
    for arguments in [
        "req -new -x509 -nodes -days 9 -subj /CN=authority -keyout root.key -out root.crt",
        "req -new -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -days 9 -CA root.crt -CAkey root.key -CAcreateserial -out server.crt",
        "req -new -x509 -nodes -days 9 -subj /CN=localhost -keyout self.key -out self.crt",
    ] {
        let output = openssl(arguments).unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let server = guarded("hostssl replication new 127.0.0.1/32 scram-sha-256");
    let file = |name: &str| directory.path().join(name);
    for name in ["server", "self"] {
        secure(&server, &file(&format!("{name}.crt")), &file(&format!("{name}.key")));
        let root = file(if name == "self" { "self.crt" } else { "root.crt" });
        let common = "host=localhost hostaddr=127.0.0.1 user=new password='hush new' channel_binding=require";
        for limit in ["", "TLSv1.2"] {
            server.reconfigure("ssl_max_protocol_version", limit);
            server.wait_sql("SHOW ssl_max_protocol_version", limit, std::time::Duration::from_secs(10));
            for mode in ["require", "verify-ca", "verify-full"] {
                let more = format!("{common} sslmode={mode} sslrootcert={}", root.display());
                connect(&server, &more, Mode::Replication)
                    .await
                    .unwrap_or_else(|e| panic!("{name} {limit} {mode}: {e}"));
            }
        }
        let other = file(if name == "self" { "root.crt" } else { "self.crt" });
        let more = format!("{common} sslmode=verify-ca sslrootcert={}", other.display());
        assert_eq!(connect(&server, &more, Mode::Replication).await.unwrap_err().kind(), ErrorKind::Config);
    }
}

/// Streams whole segments and holds them against the server's own files.
#[tokio::test]
async fn wal_as_it_streams() {
    for major in postgres_majors() {
        let server = Postgres::builder(major).setting("wal_keep_size", "100MB").start();
        server.psql("CREATE TABLE t AS SELECT generate_series(1, 50000)").unwrap();
        let size = SegmentSize::new(1 << 20).unwrap();
        let first: SegmentName = server.switch_wal().parse().unwrap();
        server.psql("CREATE TABLE u AS SELECT generate_series(1, 50000)").unwrap();
        let last: SegmentName = server.switch_wal().parse().unwrap();
        let (start, end) = (first.start(size).unwrap(), last.next(size).unwrap().start(size).unwrap());
        let mut connection = replication(&server).await;
        let mut stream = connection.start_replication(start, TimelineId::FIRST).await.unwrap();
        let mut wal = Vec::new();
        while Lsn(start.0 + wal.len() as u64) < end {
            wal.extend_from_slice(&stream.next().await.unwrap().unwrap().bytes);
        }
        stream.confirm(end).await.unwrap();
        stream.finish().await.unwrap();
        let mut name = first;
        for segment in wal.chunks_exact(1 << 20) {
            let file = std::fs::read(server.data().join("pg_wal").join(name.to_string())).unwrap();
            assert!(file == segment, "{name}");
            name = name.next(size).unwrap();
        }
        // Usable afterwards; and WAL that is gone is told apart.
        connection.identify_system().await.unwrap();
        let mut gone = connection.start_replication(Lsn(0), TimelineId::FIRST).await.unwrap();
        let error = gone.next().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

#[tokio::test]
async fn the_end_of_a_timeline() {
    let primary = Postgres::builder(15).start();
    let standby = Postgres::builder(15)
        .setting("primary_conninfo", primary.dsn())
        .signal_file("standby.signal")
        .clone_of(&primary, true);
    standby.start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
    let position = primary.psql("SELECT pg_current_wal_lsn()").unwrap();
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    standby.wait_sql(&caught_up, "t", std::time::Duration::from_secs(30));
    let start = Lsn(position.parse::<Lsn>().unwrap().0 & !((1 << 20) - 1));
    // While it streams, its timeline ends.
    let mut connection = replication(&standby).await;
    let mut stream = connection.start_replication(start, TimelineId::FIRST).await.unwrap();
    stream.next().await.unwrap().unwrap();
    primary.stop(Stop::Immediate).unwrap();
    standby.order_promotion();
    while stream.next().await.unwrap().is_some() {}
    let Some(StreamEnd::NextTimeline { timeline, start: switch }) = stream.end().cloned() else { panic!("{stream:?}") };
    assert_eq!(timeline.get(), 2);
    stream.finish().await.unwrap();
    let history = connection.timeline_history(timeline).await.unwrap();
    assert!(String::from_utf8_lossy(&history).contains(&format!("1\t{switch}")), "{history:?}");
    // A start behind the end of a timeline gives no WAL, only where it goes on.
    let mut stream = connection.start_replication(switch, TimelineId::FIRST).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.end(), Some(&StreamEnd::NextTimeline { timeline, start: switch }));
}
