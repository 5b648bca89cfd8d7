//! The engine does what the model does, over random transactions with reopenings, checkpoints and held snapshots.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

fn seeds(range: std::ops::Range<u64>, steps: u64) {
    for seed in range {
        let dir = tempfile::tempdir().unwrap();
        if let Err(failure) = nshard::run::run_seed(seed, steps, dir.path()) {
            panic!("{failure}");
        }
    }
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
fn long_random_runs_agree_with_the_model() {
    seeds(200..203, 1500);
}
