//! What a killed process acknowledged is there, and what is there is a prefix of what it did.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and may talk"
)]

use nshard::crash::{Plan, run};

#[test]
fn five_hundred_kills_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        program: env!("CARGO_BIN_EXE_nshard").into(),
        dir: dir.path().to_owned(),
        seed: 20_261_121,
        kills: 500,
        backend: None,
        jobs: 2,
        under: None,
    };
    match run(&plan) {
        Ok(totals) => {
            println!("{totals:?}");
            assert!(totals.kills >= 500, "{totals:?}");
            assert!(totals.acknowledged > 500, "{totals:?}");
        }
        Err(failure) => {
            let kept = dir.keep();
            panic!("{failure}\n  databases are kept below {}", kept.display());
        }
    }
}
