//! One checkpoint: slices until the frozen delta is merged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use northstar_io::planted::planted;

use super::feed::Feed;
use super::govern::{Allowance, Noticed};
use super::past::Tending;
use super::ranges::range_deletes;
use super::roots::merge_roots;
use crate::clock::Clock;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::format::meta::Meta;
use crate::history::{BuiltRun, History, Keeper};
use crate::ids::{Lsn, TableId, TxnId};
use crate::log::{LogPosition, Retainer, Segments};
use crate::marks::{Mark, reached};
use crate::pages::SharedSink;
use crate::pages::store::Store;
use crate::pages::write::PageSink;
use crate::retention::Retention;
use crate::state::StateHash;
use crate::sync::atomic::Ordering;
use crate::tree::merge::{Forget, MergeError, RangeDelete, merge};
use crate::txn::registry::SlotId;
use crate::txn::shape::{Roots, Shapes};
use crate::writer::pipeline::Pipeline;

/// Owns what checkpoints change: the meta page and the space of the data file.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub(crate) shapes: Arc<Shapes>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) store: Arc<Store>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) clock: Clock,
    /// The meta page as it is on disk.
    pub(crate) meta: Meta,
    /// Where the log must reach back to for the other meta slot's sake.
    pub(crate) older_log_start: Lsn,
    /// What is kept of the log beyond that.
    pub(crate) retainer: Retainer,
    /// How much of the past is kept.
    pub(crate) history_policy: Retention,
    /// A run could not be merged or dropped; none is tried any more.
    pub(crate) history_is_damaged: bool,
    /// What open snapshots may hold.
    pub(crate) allowance: Allowance,
    /// The last transaction up to which there was a table without history, as far as was looked: history does not have states
    /// up to there whole.
    pub(crate) whole_after: Option<TxnId>,
    /// What is known of each open snapshot.
    pub(crate) noticed: BTreeMap<SlotId, Noticed>,
    /// What stands for the deltas where a snapshot has none, once that is needed.
    pub(crate) empty_delta: Option<Arc<Delta>>,
    /// Bytes of new pages after which a slice ends.
    pub(crate) slice_bytes: u64,
    /// Bytes of a full delta: its log is about as large.
    pub(crate) delta_bytes: u64,

    /// Where the log of the frozen delta ends, once asked: a checkpoint may take several tries.
    pub(crate) boundary: Option<LogPosition>,
    /// Where the next slice begins, and how much is merged.
    pub(crate) next: Place,
    pub(crate) merged: u64,
    /// Pages that were written before.
    pub(crate) pages_before: u64,
    /// Free space was given back since the last change.
    pub(crate) tidied: bool,
}

/// Where a slice begins.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The table, by its place among those of the delta.
    table: usize,
    /// Its first key.
    key: Vec<u8>,
    /// Below this key its range deletes have taken effect; everywhere, if absent.
    ranged: Option<Vec<u8>>,
}

impl Place {
    /// The beginning of a table.
    pub(crate) const fn of(table: usize) -> Self {
        Self {
            table,
            key: Vec::new(),
            ranged: Some(Vec::new()),
        }
    }
}

impl From<MergeError> for Error {
    fn from(error: MergeError) -> Self {
        match error {
            MergeError::Page(error) => error.into(),
            MergeError::KeyTooLong { len, max } => Self::TooLarge {
                what: "key",
                len: len as u64,
                limit: max as u64,
            },
            MergeError::ValueTooLong { len } => Self::TooLarge {
                what: "value",
                len: len as u64,
                limit: u64::from(u32::MAX),
            },
            MergeError::Unsorted { .. } => Self::Halted {
                reason: error.to_string().into(),
            },
        }
    }
}

impl Checkpointer {
    /// Merges the oldest frozen delta. Says whether there was one.
    ///
    /// On an error the database is as before the slice at hand, and the call can be repeated.
    pub(crate) fn merge_frozen(&mut self) -> Result<bool> {
        self.pipeline.check_running()?;
        let Some(frozen) = self.shapes.load().frozen.last().map(Arc::clone) else {
            return Ok(false);
        };
        let boundary = match self.boundary {
            Some(known) => known,
            None => {
                self.pages_before = self.store.pages_written();
                *self.boundary.insert(self.pipeline.frozen_boundary()?)
            }
        };
        let tables: Vec<TableId> = frozen.tables().collect();
        let last = frozen.last_txn().unwrap_or_default();
        let all = frozen.len();
        loop {
            // A slice that fails leaves the place where it began for the next try.
            let mut next = self.next.clone();
            let merged = match self.slice(&frozen, &tables, &mut next, (boundary, last)) {
                Err(Error::Full { .. }) if self.make_room()? => {
                    next.clone_from(&self.next);
                    self.slice(&frozen, &tables, &mut next, (boundary, last))
                }
                other => other,
            };
            self.merged += merged?;
            if next.table == tables.len() {
                break;
            }
            self.pipeline.progress.advanced(self.merged, all);
            self.next = next;
        }
        // The delta that is written to may freeze from now on, and the next one wants this one's memory.
        drop(frozen);
        self.boundary = None;
        self.next = Place::of(0);
        self.merged = 0;
        let pages = self.store.pages_written() - self.pages_before;
        self.pipeline.note_merge(all, pages);
        self.pipeline
            .counters
            .checkpoints
            .fetch_add(1, Ordering::Relaxed);
        self.tidied = false;
        // Once more, so that the older slot lets go of the log too: else it would reach back over two deltas.
        let flipped = self.empty_flip(Tending::Busy);
        // As many spares as the next delta fills, so that none is made in steady state.
        self.recycle(self.delta_bytes)?;
        match flipped {
            // On a full disk it does reach back so far, until the next time.
            Ok(()) | Err(Error::Full { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Merges one slice, from `next` (a table and a key of it) on, and moves `next` to where the following begins.
    fn slice(
        &mut self,
        frozen: &Arc<Delta>,
        tables: &[TableId],
        next: &mut Place,
        (boundary, last_txn): (LogPosition, TxnId),
    ) -> Result<u64> {
        self.reclaim();
        let mut roots = Roots::clone(&self.shapes.load().roots);
        let store = Arc::clone(&self.store);
        let mut sink = store.begin_write(self.meta.generation.next())?;
        let mut state = self.present_state(&roots)?;
        let merged = self.merge_tables(frozen, tables, next, (&mut roots, &mut state), &mut sink);
        let last = next.table == tables.len();
        let moves_on = last || planted("the log moves on with every slice");
        let log_start = moves_on.then_some(boundary);
        let (fed, superseded) = merged?;
        let history = self.with_run(superseded, last_txn);
        self.flip(&roots, (&history, state), sink, last_txn, log_start)?;
        let generation = self.meta.generation;
        if last {
            // Before the shape is published: from then on another delta may freeze and start anew.
            self.pipeline.progress.finished();
        }
        self.shapes.publish(|shape| {
            shape.roots = Arc::new(roots);
            shape.generation = generation;
            // Rows of the delta are in the trees now: what was before its end is told by history.
            shape.tree_txn = last_txn;
            shape.history = Arc::new(history);
            if last {
                shape.frozen.retain(|delta| !Arc::ptr_eq(delta, frozen));
            }
        });
        Ok(fed)
    }

    fn merge_tables(
        &self,
        frozen: &Delta,
        tables: &[TableId],
        next: &mut Place,
        (roots, state): (&mut Roots, &mut StateHash),
        sink: &mut PageSink<'_>,
    ) -> Result<(u64, Option<BuiltRun>)> {
        let (mut fed, mut changed) = (0, Vec::new());
        let written = sink.bytes_written_counter();
        let full = || written.load(Ordering::Relaxed) >= self.slice_bytes;
        let shared = RefCell::new(&mut *sink);
        let end = frozen.last_txn().unwrap_or_default();
        let mut keeper = self
            .keeps_history()
            .then(|| Keeper::new(&*self.store, &shared, end));
        while let Some(&table) = tables.get(next.table) {
            let before = roots.get(table).copied();
            let root = before.map(|root| root.page);
            let reads = keeper.is_some() && StateHash::covers(table);
            let Place {
                key: from, ranged, ..
            } = next.clone();
            let mut ranges = match &ranged {
                Some(_) if !planted("range deletes are not merged") => range_deletes(frozen, table),
                _ => Vec::new(),
            };
            // What they end is read, a slice at a time; else they take effect with the first slice.
            let until = match &ranged {
                Some(ranged) if reads => self.cut_ranges(&mut ranges, root, ranged.max(&from))?,
                _ => None,
            };
            let below =
                |range: &mut RangeDelete<'_>| until.as_deref().is_none_or(|end| range.from < end);
            ranges.retain_mut(below);
            if let Some(end) = &until {
                reached(Mark::RangeCut);
                for range in &mut ranges {
                    range.to = Some(range.to.map_or(&**end, |to| to.min(end)));
                }
            }
            if !ranges.is_empty() {
                reached(Mark::RangeMerged);
            }
            let mut feed = Feed::new(frozen, table, (&from, until.as_deref()), &full);
            let (pages, tree) = (&*self.store, &mut SharedSink(&shared));
            let merged = match &mut keeper {
                Some(keeper) if StateHash::covers(table) => {
                    let mut changes = frozen.cursor(table, TxnId::MAX);
                    changes.seek(&from);
                    keeper.begin(table, changes);
                    merge(pages, tree, table, root, &mut feed, &ranges, keeper)
                }
                _ => merge(pages, tree, table, root, &mut feed, &ranges, &mut Forget),
            }?;
            fed += feed.fed;
            match (before, merged.root) {
                (Some(_), None) => reached(Mark::TreeEmptied),
                (Some(before), Some(_)) if merged.level > before.level => reached(Mark::RootGrew),
                (Some(before), Some(_)) if merged.level < before.level => reached(Mark::RootShrank),
                _ => {}
            }
            let cut = feed.resume_key().map(<[u8]>::to_vec);
            roots.set(table, merged.tree());
            changed.push(table);
            match cut {
                Some(key) => {
                    reached(Mark::SliceCut);
                    next.key = key;
                    next.ranged = until;
                    if planted("a slice goes on behind the key where the last one ended") {
                        next.key.push(0);
                    }
                    break;
                }
                None => {
                    *next = Place::of(next.table + 1);
                }
            }
        }
        let (superseded, changed_state) = match keeper {
            Some(keeper) => keeper.finish().map(|(run, state)| (run, Some(state)))?,
            None => (None, None),
        };
        if let Some(change) = changed_state {
            *state = state.with(change);
            if next.table == tables.len() {
                self.note_state((end, *state), roots, sink)?;
                changed.push(TableId::STATES);
                changed.sort_unstable();
            }
        }
        self.merge_roots(&changed, roots, sink)?;
        Ok((fed, superseded))
    }

    /// Writes the changed roots into the tree of roots.
    fn merge_roots(
        &self,
        changed: &[TableId],
        roots: &mut Roots,
        sink: &mut PageSink<'_>,
    ) -> Result<()> {
        let generation = self.meta.generation.next();
        merge_roots(&self.store, sink, generation, changed, roots)
    }

    /// Makes a slice durable: pages, then the meta page that names them.
    fn flip(
        &mut self,
        roots: &Roots,
        (history, state): (&History, StateHash),
        mut sink: PageSink<'_>,
        tree_txn: TxnId,
        log_start: Option<LogPosition>,
    ) -> Result<()> {
        let kept = self.write_runs(history, state, &mut sink)?;
        let written = sink.finish().map_err(|error| self.fatal(error))?;
        let mut meta = self.meta.clone();
        meta.generation = self.meta.generation.next();
        meta.free_directory = written.free_directory;
        meta.pages = written.pages;
        meta.names = roots.get(TableId::NAMES).copied();
        meta.roots = roots.get(TableId::ROOTS).copied();
        meta.tree_txn = tree_txn;
        meta.history = kept;
        meta.next_table = self.shapes.shared.tables.next_id();
        // Times of commits do not fall, also where the clock did and what carried the last one is in pages.
        let last_ns = self.pipeline.last_time_ns().max(self.meta.checkpoint_ns);
        meta.checkpoint_ns = self.clock.wall_ns().max(last_ns);
        meta.durable_through = self.pipeline.position().lsn;
        if let Some(position) = log_start {
            meta.log_start = position;
        }
        let start = meta.log_start.lsn.get();
        self.store
            .write_meta(&meta)
            .map_err(|error| self.fatal(error))?;
        self.pipeline
            .counters
            .log_start
            .store(start, Ordering::Relaxed);
        self.older_log_start = self.meta.log_start.lsn;
        self.meta = meta;
        Ok(())
    }

    /// Anything but a full disk leaves the outcome of a checkpoint's writes unknown: nobody writes after it.
    fn fatal(&self, error: Error) -> Error {
        if matches!(error, Error::Full { .. }) {
            reached(Mark::CheckpointFull);
            return error;
        }
        if matches!(error, Error::Halted { .. }) {
            return error;
        }
        reached(Mark::CheckpointFailed);
        self.pipeline.halt(&format!("checkpoint: {error}"))
    }

    /// Frees what no meta slot and no snapshot needs any more.
    pub(super) fn reclaim(&mut self) {
        self.govern();
        let mut oldest = self.shapes.shared.registry.oldest();
        if planted("the oldest snapshot is taken for one generation younger") {
            oldest = oldest.map(crate::ids::Generation::next);
        }
        if oldest.is_some_and(|oldest| oldest < self.meta.generation) {
            reached(Mark::HeldForSnapshot);
        }
        self.store.reclaim(self.meta.generation, oldest);
    }

    /// Flips the meta page without a change, so that the older slot and its log let go of their pages.
    pub(super) fn empty_flip(&mut self, tending: Tending) -> Result<()> {
        if !self.keeps_history() && self.shapes.load().history.runs.is_empty()
            || self.history_is_damaged
        {
            return self.flip_tending(Tending::Nothing);
        }
        match self.flip_tending(tending) {
            // What is let go may be what there was no room for.
            Err(Error::Full { .. }) if tending != Tending::Nothing => {
                self.empty_flip(match tending {
                    Tending::Busy | Tending::Idle => Tending::Drop,
                    Tending::Drop | Tending::Nothing => Tending::Nothing,
                })
            }
            // What nobody may ever read must not stop who commits: history stays as it is until it is opened again.
            Err(Error::Corrupt(_)) => {
                reached(Mark::HistoryDamaged);
                self.history_is_damaged = true;
                self.flip_tending(Tending::Nothing)
            }
            other => other,
        }
    }

    fn flip_tending(&mut self, tending: Tending) -> Result<()> {
        self.pipeline.check_running()?;
        self.reclaim();
        let store = Arc::clone(&self.store);
        let mut sink = store.begin_write(self.meta.generation.next())?;
        let (roots, mut history) = {
            let shape = self.shapes.load();
            (Arc::clone(&shape.roots), History::clone(&shape.history))
        };
        let horizon = history.horizon;
        let tended = self.tend(&mut history, &mut sink, tending)?;
        if tending != Tending::Nothing {
            self.pass_by_what_is_whole(&mut history, &roots)?;
        }
        let state = self.present_state(&roots)?;
        let mut tended_roots = Roots::clone(&roots);
        // A session without history may have left times and tags behind: those of one that begins are its own.
        let begins = self.meta.history.is_none();
        if history.horizon > horizon || !self.keeps_history() || begins {
            self.tend_moments(&mut tended_roots, history.horizon, &mut sink)?;
        }
        let mut changed = TableId::MOMENTS.to_vec();
        changed.retain(|table| roots.get(*table) != tended_roots.get(*table));
        self.merge_roots(&changed, &mut tended_roots, &mut sink)?;
        let roots = tended_roots;
        self.flip(&roots, (&history, state), sink, self.meta.tree_txn, None)?;
        let generation = self.meta.generation;
        self.shapes.publish(|shape| {
            shape.generation = generation;
            shape.roots = Arc::new(roots);
            if tended || history.horizon > horizon {
                shape.history = Arc::new(history);
            }
        });
        Ok(())
    }

    /// Takes the word of a clean close back, before the first append.
    pub(crate) fn mark_in_use(&mut self) -> Result<()> {
        let word = std::mem::take(&mut self.meta.clean);
        self.empty_flip(Tending::Drop).inspect_err(|_| {
            // Else the next try would find it taken back already.
            self.meta.clean =
                word && !planted("a failed try to take the word of a clean close back counts");
        })
    }

    /// The last act before closing: the log starts at its end, so the next open replays nothing.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.pipeline.check_running()?;
        let store = Arc::clone(&self.store);
        let end = self.pipeline.position();
        if self.meta.log_start != end || !self.meta.clean {
            self.reclaim();
            let sink = store.begin_write(self.meta.generation.next())?;
            let shape = self.shapes.load();
            let (roots, history) = (Arc::clone(&shape.roots), Arc::clone(&shape.history));
            self.meta.clean = true;
            let state = self.present_state(&roots)?;
            self.flip(&roots, (&history, state), sink, end.last_txn, Some(end))?;
        }
        // Nothing depends on it.
        let _tried = self.shrink_log();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use northstar_io::SyncMethod;
    use northstar_io::sim::{FaultPlan, Image, SimDisk, SimOptions};

    use crate::Db;
    use crate::db::batch::WriteBatch;
    use crate::db::open::open_in;
    use crate::db::options::Options;
    use crate::db::world::World;
    use crate::error::{Error, Result};
    use crate::retention::Retention;

    /// Nothing happens but what is asked for, so that neither room nor flips depend on who is faster.
    fn alone(disk: &Arc<SimDisk>) -> World {
        World {
            threads: false,
            sync_method: Some(SyncMethod::WriteDsync),
            ..World::of(Arc::<SimDisk>::clone(disk))
        }
    }

    fn put(db: &Db, keys: u32, byte: u8) -> Result<()> {
        let table = db.table("t")?;
        let mut batch = WriteBatch::new();
        for key in 0..keys {
            batch.put(&table, key.to_be_bytes(), vec![byte; 900]);
        }
        db.commit(batch).map(drop)
    }

    /// A table of 1,200 rows in about 300 leaves, merged.
    fn of_300_leaves(kept: Retention, slice_bytes: u64) -> Db {
        let dir = Path::new("disk/db");
        let options = Options::new().history(kept).page_bytes(4096);
        let mut options = options.checked().unwrap();
        options.slice_bytes = slice_bytes;
        let disk = SimDisk::new(SimOptions::new(Image::with_dir(dir)));
        let db = open_in(&options, dir, alone(&disk)).unwrap();
        put(&db, 1200, 1).unwrap();
        db.checkpoint().unwrap();
        db
    }

    /// The least room, in steps, with which all rows can be written anew and merged while so many transactions are kept.
    fn least_room(kept: u64) -> u64 {
        let dir = Path::new("disk/db");
        let options = Options::new().history(Retention::Txns(kept));
        let options = options.page_bytes(4096).log_segment_bytes(64 << 10);
        let options = options.checked().unwrap();
        let open = |image: Image, room_bytes| {
            let faults = FaultPlan {
                room_bytes,
                ..FaultPlan::default()
            };
            let disk = SimDisk::new(SimOptions {
                faults,
                ..SimOptions::new(image)
            });
            let db = open_in(&options, dir, alone(&disk))?;
            Ok::<_, Error>((db, disk))
        };
        let (db, disk) = open(Image::with_dir(dir), None).unwrap();
        put(&db, 300, 1).unwrap();
        put(&db, 300, 2).unwrap();
        db.close().unwrap();
        let merged = |room: &u64| {
            let done = open(disk.image(), Some(*room)).and_then(|(db, _)| {
                // From here on, none of what the second transaction ended is kept.
                (0..8).try_for_each(|byte| put(&db, 1, byte))?;
                put(&db, 300, 3)?;
                db.checkpoint()?;
                Ok(db)
            });
            match done {
                Ok(db) => {
                    assert_eq!(db.check().unwrap().faults, [""; 0], "{room} bytes");
                    true
                }
                Err(Error::Full { .. }) => false,
                Err(other) => panic!("{room} bytes: {other}"),
            }
        };
        let mut rooms = (64..).map(|steps| steps * (16 << 10));
        rooms.find(merged).unwrap()
    }

    #[test]
    fn what_a_large_range_delete_ends_is_kept_slice_by_slice() {
        for kept in [Retention::All, Retention::None] {
            let db = of_300_leaves(kept, 40 << 10);
            let then = db.begin_read().unwrap().txn_id();
            let generation = || db.engine().unwrap().shapes.load().generation.get();
            let before = generation();
            let table = db.table("t").unwrap();
            let mut txn = db.begin_write().unwrap();
            txn.delete_range(
                &table,
                100_u32.to_be_bytes().as_slice()..1100_u32.to_be_bytes().as_slice(),
            )
            .unwrap();
            txn.put(&table, 600_u32.to_be_bytes(), "after it").unwrap();
            txn.commit().unwrap();
            db.checkpoint().unwrap();
            let slices = generation() - before;
            let expected = match kept == Retention::All {
                true => 20..60,
                false => 0..6,
            };
            assert!(expected.contains(&slices), "{kept:?}: {slices}");
            assert_eq!(db.check().unwrap().faults, [""; 0]);
            let count = |read: &crate::ReadTxn| {
                let mut rows = 0;
                read.iter(&table).unwrap().for_each(|row| {
                    row.unwrap();
                    rows += 1;
                });
                rows
            };
            let now = db.begin_read().unwrap();
            assert_eq!(count(&now), 201);
            assert_eq!(
                now.get(&table, 600_u32.to_be_bytes()).unwrap().as_deref(),
                Some(&b"after it"[..])
            );
            if kept == Retention::All {
                assert_eq!(count(&db.begin_read_at(then).unwrap()), 1200);
                let noted = db.state_hashes().unwrap();
                assert_eq!(noted.last().unwrap().1, now.state_hash().unwrap());
            }
        }
    }

    #[test]
    fn range_deletes_that_overlap_are_counted_once_and_narrow_ones_in_their_number() {
        let trims = |table: &crate::Table, txn: &mut crate::WriteTxn, number: u32| {
            // Each from the beginning, a few leaves farther.
            let to = (number * 10).to_be_bytes();
            txn.delete_range::<&[u8]>(table, ..&to[..]).unwrap();
        };
        let narrow = |table: &crate::Table, txn: &mut crate::WriteTxn, number: u32| {
            let (from, to) = ((number * 10).to_be_bytes(), (number * 10 + 1).to_be_bytes());
            txn.delete_range(table, &from[..]..&to[..]).unwrap();
            txn.put(table, from, "again").unwrap();
        };
        type Deletes<'d> = &'d dyn Fn(&crate::Table, &mut crate::WriteTxn, u32);
        for (rows, deletes) in [(10, &trims as Deletes<'_>), (1200, &narrow)] {
            let db = of_300_leaves(Retention::All, 80 << 10);
            let then = db.begin_read().unwrap();
            let generation = || db.engine().unwrap().shapes.load().generation.get();
            let before = generation();
            let table = db.table("t").unwrap();
            for number in 1..120 {
                let mut txn = db.begin_write().unwrap();
                deletes(&table, &mut txn, number);
                txn.commit().unwrap();
            }
            db.checkpoint().unwrap();
            let slices = generation() - before;
            assert!((5..60).contains(&slices), "{rows}: {slices}");
            assert_eq!(db.check().unwrap().faults, [""; 0]);
            let now = db.begin_read().unwrap();
            assert_eq!(now.iter(&table).unwrap().count(), rows);
            assert_eq!(then.iter(&table).unwrap().count(), 1200);
            let noted = db.state_hashes().unwrap();
            assert_eq!(noted.last().unwrap().1, now.state_hash().unwrap());
        }
    }

    #[test]
    fn what_has_expired_is_room_on_a_full_disk() {
        let (little, all) = (least_room(4), least_room(1000));
        assert!(little + (150 << 10) < all, "{little} and {all}");
    }
}
