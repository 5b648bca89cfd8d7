//! The engine on a simulated disk loses nothing that was acknowledged, whatever the disk does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nshard::jobs::simulate;
use nshard::sim::script::Plan;
use nshard::sim::{restored, storm};
use nshard::tally::Tally;

fn plan(seed: u64, faults: bool) -> Plan {
    Plan {
        cuts: 20,
        faults,
        ..Plan::of(seed)
    }
}

fn seeds(range: std::ops::Range<u64>, faults: bool) -> Tally {
    let mut tally = Tally::default();
    for seed in range {
        match simulate(&plan(seed, faults)) {
            Ok(done) => tally.merge(&done),
            Err(failure) => panic!("{failure}"),
        }
    }
    tally
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    let tally = seeds(1..41, false);
    assert!(tally.get(storm::CRASHES) > 2_000, "{tally}");
    assert!(tally.get(storm::IN_RECOVERY) > 100, "{tally}");
    assert!(tally.get("rows compared") > 10_000, "{tally}");
    assert!(tally.get(storm::MOVED) > 50, "{tally}");
}

#[test]
fn disks_with_faults_are_met_with_errors_and_lose_nothing() {
    let tally = seeds(1..41, true);
    assert!(tally.get(storm::CRASHES) > 1_000, "{tally}");
    let faults = tally
        .counts
        .iter()
        .filter(|(what, count)| what.starts_with("fault: ") && **count > 0);
    assert!(faults.count() > 8, "{tally}");
}

#[test]
fn a_restore_that_is_cut_off_is_refused_or_holds_what_was_saved() {
    let mut tally = Tally::default();
    for seed in 1..21 {
        match restored::run(seed) {
            Ok(done) => tally.merge(&done),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(tally.get(restored::CUT) >= 2_000, "{tally}");
    assert!(tally.get("of these refused") > 200, "{tally}");
    assert!(tally.get("rows compared") > 2_000, "{tally}");
}

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    let plans = nshard::sim::script::regressions().unwrap();
    assert!(plans.len() >= 2);
    for plan in plans {
        if let Err(failure) = simulate(&plan) {
            panic!("{failure}");
        }
    }
}

#[test]
fn a_line_to_replay_names_the_same_work() {
    let plan = Plan {
        kept: Some(vec![(0, 1), (2, 3)]),
        steps: 5,
        faults: true,
        ..Plan::of(7)
    };
    assert_eq!(
        plan.replay(),
        "nshard sim --seed 7 --steps 5 --faults --keep 0.1,2.3"
    );
}

#[test]
fn a_sequence_cut_everywhere_loses_nothing() {
    for number in [163, 515, 1_019] {
        match nshard::sim::scope::run(number) {
            Ok(tally) => assert!(tally.get(storm::CRASHES) > 20, "{tally}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn an_operation_that_fails_in_any_way_does_no_harm() {
    for seed in [1, 2] {
        match nshard::sim::nth::run(seed) {
            Ok(tally) => assert!(tally.get(nshard::sim::nth::FAILED) > 500, "{tally}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn bits_flipped_at_rest_are_never_read_as_rows() {
    let mut tally = Tally::default();
    for seed in 1..6 {
        match nshard::sim::rot::run(seed) {
            Ok(done) => tally.merge(&done),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(tally.get(nshard::sim::rot::FLIPS) > 800, "{tally}");
    assert!(tally.get("of these refused at opening") > 0, "{tally}");
    assert!(tally.get("of these met as errors of reads") > 0, "{tally}");
    assert!(tally.get("of these read whole") > 0, "{tally}");
}

#[test]
fn values_of_more_pages_than_there_are_frames_can_be_kept() {
    match nshard::sim::pins::run(1) {
        Ok(tally) => assert!(tally.get(nshard::sim::pins::KEPT) == 200, "{tally}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_campaign_that_did_less_than_a_change_needs_fails() {
    let ended = |amount: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_nshard"))
            .args([amount, "pins", "--minutes", "0"])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = ended("ci");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("less was done than was wanted of pins"),
        "{said}"
    );
    let (code, said) = ended("nightly");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("INCOMPLETE"), "{said}");
}
