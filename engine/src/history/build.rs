//! A run in the making: its versions, and their filter beside them.

use std::cell::RefCell;

use super::filter::FilterBuilder;
use super::key;
use crate::format::leaf::RowValue;
use crate::format::meta::TreeRoot;
use crate::format::page::PageError;
use crate::ids::{TableId, TxnId};
use crate::pages::{PageWrite, SharedSink};
use crate::tree::bulk::Bulk;

/// See the module.
#[derive(Debug)]
pub(crate) struct RunBuilder<'s, W> {
    versions: Bulk<SharedSink<'s, W>>,
    filter: FilterBuilder<SharedSink<'s, W>>,
}

/// What was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuiltRun {
    /// The versions.
    pub(crate) tree: TreeRoot,
    /// Their filter, if there are many keys.
    pub(crate) filter: Option<TreeRoot>,
    /// Pages of both, those of large values included.
    pub(crate) pages: u64,
}

impl<'s, W: PageWrite> RunBuilder<'s, W> {
    /// Whose pages go to `sink`.
    pub(crate) fn new(sink: &'s RefCell<W>) -> Self {
        Self {
            versions: Bulk::new(SharedSink(sink), TableId::HISTORY),
            filter: FilterBuilder::new(SharedSink(sink)),
        }
    }

    /// Adds a version whose key of history is above all before it.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn push(
        &mut self,
        stored: &[u8],
        from: TxnId,
        value: RowValue<'_>,
    ) -> Result<(), PageError> {
        if let Some((packed, _)) = key::split(stored) {
            self.filter.add(packed)?;
        }
        self.versions.push(stored, from, value)
    }

    /// The run; none if nothing was pushed.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn finish(self) -> Result<Option<BuiltRun>, PageError> {
        let Some(versions) = self.versions.finish()? else {
            return Ok(None);
        };
        let filter = self.filter.finish()?;
        Ok(Some(BuiltRun {
            tree: versions.tree,
            filter: filter.map(|filter| filter.tree),
            pages: versions.pages + filter.map_or(0, |filter| filter.pages),
        }))
    }
}
