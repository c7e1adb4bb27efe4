//! Nothing hangs: every stage of a call is bounded (name, connection, TLS, first byte, silence, the whole), so a stopping server
//! is let go, a `DROP DATABASE` is not held up for long, and an outage is over when it is over.
//!
//! The one place where tests measure time against a limit. A loaded machine is late now and then; a program that does not keep
//! its limit is late each time.

use super::bench::{Answer, Bench, segment_name};
use super::site::{LONG, Site, add_row};
use crate::support::fake_s3::FakeS3;
use crate::support::postgres::{Postgres, Stop, postgres_majors};
use crate::support::proxy::{Break, Plan, Proxy};
use crate::support::{long_run, skipped, user, wait_until};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const S: Duration = Duration::from_secs(1);
/// The limit that the calls here are given, and what they may be late.
const LIMIT: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(1);

/// The bench with these limits for its calls.
fn limited(bench: Bench) -> Bench {
    bench.write("recovery.signal", "");
    bench.with("WALHALLA_ARCHIVE_TIMEOUT", "2s").with("WALHALLA_RESTORE_TIMEOUT", "2s")
}

/// Fails as trouble with the storage, `within` this time, at the third try at last.
fn fails_in_time(what: &str, within: Duration, statuses: std::ops::RangeInclusive<i32>, call: impl Fn() -> Answer) {
    for attempt in 1.. {
        let answer = call();
        assert!(statuses.contains(&answer.status), "{what}: {answer:?}");
        assert_eq!(answer.stderr.lines().count(), 1, "{what}: {answer:?}");
        if answer.took <= within {
            return;
        }
        assert!(attempt < 3, "{what}: not within {within:?}: {answer:?}");
    }
}

/// Both programs, behind a peer that does this.
fn both_fail_in_time(what: &str, bench: &Bench) {
    let path = bench.wal(9);
    fails_in_time(&format!("archive, {what}"), LIMIT + LATE, 75..=75, || bench.archive(&[&path]));
    // A call whose bytes flow may use a second more for each MiB.
    let whole = LIMIT + LATE + S;
    fails_in_time(&format!("restore, {what}"), whole, 200..=255, || bench.fetch(&segment_name(1)));
}

fn trickle(bytes: usize) -> Break {
    Break::Trickle { bytes, pause: Duration::from_millis(200) }
}

#[test]
fn whatever_the_peer_does() {
    let (s3, _) = Bench::stocked();
    let proxy = Proxy::to(s3.port());
    let bench = limited(Bench::bare().at(&proxy.endpoint()));
    for (what, plan) in [
        ("accepted and never answered", Plan::silence()),
        ("nothing taken after some bytes", Plan::up(Break::Stall, 300)),
        ("the answer never ends", Plan::down(Break::Stall, 40)),
        ("taken by the drop", Plan::up(trickle(20), 100)),
        ("answered by the drop", Plan::down(trickle(1), 10)),
    ] {
        proxy.always(plan);
        both_fail_in_time(what, &bench);
    }
}

#[test]
fn whatever_the_peer_does_before_tls_is_there() {
    let s3 = FakeS3::start_https();
    let proxy = Proxy::to(s3.port());
    let endpoint = format!("https://127.0.0.1:{}", proxy.port());
    let bench = limited(Bench::bare().at(&endpoint).with("WALHALLA_S3_CA_FILE", s3.ca_file().display()));
    for (what, plan) in [
        ("no word of TLS", Plan::silence()),
        ("half a handshake", Plan::down(Break::Stall, 60)),
        ("a handshake by the drop", Plan::down(trickle(1), 0)),
    ] {
        proxy.always(plan);
        both_fail_in_time(what, &bench);
    }
}

/// Whether a network of one's own can be had here, and Python for a peer in it.
fn can_have_networks(what: &str) -> bool {
    let mut probe = Command::new("unshare");
    let script = "ip link set lo up && mount --bind /dev/null /etc/resolv.conf && python3 -c ''";
    probe.args(["-n", "-m", "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    let can = user::is_root() && probe.status().is_ok_and(|status| status.success());
    if !can {
        skipped(what, "needs root, network namespaces, ip and python3");
    }
    can
}

/// Both programs in a network of their own, which this script has prepared. 10.9.9.0/24 swallows whatever is sent there.
fn both_fail_in_time_in_a_network(what: &str, bench: &Bench, prepare: &str) {
    let path = bench.wal(9);
    let inside = |call: &str| {
        // The last command's status counts; what was started beside it ends with it.
        let script = format!(
            "ip link set lo up; ip route add 10.9.9.0/24 dev lo\n{prepare}\n{call}\nstatus=$?; kill $! 2>/dev/null; exit $status"
        );
        bench.shell(&format!("exec unshare -n -m sh -c '{script}'"))
    };
    // To make the network costs some time, too.
    let making = S;
    let archive = format!("walhalla-archive {path}");
    fails_in_time(&format!("archive, {what}"), LIMIT + LATE + making, 75..=75, || inside(&archive));
    let restore = format!("walhalla-restore {} pg_wal/RECOVERYXLOG", segment_name(1));
    fails_in_time(&format!("restore, {what}"), LIMIT + LATE + making, 200..=255, || inside(&restore));
}

#[test]
fn an_address_that_swallows_everything() {
    if can_have_networks("an address that swallows everything") {
        let bench = limited(Bench::bare().at("http://10.9.9.2:9000"));
        both_fail_in_time_in_a_network("no connection", &bench, "");
    }
}

#[test]
fn a_resolver_that_never_answers() {
    if can_have_networks("a resolver that never answers") {
        let bench = limited(Bench::bare().at("http://store.example.com:9000"));
        let resolver = bench.data().join("resolv.conf");
        std::fs::write(&resolver, "nameserver 10.9.9.2\n").unwrap();
        let prepare = format!("mount --bind {} /etc/resolv.conf", resolver.display());
        both_fail_in_time_in_a_network("no name", &bench, &prepare);
    }
}

/// The connection is there, and from then on every packet is lost.
#[test]
fn cut_off_by_a_firewall_after_connecting() {
    if can_have_networks("cut off by a firewall") {
        let bench = limited(Bench::bare().at("http://127.0.0.1:9000"));
        let peer = bench.data().join("peer.py");
        let text = "import os, socket, subprocess, time\n\
                    s = socket.create_server((\"127.0.0.1\", 9000))\n\
                    open(\"peer.up\", \"w\").close()\n\
                    c, _ = s.accept()\n\
                    c.recv(10)\n\
                    subprocess.run([\"ip\", \"link\", \"set\", \"lo\", \"down\"])\n\
                    time.sleep(60)\n";
        std::fs::write(&peer, text).unwrap();
        let prepare =
            format!("rm -f peer.up; python3 {} & while ! [ -e peer.up ]; do sleep 0.05; done", peer.display());
        both_fail_in_time_in_a_network("cut off", &bench, &prepare);
    }
}

/// A server with a backlog that the store does not take.
fn with_a_backlog(site: &Site, proxy: &Proxy, plan: Plan) -> Postgres {
    let server = site.server_at("primary", &proxy.endpoint()).segment_mb(4).start();
    server.psql("CREATE TABLE t (a int)").unwrap();
    add_row(&server, 1);
    proxy.always(plan);
    let before = proxy.connections();
    // As random as md5 makes it: what compresses well would fit into the buffers on its way, whatever the peer does.
    let noise = "SELECT pg_logical_emit_message(false, 'noise', string_agg(md5(random()::text), '')) IS NULL \
                 FROM generate_series(1, 125000)";
    for _ in 0..4 {
        server.psql(noise).unwrap();
        server.switch_wal();
    }
    wait_until("the archiver is at it", LONG, || proxy.connections() > before);
    server
}

#[test]
fn a_fast_stop_is_over_within_thirty_seconds_whatever_the_store_does() {
    for major in postgres_majors() {
        for (what, plan) in [
            ("silent", Some(Plan::silence())),
            ("unreachable", None),
            // Progress enough to be let go on: only the whole limits end it.
            ("takes slowly", Some(Plan::up(Break::Trickle { bytes: 16384, pause: Duration::from_millis(200) }, 100))),
        ] {
            let site = Site::new(major);
            let mut proxy = Proxy::to(site.s3.port());
            let server = with_a_backlog(&site, &proxy, plan.clone().unwrap_or_else(Plan::silence));
            if plan.is_none() {
                proxy.cut();
            }
            let begun = Instant::now();
            server.stop(Stop::Fast).unwrap();
            let took = begun.elapsed();
            assert!(took < 30 * S, "{major}, {what}: {took:?}\n{}", server.log());
        }
    }
}

/// From 15 on it waits until every process of the server has heard of it, the archiver too, and that hears nothing while it waits
/// for its command.
#[test]
fn dropping_a_database_waits_for_one_call_at_most() {
    for major in postgres_majors() {
        let site = Site::new(major);
        let proxy = Proxy::to(site.s3.port());
        let limit = 6 * S;
        let server = site.server_at("primary", &proxy.endpoint()).env("WALHALLA_ARCHIVE_TIMEOUT", "6s").start();
        server.psql("CREATE TABLE t (a int)").unwrap();
        add_row(&server, 1);
        for name in ["first", "second", "third"] {
            server.psql(&format!("CREATE DATABASE {name}")).unwrap();
        }
        proxy.always(Plan::silence());
        server.switch_wal();
        let mut waits = Vec::new();
        for name in ["first", "second", "third"] {
            let before = proxy.connections();
            wait_until("a call has begun", LONG, || proxy.connections() > before);
            let begun = Instant::now();
            server.psql(&format!("DROP DATABASE {name}")).unwrap();
            waits.push(begun.elapsed());
            server.switch_wal();
        }
        // The call, what it may be late, and the work itself; two calls would take twice as long.
        assert!(waits.iter().min().unwrap() < &(limit + 3 * S), "{major}: {waits:?}");
    }
}

/// The names with this ending in `archive_status`.
fn statuses(server: &Postgres, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.data().join("pg_wal/archive_status")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
}

/// A minute without the store, or ten: archiving goes on by itself, oldest first, by the same archiver process.
#[test]
fn after_an_outage_archiving_catches_up_by_itself() {
    let site = Site::new(15);
    let mut proxy = Proxy::to(site.s3.port());
    let server = site.server_at("primary", &proxy.endpoint()).setting("max_wal_size", "1GB").start();
    server.psql("CREATE TABLE t (a int)").unwrap();
    let mut segments = vec![add_row(&server, 0)];
    let archiver = || server.psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'").unwrap();
    let before = archiver();
    proxy.cut();
    let end = Instant::now() + if long_run() { 600 * S } else { 60 * S };
    while Instant::now() < end {
        segments.push(server.switch_wal());
        std::thread::sleep(2 * S);
    }
    assert_eq!(statuses(&server, ".done").iter().filter(|name| segments[1..].contains(name)).count(), 0);
    proxy.restore();
    segments.push(server.switch_wal());
    wait_until("everything is archived", 2 * LONG, || {
        let done: Vec<_> = statuses(&server, ".done").into_iter().filter(|name| name.len() == 24).collect();
        // Read after the others: what is due now was due then.
        let due = statuses(&server, ".ready");
        if let (Some(newest), Some(oldest)) = (done.iter().max(), due.iter().filter(|name| name.len() == 24).min()) {
            assert!(newest < oldest, "{newest} is done and {oldest} is due");
        }
        done.contains(segments.last().unwrap())
    });
    assert_eq!(archiver(), before, "the archiver was restarted:\n{}", server.log());
    for segment in &segments {
        site.key(segment);
    }
}
