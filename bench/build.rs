//! Says of which commit the program is, so that a result names the sources that were measured, wherever and whenever
//! the program is started.

#[path = "src/machine/commit.rs"]
mod commit;

fn main() {
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let told = commit::Commit::around(package.as_ref()).map_or_else(
        || vec!["cargo:rerun-if-changed=Cargo.toml".to_owned()],
        |commit| commit.for_cargo(),
    );
    for line in told {
        println!("{line}");
    }
}
