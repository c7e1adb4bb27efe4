//! The process beside replay: what it holds, and when it ends.

use super::startup::{
    SOON, Startup, ahead, content, folders, helpers, kill, named, postmaster, stock, stocked, times_asked, wait_gone,
};
use crate::archive::bench::SEGMENT;
use crate::support::wait_until;
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Within which it ends when its server has.
const PROMPT: Duration = Duration::from_secs(2);

fn proc_of(pid: Pid, what: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(what)
}

/// What it has open, as links.
fn open_files(pid: Pid) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir(proc_of(pid, "fd")).unwrap().flatten();
    let link = |path: PathBuf| std::fs::read_link(path).map(|to| to.display().to_string()).unwrap_or_default();
    entries.map(|entry| (entry.file_name().to_str().unwrap().parse().unwrap(), link(entry.path()))).collect()
}

/// Its session, its group and its parent (`proc_pid_stat(5)`).
fn belongs_to(pid: Pid) -> [i32; 3] {
    let stat = std::fs::read_to_string(proc_of(pid, "stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [3, 2, 1].map(|at| fields[at].parse().unwrap())
}

#[test]
fn it_holds_nothing_of_its_caller() {
    let (_s3, bench) = stocked(80);
    let mut startup = Startup::with(&bench, "helper", "exec 7<global/pg_control 8<pg_wal 9>held");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    startup.wait_ahead(&named(1, 3));
    let data = bench.data().canonicalize().unwrap().display().to_string();
    for (number, link) in open_files(helper) {
        let fits = match number {
            0..=2 => link == "/dev/null",
            _ => !link.starts_with(&data) && !link.starts_with("pipe:"),
        };
        assert!(fits, "{number} is {link}");
    }
    assert_eq!(std::fs::read_link(proc_of(helper, "cwd")).unwrap(), Path::new("/"));
    let own = helper.as_raw_nonzero().get();
    let [session, group, parent] = belongs_to(helper);
    assert_eq!([session, group], [own, own]);
    // Whoever adopts orphans: not a process of the call, nor a zombie of it.
    assert_ne!(parent, std::process::id() as i32);
    assert_eq!(std::fs::read_to_string(proc_of(helper, "comm")).unwrap(), "walhalla-ahead\n");
    // What the call had open is free again.
    startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
    assert_eq!(helpers(&bench), [helper], "there is one, and it stays");
}

#[test]
fn it_ends_with_its_server() {
    type End = fn(&Startup<'_>, &crate::archive::bench::Bench);
    let ends: [(&str, End); 3] = [
        ("its pid file is gone", |_, bench| std::fs::remove_file(bench.data().join("postmaster.pid")).unwrap()),
        ("another server is there", |_, bench| bench.write("postmaster.pid", postmaster(1, "standby"))),
        ("it is stopping", |_, bench| bench.write("postmaster.pid", postmaster(std::process::id(), "stopping"))),
    ];
    for (why, end) in ends {
        let (_s3, bench) = stocked(80);
        let mut startup = Startup::of(&bench, "helper");
        startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
        let helper = startup.helper();
        startup.wait_ahead(&named(1, 2));
        end(&startup, &bench);
        wait_gone(helper, PROMPT);
        assert!(folders(&bench).is_empty(), "{why}: it clears up");
    }
    // The startup process itself.
    let (_s3, bench) = stocked(80);
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    drop(startup);
    wait_gone(helper, PROMPT);
    assert!(folders(&bench).is_empty());
}

#[test]
fn it_ends_when_asked_to_and_another_takes_over() {
    let (_s3, bench) = stocked(80);
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    for (number, signal) in
        [(2, Signal::TERM), (3, Signal::HUP), (4, Signal::INT), (5, Signal::QUIT), (6, Signal::KILL)]
    {
        let helper = startup.helper();
        startup.wait_ahead(&named(1, number));
        kill(helper, signal);
        wait_gone(helper, PROMPT);
        startup.expect(&named(1, number), &content(1, number, SEGMENT));
    }
}

/// Nothing is taken any more: it ends by itself, and leaves what lies ahead to the next. Replay that is slow, or waits, outlives many.
#[test]
fn it_ends_when_nobody_asks_and_nothing_is_fetched_again() {
    let (s3, bench) = stocked(5);
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    startup.wait_ahead(&named(1, 5));
    // As a call takes it, which may say so only later.
    std::fs::remove_file(&ahead(&bench)[3].1).unwrap();
    wait_gone(helper, SOON);
    let names = |numbers: std::ops::RangeInclusive<u64>| numbers.map(|number| named(1, number)).collect::<Vec<_>>();
    let held = || ahead(&bench).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(held(), names(2..=4));
    // Not for ever.
    stock(&s3, &bench, 1, [6]);
    startup.expect(&named(1, 2), &content(1, 2, SEGMENT));
    startup.wait_ahead(&named(1, 6));
    assert_eq!(held(), names(3..=6));
    for (number, times) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2)] {
        assert_eq!(times_asked(&s3, &named(1, number)), times, "{number}");
    }
}

/// A call that gives up waiting withdraws what was announced, and fetches its file itself.
#[test]
fn what_is_withdrawn_is_not_fetched_any_further() {
    let (s3, bench) = stocked(80);
    let second = named(1, 2);
    let (key, ended) = (bench.key(&second), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let goes_on = ended.clone();
    s3.before(move |request| {
        if request.key == key {
            let has_ended = || goes_on.load(std::sync::atomic::Ordering::SeqCst);
            // A hook of the false S3, which is not ours to make asynchronous.
            #[allow(clippy::disallowed_methods)]
            tokio::task::block_in_place(|| wait_until("the test has ended", SOON, has_ended));
        }
    });
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let mut coming = Vec::new();
    wait_until("it is announced, and asked for", SOON, || {
        let files = folders(&bench).into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        coming =
            files.map(|file| file.unwrap().path()).filter(|path| path.extension() == Some("coming".as_ref())).collect();
        coming.len() == 1 && times_asked(&s3, &second) == 1
    });
    std::fs::remove_file(&coming[0]).unwrap();
    // The others come, one of which was begun in its place.
    startup.wait_ahead(&named(1, 4));
    assert_eq!(times_asked(&s3, &second), 1);
    assert!(!coming[0].exists() && !ahead(&bench).iter().any(|(name, _)| *name == second));
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
    startup.expect(&second, &content(1, 2, SEGMENT));
}

/// Also while it waits for a history.
#[test]
fn it_ends_with_its_server_while_the_storage_does_not_answer() {
    let (s3, bench) = stocked(8);
    stock(&s3, &bench, 2, 3..=8);
    bench.write("pg_wal/00000002.history", "1\t0/300028\tone\n");
    bench.archive(&["pg_wal/00000002.history"]).expect_silent_success();
    std::fs::remove_file(bench.data().join("pg_wal/00000002.history")).unwrap();
    let mut startup = Startup::of(&bench, "helper");
    assert_eq!(startup.call("00000002.history"), 0);
    let (asked, ended) = [(); 2].map(|()| std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false))).into();
    let (is_asked, goes_on) = (asked.clone(), ended.clone());
    s3.before(move |request| {
        if request.key.contains("00000002.history") {
            is_asked.store(true, std::sync::atomic::Ordering::SeqCst);
            let has_ended = || goes_on.load(std::sync::atomic::Ordering::SeqCst);
            // A hook of the false S3, which is not ours to make asynchronous.
            #[allow(clippy::disallowed_methods)]
            tokio::task::block_in_place(|| wait_until("the test has ended", SOON, has_ended));
        }
    });
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    wait_until("it asks", SOON, || asked.load(std::sync::atomic::Ordering::SeqCst));
    std::fs::remove_file(bench.data().join("postmaster.pid")).unwrap();
    wait_gone(helper, PROMPT);
    assert!(folders(&bench).is_empty());
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
}

/// The lock lets only one live, also of many that begin at once.
#[test]
fn one_at_a_time() {
    let (_s3, bench) = stocked(80);
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    let words = std::fs::read_to_string(proc_of(helper, "cmdline")).unwrap();
    let words: Vec<_> = words.split('\0').skip(1).filter(|word| !word.is_empty()).collect();
    let start = || {
        let mut command = std::process::Command::new(crate::support::binaries::walhalla_restore());
        crate::support::user::clean_environment(&mut command);
        command.args(&words).envs(bench.environment()).env("WALHALLA_PREFETCH", "helper").spawn().unwrap()
    };
    for mut other in [(); 4].map(|()| start()) {
        assert!(other.wait().unwrap().success());
    }
    assert_eq!(helpers(&bench), [helper]);
}

/// Whatever it is given, it says nothing and its status is 0.
#[test]
fn always_with_status_zero() {
    let program = crate::support::binaries::walhalla_restore();
    for words in
        [&["--prefetch-for"][..], &["--prefetch-for", "/", "1", "1 1"], &["--prefetch-for", "a", "b", "c", "d"]]
    {
        let output = crate::support::binaries::run::<&str>(&program, words, &[], Path::new("/"));
        assert_eq!((output.status, output.stdout.as_str(), output.stderr.as_str()), (Some(0), "", ""), "{words:?}");
    }
}

/// A call waits for what a helper is fetching, and does not fetch it twice; nor does it depend on the helper.
#[test]
fn a_call_waits_for_a_file_that_is_coming_but_not_for_a_helper_that_is_gone() {
    let (s3, bench) = stocked(80);
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "60s");
    let second = named(1, 2);
    let of_helper = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let slow = of_helper.clone();
    let key = bench.key(&second);
    s3.before(move |request| {
        if request.key == key && slow.swap(false, std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(700));
        }
    });
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    wait_until("the helper asks", SOON, || times_asked(&s3, &second) == 1);
    startup.expect(&second, &content(1, 2, SEGMENT));
    assert_eq!(times_asked(&s3, &second), 1);
    // Stopped in the middle, it is not waited for longer than a file may take.
    startup.wait_ahead(&named(1, 3));
    kill(helper, Signal::STOP);
    for number in 3..=70 {
        startup.expect(&named(1, number), &content(1, number, SEGMENT));
    }
    kill(helper, Signal::CONT);
}

/// One that gets on with a file is waited for, however long; one that does not is told that nobody waits any more.
#[test]
fn a_call_waits_for_progress() {
    let (s3, bench) = stocked(80);
    let bench = bench.with("WALHALLA_RESTORE_TIMEOUT", "120s");
    let second = named(1, 2);
    let key = bench.key(&second);
    let hangs = std::sync::atomic::AtomicBool::new(true);
    s3.before(move |request| {
        if request.key == key && hangs.swap(false, std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(SOON);
        }
    });
    let mut startup = Startup::of(&bench, "helper");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    let helper = startup.helper();
    let coming = |name: &str| {
        let files = folders(&bench).into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let mut paths = files.map(|entry| entry.unwrap().path());
        paths.find(|path| path.display().to_string().ends_with(".coming") && path.display().to_string().contains(name))
    };
    wait_until("the helper asks", SOON, || super::startup::times_asked(&s3, &second) == 1);
    kill(helper, Signal::STOP);
    // In its place: progress for longer than a call waits without, and then the file.
    let announced = coming(&second).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..40 {
                std::thread::sleep(Duration::from_millis(100));
                let now = std::time::SystemTime::now();
                std::fs::File::options().write(true).open(&announced).unwrap().set_modified(now).unwrap();
            }
            let beside = announced.with_extension("written");
            std::fs::write(&beside, content(1, 2, SEGMENT)).unwrap();
            #[allow(clippy::disallowed_methods)]
            std::fs::rename(beside, announced.with_extension("")).unwrap();
            std::fs::remove_file(&announced).unwrap();
        });
        startup.expect(&second, &content(1, 2, SEGMENT));
    });
    assert_eq!(super::startup::times_asked(&s3, &second), 1);
    // No progress.
    std::fs::write(&announced, "").unwrap();
    startup.expect(&second, &content(1, 2, SEGMENT));
    assert_eq!(coming(&second), None);
    kill(helper, Signal::KILL);
}

/// Its directory is another one: it gets the file of the settings by an absolute path.
#[test]
fn it_reads_the_settings_that_its_caller_read() {
    let (_s3, bench) = stocked(8);
    bench.write("settings.toml", "");
    let mut startup = Startup::with(&bench, "helper", "export WALHALLA_CONFIG=settings.toml");
    startup.expect(&named(1, 1), &content(1, 1, SEGMENT));
    startup.wait_ahead(&named(1, 2));
}
