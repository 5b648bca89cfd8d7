//! Rebuilding a database from its commit log, and comparing what that gives with what its pages hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use northstardb::{
    Change, Db, Error, LogFilter, LogReader, Options, ReadTxn, Retention, StateHash, Table, Tail,
    Transaction, TxnId,
};
use serde_json::json;

use crate::past::State;
use crate::place::{IN_THAT_CASE, Part, Place, beside};
use crate::{During, Failure, backup, report};

/// What to replay, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// Rebuild the database in this directory, which must be missing or empty; it has its name once it is whole, and DIR.part
    /// until then, but where it is a mount point or only DIR itself may be written: there it is made in place. It keeps history as any
    /// new database does
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "verify",
        conflicts_with = "verify"
    )]
    into: Option<PathBuf>,
    /// Rebuild it aside, compare the two at every digest that checkpoints noted, and name the first transaction that differs
    #[arg(long)]
    verify: bool,
    /// Read nothing of the database but its log, and do not open it: for one whose data file is lost or damaged. One that is there
    /// says whose log it is and where it ends; remove it if it is another's. The log may hold a little at its end that was never
    /// acknowledged; what is missing before its end is an error, which says how far it leads
    #[arg(long, requires = "into", conflicts_with = "verify")]
    log_alone: bool,
    /// A full backup to begin with, where the log does not reach back to the first transaction
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Up to and with this transaction, or all that was committed by a moment as in 2026-01-31T12:00:00Z, to the millisecond as
    /// for `as-of`; tag:NAME is looked up in history, which must be kept back to there
    #[arg(long, value_name = "STATE", conflicts_with = "verify")]
    to: Option<State>,
    /// Where to rebuild it for --verify, missing or empty; beside the database if absent. Removed in the end
    #[arg(long, value_name = "DIR", conflicts_with = "into")]
    scratch: Option<PathBuf>,
}

impl Replay {
    /// Whether the database itself is not to be opened.
    pub(crate) const fn is_of_log_alone(&self) -> bool {
        self.log_alone
    }
}

const NOT_SO_FAR: &str =
    "the log does not reach back to where the copy begins; give a backup as --base";

fn failed() -> String {
    "cannot replay".to_owned()
}

/// Performs it on `source`, the database at `path`.
pub(crate) fn perform(
    source: &Db,
    path: &Path,
    replay: &Replay,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    if replay.verify {
        let (scratch, hint) = match &replay.scratch {
            Some(scratch) => (scratch.clone(), String::new()),
            None => {
                // Never in it.
                let path = path
                    .canonicalize()
                    .map_err(|error| Failure::file(path, error))?;
                let hint = format!(": somebody is verifying there, {IN_THAT_CASE}");
                (beside(&path, ".replay"), hint)
            }
        };
        let place = Place::empty(&scratch, &hint)?;
        // What keeps digests is history; one transaction of it will do.
        let options = Options::new().history(Retention::Txns(1));
        let copy = make(place.dir(), replay.base.as_deref(), options)?;
        // From here on what is there is ours.
        let verified = verify(source, copy, json, out);
        place.discard();
        return verified;
    }
    let Some(into) = &replay.into else {
        return Err(Failure::Use("give --into or --verify".to_owned()));
    };
    let upto = Upto::of(replay.to.as_ref(), |tag| Ok(tag.open(source)?.txn_id()))?;
    let base = replay.base.as_deref();
    let figures = make_in(into, base, |copy| rebuild(source, copy, upto))?;
    report::print(&figures, json, out)
}

/// Performs it on the log of the database at `path`, which is not opened.
pub(crate) fn perform_alone(
    path: &Path,
    replay: &Replay,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let Some(into) = &replay.into else {
        return Err(Failure::Use("give --into".to_owned()));
    };
    let upto = Upto::of(replay.to.as_ref(), |_| {
        Err(Failure::Use(
            "tags are looked up in history, which is in the data file: give --to a transaction or a time".to_owned(),
        ))
    })?;
    let base = replay.base.as_deref();
    let figures = make_in(into, base, |copy| rebuild_alone(path, copy, upto))?;
    report::print(&figures, json, out)
}

/// Makes a copy in `into`, which has its name once `rebuild` has led it on, and says what came of it.
fn make_in(
    into: &Path,
    base: Option<&Path>,
    rebuild: impl FnOnce((Db, Option<Base>)) -> Result<(TxnId, u64, StateHash), Failure>,
) -> Result<serde_json::Value, Failure> {
    let part = Part::of(into)?;
    let rebuilt = make(part.dir(), base, Options::new()).and_then(rebuild);
    // Half a copy is not what was asked for.
    let (txn, count, state) = rebuilt.inspect_err(|_| part.discard())?;
    part.name()?;
    Ok(json!({ "txn": txn.get(), "replayed": count, "state": state.to_string() }))
}

/// Leads `copy` on to what `upto` asks for: the state, how many transactions were replayed, its digest.
fn rebuild(
    source: &Db,
    (copy, base): (Db, Option<Base>),
    upto: Upto,
) -> Result<(TxnId, u64, StateHash), Failure> {
    let mut tail = begin(source, &copy, base)?;
    let begun = TxnId::new(tail.position().get() - 1);
    not_too_late(begun, base, upto, || {
        // Times never fall: what comes next tells as well that the base was there by then.
        match committed(source, begun)? {
            Some(time) => Ok(Some(time)),
            None => committed(source, begun.next()),
        }
    })?;
    let count = apply(&copy, || tail.try_next().during(failed), upto, &mut None)?;
    done(copy, upto, count)
}

/// The same by the log of the database at `path`, which is not opened.
fn rebuild_alone(
    path: &Path,
    (copy, base): (Db, Option<Base>),
    upto: Upto,
) -> Result<(TxnId, u64, StateHash), Failure> {
    let begun = copy.begin_read().during(failed)?.txn_id();
    let (mut reader, before) = read_alone(path, begun, base)?;
    let mut ahead = None;
    not_too_late(begun, base, upto, || {
        if before.is_none() {
            ahead = next_of(&mut reader)?;
        }
        Ok(before.or(ahead.as_ref().map(Transaction::time)))
    })?;
    let count = apply(&copy, || next_of(&mut reader), upto, &mut ahead)?;
    done(copy, upto, count)
}

/// The log of the database at `path` from behind `begun` on, and when that was committed, if the log says so. A base of another
/// database is refused.
fn read_alone(
    path: &Path,
    begun: TxnId,
    base: Option<Base>,
) -> Result<(LogReader, Option<SystemTime>), Failure> {
    let open = |from| Options::new().read_log(path, from);
    let (mut reader, mut before) = (None, None);
    if base.is_some() {
        match open(begun) {
            // What is damaged there is not needed.
            Ok(mut found) => {
                if let Some(Ok(transaction)) = found.next() {
                    (reader, before) = (Some(found), Some(transaction.time()));
                }
            }
            Err(Error::NotInLog { .. }) => {}
            Err(other) => return Err(other).during(failed),
        }
    }
    let reader = match reader {
        Some(reader) => reader,
        None => open(begun.next()).during(|| match base {
            None => NOT_SO_FAR.to_owned(),
            Some(_) => failed(),
        })?,
    };
    if let Some(base) = base {
        let foreign =
            |why: &str| Failure::Found(format!("the base is not of this database: {why}"));
        if !reader.is_of(base.database) {
            return Err(foreign("the log is of another"));
        }
        if let (Some(one), Some(other)) = (base.committed, before)
            && one != other
        {
            return Err(foreign(&format!(
                "{begun} was committed at another time here: it is of a copy that went its own way"
            )));
        }
    }
    Ok((reader, before))
}

/// The next transaction of a log that may be damaged.
fn next_of(reader: &mut LogReader) -> Result<Option<Transaction>, Failure> {
    let found = reader.next().transpose();
    found.during(|| {
        let next = reader.next_txn();
        let before = next.get() - 1;
        format!("the log does not lead to {next}; with --to {before} what comes before is rebuilt")
    })
}

/// Refuses a base that is later than what is asked for. `committed` says when its transaction, or the next, was committed.
fn not_too_late(
    begun: TxnId,
    base: Option<Base>,
    upto: Upto,
    committed: impl FnOnce() -> Result<Option<SystemTime>, Failure>,
) -> Result<(), Failure> {
    match upto {
        Upto::Txn(wanted) if wanted < begun => Err(Failure::Found(format!(
            "the base is the state after {begun}, which is later than {wanted}"
        ))),
        Upto::Time(moment) if base.is_some() => {
            let time = match base.and_then(|base| base.committed) {
                Some(time) => Some(time),
                None => committed()?,
            };
            if time.is_none_or(|time| millis(time) > millis(moment)) {
                return Err(Failure::Found(format!(
                    "the base is the state after {begun}, which was not there by the moment that was asked for, as far as can be told"
                )));
            }
            Ok(())
        }
        Upto::All | Upto::Txn(_) | Upto::Time(_) => Ok(()),
    }
}

/// Closes a copy that was led on: its state, how many transactions that took, its digest.
fn done(copy: Db, upto: Upto, count: u64) -> Result<(TxnId, u64, StateHash), Failure> {
    let read = copy.begin_read().during(failed)?;
    let (txn, state) = (read.txn_id(), read.state_hash().during(failed)?);
    drop(read);
    copy.close().during(failed)?;
    match upto {
        Upto::Txn(wanted) if txn < wanted => Err(Failure::Found(format!(
            "the log leads to {txn}, not to {wanted}"
        ))),
        Upto::All | Upto::Txn(_) | Upto::Time(_) => Ok((txn, count, state)),
    }
}

/// How far.
#[derive(Debug, Clone, Copy)]
enum Upto {
    All,
    Txn(TxnId),
    Time(SystemTime),
}

impl Upto {
    /// What was asked for; `tagged` finds the transaction of a tag.
    fn of(
        state: Option<&State>,
        tagged: impl FnOnce(&State) -> Result<TxnId, Failure>,
    ) -> Result<Self, Failure> {
        Ok(match state {
            None => Self::All,
            Some(State::Txn(txn)) => Self::Txn(TxnId::new(*txn)),
            Some(State::Time(moment)) => Self::Time((*moment).into()),
            Some(tag @ State::Tag(_)) => Self::Txn(tagged(tag)?),
        })
    }

    fn includes(self, found: &Transaction) -> bool {
        match self {
            Self::All => true,
            Self::Txn(txn) => found.txn_id() <= txn,
            Self::Time(moment) => millis(found.time()) <= millis(moment),
        }
    }
}

/// Times are told to the millisecond: all that was committed by the end of one is there.
fn millis(time: SystemTime) -> u128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}

/// A copy to apply a log to: empty, or what a base has.
fn make(into: &Path, base: Option<&Path>, options: Options) -> Result<(Db, Option<Base>), Failure> {
    let copy = match base {
        None => options.open(into).map(|copy| (copy, None)),
        Some(base) => {
            let restore = options.restore(into, backup::reader(base)?);
            restore.map(|restore| {
                let base = Base {
                    database: restore.source(),
                    committed: restore.committed(),
                };
                (restore.finish(), Some(base))
            })
        }
    };
    let (copy, base) = copy.during(|| format!("cannot begin a copy in {}", into.display()))?;
    // Somebody may have made a database there since it was looked at.
    if base.is_none() && copy.begin_read().during(failed)?.txn_id() > TxnId::ZERO {
        return Err(Failure::Use(format!("{} is not empty", into.display())));
    }
    Ok((copy, base))
}

/// What a backup says of the state that a copy begins with.
#[derive(Debug, Clone, Copy)]
struct Base {
    database: u128,
    committed: Option<SystemTime>,
}

impl Base {
    /// Refuses it for a replay of `source`, whose state after `at` it claims to be, with the digest `found`.
    fn expect_of(self, source: &Db, at: TxnId, found: StateHash) -> Result<(), Failure> {
        let foreign =
            |why: String| Failure::Found(format!("the base is not of this database: {why}"));
        match state_of(source, at)? {
            Some(expected) if found == expected => return Ok(()),
            Some(expected) => {
                return Err(foreign(format!(
                    "its state after {at} is {found}, here that was {expected}"
                )));
            }
            None => {}
        }
        // Nothing says what the state was: then it must be of this database, and its last commit the one that is known here.
        let own = source.id().during(failed)?;
        if self.database != own {
            return Err(foreign(format!(
                "it is of {:032x}, this is {own:032x}, and what its state after {at} was is not known here any more",
                self.database
            )));
        }
        match (self.committed, committed(source, at)?) {
            (Some(one), Some(other)) if one != other => Err(foreign(format!(
                "{at} was committed at another time here: it is of a copy that went its own way"
            ))),
            _ => Ok(()),
        }
    }
}

/// When `txn` was committed, if the log still says so.
fn committed(source: &Db, txn: TxnId) -> Result<Option<SystemTime>, Failure> {
    let log = source.log().during(failed)?;
    if txn < log.first().during(failed)? || txn >= log.next() {
        return Ok(None);
    }
    let found = log
        .tail(txn, LogFilter::every_transaction())
        .and_then(|mut tail| tail.try_next());
    Ok(found.during(failed)?.map(|found| found.time()))
}

/// The log of `source` from where `copy` goes on. A base of another database is refused.
fn begin(source: &Db, copy: &Db, base: Option<Base>) -> Result<Tail, Failure> {
    let read = copy.begin_read().during(failed)?;
    if let Some(base) = base {
        base.expect_of(source, read.txn_id(), read.state_hash().during(failed)?)?;
    }
    drop(read);
    let log = copy.log().during(failed)?;
    source
        .log()
        .and_then(|log_of_source| log_of_source.tail(log.next(), LogFilter::every_transaction()))
        .during(|| NOT_SO_FAR.to_owned())
}

/// The digest of the state after `at`; none if neither a checkpoint noted it nor history tells.
fn state_of(source: &Db, at: TxnId) -> Result<Option<StateHash>, Failure> {
    let noted = source.state_hashes().during(failed)?;
    if let Some((_, state)) = noted.into_iter().find(|(txn, _)| *txn == at) {
        return Ok(Some(state));
    }
    // Not to be read any more, or with tables of which no history is kept.
    let read = source.begin_read_at(at);
    Ok(read.and_then(|read| read.state_hash()).ok())
}

/// Applies transactions up to and with `upto`, first `kept`, which was read too early before, then what `next` gives. Says how
/// many.
fn apply(
    copy: &Db,
    mut next: impl FnMut() -> Result<Option<Transaction>, Failure>,
    upto: Upto,
    kept: &mut Option<Transaction>,
) -> Result<u64, Failure> {
    let mut apply = copy.begin_apply().during(failed)?;
    let mut count = 0;
    loop {
        let found = match kept.take() {
            Some(found) => Some(found),
            None => next()?,
        };
        let Some(found) = found else { break };
        if !upto.includes(&found) {
            *kept = Some(found);
            break;
        }
        let txn = found.txn_id();
        apply
            .push(found)
            .during(|| format!("cannot replay transaction {txn}"))?;
        count += 1;
        // What follows is for the next call to judge.
        if matches!(upto, Upto::Txn(last) if txn >= last) {
            break;
        }
    }
    apply.finish().during(failed)?;
    Ok(count)
}

fn verify(
    source: &Db,
    (copy, base): (Db, Option<Base>),
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut tail = begin(source, &copy, base)?;
    let mut same = TxnId::new(tail.position().get() - 1);
    let begun = same;
    let noted = source.state_hashes().during(failed)?;
    let read = source.begin_read().during(failed)?;
    let mut points: Vec<(TxnId, StateHash)> = noted
        .into_iter()
        .filter(|(txn, _)| *txn > same && *txn <= read.txn_id())
        .collect();
    let compared_with_pages = (read.txn_id(), read.state_hash().during(failed)?);
    points.push(compared_with_pages);
    drop(read);
    let (mut kept, mut count, compared) = (None, 0, points.len());
    for (txn, expected) in points {
        let next = || tail.try_next().during(failed);
        count += apply(&copy, next, Upto::Txn(txn), &mut kept)?;
        let read = copy.begin_read().during(failed)?;
        let found = read.state_hash().during(failed)?;
        if found != expected {
            let difference = first_difference(source, &read, (same, txn))?;
            let before = match (same == begun, base) {
                (false, _) => format!("at {same} they were the same"),
                (true, None) => "it began empty".to_owned(),
                (true, Some(_)) => format!("the base, of {same}, was taken for what it says"),
            };
            return Err(Failure::Found(format!(
                "the states differ: at transaction {txn} the log gives {found}, the database says {expected}; {before}; {difference}"
            )));
        }
        same = txn;
    }
    // Its end is where the database goes on from.
    tail.try_next().during(failed)?;
    copy.close().during(failed)?;
    let figures = json!({
        "verdict": "identical",
        "txn": same.get(),
        "replayed": count,
        "states_compared": compared,
        "state": compared_with_pages.1.to_string(),
    });
    report::print(&figures, json, out)
}

/// What differs, of what transactions after `same` up to `txn` did; `copy` is the state after that as the log gives it.
fn first_difference(
    source: &Db,
    copy: &ReadTxn,
    (same, txn): (TxnId, TxnId),
) -> Result<String, Failure> {
    let log = source.log().during(failed)?;
    let mut tail = log
        .tail(same.next(), LogFilter::every_transaction())
        .during(failed)?;
    while tail.position() <= txn {
        let Some(found) = tail.try_next().during(failed)? else {
            break;
        };
        let at = found.txn_id();
        let Ok(read) = source.begin_read_at(at) else {
            return Ok(format!(
                "which transaction after {same} it was cannot be told, since history does not go back to {at}"
            ));
        };
        if let Some(what) = difference(&read, &found)? {
            return Ok(format!(
                "the first transaction that differs is {at}: {what}"
            ));
        }
    }
    // Every transaction left what it said, so it is a row that none of them wrote.
    let read = source.begin_read_at(txn).during(failed)?;
    let mut names: BTreeSet<String> = read.tables().during(failed)?.into_iter().collect();
    names.extend(copy.tables().during(failed)?);
    let is_newest = source.begin_read().during(failed)?.txn_id() == txn;
    let mut unread = Vec::new();
    for name in names {
        let table = read.open_table(&name);
        if !is_newest && table.is_ok_and(|table| !table.keeps_history()) {
            unread.push(name);
            continue;
        }
        let rows = |read: &ReadTxn| -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
            match read.open_table(&name) {
                Ok(table) => read.iter(&table).and_then(Iterator::collect).during(failed),
                Err(_) => Ok(BTreeMap::new()),
            }
        };
        let (here, there) = (rows(&read)?, rows(copy)?);
        let keys: BTreeSet<_> = here.keys().chain(there.keys()).collect();
        for key in keys {
            if here.get(key) != there.get(key) {
                return Ok(format!(
                    "each transaction left what it said, but the row {} of {name:?} differs, which none of them wrote",
                    key.escape_ascii()
                ));
            }
        }
    }
    if !unread.is_empty() {
        return Ok(format!(
            "all rows of tables with history are equal, so it is a row of {unread:?}, which have none, or the digest that the database noted"
        ));
    }
    Ok(
        "all rows can be read and are equal, so it is the digest that the database noted"
            .to_owned(),
    )
}

/// What of a transaction is not in the state after it.
fn difference(read: &ReadTxn, found: &Transaction) -> Result<Option<String>, Failure> {
    let mut tables: BTreeMap<u32, Table> = BTreeMap::new();
    for name in read.tables().during(failed)? {
        let table = read.open_table(&name).during(failed)?;
        tables.insert(table.id(), table);
    }
    let changes: Vec<Change<'_>> = found.changes().collect();
    // Later changes of a transaction win.
    let mut seen = BTreeSet::new();
    for change in changes.iter().rev() {
        let made = matches!(change, Change::CreateTable { .. });
        let what = match tables.get(&change.table()) {
            None if made => Some(format!("the table it made is not there: {change:?}")),
            // Dropped by itself, or by a later change.
            None => None,
            Some(table) => not_done(read, table, change, &mut seen)?,
        };
        if what.is_some() {
            return Ok(what);
        }
    }
    Ok(None)
}

/// What of a change is not in a state, but for keys that were `seen`: a later change of the transaction had them.
fn not_done(
    read: &ReadTxn,
    table: &Table,
    change: &Change<'_>,
    seen: &mut BTreeSet<(u32, Vec<u8>)>,
) -> Result<Option<String>, Failure> {
    let id = table.id();
    if !table.keeps_history() {
        return Ok(None);
    }
    if let Change::DeleteRange { from, to, .. } = *change {
        for row in read.range(table, from..).during(failed)? {
            let (key, _) = row.during(failed)?;
            if to.is_some_and(|to| &*key >= to) {
                break;
            }
            let shown = key.escape_ascii().to_string();
            if !seen.contains(&(id, key)) {
                return Ok(Some(format!("it deleted a range, and {shown} is there")));
            }
        }
    }
    let (key, expected) = match *change {
        Change::Put { key, value, .. } => (key, Some(value)),
        Change::Delete { key, .. } => (key, None),
        Change::DeleteRange { .. }
        | Change::CreateTable { .. }
        | Change::RenameTable { .. }
        | Change::DropTable { .. }
        | _ => return Ok(None),
    };
    let is_last = seen.insert((id, key.to_vec()));
    if !is_last || read.get(table, key).during(failed)?.as_deref() == expected {
        return Ok(None);
    }
    let what = expected.map_or("deleted it", |_| "put another value there");
    Ok(Some(format!("row {}: it {what}", key.escape_ascii())))
}
