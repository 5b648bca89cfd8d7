//! Bytes on disk to typed views and back. Does no I/O, knows no threads, caches or clocks.
//!
//! Bytes from disk are never trusted: every decoder returns an error for what it does not understand, never
//! panics, never allocates by an unchecked number. Spec: `spec/file_format_v0.md`, `spec/commit_record_v0.md`.

pub(crate) mod backup;
pub(crate) mod branch;
pub(crate) mod checksum;
pub(crate) mod few;
pub(crate) mod free;
pub(crate) mod group;
pub(crate) mod leaf;
pub(crate) mod meta;
pub(crate) mod node;
pub(crate) mod overflow;
pub(crate) mod page;
pub(crate) mod record;

use page::{Page, PageError, PageKind};

/// Checks the inside of a page once, when it enters the cache: after this, accessors that fail mean a bug.
///
/// # Errors
/// The first contradiction found.
pub(crate) fn check_node(page: Page<'_>) -> Result<(), PageError> {
    match page.kind() {
        PageKind::Leaf => leaf::Leaf::view(page)?.check(),
        PageKind::Branch => branch::Branch::view(page)?.check(),
        PageKind::Overflow => overflow::payload(page).map(|_| ()),
        PageKind::Meta | PageKind::FreeMap | PageKind::FreeDirectory => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::page::seal;
    use super::*;
    use crate::ids::{Generation, PageId};

    #[test]
    fn the_inside_of_every_kind_of_node_is_looked_at() {
        // A header and nothing else: no rows, no children, no part of a value beyond the header.
        for (kind, sound) in [(2, false), (3, false), (4, true), (5, true), (6, true)] {
            let mut bytes = vec![0; 4096];
            (bytes[6], bytes[28]) = (kind, 64);
            seal(&mut bytes, PageId::new(9), Generation::new(1), 7);
            let page = Page::verify_unreferenced(&bytes, PageId::new(9), 7).unwrap();
            assert_eq!(check_node(page).is_ok(), sound, "{page:?}");
        }
    }
}
