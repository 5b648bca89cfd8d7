//! The commit that sources are of. The build script asks this too, before anything else is built: only the standard
//! library is used.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What becomes part of the program, from the top of the repository.
const SOURCES: [&str; 15] = [
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "bench/Cargo.toml",
    "bench/build.rs",
    "bench/src",
    "bench/rivals/Cargo.lock",
    "bench/rivals/Cargo.toml",
    "bench/rivals/src",
    "engine",
    "hard/Cargo.toml",
    "hard/orders",
    "hard/src",
    "io",
    "profiles",
];
/// The packages that ask.
const PACKAGES: [&str; 2] = ["bench", "bench/rivals"];

/// Sources as git has them.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Full hash.
    pub(crate) sha: String,
    /// Branch, or `HEAD` when detached.
    pub(crate) branch: String,
    /// [`SOURCES`] differ from the commit, or have files that it does not.
    dirty: bool,
    /// The top of the repository.
    top: PathBuf,
    /// Files that change with each commit and each change of the branch.
    heads: Vec<PathBuf>,
}

impl Commit {
    /// Asks git about the repository of the package in `dir`; `None` without git, or where the package is not the repository's own.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let git = |args: &[&str]| {
            let output = Command::new("git")
                .current_dir(dir)
                // Of a hook that builds.
                .env_remove("GIT_DIR")
                .env_remove("GIT_INDEX_FILE")
                .args(args)
                .output()
                .ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim().to_owned())
        };
        let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
        let dir = dir.canonicalize().ok()?;
        let owned = PACKAGES.map(|package| top.join(package).canonicalize().ok());
        owned.contains(&Some(dir.clone())).then_some(())?;
        let status = ["status", "--porcelain", "--untracked-files=normal", "--"];
        let sources = SOURCES.map(|path| top.join(path).display().to_string());
        let of_sources: Vec<_> = (status.into_iter())
            .chain(sources.iter().map(String::as_str))
            .collect();
        let reference = git(&["rev-parse", "--symbolic-full-name", "HEAD"])?;
        let heads = ["HEAD", "logs/HEAD", "packed-refs", &*reference]
            .iter()
            .filter_map(|name| git(&["rev-parse", "--git-path", name]))
            .map(|path| dir.join(path))
            .collect();
        Some(Self {
            sha: git(&["rev-parse", "HEAD"])?,
            branch: git(&["rev-parse", "--abbrev-ref", "HEAD"])?,
            dirty: git(&of_sources).is_none_or(|changed| !changed.is_empty()),
            top,
            heads,
        })
    }

    /// What a build script tells cargo: the commit for the program, and what it depends on.
    pub(crate) fn for_cargo(&self) -> Vec<String> {
        let Self {
            sha, branch, dirty, ..
        } = self;
        let sources = SOURCES.map(|path| self.top.join(path));
        (sources.iter().chain(&self.heads))
            // Cargo asks again and again for what is not there.
            .filter(|path| path.exists())
            .map(|path| format!("cargo:rerun-if-changed={}", path.display()))
            .chain([
                format!("cargo:rustc-env=NSBENCH_SHA={sha}"),
                format!("cargo:rustc-env=NSBENCH_BRANCH={branch}"),
                format!("cargo:rustc-env=NSBENCH_DIRTY={dirty}"),
            ])
            .collect()
    }
}
