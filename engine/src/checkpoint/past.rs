//! Keeping history: the run of a slice, the merging of runs, and what policy lets go.
//!
//! The slices of one checkpoint leave runs whose keys follow each other: they are put together without being written anew.
//! Then runs are merged by size classes: once eight runs at the young end are of one class or lower ones, or two while
//! nobody commits, they become one, unless it would hold more than an eighth of what policy keeps: runs are dropped as a
//! whole. None is written anew unless what it joins is as large: a version is written about once for each eight-fold of
//! history while commits go on, and at most once for each doubling.
//!
//! - Cost: dropping a run reads its branches, and those of its leaves that name values in pages of their own.
//! - Failure: as a slice: it happened or it did not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use northstar_io::planted::planted;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::leaf::RowValue;
use crate::format::meta::{HistoryMeta, TreeRoot};
use crate::history::filter::FilterBuilder;
use crate::history::{BuiltRun, History, Run, RunBuilder, split_key};
use crate::ids::{PageRef, TableId, TxnId};
use crate::marks::{Mark, reached};
use crate::pages::write::PageSink;
use crate::pages::{Class, PageWrite, SharedSink};
use crate::retention::Retention;
use crate::state::StateHash;
use crate::tree::bulk::{concat, retire_nodes};
use crate::tree::cursor::Cursor;
use crate::tree::merge::{Change, ChangeKind, Forget, RangeDelete, merge};
use crate::txn::shape::Roots;

/// Runs of one size class at the young end that become one while commits go on, and while they do not.
const MERGED_TOGETHER: usize = 8;
const MERGED_IDLE: usize = 2;
/// Pages of the smallest class, at most.
const CLASS_PAGES: u64 = 16;
/// The highest class that is looked at: runs of up to 16 * 4^6 pages.
const CLASSES: u32 = 6;
/// Most pages of what is merged, since it is one flip: 256 MiB of 16 KiB while commits go on, 1 GiB while they do not.
const MERGED_PAGES_MAX: u64 = 1 << 14;
const MERGED_PAGES_IDLE_MAX: u64 = 1 << 16;

/// What may be done to runs with a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tending {
    /// Nothing.
    Nothing,
    /// Only drop what policy lets go.
    Drop,
    /// Merge where there are many, too.
    Busy,
    /// Merge where there are some: nobody commits.
    Idle,
}

/// The size class of a run.
fn class(run: &Run) -> u32 {
    let times = run.pages.div_ceil(CLASS_PAGES).max(1);
    // Base 4, rounded up.
    (u64::BITS - (times - 1).leading_zeros()).div_ceil(2)
}

/// How many of the youngest runs are to become one.
fn young_enough(runs: &[Run], limit: &Limit) -> Option<usize> {
    let fits = |many: &usize| {
        let (older, young) = runs.split_at(runs.len() - many);
        // A large run is not written anew for the sake of small ones: it at least doubles.
        let largest = young.iter().map(|run| run.pages).max();
        2 * largest.unwrap_or(0) <= pages_of(young) && limit.allows(young, older.last())
    };
    (0..=CLASSES)
        .map(|highest| {
            let young = runs.iter().rev().take_while(|run| class(run) <= highest);
            (0..=young.count()).rev().find(fits).unwrap_or(0)
        })
        .find(|many| *many >= limit.together)
}

fn pages_of(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.pages).sum()
}

/// What may become one run: so many at least, and no more than an eighth of what policy keeps.
struct Limit {
    together: usize,
    pages: u64,
    policy: Retention,
    page_bytes: u64,
    /// Where the first run begins.
    horizon: TxnId,
}

impl Limit {
    /// Whether `young` may become one run; `before` is the run before them.
    fn allows(&self, young: &[Run], before: Option<&Run>) -> bool {
        let (Some(first), Some(last)) = (young.first(), young.last()) else {
            return true;
        };
        pages_of(young) <= self.pages
            && self.policy_allows(self.policy, young, (first, last), before)
    }

    fn policy_allows(
        &self,
        policy: Retention,
        young: &[Run],
        (first, last): (&Run, &Run),
        before: Option<&Run>,
    ) -> bool {
        match policy {
            Retention::None | Retention::All => true,
            Retention::Txns(many) => {
                let begin = before.map_or(self.horizon, |run| run.to);
                last.to.get().saturating_sub(begin.get()) <= many / 8
            }
            Retention::Age(age) => {
                let begin = before.map_or(first.made_ns, |run| run.made_ns);
                u128::from(last.made_ns.saturating_sub(begin)) <= age.as_nanos() / 8
            }
            Retention::Bytes(bytes) => pages_of(young) * self.page_bytes <= bytes / 8,
            Retention::Within { age, bytes } => [Retention::Age(age), Retention::Bytes(bytes)]
                .into_iter()
                .all(|policy| self.policy_allows(policy, young, (first, last), before)),
        }
    }
}

/// How many of the oldest runs a policy lets go: `newest` is the last transaction, `now_ns` the time.
fn let_go(runs: &[Run], policy: Retention, newest: TxnId, now_ns: u64, page_bytes: u64) -> usize {
    let mut bytes = pages_of(runs) * page_bytes;
    let gone = |run: &&Run| {
        bytes -= run.pages * page_bytes;
        is_gone(run, policy, (newest, now_ns), bytes)
    };
    runs.iter().take_while(gone).count()
}

/// Whether a policy lets go of a run behind which so many bytes are left.
fn is_gone(run: &Run, policy: Retention, now: (TxnId, u64), left: u64) -> bool {
    let (newest, now_ns) = now;
    match policy {
        Retention::None => true,
        Retention::All => false,
        Retention::Txns(many) => run.to.get() <= newest.get().saturating_sub(many),
        Retention::Age(age) => {
            let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            run.made_ns < now_ns.saturating_sub(age)
        }
        Retention::Bytes(most) => left >= most,
        Retention::Within { age, bytes } => [Retention::Age(age), Retention::Bytes(bytes)]
            .into_iter()
            .any(|policy| is_gone(run, policy, now, left)),
    }
}

/// How many of the youngest runs one checkpoint has left.
fn one_checkpoint(runs: &[Run]) -> usize {
    let to = runs.last().map(|run| run.to);
    let alike = |run: &&Run| Some(run.to) == to;
    runs.iter().rev().take_while(alike).count()
}

/// What `runs` have become.
fn as_one(runs: &[Run], built: BuiltRun) -> Run {
    let to = runs.iter().map(|run| run.to).max();
    let made_ns = runs.iter().map(|run| run.made_ns).max();
    Run {
        tree: built.tree,
        filter: built.filter,
        to: to.unwrap_or_default(),
        number: 0,
        pages: built.pages,
        made_ns: made_ns.unwrap_or_default(),
    }
}

impl Checkpointer {
    /// Whether superseded versions are kept.
    pub(super) fn keeps_history(&self) -> bool {
        self.history_policy != Retention::None
    }

    /// What of history there is once the tree is at `tree_txn` and a slice has superseded what is in `built`.
    pub(super) fn with_run(&self, built: Option<BuiltRun>, tree_txn: TxnId) -> History {
        let mut history = History::clone(&self.shapes.load().history);
        if !self.keeps_history() {
            // What the slice superseded is gone.
            history.horizon = tree_txn;
            return history;
        }
        if let Some(built) = built {
            reached(Mark::RunWritten);
            history.add(Run {
                tree: built.tree,
                filter: built.filter,
                to: tree_txn,
                number: history.next_number(),
                pages: built.pages,
                made_ns: self.clock.wall_ns(),
            });
        }
        history
    }

    /// Whether there are runs that neither policy nor an open snapshot keeps.
    pub(super) fn lets_go(&self, history: &History) -> bool {
        self.expired(history) > 0
    }

    /// How many of the oldest runs neither policy nor an open snapshot keeps.
    fn expired(&self, history: &History) -> usize {
        let newest = self.shapes.shared.visible();
        let page_bytes = self.store.page_bytes() as u64;
        let now = self.clock.wall_ns();
        let gone = let_go(&history.runs, self.history_policy, newest, now, page_bytes);
        let Some(oldest) = self.oldest_that_looks_back(history) else {
            return gone;
        };
        let gone = &history.runs[..gone];
        let kept = gone.partition_point(|run| run.to <= oldest);
        // Whoever may not hold so many pages may not hold so much of history either.
        let held = pages_of(&gone[kept..]) * page_bytes;
        match self.allowance.ended_from.is_some_and(|most| held > most) {
            true => gone.len(),
            false => kept,
        }
    }

    /// The oldest open snapshot that can be moved to history, or was: what it reads stays.
    fn oldest_that_looks_back(&self, history: &History) -> Option<TxnId> {
        let mut oldest = None;
        self.shapes.shared.registry.each_open(|open| {
            let has = open.txn >= history.horizon && Some(open.txn) > self.whole_after;
            if has && open.place.is_some() && oldest.is_none_or(|txn| open.txn < txn) {
                oldest = Some(open.txn);
            }
        });
        oldest
    }

    /// Moves the horizon where policy wants it although no run says so: nothing was superseded for long.
    pub(super) fn pass_by_what_is_whole(&self, history: &mut History, roots: &Roots) -> Result<()> {
        if !history.runs.is_empty() || !self.keeps_history() {
            return Ok(());
        }
        let wanted = self.first_wanted(self.history_policy, history.horizon, roots)?;
        let oldest = self.oldest_that_looks_back(history);
        // Of later transactions the trees hold a part, or nothing.
        let most = oldest
            .unwrap_or(TxnId::MAX)
            .min(self.meta.log_start.last_txn);
        history.horizon = history.horizon.max(wanted.min(most));
        Ok(())
    }

    /// The first state that a policy keeps, by the number of transactions and by their times, or `from`.
    fn first_wanted(&self, policy: Retention, from: TxnId, roots: &Roots) -> Result<TxnId> {
        let newest = self.shapes.shared.visible();
        match policy {
            Retention::None | Retention::All | Retention::Bytes(_) => Ok(from),
            Retention::Txns(many) => Ok(TxnId::new(newest.get().saturating_sub(many)).max(from)),
            Retention::Age(age) | Retention::Within { age, .. } => {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                let moment = self.clock.wall_ns().saturating_sub(age);
                self.last_before(moment, (from, newest), roots)
            }
        }
    }

    /// Lets go of the runs that policy does not keep, and merges young ones. Says whether it changed anything.
    pub(super) fn tend(
        &self,
        history: &mut History,
        sink: &mut PageSink<'_>,
        tending: Tending,
    ) -> Result<bool> {
        if tending == Tending::Nothing {
            return Ok(false);
        }
        let number = history.next_number();
        let gone = self.expired(history);
        for run in history.runs.drain(..gone) {
            reached(Mark::RunDropped);
            if !planted("the horizon stays where it was") {
                history.horizon = history.horizon.max(run.to);
            }
            self.drop_run(&run, sink)?;
        }
        let (together, pages) = match tending {
            Tending::Nothing | Tending::Drop => return Ok(gone > 0),
            Tending::Busy => (MERGED_TOGETHER, MERGED_PAGES_MAX),
            Tending::Idle => (MERGED_IDLE, MERGED_PAGES_IDLE_MAX),
        };
        let limit = Limit {
            together,
            pages,
            policy: self.history_policy,
            page_bytes: self.store.page_bytes() as u64,
            horizon: history.horizon,
        };
        let alike = one_checkpoint(&history.runs);
        let last = &history.runs[history.runs.len() - alike..];
        let one = if alike > 1 && self.keys_follow(last.iter().map(|run| run.tree.page))? {
            reached(Mark::RunsJoined);
            let young = history.runs.split_off(history.runs.len() - alike);
            self.join_runs(&young, sink)?
        } else if let Some(many) = young_enough(&history.runs, &limit) {
            reached(Mark::RunsMerged);
            let young = history.runs.split_off(history.runs.len() - many);
            self.merge_runs(&young, sink)?
        } else {
            return Ok(gone > 0);
        };
        history.runs.extend(one.map(|run| Run { number, ..run }));
        Ok(true)
    }

    /// Whether each tree's keys are all below those of the next.
    fn keys_follow(&self, trees: impl Iterator<Item = PageRef>) -> Result<bool> {
        let mut last: Option<Vec<u8>> = None;
        for tree in trees {
            let mut cursor = Cursor::new(&*self.store, Some(tree), Class::Once);
            cursor.seek(Bound::Unbounded)?;
            let first = cursor.row().map(|row| row.key.to_vec());
            if last >= first {
                return Ok(false);
            }
            cursor.seek_back(Bound::Unbounded)?;
            last = cursor.row().map(|row| row.key.to_vec());
        }
        Ok(true)
    }

    /// One run of several whose keys follow each other.
    fn join_runs(&self, runs: &[Run], sink: &mut PageSink<'_>) -> Result<Option<Run>> {
        let trees: Vec<_> = runs.iter().map(|run| run.tree.page).collect();
        let built = concat(&*self.store, &mut *sink, TableId::HISTORY, &trees)?;
        let Some(built) = built else {
            return Ok(None);
        };
        let filter = self.join_filters(runs, sink)?;
        Ok(Some(as_one(
            runs,
            BuiltRun {
                tree: built.tree,
                filter,
                // All pages but the branches on top stay.
                pages: pages_of(runs),
            },
        )))
    }

    /// The filter of several runs whose keys follow each other; none if none has one.
    fn join_filters(&self, runs: &[Run], sink: &mut PageSink<'_>) -> Result<Option<TreeRoot>> {
        if runs.iter().all(|run| run.filter.is_none()) {
            return Ok(None);
        }
        let store = &*self.store;
        let shared = RefCell::new(sink);
        let mut joined = FilterBuilder::new(SharedSink(&shared));
        for run in runs {
            let root = run.filter.unwrap_or(run.tree);
            let mut cursor = Cursor::new(store, Some(root.page), Class::Once);
            if run.filter.is_none() {
                cursor.seek_back(Bound::Unbounded)?;
                if let Some((last, _)) = cursor.row().and_then(|row| split_key(row.key)) {
                    joined.add_any(last)?;
                }
                continue;
            }
            cursor.seek(Bound::Unbounded)?;
            while let Some(row) = cursor.row() {
                joined.add_row(row.key, row.value)?;
                cursor.next()?;
            }
        }
        let joined = joined.finish()?;
        for filter in runs.iter().filter_map(|run| run.filter) {
            retire_nodes(store, &mut SharedSink(&shared), filter.page)?;
        }
        Ok(joined.map(|joined| joined.tree))
    }

    fn drop_run(&self, run: &Run, sink: &mut PageSink<'_>) -> Result<()> {
        let all = RangeDelete {
            from: &[],
            to: None,
            txn: TxnId::MAX,
        };
        for root in std::iter::once(run.tree).chain(run.filter) {
            let (root, none) = (Some(root.page), std::iter::empty());
            merge(
                &*self.store,
                sink,
                TableId::HISTORY,
                root,
                none,
                &[all],
                &mut Forget,
            )?;
        }
        Ok(())
    }

    /// One run of several.
    fn merge_runs(&self, runs: &[Run], sink: &mut PageSink<'_>) -> Result<Option<Run>> {
        let store = &*self.store;
        let page_bytes = store.page_bytes();
        let shared = RefCell::new(sink);
        let mut merged = RunBuilder::new(&shared);
        let mut cursors = Vec::with_capacity(runs.len());
        for run in runs {
            let mut cursor = Cursor::new(store, Some(run.tree.page), Class::Once);
            cursor.seek(Bound::Unbounded)?;
            cursors.push(cursor);
        }
        let (mut key, mut first) = (Vec::new(), true);
        loop {
            let rows = cursors.iter().map(Cursor::row).enumerate();
            let rows = rows.filter_map(|(index, row)| Some((index, row?)));
            let Some((index, row)) = rows.min_by_key(|(_, row)| row.key) else {
                break;
            };
            // What was merged right before a crash is in two runs.
            let again = !first && row.key == &*key;
            if again {
                if let RowValue::Extent(extent) = row.value {
                    let pages = extent.page_count(page_bytes);
                    SharedSink(&shared).retire(extent.first, pages)?;
                }
            } else {
                first = false;
                key.clear();
                key.extend_from_slice(row.key);
                merged.push(&key, row.txn, row.value)?;
            }
            if let Some(cursor) = cursors.get_mut(index) {
                cursor.next()?;
            }
        }
        drop(cursors);
        let built = merged.finish()?;
        for root in runs
            .iter()
            .flat_map(|run| std::iter::once(run.tree).chain(run.filter))
        {
            retire_nodes(store, &mut SharedSink(&shared), root.page)?;
        }
        Ok(built.map(|built| as_one(runs, built)))
    }

    /// Writes the table of runs anew where it differs from the one on disk; what the meta page then says.
    pub(super) fn write_runs(
        &self,
        history: &History,
        state: StateHash,
        sink: &mut PageSink<'_>,
    ) -> Result<Option<HistoryMeta>> {
        let before = self.shapes.load();
        let old = self.meta.history.as_ref().and_then(|meta| meta.runs);
        let rows_of = |history: &History| -> BTreeMap<_, _> {
            let runs = history.runs.iter();
            runs.map(|run| (run.key(), run.encode())).collect()
        };
        let (was, is) = (rows_of(&before.history), rows_of(history));
        let gone = was.keys().filter(|key| !is.contains_key(*key));
        let new = is.iter().filter(|(key, row)| was.get(*key) != Some(row));
        let mut rows: Vec<_> = gone
            .map(|key| (*key, None))
            .chain(new.map(|(key, row)| (*key, Some(row))))
            .collect();
        rows.sort_by_key(|(key, _)| *key);
        let txn = TxnId::new(u64::from(self.meta.generation.next().get()));
        let changes = rows.iter().map(|(key, row)| Change {
            key,
            txn,
            kind: ChangeKind::of(row.map(|row| &row[..])),
        });
        let mut runs = old;
        if !rows.is_empty() {
            let root = old.map(|root| root.page);
            let merged = merge(
                &*self.store,
                sink,
                TableId::RUNS,
                root,
                changes,
                &[],
                &mut Forget,
            )?;
            runs = merged.tree();
        }
        Ok(
            (self.keeps_history() || runs.is_some()).then_some(HistoryMeta {
                runs,
                horizon: history.horizon,
                policy: self.history_policy,
                state,
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::{Generation, PageId};

    fn run(to: u64, pages: u64) -> Run {
        let page = PageRef {
            id: PageId::new(9),
            checksum: 0,
            generation: Generation::new(1),
        };
        Run {
            tree: TreeRoot {
                page,
                level: 0,
                rows: 1,
            },
            filter: None,
            to: TxnId::new(to),
            number: 0,
            pages,
            made_ns: to * 10,
        }
    }

    #[test]
    fn runs_are_merged_by_fours_of_a_class_and_large_ones_never() {
        let runs = |sizes: &[u64]| -> Vec<Run> {
            let numbered = sizes.iter().zip(1..);
            numbered.map(|(pages, to)| run(to, *pages)).collect()
        };
        let limit = Limit {
            together: 4,
            pages: 1000,
            policy: Retention::All,
            page_bytes: 4096,
            horizon: TxnId::ZERO,
        };
        let many = |sizes: &[u64]| young_enough(&runs(sizes), &limit);
        assert_eq!(many(&[1, 1, 1]), None);
        assert_eq!(many(&[1, 3, 1, 1]), Some(4));
        assert_eq!(many(&[1, 16, 1, 1]), None, "for three pages");
        assert_eq!(many(&[60, 20, 20, 20]), Some(4), "the class above");
        assert_eq!(many(&[60, 1, 1, 1, 1]), Some(4), "without the large one");
        assert_eq!(
            many(&[65, 64, 64, 1, 1]),
            Some(4),
            "the oldest is of a higher class"
        );
        assert_eq!(many(&[250, 250, 250, 250]), Some(4));
        assert_eq!(
            many(&[250, 250, 250, 251]),
            None,
            "more than one flip may write"
        );
    }

    #[test]
    fn no_run_becomes_more_than_an_eighth_of_what_is_kept() {
        let runs: Vec<Run> = (11..=16).map(|to| run(to, 1)).collect();
        let limit = |policy| Limit {
            together: 4,
            pages: 1000,
            policy,
            page_bytes: 4096,
            horizon: TxnId::new(9),
        };
        let many = |policy| young_enough(&runs, &limit(policy));
        assert_eq!(many(Retention::All), Some(6));
        // The first begins at the horizon, two transactions before its end.
        assert_eq!(many(Retention::Txns(56)), Some(6));
        assert_eq!(many(Retention::Txns(55)), Some(5));
        assert_eq!(many(Retention::Txns(31)), None);
        assert_eq!(many(Retention::Bytes(6 * 8 * 4096)), Some(6));
        assert_eq!(many(Retention::Bytes(5 * 8 * 4096)), Some(5));
        assert_eq!(many(Retention::Age(Duration::from_nanos(400))), Some(6));
        assert_eq!(many(Retention::Age(Duration::from_nanos(399))), Some(4));
        assert_eq!(many(Retention::Age(Duration::from_nanos(319))), None);
        let within = |ns, bytes| {
            let age = Duration::from_nanos(ns);
            Retention::Within { age, bytes }
        };
        assert_eq!(many(within(400, 6 * 8 * 4096)), Some(6));
        assert_eq!(many(within(400, 5 * 8 * 4096)), Some(5));
        assert_eq!(many(within(399, 6 * 8 * 4096)), Some(4));
    }

    #[test]
    fn policies_let_go_of_whole_runs_from_the_oldest_on() {
        let runs = [run(10, 4), run(20, 2), run(30, 1)];
        let gone = |policy| let_go(&runs, policy, TxnId::new(35), 400, 100);
        assert_eq!(gone(Retention::All), 0);
        assert_eq!(gone(Retention::None), 3);
        assert_eq!(gone(Retention::Txns(26)), 0);
        assert_eq!(gone(Retention::Txns(25)), 1);
        assert_eq!(gone(Retention::Txns(5)), 3);
        assert_eq!(gone(Retention::Bytes(301)), 0);
        assert_eq!(gone(Retention::Bytes(300)), 1);
        assert_eq!(gone(Retention::Bytes(0)), 3);
        assert_eq!(gone(Retention::Age(Duration::from_nanos(300))), 0);
        assert_eq!(gone(Retention::Age(Duration::from_nanos(250))), 1);
        let within = |ns, bytes| {
            let age = Duration::from_nanos(ns);
            Retention::Within { age, bytes }
        };
        assert_eq!(gone(within(300, 301)), 0);
        assert_eq!(gone(within(300, 300)), 1);
        assert_eq!(gone(within(250, 301)), 1);
    }
}
