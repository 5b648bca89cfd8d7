//! The workspace as texts by path: what the tidy checks look at. Tests make small ones by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The folders and files that are ours; everything else beside them (build output, scratch) is not looked at.
const ROOTS: &[&str] = &[
    ".cargo",
    ".ci",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.toml",
    "README.md",
    "baselines",
    "bench",
    "clippy.toml",
    "engine",
    "hard",
    "io",
    "perf-scripts",
    "profiles",
    "rustfmt.toml",
    "spec",
    "tools",
];
/// Folders below them that hold no sources.
const SKIPPED: &[&str] = &["target", "corpus", "golden", "results"];

/// Texts by path from the workspace's root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Repo {
    files: BTreeMap<String, String>,
}

impl Repo {
    /// Reads the workspace this program was built from.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn read() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut repo = Self::default();
        for name in ROOTS {
            let path = root.join(name);
            if path.exists() {
                repo.read_into(&path, name)?;
            }
        }
        Ok(repo)
    }

    fn read_into(&mut self, path: &Path, name: &str) -> io::Result<()> {
        if !path.is_dir() {
            // What is not text (a golden file, a picture) has nothing for these checks.
            if let Ok(text) = String::from_utf8(fs::read(path)?) {
                self.files.insert(name.to_owned(), text);
            }
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            if !SKIPPED.contains(&file_name.as_str()) {
                self.read_into(&entry.path(), &format!("{name}/{file_name}"))?;
            }
        }
        Ok(())
    }

    /// A workspace made by hand.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    /// The text at `path`.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every path with its text.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Rust sources, this crate's own among them.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Rust sources of every crate but this one, whose texts speak of the very things it looks for.
    pub(crate) fn checked_sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources()
            .filter(|(path, _)| !path.starts_with("spec/"))
    }

    /// The specs.
    pub(crate) fn specs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files()
            .filter(|(path, _)| path.starts_with("spec/") && path.ends_with(".md"))
    }
}

/// The text before its inline test module, and whether the file is one of tests altogether.
pub(crate) fn without_tests<'a>(path: &str, text: &'a str) -> &'a str {
    if path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/benches/") {
        return "";
    }
    let end = ["\nmod tests {", "\n    mod tests {"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min()
        .unwrap_or(text.len());
    &text[..end]
}

/// The line without what follows `//`. Strings that hold `//` are cut too, which loses nothing that is looked for.
pub(crate) fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// `text` cut into identifiers and single other characters.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `word` stands in `text` with nothing of a word on either side.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| text.as_bytes().get(at));
        let after = text.as_bytes().get(at + word.len());
        !before.is_some_and(|byte| is_word(*byte)) && !after.is_some_and(|byte| is_word(*byte))
    })
}
