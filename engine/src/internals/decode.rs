//! The decoders, for fuzzing: bytes in, a short account out. What was decoded is also held against what must follow
//! from it: it comes back when it is encoded, a node that was checked can be walked and searched.

use std::path::Path;
use std::sync::Arc;

use northstar_io::Disk;

use crate::format::branch::{Below, Branch, BranchFacts, BranchWriter, child_bytes};
use crate::format::checksum;
use crate::format::group::{Group, HEADER_BYTES as GROUP_HEADER_BYTES};
use crate::format::leaf::{Leaf, LeafFacts, LeafWriter, RowValue, row_bytes, txn_bytes};
use crate::format::meta::Meta;
use crate::format::node::{ENTRY_BYTES, Suffix, common_prefix};
use crate::format::page::{HEADER_BYTES, Page, PageHeader, PageKind, seal};
use crate::format::record::{Op, OpWriter, Record, encode_frame};
use crate::format::{check_node, free};
use crate::ids::{Generation, LogPosition, Lsn, PageId, PageRef, TxnId};
use crate::log::{LogError, ScanStart, Segments, scan};
use crate::tree::search::{child_index, row_index};
use zerocopy::FromBytes;

/// The checksum of the format.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum::crc32c(bytes)
}

fn said<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

/// A meta page that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaSummary {
    /// Its generation.
    pub generation: u32,
    /// Pages that may be in use.
    pub pages: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
}

/// Reads a copy of the meta page, as found at page `copy`.
///
/// # Errors
/// Why it is none, in words.
///
/// # Panics
/// If it does not come back as it was after it is written, or a number of it is out of its range.
pub fn decode_meta(bytes: &[u8], copy: u64) -> Result<MetaSummary, String> {
    let claimed = Meta::claimed_page_bytes(bytes);
    let id = PageId::new(copy);
    let meta = Meta::decode(bytes, id).map_err(said)?;
    assert!(Meta::is_meta(bytes), "a meta page without its magic");
    assert_eq!(claimed, Some(meta.page_bytes), "claimed and real page size");
    assert_eq!(meta.page_bytes as usize, bytes.len(), "page size and bytes");
    let mut again = vec![0; bytes.len()];
    meta.encode(&mut again);
    seal(&mut again, id, meta.generation, meta.database_low());
    assert_eq!(Meta::decode(&again, id), Ok(meta.clone()), "written again");
    Ok(MetaSummary {
        generation: meta.generation.get(),
        pages: meta.pages,
        segment_bytes: meta.segment_bytes,
    })
}

/// Completes a page: id, generation and database, then the checksum. Shorter ones than a header are left alone.
pub fn seal_page(bytes: &mut [u8], id: u64, generation: u32, database: u64) {
    if bytes.len() >= HEADER_BYTES {
        seal(
            bytes,
            PageId::new(id),
            Generation::new(generation),
            database,
        );
    }
}

/// A page that was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSummary {
    /// What it holds, as stored.
    pub kind: u8,
    /// Rows, children, words or references inside, if the inside is sound.
    pub entries: Option<usize>,
}

/// Verifies a page as read from page `id` of `database`, and looks inside.
///
/// # Errors
/// Why it is none, in words.
///
/// # Panics
/// If it passes for another page too, or what its kind's check has passed cannot be read.
pub fn decode_page(bytes: &[u8], id: u64, database: u64) -> Result<PageSummary, String> {
    let id = PageId::new(id);
    let page = Page::verify_unreferenced(bytes, id, database).map_err(said)?;
    let reference = page.reference();
    assert!(Page::verify(bytes, reference, database).is_ok(), "its own");
    let next = Generation::new(reference.generation.get().wrapping_add(1));
    let others = [
        (
            PageRef {
                checksum: !reference.checksum,
                ..reference
            },
            database,
        ),
        (
            PageRef {
                generation: next,
                ..reference
            },
            database,
        ),
        (
            PageRef {
                id: PageId::new(!id.get()),
                ..reference
            },
            database,
        ),
        (reference, !database),
    ];
    for (other, database) in others {
        assert!(Page::verify(bytes, other, database).is_err(), "{other:?}");
    }
    let entries = match page.kind() {
        PageKind::Leaf | PageKind::Branch => node(page, &[]).map(|node| node.entries).ok(),
        PageKind::Overflow => check_node(page).ok().map(|()| {
            let payload = crate::format::overflow::payload(page);
            payload.expect("it was checked").len()
        }),
        PageKind::FreeMap => free::decode_map(page).map(Iterator::count).ok(),
        PageKind::FreeDirectory => free::decode_directory(page)
            .map(|(_, maps)| maps.count())
            .ok(),
        PageKind::Meta => Some(0),
    };
    assert!(entries.unwrap_or(0) <= bytes.len(), "{entries:?} entries");
    Ok(PageSummary {
        kind: page.kind() as u8,
        entries,
    })
}

/// A leaf or branch whose inside is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSummary {
    /// Height above the leaves.
    pub level: u8,
    /// Rows or children.
    pub entries: usize,
    /// It was written again, and came back as it was: what it holds may be larger than a page, where entries share bytes.
    pub again: bool,
}

/// Checks, walks and searches a leaf or a branch, whose checksum must hold. Each of `probes` is searched too.
///
/// # Errors
/// Why it is none, in words.
///
/// # Panics
/// If what passed the check cannot be walked, is out of order, or is not found where it is.
pub fn decode_node(bytes: &[u8], probes: &[&[u8]]) -> Result<NodeSummary, String> {
    let (id, database) = match PageHeader::ref_from_prefix(bytes) {
        Ok((header, _)) => (header.page_id.get(), header.database.get()),
        Err(_) => (0, 0),
    };
    let page = Page::verify_unreferenced(bytes, PageId::new(id), database).map_err(said)?;
    node(page, probes)
}

fn node(page: Page<'_>, probes: &[&[u8]]) -> Result<NodeSummary, String> {
    check_node(page).map_err(said)?;
    match page.kind() {
        PageKind::Leaf => Ok(leaf(&Leaf::view(page).map_err(said)?, probes)),
        PageKind::Branch => Ok(branch(&Branch::view(page).map_err(said)?, probes)),
        PageKind::Meta | PageKind::Overflow | PageKind::FreeMap | PageKind::FreeDirectory => {
            Err(format!("{:?} is no node", page.kind()))
        }
    }
}

fn whole(prefix: &[u8], suffix: Suffix<'_>) -> Vec<u8> {
    let mut key = prefix.to_vec();
    suffix.append_to(&mut key);
    key
}

/// Keys between, before and behind `keys`, and some others.
fn near<'k>(keys: &'k [Vec<u8>], probes: &'k [&[u8]]) -> impl Iterator<Item = Vec<u8>> + 'k {
    let around = |key: &'k Vec<u8>| {
        let (mut above, mut below) = (key.clone(), key.clone());
        above.push(0);
        below.pop();
        [key.clone(), above, below]
    };
    let probes = probes.iter().map(|probe| probe.to_vec());
    keys.iter().flat_map(around).chain(probes)
}

fn leaf(leaf: &Leaf<'_>, probes: &[&[u8]]) -> NodeSummary {
    let page = leaf.page();
    let rows = |leaf: &Leaf<'_>| -> Vec<_> {
        let row = |index| {
            let row = leaf.row(index).expect("a row of a checked leaf");
            let value = match row.value {
                RowValue::Inline(value) => (value.to_vec(), false),
                RowValue::Extent(extent) => (extent.encode().to_vec(), true),
            };
            (whole(leaf.prefix(), row.suffix), row.txn.get(), value)
        };
        (0..leaf.count()).map(row).collect()
    };
    let all = rows(leaf);
    let keys: Vec<Vec<u8>> = all.iter().map(|(key, ..)| key.clone()).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "keys of a checked leaf");
    for key in near(&keys, probes) {
        let found = row_index(leaf, &key).expect("a search of a checked leaf");
        assert_eq!(found, keys.binary_search(&key), "{key:?} in {keys:?}");
    }
    let header = page.header();
    let facts = LeafFacts {
        table: page.table(),
        count: all.len(),
        txn_min: header.txn_min.get(),
        txn_max: header.txn_max.get(),
        delete_txn_max: header.delete_txn_max.get(),
    };
    let prefix = shared(&keys);
    let width = txn_bytes(facts.txn_max - facts.txn_min);
    let bytes = all.iter().map(|(key, _, (value, is_extent))| {
        row_bytes(key.len() - prefix.len(), value.len(), *is_extent, width)
    });
    let fits = HEADER_BYTES + prefix.len() + bytes.sum::<usize>() <= page.bytes().len();
    if fits {
        let mut again = vec![0xa5; page.bytes().len()];
        let mut writer = LeafWriter::new(&mut again, facts, prefix);
        for (key, txn, (value, is_extent)) in &all {
            writer.push(key, *txn, value, *is_extent);
        }
        writer.finish();
        let again = reread(&mut again, page);
        let again = Leaf::view(again).expect("a leaf that was written");
        again.check().expect("a leaf that was written");
        assert_eq!(rows(&again), all, "written again");
    }
    NodeSummary {
        level: 0,
        entries: all.len(),
        again: fits,
    }
}

/// What all keys begin with.
fn shared(keys: &[Vec<u8>]) -> &[u8] {
    match keys {
        [first, .., last] => first.get(..common_prefix(first, last)).unwrap_or_default(),
        [only] => only,
        [] => &[],
    }
}

/// Seals what was written in the place of `page`, and reads it.
fn reread<'a>(bytes: &'a mut [u8], page: Page<'_>) -> Page<'a> {
    let header = page.header();
    let (generation, database) = (page.reference().generation, header.database.get());
    seal(bytes, page.id(), generation, database);
    Page::verify_unreferenced(bytes, page.id(), database).expect("a page that was written")
}

fn branch(branch: &Branch<'_>, probes: &[&[u8]]) -> NodeSummary {
    let page = branch.page();
    let children = |branch: &Branch<'_>| -> Vec<(Vec<u8>, PageRef, Below)> {
        let child = |index| {
            let mut separator = Vec::new();
            if index > 0 {
                let found = branch.separator_into(index, &mut separator);
                found.expect("a separator of a checked branch");
            }
            let child = branch.child(index).expect("a child of a checked branch");
            let below = branch.below(index).expect("a child of a checked branch");
            (separator, child, below)
        };
        (0..branch.count()).map(child).collect()
    };
    let all = children(branch);
    let separators: Vec<Vec<u8>> = all.iter().skip(1).map(|(key, ..)| key.clone()).collect();
    assert!(separators.is_sorted_by(|a, b| a < b), "a checked branch");
    for key in near(&separators, probes) {
        let found = child_index(branch, &key).expect("a search of a checked branch");
        let expected = separators.partition_point(|separator| *separator <= key);
        assert_eq!(found, expected, "{key:?} in {separators:?}");
    }
    let header = page.header();
    let facts = BranchFacts {
        table: page.table(),
        level: header.level,
        count: all.len(),
        txn_max: header.txn_max.get(),
        delete_txn_max: header.delete_txn_max.get(),
    };
    let prefix = shared(&separators);
    let bytes = all.iter().enumerate().map(|(index, (key, _, below))| {
        let suffix = if index == 0 {
            0
        } else {
            key.len() - prefix.len()
        };
        child_bytes(suffix, *below)
    });
    let bytes = HEADER_BYTES + prefix.len() + 2 * ENTRY_BYTES + bytes.sum::<usize>();
    let fits = bytes <= page.bytes().len();
    if fits {
        let mut again = vec![0xa5; page.bytes().len()];
        let mut writer = BranchWriter::new(&mut again, facts, prefix);
        for (separator, child, below) in &all {
            writer.push(separator, *child, *below);
        }
        writer.finish();
        let again = Branch::view(reread(&mut again, page)).expect("a branch that was written");
        again.check().expect("a branch that was written");
        assert_eq!(children(&again), all, "written again");
    }
    NodeSummary {
        level: header.level,
        entries: all.len(),
        again: fits,
    }
}

/// A record that was decoded, its operations too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// Its transaction.
    pub txn: u64,
    /// Its operations.
    pub ops: usize,
    /// Bytes it takes.
    pub bytes: usize,
}

/// Reads the record that `bytes` begin with, and its operations.
///
/// # Errors
/// Why it is none, in words.
///
/// # Panics
/// If it does not come back as it was after it is written.
pub fn decode_record(bytes: &[u8]) -> Result<RecordSummary, String> {
    let (record, rest) = Record::decode(bytes).map_err(said)?;
    let taken = bytes.len() - rest.len();
    let seen = record.ops().take(bytes.len() + 2).count();
    assert!(seen <= bytes.len() + 1, "operations without end");
    let ops: Vec<Op<'_>> = record.ops().collect::<Result<_, _>>().map_err(said)?;
    let mut writer = OpWriter::new();
    for op in &ops {
        writer.push(*op);
    }
    let payload = [record.tag(), writer.bytes()].concat();
    let sum = (payload.len(), checksum::crc32c(&payload));
    let (txn, tag) = (record.txn, record.tag());
    let (head, tail) = encode_frame(txn, record.timestamp_ns, tag.len(), sum, writer.count());
    let again = [&head, &payload[..], &tail].concat();
    let (back, rest) = Record::decode(&again).expect("a record that was written");
    assert!(rest.is_empty(), "{} bytes behind it", rest.len());
    assert_eq!(
        (back.txn, back.timestamp_ns, back.op_count, back.tag()),
        (txn, record.timestamp_ns, record.op_count, tag),
        "written again"
    );
    let back: Result<Vec<_>, _> = back.ops().collect();
    assert_eq!(back.as_ref(), Ok(&ops), "written again");
    Ok(RecordSummary {
        txn: txn.get(),
        ops: ops.len(),
        bytes: taken,
    })
}

/// A group that was decoded, its records too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSummary {
    /// Its first transaction.
    pub first_txn: u64,
    /// Its records.
    pub records: u32,
    /// Its length.
    pub bytes: u64,
}

/// Reads the group that `bytes` begin with, as found at position `at` of the log of `database`.
///
/// # Errors
/// Why it is none, in words; also what is wrong with its records.
///
/// # Panics
/// If its header does not come back as it was, or passes at another place.
pub fn decode_group(bytes: &[u8], at: u64, database: u64) -> Result<GroupSummary, String> {
    let lsn = Lsn::new(at);
    let (group, sum) = Group::decode(bytes, lsn, database).map_err(said)?;
    assert!(Group::decode(bytes, Lsn::new(!at), database).is_err());
    assert!(Group::decode(bytes, lsn, !database).is_err());
    let (header, again) = group.encode();
    assert_eq!(bytes.get(..GROUP_HEADER_BYTES), Some(&header[..]));
    assert_eq!(again, sum, "the chain value of the same header");
    assert!(group.end() > lsn && group.durable_through <= lsn);
    let mut rest = group.payload(bytes).map_err(said)?;
    let mut txn = group.first_txn;
    for index in 0..group.record_count {
        if index > 0 {
            txn = txn.next();
        }
        let (record, after) = Record::decode(rest).map_err(said)?;
        record.expect_txn(txn).map_err(said)?;
        rest = after;
    }
    group.check_padding(rest).map_err(said)?;
    Ok(GroupSummary {
        first_txn: group.first_txn.get(),
        records: group.record_count,
        bytes: group.len_bytes,
    })
}

/// Where the scan of a log begins.
#[derive(Debug, Clone, Copy)]
pub struct LogStart {
    /// A border between groups.
    pub lsn: u64,
    /// The chain value there.
    pub checksum: u32,
    /// The last transaction before it.
    pub last_txn: u64,
    /// Known durable.
    pub durable_through: u64,
    /// Low half of the database's id.
    pub database: u64,
}

/// What a scan of a log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSummary {
    /// The end of the last sound group.
    pub end: u64,
    /// Groups.
    pub groups: u64,
    /// Records.
    pub records: u64,
    /// Operations in them that could be read.
    pub ops: u64,
    /// A torn group was found behind the end.
    pub torn: bool,
}

/// Reads the log in `dir`.
///
/// # Errors
/// Why it is not to be believed, in words.
///
/// # Panics
/// If a record is shown out of order, or the account does not add up.
pub fn scan_log(
    disk: Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    start: LogStart,
) -> Result<LogSummary, String> {
    let segments = Segments::open(disk, dir, segment_bytes).map_err(said)?;
    let from = LogPosition {
        lsn: Lsn::new(start.lsn),
        checksum: start.checksum,
        last_txn: TxnId::new(start.last_txn),
    };
    let (mut last, mut records, mut ops) = (start.last_txn, 0, 0);
    let begin = ScanStart {
        from,
        database: start.database,
        proven_through: Lsn::new(start.durable_through),
    };
    let found = scan::<LogError>(&segments, begin, |lsn, record| {
        assert!(lsn >= from.lsn, "{lsn} is before the start");
        assert_eq!(record.txn.get(), last + 1, "the order of transactions");
        last = record.txn.get();
        records += 1;
        ops += record.ops().filter(Result::is_ok).count() as u64;
        Ok(())
    })
    .map_err(said)?;
    assert_eq!(found.records, records, "records shown");
    assert_eq!(found.end.last_txn.get(), last, "the last transaction");
    assert!(found.end.lsn >= from.lsn && found.proven <= found.end.lsn);
    Ok(LogSummary {
        end: found.end.lsn.get(),
        groups: found.groups,
        records,
        ops,
        torn: found.torn,
    })
}
