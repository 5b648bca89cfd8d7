//! The engine does what the model does, over random transactions with reopenings, checkpoints and held snapshots.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

use nshard::run::{Totals, run_seed};

fn seeds(range: std::ops::Range<u64>, steps: u64) -> Totals {
    let mut totals = Totals::default();
    for seed in range {
        let dir = tempfile::tempdir().unwrap();
        match run_seed(seed, steps, dir.path()) {
            Ok(done) => totals.add(&done),
            Err(failure) => panic!("{failure}"),
        }
    }
    totals
}

#[test]
fn many_short_random_runs_agree_with_the_model() {
    seeds(1..31, 60);
}

#[test]
fn random_runs_agree_with_the_model() {
    seeds(100..115, 300);
}

#[test]
fn subscribers_backups_and_copies_agree_with_the_model() {
    let totals = seeds(300..312, 300);
    assert!(totals.followed > 1_000, "{totals:?}");
    assert!(totals.acknowledged > 30, "{totals:?}");
    assert!(totals.backups > 20 && totals.restored > 8, "{totals:?}");
    assert!(totals.applied > 400, "{totals:?}");
    assert!(totals.digests > 100, "{totals:?}");
}

#[test]
fn long_random_runs_agree_with_the_model() {
    seeds(200..203, 1500);
}
