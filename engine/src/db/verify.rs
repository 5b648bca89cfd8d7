//! Verifying the commit log: of an open database, and of one that nobody can open.
//!
//! What is damaged is passed over, and reading goes on with the next group that verifies. In a log whose end nobody
//! knows, what follows the last sound group is judged as recovery judges it: damage is called a hole if something says
//! that the log was durable beyond it, or if no crash can have left it; else it may be what a crash left, and is cut.
//!
//! - Cost: one pass over the log; memory for one group and the report.
//! - Failure: what cannot be read is in the report. Spec: SE-025.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use northstar_io::{Disk, FileLock, IoError, OpenMode};

use super::log::{LogFilter, Transaction};
use super::open::{lock_in, native_disk, open_segments};
use super::options::Options;
use crate::error::{Error, Result};
use crate::format::meta::Meta;
use crate::ids::{Lsn, TxnId};
use crate::log::{Follower, LogError, Segments, is_value, proof_behind, survey};
use crate::pages::metas;

/// What a walk over the whole log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogReport {
    /// Sound transactions.
    pub transactions: u64,
    /// Operations in them.
    pub changes: u64,
    /// What is damaged, from the front; empty means sound.
    pub holes: Vec<LogHole>,
    /// The first sound transaction; where there is none, the one that would come next, if it is known.
    pub first: Option<TxnId>,
    /// The transaction after the last sound one.
    pub next: Option<TxnId>,
    /// What a crash may have left behind the end. It is no damage: nothing says that it was ever durable.
    pub tail: Option<LogTail>,
    /// Where recovery begins: the pages hold all that comes before. None if no meta page says it.
    pub recovery: Option<Lsn>,
    /// Why no meta page says anything of the log. None if one does.
    pub without_meta: Option<String>,
    /// Bytes before the first group that is known of: the end of one of which the beginning was let go, or damage that
    /// nothing tells from it.
    pub unexplained: Option<(Lsn, Lsn)>,
}

/// A part of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogHole {
    /// The first transaction that is missing. None if nothing sound before it tells.
    pub first: Option<TxnId>,
    /// The first that is there again: the same if none is missing. None if nothing sound behind it tells.
    pub next: Option<TxnId>,
    /// Where the damage begins and ends; none if a sound record makes no sense.
    pub place: Option<(Lsn, Lsn)>,
    /// What is wrong.
    pub why: String,
}

/// What follows the end of the log, and may be what a crash left: recovery cuts it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogTail {
    /// Where the log ends.
    pub at: Lsn,
    /// What is wrong there.
    pub why: String,
    /// Sound transactions that follow it all the same: they were never acknowledged as durable either.
    pub transactions: u64,
}

impl Options {
    /// Reads the commit log of the database in directory `path` as [`Log::check`](crate::Log::check) does, without opening
    /// the database: it need not be fit for that. Writes nothing but the lock.
    ///
    /// With a sound meta page it is the log of that database, from the first segment that is there on. Without one, or
    /// without a data file, it is what the segments themselves say; then nobody knows what came before the first group
    /// that is found. A database that is open elsewhere is refused.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::InvalidOption`], [`Error::Io`], and [`Error::NotADatabase`] or
    /// [`Error::Corrupt`] where there is neither a meta page nor a log. What is wrong with the log is in the report.
    pub fn verify_log(self, path: impl AsRef<Path>) -> Result<LogReport> {
        let options = self.checked()?;
        let disk = native_disk(&options);
        verify_log_in(&options, path.as_ref(), &disk)
    }
}

/// As [`Options::verify_log`], on any disk.
pub(crate) fn verify_log_in(
    options: &Options,
    dir: &Path,
    disk: &Arc<dyn Disk>,
) -> Result<LogReport> {
    examine(options, dir, disk).map(|examined| examined.report)
}

/// A log that was verified, and is not written while this lives.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) report: LogReport,
    pub(super) segments: Arc<Segments>,
    /// Low 64 bits of the id of the database whose log it is; none if no group was found.
    pub(super) database: Option<u64>,
    /// Nothing of it lies behind this.
    pub(super) end: Lsn,
    pub(super) lock: Option<Box<dyn FileLock>>,
}

/// Verifies the log in `dir`: see [`Options::verify_log`].
pub(super) fn examine(options: &Options, dir: &Path, disk: &Arc<dyn Disk>) -> Result<Examined> {
    let not_a_database = |why: &str| Error::NotADatabase {
        path: PathBuf::from(dir),
        why: why.to_owned(),
    };
    let names = disk.list(dir).map_err(|error| {
        let none = [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.cause());
        match none {
            true => not_a_database(&error.to_string()),
            false => Error::from_io("the database", error),
        }
    })?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    // A directory in which nobody has opened anything is left as it is.
    let lock = match has("data") || has("LOCK") {
        true => lock_in(&options.clone().read_only(true), dir, &**disk)?,
        false => None,
    };
    let meta = match has("data") {
        true => newest_meta(&**disk, dir),
        false => Err(not_a_database("it holds no file named \"data\"")),
    };
    match meta {
        Ok(meta) => Ok(examine_by_meta(
            open_segments(disk, dir, &meta)?,
            &meta,
            lock,
        )),
        // Another format may be another log.
        Err(newer @ Error::NewerFormat { .. }) => Err(newer),
        Err(error) if !has("log") => Err(error),
        Err(error) => examine_alone(disk, &dir.join("log"), error, lock),
    }
}

fn newest_meta(disk: &dyn Disk, dir: &Path) -> Result<Meta> {
    let file = disk.open(&dir.join("data"), OpenMode::Read);
    let file = file.map_err(Error::Io)?;
    Ok(metas::read(&*file, dir)?.meta)
}

/// With a meta page's word: what was kept before the log's start, which ends with it, and then what recovery reads.
fn examine_by_meta(
    segments: Arc<Segments>,
    meta: &Meta,
    lock: Option<Box<dyn FileLock>>,
) -> Examined {
    let (border, database) = (meta.log_start, meta.database_low());
    let next = border.last_txn.next();
    let mut walk = Walk::default();
    walk.report.recovery = Some(border.lsn);
    walk.closed_at = meta.clean.then_some(border.lsn);
    let kept = segments.start();
    if segments.files_end() > kept && kept < border.lsn {
        let mut earlier = Follower::from_any(&segments, database, kept, border.lsn);
        walk.note_start(kept, earlier.as_ref(), Some(border.lsn));
        if let Some(earlier) = &mut earlier {
            walk.walk_to(&segments, earlier, border.lsn, next);
            walk.check_border(earlier, border.lsn, border.checksum, next);
        }
    }
    let mut rest = Follower::at_border(&segments, database, border);
    let end = segments
        .files_end()
        .max(meta.durable_through)
        .max(border.lsn);
    let ends = walk.walk_on((&segments, database), &mut rest, end, meta.durable_through);
    let report = &mut walk.report;
    // Else it is among the holes.
    if end == border.lsn
        && let Some(lost) = segments.lost(border.lsn)
    {
        report.holes.push(LogHole {
            first: Some(next),
            next: None,
            place: Some((border.lsn, border.lsn)),
            why: lost.to_string(),
        });
    }
    // Nothing of it was found, and yet there is something.
    if report.holes.is_empty()
        && report.tail.is_none()
        && let Ok(Some((later, _))) = proof_behind(&segments, ends, database)
    {
        report.holes.push(LogHole {
            first: report.next.or(Some(next)),
            next: None,
            place: Some((ends, later)),
            why: format!("a sound group is behind it at {later}, perhaps of another database"),
        });
    }
    report.first = report.first.or(Some(next));
    report.next = report.next.or(Some(next));
    Examined {
        report: walk.report,
        segments,
        database: Some(database),
        end,
        lock,
    }
}

/// Without a meta page, and why.
fn examine_alone(
    disk: &Arc<dyn Disk>,
    log: &Path,
    why: Error,
    lock: Option<Box<dyn FileLock>>,
) -> Result<Examined> {
    let found = survey(disk, log).map_err(|error| Error::from_io("the commit log", error))?;
    let Some(found) = found else {
        return Err(why);
    };
    let (segments, database) = (found.segments, found.database);
    let mut walk = Walk::default();
    walk.report.without_meta = Some(why.to_string());
    let (start, end) = (segments.start(), segments.files_end());
    let follower =
        database.and_then(|database| Follower::from_any(&segments, database, start, end));
    walk.note_start(start, follower.as_ref(), None);
    match (follower, database) {
        (Some(mut follower), Some(database)) => {
            walk.walk_on((&segments, database), &mut follower, end, start);
        }
        (_, _) => walk.report.holes.push(LogHole {
            first: None,
            next: None,
            place: Some((start, end)),
            why: "there is no group in it".to_owned(),
        }),
    }
    Ok(Examined {
        report: walk.report,
        segments,
        database,
        end,
        lock,
    })
}

/// A walk over the log.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) report: LogReport,
    all: Arc<LogFilter>,
    /// Where the log may end, as far as what was met proves.
    doubts: Vec<Doubt>,
    /// Where recovery begins, if the database was closed: nothing need be there.
    closed_at: Option<Lsn>,
}

/// Damage that a crash may have left, and what was known when it was met.
#[derive(Debug)]
struct Doubt {
    at: Lsn,
    transactions: u64,
    changes: u64,
    holes: usize,
    next: Option<TxnId>,
}

impl Walk {
    /// Walks to `end`, where transaction `next` would begin: what is not there before it is missing.
    pub(super) fn walk_to(
        &mut self,
        segments: &Segments,
        follower: &mut Follower,
        end: Lsn,
        next: TxnId,
    ) {
        while follower.txn() < next {
            let first = follower.txn();
            match self.step(follower, end) {
                Step::Sound => {}
                Step::End => {
                    let why = "it ends early".to_owned();
                    self.hole(first, Some(next), Some((end, end)), why);
                    break;
                }
                Step::Broken(error) => {
                    let damage = follower.skip_damage(end);
                    let behind = damage.to.map_or(next, |_| follower.txn());
                    let place = (damage.from, damage.to.unwrap_or(end));
                    let why = why(segments, place, &error);
                    self.hole(first, Some(behind), Some(place), why);
                    if behind == next {
                        break;
                    }
                }
            }
        }
    }

    /// Walks until nothing is left before `end`, and decides where the log ends. It is known to have been durable up to
    /// `known`. Gives that place.
    fn walk_on(
        &mut self,
        (segments, database): (&Segments, u64),
        follower: &mut Follower,
        end: Lsn,
        known: Lsn,
    ) -> Lsn {
        loop {
            let first = follower.txn();
            match self.step(follower, end) {
                Step::Sound => {}
                Step::End => break,
                Step::Broken(error) => {
                    let chain = follower.chain();
                    let damage = follower.skip_damage(end);
                    let is_empty = self.closed_at == Some(damage.from) && is_short(&error);
                    let is_lost = segments.lost(damage.from).is_some();
                    let is_torn =
                        may_be_torn(&error) || is_stale(segments, &error, database, chain);
                    if is_torn && !is_lost || is_empty {
                        self.doubts.push(Doubt {
                            at: damage.from,
                            transactions: self.report.transactions,
                            changes: self.report.changes,
                            holes: self.report.holes.len(),
                            next: self.report.next,
                        });
                    }
                    let proven = follower.proven().max(known);
                    let to = damage.to.unwrap_or(damage.at_least.max(proven).min(end));
                    let (place, behind) = ((damage.from, to), damage.to.map(|_| follower.txn()));
                    let why = why(segments, place, &error);
                    self.hole(first, behind, Some(place), why);
                }
            }
        }
        let proven = follower.proven().max(known);
        let doubts = std::mem::take(&mut self.doubts);
        if let Some(doubt) = doubts.into_iter().find(|doubt| doubt.at >= proven) {
            let claims = follower.claims(doubt.at, end);
            self.cut(&doubt, claims);
            return doubt.at;
        }
        follower.position()
    }

    /// Takes back what lies behind the end of the log.
    fn cut(&mut self, doubt: &Doubt, claims: bool) {
        let report = &mut self.report;
        let behind = report.transactions - doubt.transactions;
        let holes = report.holes.split_off(doubt.holes);
        let why = holes.into_iter().next().map(|hole| hole.why);
        report.transactions = doubt.transactions;
        report.changes = doubt.changes;
        report.next = doubt.next;
        if doubt.transactions == 0 {
            report.first = None;
        }
        // Else nothing is there that could have been a part of it.
        if claims || behind > 0 {
            report.tail = Some(LogTail {
                at: doubt.at,
                why: why.unwrap_or_default(),
                transactions: behind,
            });
        }
    }

    fn step(&mut self, follower: &mut Follower, end: Lsn) -> Step {
        let record = match follower.next(end) {
            Ok(Some(record)) => record,
            Ok(None) => return Step::End,
            Err(error) => return Step::Broken(error),
        };
        let (txn, count) = (record.txn, record.op_count);
        match Transaction::of(&record, &self.all) {
            Ok(_) => {
                self.report.transactions += 1;
                self.report.changes += u64::from(count);
                self.report.first.get_or_insert(txn);
                self.report.next = Some(txn.next());
            }
            Err(error) => self.hole(txn, Some(txn.next()), None, error.to_string()),
        }
        Step::Sound
    }

    fn hole(&mut self, first: TxnId, next: Option<TxnId>, place: Option<(Lsn, Lsn)>, why: String) {
        self.report.holes.push(LogHole {
            first: (first > TxnId::ZERO).then_some(first),
            next,
            place,
            why,
        });
    }

    /// Notes what comes before the first that says it is a group.
    pub(super) fn note_start(&mut self, from: Lsn, first: Option<&Follower>, end: Option<Lsn>) {
        let to = first.map(Follower::position).or(end);
        self.report.unexplained = to.filter(|to| *to > from).map(|to| (from, to));
    }

    /// Compares the group before a border with what the database says of it.
    pub(super) fn check_border(
        &mut self,
        follower: &Follower,
        at: Lsn,
        expected: u32,
        next: TxnId,
    ) {
        let Some(found) = follower.chain() else {
            return;
        };
        let ends = follower.position();
        let why = match ends == at {
            true if found == expected => return,
            true => format!(
                "the group that ends at {at} has the checksum {found:#010x}, the database says {expected:#010x}"
            ),
            // What is missing before it was named.
            false if follower.txn() != next => return,
            false => {
                format!("the group before {next} ends at {ends}, the database says at {at}")
            }
        };
        self.hole(next, Some(next), Some((ends.min(at), at)), why);
    }
}

/// What one step met.
enum Step {
    /// A record; if it makes no sense, that is noted.
    Sound,
    /// Nothing more.
    End,
    /// Damage.
    Broken(LogError),
}

/// Whether a crash can leave what was met.
fn may_be_torn(error: &LogError) -> bool {
    match error {
        LogError::Corrupt { why, .. } => why.may_be_torn(),
        // A segment that was never made.
        LogError::Gone => true,
        LogError::Io(_)
        | LogError::Short { .. }
        | LogError::Lost { .. }
        | LogError::Record { .. }
        | LogError::Halted => false,
    }
}

/// Whether it is what recovery takes for no group.
fn is_stale(segments: &Segments, error: &LogError, database: u64, chain: Option<u32>) -> bool {
    let LogError::Corrupt { why, .. } = error else {
        return false;
    };
    is_value(segments, why, database, chain).unwrap_or(false)
}

/// Whether what was to be read lies beyond the end of its file.
fn is_short(error: &LogError) -> bool {
    matches!(error, LogError::Io(io) if io.errno == IoError::END_OF_FILE)
}

/// Says what is wrong.
fn why(segments: &Segments, (from, to): (Lsn, Lsn), error: &LogError) -> String {
    match error {
        LogError::Corrupt { why, .. } => why.to_string(),
        LogError::Gone => segments.first_missing(from, to).map_or_else(
            || error.to_string(),
            |number| format!("segment {number} is not there"),
        ),
        LogError::Io(_) if is_short(error) => match segments.cut_short(from) {
            Ok(Some(short)) => short.to_string(),
            Ok(None) | Err(_) => error.to_string(),
        },
        LogError::Io(_)
        | LogError::Short { .. }
        | LogError::Lost { .. }
        | LogError::Record { .. }
        | LogError::Halted => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use northstar_io::sim::{Fault, FaultPlan, Image, Rule, SimDisk, SimOptions, What};

    use super::*;
    use crate::db::batch::WriteBatch;
    use crate::db::open::open_in;
    use crate::db::world::World;
    use crate::retention::Retention;

    #[test]
    fn what_the_device_does_not_read_is_a_hole_also_where_a_crash_may_have_been() {
        let dir = Path::new("disk/db");
        let options = Options::new()
            .log_segment_bytes(64 << 10)
            .log_retention(Retention::All);
        let options = options.checked().unwrap();
        let disk = SimDisk::new(SimOptions::new(Image::with_dir(dir)));
        let db = open_in(&options, dir, World::of(Arc::<SimDisk>::clone(&disk))).unwrap();
        let table = db.table("t").unwrap();
        for number in 0..40_u8 {
            let mut batch = WriteBatch::new();
            batch.put(&table, [number], vec![number; 6000]);
            db.commit(batch).unwrap();
        }
        db.close().unwrap();
        // Groups of two blocks, after one of one: those that cross into a segment are lost with it. The last block of the log
        // is alone in its segment.
        for (fails, sound) in [
            ("000009.seg", 41),
            ("000002.seg", 32),
            ("000000.seg", 32),
            ("000005.seg", 40),
        ] {
            for without_data in [false, true] {
                let rule = Rule {
                    what: What::Read,
                    file: Some(fails),
                    after: 0,
                    sticky: true,
                    fault: Fault::Error(5),
                };
                let disk: Arc<dyn Disk> = SimDisk::new(SimOptions {
                    faults: FaultPlan {
                        rules: vec![rule],
                        ..FaultPlan::default()
                    },
                    ..SimOptions::new(disk.image())
                });
                if without_data {
                    disk.remove(&dir.join("data")).unwrap();
                }
                let report = verify_log_in(&options, dir, &disk).unwrap();
                // Nothing was written behind the last group, but recovery begins there.
                let begins = u8::from(sound == 40 && !without_data);
                let holes = usize::from(u8::from(sound < 41) + begins);
                assert_eq!(report.holes.len(), holes, "{fails} {report:?}");
                assert_eq!(report.transactions, sound, "{fails} {report:?}");
                assert_eq!(report.tail, None, "{fails} {report:?}");
                if let Some(hole) = report.holes.first() {
                    let next = hole.next.map_or(42, TxnId::get);
                    let missing = next - hole.first.map_or(1, TxnId::get);
                    assert_eq!(missing + report.transactions, 41, "{report:?}");
                    assert!(hole.why.contains("Read of"), "{hole:?}");
                }
            }
        }
    }
}
