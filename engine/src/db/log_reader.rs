//! Reading the commit log of a database that nobody need be able to open.
//!
//! The log is verified first, so that it is known where it ends and what of it is damaged; then it is read again, and what was
//! found decides how far.
//!
//! - Cost: two passes over the log; memory of one group and the report.
//! - Spec: SE-026.

use std::iter::FusedIterator;
use std::path::Path;
use std::sync::Arc;

use northstar_io::{Disk, FileLock};

use super::log::{LogFilter, Transaction, damaged};
use super::open::native_disk;
use super::options::Options;
use super::verify::{LogReport, examine};
use crate::error::{Error, Result};
use crate::ids::{Lsn, TxnId};
use crate::log::Follower;

/// The transactions of a log, read without its database: see [`Options::read_log`].
///
/// As an iterator it ends where [`LogReader::report`] says that the log ends. An error is the last that it gives: what is missing
/// behind it would have to be applied first.
#[derive(Debug)]
pub struct LogReader {
    report: LogReport,
    database: Option<u64>,
    follower: Option<Follower>,
    end: Lsn,
    /// What was asked for first, and what comes next.
    from: TxnId,
    next: TxnId,
    ended: bool,
    filter: Arc<LogFilter>,
    _lock: Option<Box<dyn FileLock>>,
}

impl Options {
    /// Reads the commit log of the database in directory `path` from transaction `from` on, without opening the database: for one
    /// whose data file is lost or damaged. Writes nothing but the lock. A data file that is there says whose log it is and how far it
    /// was durable: one of another database is to be removed first.
    ///
    /// What it gives can be applied to an empty database, if the log reaches back to the first transaction, or to one that was
    /// restored from a backup: `from` is then [`Apply::next`](crate::Apply::next). A sound log ends with the last commit that was
    /// acknowledged as durable, or a little behind it. What is damaged or missing before its end is an error where it would come. At
    /// the very end, and without a meta page that knows better, damage may pass for what a crash left: [`LogReport::tail`]. A
    /// database that is open elsewhere is refused.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # use northstardb::{Db, Options, Retention};
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let (lost, rebuilt) = (dir.path().join("lost"), dir.path().join("rebuilt"));
    /// let db = Options::new().log_retention(Retention::All).open(&lost)?;
    /// let table = db.table("users")?;
    /// let mut txn = db.begin_write()?;
    /// txn.put(&table, "ada", "1815")?;
    /// txn.commit()?;
    /// let state = db.begin_read()?.state_hash()?;
    /// db.close()?;
    /// std::fs::remove_file(lost.join("data")).expect("it was there");
    ///
    /// let copy = Db::open(&rebuilt)?;
    /// let mut apply = copy.begin_apply()?;
    /// for transaction in Options::new().read_log(&lost, apply.next())? {
    ///     apply.push(transaction?)?;
    /// }
    /// apply.finish()?;
    /// assert_eq!(copy.begin_read()?.state_hash()?, state);
    /// # copy.close() }
    /// ```
    ///
    /// # Errors
    /// As [`Options::verify_log`], and [`Error::NotInLog`] for a transaction before the first that the log holds, or beyond the one
    /// that would come next.
    pub fn read_log(self, path: impl AsRef<Path>, from: TxnId) -> Result<LogReader> {
        let options = self.checked()?;
        let disk = native_disk(&options);
        read_log_in(&options, path.as_ref(), &disk, from)
    }
}

/// As [`Options::read_log`], on any disk.
pub(crate) fn read_log_in(
    options: &Options,
    dir: &Path,
    disk: &Arc<dyn Disk>,
    from: TxnId,
) -> Result<LogReader> {
    let examined = examine(options, dir, disk)?;
    let (report, segments) = (examined.report, examined.segments);
    let from = from.max(TxnId::ZERO.next());
    let next = report.next.unwrap_or(TxnId::ZERO.next());
    let first = report.first.unwrap_or(next);
    if from < first || from > next {
        return Err(Error::NotInLog {
            asked: from,
            first,
            next,
        });
    }
    let (start, end) = (segments.start(), examined.end);
    let follower = examined
        .database
        .and_then(|database| Follower::from_any(&segments, database, start, end));
    Ok(LogReader {
        report,
        database: examined.database,
        follower,
        end,
        from,
        next: from,
        ended: false,
        filter: Arc::new(LogFilter::every_transaction()),
        _lock: examined.lock,
    })
}

impl LogReader {
    /// What verifying the log found: where it begins and ends, and what of it is damaged.
    #[must_use]
    pub const fn report(&self) -> &LogReport {
        &self.report
    }

    /// The transaction that it gives next, or would.
    #[must_use]
    pub const fn next_txn(&self) -> TxnId {
        self.next
    }

    /// Whether the log says that it is of the database with this id ([`Db::id`](crate::Db::id)), or of a copy of its files. It says
    /// half of the id.
    #[must_use]
    pub fn is_of(&self, database: u128) -> bool {
        self.database.map(u128::from) == Some(database & u128::from(u64::MAX))
    }

    fn look(&mut self) -> Result<Option<Transaction>> {
        let until = self.report.next.unwrap_or(self.next);
        while self.next < until {
            let Some(follower) = &mut self.follower else {
                return Err(self.missing());
            };
            if follower.txn() > self.next {
                return Err(self.missing());
            }
            let is_earlier = follower.txn() < self.next;
            match follower.next(self.end) {
                Ok(Some(_)) if is_earlier => {}
                Ok(Some(record)) => {
                    let found = Transaction::of(&record, &self.filter)?;
                    self.next = self.next.next();
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok(None) => return Err(self.missing()),
                // Of what was not asked for.
                Err(_) if is_earlier => drop(follower.skip_damage(self.end)),
                Err(error) => return Err(error.into()),
            }
        }
        let concerns = |next: Option<TxnId>| next.is_none_or(|next| next > self.from);
        match self.report.holes.iter().find(|hole| concerns(hole.next)) {
            None => Ok(None),
            Some(hole) => Err(damaged(hole.why.clone())),
        }
    }

    fn missing(&self) -> Error {
        damaged(format!("{} is not found in it", self.next))
    }
}

impl Iterator for LogReader {
    type Item = Result<Transaction>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = self.look();
        self.ended = !matches!(found, Ok(Some(_)));
        found.transpose()
    }
}

impl FusedIterator for LogReader {}
