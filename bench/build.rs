//! Says of which commit the program is, so that a result names the sources that were measured, wherever and whenever
//! the program is started.

#[path = "src/machine/commit.rs"]
mod commit;

fn main() {
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // Without a commit nothing is said, and cargo asks again when any file of the package changes.
    let commit = commit::Commit::of(package.as_ref());
    for line in commit.iter().flat_map(commit::Commit::for_cargo) {
        println!("{line}");
    }
}
