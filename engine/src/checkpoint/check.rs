//! Walking everything a checkpoint wrote.

use std::collections::BTreeMap;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::page::PageKind;
use crate::ids::{PageId, TableId};
use crate::stats::CheckReport;
use crate::tree::check::{CheckOptions, check};

impl Checkpointer {
    /// Walks every tree of the newest generation, and compares what is reachable with what is marked in use.
    pub(crate) fn check(&self) -> Result<CheckReport> {
        let shape = self.shapes.load();
        let mut report = CheckReport::default();
        let mut seen: BTreeMap<PageId, PageKind> = BTreeMap::new();
        self.store.own_pages(&mut |page, kind| {
            seen.insert(page, kind);
        });
        for (table, root) in shape.roots.iter() {
            let options = CheckOptions {
                table,
                page_bytes: self.store.page_bytes(),
                read_extents: true,
            };
            let mut visit = |page: PageId, kind| seen.insert(page, kind).is_none();
            let tree = check(&*self.store, Some(root.page), options, &mut visit);
            report.tables += u64::from(table >= TableId::FIRST_USER);
            report.rows += tree.rows;
            report.leaves += tree.leaves;
            report.branches += tree.branches;
            report.overflow_pages += tree.overflow_pages;
            report.faults.extend(
                tree.faults
                    .iter()
                    .map(|fault| format!("{table:?}: {fault}")),
            );
            let unnamed = tree.fault_count.saturating_sub(tree.faults.len() as u64);
            if unnamed > 0 {
                report
                    .faults
                    .push(format!("{table:?}: {unnamed} more faults"));
            }
            if tree.faults.is_empty() && tree.rows != root.rows {
                report.faults.push(format!(
                    "{table:?}: holds {} rows, its root says {}",
                    tree.rows, root.rows
                ));
            }
        }
        if report.faults.is_empty() {
            report.free_pages = self.store.compare_in_use(&seen, &mut report.faults);
        }
        Ok(report)
    }
}
