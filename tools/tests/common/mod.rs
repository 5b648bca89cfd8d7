//! What the tests of the command share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test file uses its own part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Output};

pub fn northstar(db: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_northstar"))
        .args(words)
        .arg("--db")
        .arg(db)
        .output()
        .unwrap()
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn tree(root: &Path) {
    std::fs::create_dir_all(root.join("src/deep")).unwrap();
    std::fs::write(root.join("README.md"), "read me\n").unwrap();
    std::fs::write(root.join("src/a.rs"), "fn a() {}\n").unwrap();
    std::fs::write(root.join("src/b.rs"), "fn b() {}\n".repeat(10_000)).unwrap();
    std::fs::write(root.join("src/deep/empty"), "").unwrap();
    std::fs::write(root.join("src/deep/binary"), [0u8, 255, 128]).unwrap();
    std::os::unix::fs::symlink("/", root.join("src/link")).unwrap();
    std::fs::File::create(root.join("huge"))
        .unwrap()
        .set_len((16 << 20) + 1)
        .unwrap();
}

pub fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}
