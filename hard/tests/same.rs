//! The same seed does the same again, to the last operation.
//!
//! One test in a process of its own: threads of a process share its epochs, so another test's reader may hold back a frame of
//! the page cache, and then a page is read once more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nshard::jobs::simulate;
use nshard::sim::restored;
use nshard::sim::script::Plan;

#[test]
fn the_same_seed_does_the_same() {
    for (seed, faults) in [(3, false), (4, true)] {
        let plan = |seed| Plan {
            cuts: 20,
            faults,
            ..Plan::of(seed)
        };
        let (once, again) = (
            simulate(&plan(seed)).unwrap(),
            simulate(&plan(seed)).unwrap(),
        );
        assert_eq!(once, again, "seed {seed}");
        assert_ne!(once.hash, simulate(&plan(seed + 9)).unwrap().hash);
    }
    let (once, again) = (restored::run(3).unwrap(), restored::run(3).unwrap());
    assert_eq!(once, again);
}
