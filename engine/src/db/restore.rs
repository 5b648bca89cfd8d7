//! Making a database of backups.
//!
//! The rows of a full backup are in key order: they are merged at the right edge of their trees, a slice at a time, without
//! a log. Until the last of them is in place, the meta page says that a restore is under way, and nobody opens the
//! database. Increments are applied as any copy applies transactions.
//!
//! - Spec: SE-023, BK-001 to BK-004.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use northstar_io::planted::planted;

use super::Db;
use super::apply::Apply;
use super::backup::{Backup, BackupReader, moment};
use super::open::{
    Found, create, lock_in, native_disk, open_in, secure_names, store_options, survey,
};
use super::options::Options;
use super::world::World;
use crate::checkpoint::roots::merge_roots;
use crate::error::{Corruption, Error, Result};
use crate::format::backup::{Header, Kind};
use crate::format::meta::Meta;
use crate::ids::{LogPosition, TableId, TxnId};
use crate::pages::store::{Opened, Store};
use crate::pages::write::PageSink;
use crate::tree::merge::{Change, ChangeKind, Forget, merge};
use crate::txn::shape::Roots;

/// A database that is being made of backups: see [`Options::restore`].
#[derive(Debug)]
pub struct Restore {
    db: Db,
    database: u128,
    /// When the state that was reached was committed; zero if the backups do not say.
    committed_ns: u64,
}

impl Options {
    /// Makes a database in directory `path`, which must be missing or empty, of a full backup. [`Restore::increment`] leads
    /// it on, and [`Restore::finish`] opens it.
    ///
    /// All is verified on the way, and read again from the new database once it is there. Of a damaged full backup nothing
    /// is left but empty directories and a lock; interrupted, it leaves what no one can open, or at its very beginning what counts as empty. Page size, retention and all else are those of these options, not of the database that was backed
    /// up; states before the backup's are not in it, and its rows count as written by the
    /// backup's last transaction ([`Db::history`]). The new database has an id of its own.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged backup, [`Error::InvalidOption`] for an increment or a place that is taken, and as
    /// [`Options::open`].
    pub fn restore(self, path: impl AsRef<Path>, from: impl Read) -> Result<Restore> {
        let options = self.checked()?;
        let world = World::of(native_disk(&options));
        restore_in(&options, path.as_ref(), world, from)
    }
}

/// As [`Options::restore`], in a world.
pub(crate) fn restore_in(
    options: &Options,
    dir: &Path,
    world: World,
    from: impl Read,
) -> Result<Restore> {
    let reader = BackupReader::open(from)?;
    let header = *reader.header();
    if header.kind != Kind::Full {
        return Err(Error::InvalidOption {
            option: "backup",
            found: format!("an increment that leads on from the state {}", header.from),
            expected: "a full one".to_owned(),
        });
    }
    let disk = Arc::clone(&world.disk);
    let taken = || Error::InvalidOption {
        option: "path",
        found: format!("{}, which holds a database", dir.display()),
        expected: "a directory that is missing or empty".to_owned(),
    };
    if let Found::Database = survey(options, dir, &*disk)? {
        return Err(taken());
    }
    let lock = lock_in(options, dir, &*disk)?;
    if let Found::Database = survey(options, dir, &*disk)? {
        return Err(taken());
    }
    let backup = match load_all(options, dir, &world, reader) {
        Ok(backup) => backup,
        Err(error) => {
            // Without it the directory is as good as empty. Should that fail, nobody opens what is there.
            for made in ["data", "data.tmp"] {
                let _removed = disk.remove(&dir.join(made));
            }
            return Err(error);
        }
    };
    // Whoever opens it in between opens what was restored.
    drop(lock);
    let db = open_in(options, dir, world)?;
    let found = db.begin_read()?.state_hash()?;
    if backup.state != Some(found) {
        return Err(Error::Corrupt(Corruption {
            file: "data",
            offset: None,
            detail: format!("what was restored has the digest {found}, not that of the backup"),
        }));
    }
    Ok(Restore {
        db,
        database: header.database,
        committed_ns: header.committed_ns,
    })
}

/// Makes the database that a full backup holds; nobody opens it before all of it is there.
fn load_all<R: Read>(
    options: &Options,
    dir: &Path,
    world: &World,
    mut reader: BackupReader<R>,
) -> Result<Backup> {
    let header = *reader.header();
    let closed = !planted("a restore opens before all rows are there");
    let opened = create(world, dir, &store_options(options, world.sizes), closed)?;
    let mut load = Load::new(opened, header.to, options.slice_bytes);
    while reader.next_block()?.is_some() {
        reader.each_row(|row| load.row(row.table, row.key, row.value))?;
    }
    let backup = reader.finish()?;
    load.note_time(header.time_ns)?;
    load.slice()?;
    load.finish(&backup, (header.next_table, header.time_ns))?;
    secure_names(dir, &*world.disk).map_err(Error::Io)?;
    Ok(backup)
}

impl Restore {
    /// The database that the backups are of: [`Backup::database`].
    #[must_use]
    pub const fn source(&self) -> u128 {
        self.database
    }

    /// When the state that was reached was committed, if the backups say so.
    #[must_use]
    pub fn committed(&self) -> Option<SystemTime> {
        moment(self.committed_ns)
    }

    /// The state that was reached.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn state(&self) -> Result<TxnId> {
        Ok(TxnId::new(self.db.log()?.next().get() - 1))
    }

    /// Leads on by an increment of the same database: as far as it goes, or up to and with transaction `to`. What is there
    /// already is passed over. Says which state was reached.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a full backup, one of another database or of a copy that has gone its own way, as far as
    /// times of commits tell, or one that begins behind the state that was reached; [`Error::Corrupt`], with what comes
    /// before the damage applied; as [`Apply::push`].
    pub fn increment(&mut self, from: impl Read, to: Option<TxnId>) -> Result<TxnId> {
        let led = self.lead_on(from, to);
        if led.is_err() {
            // What came before is the state that was reached. Should that fail, the first error still says why.
            let _flushed = self.db.engine().and_then(|engine| engine.pipeline.flush());
        }
        led
    }

    fn lead_on(&mut self, from: impl Read, to: Option<TxnId>) -> Result<TxnId> {
        let mut reader = BackupReader::open(from)?;
        let header = *reader.header();
        let mut apply: Apply = self.db.begin_apply()?;
        let last = to.unwrap_or(TxnId::MAX);
        let reached = TxnId::new(apply.next().get() - 1);
        // Where all that is wanted is there already, it need not lead on from it.
        let from_at_most = match reached >= last {
            true => TxnId::MAX,
            false => reached,
        };
        expect_next(&header, self.database, from_at_most)?;
        let mut committed_ns = self.committed_ns;
        if header.from == reached {
            is_same_commit(reached, header.committed_ns, committed_ns)?;
        }
        while apply.next() <= last && reader.next_block()?.is_some() {
            reader.each_record(|transaction| {
                let (txn, time_ns) = (transaction.txn_id(), transaction.time_ns());
                if txn == reached {
                    is_same_commit(reached, time_ns, committed_ns)?;
                }
                if txn != apply.next() || txn > last {
                    return Ok(());
                }
                // Not known, should anything fail.
                self.committed_ns = 0;
                apply.push(transaction)?;
                committed_ns = time_ns;
                Ok(())
            })?;
        }
        if apply.next() <= last {
            reader.finish()?;
        }
        let last = apply.finish()?;
        self.committed_ns = committed_ns;
        Ok(last)
    }

    /// The database, in the state that was reached.
    #[must_use]
    pub fn finish(self) -> Db {
        self.db
    }
}

/// Whether a backup is an increment of `database` that leads on from `reached` or from an earlier state.
pub(super) fn expect_next(header: &Header, database: u128, reached: TxnId) -> Result<()> {
    let fits = header.kind == Kind::Increment && header.database == database;
    if fits && header.from <= reached {
        return Ok(());
    }
    let kind = match header.kind {
        Kind::Full => "a full one",
        Kind::Increment => "an increment",
    };
    let (of, from) = (header.database, header.from);
    Err(Error::InvalidOption {
        option: "backup",
        found: format!("{kind} of database {of:032x} from state {from}"),
        expected: format!(
            "an increment of database {database:032x} from state {reached} or an earlier one"
        ),
    })
}

/// Whether two backups mean the same by state `txn`: they say when it was committed. Zero says nothing.
pub(super) fn is_same_commit(txn: TxnId, found: u64, expected: u64) -> Result<()> {
    if found == expected || found == 0 || expected == 0 {
        return Ok(());
    }
    Err(Error::InvalidOption {
        option: "backup",
        found: format!("an increment of a database whose {txn} was committed at {found} ns"),
        expected: format!(
            "{txn} committed at {expected} ns, as by what it is to lead on from; a copy has gone its own way"
        ),
    })
}

/// Merges rows in key order into the trees of a database that nobody has opened.
struct Load {
    /// What the rows are said to have been written by: the last transaction of the state.
    txn: TxnId,
    store: Arc<Store>,
    meta: Meta,
    roots: Roots,
    table: TableId,
    /// Rows of `table` that are not merged yet: their bytes, and where key and value end.
    bytes: Vec<u8>,
    rows: Vec<(usize, usize)>,
    /// Bytes of rows that are merged at a time.
    slice_bytes: u64,
}

impl Load {
    fn new(opened: Opened, txn: TxnId, slice_bytes: u64) -> Self {
        Self {
            txn,
            store: Arc::new(opened.store),
            meta: opened.meta,
            roots: Roots::default(),
            table: TableId::NAMES,
            bytes: Vec::new(),
            rows: Vec::new(),
            slice_bytes,
        }
    }

    fn row(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<()> {
        if table != self.table || self.bytes.len() as u64 >= self.slice_bytes {
            self.slice()?;
            self.table = table;
        }
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.rows.push((key_end, self.bytes.len()));
        Ok(())
    }

    /// Notes when the state was committed, where history is kept: it is the first that can be read by its time.
    fn note_time(&mut self, time_ns: u64) -> Result<()> {
        if self.meta.history.is_none() {
            return Ok(());
        }
        let txn = self.txn.get().to_be_bytes();
        self.row(TableId::TIMES, &txn, &time_ns.to_be_bytes())
    }

    /// Merges what is collected, and makes it durable.
    fn slice(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let mut sink = store.begin_write(self.meta.generation.next())?;
        let txn = self.txn;
        let (bytes, mut at) = (&self.bytes, 0);
        let changes = self.rows.iter().map(|&(key_end, value_end)| {
            let key = &bytes[at..key_end];
            at = value_end;
            Change {
                key,
                txn,
                kind: ChangeKind::Put(&bytes[key_end..value_end]),
            }
        });
        let (table, root) = (self.table, self.roots.get(self.table).map(|root| root.page));
        let merged = merge(&*store, &mut sink, table, root, changes, &[], &mut Forget)?;
        self.roots.set(table, merged.tree());
        let generation = self.meta.generation.next();
        merge_roots(&store, &mut sink, generation, &[table], &mut self.roots)?;
        self.flip(sink)?;
        self.bytes.clear();
        self.rows.clear();
        Ok(())
    }

    fn flip(&mut self, sink: PageSink<'_>) -> Result<()> {
        let written = sink.finish()?;
        let mut meta = self.meta.clone();
        meta.generation = meta.generation.next();
        meta.free_directory = written.free_directory;
        meta.pages = written.pages;
        meta.names = self.roots.get(TableId::NAMES).copied();
        meta.roots = self.roots.get(TableId::ROOTS).copied();
        self.store.write_meta(&meta)?;
        self.store.reclaim(meta.generation, None);
        self.meta = meta;
        Ok(())
    }

    /// Says that the state of the backup is there, in both slots.
    fn finish(mut self, backup: &Backup, (next_table, time_ns): (TableId, u64)) -> Result<()> {
        self.meta.restoring = false;
        self.meta.tree_txn = backup.to;
        self.meta.log_start = LogPosition {
            last_txn: backup.to,
            ..LogPosition::default()
        };
        self.meta.next_table = next_table;
        self.meta.checkpoint_ns = time_ns;
        self.meta.clean = true;
        if let Some(history) = &mut self.meta.history {
            history.horizon = backup.to;
            history.state = backup.state.unwrap_or_default();
        }
        let store = Arc::clone(&self.store);
        for _slot in 0..2 {
            let sink = store.begin_write(self.meta.generation.next())?;
            self.flip(sink)?;
        }
        store.leave();
        Ok(())
    }
}
