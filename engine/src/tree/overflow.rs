//! Reading values that live in pages of their own.

use crate::format::node::structure;
use crate::format::overflow::{ExtentChecksum, ExtentRef, payload, payload_bytes};
use crate::format::page::{HEADER_BYTES, PageError};
use crate::ids::Generation;
use crate::pages::{Class, PageRead};

/// Reads the value of an extent.
///
/// The length in `extent` comes from a verified leaf row; memory grows with the pages actually read, so a wrong
/// length costs no more than the file holds.
///
/// # Errors
/// A page that cannot be read, belongs to another value, or does not hold what the row promises.
pub(crate) fn read_extent<P: PageRead>(
    pages: &P,
    extent: &ExtentRef,
    page_bytes: usize,
    class: Class,
) -> Result<Vec<u8>, PageError> {
    let len = extent.value_len as usize;
    let page_payload = payload_bytes(page_bytes);
    let mut value = Vec::with_capacity(len.min(RESERVE_BYTES_MAX));
    let mut checksum = ExtentChecksum::default();
    pages.read_run(
        extent.first,
        extent.page_count(page_bytes),
        class,
        &mut |page| {
            let part = payload(page)?;
            let generation = Generation::new(page.header().generation.get());
            let expected = page_payload.min(len - value.len());
            if generation != extent.generation {
                let (found, wanted) = (generation.get(), extent.generation.get());
                return Err(structure(
                    page,
                    "extent generation",
                    found.into(),
                    wanted.into(),
                ));
            }
            if part.len() != expected {
                return Err(structure(
                    page,
                    "extent part",
                    part.len() as u64,
                    expected as u64,
                ));
            }
            checksum.add(page.header().checksum.get());
            value.extend_from_slice(part);
            Ok(())
        },
    )?;
    let fault = |what, found: u64, expected: u64| {
        Err(PageError::Structure {
            page: extent.first,
            what,
            found,
            expected,
        })
    };
    if value.len() != len {
        return fault("extent length", value.len() as u64, len as u64);
    }
    if checksum.finish() != extent.checksum {
        return fault(
            "extent checksum",
            checksum.finish().into(),
            extent.checksum.into(),
        );
    }
    Ok(value)
}

/// Most memory set aside before the first page of an extent was seen.
const RESERVE_BYTES_MAX: usize = 16 * 1024 * 1024 + HEADER_BYTES;
