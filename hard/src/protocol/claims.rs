//! What must hold in every state of the model, and what must have been come by in some.

use stateright::Property;

use super::Protocol;
use super::disk::{Cell, Found, Head, LOG, METAS, SLOTS};
use super::model::{At, World};

/// What opening would find, if nobody has the database open.
fn left(protocol: &Protocol, world: &World) -> Result<Option<Found>, &'static str> {
    match world.process {
        None => protocol.read(world.view()).map(Some),
        Some(_) => Ok(None),
    }
}

/// Whether what is left is `good`; nothing is, while a process has it open.
fn leaves(protocol: &Protocol, world: &World, good: impl Fn(&Found) -> bool) -> bool {
    left(protocol, world).is_ok_and(|found| found.is_none_or(|found| good(&found)))
}

/// Whether something is found that is `so`.
fn finds(protocol: &Protocol, world: &World, so: impl Fn(&Found) -> bool) -> bool {
    left(protocol, world).is_ok_and(|found| found.is_some_and(|found| so(&found)))
}

/// Whether a process is at that step, and what it knows is `so`.
fn is_at(world: &World, at: At, so: impl Fn(&Found) -> bool) -> bool {
    let process = world.process.filter(|process| process.at == at);
    process.is_some_and(|process| so(&process.found))
}

/// Every page that the newest or the older sound meta slot reaches is there, durably, and nothing is on its way to it.
fn reached_pages_rest(protocol: &Protocol, world: &World) -> bool {
    let views: [fn(&Cell) -> _; 2] = [|cell| cell.seen, |cell| cell.kept];
    views.into_iter().all(|view| {
        let metas = protocol.metas(|cell| view(&world.cells[cell]));
        let metas = metas
            .into_iter()
            .flat_map(|(newest, older)| older.into_iter().chain([newest]));
        let mut roots = metas.flat_map(|meta| meta.roots).flatten();
        roots.all(|(cell, page)| {
            let cell = &world.cells[cell];
            cell.pending.is_empty() && cell.kept == (Head::Page(page), false)
        })
    })
}

/// A process can always go on, and find room, until the bounds of the search.
fn goes_on(protocol: &Protocol, world: &World) -> bool {
    world.process.is_none_or(|process| {
        let mut steps = Vec::new();
        protocol.steps(process, &mut steps);
        !steps.is_empty() || process.found.newest.generation >= protocol.generations
    })
}

pub(super) fn claims() -> Vec<Property<Protocol>> {
    vec![
        Property::always("opening is never refused", |p, w| left(p, w).is_ok()),
        Property::always("what was acknowledged is found", |p, w: &World| {
            leaves(p, w, |found| usize::from(found.end.number) >= w.acked)
        }),
        Property::always("what is found is a prefix", |p, w: &World| {
            leaves(p, w, |found| {
                let last = usize::from(found.end.number).checked_sub(1);
                last.is_none_or(|last| w.history.get(last) == Some(&found.end.life))
            })
        }),
        Property::always("pages that a sound slot reaches rest", reached_pages_rest),
        Property::always("never stuck", goes_on),
        Property::sometimes("all is committed, merged and closed", |p, w| {
            finds(p, w, |found| {
                found.newest.clean && found.newest.start.number == p.txns
            })
        }),
        Property::sometimes("records are replayed", |p, w| {
            finds(p, w, |found| found.newest.start != found.end)
        }),
        Property::sometimes("a torn meta copy is met", |_, w: &World| {
            is_at(w, At::Found, |_| {
                w.cells[METAS].iter().any(|cell| cell.seen.1)
            })
        }),
        Property::sometimes("a torn group is met", |_, w: &World| {
            is_at(w, At::Found, |_| {
                w.cells[LOG].iter().any(|cell| cell.seen.1)
            })
        }),
        Property::sometimes("a place in the log is used again", |_, w: &World| {
            w.acked > usize::from(SLOTS)
        }),
        Property::sometimes(
            "a page is used again",
            |_, w: &World| matches!(w.cells[METAS.end].seen.0, Head::Page(page) if page.holds.number > 1),
        ),
        Property::sometimes(
            "an interrupted recovery is recovered from",
            |_, w: &World| {
                let lost = |found: &Found| usize::from(found.end.number) < w.history.len();
                w.lives > 2 && is_at(w, At::SettleWritten, lost)
            },
        ),
        Property::sometimes("memory shows what a failed sync lost", |p, w: &World| {
            let lost = |cell: &Cell| cell.pending.is_empty() && cell.kept != cell.seen;
            p.direct || p.failures == 0 || is_at(w, At::Found, |_| w.cells.iter().any(lost))
        }),
        Property::sometimes("a rotten slot costs nothing", |p, w: &World| {
            p.rots == 0 || w.rots > 0 && is_at(w, At::Idle, |found| found.end.number > 0)
        }),
        Property::sometimes("a clean close is not believed alone", |p, w: &World| {
            let doubted =
                |f: &Found| f.newest.clean && f.older.is_none() && f.end != f.newest.start;
            p.rots == 0 || is_at(w, At::Found, doubted)
        }),
    ]
}
