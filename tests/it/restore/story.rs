//! The main job with the real programs, from the command line.

use super::*;

#[test]
fn back_up_lose_everything_and_restore_to_a_second() {
    for major in postgres_majors() {
        let world = World::new(major);
        user::make_directory(&world.path("tablespace"));
        world.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", world.path("tablespace").display()));
        world.sql("CREATE TABLE t TABLESPACE fast AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n");
        let output = world.walhalla(&["backup", "--dsn", &world.server.dsn()]);
        assert_eq!(output.status, Some(0));
        world.sql("INSERT INTO t SELECT n, 'kept' FROM generate_series(1, 10) n");
        let moment =
            world.sql("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'");
        world.sql("DROP TABLE t");
        world.archive();
        world.server.kill();

        let (to, moved) = (world.path("new"), world.path("moved"));
        let mapping = format!("{}={}", world.path("tablespace").display(), moved.display());
        let mut arguments = vec!["restore", "--to", to.to_str().unwrap(), "--target-time", &moment, "--as", "copy"];
        arguments.extend(["--tablespace", &mapping]);
        let plan = world.walhalla(&[arguments.as_slice(), &["--dry-run", "--json"]].concat());
        assert_eq!(plan.status, Some(0));
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_eq!(plan["tablespaces"][0]["new"], moved.to_str().unwrap());
        assert!(!to.exists());
        assert_eq!(world.walhalla(&arguments).status, Some(0));
        world.verify(&to);
        let copy = world.adopt("new");
        copy.start().unwrap();
        copy.wait_sql("SELECT pg_is_in_recovery()", "f", Duration::from_secs(60));
        assert_eq!(copy.psql("SELECT count(*) FROM t").unwrap(), "50010");
        assert_eq!(copy.psql("SELECT count(*) FROM t WHERE md5 = 'kept'").unwrap(), "10");
        assert_eq!(
            world.walhalla(&arguments).status.map(|status| status != 0),
            Some(true),
            "not into a full directory"
        );
    }
}
