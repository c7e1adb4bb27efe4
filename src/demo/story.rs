//! The story, told step by step.

use super::DemoOptions;
use super::server::{Stage, account, find_binaries};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait for the archiver before the story is given up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn tell(options: &DemoOptions, say: &mut dyn FnMut(&str)) -> Result<()> {
    let began = Instant::now();
    let directory = tempfile::Builder::new()
        .prefix("walhalla-demo-")
        .tempdir()
        .map_err(|error| Error::local("create", Path::new("a temporary directory"), error))?;
    let stage = set_the_stage(directory.path(), options)?;
    say(&format!("Everything happens in {} and is gone at the end.", directory.path().display()));
    let told = Story { stage: &stage, say }.tell();
    if options.keep {
        say(&format!("Kept: {}", directory.keep().display()));
    }
    told?;
    say(&format!("\nAll of it took {:.1} s.", began.elapsed().as_secs_f64()));
    Ok(())
}

fn set_the_stage(directory: &Path, options: &DemoOptions) -> Result<Stage> {
    let mut stage = Stage {
        directory: directory.to_owned(),
        binaries: find_binaries(options.bin_directory.as_deref())?,
        account: account()?,
        environment: Vec::new(),
        interrupted: Arc::clone(&options.interrupted),
    };
    stage.hand_over(directory)?;
    let programs = directory.join("bin");
    let config = directory.join("walhalla.toml");
    for made in ["bin", "repository", "spool"] {
        let path = directory.join(made);
        std::fs::create_dir(&path).map_err(|error| Error::local("create", &path, error))?;
        allow(&path, 0o700)?;
        stage.hand_over(&path)?;
    }
    copy_programs(&programs)?;
    for program in PROGRAMS {
        stage.hand_over(&programs.join(program))?;
    }
    let text = format!("storage = \"file://{0}/repository\"\nspool = \"{0}/spool\"\n", directory.display());
    durable::write(&config, text.as_bytes(), 0o600)?;
    stage.hand_over(&config)?;
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let own = [
        ("PATH", path),
        ("WALHALLA_CONFIG", config.display().to_string()),
        ("PGHOST", directory.display().to_string()),
    ];
    let fixed = [("LC_ALL", "C"), ("PGUSER", "postgres"), ("PGTZ", "UTC"), ("TZ", "UTC")];
    stage.environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    stage.environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(stage)
}

const PROGRAMS: [&str; 3] = ["walhalla", "walhalla-archive", "walhalla-restore"];

/// The account may have no way to where we lie, so the programs come along.
fn copy_programs(to: &Path) -> Result<()> {
    let own = std::env::current_exe().map_err(|error| Error::local("find", Path::new("this program"), error))?;
    for program in PROGRAMS {
        let from = own.with_file_name(program);
        if !from.is_file() {
            return Err(Error::new(ErrorKind::Config, format!("{program} is not beside {}", own.display()))
                .hint("install the three programs into one directory"));
        }
        let copy = to.join(program);
        std::fs::copy(&from, &copy).map_err(|error| Error::local("copy", &from, error))?;
        allow(&copy, 0o700)?;
    }
    Ok(())
}

fn allow(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| Error::local("change the mode of", path, error))
}

struct Story<'a> {
    stage: &'a Stage,
    say: &'a mut dyn FnMut(&str),
}

impl Story<'_> {
    fn tell(mut self) -> Result<()> {
        let data = self.stage.directory.join("data");
        let told = self.until_the_disaster(&data);
        if told.is_err() {
            // The story broke off; the server must not outlive it.
            drop(self.stage.stop(&data, "immediate"));
        }
        let moment = told?;
        let rescued = self.stage.directory.join("rescued");
        let told = self.rescue(&rescued, &moment);
        let stopped = self.stage.stop(&rescued, "immediate");
        told?;
        stopped
    }

    fn title(&mut self, text: &str) {
        (self.say)(&format!("\n{text}"));
    }

    fn line(&mut self, text: &str) {
        (self.say)(&format!("    {text}"));
    }

    /// Runs our own program as an operator would, and shows what it says.
    fn walhalla(&mut self, arguments: &[&str]) -> Result<()> {
        self.line(&format!("$ walhalla {}", arguments.join(" ")));
        let program = self.stage.directory.join("bin/walhalla");
        let said = self.stage.run(&program, arguments)?;
        for line in said.lines() {
            self.line(&format!("  {line}"));
        }
        Ok(())
    }

    fn until_the_disaster(&mut self, data: &Path) -> Result<String> {
        self.title("1. A server that archives");
        self.set_up_server(data)?;
        self.title("2. Business as usual, and a base backup");
        self.stage.sql("CREATE TABLE invoices AS SELECT n AS id, n * 10 AS amount FROM generate_series(1, 1000) n")?;
        self.line("1,000 invoices are written");
        self.walhalla(&["backup"])?;
        self.stage.sql("INSERT INTO invoices SELECT n, n * 10 FROM generate_series(1001, 1500) n")?;
        self.line("500 more invoices, after the backup");
        self.title("3. A mistake, and then worse");
        let moment = self.wait_for_next_second()?;
        self.stage.sql("DROP TABLE invoices")?;
        self.line("DROP TABLE invoices: somebody was in the wrong terminal");
        self.wait_until_archived()?;
        self.stage.stop(data, "immediate")?;
        std::fs::remove_dir_all(data).map_err(|error| Error::local("remove", data, error))?;
        self.line("and now the disk with the data directory is gone, too");
        Ok(moment)
    }

    fn set_up_server(&mut self, data: &Path) -> Result<()> {
        let data_text = data.display().to_string();
        self.stage.postgres(
            "initdb",
            &["-D", &data_text, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"],
        )?;
        let socket = self.stage.directory.display();
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{socket}'\ntimezone = 'UTC'\n\
             archive_mode = on\narchive_command = 'walhalla-archive %p'\nrestore_command = 'walhalla-restore %f %p'\n"
        );
        let file = data.join("postgresql.conf");
        let mut text = std::fs::read(&file).map_err(|error| Error::local("read", &file, error))?;
        text.extend_from_slice(settings.as_bytes());
        durable::write(&file, &text, 0o600)?;
        self.stage.hand_over(&file)?;
        self.walhalla(&["init", "--data-directory", &data_text])?;
        self.stage.start(data)?;
        self.line("the server runs");
        Ok(())
    }

    /// The last whole second before now, in the server's words, once a new second has begun.
    fn wait_for_next_second(&mut self) -> Result<String> {
        let next = "date_trunc('second', clock_timestamp()) + interval '1 second'";
        let moment = self.stage.sql(&format!("SELECT to_char({next}, 'YYYY-MM-DD HH24:MI:SS') || '+00'"))?;
        let left = format!("extract(epoch FROM timestamptz '{moment}' - clock_timestamp())");
        self.stage.sql(&format!("SELECT pg_sleep(greatest(0, {left}) + 0.05)"))?;
        self.line(&format!("it is {moment}, and all 1,500 invoices are there"));
        Ok(moment)
    }

    fn wait_until_archived(&mut self) -> Result<()> {
        let segment = self.stage.sql("SELECT pg_walfile_name(pg_switch_wal())")?;
        let began = Instant::now();
        let question = format!("SELECT coalesce(last_archived_wal, '') >= '{segment}' FROM pg_stat_archiver");
        while self.stage.sql(&question)? != "t" {
            if began.elapsed() > PATIENCE {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{segment} was not archived within {PATIENCE:?}"),
                )
                .hint("see server.log in the demo's directory (--keep)"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.line(&format!("{segment} is in the archive"));
        Ok(())
    }

    fn rescue(&mut self, rescued: &Path, moment: &str) -> Result<()> {
        self.title("4. The rescue: back to the second before the mistake");
        self.walhalla(&["list"])?;
        let to = rescued.display().to_string();
        self.walhalla(&[
            "restore",
            "--to",
            &to,
            "--target-time",
            moment,
            "--target-action",
            "promote",
            "--as",
            "primary",
        ])?;
        self.stage.start(rescued)?;
        self.wait_until_promoted()?;
        let rows = self.stage.sql("SELECT count(*), sum(amount) FROM invoices")?;
        if rows != "1500|11257500" {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("1500 invoices of 11257500 in all were expected, {rows} came back"),
            ));
        }
        self.line("SELECT count(*), sum(amount) FROM invoices: 1500 invoices, 11257500 in all. Every one is back.");
        Ok(())
    }

    fn wait_until_promoted(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.stage.sql("SELECT pg_is_in_recovery()")? != "f" {
            if began.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::Unavailable, format!("recovery did not end within {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}
