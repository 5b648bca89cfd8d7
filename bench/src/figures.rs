//! The figures the engine is held to: one line each in the table that ends a run, met or MISSED.
//!
//! A limit is a plain value or a factor of a floor measured in the same minute; ratios travel between machines, absolute
//! values do not. The numbers are in the profile, not here. Spec: `performance_targets_v0`.

use crate::profile::Profile;
use crate::units::Unit;

/// On which side of the limit a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Small is good.
    AtMost,
    /// Large is good.
    AtLeast,
    /// Only this value is right; compared to two decimals.
    Exactly,
}

/// What the profile's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The limit itself.
    Absolute,
    /// The limit for a million rows. Larger runs scale it; smaller ones are not judged, as what does not grow with the
    /// rows (log segments, the first checkpoint) would decide.
    PerMillionRows,
    /// Times the floor.
    TimesFloor,
}

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Its name in profiles and results.
    pub(crate) id: &'static str,
    /// As the table says it.
    pub(crate) what: &'static str,
    /// The row that measures it, without `bench/`.
    pub(crate) row: &'static str,
    /// How values are printed.
    pub(crate) unit: Unit,
    /// Which side is good.
    pub(crate) side: Side,
    /// How the limit is made.
    pub(crate) limit: Limit,
}

const fn figure(
    id: &'static str,
    what: &'static str,
    row: &'static str,
    unit: Unit,
    side: Side,
    limit: Limit,
) -> Figure {
    Figure {
        id,
        what,
        row,
        unit,
        side,
        limit,
    }
}

use Limit::{Absolute, PerMillionRows, TimesFloor};
use Side::{AtLeast, AtMost, Exactly};
use Unit::{Bytes, BytesPerSecond, Count, Nanos, PerSecond, Ratio};

/// Every figure, in the order of the table.
pub(crate) const ALL: &[Figure] = &[
    figure(
        "solo_commit_p50",
        "solo durable commit, p50",
        "log/commit_solo_durable",
        Nanos,
        AtMost,
        TimesFloor,
    ),
    figure(
        "solo_log_flushes",
        "  log flushes per txn",
        "log/commit_solo_durable",
        Ratio,
        Exactly,
        Absolute,
    ),
    figure(
        "solo_other_flushes",
        "  other flushes per txn",
        "log/commit_solo_durable",
        Ratio,
        Exactly,
        Absolute,
    ),
    figure(
        "committers_32",
        "32 committers, commits/s",
        "log/commit_32_committers",
        PerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "committers_32_flushes",
        "  flushes per txn",
        "log/commit_32_committers",
        Ratio,
        AtMost,
        Absolute,
    ),
    figure(
        "committers_128",
        "128 committers, commits/s",
        "log/commit_128_committers",
        PerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "committers_128_flushes",
        "  flushes per txn",
        "log/commit_128_committers",
        Ratio,
        AtMost,
        Absolute,
    ),
    figure(
        "txn_100_puts",
        "durable txns of 100 random puts",
        "log/commit_100_random_puts",
        PerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "begin_read_p50",
        "begin_read + close, p50",
        "mvcc/snapshot_open_close",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "begin_read_allocs",
        "  allocations",
        "mvcc/snapshot_open_close",
        Count,
        Exactly,
        Absolute,
    ),
    figure(
        "get_warm_p50",
        "warm get, p50",
        "btree/point_get_hot_1m",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "get_warm_allocs",
        "  allocations",
        "btree/point_get_hot_1m",
        Count,
        Exactly,
        Absolute,
    ),
    figure(
        "get_warm_two_threads",
        "  two threads, gets/s",
        "btree/point_get_hot_1m_two_threads",
        PerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "get_with_delta_p50",
        "warm get, 300 K other keys in the delta",
        "btree/point_get_hot_1m_delta_300k",
        Nanos,
        AtMost,
        TimesFloor,
    ),
    figure(
        "scan_warm",
        "full scan, warm, rows/s",
        "btree/scan_full_warm",
        PerSecond,
        AtLeast,
        Absolute,
    ),
    figure(
        "scan_cold",
        "full scan, cold",
        "btree/scan_full_cold",
        BytesPerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "hits_under_scans",
        "hit ratio right after a scan of everything",
        "cache/hit_ratio_under_scans",
        Ratio,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "blind_puts",
        "random blind puts, data 4x the cache",
        "store/random_puts_beyond_cache",
        PerSecond,
        AtLeast,
        Absolute,
    ),
    figure(
        "blind_puts_stall",
        "  longest stall",
        "store/random_puts_beyond_cache",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "load_one_go",
        "sorted load in one go, rows/s",
        "store/load_sorted_one_go",
        PerSecond,
        AtLeast,
        Absolute,
    ),
    figure(
        "load_batches",
        "sorted load, durable batches of 1,000",
        "store/load_sorted_durable_batches",
        Nanos,
        AtMost,
        PerMillionRows,
    ),
    figure(
        "disk_loaded",
        "disk after loading 1 M rows",
        "store/disk_after_overwrites",
        Bytes,
        AtMost,
        PerMillionRows,
    ),
    figure(
        "disk_overwritten",
        "  highest during 60 s of overwrites",
        "store/disk_after_overwrites",
        Bytes,
        AtMost,
        PerMillionRows,
    ),
    figure(
        "disk_idle",
        "  then idle",
        "store/disk_after_overwrites",
        Bytes,
        AtMost,
        PerMillionRows,
    ),
    figure(
        "memory_resident",
        "resident memory against the budget",
        "store/memory_within_budget",
        Bytes,
        AtMost,
        TimesFloor,
    ),
    figure(
        "open_after_kill",
        "open after kill -9, delta tail full",
        "store/open_after_kill",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "open_after_close",
        "open after clean close",
        "store/open_after_close",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "open_at_p50",
        "begin_read_at any transaction, p50",
        "timetravel/open_snapshot_by_txn",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "open_at_p99",
        "  p99",
        "timetravel/open_snapshot_by_txn",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "open_at_allocs",
        "  allocations",
        "timetravel/open_snapshot_by_txn",
        Count,
        Exactly,
        Absolute,
    ),
    figure(
        "get_at_p50",
        "get at any transaction, p50",
        "timetravel/get_at",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "get_at_quiet_p50",
        "  where nothing has changed since",
        "timetravel/get_at_quiet",
        Nanos,
        AtMost,
        TimesFloor,
    ),
    figure(
        "range_at_p50",
        "range of 1,000 at any transaction, p50",
        "timetravel/range_at_1000",
        Nanos,
        AtMost,
        TimesFloor,
    ),
    figure(
        "kept_bytes",
        "room of superseded versions",
        "timetravel/kept_bytes",
        Bytes,
        AtMost,
        TimesFloor,
    ),
    figure(
        "held_growth",
        "file, a snapshot held through overwrites",
        "timetravel/held_snapshot",
        Bytes,
        AtMost,
        TimesFloor,
    ),
    figure(
        "commit_keeping_all",
        "updates with every version kept",
        "timetravel/commit_keeping_all",
        PerSecond,
        AtLeast,
        TimesFloor,
    ),
    figure(
        "tail_live_p99",
        "commit delivered to a reader of the log, p99",
        "log/tail_live",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "replay_million",
        "a million transactions of one put replayed",
        "log/replay_single_puts",
        Nanos,
        AtMost,
        Absolute,
    ),
    figure(
        "replay_rows",
        "  rows of larger ones",
        "log/replay_100_puts",
        PerSecond,
        AtLeast,
        Absolute,
    ),
];

/// What a row measured for a figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Which figure.
    pub(crate) id: &'static str,
    /// In the figure's unit.
    pub(crate) value: f64,
    /// The floor beside it, for limits that are factors.
    pub(crate) floor: Option<f64>,
}

/// A figure held against its limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    /// Which figure.
    pub(crate) figure: &'static Figure,
    /// What was measured.
    pub(crate) measured: Measured,
    /// The limit in the figure's unit.
    pub(crate) limit: f64,
    /// On the good side; `None` where the run is too small for the limit to mean anything.
    pub(crate) met: Option<bool>,
}

impl Verdict {
    /// On the wrong side.
    pub(crate) fn missed(&self) -> bool {
        self.met == Some(false)
    }
}

/// Holds `measured` against the profile's limit; `None` for an id that has none.
pub(crate) fn judge(measured: Measured, profile: &Profile, rows: u64) -> Option<Verdict> {
    let figure = ALL.iter().find(|figure| figure.id == measured.id)?;
    let number = *profile.figures.get(figure.id)?;
    let limit = match figure.limit {
        Absolute => number,
        PerMillionRows => number * rows as f64 / 1e6,
        TimesFloor => number * measured.floor?,
    };
    let met = match figure.side {
        AtMost => measured.value <= limit,
        AtLeast => measured.value >= limit,
        Exactly => (measured.value - limit).abs() < 0.005,
    };
    let small = figure.limit == PerMillionRows && rows < 1_000_000;
    Some(Verdict {
        figure,
        measured,
        limit,
        met: (!small).then_some(met),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn limits_are_values_factors_of_the_floor_or_per_million_rows() {
        let machine = Machine::read(std::path::Path::new("."));
        let (profile, _) = Profile::find("ci", &machine).unwrap();
        let met = |id, value, floor, rows| {
            judge(Measured { id, value, floor }, &profile, rows)
                .unwrap()
                .met
        };
        assert_eq!(met("begin_read_p50", 50.0, None, 1), Some(true));
        assert_eq!(met("begin_read_p50", 50.1, None, 1), Some(false));
        assert_eq!(met("solo_commit_p50", 124.0, Some(100.0), 1), Some(true));
        assert_eq!(met("solo_commit_p50", 126.0, Some(100.0), 1), Some(false));
        assert_eq!(met("solo_log_flushes", 1.004, None, 1), Some(true));
        assert_eq!(met("solo_log_flushes", 0.9, None, 1), Some(false));
        assert_eq!(met("disk_loaded", 1e6, None, 1000), None);
        assert_eq!(
            met("disk_loaded", 131.0 * 1048576.0, None, 1_000_000),
            Some(false)
        );
        assert_eq!(
            met("disk_loaded", 131.0 * 1048576.0, None, 2_000_000),
            Some(true)
        );
    }
}
