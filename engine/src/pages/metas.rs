//! The meta slots: which of four copies to believe, and how a new one is written.
//!
//! Slot A is pages 0 and 2, slot B pages 1 and 3. A crash while a slot is written leaves the other slot whole, and
//! losing any one page loses nothing. Spec: FF-010, CC-020.

use std::path::Path;

use northstar_io::planted::planted;
use northstar_io::{Buf, File, IoError};

use crate::error::{Corruption, Error, Result};
use crate::format::meta::{Meta, MetaError};
use crate::format::page::seal;
use crate::ids::PageId;
use crate::limits::{PAGE_BYTES_MAX, PAGE_BYTES_MIN};
use crate::marks::{Mark, reached};

/// What the slots say.
#[derive(Debug)]
pub(crate) struct Found {
    /// The newest sound meta page.
    pub(crate) meta: Meta,
    /// That of the other slot, if it is sound and of the same database.
    pub(crate) older: Option<Meta>,
    /// Copies that are not sound, and those of an earlier generation beside the newest: see [`mend`].
    pub(crate) unfit: Vec<PageId>,
}

/// Reads all copies and picks the newest.
///
/// # Errors
/// [`Error::NotADatabase`], [`Error::NewerFormat`], [`Error::Corrupt`] when no copy is sound, [`Error::Io`].
pub(crate) fn read(file: &dyn File, dir: &Path) -> Result<Found> {
    let len = file.len().map_err(Error::Io)?;
    let mut sound: Vec<(PageId, Meta)> = Vec::new();
    let mut worst: Option<MetaError> = None;
    let mut recognised = false;
    let mut unfit = Vec::new();
    for page_bytes in page_sizes(file, len)? {
        for slot in 0..4_u64 {
            let page = PageId::new(slot);
            let Some(bytes) = read_copy(file, len, slot * u64::from(page_bytes), page_bytes)?
            else {
                continue;
            };
            recognised |= Meta::is_meta(&bytes);
            match Meta::decode(&bytes, page) {
                Ok(meta) => sound.push((page, meta)),
                Err(error) => {
                    unfit.push(page);
                    worst = Some(graver(worst, error));
                }
            }
        }
        if !sound.is_empty() {
            break;
        }
        unfit.clear();
    }
    let newest = sound.iter().map(|(_, meta)| meta.generation).max();
    let Some(at) = sound
        .iter()
        .position(|(_, meta)| Some(meta.generation) == newest)
    else {
        return Err(refusal(dir, len, recognised, worst));
    };
    if let Some(error @ (MetaError::Format { .. } | MetaError::Feature { .. })) = worst {
        // A newer version has written one slot: the other one is not the truth any more.
        return Err(refusal(dir, len, true, Some(error)));
    }
    let (_, meta) = sound.swap_remove(at);
    let (beside, others): (Vec<_>, Vec<_>) = sound
        .into_iter()
        .partition(|(page, _)| in_slot_of(&meta, *page));
    let differs =
        |other: &Meta| (other.generation, other.database) != (meta.generation, meta.database);
    let stale = beside.into_iter().filter(|(_, other)| differs(other));
    unfit.extend(stale.map(|(page, _)| page));
    // An earlier copy in the newest's own slot would be written over together with it.
    let older = others
        .into_iter()
        .map(|(_, other)| other)
        .filter(|other| other.generation < meta.generation && other.database == meta.database)
        .max_by_key(|other| other.generation);
    Ok(Found { meta, older, unfit })
}

/// Copies that are sound, of four, each of any generation of the database of `newest`.
pub(crate) fn sound_copies(file: &dyn File, newest: &Meta) -> Result<u64> {
    let len = file.len().map_err(Error::Io)?;
    let is_sound = |slot: &u64| {
        let offset = slot * u64::from(newest.page_bytes);
        let found = read_copy(file, len, offset, newest.page_bytes);
        let meta = found.ok().flatten();
        let meta = meta.and_then(|bytes| Meta::decode(&bytes, PageId::new(*slot)).ok());
        meta.is_some_and(|meta| meta.database == newest.database)
    };
    Ok((0..4).filter(is_sound).count() as u64)
}

/// Whether that copy belongs to the slot of `meta`.
fn in_slot_of(meta: &Meta, copy: PageId) -> bool {
    copy.get() % 2 == u64::from(meta.generation.get() % 2)
}

/// Mends copies that are not fit to stay, to be followed by a sync before anything is built: those of the slot of
/// `newest` become like it, the others blank.
///
/// A torn one may be of a generation that was never finished and whose pages will be given out again. Most of a meta page
/// is the same in every generation: if the next writing of the slot is torn as well, the part of it that arrives can be
/// just what the old copy lacks, and make that sound. A blank one may be blank in the system's memory alone. One of an
/// earlier generation names pages that nobody holds back for it.
pub(crate) fn mend(file: &dyn File, unfit: &[PageId], newest: &Meta) -> Result<(), IoError> {
    let page_bytes = newest.page_bytes as usize;
    for page in unfit {
        if planted("a torn copy of a meta page is not mended") {
            break;
        }
        reached(Mark::MetaMended);
        let mut buf = Buf::zeroed(page_bytes);
        if in_slot_of(newest, *page) {
            fill(&mut buf, *page, newest);
        }
        file.write_at(page.get() * page_bytes as u64, &buf, page_bytes)?;
    }
    Ok(())
}

fn fill(buf: &mut [u8], page: PageId, meta: &Meta) {
    meta.encode(buf);
    seal(buf, page, meta.generation, meta.database_low());
}

/// The page size that the file's start claims; every possible one if its start is damaged.
fn page_sizes(file: &dyn File, len: u64) -> Result<Vec<u32>> {
    let all = || {
        std::iter::successors(Some(PAGE_BYTES_MIN), |size| Some(size * 2))
            .take_while(|size| *size <= PAGE_BYTES_MAX)
    };
    let first = read_copy(file, len, 0, PAGE_BYTES_MIN)?;
    let claimed = first.as_deref().and_then(Meta::claimed_page_bytes);
    let mut sizes: Vec<u32> = all().filter(|size| Some(*size) == claimed).collect();
    sizes.extend(all().filter(|size| Some(*size) != claimed));
    Ok(sizes)
}

fn read_copy(file: &dyn File, len: u64, offset: u64, page_bytes: u32) -> Result<Option<Buf>> {
    if offset + u64::from(page_bytes) > len {
        return Ok(None);
    }
    let mut buf = Buf::zeroed(page_bytes as usize);
    match file.read_at(offset, &mut buf) {
        Ok(()) => Ok(Some(buf)),
        // One unreadable copy is like a damaged one; the others decide.
        Err(error) if error.errno != IoError::END_OF_FILE && offset > 0 => Ok(None),
        Err(error) => Err(Error::Io(error)),
    }
}

fn graver(so_far: Option<MetaError>, error: MetaError) -> MetaError {
    let gravity = |error: &MetaError| match error {
        MetaError::Foreign => 0,
        MetaError::Damaged { .. } => 1,
        MetaError::Format { .. } | MetaError::Feature { .. } => 2,
    };
    match so_far {
        Some(known) if gravity(&known) >= gravity(&error) => known,
        _ => error,
    }
}

fn refusal(dir: &Path, len: u64, recognised: bool, worst: Option<MetaError>) -> Error {
    let path = dir.join("data");
    match worst {
        Some(error @ (MetaError::Format { .. } | MetaError::Feature { .. })) => {
            Error::NewerFormat {
                path,
                why: error.to_string(),
            }
        }
        Some(error) if recognised => Error::Corrupt(Corruption {
            file: "data",
            offset: Some(0),
            detail: format!("none of the four meta pages is sound: {error}"),
        }),
        Some(error) => Error::NotADatabase {
            path,
            why: error.to_string(),
        },
        None => Error::NotADatabase {
            path,
            why: format!("the file has {len} bytes, too few for a meta page"),
        },
    }
}

/// Writes both copies of the slot of `meta.generation`, syncs, reads them back and compares.
///
/// # Errors
/// Afterwards it is unknown which generation the disk holds. Never [`Error::Full`], so that nobody goes on.
pub(crate) fn write(file: &dyn File, meta: &Meta) -> Result<()> {
    let page_bytes = meta.page_bytes as usize;
    let mut first = u64::from(meta.generation.get() % 2);
    if planted("the newest meta slot is written over") {
        first = 0;
    }
    let copies = [first, first + 2];
    let mut written = Vec::with_capacity(copies.len());
    for page in copies {
        let mut buf = Buf::zeroed(page_bytes);
        fill(&mut buf, PageId::new(page), meta);
        file.write_at(page * page_bytes as u64, &buf, page_bytes)
            .map_err(Error::Io)?;
        written.push((page, buf));
    }
    file.sync().map_err(Error::Io)?;
    let mut back = Buf::zeroed(page_bytes);
    for (page, buf) in written {
        let offset = page * page_bytes as u64;
        file.read_at(offset, &mut back).map_err(Error::Io)?;
        if back[..] != buf[..] {
            reached(Mark::MetaUnread);
            return Err(Error::Corrupt(Corruption {
                file: "data",
                offset: Some(offset),
                detail: format!("meta page {page} reads back other than it was written"),
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use northstar_io::sim::{Fault, FaultPlan, Image, Rule, SimDisk, SimOptions, What};
    use northstar_io::{Disk, MemoryDisk, OpenMode};

    use super::*;
    use crate::format::meta::tests::sample;

    fn file() -> Arc<dyn File> {
        let disk = MemoryDisk::new();
        disk.open(Path::new("data"), OpenMode::CreateNew).unwrap()
    }

    fn generations(file: &dyn File) -> (u32, Option<u32>) {
        let metas = read(file, Path::new("dir")).unwrap();
        let older = metas.older.map(|older| older.generation.get());
        (metas.meta.generation.get(), older)
    }

    #[test]
    fn the_older_meta_is_the_newest_below_the_newest() {
        // A kill between the copies of generation 19, then a whole 20: the copies say 20, 19, 20, 17.
        let file = file();
        for generation in [17, 19] {
            write(&*file, &sample(generation)).unwrap();
            if generation == 17 {
                continue;
            }
            let mut kept = Buf::zeroed(4096);
            let mut seventeen = sample(17);
            seventeen.page_bytes = 4096;
            seventeen.encode(&mut kept);
            seal(
                &mut kept,
                PageId::new(3),
                seventeen.generation,
                seventeen.database_low(),
            );
            file.write_at(3 * 4096, &kept, 4096).unwrap();
        }
        write(&*file, &sample(20)).unwrap();
        assert_eq!(generations(&*file), (20, Some(19)));
    }

    /// Writes a page that lies in the file as it would be in a generation.
    fn put(file: &dyn File, page: u64, generation: u32) {
        let (mut meta, mut buf) = (sample(generation), Buf::zeroed(4096));
        meta.page_bytes = 4096;
        fill(&mut buf, PageId::new(page), &meta);
        file.write_at(page * 4096, &buf, 4096).unwrap();
    }

    #[test]
    fn an_earlier_copy_beside_the_newest_is_no_older_slot() {
        // A power cut amid generation 19, after one that tore both copies of 18.
        let file = file();
        put(&*file, 1, 17);
        put(&*file, 3, 19);
        assert_eq!(generations(&*file), (19, None));
    }

    #[test]
    fn copies_that_are_not_fit_to_stay_are_mended() {
        let file = file();
        put(&*file, 0, 18);
        put(&*file, 1, 19);
        put(&*file, 3, 17);
        let mut torn = Buf::zeroed(4096);
        torn[..512].fill(7);
        file.write_at(2 * 4096, &torn, 4096).unwrap();
        for _ in 0..2 {
            // The other slot's copy is blank from the first time on, and still not to be trusted.
            let found = read(&*file, Path::new("dir")).unwrap();
            mend(&*file, &found.unfit, &found.meta).unwrap();
            let mut copies = Buf::zeroed(4 * 4096);
            file.read_at(0, &mut copies).unwrap();
            assert!(copies[2 * 4096..3 * 4096].iter().all(|byte| *byte == 0));
            let beside = Meta::decode(&copies[3 * 4096..], PageId::new(3)).unwrap();
            assert_eq!(
                beside.generation.get(),
                19,
                "the earlier copy beside the newest"
            );
            assert_eq!(generations(&*file), (19, Some(18)));
            assert_eq!(found.unfit.first(), Some(&PageId::new(2)));
        }
        let found = read(&*file, Path::new("dir")).unwrap();
        assert_eq!(found.unfit, [PageId::new(2)], "both copies of 19 are alike");
    }

    #[test]
    fn a_meta_slot_torn_at_any_sector_falls_back_to_the_other() {
        for newest in [6, 7] {
            let file = file();
            write(&*file, &sample(newest - 1)).unwrap();
            write(&*file, &sample(newest)).unwrap();
            assert_eq!(generations(&*file), (newest, Some(newest - 1)));
            let mut before = Buf::zeroed(4 * 4096);
            file.read_at(0, &mut before).unwrap();
            // The next generation goes over the older slot and tears at every sector of either copy.
            write(&*file, &sample(newest + 1)).unwrap();
            let mut after = Buf::zeroed(4 * 4096);
            file.read_at(0, &mut after).unwrap();
            for copies_torn in [1, 2] {
                for sectors in 0..8 {
                    let mut torn = Buf::zeroed(4 * 4096);
                    torn.copy_from_slice(&after);
                    let slot = (newest as usize + 1) % 2;
                    for copy in [slot, slot + 2].into_iter().rev().take(copies_torn) {
                        let from = copy * 4096 + sectors * 512;
                        let to = (copy + 1) * 4096;
                        torn[from..to].copy_from_slice(&before[from..to]);
                    }
                    file.write_at(0, &torn, torn.len()).unwrap();
                    // All that a meta page says fits its first sector; the rest of the page is zero.
                    let whole = copies_torn == 1 || sectors > 0;
                    let expected = if whole {
                        (newest + 1, Some(newest))
                    } else {
                        (newest, Some(newest - 1))
                    };
                    assert_eq!(generations(&*file), expected, "{copies_torn} {sectors}");
                }
            }
        }
    }

    #[test]
    fn one_rotten_copy_of_four_changes_nothing_and_a_rotten_slot_falls_back() {
        let file = file();
        write(&*file, &sample(6)).unwrap();
        write(&*file, &sample(7)).unwrap();
        let rot = |copy: u64| {
            let mut page = Buf::zeroed(4096);
            file.read_at(copy * 4096, &mut page).unwrap();
            page[4000] ^= 1;
            file.write_at(copy * 4096, &page, 4096).unwrap();
        };
        rot(3);
        assert_eq!(generations(&*file), (7, Some(6)));
        rot(1);
        assert_eq!(generations(&*file), (6, None));
        rot(0);
        assert_eq!(generations(&*file), (6, None));
        rot(2);
        let error = read(&*file, Path::new("dir")).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
    }

    #[test]
    fn any_page_size_is_found_without_being_told() {
        for shift in 12..=16 {
            let file = file();
            for generation in [6, 7] {
                let mut meta = sample(generation);
                meta.page_bytes = 1 << shift;
                write(&*file, &meta).unwrap();
            }
            assert_eq!(generations(&*file), (7, Some(6)), "{shift}");
            assert_eq!(
                read(&*file, Path::new("dir")).unwrap().meta.page_bytes,
                1 << shift
            );
        }
    }

    #[test]
    fn a_foreign_file_is_told_from_a_damaged_one() {
        let file = file();
        let not_ours = |file: &dyn File| {
            matches!(
                read(file, Path::new("dir")),
                Err(Error::NotADatabase { .. })
            )
        };
        assert!(not_ours(&*file), "an empty file");
        let mut other = Buf::zeroed(8192);
        other.fill(b'x');
        file.write_at(0, &other, 8192).unwrap();
        assert!(not_ours(&*file));
    }

    #[test]
    fn a_slot_of_another_database_is_nothing_to_fall_back_to() {
        let file = file();
        let mut other = sample(18);
        other.database ^= 1 << 100;
        write(&*file, &other).unwrap();
        write(&*file, &sample(19)).unwrap();
        assert_eq!(generations(&*file), (19, None));
    }

    #[test]
    fn a_copy_at_the_very_end_of_the_file_counts() {
        let file = file();
        put(&*file, 0, 6);
        put(&*file, 1, 7);
        assert_eq!(file.len().unwrap(), 2 * 4096);
        assert_eq!(generations(&*file), (7, Some(6)));
    }

    /// Four copies, then one reading that fails.
    fn misread(reading: u64, errno: i32) -> Result<(u32, Option<u32>)> {
        let rule = Rule {
            what: What::Read,
            file: None,
            after: reading,
            sticky: false,
            fault: Fault::Error(errno),
        };
        let disk = SimDisk::new(SimOptions {
            faults: FaultPlan {
                rules: vec![rule],
                ..FaultPlan::default()
            },
            ..SimOptions::new(Image::with_dir(Path::new("dir")))
        });
        let file = disk
            .open(Path::new("dir/data"), OpenMode::CreateNew)
            .unwrap();
        for (page, generation) in [(0, 6), (2, 6), (1, 7), (3, 7)] {
            put(&*file, page, generation);
        }
        read(&*file, Path::new("dir")).map(|found| {
            let older = found.older.map(|older| older.generation.get());
            (found.meta.generation.get(), older)
        })
    }

    #[test]
    fn one_unreadable_copy_is_like_a_damaged_one_unless_it_is_the_first() {
        // The first page is read for its page size, and then as a copy.
        for first in [0, 1] {
            assert!(matches!(misread(first, 5), Err(Error::Io(error)) if error.errno == 5));
        }
        for other in 2..=5 {
            assert_eq!(misread(other, 5).unwrap(), (7, Some(6)), "{other}");
        }
        let end = misread(3, IoError::END_OF_FILE);
        assert!(
            matches!(end, Err(Error::Io(_))),
            "the file has changed meanwhile: {end:?}"
        );
    }

    #[test]
    fn the_gravest_of_many_faults_is_told_and_of_equal_ones_the_first() {
        let damaged = |found| MetaError::Damaged {
            page: PageId::new(0),
            what: "what",
            found,
            expected: 0,
        };
        let (foreign, newer) = (MetaError::Foreign, MetaError::Format { found: 9 });
        let feature = MetaError::Feature { bit: 5 };
        let gravest = |errors: &[&MetaError]| {
            let all = errors.iter().copied().cloned();
            all.fold(None, |worst, error| Some(graver(worst, error)))
        };
        let (first, second) = (damaged(1), damaged(2));
        assert_eq!(gravest(&[&foreign, &first, &second]), Some(first.clone()));
        assert_eq!(gravest(&[&first, &foreign]), Some(first.clone()));
        assert_eq!(
            gravest(&[&first, &newer, &second, &feature]),
            Some(newer.clone())
        );
        assert_eq!(gravest(&[&feature, &newer]), Some(feature));

        let told = |recognised, error: &MetaError| {
            refusal(Path::new("dir"), 9, recognised, Some(error.clone())).to_string()
        };
        assert!(told(true, &newer).contains("file format 9"));
        assert!(told(true, &first).contains("none of the four meta pages is sound"));
        assert!(told(false, &first).contains("what is 0x1"));
        let nothing = refusal(Path::new("dir"), 9, false, None).to_string();
        assert!(nothing.contains("9 bytes"), "{nothing}");
    }

    #[test]
    fn a_slot_of_a_newer_version_makes_the_other_one_no_truth() {
        let file = file();
        write(&*file, &sample(6)).unwrap();
        write(&*file, &sample(7)).unwrap();
        let mut page = Buf::zeroed(4096);
        file.read_at(4096, &mut page).unwrap();
        page[64 + 16] = 9;
        let checksum = crate::format::checksum::crc32c(&page[4..]);
        page[..4].copy_from_slice(&checksum.to_le_bytes());
        file.write_at(4096, &page, 4096).unwrap();
        let refused = read(&*file, Path::new("dir")).unwrap_err();
        assert!(matches!(refused, Error::NewerFormat { .. }), "{refused}");
    }

    #[test]
    fn a_slot_that_reads_back_other_than_it_was_written_is_an_error() {
        for copy in 0..2 {
            let rule = Rule {
                what: What::Read,
                file: None,
                after: copy,
                sticky: false,
                fault: Fault::Flipped(12_345),
            };
            let disk = SimDisk::new(SimOptions {
                faults: FaultPlan {
                    rules: vec![rule],
                    ..FaultPlan::default()
                },
                ..SimOptions::new(Image::with_dir(Path::new("dir")))
            });
            let file = disk
                .open(Path::new("dir/data"), OpenMode::CreateNew)
                .unwrap();
            let error = write(&*file, &sample(7)).unwrap_err();
            let offset = Some((1 + 2 * copy) * 4096);
            assert!(
                matches!(&error, Error::Corrupt(at) if at.offset == offset),
                "{error}"
            );
        }
    }
}
