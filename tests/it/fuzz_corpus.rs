//! Every fuzz target over its seeds: the parsers keep their promises at least on these, without a nightly compiler.

// There it is the root of a crate, here it is not.
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use std::path::Path;

#[test]
fn every_seed_of_every_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in bodies::TARGETS {
        let mut seeds = 0;
        for seed in std::fs::read_dir(fuzz.join("corpus").join(name)).unwrap() {
            let seed = seed.unwrap().path();
            let bytes = std::fs::read(&seed).unwrap();
            println!("{name}: {}", seed.display());
            target(&bytes);
            for cut in (0..bytes.len()).step_by(bytes.len() / 200 + 1) {
                target(&bytes[..cut]);
            }
            seeds += 1;
        }
        assert!(seeds > 0, "{name} has no seeds");
        assert!(fuzz.join("fuzz_targets").join(format!("{name}.rs")).exists(), "{name} has no target");
    }
    let targets = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, bodies::TARGETS.len(), "every target is listed");
}
