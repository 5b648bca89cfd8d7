//! Room given back: log segments, space of the data file, memory.

use std::sync::Arc;

use northstar_io::planted::planted;

use super::past::Tending;
use super::run::Checkpointer;
use crate::error::{Error, Result};
use crate::ids::TxnId;
use crate::marks::{Mark, reached};
use crate::txn::positions::furthest_behind;
use crate::txn::snapshot::Snapshot;

/// Empty flips before free space is given back: two until the older slot has let go of its pages, two for the map of
/// free space to leave the end of the file.
const TIDY_FLIPS: u32 = 4;

impl Checkpointer {
    /// Segments before the log's start in both slots become spares, `spare_bytes` of them at most.
    pub(super) fn recycle(&mut self, spare_bytes: u64) -> Result<()> {
        let needed = match planted("the log is recycled one checkpoint early") {
            true => self.meta.log_start.lsn,
            false => self.older_log_start,
        };
        let segments = Arc::clone(&self.segments);
        let _deciding = segments.hold_recycling();
        let now = (self.shapes.shared.visible(), self.clock.wall_ns());
        let backups = self.shapes.shared.backups.log_from();
        let held = self.held_by_subscribers().into_iter().chain(backups).min();
        let kept = self.retainer.keep_from(&self.segments, needed, held, now);
        self.segments
            .recycle_before(kept, spare_bytes)
            .map_err(|source| Error::from_io("the commit log", source))
    }

    /// From which transaction on subscribers want the log: those that have not lost their place. If that cannot be read, as much is
    /// kept as they may hold.
    fn held_by_subscribers(&mut self) -> Option<TxnId> {
        if planted("subscribers do not hold the log") {
            return None;
        }
        let (retainer, segments) = (&mut self.retainer, &self.segments);
        let newest = Snapshot::newest(&self.shapes, None)
            .and_then(|newest| furthest_behind(&newest, || retainer.first(segments)));
        newest.unwrap_or(Some(TxnId::ZERO))
    }

    /// Gives the log's space back, but for what the next commits need.
    pub(crate) fn shrink_log(&mut self) -> Result<()> {
        self.recycle(0)?;
        self.pipeline.shrink_log()
    }

    /// On a full disk: lets go of what policy does not keep any more. Says whether it let go of anything.
    pub(super) fn make_room(&mut self) -> Result<bool> {
        let before = self.shapes.load().history.horizon;
        if self.history_is_damaged || !self.lets_go(&self.shapes.load().history) {
            return Ok(false);
        }
        // Twice, since the older slot names what the first has let go.
        for tending in [Tending::Drop, Tending::Nothing] {
            match self.empty_flip(tending) {
                Err(Error::Full { .. }) => return Ok(false),
                flipped => flipped?,
            }
        }
        let more = self.shapes.load().history.horizon > before;
        if more {
            reached(Mark::RoomMade);
        }
        Ok(more)
    }

    /// Nobody commits: gives free space back to the file system.
    pub(crate) fn tidy(&mut self) -> Result<()> {
        self.pipeline.release_spare_delta();
        // History grows older while nobody commits.
        let expires = || !self.history_is_damaged && self.lets_go(&self.shapes.load().history);
        if self.tidied && !expires() {
            return Ok(());
        }
        let flipped = (0..TIDY_FLIPS).try_for_each(|_| self.empty_flip(Tending::Idle));
        match &flipped {
            Ok(()) => {
                self.tidied = true;
                self.reclaim();
                self.store.trim()?;
            }
            // The older slot may still need the end of the file; what can be had of the log helps all the same.
            Err(Error::Full { .. }) => {}
            Err(_) => return flipped,
        }
        self.shrink_log()?;
        flipped
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use northstar_io::{MemoryDisk, SyncMethod};

    use crate::db::open::open_in;
    use crate::db::options::Options;
    use crate::db::world::World;

    #[test]
    fn memory_for_the_next_delta_is_given_back_when_nobody_commits() {
        let world = World {
            threads: false,
            sync_method: Some(SyncMethod::None),
            ..World::of(MemoryDisk::new())
        };
        let db = open_in(&Options::new().checked().unwrap(), Path::new("/db"), world).unwrap();
        let table = db.table("t").unwrap();
        let mut txn = db.begin_write().unwrap();
        txn.put(&table, "key", "value").unwrap();
        txn.commit().unwrap();
        db.checkpoint().unwrap();
        let engine = db.engine().unwrap();
        assert!(engine.pipeline.has_spare_delta());
        engine.checkpointer.lock().tidy().unwrap();
        assert!(!engine.pipeline.has_spare_delta());
        db.close().unwrap();
    }
}
