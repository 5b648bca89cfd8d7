//! Every interleaving that is tried ends, reads one order of commits, and is had again by its seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use northstardb::internals;
use nshard::sched::explorer::{self, Explorer};
use nshard::sched::policy::Policy;
use nshard::sched::run::Runner;
use nshard::tally::Tally;

#[test]
fn interleavings_end_and_read_one_order_of_commits() {
    let (mut runner, mut tally) = (Runner::default(), Tally::default());
    for seed in 1..=200 {
        match runner.run(seed) {
            Ok(done) => tally.merge(&done),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(tally.get("switches") > 10_000, "{tally}");
    assert!(tally.get("transactions") > 1_000, "{tally}");
    assert!(tally.get("snapshots") > 300, "{tally}");
    assert!(tally.get("rows compared") > 10_000, "{tally}");
}

/// What a process of its own says: epochs belong to the whole process, and the other tests' threads are in this one.
fn said(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nshard"))
        .args(args)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The hash of the first `seeds` seeds, one after the other in one process.
fn worked(seeds: &str) -> u64 {
    let tally = said(&["work", "schedules", "--seed", "1", "--seeds", seeds]);
    serde_json::from_str::<Tally>(&tally).unwrap().hash
}

#[test]
fn a_seed_decides_the_interleaving() {
    let alone = said(&["schedule", "--seed", "7"]);
    assert_eq!(alone, said(&["schedule", "--seed", "7"]));
    let hash = alone.trim().rsplit(' ').next().unwrap();
    let alone = u64::from_str_radix(hash, 16).unwrap();
    // A failure of a worker is had again by its seed alone, whatever the worker did before.
    assert_eq!(worked("7").wrapping_sub(worked("6")), alone);
}

#[test]
fn a_thread_that_nobody_wakes_is_found() {
    let failed = Explorer::default().run(Policy::of(1), || {
        // Two threads that each wait for the other's end.
        let (one, other) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let wait = |mine: Arc<AtomicBool>, theirs: Arc<AtomicBool>| {
            move || {
                let helper = explorer::spawn("helper", move || {
                    while !theirs.load(Ordering::Relaxed) {
                        explorer::wait_for(&theirs);
                    }
                });
                helper.join();
                mine.store(true, Ordering::Relaxed);
            }
        };
        explorer::spawn("one", wait(Arc::clone(&one), Arc::clone(&other)));
        explorer::spawn("other", wait(other, one));
    });
    let why = failed.unwrap_err().to_string();
    assert!(why.contains("somebody was not woken"), "{why}");
}

#[test]
fn a_thread_that_panics_is_a_failure() {
    let failed = Explorer::default().run(Policy::of(1), || {
        explorer::spawn("clumsy", || panic!("on purpose")).join();
        internals::pause();
    });
    assert!(
        failed
            .unwrap_err()
            .to_string()
            .contains("clumsy panicked: on purpose")
    );
}
