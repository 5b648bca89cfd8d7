//! Whether results may be held against each other: every record of them, not the first alone.
//!
//! Results of other sizes, scales, seeds, profiles, builds or options say nothing about each other, and neither do several runs in
//! one directory that do not belong together. A baseline may hold rows of several commits, since it is refreshed row by
//! row; a row's repeats are of one.

use std::collections::BTreeSet;

use super::Results;
use crate::error::{BenchError, Result};
use crate::machine::{Git, Machine};
use crate::results::Record;

/// What all records must have in common.
fn facts(record: &Record) -> [(&'static str, String); 7] {
    let config = &record.config;
    [
        ("profile", record.profile.name.clone()),
        ("size", config.size.clone()),
        ("scale", format!("{:?}", config.scale)),
        ("seed", config.seed.to_string()),
        ("build", record.build.mode.clone()),
        (
            "threads asked for",
            config
                .threads_asked
                .map_or_else(|| "none".to_owned(), |threads| threads.to_string()),
        ),
        (
            "warm-up",
            format!("{} ops, {} ns", config.warmup_ops, config.warmup_ns),
        ),
    ]
}

/// What a machine is to a baseline: times and ratios of another processor are others.
pub(crate) fn class(machine: &Machine) -> String {
    let model = machine.cpu_model.as_deref().unwrap_or("unknown processor");
    format!("{model}, {} cores", machine.core_count)
}

/// A record's commit; one with changes is not the same as one without.
fn commit(record: &Record) -> String {
    match &record.git {
        None => "an unknown commit".to_owned(),
        Some(Git { sha, dirty, .. }) => {
            let short = sha.get(..10).unwrap_or(sha);
            format!("{short}{}", if *dirty { " with changes" } else { "" })
        }
    }
}

/// The commits of results, for people.
pub(crate) fn commits(results: &Results) -> String {
    let all: BTreeSet<String> = results.values().flatten().map(commit).collect();
    let all: Vec<String> = all.into_iter().collect();
    all.join(", ")
}

/// Fails unless all records of both sides were measured in the same way, each side on one machine, each row in one run. Says
/// so if the two sides are of different kinds of machines.
///
/// # Errors
/// [`BenchError::Incomparable`] with the first record that differs, and in what.
pub(crate) fn check(before: &Results, after: &Results) -> Result<Option<String>> {
    let sides = [("before", before), ("after", after)];
    let first = sides
        .iter()
        .find_map(|(_, results)| results.values().flatten().next());
    let Some(first) = first else {
        return Ok(None);
    };
    for (side, results) in sides {
        for record in results.values().flatten() {
            for ((what, found), (_, expected)) in facts(record).into_iter().zip(facts(first)) {
                if found != expected {
                    return Err(differs(side, record, what, &found, &expected));
                }
            }
        }
        one_run_each(side, results)?;
    }
    one_unit_each(sides)?;
    let class_of = |results: &Results| {
        let record = results.values().flatten().next();
        record.map(|record| class(&record.profile.machine))
    };
    Ok(match (class_of(before), class_of(after)) {
        (Some(old), Some(new)) if old != new => Some(format!(
            "OTHER MACHINE: before is of {old}; after is of {new}"
        )),
        _ => None,
    })
}

/// Fails unless all results are of one commit, as those of one run are.
///
/// # Errors
/// [`BenchError::Incomparable`] with the first record of another.
pub(crate) fn one_commit(results: &Results) -> Result<()> {
    let Some(first) = results.values().flatten().next() else {
        return Ok(());
    };
    let expected = commit(first);
    for record in results.values().flatten() {
        if commit(record) != expected {
            return Err(differs(
                "after",
                record,
                "commit",
                &commit(record),
                &expected,
            ));
        }
    }
    Ok(())
}

/// One side: one machine, each repeat of a row once, all of a row from one commit and one run.
fn one_run_each(side: &str, results: &Results) -> Result<()> {
    let Some(any) = results.values().flatten().next() else {
        return Ok(());
    };
    let machine = class(&any.profile.machine);
    for records in results.values() {
        let Some(first) = records.first() else {
            continue;
        };
        let mut repeats = BTreeSet::new();
        for record in records {
            let pairs = [
                ("machine", class(&record.profile.machine), machine.clone()),
                ("commit", commit(record), commit(first)),
                (
                    "repeats",
                    record.repeats.to_string(),
                    first.repeats.to_string(),
                ),
            ];
            for (what, found, expected) in pairs {
                if found != expected {
                    return Err(differs(side, record, what, &found, &expected));
                }
            }
            if !repeats.insert(record.repeat) {
                let twice = format!(
                    "{}: repeat {} {side} is there twice",
                    record.short(),
                    record.repeat
                );
                return Err(BenchError::Incomparable(twice));
            }
        }
    }
    Ok(())
}

/// A row whose operation is another one than it was says nothing about what it was.
fn one_unit_each(sides: [(&str, &Results); 2]) -> Result<()> {
    for (side, results) in sides {
        for (name, records) in results {
            let first = sides
                .iter()
                .find_map(|(_, results)| results.get(name)?.first());
            let Some(Record { unit, .. }) = first else {
                continue;
            };
            if let Some(other) = records.iter().find(|record| record.unit != *unit) {
                return Err(differs(side, other, "unit", &other.unit, unit));
            }
        }
    }
    Ok(())
}

fn differs(side: &str, record: &Record, what: &str, found: &str, expected: &str) -> BenchError {
    BenchError::Incomparable(format!(
        "{what} of {} (repeat {} {side}) is {found}, elsewhere it is {expected}",
        record.short(),
        record.repeat
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::tests::results;

    fn refused(change: impl Fn(&mut Record)) -> String {
        let (before, after) = (results(|_| {}), results(change));
        let both = [check(&before, &after), check(&after, &before)];
        both.map(|checked| checked.unwrap_err().to_string())
            .join(" ")
    }

    #[test]
    fn one_record_that_was_measured_otherwise_is_enough_to_be_refused() {
        let last = |record: &Record| record.repeat == 4;
        for (what, change) in [
            (
                "size",
                &(|record: &mut Record| record.config.size = "quick".into())
                    as &dyn Fn(&mut Record),
            ),
            ("scale", &|record| record.config.scale.seconds = 9.0),
            ("seed", &|record| record.config.seed = 2),
            ("profile", &|record| record.profile.name = "mine".into()),
            ("build", &|record| record.build.mode = "debug".into()),
            ("threads asked for", &|record| {
                record.config.threads_asked = Some(3);
            }),
            ("warm-up", &|record| record.config.warmup_ops = 1),
            ("machine", &|record| record.profile.machine.core_count += 1),
            ("repeats", &|record| record.repeats = 7),
            ("unit", &|record| record.unit = "row".into()),
            ("commit", &|record| {
                record.git = Some(Git {
                    sha: "0123456789abcdef".into(),
                    branch: "main".into(),
                    dirty: false,
                });
            }),
        ] {
            let why = refused(|record| {
                if last(record) {
                    change(record);
                }
            });
            assert!(why.contains(&format!("{what} of log/")), "{what}: {why}");
        }
        let twice = refused(|record| record.repeat = record.repeat.min(3));
        assert!(twice.contains("repeat 3 after is there twice"), "{twice}");
    }

    #[test]
    fn another_machine_is_said_and_rows_of_a_baseline_may_be_of_several_commits() {
        let before = results(|_| {});
        assert_eq!(check(&before, &before).unwrap(), None);
        let cores = results(|record| record.profile.machine.core_count += 1);
        let model = results(|record| record.profile.machine.cpu_model = Some("Other".into()));
        for other in [cores, model] {
            let said = check(&before, &other).unwrap().unwrap();
            assert!(said.starts_with("OTHER MACHINE"), "{said}");
        }
        let mut mixed = before.clone();
        let other = results(|record| {
            record.git = Some(Git {
                sha: "0123456789abcdef".into(),
                branch: "main".into(),
                dirty: true,
            });
        });
        mixed.extend(
            other
                .into_values()
                .map(|all| ("bench/log/x".to_owned(), all)),
        );
        assert!(check(&mixed, &before).is_ok());
        assert_eq!(one_commit(&mixed).unwrap_err().exit_code(), 2);
        assert_eq!(
            commits(&mixed),
            "0123456789 with changes, an unknown commit"
        );
    }
}
