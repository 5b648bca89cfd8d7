//! Backups, restored databases, copies made of the commit stream and digests of states, beside the model.

use std::path::PathBuf;

use northstardb::{Backup, Db, Error, LogFilter, Options, ReadTxn, Retention, TxnId};

use super::{BUDGET_LEAST, DELTA_BYTES_LEAST, Runner};
use crate::exec::tables_of;
use crate::rng::Rng;
use crate::{During, Failure};

/// A full backup, and what leads on from it.
#[derive(Debug)]
pub(super) struct Saved {
    full: Vec<u8>,
    to: TxnId,
    increments: Vec<(Backup, Vec<u8>)>,
    /// The state that all of it leads to.
    last: TxnId,
}

/// A second database, made of what the first has committed.
#[derive(Debug)]
pub(super) struct Copy {
    db: Db,
    dir: PathBuf,
    options: Options,
}

impl Copy {
    /// Opens it again, with a close or without.
    fn reopen(self, close: bool) -> Result<Self, Failure> {
        let Self { db, dir, options } = self;
        match close {
            true => db.close().during("close a copy")?,
            false => drop(db),
        }
        let db = options.clone().open(&dir).during("open a copy again")?;
        Ok(Self { db, dir, options })
    }

    /// Closes it and takes its files away.
    fn remove(self) -> Result<(), Failure> {
        self.db.close().during("close a copy")?;
        std::fs::remove_dir_all(&self.dir).during("remove a copy")
    }
}

fn broken<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Broken(what))
}

impl Runner {
    /// Options of another database that holds the same rows.
    fn other_options(&self, rng: &mut Rng) -> Options {
        // Keys that a page takes fit a larger one.
        let page_bytes = rng.pick(&[4096, 16384, 65536]).max(self.setup.page_bytes);
        let options = Options::new()
            .backend(self.setup.backend)
            .page_bytes(page_bytes)
            .delta_bytes(rng.pick(&[DELTA_BYTES_LEAST, 4 << 20]))
            .memory_budget(BUDGET_LEAST)
            .log_segment_bytes(64 << 10);
        match rng.chance(70) {
            true => options.history(Retention::All),
            false => options,
        }
    }

    /// Takes a backup.
    pub(super) fn save(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.settle()?;
        // Whose states the model has forgotten cannot be compared any more.
        let oldest = self.model.txns()[0];
        let saved = self.saved.take().filter(|saved| saved.to >= oldest);
        self.saved = match saved {
            Some(saved) if !rng.chance(20) => self.save_since(saved, rng)?,
            _ => Some(self.save_all()?),
        };
        Ok(())
    }

    fn save_all(&mut self) -> Result<Saved, Failure> {
        let mut full = Vec::new();
        let made = self.db().backup(&mut full).during("backup")?;
        let newest = self.model.newest().0;
        self.totals.backups += 1;
        if made.to != newest || !made.is_full || made.bytes != full.len() as u64 {
            return broken(format!(
                "a backup is {made:?}, of {} bytes; the newest is {newest:?}",
                full.len()
            ));
        }
        // What was saved is durable.
        self.durable = self.durable.max(made.to);
        verified(made, &full)?;
        if self
            .digest(made.to)?
            .is_some_and(|now| Some(now) != made.state)
        {
            return broken(format!("the digest of {made:?} is not that of its state"));
        }
        Ok(Saved {
            full,
            to: made.to,
            increments: Vec::new(),
            last: made.to,
        })
    }

    /// Adds an increment; gives nothing if the log does not reach back as far.
    fn save_since(&mut self, mut saved: Saved, rng: &mut Rng) -> Result<Option<Saved>, Failure> {
        // They may overlap.
        let since = match rng.chance(70) {
            true => saved.last,
            false => TxnId::new(rng.between(saved.to.get(), saved.last.get())),
        };
        let (mut bytes, db) = (Vec::new(), self.db());
        let made = match db.backup_since(since, &mut bytes) {
            Ok(made) => made,
            Err(Error::NotInLog { .. }) if self.is_trimmed(since)? => {
                self.totals.out_of_reach += 1;
                return Ok(None);
            }
            Err(error) => return Err(error).during("backup_since"),
        };
        let newest = self.model.newest().0;
        self.totals.backups += 1;
        let ends = (self.durable..=newest).contains(&made.to);
        if made.is_full || made.from != since || !ends || made.bytes != bytes.len() as u64 {
            return broken(format!(
                "an increment from {since:?} is {made:?}, of {} bytes; durable is {:?}, the newest {newest:?}",
                bytes.len(),
                self.durable
            ));
        }
        self.durable = self.durable.max(made.to);
        verified(made, &bytes)?;
        saved.increments.push((made, bytes));
        saved.last = made.to;
        Ok(Some(saved))
    }

    /// Whether the log may have let go of what follows `since`.
    fn is_trimmed(&self, since: TxnId) -> Result<bool, Failure> {
        let log = self.db().log().during("log")?;
        let first = log.first().during("the log's first")?;
        Ok(self.setup.log_retention != Retention::All && first > since.next())
    }

    /// The digest of the state right after `txn`, if it can still be read whole.
    fn digest(&mut self, txn: TxnId) -> Result<Option<northstardb::StateHash>, Failure> {
        match self.db().begin_read_at(txn) {
            Ok(read) => {
                self.totals.digests += 1;
                match read.state_hash() {
                    Err(Error::NoHistory { .. }) if has_unkept(&read)? => Ok(None),
                    found => found.during("state_hash").map(Some),
                }
            }
            Err(Error::SnapshotGone { .. }) => Ok(None),
            Err(error) => Err(error).during("begin_read_at"),
        }
    }

    /// Makes a database of what was saved, in any state that it leads to.
    pub(super) fn restore(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.settle()?;
        let Some(saved) = self.saved.take() else {
            return Ok(());
        };
        let done = self.restore_of(&saved, rng);
        self.saved = Some(saved);
        done
    }

    fn restore_of(&mut self, saved: &Saved, rng: &mut Rng) -> Result<(), Failure> {
        let target = match rng.chance(30) {
            true => saved.last,
            false => TxnId::new(rng.between(saved.to.get(), saved.last.get())),
        };
        let dir = self.dir.with_file_name("restored");
        let options = self.other_options(rng);
        let restore = options.clone().restore(&dir, &*saved.full);
        let mut restore = restore.during("restore")?;
        for (made, bytes) in &saved.increments {
            let reached = restore.state().during("state of a restore")?;
            let to = (made.to > target || rng.chance(50)).then_some(target);
            let now = restore.increment(&**bytes, to).during("increment")?;
            if now != made.to.min(target).max(reached) {
                return broken(format!(
                    "{made:?} led from {reached:?} to {now:?}, wanted {to:?}"
                ));
            }
        }
        let db = restore.finish();
        let mut copy = Copy { db, dir, options };
        if rng.chance(50) {
            copy = copy.reopen(rng.chance(50))?;
        }
        self.totals.restored += 1;
        self.is_as_at(&copy, target)?;
        let log = copy.db.log().during("log")?;
        for state in log.subscribers().during("subscribers")? {
            let mut followed = self.followed.iter();
            let followed = followed.find(|followed| followed.name() == state.name);
            let expected = followed.and_then(|followed| followed.next_at(target));
            if expected != Some(state.position) {
                return broken(format!(
                    "restored at {target:?} there is {state:?}, expected at {expected:?}"
                ));
            }
        }
        match self.copy {
            None => {
                let dir = self.dir.with_file_name("copy");
                copy.db.close().during("close what was restored")?;
                std::fs::rename(&copy.dir, &dir).during("move what was restored")?;
                let options = copy.options;
                let db = options.clone().open(&dir).during("open what was moved")?;
                self.copy = Some(Copy { db, dir, options });
                Ok(())
            }
            Some(_) => copy.remove(),
        }
    }

    /// Holds a copy against the model, in the state that it has come to.
    fn is_as_at(&mut self, copy: &Copy, txn: TxnId) -> Result<(), Failure> {
        let read = copy.db.begin_read().during("begin_read of a copy")?;
        if read.txn_id() != txn {
            return broken(format!(
                "a copy is at {:?}, expected {txn:?}",
                read.txn_id()
            ));
        }
        if let Some(state) = self.model.at(txn) {
            let handles = tables_of(&read)?;
            self.whole(&read, &state, &handles, &format!("a copy at {txn:?}"))?;
        }
        let report = copy.db.check().during("check a copy")?;
        if !report.faults.is_empty() {
            return broken(format!("check of a copy found {:?}", report.faults));
        }
        let here = read.state_hash().during("state_hash of a copy")?;
        match self.digest(txn)? {
            Some(there) if there != here => broken(format!(
                "a copy at {txn:?} has the digest {here}, the original {there}"
            )),
            _ => Ok(()),
        }
    }

    /// Applies what was committed to the copy; makes one if there is none.
    pub(super) fn replay(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.settle()?;
        let mut copy = match self.copy.take() {
            Some(copy) if rng.chance(5) => return copy.remove(),
            Some(copy) => copy,
            None => {
                let log = self.db().log().during("log")?;
                if log.first().during("the log's first")? > TxnId::new(1) {
                    return Ok(());
                }
                let (dir, options) = (self.dir.with_file_name("copy"), self.other_options(rng));
                let db = options.clone().open(&dir).during("make a copy")?;
                Copy { db, dir, options }
            }
        };
        let Some(last) = self.apply_to(&mut copy, rng)? else {
            return copy.remove();
        };
        self.is_as_at(&copy, last)?;
        self.same_past(&copy, last, rng)?;
        if rng.chance(30) {
            copy.db.checkpoint().during("checkpoint of a copy")?;
        }
        if rng.chance(30) {
            copy = copy.reopen(rng.chance(50))?;
        }
        self.copy = Some(copy);
        Ok(())
    }

    /// Brings a copy up to where the log ends. `None` if the log no longer holds what comes next.
    fn apply_to(&mut self, copy: &mut Copy, rng: &mut Rng) -> Result<Option<TxnId>, Failure> {
        let log = self.db().log().during("log")?;
        let mut apply = copy.db.begin_apply().during("begin_apply")?;
        let tail = log.tail(apply.next(), LogFilter::every_transaction());
        let may_be_gone = |error: &Error| {
            let gone = matches!(error, Error::NotInLog { asked, next, .. } if asked < next);
            gone && self.setup.log_retention != Retention::All
        };
        let mut tail = match tail {
            Ok(tail) => tail,
            Err(error) if may_be_gone(&error) => return Ok(None),
            Err(error) => return Err(error).during("follow the log for a copy"),
        };
        loop {
            let found = match tail.try_next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) if may_be_gone(&error) => return Ok(None),
                Err(error) => return Err(error).during("read the log for a copy"),
            };
            apply.push(found).during("apply")?;
            self.totals.applied += 1;
            if rng.chance(3) {
                // Given up in the middle: what was pushed is there, and another one goes on.
                let next = apply.next();
                drop(apply);
                apply = copy.db.begin_apply().during("begin_apply again")?;
                if apply.next() != next {
                    return broken(format!(
                        "a copy goes on with {:?}, it was given all before {next:?}",
                        apply.next()
                    ));
                }
            }
        }
        let last = apply.finish().during("finish applying")?;
        if last < self.durable {
            return broken(format!(
                "the log ends with {last:?}, durable is {:?}",
                self.durable
            ));
        }
        Ok(Some(last))
    }

    /// Earlier states of a copy have the digests that they have in the original.
    fn same_past(&mut self, copy: &Copy, last: TxnId, rng: &mut Rng) -> Result<(), Failure> {
        let horizon = copy.db.stats().during("stats of a copy")?.horizon_txn;
        for _ in 0..4 {
            let txn = TxnId::new(rng.between(horizon.get(), last.get()));
            let Some(there) = self.digest(txn)? else {
                continue;
            };
            let read = match copy.db.begin_read_at(txn) {
                Ok(read) => read,
                Err(Error::SnapshotGone { .. }) => continue,
                Err(error) => return Err(error).during("begin_read_at of a copy"),
            };
            let here = match read.state_hash() {
                Err(Error::NoHistory { .. }) if has_unkept(&read)? => continue,
                found => found.during("state_hash of a copy")?,
            };
            if here != there {
                return broken(format!(
                    "{txn:?} has the digest {here} in a copy, {there} in the original"
                ));
            }
        }
        let noted = copy.db.state_hashes().during("state_hashes of a copy")?;
        for (txn, here) in noted.into_iter().rev().take(3) {
            match self.digest(txn)? {
                Some(there) if there != here => {
                    return broken(format!(
                        "a copy notes {here} for {txn:?}, the original has {there}"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What checkpoints noted are the digests of states that can be read.
    pub(super) fn digests(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.settle()?;
        let noted = self.db().state_hashes().during("state_hashes")?;
        if !noted.is_sorted_by(|(one, _), (next, _)| one < next) {
            return broken(format!("digests are noted out of order: {noted:?}"));
        }
        for _ in 0..noted.len().min(3) {
            let (txn, expected) = noted[rng.index(noted.len())];
            match self.digest(txn)? {
                Some(found) if found == expected => {}
                Some(found) => {
                    return broken(format!(
                        "{txn:?} has the digest {found}, {expected} was noted"
                    ));
                }
                // A checkpoint may have moved the horizon meanwhile.
                None => {
                    let read = self.db().begin_read_at(txn);
                    if read.is_ok_and(|read| has_unkept(&read).unwrap_or(false)) {
                        continue;
                    }
                    let horizon = self.db().stats().during("stats")?.horizon_txn;
                    if txn >= horizon {
                        return broken(format!(
                            "the digest of {txn:?} was noted, and it is gone; the horizon is {horizon:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a state has a table of which no history is kept.
fn has_unkept(read: &ReadTxn) -> Result<bool, Failure> {
    let tables = tables_of(read)?;
    Ok(tables.values().any(|table| !table.keeps_history()))
}

/// A backup is sound, and is what making it said.
fn verified(made: Backup, bytes: &[u8]) -> Result<(), Failure> {
    let found = Backup::verify(bytes).during("verify a backup")?;
    match found == made {
        true => Ok(()),
        false => broken(format!("a backup is {found:?}, it was made as {made:?}")),
    }
}
