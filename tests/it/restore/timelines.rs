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
    std::fs::remove_file(world.path("repository").join(history.as_str())).unwrap();
    let text = world.refused(&copy("c", TargetTimeline::Number(synthetic::timeline(2))));
    assert!(text.contains("there is no 00000002.history"), "{text}");
}
