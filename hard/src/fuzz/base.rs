//! Sound databases that inputs change: made by the engine itself, the same in every process.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use northstar_io::SyncMethod;
use northstar_io::sim::{FaultPlan, Image, Shadow};
use northstardb::{Db, Result, Retention, WriteBatch};

use super::{DATABASE, SEGMENT_BYTES, number, repair};
use crate::ops::{Fill, KeyStyle, Shape, value_bytes};
use crate::sim::setup::{DIR, SimSetup};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// Where a page names another one, or the first of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The page that names.
    pub page: usize,
    /// Where in it the sixteen or, for an extent, twenty bytes lie.
    pub at: usize,
    /// The page that is named.
    pub to: usize,
    /// Names the pages of a large value.
    pub extent: bool,
}

/// A sound database.
#[derive(Debug)]
pub struct Base {
    /// How it is opened.
    pub setup: SimSetup,
    /// Its files.
    pub image: Image,
    /// The data file.
    pub data: Vec<u8>,
    /// The log, from the first segment that is there.
    pub log: Vec<u8>,
    /// Where in `log` the newest meta page begins reading, and with what chain value.
    pub start: (usize, u32),
    /// The segments, in order.
    pub segments: Vec<PathBuf>,
    /// Who names whom.
    pub references: Vec<Reference>,
}

/// The path of the data file.
#[must_use]
pub fn data_path() -> PathBuf {
    Path::new(DIR).join("data")
}

/// The first byte of an input from which on it changes the one with history; below, those without take turns.
pub const PAST_FROM: u8 = 250;

/// The one that an input changes.
#[must_use]
pub fn chosen(byte: u8) -> &'static Base {
    let bases = bases();
    let without = bases.len() - 1;
    &bases[if byte < PAST_FROM {
        usize::from(byte) % without
    } else {
        without
    }]
}

/// The one with history.
#[must_use]
pub fn with_past() -> &'static Base {
    chosen(u8::MAX)
}

/// All of them, the one with history last.
///
/// # Panics
/// If the engine cannot make them.
pub fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        let fills: [(usize, Retention, Fill_); 5] = [
            (1 << 10, Retention::None, tail),
            (64 << 10, Retention::None, log_only),
            (16 << 10, Retention::None, closed),
            (64 << 10, Retention::None, deep),
            (64 << 10, Retention::All, past),
        ];
        let made = fills.map(|(delta_bytes, history, fill)| make(delta_bytes, history, fill));
        made.into_iter()
            .collect::<Result<_>>()
            .expect("a disk without faults")
    })
}

impl Base {
    /// The leaves of runs and of their filters.
    #[must_use]
    pub fn history_leaves(&self) -> Vec<usize> {
        let pages = self.data.chunks(PAGE_BYTES).enumerate();
        let leaves = pages.filter(|(_, page)| is_leaf_of(HISTORY, page));
        leaves.map(|(number, _)| number).collect()
    }
}

/// The tables of versions and of runs.
const HISTORY: u32 = 2;
pub(super) const RUNS: u32 = 3;

/// Whether a page is a leaf of a table.
pub(super) fn is_leaf_of(table: u32, page: &[u8]) -> bool {
    page[6] == 2 && repair::word(page, 20) == table && repair::word(page, 0) != 0
}

type Fill_ = fn(Db) -> Result<Option<Db>>;

fn make(delta_bytes: usize, history: Retention, fill: Fill_) -> Result<Base> {
    let setup = SimSetup {
        shape: Shape {
            keys: 10,
            value_bytes_max: 10,
            edits_max: 1,
            key_style: KeyStyle::Short,
        },
        page_bytes: 4096,
        segment_bytes: 64 << 10,
        delta_bytes,
        slice_bytes: 1 << 20,
        frames: 64,
        sync_method: SyncMethod::WriteDsync,
        direct: true,
        patient: false,
        database: u128::from(DATABASE) | 5 << 64,
        retention: Retention::None,
        history,
        held_bytes: 0,
        followed: false,
    };
    let disk = setup.disk(Shadow::new(SimSetup::blank()), false, FaultPlan::default());
    let open = fill(setup.open(&disk)?)?;
    // Copied while open, if it still is: as after a crash.
    let image = disk.image();
    drop(open);
    let data = image.bytes(&data_path()).unwrap_or_default();
    let paths = image.files().map(|(path, _)| path.to_owned());
    let segments: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    let log: Vec<u8> = segments
        .iter()
        .filter_map(|path| image.bytes(path))
        .flatten()
        .collect();
    let first = segments
        .first()
        .and_then(|path| path.file_stem()?.to_str()?.parse().ok());
    let first: usize = first.unwrap_or(0);
    let newest = data
        .chunks(PAGE_BYTES)
        .take(4)
        .max_by_key(|page| repair::word(page, 16));
    let newest = newest.unwrap_or_default();
    let lsn = usize::try_from(number(newest, 128)).unwrap_or(0);
    let start = (
        lsn.saturating_sub(first * SEGMENT_BYTES),
        repair::word(newest, 144),
    );
    let references = references(&data);
    Ok(Base {
        setup,
        image,
        data,
        log,
        start,
        segments,
        references,
    })
}

fn value(len: u32, seed: u32) -> Vec<u8> {
    value_bytes(Fill { len, seed })
}

fn put(db: &Db, table: &str, rows: impl Iterator<Item = (String, u32)>) -> Result<()> {
    let table = db.table(table)?;
    let rows: Vec<_> = rows.collect();
    for rows in rows.chunks(20) {
        let mut batch = WriteBatch::new();
        for (key, len) in rows {
            batch.put(&table, key, value(*len, *len + 1));
        }
        db.commit(batch)?;
    }
    Ok(())
}

/// Several checkpoints, tables that were dropped and renamed, deletes, and a tail of the log.
fn tail(db: Db) -> Result<Option<Db>> {
    put(&db, "one", (0..60).map(|n| (format!("key {n:03}"), n)))?;
    put(&db, "two", (0..5).map(|n| (format!("{n}"), 3_000 * n)))?;
    put(&db, "gone", (0..40).map(|n| (format!("{n:090}"), 40)))?;
    db.checkpoint()?;
    db.drop_table("gone")?;
    db.rename_table("two", "two again")?;
    db.checkpoint()?;
    let table = db.open_table("one")?;
    let mut batch = WriteBatch::new();
    batch
        .delete(&table, b"key 007")
        .delete_range(&table, b"key 020".to_vec()..b"key 030".to_vec())
        .put(&table, b"key 008", value(900, 1))
        .tag(b"who did it");
    db.commit(batch)?;
    let mut batch = WriteBatch::new();
    batch.delete_range(&table, b"key 055".to_vec()..);
    db.commit(batch)?;
    put(&db, "late", (0..3).map(|n| (format!("{n}"), 5_000)))?;
    db.drop_table("late")?;
    Ok(Some(db))
}

/// Nothing but a log.
fn log_only(db: Db) -> Result<Option<Db>> {
    put(&db, "one", (0..30).map(|n| (format!("{n}"), 100)))?;
    let table = db.open_table("one")?;
    let mut batch = WriteBatch::new();
    batch
        .delete(&table, b"7")
        .delete_range(&table, b"20".to_vec()..b"25".to_vec());
    db.commit(batch)?;
    db.drop_table("one")?;
    put(&db, "one", (0..3).map(|n| (format!("{n}"), 9_000)))?;
    Ok(Some(db))
}

/// A leaf and little else, closed in order.
fn closed(db: Db) -> Result<Option<Db>> {
    put(&db, "one", (0..9).map(|n| (format!("{n}"), 9)))?;
    db.close()?;
    Ok(None)
}

/// Trees of three levels, and large values.
fn deep(db: Db) -> Result<Option<Db>> {
    // Eight keys each begin alike: leaves end among them, so separators are long and branches have few children.
    let key = |n: u32| format!("{:04}{:0>860}{}", n / 8, "", n % 8);
    put(&db, "deep", (0..120).map(|n| (key(n), 800)))?;
    put(&db, "large", (1..6).map(|n| (format!("{n}"), n * 4_032)))?;
    db.checkpoint()?;
    put(&db, "deep", (0..4).map(|n| (format!("{n:04}"), 10)))?;
    Ok(Some(db))
}

/// Runs of history, one of them with a filter, large values and a table that is gone in them.
fn past(db: Db) -> Result<Option<Db>> {
    let rows = |numbers: Range<u32>, len| numbers.map(move |n| (format!("key {n:03}"), len));
    put(&db, "one", rows(0..240, 8))?;
    put(&db, "two", (1..4).map(|n| (format!("{n}"), 3_000 * n)))?;
    db.checkpoint()?;
    put(&db, "one", rows(0..240, 3))?;
    db.checkpoint()?;
    put(&db, "one", rows(20..60, 5))?;
    put(&db, "two", (1..3).map(|n| (format!("{n}"), 10)))?;
    put(&db, "one", rows(30..50, 6))?;
    db.checkpoint()?;
    let table = db.open_table("one")?;
    let mut batch = WriteBatch::new();
    batch.delete_range(&table, b"key 035".to_vec()..b"key 045".to_vec());
    db.commit(batch)?;
    db.drop_table("two")?;
    db.checkpoint()?;
    put(&db, "one", rows(40..42, 7))?;
    Ok(Some(db))
}

/// Finds who names whom: by the sixteen bytes of id, checksum and generation.
fn references(data: &[u8]) -> Vec<Reference> {
    let pages: Vec<&[u8]> = data.chunks_exact(PAGE_BYTES).collect();
    let mut found = Vec::new();
    for (page, bytes) in pages.iter().enumerate() {
        if repair::word(bytes, 0) == 0 {
            continue;
        }
        for at in 64..PAGE_BYTES - 20 {
            let Ok(to) = usize::try_from(number(bytes, at)) else {
                continue;
            };
            let Some(named) = pages.get(to).filter(|_| to >= 4) else {
                continue;
            };
            let generation = repair::word(named, 16);
            let plain = repair::word(bytes, at + 8) == repair::word(named, 0)
                && repair::word(bytes, at + 12) == generation;
            let extent = named[6] == 4
                && repair::word(bytes, at + 12) == generation
                && extent_sum(data, to, repair::word(bytes, at + 8))
                    == repair::word(bytes, at + 16);
            if repair::word(named, 0) != 0 && (plain || extent) {
                found.push(Reference {
                    page,
                    at,
                    to,
                    extent,
                });
            }
        }
    }
    found
}

/// The checksum over the checksums of an extent's pages.
#[must_use]
pub fn extent_sum(data: &[u8], first: usize, len: u32) -> u32 {
    let count = (len as usize).div_ceil(PAGE_BYTES - 64);
    let pages = data.chunks_exact(PAGE_BYTES).skip(first).take(count);
    let sums: Vec<u8> = pages.flat_map(|page| page[..4].to_vec()).collect();
    northstardb::internals::crc32c(&sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_have_what_is_to_be_changed() {
        let bases = bases();
        for base in bases {
            assert!(base.data.len() >= 4 * PAGE_BYTES && base.log.len() >= SEGMENT_BYTES);
        }
        let kinds = |base: &Base, kind| {
            let pages = base.data.chunks(PAGE_BYTES);
            pages
                .filter(|page| page[6] == kind && repair::word(page, 0) != 0)
                .count()
        };
        for (kind, count) in [(2, 40), (3, 6), (4, 10), (5, 1), (6, 1)] {
            assert!(
                kinds(&bases[3], kind) >= count,
                "{kind}: {}",
                kinds(&bases[3], kind)
            );
        }
        let top = bases[3]
            .data
            .chunks(PAGE_BYTES)
            .map(|page| (page[6] == 3, page[7]));
        assert!(top.max() >= Some((true, 2)), "levels");
        for (base, least) in bases.iter().zip([20, 0, 3, 60, 30]) {
            assert!(base.references.len() >= least, "{}", base.references.len());
        }
        assert!(bases[3].references.iter().any(|reference| reference.extent));
        let leaves = with_past().history_leaves();
        assert!(leaves.len() >= 5, "{leaves:?}");
        for base in [&bases[0], &bases[1], &bases[3], with_past()] {
            assert_eq!(
                base.log.get(base.start.0..base.start.0 + 4),
                Some(&b"NSLG"[..])
            );
        }
    }
}
