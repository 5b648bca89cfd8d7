//! `nsbench`: measures the engine, each figure beside the floor it is read against.
//!
//! A row is one function in `suites/`; `row` says what it is given and hands back, `floor` has the raw loops, `figures` the
//! table that ends a run, `profile` and `profiles/*.toml` the sizes and limits. Only the engine's public API is used.
#![expect(
    clippy::cast_possible_truncation,
    reason = "sizes of this program's own making, on 64-bit machines"
)]

mod alloc;
mod child;
mod cli;
mod clock;
mod compare;
mod data;
mod error;
mod figures;
mod floor;
mod gate;
mod generator;
mod machine;
mod profile;
mod properties;
mod report;
mod results;
mod row;
mod sample;
mod scratch;
mod suites;
mod target;
mod units;
mod versus;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> std::process::ExitCode {
    cli::main()
}
