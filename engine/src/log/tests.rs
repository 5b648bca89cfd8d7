//! The log as a whole: written, damaged, recovered, over a disk in memory.

mod crash;
mod disk;
mod segments;
mod stream;
mod traced;

use std::path::Path;
use std::sync::Arc;

use northstar_io::{Disk, MemoryDisk, SyncMethod};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::group::SealedGroup;
use super::*;
use crate::format::record::{Op, OpWriter};
use crate::ids::{Lsn, TableId, TxnId};

const DATABASE: u64 = 0x5eed;
const DIR: &str = "log";
const KIB: u64 = 1024;

/// A transaction as the tests know it: id, tag, values put under the key "key".
type Seen = (u64, Vec<u8>, Vec<Vec<u8>>);

/// A log with small segments, and what was put into it.
struct TestLog {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    writer: LogWriter,
    builder: GroupBuilder,
    model: Vec<Seen>,
    /// Border and number of transactions after each group.
    borders: Vec<(LogPosition, usize)>,
}

fn memory_disk() -> Arc<dyn Disk> {
    let disk = MemoryDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    disk
}

fn open_segments(disk: &Arc<dyn Disk>, segment_bytes: u64) -> Arc<Segments> {
    Segments::open(Arc::clone(disk), DIR, segment_bytes).unwrap()
}

fn start(from: LogPosition) -> ScanStart {
    ScanStart {
        from,
        database: DATABASE,
        proven_through: from.lsn,
    }
}

fn scan_all(
    disk: &Arc<dyn Disk>,
    segment_bytes: u64,
    start: ScanStart,
) -> Result<(ScanEnd, Vec<Seen>), LogError> {
    let mut seen = Vec::new();
    let end = scan(&open_segments(disk, segment_bytes), start, |_, record| {
        let values = record.ops().map(|op| match op.unwrap() {
            Op::Put { value, .. } => value.to_vec(),
            other @ (Op::Delete { .. } | Op::DeleteRange { .. } | Op::DropTable { .. }) => {
                panic!("only puts were logged, not {other:?}")
            }
        });
        seen.push((record.txn.get(), record.tag().to_vec(), values.collect()));
        Ok::<_, LogError>(())
    })?;
    Ok((end, seen))
}

impl TestLog {
    fn create(disk: &Arc<dyn Disk>, segment_bytes: u64) -> Self {
        Self::resume(disk, segment_bytes, LogPosition::default(), Vec::new())
    }

    fn resume(
        disk: &Arc<dyn Disk>,
        segment_bytes: u64,
        end: LogPosition,
        model: Vec<Seen>,
    ) -> Self {
        let segments = open_segments(disk, segment_bytes);
        Self {
            disk: Arc::clone(disk),
            segment_bytes,
            writer: LogWriter::start_at(segments, (end.lsn, end), SyncMethod::None).unwrap(),
            builder: GroupBuilder::new(),
            borders: vec![(end, model.len())],
            model,
        }
    }

    fn push(&mut self, tag: &[u8], values: Vec<Vec<u8>>) {
        let mut ops = OpWriter::new();
        values
            .iter()
            .for_each(|value| ops.put(TableId::new(16), b"key", value));
        let txn = self.model.len() as u64 + 1;
        self.builder.push_record(TxnId::new(txn), txn * 3, tag, ops);
        self.model.push((txn, tag.to_vec(), values));
    }

    fn seal(&mut self) -> SealedGroup {
        let at = self.writer.position();
        self.builder.seal(at, at.lsn, DATABASE)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let group = self.seal();
        let end = self.writer.append(&group)?;
        self.builder.recycle(group);
        self.borders.push((end, self.model.len()));
        Ok(())
    }

    /// One group of a few transactions, `bytes` of values in all.
    fn group(&mut self, rng: &mut SmallRng, bytes: usize) {
        let records = rng.random_range(1..4);
        for _ in 0..records {
            let mut value = vec![0; bytes / records];
            rng.fill_bytes(&mut value);
            self.push(b"tag", vec![value]);
        }
        self.flush().unwrap();
    }

    fn recover(&self) -> Result<(ScanEnd, Vec<Seen>), LogError> {
        scan_all(
            &self.disk,
            self.segment_bytes,
            start(LogPosition::default()),
        )
    }

    fn end(&self) -> LogPosition {
        self.borders.last().unwrap().0
    }
}
