//! The exit-code table of `walhalla-restore`, cell by cell, with the files by which a server shows what it is doing. What real
//! servers make of the answers is tested in `recovery`.

use super::bench::{Answer, Bench, SEGMENT, segment, segment_name};
use crate::support::fake_s3::{Answer as Says, FakeS3, Fault, Right};
use std::time::Duration;
use walhalla::codec::{self, Encoding, Kind, Recipients, Subject};
use walhalla::pg::{Lsn, SystemIdentifier};

/// The columns: what is there, and what was configured.
const COLUMNS: [(&str, &[&str], &str); 5] = [
    ("recovery", &["recovery.signal"], "off"),
    ("standby", &["standby.signal"], "off"),
    ("promotion", &["standby.signal", "promote"], "off"),
    ("promotion that needs the archive", &["standby.signal", "promote"], "on"),
    ("recovery is ending", &[], "off"),
];

const ONLY_PROOFS_FIND: [&str; 4] = ["gap", "another cluster", "newer version", "cannot prove"];

/// A store with segments 1 to 3 of a cluster, and the cluster in this column.
fn stocked(column: usize) -> (FakeS3, Bench) {
    let (s3, bench) = Bench::stocked();
    let (_, files, needs) = COLUMNS[column];
    for file in files {
        bench.write(file, "");
    }
    let bench = bench
        .with("WALHALLA_RESTORE_TIMEOUT", "1s")
        .with("WALHALLA_PROMOTE_TIMEOUT", "1s")
        .with("WALHALLA_PROMOTE_NEEDS_ARCHIVE", needs);
    (s3, bench)
}

/// One row in all columns, each on its own store: `trouble` makes it, `ask` asks.
#[track_caller]
fn row(statuses: [i32; 5], said: &str, trouble: impl Fn(&mut FakeS3, &Bench) + Sync, name: &str) {
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..COLUMNS.len())
            .map(|column| {
                let trouble = &trouble;
                scope.spawn(move || {
                    let (mut s3, bench) = stocked(column);
                    trouble(&mut s3, &bench);
                    let answer = bench.fetch(name);
                    let delivered = bench.pg_wal().iter().any(|file| file.starts_with("RECOVERY"));
                    assert_eq!(delivered, answer.status == 0, "{answer:?}");
                    assert!(!bench.pg_wal().iter().any(|file| file.starts_with('.')), "nothing temporary is left");
                    answer
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for ((answer, status), (column, ..)) in answers.iter().zip(statuses).zip(COLUMNS) {
        assert_eq!(answer.status, status, "{column}: {answer:?}");
        assert!(answer.stderr.lines().count() <= 1, "{column}: {answer:?}");
        assert!(answer.took < Duration::from_secs(4), "{column}: {answer:?}");
        // A standby asks every few seconds, and with one GET: what only the proof finds is worth a line every five minutes there.
        let may_be_silent = column == "standby" && answer.stderr.is_empty() && ONLY_PROOFS_FIND.contains(&said);
        assert!(may_be_silent || answer.stderr.contains(said), "{column}: {said:?} is not in {answer:?}");
    }
}

#[test]
fn delivered() {
    row([0; 5], "", |_, _| (), &segment_name(2));
}

#[test]
fn proven_absent() {
    row([1; 5], "", |_, _| (), &segment_name(4));
    row([1; 5], "", |_, _| (), "00000002.history");
}

#[test]
fn a_gap_that_stays() {
    row([206, 1, 1, 206, 1], "gap", |s3, bench| s3.remove(&bench.key(&segment_name(2))), &segment_name(2));
    // A history that is missing while its timeline is there.
    let other_timeline = |s3: &mut FakeS3, bench: &Bench| {
        bench.write("pg_wal/000000020000000000000004", segment(4));
        bench.archive(&["pg_wal/000000020000000000000004"]).expect_silent_success();
        s3.forget_requests();
    };
    row([206, 1, 1, 206, 1], "gap", other_timeline, "00000002.history");
}

#[test]
fn a_delete_marker_is_a_gap() {
    let deleted = |s3: &mut FakeS3, bench: &Bench| {
        s3.personality(|p| p.versioned = true);
        s3.remove(&bench.key(&segment_name(3)));
    };
    row([206, 1, 1, 206, 1], "gap", deleted, &segment_name(3));
}

#[test]
fn out_of_reach() {
    for name in [&segment_name(2), &segment_name(4), "00000002.history"] {
        row([202, 1, 1, 202, 1], "cannot fetch", |s3, _| s3.down(), name);
    }
}

#[test]
fn throttled_or_broken() {
    for says in [Says::slow_down, Says::internal_error, Says::bad_gateway, Says::captive_portal] {
        row([202, 1, 1, 202, 1], "cannot fetch", move |s3, _| s3.fault(Fault::new(says())), &segment_name(4));
    }
}

#[test]
fn refused() {
    let denied = |s3: &mut FakeS3, _: &Bench| s3.personality(|p| p.denied = vec![(Right::Get, String::new())]);
    row([201, 1, 1, 201, 1], "cannot fetch", denied, &segment_name(2));
    // Without the right to list, a missing key answers 403.
    let unlisted = |s3: &mut FakeS3, _: &Bench| s3.personality(|p| p.denied = vec![(Right::List, String::new())]);
    row([201, 1, 1, 201, 1], "cannot fetch", unlisted, &segment_name(4));
}

#[test]
fn damaged_or_foreign() {
    let empty = |s3: &mut FakeS3, bench: &Bench| s3.insert(&bench.key(&segment_name(2)), "");
    row([203, 1, 1, 203, 1], "the object is empty", empty, &segment_name(2));
    let bit = |s3: &mut FakeS3, bench: &Bench| {
        s3.damage(&bench.key(&segment_name(2)), |body| *body.last_mut().unwrap() ^= 1);
    };
    row([203, 1, 1, 203, 1], "damaged", bit, &segment_name(2));
    let cut = |s3: &mut FakeS3, bench: &Bench| s3.damage(&bench.key(&segment_name(2)), |body| body.truncate(200));
    row([203, 1, 1, 203, 1], "cannot fetch", cut, &segment_name(2));
    let swapped = |s3: &mut FakeS3, bench: &Bench| {
        let third = s3.object(&bench.key(&segment_name(3))).unwrap().body;
        s3.insert(&bench.key(&segment_name(2)), third);
    };
    row([204, 1, 1, 204, 1], "is not the file that its key says", swapped, &segment_name(2));
    // A history that would fill the volume.
    let oversize = |s3: &mut FakeS3, bench: &Bench| {
        let system_identifier = SystemIdentifier(bench.system());
        let subject = Subject { kind: Kind::Wal, system_identifier, timeline: 2, start: Lsn::INVALID };
        let encoding = Encoding { level: 1, recipients: Recipients::default() };
        let object = codec::encode_bytes(&vec![b'x'; (1 << 20) + 1], subject, &encoding).unwrap();
        s3.insert(&bench.key("00000002.history"), object.bytes);
    };
    row([204, 1, 1, 204, 1], "too long for 00000002.history", oversize, "00000002.history");
    // At the end of the archive: not "absent", but not proven.
    let identity = |s3: &mut FakeS3, bench: &Bench| {
        let text = format!(
            "{{\"format\":1,\"system_identifier\":\"{}\",\"postgres_major\":16,\"wal_segment_size\":{SEGMENT}}}\n",
            bench.system()
        );
        s3.insert(&format!("cluster/{}/cluster.json", bench.system()), text);
    };
    row([204, 1, 1, 204, 1], "another cluster", identity, &segment_name(4));
}

#[test]
fn not_proven() {
    let feature = |s3: &mut FakeS3, bench: &Bench| s3.insert(&format!("cluster/{}/feature/later", bench.system()), "");
    row([200, 1, 1, 200, 1], "newer version", feature, &segment_name(4));
    let no_identity = |s3: &mut FakeS3, bench: &Bench| s3.remove(&format!("cluster/{}/cluster.json", bench.system()));
    row([200, 1, 1, 200, 1], "cannot prove", no_identity, &segment_name(4));
    let no_bucket = |s3: &mut FakeS3, _: &Bench| s3.personality(|p| p.no_such_bucket = true);
    row([200, 1, 1, 200, 1], "NoSuchBucket", no_bucket, &segment_name(4));
}

/// What only looks like a copy in `pg_wal` changes nothing. (A valid one is tested with a real server, in `recovery`.)
#[test]
fn damaged_and_no_valid_copy_in_pg_wal() {
    let bit = |s3: &mut FakeS3, bench: &Bench| {
        bench.wal(2);
        s3.damage(&bench.key(&segment_name(2)), |body| *body.last_mut().unwrap() ^= 1);
    };
    row([203, 1, 1, 203, 1], "damaged", bit, &segment_name(2));
}

/// The call itself hangs, and the main thread answers for it: by what the call had learnt.
#[test]
fn overdue() {
    row(
        [202, 1, 1, 202, 1],
        "it is not done after the time allowed",
        |_, bench| bench.hang("global/pg_control"),
        &segment_name(2),
    );
}

/// A wrapper that makes `%p` absolute changes no column.
#[test]
fn an_absolute_path() {
    for (name, absent) in [(&segment_name(2), &segment_name(4)), (&segment_name(1), &"00000002.history".to_owned())] {
        for (column, status) in [202, 1, 1, 202, 1].into_iter().enumerate() {
            let (mut s3, bench) = stocked(column);
            bench.fetch_absolute(name).expect_silent_success();
            bench.fetch_absolute(absent).expect(1, &[]);
            s3.down();
            bench.fetch_absolute(name).expect(status, &["cannot fetch"]);
            bench.fetch_absolute(absent).expect(status, &["cannot fetch"]);
            // pg_rewind names the file as it is called.
            let path = bench.data().join("pg_wal").join(name).display().to_string();
            bench.restore(&[name, &path]).expect(202, &["cannot fetch"]);
        }
    }
}

/// An earlier call of a promotion met trouble: the history that decides the new timeline's number is not called absent then, whether
/// `promote` is gone, as Postgres removes it, or there again, because the operator ordered twice.
#[test]
fn a_history_in_a_promotion_that_met_trouble() {
    let ask = |again: &str| {
        let (mut s3, bench) = stocked(2);
        s3.down();
        let answer = bench.shell(&format!(
            "walhalla-restore {} pg_wal/RECOVERYXLOG; echo first $? >&2
             rm promote; {again}
             walhalla-restore 00000002.history pg_wal/RECOVERYHISTORY; echo second $? >&2
             walhalla-restore {} pg_wal/RECOVERYXLOG; echo third $? >&2",
            segment_name(4),
            segment_name(4),
        ));
        let said = &answer.stderr;
        assert!(
            said.contains("first 1\n") && said.contains("second 202\n") && said.contains("third 1\n"),
            "{answer:?}"
        );
        assert_eq!(said.matches("rather than use a timeline's number twice").count(), 1, "{answer:?}");
    };
    ask("");
    ask("touch promote");
}

/// Also where that earlier call was killed, or hung until the main thread answered for it; and the other startup process that
/// comes next has met no trouble.
#[test]
fn a_promotion_whose_call_broke_off() {
    let (mut s3, bench) = stocked(2);
    s3.down();
    let bench = bench.with("WALHALLA_PROMOTE_TIMEOUT", "20s");
    let segment = segment_name(4);
    let killed = format!("timeout -s KILL 1 walhalla-restore {segment} pg_wal/RECOVERYXLOG; rm promote");
    let history = "walhalla-restore 00000002.history pg_wal/RECOVERYHISTORY; echo status $? >&2";
    let answer = bench.shell(&format!("{killed}\n{history}"));
    assert!(answer.stderr.contains("status 202\n"), "{answer:?}");
    let answer = bench.shell(&format!("true\n{history}"));
    assert!(answer.stderr.contains("status 1\n"), "{answer:?}");

    let (mut s3, bench) = stocked(2);
    let control = std::fs::read(bench.data().join("global/pg_control")).unwrap();
    bench.hang("global/pg_control");
    bench.write("control", control);
    s3.down();
    let hung = format!("walhalla-restore {segment} pg_wal/RECOVERYXLOG; echo hung $? >&2; rm promote");
    let answer = bench.shell(&format!("{hung}\nrm global/pg_control; mv control global/pg_control\n{history}"));
    assert!(answer.stderr.contains("hung 1\n") && answer.stderr.contains("status 202\n"), "{answer:?}");
}

/// The number is not given away for one GET either: where the repository proves nothing, it may be another's.
#[test]
fn a_history_that_decides_is_proven_absent_in_full() {
    for (cluster_json, status) in [(true, 1), (false, 200)] {
        let (s3, bench) = stocked(2);
        let answer = bench.shell("walhalla-restore 00000002.history pg_wal/RECOVERYHISTORY; echo status $? >&2");
        assert!(answer.stderr.contains("status 1\n"), "{answer:?}");
        s3.personality(|p| p.denied = vec![(Right::Get, String::new())]);
        let heal = bench.data().join("heal");
        let script = format!(
            "walhalla-restore {} pg_wal/RECOVERYXLOG; echo first $? >&2; rm promote
             touch broken; while ! test -e heal; do sleep 0.05; done
             walhalla-restore 00000002.history pg_wal/RECOVERYHISTORY; echo second $? >&2",
            segment_name(4)
        );
        let answer = std::thread::scope(|scope| {
            let shell = scope.spawn(|| bench.shell(&script));
            crate::support::wait_until("the promotion is in trouble", Duration::from_secs(20), || {
                bench.data().join("broken").exists()
            });
            s3.personality(|p| p.denied.clear());
            if !cluster_json {
                s3.remove(&format!("cluster/{}/cluster.json", bench.system()));
            }
            std::fs::write(heal, "").unwrap();
            shell.join().unwrap()
        });
        assert!(answer.stderr.contains("first 1\n"), "{answer:?}");
        assert!(answer.stderr.contains(&format!("second {status}\n")), "{answer:?}");
    }
}

/// How it comes about, and what is said of it.
type Trouble<'a> = (&'a dyn Fn(&FakeS3, &Bench), &'a [&'a str]);

/// On a standby, for which every file of a wrong prefix is absent, a line says so each five minutes.
#[test]
fn a_standby_whose_repository_proves_nothing_says_so() {
    let identity = |bench: &Bench| format!("cluster/{}/cluster.json", bench.system());
    let none = |s3: &FakeS3, bench: &Bench| s3.remove(&identity(bench));
    let other = |s3: &FakeS3, bench: &Bench| {
        let system = bench.system();
        let text = format!(
            "{{\"format\":1,\"system_identifier\":\"{system}\",\"postgres_major\":16,\"wal_segment_size\":{SEGMENT}}}\n"
        );
        s3.insert(&identity(bench), text);
    };
    let feature = |s3: &FakeS3, bench: &Bench| s3.insert(&format!("cluster/{}/feature/later", bench.system()), "");
    let denied = |s3: &FakeS3, bench: &Bench| {
        let key = identity(bench);
        s3.personality(|p| p.denied = vec![(Right::Get, key)]);
    };
    let gap = |s3: &FakeS3, bench: &Bench| s3.insert(&bench.key(&segment_name(5)), "x");
    let nothing_proves = "000000010000000000000004 is answered as absent, which nothing proves: ";
    let troubles: [Trouble<'_>; 5] = [
        (&none, &[nothing_proves, "check bucket and prefix"]),
        (&other, &[nothing_proves, "another cluster"]),
        (&feature, &[nothing_proves, "newer version"]),
        (&denied, &[nothing_proves, "AccessDenied"]),
        (&gap, &["there is a gap in the archive", "000000010000000000000005 is there"]),
    ];
    for (trouble, said) in troubles {
        let (s3, bench) = stocked(1);
        trouble(&s3, &bench);
        let silent = || {
            let answer = bench.fetch(&segment_name(4));
            assert_eq!((answer.status, answer.stderr.as_str()), (1, ""), "{said:?}");
        };
        silent();
        silent();
        for _ in 0..2 {
            bench.pass_five_minutes();
            bench.fetch(&segment_name(4)).expect(1, said);
            silent();
        }
    }
}

/// Neither a thread nor a runtime: the column decides, and it is said.
#[test]
fn the_work_cannot_start() {
    for (column, status) in [205, 1, 1, 1, 1].into_iter().enumerate() {
        let (_s3, bench) = stocked(column);
        let answer = bench.with_few_files("walhalla-restore", &[&segment_name(2), "pg_wal/RECOVERYXLOG"]);
        answer.expect(status, &["cannot fetch", "cannot start", "ulimit"]);
    }
}

#[test]
fn wrong_settings_and_arguments() {
    for (column, (_, files, _)) in COLUMNS.iter().enumerate() {
        // The setting that says that a promotion needs the archive cannot be read either.
        let status = if column == 0 { 200 } else { 1 };
        let bench = Bench::on_directory().with("WALHALLA_PROMOTE_TIMEOUT", "1s").with("WALHALLA_STORAGE", "nonsense");
        bench.write("postmaster.pid", "1\n");
        for file in *files {
            bench.write(file, "");
        }
        if column != 2 && column != 3 {
            bench.fetch(&segment_name(1)).expect(status, &["WALHALLA_STORAGE"]);
        }
        bench.restore(&["pg_wal/RECOVERYXLOG"]).expect(status, &["wrong arguments", "restore_command = "]);
        bench.restore(&["nonsense", "pg_wal/RECOVERYXLOG"]).expect(status, &["wrong arguments", "nonsense"]);
    }
}

/// An outage that passes and comes back within one promotion: that the storage answered once gives no timeline's number away.
#[test]
fn a_promotion_whose_outage_comes_back() {
    let (s3, bench) = stocked(2);
    let deny = |on: bool| {
        s3.personality(|p| p.denied = if on { vec![(Right::Get, String::new())] } else { Vec::new() });
    };
    deny(true);
    let segment = segment_name(4);
    let wait = |step: u32| format!("touch at{step}; while ! test -e go{step}; do sleep 0.05; done");
    let script = format!(
        "walhalla-restore {segment} pg_wal/RECOVERYXLOG; echo first $? >&2
         {}
         walhalla-restore {segment} pg_wal/RECOVERYXLOG; echo second $? >&2
         rm promote; {}
         walhalla-restore 00000002.history pg_wal/RECOVERYHISTORY; echo third $? >&2",
        wait(1),
        wait(2)
    );
    let answer = std::thread::scope(|scope| {
        let shell = scope.spawn(|| bench.shell(&script));
        for (step, denied) in [(1, false), (2, true)] {
            let place = bench.data().join(format!("at{step}"));
            crate::support::wait_until("the script comes there", Duration::from_secs(60), || place.exists());
            deny(denied);
            std::fs::write(bench.data().join(format!("go{step}")), "").unwrap();
        }
        shell.join().unwrap()
    });
    for said in ["first 1\n", "second 1\n", "third 201\n"] {
        assert!(answer.stderr.contains(said), "{said:?} is not in {answer:?}");
    }
}
