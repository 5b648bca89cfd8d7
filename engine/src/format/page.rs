//! The 64 bytes that begin every page, and the step from raw bytes to a page that may be trusted.
//!
//! Spec: FF-003, FF-004.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use northstar_io::planted::planted;

use super::checksum::crc32c;
use crate::ids::{Generation, PageId, PageRef, TableId};

/// Version of the page format.
pub(crate) const FORMAT: u16 = 0;
/// Bytes of the header: one cache line, so a hit touches one line before the heads.
pub(crate) const HEADER_BYTES: usize = size_of::<PageHeader>();

/// What a page holds. Stored: values are never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PageKind {
    /// One of the four copies of the database's root record.
    Meta = 1,
    /// Rows of a table.
    Leaf = 2,
    /// Children of a tree node.
    Branch = 3,
    /// Part of a value too large for a leaf.
    Overflow = 4,
    /// A bitmap of pages in use.
    FreeMap = 5,
    /// The list of bitmap pages.
    FreeDirectory = 6,
}

impl PageKind {
    fn from_stored(stored: u8) -> Option<Self> {
        Some(match stored {
            1 => Self::Meta,
            2 => Self::Leaf,
            3 => Self::Branch,
            4 => Self::Overflow,
            5 => Self::FreeMap,
            6 => Self::FreeDirectory,
            _ => return None,
        })
    }
}

/// Bytes 0..64 of every page. Torn by a crash: yes; `checksum` covers all that follows it.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct PageHeader {
    /// CRC-32C of bytes 4 to the end of the page.
    pub(crate) checksum: U32,
    /// [`FORMAT`]; another number is a newer or foreign file.
    pub(crate) format: U16,
    /// [`PageKind`].
    pub(crate) kind: u8,
    /// Height above the leaves: 0 for a leaf, meaningless outside trees.
    pub(crate) level: u8,
    /// The page's own id, repeated here to catch a misdirected read or write.
    pub(crate) page_id: U64,
    /// The checkpoint that wrote the page.
    pub(crate) generation: U32,
    /// The table whose tree the page belongs to.
    pub(crate) table: U32,
    /// Rows of a leaf, children of a branch, used bits or entries elsewhere.
    pub(crate) count: U16,
    /// Bytes shared by all keys of the page.
    pub(crate) prefix_bytes: U16,
    /// Bytes in use from the start of the page; what follows is zero.
    pub(crate) used_bytes: U32,
    /// Lowest txn id of any row in a leaf: the base of the rows' txn deltas.
    pub(crate) txn_min: U64,
    /// Highest txn id of any row in a leaf.
    pub(crate) txn_max: U64,
    /// Highest txn id of a delete that this leaf, or a leaf merged into it, has seen.
    pub(crate) delete_txn_max: U64,
    /// Low 64 bits of the database's id: a page of another database never passes.
    pub(crate) database: U64,
}

const _: () = assert!(size_of::<PageHeader>() == 64);

/// What reading one page can report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PageError {
    /// A torn write or bit rot.
    #[error("page {page}: checksum is {found:#010x}, header says {stored:#010x}")]
    Checksum {
        page: PageId,
        stored: u32,
        found: u32,
    },
    /// A sound page, but not the one the parent names: a lost, stale or misdirected write or read.
    #[error(
        "page {page}: parent expects checksum {expected:#010x} of {generation:?}, found {found:#010x} of {found_generation:?}"
    )]
    Stale {
        page: PageId,
        expected: u32,
        generation: Generation,
        found: u32,
        found_generation: Generation,
    },
    /// A sound page from another address.
    #[error("page {wanted}: header says it is page {found}")]
    Misdirected { wanted: PageId, found: PageId },
    /// A sound page of another database.
    #[error("page {page}: belongs to database {found:#018x}, expected {expected:#018x}")]
    Foreign {
        page: PageId,
        expected: u64,
        found: u64,
    },
    /// A page of a newer format.
    #[error("page {page}: format is {found}, this build reads up to {FORMAT}")]
    Format { page: PageId, found: u16 },
    /// A page of another kind than its place in the structure demands.
    #[error("page {page}: kind is {found}, expected {expected:?}")]
    Kind {
        page: PageId,
        expected: PageKind,
        found: u8,
    },
    /// A page whose checksum holds but whose inside contradicts itself.
    #[error("page {page}: {what} is {found}, expected {expected}")]
    Structure {
        page: PageId,
        what: &'static str,
        found: u64,
        expected: u64,
    },
    /// A page id beyond the end of the file or of the format.
    #[error("page {page}: beyond the file, which has {pages} pages")]
    OutOfRange { page: PageId, pages: u64 },
    /// The device did not deliver.
    #[error("page {page}: {source}")]
    Io {
        page: PageId,
        source: northstar_io::IoError,
    },
}

/// A page whose checksum, address, database and kind have been checked. Only this type has accessors.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a> {
    bytes: &'a [u8],
}

impl std::fmt::Debug for Page<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = self.header();
        write!(
            f,
            "{:?} {:?} level {} count {}",
            self.id(),
            self.kind(),
            header.level,
            header.count
        )
    }
}

impl<'a> Page<'a> {
    /// Checks `bytes` as read from the address that `wanted` names.
    ///
    /// # Errors
    /// Whatever contradicts `wanted`: checksum, generation, address, database, format or kind.
    pub(crate) fn verify(
        bytes: &'a [u8],
        wanted: PageRef,
        database: u64,
    ) -> Result<Self, PageError> {
        let page = Self::verify_unreferenced(bytes, wanted.id, database)?;
        let header = page.header();
        let (found, found_generation) = (
            header.checksum.get(),
            Generation::new(header.generation.get()),
        );
        let unchecked = planted("a page's generation is not checked against its parent");
        if !unchecked && (found != wanted.checksum || found_generation != wanted.generation) {
            return Err(PageError::Stale {
                page: wanted.id,
                expected: wanted.checksum,
                generation: wanted.generation,
                found,
                found_generation,
            });
        }
        Ok(page)
    }

    /// Checks `bytes` for a page that no parent names (a meta page), or whose parent is not at hand.
    ///
    /// # Errors
    /// Whatever contradicts itself: checksum, address, database, format or kind.
    pub(crate) fn verify_unreferenced(
        bytes: &'a [u8],
        page: PageId,
        database: u64,
    ) -> Result<Self, PageError> {
        let Ok((header, rest)) = PageHeader::ref_from_prefix(bytes) else {
            return Err(PageError::Structure {
                page,
                what: "length in bytes",
                found: bytes.len() as u64,
                expected: HEADER_BYTES as u64,
            });
        };
        let (stored, found) = (
            header.checksum.get(),
            crc32c(bytes.get(4..).unwrap_or_default()),
        );
        if stored != found && !planted("a page's checksum is not checked") {
            return Err(PageError::Checksum {
                page,
                stored,
                found,
            });
        }
        if header.format.get() != FORMAT {
            return Err(PageError::Format {
                page,
                found: header.format.get(),
            });
        }
        if header.database.get() != database {
            return Err(PageError::Foreign {
                page,
                expected: database,
                found: header.database.get(),
            });
        }
        if header.page_id.get() != page.get() {
            return Err(PageError::Misdirected {
                wanted: page,
                found: PageId::new(header.page_id.get()),
            });
        }
        if PageKind::from_stored(header.kind).is_none() {
            return Err(PageError::Structure {
                page,
                what: "kind",
                found: u64::from(header.kind),
                expected: PageKind::Leaf as u64,
            });
        }
        let used = header.used_bytes.get() as usize;
        if used < HEADER_BYTES || used > HEADER_BYTES + rest.len() {
            return Err(PageError::Structure {
                page,
                what: "bytes in use",
                found: used as u64,
                expected: bytes.len() as u64,
            });
        }
        Ok(Self { bytes })
    }

    /// Takes bytes that were verified when they entered the cache.
    #[inline]
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        debug_assert!(bytes.len() >= HEADER_BYTES, "a frame holds a whole page");
        Self { bytes }
    }

    /// The whole page.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The fixed part.
    #[inline]
    pub(crate) fn header(self) -> &'a PageHeader {
        match PageHeader::ref_from_prefix(self.bytes) {
            Ok((header, _)) => header,
            Err(_) => unreachable!("a Page is made only from at least {HEADER_BYTES} bytes"),
        }
    }

    /// What the page holds.
    pub(crate) fn kind(self) -> PageKind {
        PageKind::from_stored(self.header().kind).unwrap_or(PageKind::Meta)
    }

    /// Where the page lives.
    pub(crate) fn id(self) -> PageId {
        PageId::new(self.header().page_id.get())
    }

    /// The table whose tree the page belongs to.
    pub(crate) fn table(self) -> TableId {
        TableId::new(self.header().table.get())
    }

    /// How a parent names this page.
    pub(crate) fn reference(self) -> PageRef {
        let header = self.header();
        PageRef {
            id: self.id(),
            checksum: header.checksum.get(),
            generation: Generation::new(header.generation.get()),
        }
    }

    /// Fails unless the page is of `kind`.
    ///
    /// # Errors
    /// [`PageError::Kind`].
    #[inline]
    pub(crate) fn expect(self, kind: PageKind) -> Result<Self, PageError> {
        if self.header().kind == kind as u8 {
            return Ok(self);
        }
        Err(PageError::Kind {
            page: self.id(),
            expected: kind,
            found: self.header().kind,
        })
    }
}

/// Completes a built page: writes id, generation and database into its header, then the checksum over it all.
///
/// `bytes` is a whole page with every other header field already set and all unused bytes zero.
pub(crate) fn seal(bytes: &mut [u8], id: PageId, generation: Generation, database: u64) -> PageRef {
    let checksum = {
        let Ok((header, _)) = PageHeader::mut_from_prefix(bytes) else {
            unreachable!("a built page is longer than its header");
        };
        header.format = FORMAT.into();
        header.page_id = id.get().into();
        header.generation = generation.get().into();
        header.database = database.into();
        crc32c(bytes.get(4..).unwrap_or_default())
    };
    if let Some(stored) = bytes.get_mut(..4) {
        stored.copy_from_slice(&checksum.to_le_bytes());
    }
    PageRef {
        id,
        checksum,
        generation,
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    const DATABASE: u64 = 77;

    fn sealed(len: usize, used: usize) -> (Vec<u8>, PageRef) {
        let mut bytes = vec![0; len];
        bytes[6] = PageKind::Leaf as u8;
        bytes[20..24].copy_from_slice(&17_u32.to_le_bytes());
        bytes[28..32].copy_from_slice(&u32::try_from(used).unwrap().to_le_bytes());
        let page = seal(&mut bytes, PageId::new(9), Generation::new(3), DATABASE);
        (bytes, page)
    }

    fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), PageError> {
        let (mut bytes, _) = sealed(4096, 4096);
        change(&mut bytes);
        let checksum = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        Page::verify_unreferenced(&bytes, PageId::new(9), DATABASE).map(|_| ())
    }

    #[test]
    fn a_page_is_believed_only_as_what_its_parent_names() {
        let (bytes, named) = sealed(4096, 64);
        let page = Page::verify(&bytes, named, DATABASE).unwrap();
        assert_eq!((page.reference(), page.id()), (named, PageId::new(9)));
        assert_eq!(
            (page.kind(), page.table()),
            (PageKind::Leaf, TableId::new(17))
        );
        assert_eq!(page.bytes(), bytes);
        assert!(page.expect(PageKind::Leaf).is_ok());
        let wrong_kind = page.expect(PageKind::Branch).unwrap_err();
        assert!(matches!(wrong_kind, PageError::Kind { found: 2, .. }));

        let refused = |wanted, database| Page::verify(&bytes, wanted, database).unwrap_err();
        let checksum = named.checksum ^ 1;
        let (id, generation) = (PageId::new(8), Generation::new(4));
        let stale = |error: &PageError| matches!(error, PageError::Stale { .. });
        assert!(stale(&refused(PageRef { checksum, ..named }, DATABASE)));
        assert!(stale(&refused(
            PageRef {
                generation,
                ..named
            },
            DATABASE
        )));
        assert!(matches!(
            refused(PageRef { id, ..named }, DATABASE),
            PageError::Misdirected { .. }
        ));
        assert!(matches!(refused(named, 78), PageError::Foreign { .. }));
    }

    #[test]
    fn what_contradicts_itself_under_a_sound_checksum_is_refused() {
        assert_eq!(resealed(|_| ()), Ok(()));
        let format = resealed(|bytes| bytes[4] = 1).unwrap_err();
        assert!(matches!(format, PageError::Format { found: 1, .. }));
        for kind in [0, 7, 255] {
            let error = resealed(|bytes| bytes[6] = kind).unwrap_err();
            assert!(matches!(error, PageError::Structure { what: "kind", .. }));
        }
        for kind in 1..=6 {
            assert_eq!(resealed(|bytes| bytes[6] = kind), Ok(()));
        }
        for (used, sound) in [
            (0, false),
            (63, false),
            (64, true),
            (4096, true),
            (4097, false),
        ] {
            let (bytes, _) = sealed(4096, used);
            let page = Page::verify_unreferenced(&bytes, PageId::new(9), DATABASE);
            assert_eq!(page.is_ok(), sound, "{used} bytes in use");
        }
    }

    #[test]
    fn torn_and_cut_pages_are_refused() {
        let (bytes, _) = sealed(4096, 4096);
        for at in [0, 4, 63, 64, 4095] {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            let error = Page::verify_unreferenced(&torn, PageId::new(9), DATABASE).unwrap_err();
            assert!(matches!(error, PageError::Checksum { .. }), "byte {at}");
        }
        let (header, _) = sealed(HEADER_BYTES, HEADER_BYTES);
        assert!(Page::verify_unreferenced(&header, PageId::new(9), DATABASE).is_ok());
        let cut = Page::verify_unreferenced(&header[..63], PageId::new(9), DATABASE);
        assert!(matches!(
            cut.unwrap_err(),
            PageError::Structure { found: 63, .. }
        ));
    }
}
