//! `nsbench`: measures the engine, each figure beside the floor it is read against.
//!
//! A row is one function in `suites/`; `row` says what it is given and hands back, `floor` has the raw loops, `figures` the
//! table that ends a run, `profile` and `profiles/*.toml` the sizes and limits. Only the engine's public API is used.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of this program's own making, on 64-bit machines"
)]

mod absolute;
mod agents;
mod alloc;
mod child;
mod cli;
mod clock;
mod compare;
mod counted;
mod counters;
mod csv;
mod data;
mod doctor;
mod error;
mod figures;
mod flame;
mod floor;
mod gate;
mod generator;
mod list;
mod machine;
mod page;
mod planting;
mod profile;
mod properties;
mod report;
mod results;
mod row;
mod run;
mod sample;
mod scratch;
mod stats;
mod suites;
mod summary;
mod target;
mod tools;
mod units;
mod versus;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> std::process::ExitCode {
    planting::plant();
    cli::main()
}
