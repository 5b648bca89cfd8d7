//! Opening what damage has left: whether it is found out, and what finding it out costs.
//!
//! Every row opens copies of one database: what a killed process left, each damaged in the same way. In turn with them
//! undamaged copies are opened. These are known kinds of damage with one right answer each; the search for unknown ones is
//! `nshard`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::Rows;
use crate::error::{BenchError, Result};
use crate::row::{Ctx, Outcome, Row, plain, remove};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, Error, TxnId, WriteBatch};

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/hardening/torn_write_header_detection",
        question: "Is a group of the log found out whose header was written in part?",
        unit: "open",
        run: torn_write_header_detection,
    },
    Row {
        name: "bench/hardening/torn_write_payload_detection",
        question: "Is a group of the log found out whose records were written in part?",
        unit: "open",
        run: torn_write_payload_detection,
    },
    Row {
        name: "bench/hardening/short_write_missing_trailer",
        question: "Is a group of the log found out that lacks its last bytes?",
        unit: "open",
        run: short_write_missing_trailer,
    },
    Row {
        name: "bench/hardening/mixed_valid_corrupt_records",
        question: "Is a log refused, and left as it is, whose damaged groups lie between sound ones?",
        unit: "refused open",
        run: mixed_valid_corrupt_records,
    },
    Row {
        name: "bench/hardening/invalid_magic_number",
        question: "Is a file refused, and left as it is, none of whose first pages says that it is a database?",
        unit: "refused open",
        run: invalid_magic_number,
    },
    Row {
        name: "bench/hardening/clean_recovery_to_txn_id",
        question: "Does opening after a crash lead to the last transaction that was acknowledged, with all of its rows?",
        unit: "open",
        run: clean_recovery_to_txn_id,
    },
];

/// Opens of damaged copies, and of undamaged ones.
const OPENS: usize = 10;
/// Durable transactions in the log, each a group.
const COMMITS: u64 = 500;
/// Rows of each: so many that a group has several sectors, and still one block of the log.
const ROWS_EACH: u64 = 20;
/// Groups begin at multiples of this. Spec: CR-001.
const LOG_BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Pages at the begin of the data file that say what it is. Spec: FF-010.
const META_PAGES: usize = 4;

/// What a process left that was killed: the files by their paths below the database.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A database at rest, and what was acknowledged of it.
struct Left {
    files: Files,
    rows: Rows,
    acknowledged: Vec<TxnId>,
}

/// What opening must come to.
#[derive(Clone, Copy)]
enum Expected {
    /// All transactions but so many of the last.
    Without(usize),
    /// A refusal, after which the files are what they were.
    Refused,
}

fn wrong<T>(what: impl Into<String>) -> Result<T> {
    Err(BenchError::Wrong { what: what.into() })
}

/// Reads all files below `at`, except those that are empty.
fn read_files(root: &Path, at: &Path, into: &mut Files) -> Result<()> {
    for entry in std::fs::read_dir(at).map_err(BenchError::file(at))? {
        let path = entry.map_err(BenchError::file(at))?.path();
        if path.is_dir() {
            read_files(root, &path, into)?;
            continue;
        }
        let bytes = std::fs::read(&path).map_err(BenchError::file(&path))?;
        let below = path.strip_prefix(root).unwrap_or(&path);
        into.insert(below.to_owned(), bytes);
    }
    Ok(())
}

/// Writes them, through to the disk: an open that reads them directly would wait for that.
fn write_files(root: &Path, files: &Files) -> Result<()> {
    for (below, bytes) in files {
        let path = root.join(below);
        let dir = path.parent().unwrap_or(root);
        std::fs::create_dir_all(dir).map_err(BenchError::file(dir))?;
        let used = bytes.iter().rposition(|byte| *byte != 0);
        let used = bytes.get(..used.map_or(0, |last| last + 1));
        let write = || {
            std::fs::write(&path, used.unwrap_or_default())?;
            let file = std::fs::OpenOptions::new().write(true).open(&path)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        };
        write().map_err(BenchError::file(&path))?;
    }
    Ok(())
}

impl Left {
    /// Durable commits, one after the other, none of them in pages yet.
    fn make(ctx: &Ctx) -> Result<Self> {
        let (db, table) = ctx.fresh("hardened")?;
        let commits = COMMITS.min(ctx.scale.rows);
        let rows = Rows::new(commits * ROWS_EACH);
        let mut acknowledged = Vec::new();
        for commit in 0..commits {
            let mut batch = WriteBatch::new();
            for row in commit * ROWS_EACH..(commit + 1) * ROWS_EACH {
                batch.put(&table, rows.key(row), rows.value(row, commit));
            }
            acknowledged.push(db.commit(batch)?.txn_id);
        }
        // Nothing is on its way: the files are what a kill would leave now.
        let (dir, mut files) = (ctx.scratch.join("hardened"), Files::new());
        read_files(&dir, &dir, &mut files)?;
        drop((db, table));
        remove(&dir)?;
        Ok(Self {
            files,
            rows,
            acknowledged,
        })
    }

    /// The blocks of the log in which something was written: the paths of their files, and where in them.
    fn blocks(&self) -> Vec<(PathBuf, usize)> {
        let is_log = |path: &Path| path.extension().is_some_and(|name| name == "seg");
        let segments = self.files.iter().filter(|(path, _)| is_log(path));
        let blocks = segments.flat_map(|(path, bytes)| {
            let blocks = bytes.chunks(LOG_BLOCK).enumerate();
            let used = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            used.map(|(at, _)| (path.clone(), at * LOG_BLOCK))
        });
        blocks.collect()
    }

    /// The last group of the log in `files`. Each is one block.
    fn last_group<'f>(&self, files: &'f mut Files) -> Result<&'f mut [u8]> {
        let last = self.blocks().pop();
        let block = last.and_then(|(path, at)| files.get_mut(&path)?.get_mut(at..at + LOG_BLOCK));
        match block {
            Some(block) => Ok(block),
            None => wrong("the log is empty"),
        }
    }

    /// Whether `db` holds what was acknowledged but the last `without`, and nothing else.
    fn check(&self, db: &Db, without: usize) -> Result<()> {
        let kept = self.acknowledged.len() - without;
        let expected = self.acknowledged.get(kept.wrapping_sub(1));
        let read = db.begin_read()?;
        if Some(&read.txn_id()) != expected {
            return wrong(format!("opened at {:?}, not {expected:?}", read.txn_id()));
        }
        let table = db.open_table("rows")?;
        let mut found = 0;
        for row in read.range::<&[u8]>(&table, ..)? {
            let (key, value) = row?;
            let commit = found / ROWS_EACH;
            if key[..] != self.rows.key(found) || value[..] != self.rows.value(found, commit) {
                return wrong(format!("row {found} is another"));
            }
            found += 1;
        }
        match found == kept as u64 * ROWS_EACH {
            true => Ok(()),
            false => wrong(format!("{found} rows of {kept} transactions")),
        }
    }

    /// Opens copies with the damage that `damage` does, in turn with undamaged ones.
    fn open_damaged(
        &self,
        ctx: &Ctx,
        damage: impl Fn(&mut Files) -> Result<()>,
        expected: Expected,
    ) -> Result<Outcome> {
        let mut damaged = self.files.clone();
        damage(&mut damaged)?;
        let (mut sample, mut sound) = (Sample::new(), Sample::new());
        for _ in 0..OPENS {
            sample.then(&self.open(ctx, &damaged, expected)?);
            sound.then(&self.open(ctx, &self.files, Expected::Without(0))?);
        }
        Ok(Outcome::of(sample)
            .floor_p50("the same without damage", &sound)
            .extra("transactions", self.acknowledged.len() as f64))
    }

    fn open(&self, ctx: &Ctx, files: &Files, expected: Expected) -> Result<Sample> {
        let dir = ctx.dir("damaged")?;
        write_files(&dir, files)?;
        let mut opened = None;
        let sample = measure(Until::Ops(1), 1, |_| {
            opened = Some(plain().open(&dir));
            Ok(())
        })?;
        match (opened, expected) {
            (Some(Ok(db)), Expected::Without(without)) => {
                self.check(&db, without)?;
                db.close()?;
            }
            (Some(Err(Error::Corrupt(_) | Error::NotADatabase { .. })), Expected::Refused) => {
                let mut after = Files::new();
                read_files(&dir, &dir, &mut after)?;
                if after != *files {
                    return wrong("what was refused is not what it was");
                }
            }
            (Some(Err(error)), _) => return Err(error.into()),
            (Some(Ok(_)) | None, _) => return wrong("damage was not found out"),
        }
        remove(&dir)?;
        Ok(sample)
    }
}

/// Question: the last group has the first half of its header, and zeros for the rest of its block. Not timed: making the
/// copies. Unit: one open of ten. Bound: an open of an undamaged copy, in turn with it. Checked: every transaction but that one,
/// every row.
fn torn_write_header_detection(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    let damage = |files: &mut Files| {
        let group = left.last_group(files)?;
        group.iter_mut().skip(32).for_each(|byte| *byte = 0);
        Ok(())
    };
    left.open_damaged(ctx, damage, Expected::Without(1))
}

/// Question: the last group has its first sectors, and zeros for the rest of its block. Unit: one open of ten. Bound: as above.
/// Checked: as above.
fn torn_write_payload_detection(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    let damage = |files: &mut Files| {
        let group = left.last_group(files)?;
        group.iter_mut().skip(2 * SECTOR).for_each(|byte| *byte = 0);
        Ok(())
    };
    left.open_damaged(ctx, damage, Expected::Without(1))
}

/// Question: the last group lacks the last bytes that are not zero: the trailer of its last record. Unit: one open of ten.
/// Bound: as above. Checked: as above.
fn short_write_missing_trailer(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    let damage = |files: &mut Files| {
        let group = left.last_group(files)?;
        let used = group.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let from = used.saturating_sub(8);
        group.iter_mut().skip(from).for_each(|byte| *byte = 0);
        Ok(())
    };
    left.open_damaged(ctx, damage, Expected::Without(1))
}

/// Question: a bit of every tenth group but the last is another; the sound ones behind them prove that all were durable. Unit: one
/// refused open of ten. Bound: as above. Checked: that it is refused as corrupt, and that no file has changed.
fn mixed_valid_corrupt_records(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    let damage = |files: &mut Files| {
        let mut blocks = left.blocks();
        blocks.pop();
        for (path, at) in blocks.iter().skip(5).step_by(10) {
            let byte = files
                .get_mut(path)
                .and_then(|bytes| bytes.get_mut(at + 100));
            if let Some(byte) = byte {
                *byte ^= 0x10;
            }
        }
        Ok(())
    };
    left.open_damaged(ctx, damage, Expected::Refused)
}

/// Question: the first bytes of each of the first pages are others. Unit: one refused open of ten. Bound: as above. Checked: that
/// it is refused, and that no file has changed.
fn invalid_magic_number(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    let damage = |files: &mut Files| {
        let Some(data) = files.get_mut(Path::new("data")) else {
            return wrong("there is no data file");
        };
        for page in data.chunks_mut(crate::floor::PAGE_BYTES).take(META_PAGES) {
            page.iter_mut().take(4).for_each(|byte| *byte ^= 0xff);
        }
        Ok(())
    };
    left.open_damaged(ctx, damage, Expected::Refused)
}

/// Question: nothing is damaged. Unit: one open of ten. Bound: as above, which is the same here: how much two halves of one
/// measurement differ. Checked: the last transaction that was acknowledged, every row of every one.
fn clean_recovery_to_txn_id(ctx: &mut Ctx) -> Result<Outcome> {
    let left = Left::make(ctx)?;
    left.open_damaged(ctx, |_| Ok(()), Expected::Without(0))
}
