//! The sources taken from the engine know by `cfg(loom)` that they are in a model.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"internals\"))");
    println!("cargo::rerun-if-changed=build.rs");
}
