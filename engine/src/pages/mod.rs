//! Pages as a store: reading through the cache, writing by checkpoints, meta slots, free space.
//! Knows pages, not keys. The traits here are what trees ask of the store.

mod alloc;
mod free;
pub(crate) mod metas;
pub(crate) mod store;
pub(crate) mod write;

use std::cell::RefCell;

use crate::format::page::{Page, PageError};
use crate::ids::{PageId, PageRef};

pub(crate) use crate::cache::{Class, Link, View};

/// Reading side of the store, as trees see it.
pub(crate) trait PageRead {
    /// An epoch guard. Held for one get or one leaf step, never across I/O or user code.
    type Guard<'a>
    where
        Self: 'a;
    /// A page held by count for as long as its owner likes.
    type Pin<'a>: PagePin
    where
        Self: 'a;

    /// Enters an epoch.
    fn enter(&self) -> Self::Guard<'_>;
    /// The page, if resident. No I/O, no lock, no allocation.
    fn try_view<'g>(
        &self,
        guard: &'g Self::Guard<'_>,
        page: PageRef,
        link: Option<Link>,
    ) -> Option<View<'g>>;
    /// Turns a view into a counted pin.
    fn pin<'a>(&'a self, view: View<'_>) -> Self::Pin<'a>;
    /// The page, read and verified if need be. May block for I/O: no guard may be held.
    fn load(&self, page: PageRef, class: Class) -> Result<Self::Pin<'_>, PageError>;
    /// Starts reading pages that will be asked for soon. May do nothing.
    fn prefetch(&self, pages: &[PageRef], class: Class);
    /// Reads `count` neighbouring pages that no parent names one by one (an overflow extent), and hands them to
    /// `each` in order. Every page is verified in itself; `each` compares generation and checksums with the row
    /// that names the run. May block for I/O: no guard may be held.
    fn read_run(
        &self,
        first: PageId,
        count: u32,
        class: Class,
        each: &mut dyn FnMut(Page<'_>) -> Result<(), PageError>,
    ) -> Result<(), PageError>;
}

/// A page held by count.
pub(crate) trait PagePin {
    /// The page.
    fn page(&self) -> Page<'_>;
    /// The frame that holds it, if it is in the cache.
    fn frame(&self) -> Option<u32>;
}

impl<W: PageWrite> PageWrite for &mut W {
    fn page_bytes(&self) -> usize {
        (**self).page_bytes()
    }

    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        (**self).write(page)
    }

    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError> {
        (**self).write_extent(pages)
    }

    fn supersede(&mut self, page: PageId) {
        (**self).supersede(page);
    }

    fn retire(&mut self, first: PageId, count: u32) -> Result<(), PageError> {
        (**self).retire(first, count)
    }
}

/// A sink that several trees are written to by turns.
#[derive(Debug)]
pub(crate) struct SharedSink<'s, W>(pub(crate) &'s RefCell<W>);

impl<W: PageWrite> PageWrite for SharedSink<'_, W> {
    fn page_bytes(&self) -> usize {
        self.0.borrow().page_bytes()
    }

    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        self.0.borrow_mut().write(page)
    }

    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError> {
        self.0.borrow_mut().write_extent(pages)
    }

    fn supersede(&mut self, page: PageId) {
        self.0.borrow_mut().supersede(page);
    }

    fn retire(&mut self, first: PageId, count: u32) -> Result<(), PageError> {
        self.0.borrow_mut().retire(first, count)
    }
}

/// Writing side of the store, as `tree::merge` sees it. Pages get their ids here, in writing order.
pub(crate) trait PageWrite {
    /// Bytes of a page.
    fn page_bytes(&self) -> usize;
    /// Seals a built page (all but id, generation, database, checksum is set) and takes it for writing.
    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError>;
    /// The same for pages that must be neighbours on disk, at ascending ids: an overflow extent.
    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError>;
    /// Says that what follows is written in place of this node, which will be retired.
    fn supersede(&mut self, page: PageId);
    /// Says that the new tree no longer uses `count` pages from `first` on. An error if they are not in use, or no more: whoever
    /// walks a tree whose branches share children ends with it.
    fn retire(&mut self, first: PageId, count: u32) -> Result<(), PageError>;
}
