//! Restores of restores: which timeline is followed.

use super::*;
use walhalla::reach::TargetTimeline;
use walhalla::restore::Role;

#[test]
fn the_newest_timeline_and_an_older_one_by_its_number() {
    let world = World::new(15);
    world.sql("CREATE TABLE t (n int)");
    world.backup(FIRST);
    world.sql("INSERT INTO t VALUES (1)");
    world.archive();
    // Timeline 2 branches off here; the old server goes on for a while.
    let second = world.open(&RestoreRequest { role: Role::Primary, ..world.request("second") });
    second.psql("INSERT INTO t VALUES (20), (21)").unwrap();
    let name = second.switch_wal();
    second.wait_archived(&name, Duration::from_secs(60));
    world.sql("INSERT INTO t VALUES (3), (4), (5)");
    world.archive();

    let copy = |to: &str, timeline| RestoreRequest { role: Role::Copy, timeline, ..world.request(to) };
    let plan = world.plan(&copy("a", TargetTimeline::Latest)).unwrap();
    assert_eq!(plan.timeline, synthetic::timeline(2));
    let newest = world.open(&copy("a", TargetTimeline::Latest));
    assert_eq!(newest.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").unwrap(), "1,20,21");
    drop(newest);
    let first = world.open(&copy("b", TargetTimeline::Number(synthetic::timeline(1))));
    assert_eq!(first.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").unwrap(), "1,3,4,5");
    drop(first);

    // A history that was lost is told with its lines.
    let history = world.cluster.layout().wal(&"00000002.history".parse().unwrap());
    let history = world.path("repository").join(history.as_str());
    let object = std::fs::read(&history).unwrap();
    std::fs::remove_file(&history).unwrap();
    let text = world.refused(&copy("c", TargetTimeline::Number(synthetic::timeline(2))));
    assert!(text.contains("there is no 00000002.history"), "{text}");

    // A backup of that timeline carries the history itself: enough for it.
    let manifest = world.backup_of(&second, SECOND);
    let name = second.switch_wal();
    second.wait_archived(&name, Duration::from_secs(60));
    let own = world.cluster.layout().backup_wal(&manifest.id, &"00000002.history".parse().unwrap());
    let own = world.path("repository").join(own.as_str());
    user::make_directory(own.parent().unwrap());
    std::fs::write(&own, object).unwrap();
    user::give(&world.path("repository"));
    let kept = RestoreRequest { backup: SECOND.parse().ok(), ..copy("d", TargetTimeline::Latest) };
    let third = world.open(&kept);
    assert_eq!(third.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").unwrap(), "1,20,21");
    assert!(world.path("d/pg_wal/archive_status/00000002.history.done").exists());
}
