//! Changes of a database, read from the bytes of an input.
//!
//! The first byte chooses the [`Base`], the second what is repaired: pages (1), the log (2). Then come changes, each a
//! byte for its kind and its numbers. All bytes mean something, and numbers are taken modulo what is there: so nearly
//! every input changes something real.
//!
//! [`history`] reads the rows of a leaf of history instead.

use std::collections::BTreeSet;

use northstar_io::sim::Image;
use northstardb::internals::{history_leaf, seal_page};

use super::base::{
    Base, PAGE_BYTES, PAST_FROM, RUNS, Reference, chosen, data_path, extent_sum, is_leaf_of,
    with_past,
};
use super::{DATABASE, SEGMENT_BYTES, repair};
use crate::rng::Rng;

/// Most changes of one input.
const EDITS_MAX: usize = 40;
/// Kinds of changes.
const KINDS: u8 = 14;
/// Bytes that the longest change takes but for what it writes.
const EDIT_BYTES: usize = 8;

/// Numbers that are a limit of something.
const NUMBERS: [u64; 16] = [
    0,
    1,
    3,
    4,
    63,
    64,
    4095,
    4096,
    0xffff,
    0x1_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 4096,
    u64::MAX - 1,
    u64::MAX,
];

/// Offsets and widths of numbers in the header of a page, and in a meta page.
const FIELDS: [(usize, usize); 30] = [
    (4, 2),
    (6, 1),
    (7, 1),
    (8, 8),
    (16, 4),
    (20, 4),
    (24, 2),
    (26, 2),
    (28, 4),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 8),
    (84, 4),
    (88, 8),
    (112, 4),
    (116, 4),
    (120, 8),
    (128, 8),
    (136, 8),
    (144, 4),
    (148, 4),
    (152, 8),
    (160, 8),
    (176, 8),
    (184, 1),
    (192, 8),
    (240, 8),
    (272, 4),
    (276, 4),
];

/// Offsets and widths of numbers in a group and in its first record.
const LOG_FIELDS: [(usize, usize); 16] = [
    (12, 4),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 8),
    (56, 4),
    (60, 2),
    (62, 2),
    (72, 8),
    (80, 8),
    (88, 8),
    (96, 4),
    (100, 2),
    (102, 2),
    (112, 8),
];

/// Numbers taken from the front of an input; 0 when it is used up.
struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    fn small(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn byte(&mut self) -> usize {
        self.small().into()
    }

    fn pair(&mut self) -> usize {
        self.byte() | self.byte() << 8
    }

    fn take(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A database after its changes.
#[derive(Debug)]
pub struct Changed {
    /// The one that was changed.
    pub base: &'static Base,
    /// What it is now.
    pub image: Image,
    /// Its bytes are those of the base.
    pub same: bool,
}

struct Edits {
    base: &'static Base,
    data: Vec<u8>,
    log: Vec<u8>,
    references: Vec<Reference>,
    /// Pages with bytes that are not the base's.
    touched: BTreeSet<usize>,
    data_len: Option<u64>,
    /// Segments that are cut, and those that are gone.
    cut: Vec<(usize, u64)>,
    removed: Vec<usize>,
    data_removed: bool,
}

/// Reads and performs the changes.
#[must_use]
pub fn apply(bytes: &[u8]) -> Changed {
    let mut input = Input(bytes);
    let base = chosen(input.small());
    let flags = input.byte();
    let mut edits = Edits::of(base);
    let repair_pages = flags & 1 == 0;
    for _ in 0..EDITS_MAX {
        if input.0.is_empty() {
            break;
        }
        edits.next(&mut input, repair_pages);
    }
    if repair_pages {
        edits.repair_pages();
    }
    if flags & 2 == 0 {
        let start = base.start.0.min(edits.log.len());
        repair::groups(&mut edits.log[start..], base.start.1);
    }
    edits.image()
}

/// Reads rows, and puts them in place of those of a leaf of history.
///
/// The first byte chooses the leaf. Of each row come what its key is, what wrote it, what ended it, and the length of its value.
#[must_use]
pub fn history(bytes: &[u8]) -> Changed {
    let base = with_past();
    let mut input = Input(bytes);
    let leaves = base.history_leaves();
    let page = leaves[input.byte() % leaves.len()];
    // What is not so small is among the largest there are.
    let txn = |byte: u8| match byte {
        0xf0.. => u64::MAX - u64::from(u8::MAX - byte),
        _ => u64::from(byte),
    };
    let mut rows = Vec::new();
    while !input.0.is_empty() {
        let (kind, from, to) = (input.small(), txn(input.small()), txn(input.small()));
        let value = input.byte() * 9;
        let key = match kind % 16 {
            0 => input.take(usize::from(kind / 16)).to_vec(),
            1 => [b"\0\0\0\0one\0\0", &to.to_be_bytes()[..]].concat(),
            2 | 3 => {
                // Of any table, with any bytes, packed or not.
                let (table, len) = (input.small(), input.byte() % 8);
                let key = input.take(len);
                [&[0, 0, 0, table], key, &[0, 0], &to.to_be_bytes()].concat()
            }
            _ => {
                let key = format!("key {:03}", input.byte());
                [b"\0\0\0\x10", key.as_bytes(), &[0, 0], &to.to_be_bytes()].concat()
            }
        };
        rows.push((key, from, vec![kind; value]));
    }
    rows.sort();
    rows.dedup_by(|a, b| a.0 == b.0);
    let mut edits = Edits::of(base);
    if !rows.is_empty() {
        let old = &base.data[page * PAGE_BYTES..][..PAGE_BYTES];
        let mut leaf = history_leaf(PAGE_BYTES, &rows);
        seal_page(&mut leaf, page as u64, repair::word(old, 16), DATABASE);
        let count = u64::from(u16::from_le_bytes([leaf[24], leaf[25]]));
        edits.write(page, 0, &leaf);
        edits.references.retain(|reference| reference.page != page);
        edits.count_rows(page, count);
    }
    edits.repair_pages();
    edits.image()
}

impl Edits {
    fn of(base: &'static Base) -> Self {
        Self {
            base,
            data: base.data.clone(),
            log: base.log.clone(),
            references: base.references.clone(),
            touched: BTreeSet::new(),
            data_len: None,
            cut: Vec::new(),
            removed: Vec::new(),
            data_removed: false,
        }
    }

    /// Makes the root of a run that is one leaf say how many rows there are.
    fn count_rows(&mut self, leaf: usize, count: u64) {
        let of_leaf = |of: &&Reference| of.to == leaf;
        for reference in self.references.clone().iter().filter(of_leaf) {
            let named_by = &self.data[reference.page * PAGE_BYTES..][..PAGE_BYTES];
            if is_leaf_of(RUNS, named_by) {
                self.write(reference.page, reference.at + 16, &count.to_le_bytes());
            }
        }
    }

    fn page(&self, number: usize) -> usize {
        number % (self.data.len() / PAGE_BYTES).max(1)
    }

    fn write(&mut self, page: usize, at: usize, bytes: &[u8]) {
        let room = &bytes[..bytes.len().min(PAGE_BYTES - at % PAGE_BYTES)];
        repair::put(&mut self.data, page * PAGE_BYTES + at % PAGE_BYTES, room);
        self.touched.insert(page);
    }

    /// A group of the log, by its number: where it begins.
    fn group(&self, number: usize) -> usize {
        let blocks = self.log.chunks(4096).enumerate();
        let starts: Vec<usize> = blocks
            .filter(|(_, block)| block.starts_with(b"NSLG"))
            .map(|(index, _)| index * 4096)
            .collect();
        starts
            .get(number % starts.len().max(1))
            .copied()
            .unwrap_or(0)
    }

    fn next(&mut self, input: &mut Input<'_>, repair: bool) {
        let kind = input.small() % KINDS;
        let near = |number: u64, by: u8| number.wrapping_add_signed(by.cast_signed().into());
        match kind {
            0 => {
                let (page, at, len) = (self.page(input.byte()), input.pair(), input.byte() % 24);
                let bytes = input.take(len).to_vec();
                self.write(page, at, &bytes);
            }
            1 | 2 => {
                let (page, field) = (self.page(input.byte()), input.byte());
                let number = near(NUMBERS[input.byte() % 16], input.small());
                // Meta pages have more of them.
                let count = if page < 4 { FIELDS.len() } else { 13 };
                let (at, width) = FIELDS[field % count];
                self.write(page, at, &number.to_le_bytes()[..width]);
            }
            3 => {
                let (from, to) = (self.page(input.byte()), self.page(input.byte()));
                let mut copy = self.data[from * PAGE_BYTES..][..PAGE_BYTES].to_vec();
                if repair {
                    repair::put(&mut copy, 8, &(to as u64).to_le_bytes());
                }
                self.write(to, 0, &copy);
                self.references.retain(|reference| reference.page != to);
                let of = self
                    .references
                    .iter()
                    .filter(|reference| reference.page == from);
                let copied: Vec<_> = of.map(|of| Reference { page: to, ..*of }).collect();
                self.references.extend(copied);
            }
            4 | 5 => {
                let (index, to) = (input.pair(), self.page(input.byte()));
                let count = self.references.len().max(1);
                if let Some(reference) = self.references.get_mut(index % count) {
                    reference.to = to;
                    let reference = *reference;
                    self.write(reference.page, reference.at, &(to as u64).to_le_bytes());
                    self.name(reference);
                }
            }
            6 => {
                let (page, at) = (self.page(input.byte()), input.pair());
                let number = near(NUMBERS[input.byte() % 16], input.small());
                self.write(page, at, &number.to_le_bytes());
            }
            7 => {
                let (block, at, len) = (input.byte(), input.pair() % 4096, input.byte() % 24);
                let at = block * 4096 % self.log.len().max(1) + at;
                let bytes = input.take(len).to_vec();
                repair::put(&mut self.log, at, &bytes);
            }
            8 | 9 => {
                let (group, field) = (self.group(input.byte()), input.byte());
                let number = near(NUMBERS[input.byte() % 16], input.small());
                let (at, width) = LOG_FIELDS[field % LOG_FIELDS.len()];
                repair::put(&mut self.log, group + at, &number.to_le_bytes()[..width]);
            }
            10 => {
                let (from, to) = (self.group(input.byte()), self.group(input.byte()));
                let copy = self.log[from..]
                    .iter()
                    .take(4096)
                    .copied()
                    .collect::<Vec<_>>();
                repair::put(&mut self.log, to, &copy);
                if repair {
                    let lsn = (to + self.first_lsn()) as u64;
                    repair::put(&mut self.log, to + 16, &lsn.to_le_bytes());
                }
            }
            11 => {
                let (len, odd) = (input.byte() * PAGE_BYTES, input.byte() * 16);
                self.data_len = Some((len + odd) as u64);
            }
            12 => {
                let (segment, len) = (input.byte(), input.pair() * 8);
                self.cut.push((segment, len as u64));
            }
            _ => match input.byte() {
                255 => self.data_removed = true,
                segment => self.removed.push(segment),
            },
        }
    }

    /// The position in the stream of the first byte of `log`.
    fn first_lsn(&self) -> usize {
        let name = self
            .base
            .segments
            .first()
            .and_then(|path| path.file_stem()?.to_str());
        let number: usize = name.and_then(|name| name.parse().ok()).unwrap_or(0);
        number * SEGMENT_BYTES
    }

    /// Writes what a reference must say of the page it names.
    fn name(&mut self, reference: Reference) {
        let named = &self.data[reference.to * PAGE_BYTES..][..PAGE_BYTES];
        let (sum, generation) = (repair::word(named, 0), repair::word(named, 16));
        let at = reference.page * PAGE_BYTES + reference.at;
        repair::put(&mut self.data, at + 12, &generation.to_le_bytes());
        if reference.extent {
            let sum = extent_sum(&self.data, reference.to, repair::word(&self.data, at + 8));
            repair::put(&mut self.data, at + 16, &sum.to_le_bytes());
        } else {
            repair::put(&mut self.data, at + 8, &sum.to_le_bytes());
        }
    }

    /// Makes checksums right, and what parents say of them, up to the meta pages. Cycles have no end: then some are
    /// left wrong.
    fn repair_pages(&mut self) {
        const PASSES: usize = 8;
        let mut wrong = self.touched.clone();
        for _ in 0..PASSES {
            if wrong.is_empty() {
                break;
            }
            for &page in &wrong {
                repair::page(&mut self.data[page * PAGE_BYTES..][..PAGE_BYTES]);
            }
            let mut next = BTreeSet::new();
            for reference in self.references.clone() {
                let last = if reference.extent {
                    reference.to + 16
                } else {
                    reference.to
                };
                if wrong.range(reference.to..=last).next().is_some() {
                    self.name(reference);
                    next.insert(reference.page);
                }
            }
            self.touched.extend(&next);
            wrong = next;
        }
    }

    fn image(self) -> Changed {
        let base = self.base;
        let mut image = base.image.clone();
        let path = data_path();
        for &page in &self.touched {
            let at = page * PAGE_BYTES;
            image.overwrite(&path, at as u64, &self.data[at..at + PAGE_BYTES]);
        }
        let pieces = self
            .log
            .chunks(SEGMENT_BYTES)
            .zip(base.log.chunks(SEGMENT_BYTES));
        for (path, (new, old)) in base.segments.iter().zip(pieces) {
            for (index, (new, old)) in new.chunks(4096).zip(old.chunks(4096)).enumerate() {
                if new != old {
                    image.overwrite(path, (index * 4096) as u64, new);
                }
            }
        }
        if let Some(len) = self.data_len {
            image.resize(&path, len);
        }
        let segment = |number: usize| base.segments.get(number % base.segments.len().max(1));
        for &(number, len) in &self.cut {
            segment(number).map(|path| image.resize(path, len));
        }
        for &number in &self.removed {
            segment(number).map(|path| image.remove(path));
        }
        if self.data_removed {
            image.remove(&path);
        }
        let same = image.difference(&base.image).is_none();
        Changed { base, image, same }
    }
}

fn byte(rng: &mut Rng) -> u8 {
    rng.word().to_le_bytes()[0]
}

/// Adds a change to an input, or leaves one out, or repeats one.
pub(super) fn mutate(data: &mut [u8], size: usize, rng: &mut Rng) -> usize {
    let mut bytes = data[..size].to_vec();
    bytes.resize(bytes.len().max(2), 0);
    match rng.below(10) {
        0 => bytes[0] = if rng.chance(25) { PAST_FROM } else { byte(rng) },
        1 => bytes[1] = if rng.chance(80) { 0 } else { byte(rng) },
        2 => bytes.truncate(2 + rng.index(bytes.len() - 1)),
        _ => {
            let mut edit: Vec<u8> = (0..EDIT_BYTES).map(|_| byte(rng)).collect();
            edit[0] = byte(rng) % KINDS;
            if rng.chance(50) {
                // One of the first pages, where the roots are.
                edit[1] %= 12;
            }
            let at = if rng.chance(70) {
                bytes.len()
            } else {
                2 + rng.index(bytes.len() - 1)
            };
            bytes.splice(at..at, edit);
        }
    }
    bytes.truncate(data.len());
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changed_is_the_base_and_any_bytes_are_changes() {
        for base in [0, 1, 2, 3, PAST_FROM] {
            assert!(apply(&[base]).same, "{base}");
        }
        assert!(history(&[]).same);
        let mut rng = Rng::new(1);
        let mut changed = 0;
        for _ in 0..300 {
            let bytes: Vec<u8> = (0..rng.below(60)).map(|_| byte(&mut rng)).collect();
            changed += u32::from(!apply(&bytes).same);
        }
        assert!(changed > 200, "{changed}");
        // A version of a key that has none in the last run, but a row.
        let version = [0, 15, 1, 2, 0, 200];
        let leaves = with_past().history_leaves();
        assert!((0..leaves.len()).all(|leaf| {
            let mut version = version;
            version[0] = u8::try_from(leaf).unwrap_or(0);
            !history(&version).same
        }));
    }
}
