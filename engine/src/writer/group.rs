//! The open group: records that are applied and wait for the log.

use std::sync::Arc;

use super::wait::Ticket;
use crate::ids::TxnId;
use crate::log::GroupBuilder;

/// Filled under the writer role, swapped out under the log role.
#[derive(Debug, Default)]
pub(crate) struct OpenGroup {
    pub(crate) records: GroupBuilder,
    pub(crate) tickets: Vec<Arc<Ticket>>,
    /// A delta that ends with this transaction was frozen, and this group will hold the first record after it (and
    /// perhaps the last ones before): where it starts, the log of the next delta starts.
    pub(crate) freezes: Option<TxnId>,
    /// The log role waits until there are so many tickets; 0 if it does not wait.
    pub(crate) wanted: usize,
    /// Bytes that are claimed in the log for these records.
    pub(crate) claimed: u64,
}

impl OpenGroup {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
