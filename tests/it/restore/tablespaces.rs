//! Tablespaces, moved and unmoved.

use super::*;
use walhalla::restore::{Relocation, Role};

#[test]
fn two_tablespaces_one_of_them_relocated() {
    for major in postgres_majors() {
        let world = World::new(major);
        for name in ["fast", "slow"] {
            user::make_directory(&world.path(name));
            world.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", world.path(name).display()));
            world.sql(&format!("CREATE TABLE {name} TABLESPACE {name} AS SELECT n FROM generate_series(1, 9000) n"));
        }
        world.backup(FIRST);
        world.sql("INSERT INTO fast VALUES (0)");
        world.archive();
        let request = RestoreRequest { role: Role::Copy, ..world.request("copy") };
        let text = world.refused(&request);
        assert!(text.contains("tablespace") && text.contains("--tablespace"), "{text}");
        let moved = |name: &str| Relocation {
            old: world.path(name).to_str().unwrap().to_owned(),
            new: world.path(&format!("new {name}")),
        };
        let unknown = Relocation { old: "/nowhere".into(), ..moved("fast") };
        let text = world.refused(&RestoreRequest { tablespaces: vec![unknown], ..request.clone() });
        assert!(
            text.contains("no tablespace of backup") && text.contains(world.path("slow").to_str().unwrap()),
            "{text}"
        );
        let inside = Relocation { new: world.path("copy/inside"), ..moved("fast") };
        let text = world.refused(&RestoreRequest { tablespaces: vec![inside, moved("slow")], ..request.clone() });
        assert!(text.contains("lie within one another"), "{text}");

        let both = RestoreRequest { tablespaces: vec![moved("fast"), moved("slow")], ..request.clone() };
        let copy = world.open(&both);
        assert_eq!(copy.psql("SELECT count(*) FROM fast").unwrap(), "9001");
        assert_eq!(copy.psql("SELECT count(*) FROM slow").unwrap(), "9000");
        let place = copy.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'").unwrap();
        assert_eq!(place, world.path("new fast").to_str().unwrap());
        drop(copy);

        // The disaster: the old server is gone, and the tablespaces go where they were.
        world.server.kill();
        for name in ["fast", "slow"] {
            std::fs::remove_dir_all(world.path(name)).unwrap();
        }
        let copy = world.open(&RestoreRequest { to: world.path("again"), ..request });
        assert_eq!(copy.psql("SELECT count(*) FROM fast").unwrap(), "9001");
    }
}
