//! What a process does, and what befalls it.

use std::ops::Range;

use stateright::{Model, Property};

use super::Protocol;
use super::disk::{
    BLANK, Block, Cell, DATA, Found, Head, LOG, METAS, Meta, Page, SLOTS, Txn, slot,
};
use super::twins::Twin;

/// How far a process is with opening, then with the generation it builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum At {
    #[default]
    Found,
    CutWritten,
    SettleWritten,
    Idle,
    Begun,
    PagesWritten,
    MetasWritten,
}

/// What the generation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Kind {
    #[default]
    InUse,
    FirstSlice,
    LastSlice,
    Empty,
    Close,
}

/// A process that has the database open. `found` is what it knows to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Process {
    pub(crate) at: At,
    pub(crate) kind: Kind,
    pub(crate) found: Found,
    /// A group is written and not synced.
    pub(crate) open_group: bool,
    /// The meta page to be, and the last transaction of the delta that is merged.
    next: Meta,
    frozen: Txn,
}

/// The whole world: a disk, a process, and what users know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct World {
    pub(crate) cells: Vec<Cell>,
    pub(crate) process: Option<Process>,
    /// The life that made each transaction which may be found, and how many must be.
    pub(crate) history: Vec<u8>,
    pub(crate) acked: usize,
    pub(crate) lives: u8,
    pub(crate) failures: u8,
    pub(crate) rots: u8,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Open,
    /// Opening, or the generation being built, comes to its next step.
    Advance,
    Commit,
    LogSynced,
    Checkpoint,
    Close,
    /// A sync that is due fails and loses the writes of these cells.
    SyncFails(u16),
    /// The process alone goes.
    Kill,
    /// The power is cut, and this is which of all outcomes it has.
    PowerCut(usize),
    /// A meta slot rots while the other is sound.
    Rot(u8),
}

impl World {
    pub(crate) fn view(&self) -> impl Fn(usize) -> Block {
        |cell| self.cells[cell].seen
    }

    fn sync(&mut self, cells: Range<usize>) {
        let cells = self.cells[cells].iter_mut();
        cells.for_each(|cell| cell.sync(false, true));
    }

    fn pending(&self, cells: Range<usize>) -> u16 {
        let pending = |cell: &usize| !self.cells[*cell].pending.is_empty();
        cells.filter(pending).fold(0, |mask, cell| mask | 1 << cell)
    }

    /// What was found is shown: from now on nothing else may be found.
    fn show(&mut self, end: Txn) {
        self.history.truncate(end.number.into());
        self.acked = end.number.into();
    }
}

impl Process {
    fn is_building(&self) -> bool {
        matches!(self.at, At::Begun | At::PagesWritten | At::MetasWritten)
    }

    /// Begins a generation.
    fn begin(&mut self, kind: Kind) {
        if kind != Kind::LastSlice {
            self.frozen = self.found.end;
        }
        self.next = self.found.newest;
        self.next.generation += 1;
        self.next.clean = kind == Kind::Close;
        if matches!(kind, Kind::LastSlice | Kind::Close) {
            self.next.start = self.frozen;
        }
        (self.at, self.kind) = (At::Begun, kind);
    }
}

impl Protocol {
    fn write_meta(&self, world: &mut World, meta: Meta) {
        let slot = usize::from(meta.generation % 2 * u8::from(!self.is(Twin::OneSlot)));
        for copy in [slot, slot + 2] {
            world.cells[copy].write(Head::Meta(meta));
        }
    }

    /// The next step of opening. Spec: CC-022, CC-024, FF-010.
    fn recover(&self, world: &mut World, me: &mut Process) {
        let Found { newest, older, end } = me.found;
        let memory = !self.direct && !self.is(Twin::CacheTrusted);
        // Zeros that memory shows may be all there is of them.
        let deceives = memory && !self.is(Twin::ZerosTrusted);
        let blank = |cell: &Cell| cell.seen == BLANK && !deceives;
        if me.at == At::Found {
            if memory && end != newest.start {
                // A copy takes the place of the last group; all before are proven durable by it.
                let cell = &mut world.cells[slot(end.number)];
                (cell.kept, cell.pending) = (cell.seen, Vec::new());
            }
            for cell in &mut world.cells[LOG] {
                let needed = |txn: Txn| txn.number <= end.number;
                let needed = matches!(cell.seen, (Head::Group(txn, _), false) if needed(txn));
                if !needed && !blank(cell) {
                    cell.write(Head::Zeros);
                }
            }
            me.at = At::CutWritten;
        } else if me.at == At::CutWritten {
            if !self.is(Twin::CutLazily) {
                world.sync(LOG);
            }
            for copy in METAS {
                let own = copy % 2 == usize::from(newest.generation % 2);
                let mend = match self.meta(world.cells[copy].seen) {
                    Some(meta) => own && meta != newest && !self.is(Twin::StaleKept),
                    None => !blank(&world.cells[copy]) && !self.is(Twin::TornKept),
                };
                if mend {
                    world.cells[copy].write(if own { Head::Meta(newest) } else { Head::Zeros });
                }
            }
            if memory && (older.is_some() || self.is(Twin::LoneRewritten)) {
                self.write_meta(world, newest);
            }
            me.at = At::SettleWritten;
        } else {
            if !self.is(Twin::Unsettled) {
                world.sync(DATA);
            }
            me.at = At::Idle;
            if newest.clean || (memory && older.is_none()) {
                me.begin(Kind::InUse);
            } else {
                world.show(end);
            }
        }
    }

    /// The next step of a generation. Spec: CC-010, CC-011.
    fn build(&self, world: &mut World, me: &mut Process) {
        if me.at == At::Begun && matches!(me.kind, Kind::FirstSlice | Kind::LastSlice) {
            let page = self.free_page(me.found).expect("it was looked for before");
            let (generation, life) = (me.next.generation, world.lives);
            let holds = me.frozen;
            let content = Page {
                generation,
                life,
                holds,
            };
            world.cells[page].write(Head::Page(content));
            me.next.roots[usize::from(me.kind == Kind::LastSlice)] = Some((page, content));
            if self.is(Twin::StartEarly) {
                me.next.start = me.frozen;
            }
            me.at = At::PagesWritten;
        } else if me.at != At::MetasWritten {
            if me.at == At::PagesWritten && !self.is(Twin::MetaBeforePages) {
                world.sync(DATA);
            }
            me.next.through = me.found.end.number;
            self.write_meta(world, me.next);
            me.at = At::MetasWritten;
        } else {
            world.sync(DATA);
            (me.found.older, me.found.newest) = (Some(me.found.newest), me.next);
            match me.kind {
                Kind::FirstSlice => return me.begin(Kind::LastSlice),
                Kind::LastSlice => return me.begin(Kind::Empty),
                Kind::InUse => world.show(me.found.end),
                Kind::Empty | Kind::Close => {}
            }
            me.at = At::Idle;
        }
    }

    /// A page that neither slot reaches. Spec: CC-012.
    fn free_page(&self, found: Found) -> Option<usize> {
        let older = found.older.filter(|_| !self.is(Twin::PageEarly));
        let metas = older.into_iter().chain([found.newest]);
        let roots = metas.flat_map(|meta| meta.roots).flatten();
        let reached: Vec<usize> = roots.map(|(page, _)| page).collect();
        DATA.skip(METAS.end).find(|page| !reached.contains(page))
    }

    /// Whether the place of the next group holds nothing that a meta slot still needs. Spec: CC-013.
    fn log_has_room(&self, found: Found) -> bool {
        let older = found.older.filter(|_| !self.is(Twin::LogEarly));
        found.end.number < older.unwrap_or(found.newest).start.number + SLOTS
    }

    /// What a process may do by itself.
    pub(crate) fn steps(&self, me: Process, acts: &mut Vec<Act>) {
        let Found { newest, end, .. } = me.found;
        let more = newest.generation < self.generations;
        let page = self.free_page(me.found).is_some();
        if me.at != At::Idle && (me.at != At::Begun || more && page) {
            acts.extend((self.threads || !me.open_group).then_some(Act::Advance));
        }
        let serves =
            self.threads && matches!(me.kind, Kind::FirstSlice | Kind::LastSlice | Kind::Empty);
        let serves = me.at == At::Idle || serves && me.is_building();
        let commits = serves && end.number < self.txns && self.log_has_room(me.found);
        if me.open_group {
            acts.push(Act::LogSynced);
        } else if commits {
            acts.push(Act::Commit);
        }
        if me.at == At::Idle && more && (self.threads || !me.open_group) {
            if end != newest.start || !self.log_has_room(me.found) {
                acts.push(Act::Checkpoint);
            } else if !me.open_group {
                acts.push(Act::Close);
            }
        }
    }

    /// What the process itself does in `world`.
    fn perform(&self, world: &mut World, mut me: Process, act: Act) {
        let (number, life) = (me.found.end.number + 1, world.lives);
        let next = Txn { number, life };
        match act {
            Act::Commit => {
                world.cells[slot(next.number)].write(Head::Group(next, me.found.end.life));
                world.history.push(next.life);
                me.open_group = true;
            }
            Act::LogSynced => {
                world.sync(LOG);
                (me.found.end, me.open_group) = (next, false);
            }
            Act::Checkpoint if me.found.end == me.found.newest.start => me.begin(Kind::Empty),
            Act::Checkpoint => me.begin(Kind::FirstSlice),
            Act::Close => me.begin(Kind::Close),
            Act::Advance if me.is_building() => self.build(world, &mut me),
            Act::Advance => self.recover(world, &mut me),
            Act::Open | Act::SyncFails(_) | Act::Kill | Act::PowerCut(_) | Act::Rot(_) => {}
        }
        if act == Act::LogSynced || (act == Act::Commit && self.is(Twin::AckBeforeSync)) {
            world.acked = world.history.len();
        }
        let closed = me.at == At::Idle && me.found.newest.clean;
        world.process = (!closed).then_some(me);
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let mut cells = vec![Cell::default(); LOG.end];
        for copy in METAS {
            let mut meta = Meta::default();
            (meta.generation, meta.clean) = (u8::from(copy % 2 == 1), true);
            cells[copy].write(Head::Meta(meta));
            cells[copy].sync(false, true);
        }
        let rest = World::default();
        vec![World { cells, ..rest }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        if let Some(me) = world.process {
            self.steps(me, acts);
            acts.push(Act::Kill);
            let log = me.open_group || me.at == At::CutWritten;
            let data = me.is_building() || me.at == At::SettleWritten;
            for (due, cells) in [(log, LOG), (data, DATA)] {
                let pending = world.pending(cells);
                let due = due && world.failures < self.failures;
                let lost = (1..=pending).filter(|lost| due && lost & !pending == 0);
                acts.extend(lost.map(Act::SyncFails));
            }
        } else {
            let opens = world.lives < self.lives && self.read(world.view()).is_ok();
            acts.extend(opens.then_some(Act::Open));
            let sound = |copy: usize| self.meta(world.cells[copy].kept).is_some();
            let sound = (sound(0) || sound(2)) && (sound(1) || sound(3));
            if world.rots < self.rots && world.pending(METAS) == 0 && sound {
                acts.extend([Act::Rot(0), Act::Rot(1)]);
            }
        }
        let outcomes = world.cells.iter().map(|cell| cell.outcomes().len());
        acts.extend((0..outcomes.product()).map(Act::PowerCut));
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        match act {
            Act::Open => {
                let found = self.read(world.view()).ok()?;
                next.lives += 1;
                // After a clean close, what was found is shown before anything is written.
                let clean = found.newest.clean && found.older.is_some();
                if clean || (self.is(Twin::ShownEarly) && found.end == found.newest.start) {
                    next.show(found.end);
                }
                let rest = Process::default();
                next.process = Some(Process { found, ..rest });
            }
            Act::SyncFails(lost) => {
                let cells = if lost >> LOG.start == 0 { DATA } else { LOG };
                for cell in cells {
                    next.cells[cell].sync(lost >> cell & 1 == 1, !self.direct);
                }
                next.failures += 1;
                next.process = world.process.filter(|_| self.is(Twin::SyncRetried));
            }
            Act::PowerCut(mut outcome) => {
                for cell in &mut next.cells {
                    let all = cell.outcomes();
                    cell.kept = all[outcome % all.len()];
                    (cell.seen, cell.pending) = (cell.kept, Vec::new());
                    outcome /= all.len();
                }
                next.process = None;
            }
            Act::Rot(slot) => {
                for copy in [slot, slot + 2].map(usize::from) {
                    let rotten = (Head::Zeros, true);
                    (next.cells[copy].kept, next.cells[copy].seen) = (rotten, rotten);
                }
                next.rots += 1;
            }
            Act::Kill => next.process = None,
            Act::Advance | Act::Commit | Act::LogSynced | Act::Checkpoint | Act::Close => {
                self.perform(&mut next, world.process?, act);
            }
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::claims::claims()
    }
}
