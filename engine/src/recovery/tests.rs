//! A log replayed: what it may change, what it teaches, and where it leads.

use std::path::Path;

use northstar_io::{Disk, MemoryDisk, SyncMethod};

use super::*;
use crate::delta::{DeltaConfig, Probe};
use crate::format::record::OpWriter;
use crate::ids::TxnId;
use crate::log::{GroupBuilder, LogWriter};
use crate::txn::table::encode_entry;

const SEGMENT: u64 = 65536;
const NEXT: TableId = TableId::new(20);

fn delta() -> (Arc<Delta>, DeltaWriter) {
    Delta::new(DeltaConfig {
        arena_bytes: 1 << 20,
        filter_keys: 100,
    })
    .unwrap()
}

/// Replays a log with one record for each of `records`, written at the times given.
fn replayed(records: Vec<(u64, OpWriter)>) -> Result<Replayed> {
    let disk: Arc<dyn Disk> = MemoryDisk::new();
    disk.create_dir(Path::new("log")).unwrap();
    let segments = Segments::open(disk, "log", SEGMENT).unwrap();
    let at = LogPosition::default();
    let mut log =
        LogWriter::start_at(Arc::clone(&segments), (at.lsn, at), SyncMethod::None).unwrap();
    let mut builder = GroupBuilder::new();
    for (txn, (time, ops)) in (1..).zip(records) {
        builder.push_record(TxnId::new(txn), time, b"", ops);
    }
    let group = builder.seal(at, at.lsn, 5);
    log.append(&group).unwrap();
    let start = ScanStart {
        from: at,
        database: 5,
        proven_through: at.lsn,
    };
    replay(&segments, start, NEXT, false, delta())
}

fn ops(write: impl FnOnce(&mut OpWriter)) -> OpWriter {
    let mut ops = OpWriter::new();
    write(&mut ops);
    ops
}

fn value(replayed: &Replayed, table: TableId, key: &[u8]) -> Option<Vec<u8>> {
    let hit = replayed.delta.get(&Probe::new(table, key), TxnId::MAX)?;
    hit.value.map(<[u8]>::to_vec)
}

#[test]
fn a_log_changes_tables_that_were_given_out_and_no_others() {
    let put = |table: u32| {
        let table = TableId::new(table);
        replayed(vec![(1, ops(|ops| ops.put(table, b"key", b"value")))])
    };
    for table in [16, 19] {
        let replayed = put(table).unwrap();
        let found = value(&replayed, TableId::new(table), b"key");
        assert_eq!(found.as_deref(), Some(&b"value"[..]));
        assert_eq!((replayed.next_table, replayed.end.records), (NEXT, 1));
    }
    for table in [1, 15, 20, 21, u32::MAX] {
        let refused = put(table).err();
        assert!(
            matches!(&refused, Some(Error::Corrupt(at)) if at.offset == Some(0)),
            "table {table}: {refused:?}"
        );
    }
}

#[test]
fn a_table_that_the_log_names_is_given_out_from_then_on() {
    let name = |id: u32| {
        let entry = encode_entry(TableId::new(id));
        ops(|ops| ops.put(TableId::NAMES, b"name", &entry))
    };
    let used = |id: u32| ops(|ops| ops.put(TableId::new(id), b"key", b"value"));
    let known = replayed(vec![(5, name(20)), (9, used(20)), (7, name(17))]).unwrap();
    assert_eq!(known.next_table, TableId::new(21));
    assert_eq!(known.last_timestamp_ns, 9, "time does not go back");
    assert_eq!(known.end.end.last_txn, TxnId::new(3));
    assert!(replayed(vec![(5, name(20)), (9, used(21))]).is_err());
    let wild = ops(|ops| ops.put(TableId::NAMES, b"name", b"what"));
    assert!(replayed(vec![(5, wild)]).is_err());
    let dropped = ops(|ops| ops.delete(TableId::NAMES, b"name"));
    assert_eq!(replayed(vec![(5, dropped)]).unwrap().next_table, NEXT);
}

#[test]
fn the_log_s_errors_keep_their_kind_and_place() {
    let halted = Error::from(LogError::Halted);
    assert!(matches!(halted, Error::Halted { .. }), "{halted}");
    let why = crate::format::group::GroupError {
        at: Lsn::new(4096),
        field: crate::format::group::GroupField::Magic,
        expected: 1,
        found: 2,
    };
    let damaged = Error::from(LogError::Corrupt {
        at: Lsn::new(4096),
        later: None,
        durable_through: Lsn::new(8192),
        why,
    });
    assert!(matches!(&damaged, Error::Corrupt(at) if at.offset == Some(4096)));
    assert!(damaged.to_string().contains("8192"), "{damaged}");
}

#[test]
fn after_a_clean_close_nothing_is_replayed() {
    let at = LogPosition {
        lsn: Lsn::new(8192),
        checksum: 7,
        last_txn: TxnId::new(9),
    };
    let nothing = Replayed::nothing(at, NEXT, delta());
    assert_eq!((nothing.end.end, nothing.end.proven), (at, at.lsn));
    assert_eq!((nothing.end.groups, nothing.end.records), (0, 0));
    assert_eq!((nothing.next_table, nothing.last_timestamp_ns), (NEXT, 0));
    assert!(nothing.delta.is_empty() && !nothing.end.torn);
}
