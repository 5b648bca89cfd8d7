//! What each kind of damage to the golden files must be answered with.
//!
//! Every kind of structure is damaged in every set of golden files, once where its checksum tells, and where it can be
//! also under a checksum that was made good again. What the engine answers is written down beside the files, a line each,
//! in `golden/damage`, and must stay what it is: which error, where, and in which words. Lines are added, not rewritten,
//! unless an answer was wrong.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use northstar_io::{Choice, NativeDisk, NativeOptions, SyncMethod};
use northstardb::internals::{self, Nanos, World};
use northstardb::{Db, Error, Options, WriteBatch};

use super::{Set, differences, options, restore};
use crate::checksum::{crc32c, repair_page};
use crate::{During, Failure, clock};

/// Bytes of a group's header, and of a record's.
const GROUP_HEADER: usize = 64;
const RECORD_HEADER: usize = 48;
/// Faults that an answer names before it only counts.
const FAULTS_MAX: usize = 2;
/// The answer when nothing is noticed, or nothing is missing.
const WHOLE: &str = "whole";
/// Pages of one kind that are damaged.
const PAGES_MAX: usize = 3;

/// One thing done to a copy of golden files.
#[derive(Debug, Clone)]
pub struct Damage {
    /// In words.
    pub what: String,
    /// The file, below the database's directory.
    file: PathBuf,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    /// Other bytes at some places.
    Bytes(Vec<(usize, Vec<u8>)>),
    /// The file ends here.
    Cut(u64),
    Remove,
}

impl Damage {
    /// Does it to the database in `dir`.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn inflict(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(&self.file);
        match &self.change {
            Change::Remove => std::fs::remove_file(path).during("remove a file"),
            Change::Cut(len) => {
                let file = std::fs::File::options().write(true).open(path);
                let file = file.during("open a file")?;
                file.set_len(*len).during("cut a file")
            }
            Change::Bytes(changes) => {
                let mut bytes = std::fs::read(&path).during("read a file")?;
                for (at, with) in changes {
                    bytes[*at..at + with.len()].copy_from_slice(with);
                }
                std::fs::write(path, bytes).during("write a file")
            }
        }
    }
}

/// Everything that is done to a set, from its files in `dir`, restored.
///
/// # Errors
/// When the file system fails.
pub fn list(dir: &Path) -> Result<Vec<Damage>, Failure> {
    let data = std::fs::read(dir.join("data")).during("read the data file")?;
    let mut all = of_metas(&data);
    all.extend(of_pages(&data));
    all.extend(of_length(&data));
    all.extend(of_log(dir, &data)?);
    Ok(all)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut all = [0; 8];
    all[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(all)
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn page_bytes(data: &[u8]) -> usize {
    index(number::<4>(data, 84))
}

fn page(data: &[u8], at: usize) -> &[u8] {
    let bytes = page_bytes(data);
    &data[at * bytes..(at + 1) * bytes]
}

/// A page with other bytes at `offset`, and the checksum of what it says then.
fn repaired(data: &[u8], at: usize, offset: usize, with: &[u8]) -> (usize, Vec<u8>) {
    let mut changed = page(data, at).to_vec();
    changed[offset..offset + with.len()].copy_from_slice(with);
    repair_page(&mut changed);
    (at * page_bytes(data), changed)
}

/// A page with one byte of it turned over.
fn flipped(data: &[u8], at: usize, offset: usize) -> (usize, Vec<u8>) {
    let place = at * page_bytes(data) + offset;
    (place, vec![!data[place]])
}

fn of_data(what: String, changes: Vec<(usize, Vec<u8>)>) -> Damage {
    Damage {
        what,
        file: "data".into(),
        change: Change::Bytes(changes),
    }
}

/// Copies of the meta page of each slot: the newest one first.
fn slots(data: &[u8]) -> [[usize; 2]; 2] {
    let generation = |copy| number::<4>(page(data, copy), 16);
    match generation(0) > generation(1) {
        true => [[0, 2], [1, 3]],
        false => [[1, 3], [0, 2]],
    }
}

fn of_metas(data: &[u8]) -> Vec<Damage> {
    let mut all = Vec::new();
    let flip = |copies: &[usize]| {
        copies
            .iter()
            .map(|copy| flipped(data, *copy, 200))
            .collect()
    };
    for copy in 0..4 {
        all.push(of_data(format!("meta copy {copy}, a byte"), flip(&[copy])));
    }
    let [newest, older] = slots(data);
    all.push(of_data(
        "newest meta slot, a byte of each copy".to_owned(),
        flip(&newest),
    ));
    all.push(of_data(
        "older meta slot, a byte of each copy".to_owned(),
        flip(&older),
    ));
    all.push(of_data(
        "every meta copy, a byte".to_owned(),
        flip(&[0, 1, 2, 3]),
    ));
    let zeros = vec![(0, vec![0; 4 * page_bytes(data)])];
    all.push(of_data("every meta copy, zeros".to_owned(), zeros));
    // What a sound checksum must not make believed.
    let fields: [(&str, usize, u64, usize); 12] = [
        ("kind", 6, 2, 1),
        ("page id", 8, 77, 8),
        ("generation", 16, 0xffff, 4),
        ("database", 56, 1, 8),
        ("page size", 84, 512, 4),
        ("inner database", 96, 1, 8),
        ("inner generation", 112, 77, 4),
        ("names root", 160, 1 << 40, 8),
        ("roots root", 192, 1 << 40, 8),
        ("free directory", 224, 1 << 40, 8),
        ("pages", 240, 1 << 40, 8),
        ("segment size", 276, 12_345, 4),
    ];
    for (field, offset, value, bytes) in fields {
        let with = &value.to_le_bytes()[..bytes];
        let copies = (0..4).map(|copy| repaired(data, copy, offset, with));
        let what = format!("every meta copy, impossible {field}, checksum repaired");
        all.push(of_data(what, copies.collect()));
    }
    all
}

/// What a page is, in words.
fn kind_of(page: &[u8]) -> Option<String> {
    let whose = match number::<4>(page, 20) {
        0 => "names",
        1 => "roots",
        2 => "history",
        3 => "runs",
        4 => "times",
        5 => "tags",
        6 => "tagged",
        7 => "states",
        _ => "rows",
    };
    match (page[6], page[7]) {
        (2, _) => Some(format!("leaf of {whose}")),
        (3, level) => Some(format!("branch of {whose}, level {level}")),
        (4, _) => Some("extent".to_owned()),
        (5, _) => Some("free map".to_owned()),
        (6, _) => Some("free directory".to_owned()),
        _ => None,
    }
}

fn of_pages(data: &[u8]) -> Vec<Damage> {
    let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for at in 4..data.len() / page_bytes(data) {
        if let Some(kind) = kind_of(page(data, at)) {
            kinds.entry(kind).or_default().push(at);
        }
    }
    let mut all = Vec::new();
    for (kind, mut pages) in kinds {
        // Those written last are in use.
        pages.sort_by_key(|at| std::cmp::Reverse((number::<4>(page(data, *at), 16), *at)));
        pages.truncate(PAGES_MAX);
        for at in &pages {
            let what = format!("{kind}, page {at}, a byte");
            all.push(of_data(what, vec![flipped(data, *at, 100)]));
        }
        let at = pages[0];
        let sealed = |what: &str, offset, with: &[u8]| {
            let what = format!("{kind}, page {at}, {what}, checksum repaired");
            of_data(what, vec![repaired(data, at, offset, with)])
        };
        all.push(sealed("a byte", 100, &[!page(data, at)[100]]));
        all.push(sealed("a newer format", 4, &[1]));
        all.push(sealed("an unknown kind", 6, &[99]));
        all.push(sealed("another address", 8, &[99, 99]));
        all.push(sealed("another database", 56, &[1, 2, 3]));
        let from = (at - 1) * page_bytes(data);
        let neighbour = data[from..from + page_bytes(data)].to_vec();
        let what = format!("{kind}, page {at}, its neighbour's bytes");
        all.push(of_data(what, vec![(at * page_bytes(data), neighbour)]));
    }
    all
}

fn of_length(data: &[u8]) -> Vec<Damage> {
    let page = page_bytes(data) as u64;
    let len = data.len() as u64;
    let cuts = [0, 100, page, 4 * page, len / 2];
    let cut = |len: u64| Damage {
        what: format!("data file cut at {len}"),
        file: "data".into(),
        change: Change::Cut(len),
    };
    cuts.into_iter().map(cut).collect()
}

fn of_log(dir: &Path, data: &[u8]) -> Result<Vec<Damage>, Failure> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir.join("log"))
        .during("list the log")?
        .map(|entry| entry.map(|entry| Path::new("log").join(entry.file_name())))
        .collect::<Result<_, _>>()
        .during("list the log")?;
    names.retain(|name| name.extension().is_some_and(|end| end == "seg"));
    names.sort();
    let (mut stream, mut base, mut ends) = (Vec::new(), 0, Vec::new());
    for (at, name) in names.iter().enumerate() {
        let bytes = std::fs::read(dir.join(name)).during("read a segment")?;
        if at == 0 {
            let digits = name.file_stem().unwrap_or_default().to_string_lossy();
            base = digits.parse::<usize>().unwrap_or(0) * bytes.len();
        }
        stream.extend(bytes);
        ends.push(stream.len());
    }
    let log = Log {
        names,
        ends,
        base,
        stream,
    };
    let mut all = Vec::new();
    let newest = page(data, slots(data)[0][0]);
    let groups = log.groups(index(number::<8>(newest, 128)));
    let picked = [0, groups.len() / 2, groups.len() - 1];
    for (at, which) in picked.into_iter().zip(["first", "middle", "last"]) {
        all.extend(log.of_group(groups[at], which));
    }
    // Those that hold something, and one that was made ready.
    let used = log.used();
    for name in log.names.iter().take(used + 1) {
        let shown = name.display();
        for (what, change) in [
            (format!("{shown} missing"), Change::Remove),
            (format!("{shown} empty"), Change::Cut(0)),
            (format!("{shown} cut at 8192"), Change::Cut(8192)),
        ] {
            let file = name.clone();
            all.push(Damage { what, file, change });
        }
    }
    Ok(all)
}

/// The log as one stream.
struct Log {
    names: Vec<PathBuf>,
    /// Where each segment ends in the stream, and which position the stream begins with.
    ends: Vec<usize>,
    base: usize,
    stream: Vec<u8>,
}

impl Log {
    /// Segments up to the last that holds something.
    fn used(&self) -> usize {
        let last = self.stream.iter().rposition(|byte| *byte != 0);
        self.ends.partition_point(|end| *end <= last.unwrap_or(0)) + 1
    }

    /// Where the groups from a position on begin and end.
    fn groups(&self, from: usize) -> Vec<(usize, usize)> {
        let mut at = from - self.base;
        let mut groups = Vec::new();
        while self.stream.get(at..at + 4) == Some(b"NSLG") {
            let end = at + index(number::<8>(&self.stream, at + 24));
            groups.push((at, end));
            at = end;
        }
        groups
    }

    fn of_group(&self, (begin, end): (usize, usize), which: &str) -> Vec<Damage> {
        let record = begin + GROUP_HEADER;
        let payload = index(number::<8>(&self.stream, record + 24));
        let record_end = record + RECORD_HEADER + payload + 8;
        let mut places = vec![
            ("header, magic", begin),
            ("header, checksum", begin + 4),
            ("header, payload checksum", begin + 8),
            ("header, previous", begin + 12),
            ("header, lsn", begin + 16),
            ("header, length", begin + 25),
            ("header, records", begin + 56),
            ("record, header", record + 8),
            ("record, payload", record + RECORD_HEADER + payload / 2),
            ("record, trailer", record_end - 1),
        ];
        if record_end < end && self.stream[end - 1] == 0 {
            places.push(("padding", end - 1));
        }
        let flip = |(what, at): (&str, usize)| {
            self.write(
                format!("{which} group, {what}, a byte"),
                at,
                &[!self.stream[at]],
            )
        };
        let mut all: Vec<Damage> = places.into_iter().map(flip).collect();
        let mut sealed = |what: &str, changes: &[(usize, &[u8])]| {
            let mut group = self.stream[begin..end].to_vec();
            for (at, with) in changes {
                group[at - begin..at - begin + with.len()].copy_from_slice(with);
            }
            // Inner checksums first: each is part of what the next covers.
            let header = GROUP_HEADER..GROUP_HEADER + RECORD_HEADER;
            let sum = crc32c(&group[header.start + 8..header.end]);
            group[header.start + 4..header.start + 8].copy_from_slice(&sum.to_le_bytes());
            let sum = crc32c(&group[GROUP_HEADER..]);
            group[8..12].copy_from_slice(&sum.to_le_bytes());
            let sum = crc32c(&group[8..GROUP_HEADER]);
            group[4..8].copy_from_slice(&sum.to_le_bytes());
            let what = format!("{which} group, {what}, checksums repaired");
            all.push(self.write(what, begin, &group));
        };
        sealed("a newer format", &[(begin + 60, &[1])]);
        sealed("another database", &[(begin + 32, &[1, 2])]);
        sealed("durable through beyond itself", &[(begin + 46, &[1])]);
        sealed("no records", &[(begin + 56, &[0, 0, 0, 0])]);
        sealed(
            "first transaction one more",
            &[(begin + 48, &[self.stream[begin + 48].wrapping_add(1)])],
        );
        sealed("record with an unknown flag", &[(record + 38, &[1])]);
        sealed(
            "record with one operation more",
            &[(record + 32, &[self.stream[record + 32].wrapping_add(1)])],
        );
        all
    }

    /// Other bytes in the stream, as far as they lie in the segment where they begin.
    fn write(&self, what: String, at: usize, with: &[u8]) -> Damage {
        let segment = self.ends.partition_point(|end| *end <= at);
        let start = segment.checked_sub(1).map_or(0, |before| self.ends[before]);
        let len = with.len().min(self.ends[segment] - at);
        Damage {
            what,
            file: self.names[segment].clone(),
            change: Change::Bytes(vec![(at - start, with[..len].to_vec())]),
        }
    }
}

/// What the engine answers to a damaged copy in `dir`: reading, and writing after that.
///
/// # Errors
/// A refusal that changed something; the file system's.
pub fn answer(dir: &Path, set: Set) -> Result<String, Failure> {
    let before = bytes_of(dir)?;
    let read = attempt(dir, options().read_only(true), |db| {
        let found = differences(db, set.content)?;
        let faults = db.check()?.faults;
        Ok([found, faults].concat())
    });
    if bytes_of(dir)? != before {
        return Err(Failure::Broken("reading changed a file".to_owned()));
    }
    let written = attempt(dir, options(), |db| {
        let mut batch = WriteBatch::new();
        batch.put(&db.open_table("tail")?, b"one more", b"row");
        db.commit(batch)?;
        db.checkpoint()?;
        Ok(Vec::new())
    });
    match (read, written) {
        (Ok(read), Ok(written)) if written == WHOLE => Ok(read),
        (Ok(read), Ok(written)) => Ok(format!("{read}; to write: {written}")),
        (Err(read), Err(written)) => {
            if bytes_of(dir)? != before {
                return Err(Failure::Broken("a refusal changed a file".to_owned()));
            }
            Ok(match read == written {
                true => format!("refused: {read}"),
                false => format!("refused: {read}; to write: {written}"),
            })
        }
        (Ok(read), Err(written)) => Ok(format!("{read}; not to be written to: {written}")),
        (Err(read), Ok(_)) => Ok(format!("refused to read: {read}; opened to write")),
    }
}

/// The machine's disk. What answers depend on otherwise, whether the engine knows how this machine makes writes durable, is given.
fn world() -> World {
    let begun = clock::now();
    let nanos: Nanos = Arc::new(move || {
        let passed = begun.elapsed().as_nanos();
        1 + u64::try_from(passed).unwrap_or(u64::MAX - 1)
    });
    let native = NativeOptions {
        uring: Choice::Never,
        direct: true,
    };
    World {
        disk: NativeDisk::new(native),
        wall: Arc::clone(&nanos),
        monotonic: nanos,
        threads: true,
        database: 1,
        sync_method: SyncMethod::WriteThenSync,
        cache_bytes: 4 << 20,
        delta_address_bytes: 64 << 20,
        slice_bytes: 8 << 20,
    }
}

/// Opens and does something: what it found in words, or the error of the opening.
fn attempt(
    dir: &Path,
    options: Options,
    work: impl FnOnce(&Db) -> northstardb::Result<Vec<String>>,
) -> Result<String, String> {
    let say = |error: &Error| {
        let text = crate::chain(error);
        text.replace(&dir.display().to_string(), "DIR")
    };
    let db = internals::open(options, dir, world()).map_err(|error| say(&error))?;
    Ok(match work(&db) {
        Ok(found) if found.is_empty() => WHOLE.to_owned(),
        Ok(mut found) => {
            let more = found.len().saturating_sub(FAULTS_MAX);
            found.truncate(FAULTS_MAX);
            let more = if more > 0 {
                format!("; {more} more")
            } else {
                String::new()
            };
            format!("opened, and found: {}{more}", found.join("; "))
        }
        Err(error) => format!("opened, then: {}", say(&error)),
    })
}

/// All files, but for the lock.
fn bytes_of(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failure> {
    let mut all = BTreeMap::new();
    for part in [dir.to_owned(), dir.join("log")] {
        for entry in std::fs::read_dir(part).during("list a directory")? {
            let path = entry.during("list a directory")?.path();
            if path.is_file() && !path.ends_with("LOCK") {
                let bytes = std::fs::read(&path).during("read a file")?;
                all.insert(path, bytes);
            }
        }
    }
    Ok(all)
}

/// The table of a set: a line for each damage, with what it is answered with.
///
/// # Errors
/// As [`answer`].
pub fn table(golden: &Path, set: Set) -> Result<String, Failure> {
    let temporary = tempfile::tempdir().during("make a directory")?;
    let whole = temporary.path().join("whole");
    restore(&golden.join(set.name), set, &whole)?;
    let mut text = String::new();
    for damage in list(&whole)? {
        let dir = temporary.path().join("db");
        restore(&golden.join(set.name), set, &dir)?;
        damage.inflict(&dir)?;
        let answer = answer(&dir, set).map_err(|failure| {
            let (what, why) = (&damage.what, crate::chain(&failure));
            Failure::Broken(format!("{what}: {why}"))
        })?;
        writeln!(text, "{}: {answer}", damage.what).ok();
        std::fs::remove_dir_all(&dir).during("remove a directory")?;
    }
    Ok(text)
}

/// Where the table of a set is kept.
#[must_use]
pub fn path(golden: &Path, set: Set) -> PathBuf {
    golden.join("damage").join(format!("{}.txt", set.name))
}
