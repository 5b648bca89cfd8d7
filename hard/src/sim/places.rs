//! Where in a trace of the engine the model's process would be: told by the syncs around it.

use std::ops::Range;

use northstar_io::sim::Event;

use super::story::Story;
use crate::protocol::model::{At, Kind, Process};

/// Work of the engine, from one of the model's acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// The first is what the life begins with, others come after a failure.
    Open,
    Commit,
    Checkpoint,
    Close,
    /// Any of them, in which a sync failed; it set so many marks.
    Failed(usize),
}

/// What a sync is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// The data file, without a meta page in it.
    Pages,
    /// The data file, with one.
    Metas,
    /// A segment of the log.
    Segment,
    /// A segment that has no name yet.
    NewSegment,
}

/// The syncs in a trace, and where its steps end.
pub(super) struct Syncs {
    /// Place of each.
    syncs: Vec<(usize, For)>,
    marks: Vec<usize>,
    /// Behind the sync that failed.
    failed: usize,
    events: usize,
}

impl Syncs {
    pub(super) fn of(story: &Story) -> Self {
        let mut disk = story.beginning.disk.clone();
        let mut all = Self {
            syncs: Vec::new(),
            marks: Vec::new(),
            failed: 0,
            events: story.events.len(),
        };
        let mut metas = false;
        let metas_end = 4 * u64::from(story.setup.page_bytes);
        for (place, event) in story.events.iter().enumerate() {
            disk.apply(event);
            match event {
                Event::Write { file, offset, .. } if *offset < metas_end => {
                    metas |= disk.name(*file).is_some_and(|name| name.ends_with("data"));
                }
                Event::SyncBegun { file, .. } => {
                    let name = disk.name(*file).unwrap_or_default();
                    let what = match name.extension() {
                        Some(end) if end == "seg" => For::Segment,
                        Some(_) => For::NewSegment,
                        None if std::mem::take(&mut metas) => For::Metas,
                        None => For::Pages,
                    };
                    all.syncs.push((place, what));
                }
                Event::SyncFailed { .. } => all.failed = place + 1,
                Event::Mark(_) => all.marks.push(place),
                Event::Write { .. }
                | Event::Names(_)
                | Event::DirSynced(_)
                | Event::Resized { .. }
                | Event::Punched { .. }
                | Event::Done { .. }
                | Event::Gone { .. }
                | Event::Synced { .. }
                | Event::Fault(_) => {}
            }
        }
        all
    }

    /// Where each operation begins and ends: told by the marks that the story sets.
    pub(super) fn spans(&self, ops: &[Op]) -> Vec<Range<usize>> {
        let (mut from, mut marks) = (0, 0);
        let mut span = |op: &Op| {
            // A close sets one mark, and then those of the opening that follows it at once.
            marks += match op {
                Op::Open | Op::Commit => 2,
                Op::Checkpoint | Op::Close => 1,
                Op::Failed(marks) => *marks,
            };
            let behind = |at: usize| self.marks.get(at).map_or(self.events, |mark| mark + 1);
            let to = marks.checked_sub(1).map_or(0, behind).max(from);
            let to = if matches!(op, Op::Failed(_)) {
                to.max(self.failed)
            } else {
                to
            };
            std::mem::replace(&mut from, to)..to
        };
        ops.iter().map(&mut span).collect()
    }

    /// How many syncs of the same file, the data file or the log, come before a place.
    pub(super) fn before(&self, place: usize, data: bool) -> u64 {
        let same = |what: For| matches!(what, For::Pages | For::Metas) == data;
        let before = self.syncs.iter().filter(|sync| sync.0 < place);
        before.filter(|sync| same(sync.1)).count() as u64
    }

    /// Where the engine is when the model's process is where it is: right before a sync. None if it has no such place.
    pub(super) fn place(&self, ops: &[Op], process: Process) -> Option<usize> {
        let spans = self.spans(ops);
        let span = spans.last()?.clone();
        let within = |span: Range<usize>, wanted: fn(For) -> bool| {
            let inside = self.syncs.iter().filter(move |sync| span.contains(&sync.0));
            inside.filter(move |sync| wanted(sync.1)).map(|sync| sync.0)
        };
        let is_data = |what| matches!(what, For::Pages | For::Metas);
        // Whatever opening does may come with the first commit.
        let opened = ops.iter().rposition(|op| *op == Op::Open)?;
        let opening = spans[opened].start..spans.get(opened + 1).unwrap_or(&span).end;
        let settle = within(opening.clone(), is_data).next();
        if process.open_group {
            return within(span, |what| what == For::Segment).next_back();
        }
        match (process.at, process.kind) {
            (At::Found, _) => Some(opening.start),
            (At::CutWritten, _) => {
                within(opening.start..settle?, |what| what == For::Segment).next()
            }
            (At::SettleWritten, _) => settle,
            (At::Idle | At::Begun, _) => Some(span.end),
            (At::PagesWritten | At::MetasWritten, Kind::InUse) => {
                within(settle? + 1..opening.end, |what| what == For::Metas).next()
            }
            (at, kind) => {
                let flips: Vec<usize> = within(span.clone(), |what| what == For::Metas).collect();
                let flip = match kind {
                    Kind::FirstSlice => flips.first(),
                    Kind::LastSlice => flips.iter().rev().nth(1),
                    Kind::InUse | Kind::Empty | Kind::Close => flips.last(),
                };
                match at == At::MetasWritten {
                    true => flip.copied(),
                    false => within(span.start..*flip?, is_data).next_back(),
                }
            }
        }
    }
}
