//! Real processes and real file systems: a little of each job, through the program, as it is run for every change.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and may talk"
)]

use std::process::Command;

/// Does a job until `goal` of `what` is reached, or says why it cannot be done here.
fn reaches(job: &str, what: &str, goal: u64) {
    let output = Command::new(env!("CARGO_BIN_EXE_nshard"))
        .args(["run", job, "--goal", &goal.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{complaint}");
    let first = said.lines().next().unwrap_or_default();
    let words: Vec<_> = first.split_whitespace().collect();
    assert_eq!(words.first(), Some(&job), "{said}");
    let done: u64 = words.get(1).unwrap().parse().unwrap();
    let skipped: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("SKIPPED"))
        .collect();
    println!("{first}\n{}", skipped.join("\n"));
    assert!(first.contains(what), "{said}");
    // Nothing done and nothing said about it is a failure.
    assert!(done >= goal || (done == 0 && !skipped.is_empty()), "{said}");
}

#[test]
fn kills_on_every_file_system_lose_nothing_acknowledged() {
    reaches("filesystems", "kills on file systems", 200);
}

#[test]
fn a_full_disk_refuses_commits_whole_and_the_rest_goes_on() {
    reaches("full", "full disks met", 4);
}

#[test]
fn one_of_many_openers_wins_and_the_others_are_told_who() {
    reaches("openers", "races to open", 40);
}

#[test]
fn restricted_processes_do_the_same_with_one_warning() {
    reaches("restricted", "restricted processes", 60);
}

#[test]
fn a_process_out_of_memory_loses_nothing_acknowledged() {
    reaches("memory", "allocations that failed", 150);
}

#[test]
fn a_failing_file_system_loses_nothing_acknowledged() {
    reaches("fuse", "rounds on a failing file system", 60);
}

#[test]
fn no_state_of_a_block_device_loses_anything_acknowledged() {
    reaches("blocks", "block states opened", 60);
}
