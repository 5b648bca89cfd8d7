//! What must hold whatever the work is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nshard::properties::{PROPERTIES, hold};

fn tried(name: &str, seeds: std::ops::Range<u64>) {
    let property = PROPERTIES
        .iter()
        .find(|property| property.name == name)
        .unwrap();
    let mut rows = 0;
    for seed in seeds {
        match hold(property, seed) {
            Ok(compared) => rows += compared,
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(rows > 0, "{name} compared nothing");
}

#[test]
fn one_batch_is_the_same_as_its_changes_one_by_one() {
    tried("batch_is_singles", 1..41);
}

#[test]
fn one_transaction_is_the_same_as_one_batch() {
    tried("transaction_is_batch", 1..41);
}

#[test]
fn transactions_on_different_keys_commute() {
    tried("commute", 1..41);
}

#[test]
fn puts_and_deletes_done_twice_are_done_once() {
    tried("idempotent", 1..41);
}

#[test]
fn a_checkpoint_cannot_be_seen() {
    tried("checkpoint_invisible", 1..41);
}

#[test]
fn files_copied_after_a_commit_are_a_prefix() {
    tried("crash_is_prefix", 1..11);
}

#[test]
fn rows_read_out_and_stored_elsewhere_are_the_same() {
    tried("export_import", 1..11);
}

#[test]
fn memory_and_every_disk_backend_hold_the_same() {
    tried("backends_agree", 1..9);
}

#[test]
fn a_snapshot_never_changes() {
    tried("snapshot_immutable", 1..21);
}

#[test]
fn earlier_transactions_read_as_they_were() {
    tried("time_travel", 1..21);
}

#[test]
fn a_transaction_sees_its_own_changes() {
    tried("read_your_writes", 1..21);
}

#[test]
fn every_way_to_read_says_the_same() {
    tried("scan_consistent", 1..21);
}

#[test]
fn every_snapshot_has_the_same_sum_while_amounts_move() {
    tried("isolation", 1..5);
}

#[test]
fn commits_of_many_threads_are_all_there() {
    tried("committers", 1..5);
}

#[test]
fn batches_larger_than_any_buffer_are_there() {
    tried("large_batches", 1..4);
}

#[test]
fn every_property_is_tried() {
    let here = include_str!("properties.rs");
    for property in PROPERTIES {
        let call = format!("tried({:?}", property.name);
        assert!(here.contains(&call), "{}", property.name);
    }
}
