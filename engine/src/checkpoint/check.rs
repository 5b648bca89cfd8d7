//! Walking everything a checkpoint wrote.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::leaf::RowValue;
use crate::format::meta::TreeRoot;
use crate::format::page::PageKind;
use crate::history::{self, History, Run, filter};
use crate::ids::{PageId, TableId};
use crate::pages::Class;
use crate::retention::Retention;
use crate::state::StateHash;
use crate::stats::CheckReport;
use crate::tree::check::{CheckOptions, TreeReport, check};
use crate::tree::cursor::Cursor;
use crate::txn::shape::Roots;
use crate::txn::table::decode_entry;

impl Checkpointer {
    /// Walks every tree of the newest generation, and compares what is reachable with what is marked in use.
    pub(crate) fn check(&self) -> Result<CheckReport> {
        let shape = self.shapes.load();
        let mut report = CheckReport {
            meta_copies: self.store.meta_copies(&self.meta)?,
            ..CheckReport::default()
        };
        let mut seen: BTreeMap<PageId, PageKind> = BTreeMap::new();
        self.store.own_pages(&mut |page, kind| {
            seen.insert(page, kind);
        });
        let kept = self.meta.history.as_ref();
        let kept = kept.filter(|kept| kept.policy != Retention::None);
        let mut state = StateHash::default();
        for (table, root) in shape.roots.iter() {
            let options = CheckOptions {
                table,
                page_bytes: self.store.page_bytes(),
                read_extents: true,
                digest: kept.is_some() && StateHash::covers(table),
            };
            let mut visit = |page: PageId, kind| seen.insert(page, kind).is_none();
            let tree = check(&*self.store, Some(root.page), options, &mut visit);
            report.tables += u64::from(table >= TableId::FIRST_USER);
            report.rows += tree.rows;
            state = state.with(tree.state);
            add_tree(&mut report, table, &tree);
            if tree.faults.is_empty() && tree.rows != root.rows {
                report.faults.push(format!(
                    "{table:?}: holds {} rows, its root says {}",
                    tree.rows, root.rows
                ));
            }
        }
        if let Some(kept) = kept.filter(|kept| report.faults.is_empty() && kept.state != state) {
            report.faults.push(format!(
                "the rows have the digest {state}, the meta page says {}",
                kept.state
            ));
        }
        self.check_history(&shape.history, &mut seen, &mut report)?;
        if report.faults.is_empty() {
            self.check_overlaps(&shape.history, &shape.roots, &mut report.faults)?;
            self.check_names(&shape.roots, &mut report.faults)?;
            report.free_pages = self.store.compare_in_use(&seen, &mut report.faults);
        }
        Ok(report)
    }

    /// The table of runs, and every version in them.
    fn check_history(
        &self,
        history: &History,
        seen: &mut BTreeMap<PageId, PageKind>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let store = &*self.store;
        let runs = self.meta.history.as_ref().and_then(|history| history.runs);
        let of_runs = history.runs.iter().flat_map(|run| {
            let filter = run.filter.map(|root| (root, Holds::Filter));
            filter.into_iter().chain([(run.tree, Holds::Versions(run))])
        });
        let of_runs = of_runs.map(|(root, holds)| (TableId::HISTORY, root, holds));
        let trees = runs
            .map(|root| (TableId::RUNS, root, Holds::Runs))
            .into_iter()
            .chain(of_runs);
        let mut scratch = Vec::new();
        for (table, root, holds) in trees {
            let options = CheckOptions {
                table,
                page_bytes: store.page_bytes(),
                read_extents: true,
                digest: false,
            };
            let mut visit = |page: PageId, kind| seen.insert(page, kind).is_none();
            let tree = check(store, Some(root.page), options, &mut visit);
            let (found, expected) = (tree.rows, root.rows);
            add_tree(report, table, &tree);
            if tree.faults.is_empty() && found != expected {
                report.faults.push(format!(
                    "{table:?}: holds {found} rows, its root says {expected}"
                ));
            }
            if !tree.faults.is_empty() || matches!(holds, Holds::Runs) {
                continue;
            }
            let mut cursor = Cursor::new(store, Some(root.page), Class::Once);
            cursor.seek(Bound::Unbounded)?;
            while let Some(row) = cursor.row() {
                let fault = match holds {
                    Holds::Runs => None,
                    Holds::Filter => filter::check_row(row.key, row.value, &mut scratch),
                    Holds::Versions(run) => {
                        report.versions += 1;
                        let fault = history::check_row(run, &row, &mut scratch);
                        // A filter with faults of its own is not asked.
                        match run.filter.filter(|_| report.faults.is_empty()) {
                            Some(filter) if fault.is_none() => {
                                self.check_filter(filter, row.key, &mut scratch)?
                            }
                            Some(_) | None => fault,
                        }
                    }
                };
                report
                    .faults
                    .extend(fault.map(|fault| format!("{table:?}: {fault}")));
                cursor.next()?;
            }
        }
        Ok(())
    }

    /// A filter has every key of its run.
    fn check_filter(
        &self,
        root: TreeRoot,
        stored: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Option<String>> {
        let Some((packed, _)) = history::split_key(stored) else {
            return Ok(None);
        };
        let key = (packed, filter::hash(packed));
        let has = filter::may_have(&*self.store, root.page, key, scratch)?;
        Ok((!has).then(|| format!("the filter of a run denies a key that it has: {packed:02x?}")))
    }

    /// Every name leads to a table of its own.
    fn check_names(&self, roots: &Roots, faults: &mut Vec<String>) -> Result<()> {
        let Some(root) = roots.get(TableId::NAMES) else {
            return Ok(());
        };
        let mut names = Names::new(self.shapes.shared.tables.next_id());
        let mut cursor = Cursor::new(&*self.store, Some(root.page), Class::Once);
        cursor.seek(Bound::Unbounded)?;
        while let Some(row) = cursor.row() {
            let value = match row.value {
                RowValue::Inline(value) => value,
                RowValue::Extent(_) => &[],
            };
            faults.extend(names.fault(row.key, value));
            cursor.next()?;
        }
        Ok(())
    }
}

/// What is in a tree of history.
#[derive(Clone, Copy)]
enum Holds<'r> {
    Runs,
    Filter,
    Versions(&'r Run),
}

/// Adds what the walk of a tree saw.
fn add_tree(report: &mut CheckReport, table: TableId, tree: &TreeReport) {
    report.leaves += tree.leaves;
    report.branches += tree.branches;
    report.overflow_pages += tree.overflow_pages;
    let named = tree
        .faults
        .iter()
        .map(|fault| format!("{table:?}: {fault}"));
    report.faults.extend(named);
    let unnamed = tree.fault_count.saturating_sub(tree.faults.len() as u64);
    if unnamed > 0 {
        report
            .faults
            .push(format!("{table:?}: {unnamed} more faults"));
    }
}

/// The tables that have a name.
struct Names {
    next: TableId,
    named: BTreeMap<TableId, String>,
}

impl Names {
    const fn new(next: TableId) -> Self {
        Self {
            next,
            named: BTreeMap::new(),
        }
    }

    /// What is wrong with a row of table `NAMES`, seen with those before it.
    fn fault(&mut self, key: &[u8], value: &[u8]) -> Option<String> {
        let name = String::from_utf8_lossy(key).into_owned();
        let id = match decode_entry(&name, value) {
            Ok(id) => id,
            Err(error) => return Some(error.to_string()),
        };
        if !id.was_given_out(self.next) {
            return Some(format!(
                "the name {name:?} leads to {id:?}, only those below {:?} were given out",
                self.next
            ));
        }
        let other = self.named.insert(id.number(), name.clone())?;
        Some(format!(
            "the names {other:?} and {name:?} both lead to {id:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::table::encode_entry;

    #[test]
    fn a_name_of_another_table_or_of_none_is_a_fault() {
        let first = TableId::FIRST_USER;
        let mut names = Names::new(first.next());
        let row = encode_entry(first);
        assert_eq!(names.fault(b"a", &row), None);
        let shared = names.fault(b"b", &row).unwrap();
        assert!(shared.contains(r#""a" and "b""#), "{shared}");
        let unknown = names.fault(b"c", &encode_entry(first.next())).unwrap();
        assert!(unknown.contains(r#""c""#), "{unknown}");
        assert!(names.fault(b"d", b"").unwrap().contains(r#""d""#));
    }
}
