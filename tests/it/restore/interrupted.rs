//! A restore that does not come to its end leaves nothing that can be started.

use super::*;
use std::process::{Command, Stdio};
use walhalla::error::ErrorKind;
use walhalla::restore::{RestoreRequest, Role};

fn big() -> World {
    let world = World::new(15);
    world.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS m FROM generate_series(1, 300000) n");
    world.backup(FIRST);
    world.archive();
    world
}

/// What the child process of [`killed_at_any_moment`] runs; nothing when it is run as a test.
#[test]
fn child() {
    let Some(place) = std::env::var_os("WALHALLA_TEST_RESTORE_CHILD") else { return };
    let place = PathBuf::from(place);
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(place.join("repository"), Limits::new(Bounds::PATIENT)));
    on_runtime(async {
        let repository = Repository::new(storage, None);
        let cluster = repository.cluster(repository.only_cluster().await.unwrap());
        let source = Source { cluster, identities: Identities::default(), concurrency: 8 };
        let request = RestoreRequest { role: Role::Copy, ..RestoreRequest::new(place.join("to")) };
        let plan = restore::plan(&source, &request).await.unwrap();
        println!("planned");
        restore::execute(&source, &plan, &()).await.unwrap();
    });
}

#[test]
fn killed_at_any_moment() {
    let world = big();
    let (mut unfinished, mut finished) = (0, 0);
    // From the first write to the end, and a little beyond.
    for milliseconds in [0, 20, 60, 120, 250, 500, 1000, 2000, 4000] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["restore::interrupted::child", "--exact", "--nocapture"])
            .env("WALHALLA_TEST_RESTORE_CHILD", world.place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let planned = std::io::BufRead::lines(output).map_while(Result::ok).any(|line| line.contains("planned"));
        assert!(planned);
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        let to = world.path("to");
        if to.join("global/pg_control").exists() {
            world.verify(&to);
            finished += 1;
        } else {
            unfinished += 1;
            if to.join("PG_VERSION").exists() {
                let postgres = world.adopt("to");
                assert!(postgres.start().is_err(), "half a restore was started after {milliseconds} ms");
            }
        }
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
    }
    println!("{unfinished} unfinished, {finished} finished");
    assert!(unfinished > 0);
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk() {
    let world = big();
    let Some(disk) = SmallDisk::new(world.path("disk"), "20m") else {
        return crate::support::skipped("restore onto a full disk", "only root can mount a small one");
    };
    let request = world.request("disk/to");
    let text = world.refused(&request);
    assert!(text.contains("and the restore needs") && text.contains("nothing was written"), "{text}");
    drop(disk);

    let disk = SmallDisk::new(world.path("disk"), "200m").unwrap();
    let plan = world.plan(&request).unwrap();
    // Somebody else takes the room in the meantime.
    std::fs::write(disk.0.join("ballast"), vec![1; 170 << 20]).unwrap();
    let error = on_runtime(restore::execute(&world.source(), &plan, &())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LocalIo);
    let text = error.to_string();
    assert!(text.contains("the disk is full") && text.contains("cannot be started"), "{text}");
    assert!(!disk.0.join("to/global/pg_control").exists());
}
