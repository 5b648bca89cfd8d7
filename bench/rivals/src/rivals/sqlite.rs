//! SQLite, through rusqlite.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};

use crate::error::{Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Session, Setup, Snapshot, Source, Visit, Work};

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";
const PUT: &str = "INSERT OR REPLACE INTO rows (key, value) VALUES (?1, ?2)";
const DELETE: &str = "DELETE FROM rows WHERE key = ?1";
const GET: &str = "SELECT value FROM rows WHERE key = ?1";
const SCAN: &str = "SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key";
/// A checkpoint of another connection is waited for.
const BUSY: Duration = Duration::from_secs(60);

struct Sqlite {
    file: PathBuf,
    cache_bytes: u64,
    /// One writer at a time, in turn, instead of sleeping until the file is free.
    writer: Mutex<Connection>,
    /// Connections that read, when no session has them: what they have cached stays from session to session.
    readers: Mutex<Vec<Connection>>,
}

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    std::fs::create_dir_all(dir).map_err(engine)?;
    let file = dir.join("rows.sqlite");
    // One connection writes, the others read: none shares its cache with another.
    let cache_bytes = setup.cache_bytes / 2;
    let writer = connect(&file, cache_bytes)?;
    writer.execute_batch(TABLE).map_err(engine)?;
    Ok(Box::new(Sqlite {
        file,
        cache_bytes,
        writer: Mutex::new(writer),
        readers: Mutex::new(Vec::new()),
    }))
}

fn connect(file: &Path, cache_bytes: u64) -> Result<Connection> {
    let db = Connection::open(file).map_err(engine)?;
    db.busy_timeout(BUSY).map_err(engine)?;
    // Negative: in KiB.
    let cache_kib = (cache_bytes >> 10) as i64;
    let settings = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -{cache_kib};"
    );
    db.execute_batch(&settings).map_err(engine)?;
    Ok(db)
}

impl Rival for Sqlite {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(SqliteSession {
            sqlite: self,
            reader: self.readers().pop(),
        }))
    }

    fn settle(&self) -> Result<()> {
        let done = self
            .writer()
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        done.map_err(engine)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.readers().clear();
        let writer = self.writer.into_inner();
        let writer = writer.unwrap_or_else(PoisonError::into_inner);
        writer.close().map_err(|(_, error)| engine(error))
    }
}

impl Sqlite {
    /// A transaction that a panic interrupted was rolled back when it was dropped.
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A list of whole connections, whatever panicked.
    fn readers(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SqliteSession<'a> {
    sqlite: &'a Sqlite,
    /// Made when something is read and none is left by an earlier session.
    reader: Option<Connection>,
}

impl Drop for SqliteSession<'_> {
    fn drop(&mut self) {
        self.sqlite.readers().extend(self.reader.take());
    }
}

impl SqliteSession<'_> {
    fn write(&self, work: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
        let mut writer = self.sqlite.writer();
        let txn = writer.transaction_with_behavior(TransactionBehavior::Immediate);
        let txn = txn.map_err(engine)?;
        work(&txn)?;
        txn.commit().map_err(engine)
    }
}

impl Session for SqliteSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        self.write(|txn| {
            let mut put = txn.prepare_cached(PUT).map_err(engine)?;
            let mut value = Vec::new();
            while let Some(key) = next(&mut value) {
                put.execute(params![key.as_slice(), value])
                    .map_err(engine)?;
            }
            Ok(())
        })
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        self.write(|txn| {
            for op in ops {
                let key = op.key.as_slice();
                let done = match &op.value {
                    Some(value) => txn
                        .prepare_cached(PUT)
                        .and_then(|mut put| put.execute(params![key, &**value])),
                    None => txn
                        .prepare_cached(DELETE)
                        .and_then(|mut delete| delete.execute([key])),
                };
                done.map_err(engine)?;
            }
            Ok(())
        })
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        self.write(|txn| {
            let mut value = None;
            let mut get = txn.prepare_cached(GET).map_err(engine)?;
            show(&mut get, key, &mut |old| value = Some(change(old)))?;
            let value = value.transpose()?.unwrap_or_default();
            let mut put = txn.prepare_cached(PUT).map_err(engine)?;
            put.execute(params![key.as_slice(), &*value])
                .map_err(engine)?;
            Ok(())
        })
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(connect(&self.sqlite.file, self.sqlite.cache_bytes)?),
        };
        // As a transaction of rusqlite's is, but begun and ended by statements that are kept.
        let run = |what| {
            let mut statement = reader.prepare_cached(what).map_err(engine)?;
            statement.execute([]).map(drop).map_err(engine)
        };
        run("BEGIN")?;
        let get = reader.prepare_cached(GET).map_err(engine);
        let done = get.and_then(|get| work(&mut SqliteSnapshot { txn: reader, get }));
        done.and(run("ROLLBACK"))
    }
}

/// Shows the value of `key`.
fn show(
    get: &mut CachedStatement<'_>,
    key: &Key,
    seen: &mut dyn FnMut(Option<&[u8]>),
) -> Result<()> {
    let mut rows = get.query([key.as_slice()]).map_err(engine)?;
    match rows.next().map_err(engine)? {
        Some(row) => {
            let value = row.get_ref(0).map_err(engine)?;
            seen(Some(value.as_blob().map_err(engine)?));
        }
        None => seen(None),
    }
    Ok(())
}

struct SqliteSnapshot<'a> {
    txn: &'a Connection,
    get: CachedStatement<'a>,
}

impl Snapshot for SqliteSnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        show(&mut self.get, key, seen)
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        let mut scan = self.txn.prepare_cached(SCAN).map_err(engine)?;
        let mut rows = scan.query([from.as_slice()]).map_err(engine)?;
        while let Some(row) = rows.next().map_err(engine)? {
            let (key, value) = (row.get_ref(0), row.get_ref(1));
            let (key, value) = (key.map_err(engine)?, value.map_err(engine)?);
            if !visit(
                key.as_blob().map_err(engine)?,
                value.as_blob().map_err(engine)?,
            ) {
                break;
            }
        }
        Ok(())
    }
}
