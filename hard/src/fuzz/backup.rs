//! Backups as inputs: a full one is restored onto a simulated disk, an increment applied to what a sound one restored.
//!
//! - What passes [`Backup::verify`] and is restored has the digest that its end says, and no fault that the check finds.
//! - What is refused before all of its rows are there leaves nothing that can be opened.
//! - An increment leads to the state that it says, or ends in an error. Records that were made up may give two names to a
//!   table: so the check may find faults, but it ends, and the database opens again.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use northstar_io::sim::{FaultPlan, Shadow, SimDisk};
use northstardb::{Backup, Db, Error, Restore, Result, Retention, internals};

use crate::sim::setup::{DIR, SimSetup};

fn setup() -> SimSetup {
    SimSetup {
        page_bytes: 4096,
        retention: Retention::All,
        database: 5,
        ..SimSetup::of(7)
    }
}

fn disk(setup: &SimSetup) -> Arc<SimDisk> {
    setup.disk(Shadow::new(SimSetup::blank()), false, FaultPlan::default())
}

/// A full backup, an increment to it, and one of no transactions; of a database with all that they can hold.
///
/// # Panics
/// If the engine cannot make them.
#[must_use]
pub fn saved() -> [&'static [u8]; 3] {
    static SAVED: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    let saved = SAVED.get_or_init(|| save().expect("a disk without faults"));
    [&saved[0], &saved[1], &saved[2]]
}

fn save() -> Result<[Vec<u8>; 3]> {
    let setup = setup();
    let db = setup.open(&disk(&setup))?;
    let (one, other) = (db.table("one")?, db.table("other")?);
    let log = db.log()?;
    let mut follower = log.subscribe("follower", log.next(), northstardb::LogFilter::all())?;
    let put = |key: &str, len: usize| {
        let mut write = db.begin_write()?;
        write.set_tag(key.as_bytes())?;
        write.put(&one, key, vec![7; len])?;
        write.put(&other, key, "")?;
        write.commit()
    };
    for (key, len) in [("a", 0), ("ab", 3), ("b", 1500), ("c", 40)] {
        put(key, len)?;
    }
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    let to = db.backup(&mut all[0])?.to;
    put("d", 20)?;
    let mut write = db.begin_write()?;
    write.delete(&one, "a")?;
    write.delete_range(&other, "a".."b")?;
    write.rename_table("one", "two")?;
    write.table("third")?;
    write.commit()?;
    while let Some(found) = follower.try_next()? {
        follower.acknowledge(found.txn_id())?;
        if found.tag() == b"c" {
            break;
        }
    }
    let mut write = db.begin_write()?;
    write.drop_table("other")?;
    write.commit()?;
    let to = db.backup_since(to, &mut all[1])?.to;
    db.backup_since(to, &mut all[2])?;
    Ok(all)
}

fn restore(setup: &SimSetup, disk: &Arc<SimDisk>, full: &[u8]) -> Result<Restore> {
    internals::restore(setup.options(), Path::new(DIR), setup.world(disk), full)
}

fn assert_sound(db: &Db) {
    let report = db.check().expect("a disk without faults can be checked");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

/// Does with `data` what the target does.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let verified = Backup::verify(data);
    if let Ok(found) = &verified {
        assert_eq!(found.bytes, data.len() as u64, "{found:?}");
        assert!(Backup::verify(&data[..data.len() - 1]).is_err());
    }
    match data.get(16) {
        Some(2) => increment(data, verified.as_ref().ok()),
        _ => full(data, verified.as_ref().ok()),
    }
}

fn full(data: &[u8], verified: Option<&Backup>) {
    let setup = setup();
    let disk = disk(&setup);
    match restore(&setup, &disk, data) {
        Ok(restored) => {
            let found = verified.expect("what is restored was verified");
            let db = restored.finish();
            let read = db.begin_read().expect("it is open");
            assert_eq!(read.txn_id(), found.to);
            assert_eq!(read.state_hash().ok(), found.state);
            assert_sound(&db);
        }
        Err(_) if verified.is_some() => {}
        Err(_) => {
            let opened = setup.open(&disk);
            let is_new = |db: &Db| db.begin_read().is_ok_and(|read| read.txn_id().get() == 0);
            match opened {
                Err(Error::NotADatabase { .. }) => {}
                // Refused before anything was made.
                Ok(db) if is_new(&db) => assert_eq!(db.tables().ok(), Some(Vec::new())),
                other => panic!("what was refused opens: {other:?}"),
            }
        }
    }
}

fn increment(data: &[u8], verified: Option<&Backup>) {
    let setup = setup();
    let disk = disk(&setup);
    let mut restored = restore(&setup, &disk, saved()[0]).expect("a sound backup");
    let begun = restored.state().expect("it is open");
    let led = restored.increment(data, None);
    let reached = restored.state().expect("it is open");
    match led {
        Ok(reported) => {
            let found = verified.expect("what is applied was verified");
            assert_eq!((reported, reported), (reached, found.to.max(begun)));
        }
        Err(_) => assert!(reached >= begun),
    }
    let check = |db: &Db| drop(db.check().expect("a disk without faults can be checked"));
    let db = restored.finish();
    check(&db);
    db.close().expect("a disk without faults");
    let db = setup.open(&disk).expect("it was open before");
    let at = db.begin_read().expect("it is open").txn_id();
    // What was applied before an error becomes durable later.
    assert!(at >= reached, "{at:?}, {reached:?}");
    check(&db);
}
