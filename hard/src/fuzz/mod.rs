//! Fuzzing guided by coverage: what each target does with its bytes, and what must hold.
//!
//! A target's body is an ordinary function of bytes that panics when a promise is broken. libFuzzer calls it with new
//! bytes under AddressSanitizer (`hard/fuzz`, a package of its own, built and run by [`drive`]); a plain test calls it
//! with all bytes that were kept. Beyond the invariants named at each target: no panic, no memory error, no single
//! allocation beyond [`Target::malloc_limit_mb`], no input that takes longer than a limit.
//!
//! - [`repair`]: makes checksums right again after a change, so that what lies behind them is reached.
//! - [`mutate`]: changes bytes as the fuzzer would, then repairs, for a part of the executions.
//! - [`base`], [`edit`], [`database`]: whole databases, as changes to sound ones.
//! - [`backup`]: backups, restored.
//! - [`seeds`]: the first inputs, from what the engine writes.

pub mod backup;
pub mod base;
pub mod database;
pub mod drive;
pub mod edit;
pub mod mutate;
pub mod repair;
pub mod seeds;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use northstar_io::sim::{Image, SimDisk, SimOptions};
use northstar_io::{Disk, OpenMode};
use northstardb::internals::{self, LogStart};

use crate::{During, Failure};

/// The database that pages, groups and logs of the inputs belong to.
pub const DATABASE: u64 = 0x6e73_6675_7a7a_0001;
/// Bytes of a log segment in the inputs.
pub const SEGMENT_BYTES: usize = 64 << 10;

/// What is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A copy of the meta page: reads as one or is refused; what was read comes back when it is written.
    Meta,
    /// A page of any kind: passes for itself and no other page, and not with a bit flipped; sealed, it verifies
    /// unless its header contradicts itself.
    Page,
    /// A leaf or branch under a sound checksum: what passes the check can be walked, is in order, is found where it is
    /// by search, and comes back when it is written.
    Node,
    /// A commit record: it and its operations come back when they are written.
    Record,
    /// A group of the log: passes at its own place only; its header comes back, its records follow each other.
    Group,
    /// A log of up to two segments: read twice it is the same, records are shown in order, and reading writes nothing.
    Log,
    /// A backup: restored, it is what its end says; what is refused cannot be opened. See [`backup`].
    Backup,
    /// Runs of history, as rows in place of those of a run or of a filter: the database they are in is treated as a
    /// [`Target::Database`] is, and states of the past are read in every way. See [`edit::history`].
    History,
    /// A whole database, as changes to a sound one: opened for reading only, it stays as it is; opened, read, checked,
    /// written to and opened again. See [`database`].
    Database,
}

impl Target {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Page,
        Self::Node,
        Self::Record,
        Self::Group,
        Self::Log,
        Self::Backup,
        Self::History,
        Self::Database,
    ];

    /// Its name: of its program, and of its corpus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Page => "page",
            Self::Node => "node",
            Self::Record => "record",
            Self::Group => "group",
            Self::Log => "log",
            Self::Backup => "backup",
            Self::History => "history",
            Self::Database => "database",
        }
    }

    /// The target of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Failure::Broken(format!("there is no target {name:?}; there are {names}"))
        })
    }

    /// Longest input.
    #[must_use]
    pub const fn max_len(self) -> usize {
        match self {
            Self::Meta => 8 << 10,
            Self::Page | Self::Node | Self::Group => 16 << 10,
            Self::Record => 4 << 10,
            Self::Log => 32 << 10,
            Self::Backup => 8 << 10,
            Self::History | Self::Database => 512,
        }
    }

    /// No single allocation may be as large: decoders take memory for what is there; a value's length sets aside no more
    /// than 16 MiB before it was seen.
    #[must_use]
    pub const fn malloc_limit_mb(self) -> u32 {
        match self {
            Self::Meta | Self::Page | Self::Node | Self::Record | Self::Group => 2,
            Self::Log => 4,
            // Opening what was restored takes as much as opening any database.
            Self::Backup | Self::History | Self::Database => 17,
        }
    }

    /// Executions in one seed of the job: about as much time for each.
    #[must_use]
    pub const fn runs(self) -> u64 {
        match self {
            Self::Record => 300_000,
            Self::Meta | Self::Group => 250_000,
            Self::Node => 150_000,
            Self::Page => 100_000,
            Self::Log => 25_000,
            Self::Backup | Self::Database => 2_000,
            Self::History => 600,
        }
    }

    /// Where its inputs are kept.
    #[must_use]
    pub fn corpus(self) -> PathBuf {
        drive::home().join("corpus").join(self.name())
    }

    /// Does with `data` what the target does.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn run(self, data: &[u8]) {
        match self {
            Self::Meta => meta(data),
            Self::Page => page(data),
            Self::Node => node(data),
            Self::Record => record(data),
            Self::Group => group(data),
            Self::Log => log(data),
            Self::Backup => backup::run(data),
            Self::History => database::hold(&edit::history(data)),
            Self::Database => database::run(data),
        }
    }
}

/// Number at a place, as stored.
fn number(data: &[u8], at: usize) -> u64 {
    let bytes = data.get(at..at + 8).unwrap_or(&[0; 8]);
    bytes
        .iter()
        .rev()
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
}

fn meta(data: &[u8]) {
    let copy = number(data, 8) % 8;
    let found = [copy, copy ^ 1, copy ^ 2].map(|copy| internals::decode_meta(data, copy).ok());
    // A page says where it lies: it cannot be the copy of several places.
    let sound = found.iter().flatten().count();
    assert!(sound <= 1, "the same bytes are {sound} copies");
    if let Some(meta) = found.iter().flatten().next() {
        assert!(meta.pages >= 4 && meta.segment_bytes.is_power_of_two());
    }
}

fn page(data: &[u8]) {
    let (id, database) = (number(data, 8), number(data, 56));
    let found = internals::decode_page(data, id, database);
    if let Ok(found) = &found {
        let mut flipped = data.to_vec();
        let bit = internals::crc32c(data) as usize % (data.len() * 8);
        if let Some(byte) = flipped.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let passed = internals::decode_page(&flipped, id, database);
        assert!(
            passed.is_err(),
            "{found:?} with bit {bit} flipped: {passed:?}"
        );
    }
    // Under a sound checksum only the header's own numbers decide.
    let mut sealed = data.to_vec();
    internals::seal_page(&mut sealed, 7, 9, DATABASE);
    let used = number(data, 28) & 0xffff_ffff;
    let sound =
        data.len() >= 64 && (1..=6).contains(&data[6]) && (64..=data.len() as u64).contains(&used);
    let passed = internals::decode_page(&sealed, 7, DATABASE);
    assert_eq!(passed.is_ok(), sound, "sealed: {passed:?}");
    assert!(internals::decode_page(&sealed, 8, DATABASE).is_err());
}

fn node(data: &[u8]) {
    let middle = data.len() / 2;
    let probes = [8, 30, 200].map(|len| data.get(middle..middle + len).unwrap_or_default());
    let found = internals::decode_node(data, &probes);
    if let Ok(found) = found {
        assert!(
            found.entries >= 1 && found.entries <= data.len() / 6,
            "{found:?}"
        );
    }
}

fn record(data: &[u8]) {
    let mut rest = data;
    while let Ok(found) = internals::decode_record(rest) {
        assert!((56..=rest.len()).contains(&found.bytes), "{found:?}");
        assert!(found.ops <= found.bytes / 2, "{found:?}");
        // What follows makes no difference; what is missing does.
        let own = &rest[..found.bytes];
        assert_eq!(internals::decode_record(own), Ok(found));
        assert!(internals::decode_record(&own[..found.bytes - 1]).is_err());
        rest = &rest[found.bytes..];
    }
}

fn group(data: &[u8]) {
    let (at, database) = (number(data, 16), number(data, 32));
    let Ok(found) = internals::decode_group(data, at, database) else {
        return;
    };
    let own = usize::try_from(found.bytes).unwrap_or(usize::MAX);
    assert!(own <= data.len() && own.is_multiple_of(4096), "{found:?}");
    assert_eq!(
        internals::decode_group(&data[..own], at, database),
        Ok(found)
    );
    assert!(internals::decode_group(&data[..own - 1], at, database).is_err());
    assert!(u64::from(found.records) <= found.bytes / 56, "{found:?}");
}

const LOG: &str = "log";

/// A disk with two segments of zeros, and their names.
fn segments() -> &'static (Image, Vec<PathBuf>) {
    static BLANK: OnceLock<(Image, Vec<PathBuf>)> = OnceLock::new();
    BLANK.get_or_init(|| {
        let disk = SimDisk::new(SimOptions::new(Image::with_dir(Path::new(LOG))));
        let names = [0, 1].map(|number| Path::new(LOG).join(format!("{number:020}.seg")));
        for name in &names {
            let file = disk.open(name, OpenMode::CreateNew);
            let made = file.and_then(|file| file.set_len(SEGMENT_BYTES as u64));
            made.expect("a disk without faults");
        }
        (disk.image(), names.to_vec())
    })
}

/// Where the logs of the inputs begin.
#[must_use]
pub const fn log_start() -> LogStart {
    LogStart {
        lsn: 0,
        checksum: 0,
        last_txn: 0,
        durable_through: 0,
        database: DATABASE,
    }
}

fn log(data: &[u8]) {
    let (blank, names) = segments();
    let mut image = blank.clone();
    for (name, bytes) in names.iter().zip(data.chunks(SEGMENT_BYTES)) {
        let mut blocks = bytes.to_vec();
        blocks.resize(bytes.len().next_multiple_of(512), 0);
        image.overwrite(name, 0, &blocks);
    }
    // The first byte behind the last whole block says how much meta knows of the log.
    let proven = data
        .get(data.len() / 4096 * 4096)
        .map_or(0, |byte| u64::from(*byte % 8) * 4096);
    let start = LogStart {
        durable_through: proven,
        ..log_start()
    };
    let scan = || {
        let disk = SimDisk::new(SimOptions::new(image.clone()));
        let found = internals::scan_log(
            std::sync::Arc::<SimDisk>::clone(&disk),
            Path::new(LOG),
            SEGMENT_BYTES as u64,
            start,
        );
        assert_eq!(disk.image().difference(&image), None, "reading wrote");
        found
    };
    let found = scan();
    assert_eq!(found, scan(), "read twice");
    if let Ok(found) = found {
        assert!(
            found.end <= data.len().next_multiple_of(4096) as u64,
            "{found:?}"
        );
        assert!(found.end >= proven, "{found:?} before {proven}");
        assert!(
            found.records >= found.groups && found.ops <= found.end,
            "{found:?}"
        );
    }
}

/// Every input kept for a target, by its name.
///
/// # Errors
/// The file system's.
pub fn corpus(target: Target) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let dir = target.corpus();
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(&dir).during(&format!("list {}", dir.display()))? {
        let path = entry.during("list a corpus")?.path();
        let bytes = std::fs::read(&path).during(&format!("read {}", path.display()))?;
        inputs.push((path.display().to_string(), bytes));
    }
    inputs.sort();
    Ok(inputs)
}
