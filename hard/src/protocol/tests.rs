//! The modelled protocol keeps what it promises, in every order of events; each of its twins does not.

use std::collections::BTreeSet;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use super::Protocol;
use super::model::{Act, World};
use super::twins::{TWINS, Twin};

fn protocol(direct: bool, twin: Option<Twin>) -> Protocol {
    Protocol {
        twin,
        direct,
        threads: true,
        txns: 3,
        generations: 7,
        lives: 3,
        failures: 1,
        rots: 0,
    }
}

/// Searches until all was seen, or a claim failed.
fn search(protocol: Protocol) -> impl Checker<Protocol> {
    let whole = protocol.checker().threads(2);
    let until = whole.finish_when(HasDiscoveries::AnyFailures);
    until.spawn_bfs().join()
}

/// The claims that must always hold and do not, each with the shortest way there.
fn refuted(done: &impl Checker<Protocol>) -> Vec<(&'static str, Path<World, Act>)> {
    let found = done.discoveries().into_iter();
    let broken = |name: &str| {
        let mut properties = done.model().properties().into_iter();
        properties.any(|claim| claim.name == name && claim.expectation == Expectation::Always)
    };
    found.filter(|(name, _)| broken(name)).collect()
}

/// A shortest way to where a twin without threads breaks a promise: each act with the world before it.
pub(crate) fn counterexample(twin: Twin) -> (Protocol, Vec<(World, Act)>) {
    for direct in [false, true] {
        let protocol = Protocol {
            threads: false,
            ..protocol(direct, Some(twin))
        };
        if let Some((_, path)) = refuted(&search(protocol)).pop() {
            let steps = path.into_vec().into_iter();
            let steps = steps.filter_map(|(world, act)| Some((world, act?)));
            return (protocol, steps.collect());
        }
    }
    panic!("{twin:?} was not refuted");
}

/// Searches all there is, and gives what it came by.
fn hold(protocol: Protocol, states: usize) -> BTreeSet<&'static str> {
    let done = search(protocol);
    if let Some((claim, path)) = refuted(&done).pop() {
        panic!("{claim}: no, {protocol:?}\n{:#?}", path.into_actions());
    }
    assert!(done.is_done());
    let seen = done.unique_state_count();
    assert!(seen > states, "{seen} states of {protocol:?}");
    done.discoveries().into_keys().collect()
}

fn names(protocol: Protocol, expectation: &Expectation) -> BTreeSet<&'static str> {
    let claims = protocol.properties().into_iter();
    let of_kind = claims.filter(|claim| claim.expectation == *expectation);
    of_kind.map(|claim| claim.name).collect()
}

#[test]
fn the_protocol_keeps_its_promises_though_a_sync_fails() {
    for (direct, states) in [(false, 300_000), (true, 150_000)] {
        let protocol = protocol(direct, None);
        let met = hold(protocol, states);
        assert_eq!(met, names(protocol, &Expectation::Sometimes));
    }
}

#[test]
fn the_protocol_keeps_its_promises_though_a_meta_slot_rots() {
    let rotting = |direct, generations| Protocol {
        generations,
        failures: 0,
        rots: 1,
        ..protocol(direct, None)
    };
    let mut met = hold(rotting(false, 6), 300_000);
    met.extend(hold(rotting(true, 7), 300_000));
    assert_eq!(met, names(rotting(true, 7), &Expectation::Sometimes));
}

#[test]
fn the_protocol_keeps_its_promises_through_many_short_lives() {
    let protocol = Protocol {
        txns: 2,
        generations: 5,
        lives: 4,
        failures: 0,
        ..protocol(false, None)
    };
    hold(protocol, 200_000);
}

#[test]
fn every_twin_of_the_protocol_breaks_a_promise() {
    for twin in TWINS {
        let (_, path) = counterexample(*twin);
        assert!(path.len() > 5, "{twin:?} is refuted by {path:?}");
    }
}

#[test]
fn a_claim_fails_where_it_should() {
    // The twins that lose acknowledged transactions do so by that name, and not by another.
    let done = search(protocol(true, Some(Twin::AckBeforeSync)));
    let (claim, path) = refuted(&done).swap_remove(0);
    assert_eq!(claim, "what was acknowledged is found");
    let acts = path.into_actions();
    let last = acts.iter().rposition(|act| *act == Act::Commit);
    let behind = &acts[last.expect("something was committed")..];
    assert!(!behind.contains(&Act::LogSynced), "{acts:?}");
}
