//! Everything fuzzing has kept is tried again, without a fuzzer, and some damage beside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use nshard::fuzz::mutate::mutate;
use nshard::fuzz::{Target, corpus, seeds};
use nshard::rng::Rng;

#[test]
fn everything_fuzzing_has_kept_is_answered() {
    for target in Target::ALL {
        let inputs = corpus(target).unwrap();
        assert!(
            inputs.len() >= 3,
            "{}: {} inputs",
            target.name(),
            inputs.len()
        );
        for (name, bytes) in inputs {
            eprintln!("{name}");
            target.run(&bytes);
        }
    }
}

#[test]
fn what_the_engine_writes_is_answered_also_with_damage() {
    let mut rng = Rng::new(3);
    for target in Target::ALL {
        let rounds = if target == Target::Database { 1 } else { 20 };
        for seed in seeds::of(target) {
            target.run(&seed);
            for _ in 0..rounds {
                let mut room = seed.clone();
                room.resize(target.max_len().max(seed.len()), 0);
                let (word, seed_word) = (rng.word(), rng.below(1 << 32));
                // A byte anywhere in place of the fuzzer's own change.
                let size = mutate(
                    target,
                    &mut room,
                    seed.len(),
                    u32::try_from(seed_word).unwrap(),
                    |data, size| {
                        data[rng.index(size)] = word.to_le_bytes()[5];
                        size
                    },
                );
                target.run(&room[..size]);
            }
        }
    }
}

/// Without repairs, a fuzzer would hardly ever see more of a decoder than its checksum.
#[test]
fn repaired_damage_gets_past_the_checksums() {
    use northstardb::internals::{decode_group, decode_meta, decode_node, decode_record};
    let past = |target: Target, passes: &dyn Fn(&[u8]) -> Result<(), String>| {
        let mut rng = Rng::new(5);
        let (mut checksums, mut passed) = (0, 0);
        for seed in seeds::of(target).iter().cycle().take(400) {
            let mut room = seed.clone();
            let change = u32::try_from(rng.below(1 << 32)).unwrap();
            let size = mutate(target, &mut room, seed.len(), change, |data, size| {
                let at = rng.index(size.min(600));
                data[at] ^= 1 << rng.below(8);
                size
            });
            match passes(&room[..size]) {
                Ok(()) => passed += 1,
                Err(why) => checksums += u32::from(why.to_lowercase().contains("checksum")),
            }
        }
        let name = target.name();
        assert!(passed >= 50, "{name}: {passed} of 400 pass");
        assert!(
            (1..200).contains(&checksums),
            "{name}: {checksums} end at checksums"
        );
    };
    past(Target::Meta, &|bytes| {
        let copy = u64::from(bytes[8]);
        decode_meta(bytes, copy).map(drop)
    });
    past(Target::Node, &|bytes| decode_node(bytes, &[]).map(drop));
    past(Target::Record, &|bytes| decode_record(bytes).map(drop));
    past(Target::Backup, &|bytes| {
        let verified = northstardb::Backup::verify(bytes);
        verified.map(drop).map_err(|error| error.to_string())
    });
    past(Target::Group, &|bytes| {
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        decode_group(bytes, number(16), number(32)).map(drop)
    });
}

/// Names that a manifest depends on always, or with the feature that fuzzing needs.
fn depends_on(manifest: &str) -> BTreeSet<&str> {
    let section = |begin: &str| {
        let after = manifest.split_once(begin).map_or("", |(_, after)| after);
        after.split("\n[").next().unwrap_or_default()
    };
    let everywhere = section("\n[dependencies]\n");
    let linux = section("\n[target.'cfg(target_os = \"linux\")'.dependencies]\n");
    let lines = everywhere.lines().chain(linux.lines());
    let plain = lines.filter(|line| line.contains('=') && !line.contains("optional = true"));
    let feature = section("\ninternals = [").split(']').next();
    let words = feature.unwrap_or_default().split('"');
    let chosen = words.filter_map(|word| word.strip_prefix("dep:"));
    let name = |line: &'_ str| line.find(['.', ' ', '=']).unwrap_or(line.len());
    plain
        .map(|line| &line[..name(line)])
        .chain(chosen)
        .collect()
}

/// The package of the targets is no part of this workspace, so cargo does not keep its lock file in step.
#[test]
fn the_lock_file_of_the_targets_knows_what_is_depended_on() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let lock = read("hard/fuzz/Cargo.lock");
    for package in ["hard", "engine", "io"] {
        let manifest = read(&format!("{package}/Cargo.toml"));
        let name = manifest.split('"').nth(1).unwrap();
        let (_, locked) = lock.split_once(&format!("name = \"{name}\"\n")).unwrap();
        let (_, locked) = locked.split_once("dependencies = [").unwrap();
        let locked = locked
            .split(']')
            .next()
            .unwrap()
            .split('"')
            .skip(1)
            .step_by(2);
        let locked: BTreeSet<_> = locked.map(|one| one.split(' ').next().unwrap()).collect();
        let remedy = "cargo fetch --manifest-path hard/fuzz/Cargo.toml";
        assert_eq!(depends_on(&manifest), locked, "{package}: {remedy}");
    }
}
