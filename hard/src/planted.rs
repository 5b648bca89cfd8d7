//! Faults that the engine's sources carry on purpose, and what must find each.
//!
//! A test that has never failed proves nothing. So each of these is turned on in a build made for it, and the job named
//! with it must fail within its budget of seeds. Spec: HD-010.

/// What looks for a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// Power cuts on a simulated disk.
    Power,
    /// The same on a disk with faults.
    Faults,
    /// The i-th operation of the disk fails.
    Nth,
    /// Bits that flip at rest.
    Rot,
    /// Restores that are cut off.
    Restores,
    /// Random work beside the model, on a real file.
    Model,
    /// The ways that the model of the protocol can go.
    Protocol,
    /// Interleavings of the whole engine.
    Schedules,
    /// Models of the lock-free parts; a seed is one of them.
    Orders,
}

/// A fault, and what must find it.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// What is wrong: the name it has in the engine's sources.
    pub what: &'static str,
    /// What looks for it.
    pub finder: Finder,
    /// Seeds within which it must be found.
    pub budget: u64,
}

const fn power(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Power,
        budget,
    }
}

const fn faults(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Faults,
        budget,
    }
}

const fn nth(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Nth,
        budget,
    }
}

const fn rot(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Rot,
        budget,
    }
}

const fn model(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Model,
        budget,
    }
}

const fn schedules(what: &'static str, budget: u64) -> Planted {
    Planted {
        what,
        finder: Finder::Schedules,
        budget,
    }
}

/// All of them.
pub const PLANTED: &[Planted] = &[
    power(
        "pages are not synced before the meta page that names them",
        400,
    ),
    power("a commit is acknowledged before it is flushed", 400),
    faults("a page's generation is not checked against its parent", 400),
    rot("a page's checksum is not checked", 100),
    power("pages are used again one generation early", 400),
    rot("a damaged log is cut in its middle", 100),
    nth("one bad reading ends the log", 20),
    model("the last record of a group is not replayed", 100),
    power(
        "the oldest snapshot is taken for one generation younger",
        400,
    ),
    nth("a failed flush is tried again", 20),
    nth("the log goes on after a failed write", 20),
    rot("a meta page's checksum is not checked", 100),
    power("a group may be of another place and time", 400),
    nth("a short transfer is taken for whole", 20),
    power("names that were found are not made durable", 2_000),
    power("the name of a new segment is not made durable", 400),
    model("a separator is one byte too short", 50),
    model("a range delete takes its end with it", 50),
    model("range deletes are not merged", 50),
    power(
        "a slice goes on behind the key where the last one ended",
        400,
    ),
    faults(
        "room in the log is not claimed before a batch is applied",
        400,
    ),
    rot("the log is recycled one checkpoint early", 400),
    power("the log moves on with every slice", 400),
    power("the log and its cut are not made durable", 400),
    nth("a commit is visible before it is durable", 20),
    power("what opening found is not made durable", 400),
    power("a torn copy of a meta page is not mended", 400),
    power("the word of a clean close is not taken back", 400),
    power("a clean close is believed without its older slot", 400),
    faults(
        "a failed try to take the word of a clean close back counts",
        2_000,
    ),
    nth("after a failed sync the system's memory is believed", 40),
    power("the newest meta slot is written over", 400),
    Planted {
        what: "pages of the older meta slot are free after opening",
        finder: Finder::Protocol,
        budget: 200,
    },
    model("a snapshot sees what came after it", 20),
    model("what was taken back is seen", 50),
    model("the pages of a replaced value are never free again", 200),
    model("a row ends with the newest change, not with the first", 20),
    model("what came and went within a delta is not kept", 20),
    model("history is kept of a table without it", 100),
    model("the past of a table without history is read", 100),
    model(
        "a snapshot of a table without history is moved to history",
        200,
    ),
    model("a large value of history is given back with its row", 50),
    model("a version is seen before it was written", 50),
    model("a walk shows what had ended", 20),
    model("a leaf says nothing of its deletes", 100),
    model("the horizon stays where it was", 50),
    model("a row that ends stays in the digest of the state", 20),
    model("a snapshot that was moved goes on with its old pages", 50),
    power("a snapshot is moved that needs what is not merged", 1_000),
    model("subscribers do not hold the log", 50),
    model("the log is held for one subscriber", 200),
    model("an older acknowledgement takes a newer one back", 20),
    model("an increment leaves out its first transaction", 20),
    model("a copy gives ids of tables that it has seen again", 20),
    Planted {
        what: "a restore opens before all rows are there",
        finder: Finder::Restores,
        budget: 20,
    },
    power("a tree begun anew knows of no deletes", 2_000),
    schedules("a snapshot does not look again", 10_000),
    schedules("a frame is reused under its readers", 5_000),
    schedules("a pinned frame is reused", 40_000),
    schedules("the writer role is given back without a look", 30_000),
    schedules("the log role is given back without a look", 5_000),
    schedules("a waiter that has just parked is not woken", 5_000),
    schedules("a checkpoint is waited for that will never come", 10_000),
    schedules("closing does not wait for who writes first", 30_000),
    schedules("the log thread ends without another look", 60_000),
    Planted {
        what: "a reader does not notice a split",
        finder: Finder::Orders,
        budget: 11,
    },
    Planted {
        what: "who waits for a commit does not look first",
        finder: Finder::Orders,
        budget: 11,
    },
];

#[cfg(feature = "planted")]
pub use on::{Found, find};

#[cfg(feature = "planted")]
mod on {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{Finder, Planted};
    use crate::jobs;
    use crate::sched::run::Runner;
    use crate::sim::script::Plan;
    use crate::sim::{nth, paths, restored, rot, storm};
    use crate::{During, Failure, run};

    /// How a fault was found.
    #[derive(Debug, Clone)]
    pub struct Found {
        /// The seed that found it; none did if it is absent.
        pub seed: Option<u64>,
        /// The broken promise, in its first line.
        pub how: String,
        /// The engine has come by the fault.
        pub reached: bool,
    }

    /// Turns a fault on in this process and looks for it.
    ///
    /// # Errors
    /// Of the harness only.
    pub fn find(fault: &Planted) -> Result<Found, Failure> {
        northstar_io::planted::plant(Some(fault.what));
        let mut found = Found {
            seed: None,
            how: String::new(),
            reached: false,
        };
        let mut runner = Runner::default();
        for seed in 1..=fault.budget {
            // A fault may also end in a panic of the engine.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                try_seed(fault.finder, seed, &mut runner)
            }));
            let failure = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(failure @ Failure::Harness { .. })) => return Err(failure),
                Ok(Err(failure)) => crate::chain(&failure),
                Err(_) => "the engine panicked".to_owned(),
            };
            found.reached = northstar_io::planted::times_asked() > 0;
            found.seed = Some(seed);
            found.how = failure.lines().next().unwrap_or_default().to_owned();
            // It must be the fault that was found: without it the same seed breaks nothing.
            northstar_io::planted::plant(None);
            try_seed(fault.finder, seed, &mut Runner::default())?;
            return Ok(found);
        }
        found.reached = northstar_io::planted::times_asked() > 0;
        Ok(found)
    }

    fn try_seed(finder: Finder, seed: u64, runner: &mut Runner) -> Result<(), Failure> {
        match finder {
            Finder::Power => storm::run(&Plan::of(seed)).map(drop),
            Finder::Faults => storm::run(&jobs::faults_plan(seed)).map(drop),
            Finder::Nth => nth::run(seed).map(drop),
            Finder::Rot => rot::run(seed).map(drop),
            Finder::Restores => restored::run(seed).map(drop),
            Finder::Model => {
                let dir = tempfile::tempdir().during("make a directory")?;
                run::run_seed(seed, 300, dir.path()).map(drop)
            }
            Finder::Protocol => paths::run(seed..seed + 1).map(drop),
            Finder::Schedules => runner.run(seed).map(drop),
            Finder::Orders => jobs::model_of(seed).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::PLANTED;

    fn sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_planted_fault_is_in_the_sources_and_every_site_in_the_table() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut text = String::new();
        for part in ["engine/src", "io/src"] {
            sources(&root.join(part), &mut text);
        }
        let mut left = text.matches("planted(\"").count();
        for fault in PLANTED {
            let sites = text
                .matches(&format!("planted(\"{}\")", fault.what))
                .count();
            assert!(sites > 0, "{:?} is not in the sources", fault.what);
            left -= sites;
        }
        assert_eq!(
            left, 1,
            "sites without a row in the table; one is in the module's own words"
        );
        assert!(PLANTED.len() >= 20);
    }
}
