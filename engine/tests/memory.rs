//! Promise: what fits the cache stays in the cache, whoever overwrites it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use northstardb::{Options, WriteBatch};

const ROWS: u32 = 80_000;

#[test]
fn rows_that_fit_the_cache_stay_there_while_they_are_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    // 896 frames for about 790 leaves: too few to hold each in its present and its last version.
    let options = Options::new().memory_budget(40 << 20).delta_bytes(4 << 20);
    let db = options.open(dir.path()).unwrap();
    let table = db.table("rows").unwrap();
    let write = |rows: &mut dyn Iterator<Item = u32>, value: u8| {
        let mut batch = WriteBatch::new();
        for row in rows {
            batch.put(&table, row.to_be_bytes(), [value; 100]);
        }
        db.commit(batch).unwrap();
    };
    for first in (0..ROWS).step_by(1000) {
        write(&mut (first..first + 1000), 0);
    }
    db.checkpoint().unwrap();
    let before = db.stats().unwrap();
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) as u32 % ROWS
    };
    for batch in (0..200_u8).cycle().take(400) {
        write(&mut (0..1000).map(|_| next()), batch);
    }
    let after = db.stats().unwrap();
    let (read, written) = (
        after.page_reads - before.page_reads,
        (after.data_bytes_written - before.data_bytes_written) / u64::from(after.page_bytes),
    );
    // Each leaf that is written was read by the merge. A few pages are always read: those of the map of free space.
    assert!(
        written > 5000 && read < written / 20,
        "{read} pages read for {written} written"
    );
    db.close().unwrap();
}
