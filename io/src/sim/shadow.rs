//! What a power cut would leave, at any point of a trace.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Content, Fate};
use super::image::Image;
use super::trace::{Event, FileId, NameOp};
use super::{Dice, SECTOR_BYTES};

/// A change of a file that no sync has kept yet.
#[derive(Debug, Clone)]
struct Pending {
    file: FileId,
    change: Change,
    /// The moment its completion was seen.
    done: Option<u64>,
}

#[derive(Debug, Clone)]
enum Change {
    Write {
        id: u64,
        offset: u64,
        data: Arc<[u8]>,
    },
    Resize(u64),
    Punch(u64, u64),
}

/// A sync on its way, and the writes it covers.
#[derive(Debug, Clone)]
struct Sync {
    id: u64,
    file: FileId,
    /// The moment it began: what was done later is not covered.
    begun: u64,
    only: Option<u64>,
}

impl Sync {
    fn covers(&self, pending: &Pending) -> bool {
        match self.only {
            Some(write) => pending.is_write(write),
            None => pending.file == self.file && pending.done.is_some_and(|at| at <= self.begun),
        }
    }
}

/// Which of the pending changes survive. One unit is a sector of a write, or a change of a length, or a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// All.
    All,
    /// None.
    Nothing,
    /// Each unit with so many chances in 256.
    Units(u8),
    /// Each change whole, with so many chances in 256.
    Changes(u8),
    /// The first so many units.
    First(usize),
    /// All but the first so many units.
    Last(usize),
    /// Unit `i` if bit `i` is set; units from 64 on do not.
    Mask(u64),
}

/// Which of the pending changes of names survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// All.
    All,
    /// None.
    Nothing,
    /// The first ones, as many as dice say: what a journal leaves.
    First,
    /// Each by dice.
    Any,
}

/// What a power cut does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPlan {
    /// To contents.
    pub survival: Survival,
    /// To names.
    pub names: Names,
    /// Sectors that were being written and did not survive may hold neither old nor new bytes.
    pub garbage: bool,
}

/// A disk between what is seen and what is kept.
#[derive(Debug, Clone)]
pub struct Shadow {
    durable: Image,
    pending: Vec<Pending>,
    names: Vec<NameOp>,
    syncs: Vec<Sync>,
    /// Events so far.
    moment: u64,
    /// Numbers given to writes of processes that were killed.
    killed_writes: u64,
}

impl Shadow {
    /// A disk that holds `image`, all of it kept.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            durable: image,
            pending: Vec::new(),
            names: Vec::new(),
            syncs: Vec::new(),
            moment: 0,
            killed_writes: 0,
        }
    }

    /// Takes note of what happened next.
    pub fn apply(&mut self, event: &Event) {
        self.moment += 1;
        match event {
            Event::Names(op) => {
                // Contents of a file may be kept before its name is.
                if let NameOp::Create(_, file) = op {
                    self.durable.content_mut(*file);
                }
                self.names.push(op.clone());
            }
            Event::DirSynced(dir) => self.keep_names(dir),
            Event::Resized { file, len } => self.push(*file, Change::Resize(*len), true),
            Event::Punched { file, offset, len } => {
                self.push(*file, Change::Punch(*offset, *len), true);
            }
            Event::Write {
                id,
                file,
                offset,
                data,
            } => {
                let (id, offset, data) = (*id, *offset, Arc::clone(data));
                self.push(*file, Change::Write { id, offset, data }, false);
            }
            Event::Done { id } => {
                let written = self
                    .pending
                    .iter_mut()
                    .find(|pending| pending.is_write(*id));
                if let Some(pending) = written {
                    pending.done = Some(self.moment);
                }
            }
            Event::Gone { id } => self.pending.retain(|pending| !pending.is_write(*id)),
            Event::SyncBegun { id, file, only } => self.syncs.push(Sync {
                id: *id,
                file: *file,
                begun: self.moment,
                only: *only,
            }),
            Event::Synced { id } => self.end_sync(*id, &mut |_| true),
            Event::SyncFailed { id, lost } => {
                self.end_sync(*id, &mut |place| !lost.contains(&place));
            }
            Event::Fault(_) | Event::Mark(_) => {}
        }
    }

    fn push(&mut self, file: FileId, change: Change, done: bool) {
        let done = done.then_some(self.moment);
        self.pending.push(Pending { file, change, done });
    }

    fn keep_names(&mut self, dir: &Path) {
        let durable = &mut self.durable;
        self.names.retain(|op| {
            let kept = op.dir() == Some(dir);
            if kept {
                durable.rename_in(op);
            }
            !kept
        });
    }

    /// How many changes a sync covers.
    pub(super) fn covered(&self, id: u64) -> usize {
        let Some(sync) = self.syncs.iter().find(|sync| sync.id == id) else {
            return 0;
        };
        let pending = self.pending.iter();
        pending.filter(|pending| sync.covers(pending)).count()
    }

    /// Ends a sync: what it covers is kept if `keep` says so of its place, and gone for good otherwise.
    fn end_sync(&mut self, id: u64, keep: &mut dyn FnMut(usize) -> bool) {
        let Some(at) = self.syncs.iter().position(|sync| sync.id == id) else {
            return;
        };
        let sync = self.syncs.swap_remove(at);
        let durable = &mut self.durable;
        let mut places = 0..;
        self.pending.retain(|pending| {
            let covered = sync.covers(pending);
            if covered && places.next().is_some_and(&mut *keep) {
                pending.land(durable);
            }
            !covered
        });
    }

    /// The process that used the disk is gone, and the machine goes on: all it asked for ends, and what it did not see
    /// synced is still not kept. Returns what the next process sees.
    pub fn killed(&mut self) -> Image {
        self.syncs.clear();
        let seen = self.seen();
        for pending in &mut self.pending {
            pending.done.get_or_insert(self.moment);
            if let Change::Write { id, .. } = &mut pending.change {
                // The next process numbers its own.
                self.killed_writes += 1;
                *id = u64::MAX - self.killed_writes;
            }
        }
        seen
    }

    /// What is seen if everything pending is.
    pub(super) fn seen(&self) -> Image {
        let mut seen = self.durable.clone();
        for op in &self.names {
            seen.rename_in(op);
        }
        for pending in &self.pending {
            pending.land(&mut seen);
        }
        seen
    }

    /// Units that may survive or not.
    #[must_use]
    pub fn units(&self) -> usize {
        self.pending.iter().map(Pending::units).sum()
    }

    /// The units, of [`Shadow::units`], whose survival can be told from the bytes.
    #[must_use]
    pub fn telling_units(&self) -> Vec<usize> {
        let mut telling = Vec::new();
        let mut unit = 0;
        for (at, pending) in self.pending.iter().enumerate() {
            let before = self.pending.get(..at).unwrap_or_default();
            let units = pending.units();
            let content = self.durable.content(pending.file);
            telling.extend((0..units).filter_map(|sector| {
                let alone = || !before.iter().any(|other| other.touches(pending, sector));
                let there = content.is_some_and(|content| pending.is_there(content, sector));
                (!there || !alone()).then_some(unit + sector)
            }));
            unit += units;
        }
        telling
    }

    /// Changes of names that may survive or not.
    #[must_use]
    pub fn pending_names(&self) -> usize {
        self.names.len()
    }

    /// What is kept for sure, and nothing else.
    #[must_use]
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// The name by which a file is seen.
    #[must_use]
    pub fn name(&self, file: FileId) -> Option<PathBuf> {
        let mut seen = self.durable.clone();
        self.names.iter().for_each(|op| seen.rename_in(op));
        seen.name_of(file).map(Path::to_owned)
    }

    /// What the disk holds after a power cut that keeps all changes of names and lengths, and of each pending write what
    /// `fate` says: of the file, the offset of the write, and the sector's place in it and their count.
    pub fn crash_by(&self, fate: &mut dyn FnMut(FileId, u64, usize, usize) -> Fate) -> Image {
        let mut image = self.durable.clone();
        self.names.iter().for_each(|op| image.rename_in(op));
        for pending in &self.pending {
            let (file, content) = (pending.file, image.content_mut(pending.file));
            match &pending.change {
                Change::Write { offset, data, .. } => {
                    let sectors = data.len() / SECTOR_BYTES;
                    content.put_torn(*offset, data, |sector| fate(file, *offset, sector, sectors));
                    content.len = content.len.max(offset + data.len() as u64);
                }
                Change::Resize(_) | Change::Punch(..) => pending.land(&mut image),
            }
        }
        image.drop_nameless();
        image
    }

    /// What the disk holds after a power cut now.
    pub fn crash(&self, plan: CrashPlan, dice: &mut Dice<'_>) -> Image {
        let mut image = self.durable.clone();
        let first = match plan.names {
            Names::All | Names::Any => self.names.len(),
            Names::Nothing => 0,
            Names::First => {
                let some = dice() % (self.names.len() as u64 + 1);
                usize::try_from(some).unwrap_or(0)
            }
        };
        for op in self.names.iter().take(first) {
            if plan.names != Names::Any || dice().is_multiple_of(2) {
                image.rename_in(op);
            }
        }
        let mut unit = 0;
        for pending in &self.pending {
            let units = pending.units();
            let whole = matches!(plan.survival, Survival::Changes(chances) if dice() % 256 < u64::from(chances));
            let mut survives = |at: usize| match plan.survival {
                Survival::All => true,
                Survival::Nothing => false,
                Survival::Units(chances) => dice() % 256 < u64::from(chances),
                Survival::Changes(_) => whole,
                Survival::First(count) => at < count,
                Survival::Last(skipped) => at >= skipped,
                Survival::Mask(mask) => at < 64 && mask >> at & 1 == 1,
            };
            let fates: Vec<bool> = (unit..unit + units).map(&mut survives).collect();
            unit += units;
            pending.crash(&mut image, &fates, plan.garbage, dice);
        }
        image.drop_nameless();
        image
    }
}

impl Pending {
    fn is_write(&self, wanted: u64) -> bool {
        matches!(self.change, Change::Write { id, .. } if id == wanted)
    }

    fn units(&self) -> usize {
        match &self.change {
            Change::Write { data, .. } => data.len() / SECTOR_BYTES,
            Change::Resize(_) | Change::Punch(..) => 1,
        }
    }

    /// Whether this may change the bytes under a sector of another change.
    fn touches(&self, other: &Self, sector: usize) -> bool {
        let Change::Write { offset, .. } = &other.change else {
            return true;
        };
        let at = offset + (sector * SECTOR_BYTES) as u64;
        self.file == other.file
            && match &self.change {
                Change::Write { offset, data, .. } => {
                    (*offset..offset + data.len() as u64).contains(&at)
                }
                Change::Resize(_) | Change::Punch(..) => true,
            }
    }

    /// Whether the content has the bytes of this sector already.
    fn is_there(&self, content: &Content, sector: usize) -> bool {
        let Change::Write { offset, data, .. } = &self.change else {
            return false;
        };
        // Contents are read in whole blocks.
        let from = sector * SECTOR_BYTES;
        let in_block = from % crate::Buf::ALIGN;
        let mut block = [0; crate::Buf::ALIGN];
        content.read(offset + (from - in_block) as u64, &mut block);
        let inside = offset + (from + SECTOR_BYTES) as u64 <= content.len;
        inside
            && data.get(from..from + SECTOR_BYTES) == block.get(in_block..in_block + SECTOR_BYTES)
    }

    /// Makes all of it part of `image`.
    fn land(&self, image: &mut Image) {
        let content = image.content_mut(self.file);
        match &self.change {
            Change::Write { offset, data, .. } => {
                content.put(*offset, data, 0, data.len());
                content.len = content.len.max(offset + data.len() as u64);
            }
            Change::Resize(len) => content.set_len(*len),
            Change::Punch(offset, len) => content.forget(*offset, offset + len),
        }
    }

    /// Makes those units of it part of `image` that survive.
    fn crash(&self, image: &mut Image, survives: &[bool], garbage: bool, dice: &mut Dice<'_>) {
        let Change::Write { offset, data, .. } = &self.change else {
            if survives == [true] {
                self.land(image);
            }
            return;
        };
        if survives.iter().all(|survives| *survives) {
            return self.land(image);
        }
        if !garbage && survives.iter().all(|survives| !*survives) {
            return;
        }
        let content = image.content_mut(self.file);
        let mut end = 0;
        content.put_torn(*offset, data, |sector| {
            let fate = match survives[sector] {
                true => Fate::New,
                // Rarely: one sector of a transfer is being written at a time.
                false if garbage && dice().is_multiple_of(16) => Fate::Garbage(dice()),
                false => Fate::Old,
            };
            if fate != Fate::Old {
                end = (sector + 1) * SECTOR_BYTES;
            }
            fate
        });
        // A file that grows by a write has its new length with the last of it that survived, or not at all.
        let grown = offset + end.next_multiple_of(crate::Buf::ALIGN) as u64;
        if end > 0 && grown > content.len {
            match dice().is_multiple_of(2) {
                true => content.len = grown,
                false => content.forget(content.len, u64::MAX),
            }
        }
    }
}
