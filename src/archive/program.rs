//! What `walhalla-archive` and `walhalla-restore` share: they end in time, whatever hangs or breaks inside them, and they say
//! at most one line about it.
//!
//! The work runs on a thread of its own; the main thread only waits for it, on a *leash*. So neither a read that hangs in the
//! kernel, nor a computation that does not end, nor a panic can keep the program from answering Postgres. No signal is handled:
//! a program that Postgres ends by a signal must look like one.

use crate::error::{Error, ErrorKind};
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far behind its deadline a program is given up, in case that the work does not end by itself. Below the second that a
/// program may be late.
const GRACE: Duration = Duration::from_millis(700);

/// Until when the main thread waits for the work. The work moves it. Clones share.
#[derive(Debug, Clone)]
pub struct Leash(Arc<Mutex<Instant>>);

impl Leash {
    fn until(deadline: Instant) -> Self {
        Self(Arc::new(Mutex::new(deadline)))
    }

    /// The work shall have ended by then.
    pub fn set(&self, deadline: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn end(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + GRACE
    }
}

/// How supervised work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended<T> {
    /// With this result.
    Done(T),
    /// By a panic; the hook has printed it.
    Panicked,
    /// Not at all, within its time.
    Overdue,
    /// It could not begin: the system gave it no thread or no runtime. The text is the system's reason.
    Unable(String),
}

/// How work begins.
#[derive(Debug)]
pub enum Begun<T, F> {
    /// It has ended already, with this result: nothing that waits was needed.
    Done(T),
    /// It goes on in a runtime.
    GoesOn(F),
}

/// Runs `work` on its own thread, in a current-thread runtime, until it ends or its leash does. It starts with `first` from now.
pub fn supervise<T, F>(first: Duration, work: impl FnOnce(Leash) -> F + Send + 'static) -> Ended<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    supervise_from(first, move |leash| Begun::GoesOn(work(leash)))
}

/// The same for work that may end before it needs a runtime, which costs more than a look at a few files.
pub fn supervise_from<T, F>(first: Duration, begin: impl FnOnce(Leash) -> Begun<T, F> + Send + 'static) -> Ended<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let leash = Leash::until(Instant::now() + first);
    let (sender, receiver) = mpsc::sync_channel(1);
    let theirs = leash.clone();
    let spawned = std::thread::Builder::new().name("work".to_owned()).spawn(move || {
        let work = match begin(theirs) {
            // The receiver may have gone: then nobody waits for the result any more.
            Begun::Done(result) => return drop(sender.send(Ended::Done(result))),
            Begun::GoesOn(work) => work,
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(cause) => return drop(sender.send(Ended::Unable(cause.to_string()))),
        };
        let result = runtime.block_on(work);
        drop(sender.send(Ended::Done(result)));
        // A blocking task may hang for ever; nobody waits for it.
        runtime.shutdown_background();
    });
    if let Err(cause) = spawned {
        return Ended::Unable(cause.to_string());
    }
    loop {
        let left = leash.end().saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(Duration::from_millis(250))) {
            Ok(ended) => return ended,
            Err(RecvTimeoutError::Disconnected) => return Ended::Panicked,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ended::Overdue,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// What a program says that could not begin: the machine is short of something, and the next call may find it.
pub fn unable(cause: &str) -> Error {
    Error::new(ErrorKind::LocalIo, "cannot start the work")
        .because(cause)
        .hint("the system gives this user no further thread or file descriptor: look at its limits (ulimit)")
}

/// From now on a panic prints one line, which asks to be reported, and no backtrace.
pub fn one_line_panics(program: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.payload().downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
        say(program, &format!("internal error: {}{place}; this is a bug, please report it", text.replace('\n', " ")));
    }));
}

/// Prints one line to stderr, which is the server's log. If that cannot be written, there is nobody left to tell.
pub fn say(program: &str, line: &str) {
    let line = format!("{program}: {line}\n");
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

/// What `--version` prints.
pub fn version(program: &str) -> String {
    format!("{program} (Walhalla) {}\n", env!("CARGO_PKG_VERSION"))
}

/// Prints text that was asked for (`--help`, `--version`) to stdout.
pub fn show(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_ends_is_done() {
        assert_eq!(supervise(Duration::from_secs(10), |_| async { 7 }), Ended::Done(7));
    }

    #[test]
    fn work_may_end_before_it_has_a_runtime() {
        let ended = supervise_from(Duration::from_secs(10), |_| {
            assert!(tokio::runtime::Handle::try_current().is_err());
            if true { Begun::Done(7) } else { Begun::GoesOn(std::future::ready(8)) }
        });
        assert_eq!(ended, Ended::Done(7));
        let ended = supervise_from(Duration::from_millis(100), |_| {
            std::thread::sleep(Duration::from_secs(30));
            if true { Begun::Done(7) } else { Begun::GoesOn(std::future::ready(8)) }
        });
        assert_eq!(ended, Ended::Overdue, "it is on the leash from its beginning");
    }

    #[test]
    fn a_panic_is_told_from_a_result() {
        let ended = supervise(Duration::from_secs(10), |_| async {
            if true {
                panic!("on purpose")
            }
        });
        assert_eq!(ended, Ended::Panicked);
    }

    #[test]
    fn work_that_blocks_its_thread_is_given_up_within_a_second_of_its_deadline() {
        let begun = Instant::now();
        let ended = supervise(Duration::from_millis(100), |_| async { std::thread::sleep(Duration::from_secs(30)) });
        assert_eq!(ended, Ended::Overdue);
        assert!(begun.elapsed() >= Duration::from_millis(100) && begun.elapsed() < Duration::from_millis(1100));
    }

    #[test]
    fn work_that_leaves_a_hanging_task_behind_ends_at_once() {
        let begun = Instant::now();
        let ended = supervise(Duration::from_secs(20), |_| async {
            drop(tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(15))));
            1
        });
        assert_eq!(ended, Ended::Done(1));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn the_leash_is_moved_by_the_work() {
        let begun = Instant::now();
        let ended = supervise(Duration::from_secs(3600), |leash| async move {
            leash.set(Instant::now());
            std::future::pending::<()>().await;
        });
        assert_eq!(ended, Ended::Overdue);
        assert!(begun.elapsed() < Duration::from_millis(1500));
    }
}
