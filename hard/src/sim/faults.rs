//! Which faults a life meets: a few, of a few kinds, at operations drawn by dice.
//!
//! - Source: Groce et al., "Swarm testing" (2012): runs that each know only some of the faults find more together.

use northstar_io::sim::{Fault, FaultPlan, Kept, Rule, What};

use super::setup::SimSetup;
use crate::rng::Rng;

/// Errors of operations that a disk gives in good faith.
pub const ERRNOS: [i32; 6] = [
    libc::EIO,
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EINTR,
    libc::EAGAIN,
    libc::ECANCELED,
];

/// The faults of one life.
#[must_use]
pub fn draw(rng: &mut Rng, setup: &SimSetup) -> FaultPlan {
    let mut plan = FaultPlan::default();
    let family = rng.below(6);
    if family == 5 {
        // From hardly enough for an empty database to more than it needs.
        let least = 4 * u64::from(setup.page_bytes) + u64::from(setup.segment_bytes);
        plan.room_bytes = Some(least + rng.below(8 * u64::from(setup.segment_bytes)));
        return plan;
    }
    for _ in 0..rng.between(1, 3) {
        plan.rules.push(rule(rng, setup, family));
    }
    plan
}

fn rule(rng: &mut Rng, setup: &SimSetup, family: u64) -> Rule {
    let blocks = |rng: &mut Rng| {
        let distance = i64::from(setup.page_bytes) * rng.between(1, 4).cast_signed();
        rng.pick(&[distance, -distance])
    };
    let (what, fault) = match family {
        // Refused.
        0 => {
            let what = rng.pick(&[
                What::Any,
                What::Read,
                What::Write,
                What::Sync,
                What::Resize,
                What::Open,
                What::Name,
                What::SyncDir,
            ]);
            (what, Fault::Error(rng.pick(&ERRNOS)))
        }
        // Done in part, or done and called a failure.
        1 => match rng.below(3) {
            0 => (What::Write, Fault::Short(4096 * rng.index(3))),
            1 => (What::Read, Fault::Short(4096 * rng.index(3))),
            _ => {
                let what = rng.pick(&[What::Write, What::Sync, What::Resize]);
                (what, Fault::ErrorAfter(libc::EIO))
            }
        },
        // Syncs that fail.
        2 => {
            let kept = rng.pick(&[Kept::Nothing, Kept::All, Kept::Some]);
            (
                What::Sync,
                Fault::SyncFails(rng.pick(&[libc::EIO, libc::ENOSPC]), kept),
            )
        }
        // Bytes that come back other than they were written.
        3 => (
            What::Read,
            match rng.below(3) {
                0 => Fault::MisdirectedRead(blocks(rng)),
                1 => Fault::Stale,
                _ => Fault::Flipped(rng.below(8 * u64::from(setup.page_bytes))),
            },
        ),
        // Writes that did not happen as they were said to.
        _ => match rng.below(3) {
            0 => (What::Write, Fault::Misdirected(blocks(rng))),
            1 => (What::Write, Fault::Lost),
            _ => (What::Sync, Fault::SyncLies),
        },
    };
    let among = match what {
        What::Any => 400,
        What::Read | What::Write => 120,
        What::Sync | What::Resize | What::Open | What::Name | What::SyncDir => 40,
    };
    Rule {
        what,
        file: rng.pick(&[None, Some("data"), Some("log")]),
        after: rng.below(among),
        sticky: rng.chance(25),
        fault,
    }
}

/// The name of a kind of fault, for tallies.
#[must_use]
pub fn name(fault: Fault) -> String {
    let errno = |errno| match errno {
        libc::EIO => "EIO",
        libc::ENOSPC => "ENOSPC",
        libc::EDQUOT => "EDQUOT",
        libc::EINTR => "EINTR",
        libc::EAGAIN => "EAGAIN",
        libc::ECANCELED => "ECANCELED",
        _ => "another error",
    };
    match fault {
        Fault::Error(number) => format!("fault: {}", errno(number)),
        Fault::ErrorAfter(_) => "fault: failed though done".to_owned(),
        Fault::Short(_) => "fault: short transfer".to_owned(),
        Fault::SyncFails(_, Kept::Nothing) => "fault: sync failed, all lost".to_owned(),
        Fault::SyncFails(_, Kept::All) => "fault: sync failed, all kept".to_owned(),
        Fault::SyncFails(_, Kept::Some) => "fault: sync failed, some kept".to_owned(),
        Fault::SyncLies => "fault: lying sync".to_owned(),
        Fault::Misdirected(_) => "fault: misdirected write".to_owned(),
        Fault::Lost => "fault: lost write".to_owned(),
        Fault::MisdirectedRead(_) => "fault: misdirected read".to_owned(),
        Fault::Stale => "fault: stale read".to_owned(),
        Fault::Flipped(_) => "fault: bit flipped in a read".to_owned(),
        Fault::Slow(_) => "fault: slow operation".to_owned(),
    }
}
