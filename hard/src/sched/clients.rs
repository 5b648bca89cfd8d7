//! What the threads of a run do, and what they saw: noted, and judged when all is over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use northstar_io::sim::{Fault, FaultPlan, Kept, Rule, SimDisk, What};
use northstardb::internals::Joined;
use northstardb::{
    Commit, CommitHandle, Db, Durability, Error, LogFilter, ReadTxn, Table, TxnId, WriteBatch,
    WriteTxn, internals,
};

use super::explorer;
use super::setting::{Setting, TABLES};
use crate::exec::{Pairs, View};
use crate::model::edge_bytes;
use crate::ops::{Edit, Fill, key_bytes, table_name, value_bytes};
use crate::rng::Rng;
use crate::sim::faults::ERRNOS;
use crate::{During, Failure};

/// The mark of the moment at which closing had returned: nothing is written from then on.
pub const CLOSED: u64 = u64::MAX;

/// Something that was read.
#[derive(Debug)]
pub struct Seen {
    /// The snapshot's transaction.
    pub at: TxnId,
    /// The table.
    pub slot: u8,
    /// What was asked, and what came.
    pub what: Answer,
}

/// See [`Seen`].
#[derive(Debug)]
pub enum Answer {
    /// One key's value.
    Value(Vec<u8>, Option<Vec<u8>>),
    /// The rows of a range.
    Rows(Bound<Vec<u8>>, Bound<Vec<u8>>, Pairs),
}

/// What happened, in the words of those who did it.
#[derive(Debug, Default)]
pub struct Book {
    /// Transactions that were committed, and their edits.
    pub committed: Vec<(TxnId, Vec<Edit>)>,
    /// Edits of which nobody knows whether they were committed: on their way, or ended by an error.
    pub tried: BTreeMap<u64, Vec<Edit>>,
    /// What was read.
    pub seen: Vec<Seen>,
    /// Threads that an error of a rough run ended.
    pub ended: u64,
    /// The newest transaction that somebody knows to be durable.
    known: TxnId,
    /// Snapshots opened.
    pub snapshots: u64,
    /// Checkpoints asked for.
    pub checkpoints: u64,
    /// Transactions that followers of the log were shown.
    pub followed: u64,
    /// Backups, each with the transaction whose state it is of.
    pub saved: Vec<(TxnId, Vec<u8>)>,
    attempts: u64,
}

impl Book {
    /// Somebody is about to commit these. Gives the attempt's number.
    fn attempt(&mut self, edits: &[Edit]) -> u64 {
        self.attempts += 1;
        self.tried.insert(self.attempts, edits.to_vec());
        self.attempts
    }

    /// An attempt became a transaction.
    fn committed(&mut self, attempt: u64, txn: TxnId) {
        let edits = self.tried.remove(&attempt).unwrap_or_default();
        self.committed.push((txn, edits));
    }
}

/// What makes a run rough: then errors end threads, and what they tried may have been committed or not.
#[derive(Debug, Clone, Default)]
pub struct Rough {
    /// What the disk meets.
    pub faults: FaultPlan,
    /// Somebody closes the database while others work.
    pub closed_early: bool,
}

impl Rough {
    /// Most runs are not.
    #[must_use]
    pub fn of(rng: &mut Rng) -> Self {
        let mut rough = Self::default();
        match rng.below(10) {
            0 => rough.closed_early = true,
            1..3 => {
                let (what, fault) = match rng.below(8) {
                    0..4 => (
                        rng.pick(&[What::Any, What::Read, What::Write, What::Sync]),
                        Fault::Error(rng.pick(&ERRNOS)),
                    ),
                    4 => (What::Write, Fault::ErrorAfter(libc::EIO)),
                    5 => (
                        rng.pick(&[What::Read, What::Write]),
                        Fault::Short(4096 * rng.index(2)),
                    ),
                    _ => {
                        let kept = rng.pick(&[Kept::Nothing, Kept::All, Kept::Some]);
                        (What::Sync, Fault::SyncFails(libc::EIO, kept))
                    }
                };
                let within = rng.pick(&[10, 60, 200]);
                rough.faults.rules.push(Rule {
                    what,
                    file: None,
                    after: rng.below(within),
                    sticky: rng.chance(30),
                    fault,
                });
            }
            _ => {}
        }
        rough
    }

    /// Whether anything may go wrong.
    #[must_use]
    pub fn is_rough(&self) -> bool {
        self.closed_early || !self.faults.rules.is_empty()
    }

    /// Whether this may come of what has happened to the disk so far.
    #[must_use]
    pub fn explains(&self, failure: &Failure, disk: &SimDisk) -> bool {
        let Failure::Engine { source, .. } = failure else {
            return false;
        };
        let faulty = has_failed(disk);
        let of_disk = matches!(
            source,
            Error::Io(_) | Error::Full { .. } | Error::Halted { .. }
        );
        (faulty && of_disk) || (self.closed_early && matches!(source, Error::Closed))
    }
}

/// Whether an operation of the disk has failed, or moved nothing at all.
#[must_use]
pub fn has_failed(disk: &SimDisk) -> bool {
    let atlas = disk.atlas();
    atlas
        .iter()
        .any(|injected| !matches!(injected.fault, Fault::Short(1..)))
}

/// What all threads of a run share.
#[derive(Debug)]
pub struct Stage {
    /// Where they work.
    pub setting: Arc<Setting>,
    /// The database.
    pub db: Db,
    /// Its disk.
    pub disk: Arc<SimDisk>,
    /// Its tables.
    pub tables: Vec<Table>,
    /// What may go wrong.
    pub rough: Rough,
    book: Mutex<Book>,
}

impl Stage {
    /// For a run on a database that was just opened.
    ///
    /// # Errors
    /// The engine's.
    pub fn new(
        setting: Arc<Setting>,
        db: Db,
        disk: Arc<SimDisk>,
        rough: Rough,
    ) -> Result<Self, Failure> {
        let open = |slot| db.open_table(&table_name(slot)).during("open a table");
        let tables = (0..TABLES).map(open).collect::<Result<_, _>>()?;
        Ok(Self {
            setting,
            db,
            disk,
            tables,
            rough,
            book: Mutex::default(),
        })
    }

    /// The database and the book, when all is done.
    #[must_use]
    pub fn leave(self) -> (Db, Book) {
        let book = self
            .book
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (self.db, book)
    }

    /// The book. Nobody pauses while holding it.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody knows that `txn` is durable: from here on no power cut may take it.
    fn know(&self, txn: TxnId) {
        let mut book = self.book();
        book.known = book.known.max(txn);
        self.disk.mark(txn.get());
    }

    /// Reads a little in a view of the state at `at`, which is not known before a transaction ends.
    fn look(&self, view: &dyn View, rng: &mut Rng) -> Result<Vec<(u8, Answer)>, Failure> {
        let mut answers = Vec::new();
        for _ in 0..rng.between(1, 4) {
            let slot = self.slot(rng);
            let table = &self.tables[usize::from(slot)];
            let answer = match rng.below(10) {
                0..5 => {
                    let key = self.key(rng);
                    let value = view.value(table, &key).during("get")?;
                    Answer::Value(key, value)
                }
                5..8 => {
                    let (from, to) = (
                        Bound::Included(self.key(rng)),
                        Bound::Excluded(self.key(rng)),
                    );
                    let turns = rng.pick(&[&[true][..], &[false], &[true, false]]);
                    let (mut rows, back) = view.rows(table, &from, &to, turns).during("range")?;
                    rows.extend(back.into_iter().rev());
                    Answer::Rows(from, to, rows)
                }
                _ => {
                    let all = (Bound::Unbounded, Bound::Unbounded);
                    let (rows, _) = view.rows(table, &all.0, &all.1, &[true]).during("range")?;
                    Answer::Rows(all.0, all.1, rows)
                }
            };
            answers.push((slot, answer));
        }
        Ok(answers)
    }

    fn note(&self, at: TxnId, answers: Vec<(u8, Answer)>) {
        let seen = answers
            .into_iter()
            .map(|(slot, what)| Seen { at, slot, what });
        self.book().seen.extend(seen);
    }

    fn slot(&self, rng: &mut Rng) -> u8 {
        u8::from(rng.chance(25))
    }

    fn number(&self, rng: &mut Rng) -> u32 {
        // Some that were never stored.
        u32::try_from(rng.below(u64::from(self.setting.keys) * 5 / 4)).unwrap_or(0)
    }

    fn key(&self, rng: &mut Rng) -> Vec<u8> {
        key_bytes(self.setting.style, self.number(rng))
    }

    fn edits(&self, rng: &mut Rng) -> Vec<Edit> {
        let count = rng.pick(&[1, 1, 2, 5, 30]);
        let edit = |_| {
            let (slot, key) = (self.slot(rng), self.number(rng));
            match rng.below(10) {
                0 => Edit::Delete { slot, key },
                1 => Edit::DeleteRange {
                    slot,
                    from: Bound::Included(key),
                    to: Bound::Excluded(key + rng.pick(&[1, 2, 5])),
                },
                _ => Edit::Put {
                    slot,
                    key,
                    value: match count {
                        // Many small ones: the delta's nodes split.
                        30 => Fill {
                            len: 9,
                            ..self.setting.fill(rng)
                        },
                        _ => self.setting.fill(rng),
                    },
                },
            }
        };
        (0..count).map(edit).collect()
    }

    /// Makes edits in a write transaction.
    fn perform(&self, write: &mut WriteTxn, edits: &[Edit]) -> Result<(), Failure> {
        let style = self.setting.style;
        for edit in edits {
            if let Edit::Put { slot, key, value } = edit {
                let table = &self.tables[usize::from(*slot)];
                let (key, value) = (key_bytes(style, *key), value_bytes(*value));
                write.put(table, key, value).during("put")?;
            } else if let Edit::Delete { slot, key } = edit {
                let table = &self.tables[usize::from(*slot)];
                write
                    .delete(table, key_bytes(style, *key))
                    .during("delete")?;
            } else if let Edit::DeleteRange { slot, from, to } = edit {
                let table = &self.tables[usize::from(*slot)];
                let range = (edge_bytes(style, *from), edge_bytes(style, *to));
                write.delete_range(table, range).during("delete_range")?;
            }
        }
        Ok(())
    }

    fn batch(&self, edits: &[Edit], durability: Durability) -> WriteBatch {
        let style = self.setting.style;
        let mut batch = WriteBatch::new();
        for edit in edits {
            if let Edit::Put { slot, key, value } = edit {
                let table = &self.tables[usize::from(*slot)];
                batch.put(table, key_bytes(style, *key), value_bytes(*value));
            } else if let Edit::Delete { slot, key } = edit {
                batch.delete(&self.tables[usize::from(*slot)], key_bytes(style, *key));
            } else if let Edit::DeleteRange { slot, from, to } = edit {
                let range = (edge_bytes(style, *from), edge_bytes(style, *to));
                batch.delete_range(&self.tables[usize::from(*slot)], range);
            }
        }
        batch.durability(durability);
        batch
    }
}

/// Commits in every way there is.
///
/// # Errors
/// A broken promise, or an error of the engine.
pub fn write(stage: &Stage, mut rng: Rng) -> Result<(), Failure> {
    let mut pending: Vec<(CommitHandle, u64)> = Vec::new();
    let mut last = TxnId::ZERO;
    for _ in 0..rng.between(1, 5) {
        let edits = stage.edits(&mut rng);
        match rng.below(20) {
            0..8 => {
                let batch = stage.batch(&edits, Durability::Durable);
                let attempt = stage.book().attempt(&edits);
                let txn = stage.db.commit(batch).during("commit")?.txn_id;
                stage.book().committed(attempt, txn);
                rises(&mut last, txn)?;
                stage.know(txn);
            }
            8..10 => {
                let batch = stage.batch(&edits, Durability::Buffered);
                let attempt = stage.book().attempt(&edits);
                let txn = stage.db.commit(batch).during("commit")?.txn_id;
                stage.book().committed(attempt, txn);
                rises(&mut last, txn)?;
            }
            10..14 => {
                // Some at once, so that groups have many waiters.
                for _ in 0..rng.pick(&[1, 1, 3, 9]) {
                    let batch = stage.batch(&edits, Durability::Durable);
                    let attempt = stage.book().attempt(&edits);
                    let handle = stage.db.submit(batch).during("submit")?;
                    pending.push((handle, attempt));
                }
                if rng.chance(50) {
                    settle(stage, &mut pending, &mut last)?;
                }
            }
            _ => exclusive(stage, &edits, &mut rng, &mut last)?,
        }
    }
    settle(stage, &mut pending, &mut last)
}

fn rises(last: &mut TxnId, txn: TxnId) -> Result<(), Failure> {
    if txn <= *last {
        return Err(Failure::Broken(format!(
            "a thread committed {txn:?} after it had committed {last:?}"
        )));
    }
    *last = txn;
    Ok(())
}

/// Waits for what was submitted, and checks that it kept its order.
fn settle(
    stage: &Stage,
    pending: &mut Vec<(CommitHandle, u64)>,
    last: &mut TxnId,
) -> Result<(), Failure> {
    let mut before = TxnId::ZERO;
    for (handle, attempt) in pending.drain(..) {
        let txn = handle.wait().during("wait for a commit")?.txn_id;
        stage.book().committed(attempt, txn);
        rises(&mut before, txn)?;
        stage.know(txn);
    }
    *last = (*last).max(before);
    Ok(())
}

/// A write transaction that reads, and then commits or gives up.
fn exclusive(
    stage: &Stage,
    edits: &[Edit],
    rng: &mut Rng,
    last: &mut TxnId,
) -> Result<(), Failure> {
    let mut write = stage.db.begin_write().during("begin_write")?;
    let before = stage.look(&write, rng)?;
    stage.perform(&mut write, edits)?;
    if rng.chance(20) {
        write.abort();
        return Ok(());
    }
    let after = stage.look(&write, rng)?;
    let attempt = stage.book().attempt(edits);
    let txn = write.commit().during("commit")?.txn_id;
    stage.book().committed(attempt, txn);
    rises(last, txn)?;
    stage.know(txn);
    stage.note(TxnId::new(txn.get() - 1), before);
    stage.note(txn, after);
    Ok(())
}

/// Opens snapshots, keeps some, and reads in all of them.
///
/// # Errors
/// A broken promise, or an error of the engine.
pub fn read(stage: &Stage, mut rng: Rng) -> Result<(), Failure> {
    let mut held: Vec<ReadTxn> = Vec::new();
    let mut last = TxnId::ZERO;
    for _ in 0..rng.between(1, 6) {
        let known = stage.book().known;
        // Before anything was seen there is no earlier state that the book knows.
        let read = match rng.chance(15) && last > TxnId::ZERO {
            false => stage.db.begin_read().during("begin_read")?,
            true => match stage.db.begin_read_at(last) {
                Ok(read) => read,
                Err(Error::SnapshotGone { horizon, .. }) if last < horizon => continue,
                Err(other) => return Err(other).during("begin_read_at"),
            },
        };
        let at = read.txn_id();
        if at != last {
            if at < known || at < last {
                return Err(Failure::Broken(format!(
                    "a snapshot of {at:?} was opened after {known:?} was acknowledged and {last:?} was seen"
                )));
            }
            last = at;
            // What was seen may not be lost.
            stage.know(at);
        }
        stage.book().snapshots += 1;
        stage.note(at, stage.look(&read, &mut rng)?);
        pinned(stage, &read, &mut rng)?;
        held.push(read);
        if rng.chance(60) {
            let nth = rng.index(held.len());
            let again = &held[nth];
            stage.note(again.txn_id(), stage.look(again, &mut rng)?);
            held.swap_remove(nth);
        }
    }
    for read in held {
        stage.note(read.txn_id(), stage.look(&read, &mut rng)?);
    }
    Ok(())
}

/// A value that is borrowed while other things happen.
fn pinned(stage: &Stage, read: &ReadTxn, rng: &mut Rng) -> Result<(), Failure> {
    let slot = stage.slot(rng);
    let key = stage.key(rng);
    let value = read
        .get(&stage.tables[usize::from(slot)], &key)
        .during("get")?;
    let meanwhile = stage.look(read, rng)?;
    internals::pause();
    let value = value.map(|value| value.to_vec());
    stage.note(read.txn_id(), meanwhile);
    stage.note(read.txn_id(), vec![(slot, Answer::Value(key, value))]);
    Ok(())
}

/// Follows the log: every transaction from where it begins on, once, in order, and not before it is durable.
///
/// # Errors
/// A broken promise, or an error of the engine.
pub fn follow(stage: &Stage, mut rng: Rng) -> Result<(), Failure> {
    let log = stage.db.log().during("log")?;
    let from = match rng.chance(50) {
        true => log.first().during("the log's first")?,
        false => log.next(),
    };
    let trimmed = |error: &Error| matches!(error, Error::NotInLog { .. });
    let mut tail = match log.tail(from, LogFilter::all()) {
        Err(error) if trimmed(&error) => return Ok(()),
        other => other.during("tail")?,
    };
    let mut expected = from;
    // It asks instead of waiting: in some runs no time ever passes, and nobody knows whether another commit will come.
    // Waiting itself is a model of its own.
    for _ in 0..rng.between(5, 40) {
        let found = match tail.try_next() {
            Ok(Some(found)) => found,
            Ok(None) => {
                (0..rng.below(100)).for_each(|_| internals::pause());
                continue;
            }
            Err(error) if trimmed(&error) => return Ok(()),
            Err(other) => return Err(other).during("follow the log"),
        };
        if found.txn_id() != expected {
            let found = found.txn_id();
            return Err(Failure::Broken(format!(
                "the log shows {found:?}, expected {expected:?}"
            )));
        }
        // What was shown may not be lost, and is there for readers.
        stage.know(expected);
        let at = stage.db.begin_read().during("begin_read")?.txn_id();
        if at < expected {
            return Err(Failure::Broken(format!(
                "the log shows {expected:?}, a snapshot after that is of {at:?}"
            )));
        }
        stage.book().followed += 1;
        expected = expected.next();
    }
    Ok(())
}

/// Asks for checkpoints, saves, and lets the engine check itself.
///
/// # Errors
/// A broken promise, or an error of the engine.
pub fn tend(stage: &Stage, mut rng: Rng) -> Result<(), Failure> {
    for _ in 0..rng.between(1, 3) {
        if rng.chance(70) {
            stage.db.checkpoint().during("checkpoint")?;
            stage.book().checkpoints += 1;
        } else if rng.chance(30) {
            let mut bytes = Vec::new();
            let made = stage.db.backup(&mut bytes).during("backup")?;
            // What was saved may not be lost.
            stage.know(made.to);
            stage.book().saved.push((made.to, bytes));
        } else {
            let report = stage.db.check().during("check")?;
            // A page that cannot be read is a fault of the disk here, not of what is on it.
            if !report.faults.is_empty() && !has_failed(&stage.disk) {
                return Err(Failure::Broken(format!("check found {:?}", report.faults)));
            }
        }
    }
    Ok(())
}

/// Closes the database, at some moment.
///
/// # Errors
/// As [`tend`].
pub fn close(stage: &Stage, mut rng: Rng) -> Result<(), Failure> {
    let within = rng.pick(&[10, 100, 1_000]);
    for _ in 0..rng.below(within) {
        internals::pause();
    }
    stage.db.clone().close().during("close")?;
    stage.disk.mark(CLOSED);
    Ok(())
}

/// The last thing that happens to a database: a write transaction that outlives its handle, with a batch behind it.
#[derive(Debug)]
pub struct Outlived {
    write: WriteTxn,
    edits: Vec<Edit>,
    handle: CommitHandle,
    behind: Vec<Edit>,
}

impl Outlived {
    /// Begins it.
    ///
    /// # Errors
    /// The engine's.
    pub fn begin(stage: &Stage, rng: &mut Rng) -> Result<Self, Failure> {
        let mut write = stage.db.begin_write().during("begin_write")?;
        let (edits, behind) = (stage.edits(rng), stage.edits(rng));
        stage.perform(&mut write, &edits)?;
        let durability = rng.pick(&[Durability::Durable, Durability::Buffered]);
        let batch = stage.batch(&behind, durability);
        let handle = stage.db.submit(batch).during("submit")?;
        Ok(Self {
            write,
            edits,
            handle,
            behind,
        })
    }

    /// Commits both, by a thread each, while the handle goes.
    pub fn end(self, book: &Arc<Mutex<Book>>) -> [Arc<dyn Joined>; 2] {
        let note =
            |book: &Arc<Mutex<Book>>, edits, commit: northstardb::Result<Commit>| match commit
                .during("commit beyond the handle")
            {
                Ok(commit) => {
                    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                    book.committed.push((commit.txn_id, edits));
                }
                Err(failure) => explorer::fail(failure),
            };
        let (one, other) = (Arc::clone(book), Arc::clone(book));
        let Self {
            write,
            edits,
            handle,
            behind,
        } = self;
        [
            explorer::spawn("outliving", move || note(&one, edits, write.commit())),
            explorer::spawn("behind it", move || note(&other, behind, handle.wait())),
        ]
    }
}
