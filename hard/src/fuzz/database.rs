//! The body for whole databases: changed ones are opened, read, checked, written to and opened again.
//!
//! What must hold, whatever the files say, also under sound checksums:
//! 1. Every call ends, with an answer or with an error that names damage: never one of the device, which has none here.
//! 2. Opening for reading only, and all that is read then, changes no byte.
//! 3. Rows come in strictly rising order, forward and backward, and never more than the files have room for.
//! 4. If [`Db::check`] finds nothing wrong, reading a table forward, backward and key by key gives the same, without an
//!    error.
//! 5. What is committed to such a database can be read, also after a checkpoint and after opening it again; and the check
//!    still finds nothing.
//! 6. A database that was not changed at all is sound.
//! 7. All that holds of the newest state holds of those of the past, wherever they are still to be had.
//! 8. Its log can be verified, whether or not it opens, and that changes no byte either.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use northstar_io::Disk;
use northstar_io::sim::{FaultPlan, Image, Shadow, SimDisk};
use northstardb::internals::{self, World};
use northstardb::{Db, Error, ReadTxn, Result, Table, TxnId, WriteBatch};

use super::edit::{self, Changed};
use crate::sim::setup::DIR;

/// Rows are at least so many bytes of a page or of the log.
const ROW_BYTES_MIN: u64 = 6;
/// Value that is written; longer than what a page holds itself.
const WRITTEN: [u8; 1500] = [0x5a; 1500];

/// Room on the disk: meta may say that segments of the log have a gigabyte.
const ROOM_BYTES: u64 = 8 << 20;

/// Does it.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    hold(&edit::apply(data));
}

/// Does it with a database that was changed.
///
/// # Panics
/// If a promise is broken.
pub fn hold(changed: &Changed) {
    let disk = disk(changed, changed.image.clone());
    let before = disk.image();
    if let Some(db) = opened(open(changed, &disk, true)) {
        let look = look(&db, room(&before));
        assert!(look.sound || !changed.same, "a sound database: {look:?}");
        assert!(
            db.table("new").is_err(),
            "a table made in a database for reading only"
        );
        drop(db);
    } else {
        assert!(!changed.same, "a sound database does not open");
    }
    let verified = internals::verify_log(
        changed.base.setup.options(),
        Path::new(DIR),
        &(Arc::<SimDisk>::clone(&disk) as Arc<dyn Disk>),
    );
    let holes = opened(verified).map(|report| report.holes);
    assert!(
        !changed.same || holes.as_ref().is_some_and(Vec::is_empty),
        "a sound log: {holes:?}"
    );
    assert_eq!(disk.image().difference(&before), None, "reading wrote");
    assert_eq!(disk.violations(), Vec::<String>::new());
    if write(changed, &disk) {
        assert_eq!(disk.violations(), Vec::<String>::new());
    }
}

fn disk(changed: &Changed, image: Image) -> Arc<SimDisk> {
    let faults = FaultPlan {
        room_bytes: Some(ROOM_BYTES),
        ..FaultPlan::default()
    };
    changed.base.setup.disk(Shadow::new(image), false, faults)
}

fn open(changed: &Changed, disk: &Arc<SimDisk>, read_only: bool) -> Result<Db> {
    let setup = &changed.base.setup;
    let options = setup.options().read_only(read_only);
    internals::open(
        options,
        Path::new(DIR),
        World {
            ..setup.world(disk)
        },
    )
}

/// Bytes of all files, as a bound for what can be in them.
fn room(image: &Image) -> u64 {
    image.files().map(|(_, len)| len).sum()
}

/// The answer, if it is one.
fn opened<T>(answer: Result<T>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            allowed(&error);
            None
        }
    }
}

/// The answer, if it is one; there must be one from a sound database.
fn answered<T>(answer: Result<T>, sound: bool, what: &str) -> Option<T> {
    if let (Err(error), true) = (&answer, sound) {
        panic!("the check found nothing wrong, and {what} fails: {error:?}");
    }
    opened(answer)
}

/// Fails on an error that is not due to damage.
fn allowed(error: &Error) {
    let due = matches!(
        error,
        Error::Corrupt(_)
            | Error::NotADatabase { .. }
            | Error::NewerFormat { .. }
            | Error::InvalidOption { .. }
            | Error::UnknownTable { .. }
            | Error::Halted { .. }
            | Error::Full { .. }
            | Error::NoHistory { .. }
            | Error::SnapshotGone { .. }
            | Error::ReadOnly
    );
    let missing = matches!(error, Error::Io(source) if source.cause() == ErrorKind::NotFound);
    assert!(due || missing, "{error:?}");
}

/// What reading came to.
#[derive(Debug, Default)]
struct Look {
    /// The check found nothing wrong.
    sound: bool,
    /// Why not.
    faults: Vec<String>,
    /// Rows of all tables.
    rows: u64,
}

fn look(db: &Db, room: u64) -> Look {
    let mut look = Look::default();
    let mut note = |fault: String| look.faults.push(fault);
    match db.check() {
        Ok(report) => report.faults.into_iter().for_each(&mut note),
        Err(error) => {
            allowed(&error);
            note(error.to_string());
        }
    }
    opened(db.stats());
    let mut tables = Vec::new();
    let read = db.begin_read();
    let names = read
        .as_ref()
        .map_err(Error::clone)
        .and_then(ReadTxn::tables);
    match names {
        Ok(names) => tables.extend(names.iter().map(|name| db.open_table(name))),
        Err(error) => tables.push(Err(error)),
    }
    for table in &tables {
        if let Err(error) = table {
            allowed(error);
            note(error.to_string());
        }
    }
    look.sound = look.faults.is_empty();
    if let Ok(read) = &read {
        let tables = tables.iter().flatten();
        look.rows = tables
            .map(|table| rows(read, table, room, look.sound))
            .sum();
        past(db, read.txn_id(), room, look.sound);
    }
    look
}

/// Reads states of the past in every way, and what differs between them.
fn past(db: &Db, newest: TxnId, room: u64, sound: bool) {
    let Some(stats) = opened(db.stats()) else {
        return;
    };
    let (first, last) = (stats.horizon_txn.get(), newest.get());
    let states = [0, 1, 2].map(|part| first + last.saturating_sub(first) * part / 3);
    for at in states {
        let Some(read) = answered(db.begin_read_at(TxnId::new(at)), sound, "an old state") else {
            continue;
        };
        let names = answered(read.tables(), sound, "its tables").unwrap_or_default();
        for name in names {
            let Some(table) = answered(read.open_table(&name), sound, "its table") else {
                continue;
            };
            rows(&read, &table, room, sound);
            scanned(&read, &table, room, sound);
            for key in [&b"key 030"[..], b"key 200", b"1", b""] {
                answered(db.history(&table, key, ..), sound, "the versions of a key");
            }
            let mut found = 0;
            let differences = db.diff(&table, TxnId::new(at), newest, |_| {
                found += 1;
                assert!(found * ROW_BYTES_MIN <= room, "differences without end");
                ControlFlow::Continue(())
            });
            answered(differences, sound, "a difference");
        }
    }
    answered(db.state_hashes(), sound, "the digests of states");
}

/// Reads a table in one go: as it does row by row.
fn scanned(read: &ReadTxn, table: &Table, room: u64, sound: bool) {
    let (mut found, mut last) = (0_u64, None::<Vec<u8>>);
    let scan = read.scan::<&[u8]>(table, .., |key, _| {
        assert!(
            last.as_deref().is_none_or(|last| last < key),
            "{last:?} before {key:?}"
        );
        last = Some(key.to_vec());
        found += 1;
        assert!(found * ROW_BYTES_MIN <= room, "rows without end");
        ControlFlow::Continue(())
    });
    if answered(scan, sound, "a scan").is_some() && sound {
        let rows = read
            .range::<&[u8]>(table, ..)
            .map(|rows| rows.count() as u64);
        assert_eq!(
            answered(rows, sound, "a range"),
            Some(found),
            "rows of a scan"
        );
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads a table in every way. Gives its number of rows.
fn rows(read: &ReadTxn, table: &Table, room: u64, sound: bool) -> u64 {
    let all = |forward: bool| -> (Rows, Option<Error>) {
        let mut rows = Rows::new();
        let mut range = match read.range::<&[u8]>(table, ..) {
            Ok(range) => range,
            Err(error) => return (rows, Some(error)),
        };
        let mut take = |row: Result<northstardb::Row>| {
            let (key, value) = row?;
            if let Some((last, _)) = rows.last() {
                let rises = if forward {
                    last[..] < key[..]
                } else {
                    key[..] < last[..]
                };
                assert!(rises, "{last:?} before {key:?}, forward: {forward}");
            }
            rows.push((key.to_vec(), value.to_vec()));
            assert!(
                rows.len() as u64 * ROW_BYTES_MIN <= room,
                "rows without end"
            );
            Ok(())
        };
        let outcome: Result<()> = match forward {
            true => range.try_for_each(&mut take),
            false => range.rev().try_for_each(&mut take),
        };
        (rows, outcome.err())
    };
    let (front, front_error) = all(true);
    let (mut back, back_error) = all(false);
    back.reverse();
    for error in [&front_error, &back_error].into_iter().flatten() {
        allowed(error);
        assert!(!sound, "the check found nothing, and then: {error}");
    }
    if sound {
        assert_eq!(front, back, "forward and backward");
    }
    for (key, value) in &front {
        let found = read.get(table, key);
        if sound {
            let found = found.expect("the check found nothing wrong");
            assert_eq!(found.as_deref(), Some(&value[..]), "{key:?}");
        } else {
            opened(found);
        }
    }
    front.len() as u64
}

/// Opens, writes, makes a checkpoint and opens again. True if the database was sound.
fn write(changed: &Changed, disk: &Arc<SimDisk>) -> bool {
    let room_for_it = room(&disk.image()) + (4 << 20);
    let Some(db) = opened(open(changed, disk, false)) else {
        return false;
    };
    let before = look(&db, room_for_it);
    assert!(
        before.sound || !changed.same,
        "a sound database: {before:?}"
    );
    let due = || before.sound && !disk.was_full();
    let written = commit(&db, &due);
    let merged = answered(db.checkpoint(), due(), "a checkpoint").is_some();
    let after = look(&db, room_for_it);
    if before.sound {
        assert!(after.sound, "unsound after writing: {after:?}");
    }
    answered(db.close(), due(), "closing");
    let again = open(changed, disk, false);
    let Some(db) = answered(again, due(), "opening again") else {
        return false;
    };
    let again = look(&db, room_for_it);
    if before.sound {
        assert!(again.sound, "unsound after opening again: {again:?}");
        assert!(
            again.rows == after.rows || disk.was_full(),
            "{after:?}, {again:?}"
        );
    }
    if let (Some(name), true) = (written, merged) {
        let value = opened(db.begin_read()).and_then(|read| {
            let table = answered(db.open_table(&name), before.sound, "its table")?;
            let value = read.get(&table, b"written");
            let value = answered(value, before.sound, "reading what was written");
            value.map(|value| value.map(|value| value.to_vec()))
        });
        // Damage may show late, as an error; never as another value.
        if let Some(value) = value {
            assert_eq!(value.as_deref(), Some(&WRITTEN[..]), "what was written");
        }
    }
    before.sound
}

/// A few writes; the table they went to, if they were taken.
fn commit(db: &Db, due: &dyn Fn() -> bool) -> Option<String> {
    let names = opened(db.tables()).unwrap_or_default();
    // Every table is changed, so that the checkpoint comes by all trees.
    for name in &names {
        let Some(table) = opened(db.open_table(name)) else {
            continue;
        };
        let mut batch = WriteBatch::new();
        batch
            .put(&table, b"4", b"four")
            .delete(&table, b"key 008")
            .delete_range(&table, b"0000".to_vec()..b"0003".to_vec());
        answered(db.commit(batch), due(), "a commit");
    }
    let name = "written to".to_owned();
    let table = answered(db.table(&name), due(), "making a table")?;
    let mut batch = WriteBatch::new();
    batch.put(&table, b"written", &WRITTEN[..]);
    answered(db.commit(batch), due(), "a commit")?;
    if names.len() > 1 {
        answered(db.drop_table(&names[0]), due(), "dropping a table");
    }
    Some(name)
}
