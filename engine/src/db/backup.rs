//! Backups: all rows of a state, and what was committed since another one, as a stream of bytes.
//!
//! - Spec: BK-001 to BK-004, SE-023.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use northstar_io::planted::planted;
use northstar_io::{IoError, IoKind};

use super::Db;
use super::log::{LogFilter, Transaction};
use super::moments::time_of;
use super::read::ReadTxn;
use super::restore::{expect_next, is_same_commit};
use crate::error::{Corruption, Error, Result};
use crate::format::backup::{
    BLOCK_BYTES, BLOCK_HEADER_BYTES, BackupError, BlockHeader, BlockKind, End, HEADER_BYTES,
    Header, Kind, push_row, take_row,
};
use crate::format::checksum::Crc32c;
use crate::format::record::{Record, encode_frame};
use crate::ids::{TableId, TxnId};
use crate::state::StateHash;
use crate::sync::atomic::AtomicU64;
use crate::txn::backups::Reads;
use crate::txn::positions;
use crate::txn::table::{check_name, decode_entry};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// It can be restored alone; else it leads on from a state that another one leads to.
    pub is_full: bool,
    /// The database it is of.
    pub database: u128,
    /// The state it leads on from; zero for a full one.
    pub from: TxnId,
    /// The state it leads to.
    pub to: TxnId,
    /// Rows of a full one, transactions of an increment.
    pub count: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The digest of the state of a full one: that of [`ReadTxn::state_hash`].
    pub state: Option<StateHash>,
    /// When the state that an increment leads on from was committed, if the log still said so.
    pub from_time: Option<SystemTime>,
    /// When the state that it leads to was committed, if it is known.
    pub to_time: Option<SystemTime>,
}

impl Backup {
    /// Reads a backup from end to end and verifies every checksum, the order of all there is, and that nothing is missing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place, [`Error::Io`].
    pub fn verify(from: impl Read) -> Result<Self> {
        Self::read(BackupReader::open(from)?, |_| Ok(()))
    }

    /// Verifies an increment as [`Backup::verify`] does, and that it leads on from the state that this backup leads to, or from an
    /// earlier one: what [`Restore::increment`](crate::Restore::increment) would refuse after this backup is refused here. Of several in
    /// a row, go on from the one that leads furthest: one that leads no further than those before it changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if it does not. As [`Backup::verify`].
    pub fn verify_next(&self, from: impl Read) -> Result<Self> {
        let reader = BackupReader::open(from)?;
        let header = *reader.header();
        expect_next(&header, self.database, self.to)?;
        let known = self.to_time.map_or(0, nanoseconds);
        if header.from == self.to {
            is_same_commit(self.to, header.committed_ns, known)?;
        }
        Self::read(reader, |transaction| {
            match transaction.txn_id() == self.to {
                true => is_same_commit(self.to, transaction.time_ns(), known),
                false => Ok(()),
            }
        })
    }

    fn read<R: Read>(
        mut reader: BackupReader<R>,
        mut each: impl FnMut(&Transaction) -> Result<()>,
    ) -> Result<Self> {
        match reader.header().kind {
            Kind::Full => {
                while reader.next_block()?.is_some() {
                    reader.each_row(|_| Ok(()))?;
                }
            }
            Kind::Increment => {
                while reader.next_block()?.is_some() {
                    reader.each_record(|transaction| each(&transaction))?;
                }
            }
        }
        reader.finish()
    }
}

impl Db {
    /// Writes the newest durable state to `to`, while commits go on. [`Options::restore`](crate::Options::restore) makes a
    /// database of it.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # use northstardb::{Db, Options};
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let (path, at) = (dir.path().join("one"), dir.path().join("other"));
    /// # let db = Db::open(&path)?;
    /// # let table = db.table("t")?;
    /// let mut full = Vec::new();
    /// let backup = db.backup(&mut full)?;
    /// # let mut txn = db.begin_write()?;
    /// # txn.put(&table, "a", "1")?;
    /// # txn.commit()?;
    /// let mut since = Vec::new();
    /// db.backup_since(backup.to, &mut since)?;
    ///
    /// let mut restore = Options::new().restore(&at, &*full)?;
    /// restore.increment(&*since, None)?;
    /// let copy = restore.finish();
    /// assert_eq!(copy.begin_read()?.state_hash()?, db.begin_read()?.state_hash()?);
    /// # copy.close()?; db.close() }
    /// ```
    ///
    /// It reads every row, in order, as a scan does, and holds one snapshot meanwhile. The file system's sync is the caller's to
    /// call. Memory: one block of 256 KiB, or one largest row.
    ///
    /// # Errors
    /// [`Error::Io`] also for what `to` says, [`Error::Full`], [`Error::Corrupt`], [`Error::Closed`].
    #[track_caller]
    pub fn backup(&self, to: impl Write) -> Result<Backup> {
        let engine = self.engine()?;
        let (read, last_ns) = self.newest_with_time()?;
        let committed_ns = self.committed_ns(read.txn_id());
        let time_ns = match committed_ns {
            0 => time_of(&read.snapshot, read.txn_id())?.unwrap_or(last_ns),
            known => known,
        };
        let header = Header {
            kind: Kind::Full,
            database: engine.database_id,
            next_table: engine.shapes.shared.tables.next_id(),
            from: TxnId::ZERO,
            to: read.txn_id(),
            time_ns,
            committed_ns,
        };
        let began = (Location::caller(), engine.pipeline.monotonic_ns());
        let reads = Reads::Snapshot(read.snapshot.slot());
        let underway = engine.shapes.shared.backups.begin(began, header.to, reads);
        let mut writer = BackupWriter::begin(to, header)?;
        let (mut state, mut written) = (StateHash::default(), Ok(()));
        read.each_row(&[TableId::SUBSCRIBERS], |table, key, value| {
            if StateHash::covers(table) {
                state.add(table, key, value);
            }
            written = writer.row(table, key, value);
            underway.has_come_to(header.to, writer.bytes);
            match &written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        written?;
        writer.finish(state)
    }

    /// Writes all that was committed after the state `since` to `to`, and is durable: an increment to a backup that leads to
    /// that state, or to a later one. A subscriber that acknowledges what was backed up keeps the log until the next
    /// ([`Log::subscribe`](crate::Log::subscribe)); what is being written keeps it like a subscriber.
    ///
    /// A copy of the database's files has the id of the original. Where both commit, an increment of one does not lead on from a
    /// backup of the other: it is refused where the log of each still had the transaction that they met at, whose times of
    /// commit then differ.
    ///
    /// # Errors
    /// [`Error::NotInLog`] if the log no longer reaches back so far: then it takes a full one. As [`Db::backup`].
    #[track_caller]
    pub fn backup_since(&self, since: TxnId, to: impl Write) -> Result<Backup> {
        let engine = self.engine()?;
        let log = self.log()?;
        // Also what nobody has waited for, as a full one has.
        let flushed = engine.pipeline.flush();
        let end = log.next();
        let since = match planted("an increment leaves out its first transaction") {
            true => since.next(),
            false => since,
        };
        // Behind the newest nothing is found, whatever its number.
        let first = since.min(TxnId::new(u64::MAX - 1)).next();
        if first > end {
            flushed?;
            return Err(log.not_in_log(first, end)?);
        }
        let began = (Location::caller(), engine.pipeline.monotonic_ns());
        let (last, reads) = (
            TxnId::new(end.get() - 1),
            Reads::Log(AtomicU64::new(first.get())),
        );
        let underway = engine.shapes.shared.backups.begin(began, last, reads);
        log.pass_recycling();
        let mut tail = log.tail(first, LogFilter::every_transaction())?;
        let header = Header {
            kind: Kind::Increment,
            database: engine.database_id,
            next_table: engine.shapes.shared.tables.next_id(),
            from: since,
            to: last,
            time_ns: engine.pipeline.now(),
            committed_ns: self.committed_ns(since),
        };
        let mut writer = BackupWriter::begin(to, header)?;
        while tail.position() < end {
            match tail.try_next()? {
                Some(transaction) => writer.record(&transaction)?,
                None => break,
            }
            underway.has_come_to(tail.position(), writer.bytes);
        }
        tail.prove()?;
        writer.finish(StateHash::default())
    }

    /// When `txn` was committed; zero if its record cannot be read any more.
    fn committed_ns(&self, txn: TxnId) -> u64 {
        let filter = LogFilter::every_transaction();
        let found = self.log().and_then(|log| log.tail(txn, filter)?.try_next());
        let found = found.ok().flatten();
        let found = found.filter(|found| found.txn_id() == txn);
        found.map_or(0, |found| found.time_ns())
    }

    /// The newest durable state, and a time not before it was committed: that of the last commit, unless others were on their way.
    #[track_caller]
    fn newest_with_time(&self) -> Result<(ReadTxn, u64)> {
        let engine = self.engine()?;
        // What is durable can be saved also when nobody writes any more.
        let _flushed = engine.pipeline.flush();
        loop {
            let before = engine.pipeline.last_time_ns();
            let read = self.begin_read()?;
            // Else somebody has committed meanwhile, perhaps later than what is read here.
            if engine.pipeline.last_time_ns() == before {
                return Ok((read, before));
            }
        }
    }
}

/// What `to` or `from` said.
fn io_error(kind: IoKind, at: u64, error: &std::io::Error) -> Error {
    let errno = error.raw_os_error().unwrap_or(IoError::DEVICE);
    let source = IoError::new(kind, "the backup", at, 0, errno);
    Error::from_io("the backup", source)
}

pub(super) fn corrupt(at: u64, error: &BackupError) -> Error {
    Error::Corrupt(Corruption {
        file: "backup",
        offset: Some(at),
        detail: error.to_string(),
    })
}

/// Writes a backup.
struct BackupWriter<W> {
    to: W,
    header: Header,
    payload: Vec<u8>,
    chain: u32,
    count: u64,
    bytes: u64,
    /// When the state was committed that what was written leads to; zero if that is not known.
    last_ns: u64,
}

impl<W: Write> BackupWriter<W> {
    fn begin(to: W, header: Header) -> Result<Self> {
        let encoded = header.encode();
        let mut writer = Self {
            to,
            header,
            payload: Vec::with_capacity(BLOCK_BYTES),
            chain: Header::chain(&encoded),
            count: 0,
            bytes: 0,
            last_ns: header.committed_ns,
        };
        writer.write(&encoded)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.to.write_all(bytes);
        written.map_err(|error| io_error(IoKind::Write, self.bytes, &error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn block(&mut self, kind: BlockKind) -> Result<()> {
        let payload = std::mem::take(&mut self.payload);
        let header = BlockHeader::of(kind, &payload, self.chain);
        self.chain = header.chain();
        self.write(&header.encode())?;
        self.write(&payload)?;
        self.payload = payload;
        self.payload.clear();
        Ok(())
    }

    fn end_entry(&mut self) -> Result<()> {
        self.count += 1;
        match self.payload.len() >= BLOCK_BYTES {
            true => self.block(BlockKind::Content),
            false => Ok(()),
        }
    }

    fn row(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<()> {
        push_row(&mut self.payload, table, key, value);
        self.end_entry()
    }

    fn record(&mut self, transaction: &Transaction) -> Result<()> {
        let (ops, count) = transaction.encoded();
        let tag = transaction.tag();
        let (txn, time_ns) = (transaction.txn_id(), transaction.time_ns());
        let mut sum = Crc32c::new();
        sum.update(tag);
        sum.update(ops);
        let payload = (tag.len() + ops.len(), sum.finish());
        let (header, trailer) = encode_frame(txn, time_ns, tag.len(), payload, count);
        for part in [&header[..], tag, ops, &trailer[..]] {
            self.payload.extend_from_slice(part);
        }
        self.last_ns = time_ns;
        self.end_entry()
    }

    fn finish(mut self, state: StateHash) -> Result<Backup> {
        if !self.payload.is_empty() {
            self.block(BlockKind::Content)?;
        }
        let end = End {
            count: self.count,
            state,
        };
        self.payload.extend_from_slice(&end.encode());
        self.block(BlockKind::End)?;
        let flushed = self.to.flush();
        flushed.map_err(|error| io_error(IoKind::Write, self.bytes, &error))?;
        Ok(report(&self.header, end, self.bytes, self.last_ns))
    }
}

/// `last_ns` is when the state that it leads to was committed.
fn report(header: &Header, end: End, bytes: u64, last_ns: u64) -> Backup {
    let is_full = header.kind == Kind::Full;
    Backup {
        is_full,
        database: header.database,
        from: header.from,
        to: header.to,
        count: end.count,
        bytes,
        state: is_full.then_some(end.state),
        from_time: moment(header.committed_ns).filter(|_| !is_full),
        to_time: moment(last_ns),
    }
}

/// The reverse of [`moment`].
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Zero is no time.
pub(super) fn moment(ns: u64) -> Option<SystemTime> {
    (ns > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
}

/// Reads a backup, and believes nothing of it that was not verified.
pub(super) struct BackupReader<R> {
    from: R,
    header: Header,
    chain: u32,
    payload: Vec<u8>,
    /// Where the block at hand begins.
    block_at: u64,
    bytes: u64,
    count: u64,
    end: Option<End>,
    /// The last row: tables and keys rise.
    last: Option<(TableId, Vec<u8>)>,
    /// The tables that have names, by number: those come first.
    named: BTreeMap<TableId, TableId>,
    /// The transaction that comes next, and when the one before it was committed; zero if that is not known.
    next: TxnId,
    last_ns: u64,
    state: StateHash,
}

impl<R: Read> BackupReader<R> {
    pub(super) fn open(mut from: R) -> Result<Self> {
        let mut encoded = [0; HEADER_BYTES];
        read_exact(&mut from, &mut encoded, 0)?;
        let (header, chain) = Header::decode(&encoded).map_err(|error| corrupt(0, &error))?;
        Ok(Self {
            from,
            header,
            chain,
            payload: Vec::new(),
            block_at: 0,
            bytes: HEADER_BYTES as u64,
            count: 0,
            end: None,
            last: None,
            named: BTreeMap::new(),
            next: header.from.next(),
            last_ns: header.committed_ns,
            state: StateHash::default(),
        })
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Reads and verifies the next block of content; `None` behind the last.
    pub(super) fn next_block(&mut self) -> Result<Option<()>> {
        let mut encoded = [0; BLOCK_HEADER_BYTES];
        let at = self.bytes;
        read_exact(&mut self.from, &mut encoded, at)?;
        let block = BlockHeader::decode(&encoded, self.chain).map_err(|e| corrupt(at, &e))?;
        self.payload.clear();
        // The memory grows with what is really there.
        let taken = (&mut self.from)
            .take(block.len as u64)
            .read_to_end(&mut self.payload)
            .map_err(|error| io_error(IoKind::Read, at, &error))?;
        if taken < block.len {
            return Err(ends_early(at + (BLOCK_HEADER_BYTES + taken) as u64));
        }
        block.verify(&self.payload).map_err(|e| corrupt(at, &e))?;
        (self.chain, self.block_at) = (block.chain(), at);
        self.bytes += (BLOCK_HEADER_BYTES + block.len) as u64;
        if block.kind == BlockKind::Content {
            return Ok(Some(()));
        }
        self.end = Some(End::decode(&self.payload).map_err(|e| corrupt(at, &e))?);
        Ok(None)
    }

    /// Shows the rows of the block at hand.
    pub(super) fn each_row(
        &mut self,
        mut see: impl FnMut(crate::format::backup::Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let at = self.block_at;
        let mut rest = self.payload.as_slice();
        while let Some(row) = take_row(&mut rest).map_err(|error| corrupt(at, &error))? {
            let place = (row.table, row.key);
            let rises = match &self.last {
                None => true,
                Some((table, key)) => (*table, &**key) < place,
            };
            let is_known = match row.table {
                TableId::NAMES => {
                    let id = named(&row).map_err(|why| damaged_at(at, why))?;
                    let is_given = id.was_given_out(self.header.next_table);
                    is_given && self.named.insert(id.number(), id).is_none()
                }
                TableId::SUBSCRIBERS => {
                    text(row.key).map_err(|why| damaged_at(at, why))?;
                    let position = positions::decode(row.value);
                    position.map_err(|error| damaged_at(at, error.to_string()))?;
                    true
                }
                table => self.named.get(&table.number()) == Some(&table),
            };
            if !rises || !is_known {
                return Err(damaged_at(
                    at,
                    format!(
                        "a row of {:?} is not above the one before it, or its table has no name of its own",
                        row.table
                    ),
                ));
            }
            let last = self.last.get_or_insert_with(|| (row.table, Vec::new()));
            last.0 = row.table;
            last.1.clear();
            last.1.extend_from_slice(row.key);
            if StateHash::covers(row.table) {
                self.state.add(row.table, row.key, row.value);
            }
            self.count += 1;
            see(row)?;
        }
        Ok(())
    }

    /// Shows the transactions of the block at hand.
    pub(super) fn each_record(
        &mut self,
        mut see: impl FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        let at = self.block_at;
        let all = Arc::new(LogFilter::every_transaction());
        let mut rest = self.payload.as_slice();
        while !rest.is_empty() {
            let decoded = Record::decode(rest).and_then(|(record, behind)| {
                record.expect_txn(self.next)?;
                Ok((record, behind))
            });
            let (record, behind) = decoded.map_err(|error| damaged_at(at, error.to_string()))?;
            rest = behind;
            self.next = self.next.next();
            self.last_ns = record.timestamp_ns;
            self.count += 1;
            if let Some(transaction) = Transaction::of(&record, &all)? {
                see(transaction)?;
            }
        }
        Ok(())
    }

    /// After the last block: whether what was there is what the end says.
    pub(super) fn finish(&mut self) -> Result<Backup> {
        let at = self.block_at;
        let Some(end) = self.end else {
            return Err(ends_early(self.bytes));
        };
        let is_full = self.header.kind == Kind::Full;
        let leads_to = self.next == self.header.to.next();
        let is_whole = end.count == self.count && (is_full || leads_to);
        if !is_whole || (is_full && end.state != self.state) {
            return Err(damaged_at(
                at,
                format!(
                    "it holds {} entries with the digest {}, its end says {} and {}",
                    self.count, self.state, end.count, end.state
                ),
            ));
        }
        let mut more = [0];
        let read = self.from.read(&mut more);
        match read.map_err(|error| io_error(IoKind::Read, self.bytes, &error))? {
            0 => Ok(report(&self.header, end, self.bytes, self.last_ns)),
            _ => Err(damaged_at(
                self.bytes,
                "something follows its end".to_owned(),
            )),
        }
    }
}

/// The name of a table or a subscriber.
fn text(key: &[u8]) -> std::result::Result<&str, String> {
    let name = std::str::from_utf8(key).map_err(|error| format!("a name: {error}"))?;
    check_name(name).map_err(|error| error.to_string())?;
    Ok(name)
}

/// The table that has a name.
fn named(row: &crate::format::backup::Row<'_>) -> std::result::Result<TableId, String> {
    decode_entry(text(row.key)?, row.value).map_err(|error| error.to_string())
}

fn damaged_at(at: u64, detail: String) -> Error {
    Error::Corrupt(Corruption {
        file: "backup",
        offset: Some(at),
        detail,
    })
}

fn ends_early(at: u64) -> Error {
    damaged_at(at, "it ends early".to_owned())
}

fn read_exact(from: &mut impl Read, bytes: &mut [u8], at: u64) -> Result<()> {
    let read = from.read_exact(bytes);
    read.map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return ends_early(at);
        }
        io_error(IoKind::Read, at, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::table::encode_entry;

    #[test]
    fn rows_of_tables_without_a_name_of_their_own_are_damage() {
        let id = TableId::new;
        let verified = |rows: &[(TableId, &str, Vec<u8>)]| {
            let header = Header {
                kind: Kind::Full,
                database: 7,
                next_table: id(20),
                from: TxnId::ZERO,
                to: TxnId::new(5),
                time_ns: 1,
                committed_ns: 0,
            };
            let mut bytes = Vec::new();
            let mut writer = BackupWriter::begin(&mut bytes, header).unwrap();
            let mut state = StateHash::default();
            for (table, key, value) in rows {
                writer.row(*table, key.as_bytes(), value).unwrap();
                state.add(*table, key.as_bytes(), value);
            }
            writer.finish(state).unwrap();
            Backup::verify(&*bytes).map(|found| found.count)
        };
        let long = &*"n".repeat(1025);
        let name = |name, table| (TableId::NAMES, name, encode_entry(table).to_vec());
        let row = |table| (table, "key", b"value".to_vec());
        let one = name("one", id(16));
        let found = verified(&[one.clone(), name("two", id(19)), row(id(16)), row(id(19))]);
        assert_eq!(found.unwrap(), 4);
        for rows in [
            &[one.clone(), row(id(17))][..],
            &[one.clone(), name("two", id(16))],
            &[one.clone(), name("two", id(16 | 1 << 30))],
            &[one.clone(), row(id(16 | 1 << 30))],
            &[one.clone(), name("two", id(20))],
            &[one.clone(), name("two", id(5))],
            &[(TableId::NAMES, "one", vec![16, 0, 0, 0])],
            &[name("", id(16))],
            &[name(long, id(16))],
            &[(TableId::SUBSCRIBERS, "s", b"short".to_vec())],
            &[(TableId::SUBSCRIBERS, "", vec![0; 16])],
            &[row(id(16))],
        ] {
            let found = verified(rows);
            let told = matches!(&found, Err(Error::Corrupt(damage)) if damage.file == "backup");
            assert!(told, "{rows:?}: {found:?}");
        }
    }
}
