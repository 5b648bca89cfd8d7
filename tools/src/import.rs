//! Storing a tree of files, one transaction a directory.
//!
//! A commit's tag names its directory. A directory with more than [`TXN_BYTES_MAX`] of new content takes several
//! transactions, so that no commit record comes near the engine's limit. Content that is stored already is compared
//! and left alone: an interrupted import is repeated, and a directory without news commits nothing.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use northstardb::{Db, Table, WriteTxn};
use serde_json::json;

use crate::{During, Failure, report};

/// The engine's default limit of a value.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// New content in one transaction: a quarter of the largest commit record leaves room for one more file.
const TXN_BYTES_MAX: u64 = 64 << 20;
/// The engine's limits of a key and of a tag.
const PATH_BYTES_MAX: usize = 4096;
const TAG_BYTES_MAX: usize = 1024;

/// What to import, and where to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// The directory.
    pub(crate) dir: &'a Path,
    /// The table.
    pub(crate) table: &'a str,
    /// The database's own directory, left out when it lies inside.
    pub(crate) database: &'a Path,
}

/// What an import did.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    directories: u64,
    transactions: u64,
    files_written: u64,
    files_unchanged: u64,
    bytes_written: u64,
    symlinks_skipped: u64,
    /// Files beyond a limit.
    too_large: Vec<String>,
    /// What could not be read, and why.
    unreadable: Vec<String>,
    last_txn: u64,
}

impl Totals {
    /// Prints the totals.
    pub(crate) fn print(&self, out: &mut impl Write, json: bool) -> Result<(), Failure> {
        let figures = json!({
            "directories": self.directories,
            "transactions": self.transactions,
            "last_txn": self.last_txn,
            "files_written": self.files_written,
            "files_unchanged": self.files_unchanged,
            "bytes_written": self.bytes_written,
            "symlinks_skipped": self.symlinks_skipped,
            "too_large_count": self.too_large.len(),
            "too_large": self.too_large,
            "unreadable": self.unreadable,
        });
        report::print(&figures, json, out)
    }

    /// Files beyond a limit are expected; files that cannot be read are a fault.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        match self.unreadable.len() {
            0 => Ok(()),
            count => Err(Failure::Found(format!(
                "{count} files or directories could not be read"
            ))),
        }
    }
}

/// Imports the tree.
pub(crate) fn import(db: &Db, plan: &Plan<'_>, bar: bool) -> Result<Totals, Failure> {
    let table = db
        .table(plan.table)
        .during(|| format!("cannot open the table {:?}", plan.table))?;
    let bar = if bar {
        spinner()
    } else {
        ProgressBar::hidden()
    };
    let database = plan.database.canonicalize().ok();
    let mut totals = Totals::default();
    // Directories still to do, the next one last.
    let mut todo = vec![plan.dir.to_owned()];
    while let Some(dir) = todo.pop() {
        if database.is_some() && dir.canonicalize().ok() == database {
            continue;
        }
        bar.set_message(dir.display().to_string());
        let (files, mut dirs) = list(&dir, &mut totals);
        dirs.reverse();
        todo.append(&mut dirs);
        directory(db, &table, plan.dir, &dir, &files, &mut totals, &bar)?;
        totals.directories += 1;
    }
    bar.finish_and_clear();
    Ok(totals)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let template = "{spinner} {elapsed} {bytes} {bytes_per_sec} {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The regular files and the directories of a directory, each in order of their names.
fn list(dir: &Path, totals: &mut Totals) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            totals
                .unreadable
                .push(format!("{}: {error}", dir.display()));
            return (files, dirs);
        }
    };
    for entry in entries {
        let kind = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
        match kind {
            Ok((path, kind)) if kind.is_file() => files.push(path),
            Ok((path, kind)) if kind.is_dir() => dirs.push(path),
            Ok((_, kind)) => totals.symlinks_skipped += u64::from(kind.is_symlink()),
            Err(error) => totals
                .unreadable
                .push(format!("{}: {error}", dir.display())),
        }
    }
    files.sort();
    dirs.sort();
    (files, dirs)
}

/// Stores the files of one directory.
fn directory(
    db: &Db,
    table: &Table,
    root: &Path,
    dir: &Path,
    files: &[PathBuf],
    totals: &mut Totals,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let relative = |path: &Path| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .as_os_str()
            .as_bytes()
            .to_vec()
    };
    let mut tag = relative(dir);
    if tag.is_empty() {
        tag.push(b'.');
    }
    tag.truncate(TAG_BYTES_MAX);
    let mut write: Option<WriteTxn> = None;
    let mut bytes_pending = 0;
    for path in files {
        let key = relative(path);
        let content = match content(path) {
            Ok(Some(content)) if key.len() <= PATH_BYTES_MAX => content,
            Ok(_) => {
                totals.too_large.push(path.display().to_string());
                continue;
            }
            Err(error) => {
                totals
                    .unreadable
                    .push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let fail = || format!("cannot store {}", path.display());
        let txn = match &mut write {
            Some(txn) => txn,
            none => none.insert(db.begin_write().during(fail)?),
        };
        bar.inc(content.len() as u64);
        let same = |stored: Option<&[u8]>| stored == Some(content.as_slice());
        if txn.get_with(table, &key, same).during(fail)? {
            totals.files_unchanged += 1;
            continue;
        }
        txn.put(table, &key, &content).during(fail)?;
        totals.files_written += 1;
        totals.bytes_written += content.len() as u64;
        bytes_pending += (content.len() + key.len()) as u64;
        if bytes_pending >= TXN_BYTES_MAX
            && let Some(full) = write.take()
        {
            commit(full, &tag, dir, totals)?;
            bytes_pending = 0;
        }
    }
    match write {
        Some(txn) if bytes_pending > 0 => commit(txn, &tag, dir, totals),
        Some(txn) => {
            txn.abort();
            Ok(())
        }
        None => Ok(()),
    }
}

fn commit(mut txn: WriteTxn, tag: &[u8], dir: &Path, totals: &mut Totals) -> Result<(), Failure> {
    let fail = || format!("cannot commit the files of {}", dir.display());
    txn.set_tag(tag).during(fail)?;
    let commit = txn.commit().during(fail)?;
    totals.last_txn = commit.txn_id.get();
    totals.transactions += 1;
    Ok(())
}

/// The content of a file; none when it is beyond the limit, also when it grew since it was listed.
fn content(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = std::fs::File::options().read(true).open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= FILE_BYTES_MAX).then_some(bytes))
}
