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

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

fn command(db: &Path, words: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_northstar"));
    command.args(words).arg("--db").arg(db);
    command
}

pub fn northstar(db: &Path, words: &[impl AsRef<OsStr>]) -> Output {
    command(db, words).output().unwrap()
}

/// Runs it with nobody who reads its answer.
pub fn unheard(db: &Path, words: &[impl AsRef<OsStr>]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command(db, words).stdout(writer).output().unwrap()
}

/// One object a line.
pub fn lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", text(output));
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
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
