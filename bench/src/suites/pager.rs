//! Pages and the file: opening, reading pages hot and cold, the smallest durable commit, checksums.

use crc_fast::CrcAlgorithm;

use crate::data::{Rng, mix};
use crate::error::{BenchError, Result};
use crate::floor::{AppendFloor, Chase, PAGE_BYTES, ReadFloor};
use crate::row::{Cost, Ctx, Outcome, Row, plain};
use crate::sample::{Sample, Until, measure};
use crate::target::{Db, Durability, Options, Table, WriteBatch};
use crate::units::Unit;

/// The suite's rows.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "bench/pager/open_close_empty",
        question: "What do opening and closing an empty database cost?",
        unit: "open + close",
        run: open_close_empty,
    },
    Row {
        name: "bench/pager/read_page_random_16k_hot",
        question: "How fast is a random page that is in the cache?",
        unit: "page",
        run: read_page_random_16k_hot,
    },
    Row {
        name: "bench/pager/read_page_random_16k_cold",
        question: "How fast is a random page that must be read?",
        unit: "page",
        run: read_page_random_16k_cold,
    },
    Row {
        name: "bench/pager/cache_read_multiple_pages",
        question: "Are sixteen pages asked for together faster than one after the other?",
        unit: "multi_get of 16 pages",
        run: cache_read_multiple_pages,
    },
    Row {
        name: "bench/pager/write_new_page_16k_no_sync",
        question: "How close do new pages come to a raw sequential write?",
        unit: "page",
        run: write_new_page_16k_no_sync,
    },
    Row {
        name: "bench/pager/commit_meta_fsync",
        question: "What does the smallest durable commit cost?",
        unit: "commit",
        run: commit_meta_fsync,
    },
    Row {
        name: "bench/pager/checksum_verify_16k",
        question: "How fast is the checksum of a page in memory?",
        unit: "page",
        run: checksum_verify_16k,
    },
];

/// Bytes of a value that fills one overflow page: 16 KiB less room for its header.
const PAGE_VALUE_BYTES: usize = PAGE_BYTES - 128;

/// Question: open and close an existing empty database. Not timed: creating it. Unit: one open and one close. Bound: a
/// few system calls, the reads of the meta pages and the start of two threads; beside it, in turn, a plain file opened, four
/// pages read, closed, and two threads that only begin and end.
fn open_close_empty(ctx: &mut Ctx) -> Result<Outcome> {
    let dir = ctx.dir("empty")?;
    plain().open(&dir)?.close()?;
    let floor = ReadFloor::open(&ctx.scratch, 4 * PAGE_BYTES as u64)?;
    let (mut sample, mut raw) = (Sample::new(), Sample::new());
    for _ in 0..4 {
        raw.then(&floor.opens(ctx.until(0.02))?);
        sample.then(&measure(ctx.until(0.12), 1, |_| {
            plain().open(&dir)?.close()?;
            Ok(())
        })?);
    }
    Ok(Outcome::of(sample).floor_p50("a file opened, 4 pages read, 2 threads", &raw))
}

/// Key of page `i`, hashed so that neighbours in the file are not neighbours in the loop.
fn page_key(i: u64) -> [u8; 8] {
    mix(i).to_be_bytes()
}

/// A table of `pages` rows whose values fill one page each, merged into the file.
fn page_table(ctx: &Ctx, options: Options) -> Result<(Db, Table)> {
    let (db, table) = ctx.fresh_with("pages", options)?;
    put_pages((&db, &table), ctx.scale.pages)?;
    Ok((db, table))
}

/// Puts `pages` page rows, 64 a transaction, and merges them into the file.
fn put_pages((db, table): (&Db, &Table), pages: u64) -> Result<Sample> {
    let mut value = vec![0; PAGE_VALUE_BYTES];
    let started = crate::clock::now();
    let mut sample = measure(Until::Ops(pages.div_ceil(64)), 1, |batch_index| {
        let mut batch = WriteBatch::new();
        batch.durability(Durability::Buffered);
        for i in batch_index * 64..pages.min(batch_index * 64 + 64) {
            value.fill(mix(i).to_le_bytes()[0]);
            value[..8].copy_from_slice(&i.to_le_bytes());
            batch.put(table, page_key(i), &value);
        }
        db.commit(batch)?;
        Ok(())
    })?;
    db.checkpoint()?;
    sample.ops = pages;
    sample.elapsed = started.elapsed();
    Ok(sample)
}

fn check_page(i: u64, value: Option<&[u8]>) -> Result<()> {
    match value {
        Some(value) if value.len() == PAGE_VALUE_BYTES && value[..8] == i.to_le_bytes() => Ok(()),
        found => Err(BenchError::Wrong {
            what: format!("page row {i}: {:?} bytes", found.map(<[u8]>::len)),
        }),
    }
}

/// Budget in which every page of the page rows stays resident.
fn room_for(pages: u64) -> Options {
    let bytes = pages as usize * PAGE_BYTES * 2 + (256 << 20);
    plain().memory_budget(bytes)
}

/// Question: a row that fills one page, through the public `get_with`, its page resident. Not timed: loading and one pass
/// over all rows. Unit: one row, batches of 16 divided. Bound: a descent (about 0.5 µs) and, since the value is borrowed or
/// copied, at most one 16 KiB copy from memory (1.4 µs). The descent is what it is held against, in turn: three loads, each of
/// the place that the one before it gave, of random cache lines of as much memory.
fn read_page_random_16k_hot(ctx: &mut Ctx) -> Result<Outcome> {
    let pages = ctx.scale.pages;
    let (db, table) = page_table(ctx, room_for(pages))?;
    let txn = db.begin_read()?;
    for i in 0..pages {
        txn.get_with(&table, page_key(i), |value| check_page(i, value))??;
    }
    let mut rng = ctx.rng(10);
    let mut chase = Chase::new(pages * PAGE_BYTES as u64, &mut rng);
    let (mut sample, mut loads) = (Sample::new(), Sample::new());
    let before = db.stats()?;
    for _ in 0..4 {
        loads.then(&chase.run(ctx.until(0.03))?);
        sample.then(&measure(ctx.until(0.12), 16, |_| {
            let i = rng.below(pages);
            txn.get_with(&table, page_key(i), |value| check_page(i, value))?
        })?);
    }
    let after = db.stats()?;
    drop(txn);
    db.close()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("three dependent cache misses", &loads)
        .note("batches of 16"))
}

/// Question: the same rows once each in random order after a reopen, so that each page is read from the device. Not timed:
/// loading, reopening. Unit: one row. Bound: one 16 KiB `O_DIRECT` read at depth 1, measured beside it; branch pages and
/// the leaf that names the page are read too, until they are resident.
fn read_page_random_16k_cold(ctx: &mut Ctx) -> Result<Outcome> {
    let pages = ctx.scale.pages;
    let (db, _) = page_table(ctx, room_for(pages))?;
    db.close()?;
    let db = room_for(pages).open(ctx.scratch.join("pages"))?;
    let table = db.table("rows")?;
    let txn = db.begin_read()?;
    let order = ctx.rng(11).permutation(pages);
    let floor = ReadFloor::open(&ctx.scratch, pages * PAGE_BYTES as u64)?;
    let mut rng = ctx.rng(12);
    let mut raw = floor.random(ctx.until(0.1), &mut rng)?;
    let before = db.stats()?;
    let sample = measure(Until::Ops(pages), 1, |at| {
        let i = order[at as usize];
        txn.get_with(&table, page_key(i), |value| check_page(i, value))?
    })?;
    let after = db.stats()?;
    raw.then(&floor.random(ctx.until(0.1), &mut rng)?);
    drop(txn);
    db.close()?;
    let reads = (after.page_reads - before.page_reads) as f64 / sample.ops as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("raw 16 KiB read", &raw)
        .extra("page_reads_per_op", reads))
}

/// Question: sixteen random page rows through `multi_get`, resident, in blocks that alternate with sixteen single gets. Not
/// timed: loading and one pass over all rows. Unit: one `multi_get`. Bound: sixteen copies of 16 KiB (1.4 µs each where they
/// are not in the processor's caches), as `multi_get` gives values that it owns; the single gets beside it copy as well.
fn cache_read_multiple_pages(ctx: &mut Ctx) -> Result<Outcome> {
    // Values of several pages' length are always copied; a few rows are enough to ask for.
    let pages = ctx.scale.pages.min(1024);
    let (db, table) = page_table(ctx, room_for(pages))?;
    let txn = db.begin_read()?;
    for i in 0..pages {
        txn.get_with(&table, page_key(i), |value| check_page(i, value))??;
    }
    let (mut all, mut single, mut rng) = (Sample::new(), Sample::new(), ctx.rng(14));
    let mut wanted = [0; 16];
    let mut draw = |wanted: &mut [u64; 16]| wanted.fill_with(|| rng.below(pages));
    let mut cost = Cost::default();
    for _ in 0..4 {
        single.then(&measure(ctx.until(0.05), 1, |_| {
            draw(&mut wanted);
            // All are held before the first is dropped, as `multi_get` holds them: what an allocator makes of pages that come
            // and go one by one is luck, 1 or 6 µs each.
            let values = wanted.map(|i| txn.get(&table, page_key(i)));
            for (i, value) in wanted.into_iter().zip(values) {
                check_page(i, value?.as_deref())?;
            }
            Ok(())
        })?);
        let before = db.stats()?;
        all.then(&measure(ctx.until(0.05), 1, |_| {
            draw(&mut wanted);
            let values = txn.multi_get(&table, &wanted.map(page_key))?;
            for (i, value) in wanted.into_iter().zip(values) {
                check_page(i, value.as_deref())?;
            }
            Ok(())
        })?);
        cost.add(Cost::between(&before, &db.stats()?));
    }
    drop(txn);
    db.close()?;
    Ok(Outcome::of(all)
        .total_cost(cost)
        .floor_p50("sixteen gets", &single))
}

/// Question: rows that fill one page each, put in buffered transactions of 64 and merged by a checkpoint, so that each page is
/// new to the file. Unit: one page; the latency is a transaction's, throughput includes the checkpoint and its one flush.
/// Bound: the page's bytes twice, once through the log and once into the file, at the speed of a raw sequential write.
fn write_new_page_16k_no_sync(ctx: &mut Ctx) -> Result<Outcome> {
    let pages = ctx.scale.pages.min(8192);
    let floor = ReadFloor::open(&ctx.scratch, pages * PAGE_BYTES as u64)?;
    let mut raw = vec![floor.sequential_writes()?];
    let (db, table) = ctx.fresh_with("pages", room_for(pages))?;
    let before = db.stats()?;
    let sample = put_pages((&db, &table), pages)?;
    let after = db.stats()?;
    db.close()?;
    raw.push(floor.sequential_writes()?);
    let raw = raw.into_iter().fold(0.0, f64::max);
    let rate = sample.per_second() * PAGE_BYTES as f64;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_rate("raw sequential write", raw, Unit::BytesPerSecond, rate)
        .extra("bytes_per_second", rate)
        .note("latency is of a batch of 64; throughput is pages and includes the checkpoint"))
}

/// Question: a durable commit of one tiny row. Not timed: creating the database. Unit: one commit. Bound: one raw append
/// and flush, measured just before and after.
fn commit_meta_fsync(ctx: &mut Ctx) -> Result<Outcome> {
    let (db, table) = ctx.fresh("commit_meta")?;
    let mut floor = AppendFloor::open(&ctx.scratch)?;
    let mut raw = floor.run(ctx.until(0.1))?;
    let before = db.stats()?;
    let sample = measure(ctx.until(0.5), 1, |i| {
        let mut batch = WriteBatch::new();
        batch.put(&table, (i % 64).to_be_bytes(), [1]);
        db.commit(batch)?;
        Ok(())
    })?;
    let after = db.stats()?;
    raw.then(&floor.run(ctx.until(0.1))?);
    db.close()?;
    Ok(Outcome::of(sample)
        .cost(&before, &after)
        .floor_p50("raw append + flush", &raw))
}

/// Question: CRC-32C of a random 16 KiB page in memory, by the crate and the algorithm the engine uses. Not timed: filling
/// the pages. Unit: one page, batches of 16 divided. Bound: memory stream (16 KiB at about 19 GB/s is 0.86 µs); in the
/// processor's caches about 0.14 µs.
fn checksum_verify_16k(ctx: &mut Ctx) -> Result<Outcome> {
    let pages = ctx.scale.pages.min(2048) as usize;
    let mut memory = vec![0u8; pages * PAGE_BYTES];
    let mut rng = Rng::new(ctx.seed, 13);
    for chunk in memory.chunks_exact_mut(8) {
        chunk.copy_from_slice(&rng.next().to_le_bytes());
    }
    let crc = |page: usize| {
        let at = page * PAGE_BYTES;
        crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &memory[at..at + PAGE_BYTES])
    };
    let expected: Vec<u64> = (0..pages).map(crc).collect();
    let sample = measure(ctx.until(0.2), 16, |_| {
        let page = rng.below(pages as u64) as usize;
        if crc(page) == expected[page] {
            return Ok(());
        }
        Err(BenchError::Wrong {
            what: format!("the checksum of page {page} changed"),
        })
    })?;
    let rate = sample.per_second() * PAGE_BYTES as f64;
    let stream = crate::floor::memory_stream(pages * PAGE_BYTES)?;
    Ok(Outcome::of(sample)
        .floor_rate("memory stream", stream, Unit::BytesPerSecond, rate)
        .extra("bytes_per_second", rate)
        .note("batches of 16"))
}
