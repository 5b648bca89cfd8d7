//! The commit log, printed and verified.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::Subcommand;
use jiff::Timestamp;
use northstardb::{
    Change, Db, Holder, LogFilter, LogHole, LogTail, Lsn, Options, SubscriberState, Transaction,
    TxnId,
};
use serde_json::{Value, json};

use crate::path::{self, content as bytes, shown};
use crate::{During, Failure, report};

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    #[command(flatten)]
    Print(Print),
    /// Read the whole log, verify every checksum and link, and name each hole
    ///
    /// The database is not opened, and need not be fit for that. What a crash may have left behind the end is named, and is
    /// no hole: recovery cuts it. With --json each place is given in bytes of the stream, and `to_byte` is the first after it.
    Verify,
    /// Forget a named reader of the log
    ///
    /// What was kept for it is let go once the database is opened with less to keep, as by whoever uses it.
    Unsubscribe {
        /// Its name, as `subscribers` prints it
        name: String,
    },
}

/// What to print.
#[derive(Debug, Subcommand)]
pub(crate) enum Print {
    /// Every transaction in the log and its changes, from the first or from one on
    ///
    /// One that only moves a named reader on is shown without changes. With --only, those are shown that changed something there.
    /// With --json, a change has the `name` that its table has now, or null; that of a table made or dropped is the one it had then.
    /// Without --from and --limit the log is verified first: if something of it is damaged, what can be read up to its end without
    /// a gap is printed, and the exit code is 1.
    Dump {
        /// The first transaction; that with which the log begins if absent
        #[arg(long, value_name = "TXN")]
        from: Option<u64>,
        /// At most so many transactions
        #[arg(long)]
        limit: Option<usize>,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// The last transactions and their changes
    ///
    /// With --only, the last that changed something there: the log is read back as far as that takes, to its beginning if there
    /// are not so many.
    Tail {
        /// So many
        #[arg(long, short = 'n', default_value_t = 10)]
        count: u64,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// How much the log holds, and whether all of it is sound: reads the whole log
    Stat,
    /// The named readers for whom the log is kept: how far each has come, and how much that keeps
    Subscribers,
}

/// Which changes.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Only changes of this table
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Of that table, only keys that start with this
    #[arg(long, value_name = "PATH", requires = "only")]
    prefix: Option<OsString>,
    /// The prefix is given as hex digits
    #[arg(long, requires = "prefix")]
    hex: bool,
}

impl Wanted {
    fn filter(&self, db: &Db) -> Result<LogFilter, Failure> {
        let Some(name) = &self.only else {
            return Ok(LogFilter::every_transaction());
        };
        let during = || format!("cannot follow the table {name:?}");
        let table = db.open_table(name).during(during)?;
        match &self.prefix {
            Some(prefix) => {
                let prefix = path::given(prefix, self.hex)?;
                LogFilter::all().prefix(&table, prefix).during(during)
            }
            None => Ok(LogFilter::all().table(&table)),
        }
    }
}

/// Performs `command`.
pub(crate) fn perform(
    db: &Db,
    command: &Print,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let during = || "cannot read the log".to_owned();
    let log = db.log().during(during)?;
    let first = || log.first().during(during);
    match command {
        Print::Dump {
            from,
            limit,
            wanted,
        } => {
            let whole = from.is_none() && limit.is_none();
            let holes = match whole {
                true => log.check().during(during)?.holes.len(),
                false => 0,
            };
            let from = from.map_or_else(first, |from| Ok(TxnId::new(from)))?;
            let limit = limit.unwrap_or(usize::MAX);
            let printed = dump(db, from, limit, wanted, json, out);
            printed.and_then(|()| sound(holes))
        }
        Print::Tail { count, wanted } => {
            let from = last(db, *count, wanted)?;
            dump(db, from, usize::MAX, wanted, json, out)
        }
        Print::Subscribers => subscribers(db, json, out),
        Print::Stat => {
            let holes = log.check().during(during)?.holes.len();
            let (first, next) = (first()?, log.next());
            // What is damaged is counted, and no reason to say nothing else.
            let time_of = |txn| match time_of(db, txn) {
                Err(_) if holes > 0 => Ok(Value::Null),
                told => told,
            };
            let figures = json!({
                "first_txn": first.get(),
                "next_txn": next.get(),
                "transactions": next.get() - first.get(),
                "first_time": time_of(first)?,
                "last_time": time_of(TxnId::new(next.get() - 1).max(first))?,
                "holes": holes,
            });
            let printed = report::print(&figures, json, out);
            // Also where nobody reads to the end.
            sound(holes).and(printed)
        }
    }
}

/// Fails if there are holes.
fn sound(holes: usize) -> Result<(), Failure> {
    match holes {
        0 => Ok(()),
        count => Err(Failure::Found(format!(
            "{count} holes are in the log: `log verify` names them"
        ))),
    }
}

/// Forgets a subscriber.
pub(crate) fn unsubscribe(
    db: &Db,
    name: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let log = db.log().during(|| "cannot read the log".to_owned())?;
    let known = log.unsubscribe(name);
    if !known.during(|| format!("cannot forget the subscriber {name:?}"))? {
        return Err(Failure::Found(format!("there is no subscriber {name:?}")));
    }
    report::print(&json!({ "unsubscribed": name }), json, out)
}

/// One line a subscriber.
fn subscribers(db: &Db, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let during = || "cannot list the subscribers".to_owned();
    let log = db.log().during(during)?;
    let mut held = BTreeMap::new();
    for holder in db.holders().during(during)? {
        if let Holder::Subscriber {
            name, held_bytes, ..
        } = holder
        {
            held.insert(name, held_bytes);
        }
    }
    for found in log.subscribers().during(during)? {
        let SubscriberState {
            name,
            position,
            since,
            is_lost,
            ..
        } = found;
        let since = Timestamp::try_from(since).unwrap_or(Timestamp::MAX);
        let bytes = held.get(&name).copied().unwrap_or(0);
        if json {
            let line = json!({
                "name": name,
                "next_txn": position.get(),
                "since": since.to_string(),
                "held_bytes": bytes,
                "is_lost": is_lost,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let lost = if is_lost {
            ", lost: the log no longer has that"
        } else {
            ""
        };
        writeln!(
            out,
            "{}  next {position}, since {since}, holds {bytes} bytes{lost}",
            shown(name.as_bytes())
        )?;
    }
    Ok(())
}

/// Verifies the log of the database at `path`.
pub(crate) fn verify(path: &Path, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let found = Options::new()
        .verify_log(path)
        .during(|| format!("cannot read the log of the database {}", path.display()))?;
    let figures = json!({
        "first_txn": found.first.map(TxnId::get),
        "next_txn": found.next.map(TxnId::get),
        "transactions": found.transactions,
        "operations": found.changes,
        "recovery_begins_at": found.recovery.map(Lsn::get),
        "without_meta_page": found.without_meta,
        "unexplained": found.unexplained.map(|place| span(place, json)),
        "unfinished": found.tail.as_ref().map(|tail| unfinished(tail, json)),
        "holes": found.holes.iter().map(|found| hole(found, json)).collect::<Vec<_>>(),
    });
    let printed = report::print(&figures, json, out);
    // Also where nobody reads to the end.
    match found.holes.len() {
        0 => printed,
        count => Err(Failure::Found(format!("{count} holes were found"))),
    }
}

/// A part of the stream, as an object or in words.
fn span((from, to): (Lsn, Lsn), json: bool) -> Value {
    match json {
        true => json!({ "from_byte": from.get(), "to_byte": to.get() }),
        false => format!("bytes {from} to {to} of the stream").into(),
    }
}

/// What a crash may have left.
fn unfinished(tail: &LogTail, json: bool) -> Value {
    let LogTail {
        at,
        transactions,
        why,
        ..
    } = tail;
    match json {
        true => json!({ "at_byte": at.get(), "transactions": transactions, "why": why }),
        false => format!(
            "from byte {at} of the stream, with {transactions} sound transactions, to be cut by recovery: {why}"
        )
        .into(),
    }
}

fn hole(hole: &LogHole, json: bool) -> Value {
    let LogHole {
        first,
        next,
        place,
        why,
        ..
    } = hole;
    if json {
        return json!({
            "first_txn": first.map(TxnId::get),
            "next_txn": next.map(TxnId::get),
            "from_byte": place.map(|(from, _)| from.get()),
            "to_byte": place.map(|(_, to)| to.get()),
            "why": why,
        });
    }
    let place = place.map_or_else(String::new, |(from, to)| {
        format!(" at bytes {from} to {to} of the stream")
    });
    format!("{}{place}: {why}", missing(hole)).into()
}

/// Which transactions a hole takes.
fn missing(hole: &LogHole) -> String {
    match (hole.first, hole.next) {
        (Some(first), Some(next)) if first == next => format!("no transaction before {next}"),
        (Some(first), Some(next)) => format!("transactions {first} to {}", next.get() - 1),
        (Some(first), None) => format!("transactions from {first} on"),
        (None, Some(next)) => format!("transactions before {next}"),
        (None, None) => "unknown transactions".to_owned(),
    }
}

fn time_of(db: &Db, txn: TxnId) -> Result<Value, Failure> {
    let during = || format!("cannot read transaction {txn} in the log");
    let log = db.log().during(during)?;
    if txn >= log.next() {
        return Ok(Value::Null);
    }
    let found = log
        .tail(txn, LogFilter::every_transaction())
        .and_then(|mut tail| tail.try_next());
    let found = found.during(during)?.filter(|found| found.txn_id() == txn);
    Ok(found.map_or(Value::Null, |found| time(&found).into()))
}

fn time(found: &Transaction) -> String {
    // A clock beyond the year 9999 is printed as the last moment before.
    Timestamp::try_from(found.time())
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

/// With which transaction the last `count` of those begin of which `wanted` shows something; the first if there are not so many.
///
/// Looks at ever more of the log, from the end back.
fn last(db: &Db, count: u64, wanted: &Wanted) -> Result<TxnId, Failure> {
    let during = || "cannot read the log from its end back".to_owned();
    let filter = wanted.filter(db)?;
    let log = db.log().during(during)?;
    let first = log.first().during(during)?;
    let (mut from, mut missing, mut step) = (log.next(), count, count);
    while missing > 0 && from > first {
        let end = from;
        from = TxnId::new(end.get().saturating_sub(step)).max(first);
        let mut tail = log.tail(from, filter.clone()).during(during)?;
        // No more than are missing.
        let mut found = VecDeque::new();
        while let Some(txn) = tail.try_next().during(during)? {
            if txn.txn_id() >= end {
                break;
            }
            found.push_back(txn.txn_id());
            if found.len() as u64 > missing {
                found.pop_front();
            }
        }
        missing -= found.len() as u64;
        match found.front() {
            Some(begin) if missing == 0 => return Ok(*begin),
            _ => step = step.saturating_mul(4),
        }
    }
    Ok(from)
}

fn dump(
    db: &Db,
    from: TxnId,
    limit: usize,
    wanted: &Wanted,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let during = || format!("cannot read the log from transaction {from} on");
    let filter = wanted.filter(db)?;
    let mut tail = db
        .log()
        .and_then(|log| log.tail(from, filter))
        .during(during)?;
    let mut names = BTreeMap::new();
    for name in db.tables().during(|| "cannot list the tables".to_owned())? {
        if let Ok(table) = db.open_table(&name) {
            names.insert(table.id(), name);
        }
    }
    for _ in 0..limit {
        let Some(found) = tail.try_next().during(during)? else {
            break;
        };
        if json {
            let changes: Vec<_> = found
                .changes()
                .map(|change| object(names.get(&change.table()), &change))
                .collect();
            let line = json!({
                "txn": found.txn_id().get(),
                "time": time(&found),
                "tag": bytes(found.tag()),
                "changes": changes,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let tag = match found.tag() {
            [] => String::new(),
            tag => format!("  tag \"{}\"", tag.escape_ascii()),
        };
        writeln!(out, "{}  {}{tag}", found.txn_id(), time(&found))?;
        for change in found.changes() {
            let table = names.get(&change.table());
            let table = table.map_or_else(
                || format!("#{}", change.table()),
                |name| shown(name.as_bytes()),
            );
            writeln!(out, "    {}", line(&table, &change))?;
        }
    }
    Ok(())
}

fn line(table: &str, change: &Change<'_>) -> String {
    match *change {
        Change::Put { key, value, .. } => {
            format!(
                "put     {table} {} ({} bytes)",
                key.escape_ascii(),
                value.len()
            )
        }
        Change::Delete { key, .. } => format!("delete  {table} {}", key.escape_ascii()),
        Change::DeleteRange { from, to, .. } => {
            let to = to.map_or_else(|| "the end".to_owned(), |to| to.escape_ascii().to_string());
            format!("delete  {table} {} up to {to}", from.escape_ascii())
        }
        Change::CreateTable { name, table } => {
            format!("create  {} (table {table})", shown(name.as_bytes()))
        }
        Change::RenameTable { from, to, .. } => {
            format!(
                "rename  {} to {}",
                shown(from.as_bytes()),
                shown(to.as_bytes())
            )
        }
        Change::DropTable { name, .. } => format!("drop    {}", shown(name.as_bytes())),
        _ => format!("{change:?}"),
    }
}

/// `name` is the table's now, if it is there; of tables made and dropped it is what that says.
fn object(name: Option<&String>, change: &Change<'_>) -> Value {
    let table = change.table();
    match *change {
        Change::Put { key, value, .. } => {
            let (key, value) = (bytes(key), bytes(value));
            json!({ "op": "put", "table": table, "name": name, "key": key, "value": value })
        }
        Change::Delete { key, .. } => {
            json!({ "op": "delete", "table": table, "name": name, "key": bytes(key) })
        }
        Change::DeleteRange { from, to, .. } => {
            let (from, to) = (bytes(from), to.map(bytes));
            json!({ "op": "delete_range", "table": table, "name": name, "from": from, "to": to })
        }
        Change::CreateTable { name, .. } => {
            json!({ "op": "create_table", "table": table, "name": name })
        }
        Change::RenameTable { from, to, .. } => {
            json!({ "op": "rename_table", "table": table, "name": name, "from": from, "to": to })
        }
        Change::DropTable { name, .. } => {
            json!({ "op": "drop_table", "table": table, "name": name })
        }
        _ => json!({ "op": "unknown", "table": table, "name": name }),
    }
}
