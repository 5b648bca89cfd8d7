//! `nsrivals`: NorthstarDB beside other engines; built and run by `nsbench versus`.
//!
//! `rival` says what is asked of an engine, `rivals/` has a file for each, `groups/` one for each group of rows. Each engine
//! works in a process of its own (`child`); `run` lets them take turns, `ledger` knows what must be stored, `report` and
//! `results` say how it went. Rows, machine facts and numbers for people come from the sources of `nsbench`.
//! Spec: `benchmarks_v0`.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of this program's own making, on 64-bit machines"
)]

mod bench;
mod child;
mod cli;
mod clock;
mod content;
#[path = "../../src/counters.rs"]
#[expect(dead_code, reason = "only whether there are any is asked here")]
mod counters;
mod error;
mod files;
#[path = "../../src/generator.rs"]
mod generator;
mod groups;
mod ledger;
#[path = "../../src/machine/mod.rs"]
#[expect(dead_code, reason = "what `nsbench doctor` asks is not asked here")]
mod machine;
mod memory_group;
#[cfg(test)]
mod model_tests;
mod report;
mod results;
mod rival;
mod rivals;
mod run;
mod sample;
mod scale;
#[path = "../../src/scratch.rs"]
mod scratch;
#[path = "../../src/units.rs"]
#[expect(dead_code, reason = "some units are for the rows of nsbench")]
mod units;
mod zipf;

fn main() -> std::process::ExitCode {
    cli::main()
}
