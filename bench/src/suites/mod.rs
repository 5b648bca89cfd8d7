//! Every row, by suite. One file a suite; one function a row, of the row's name.

pub(crate) mod btree;
pub(crate) mod cache;
pub(crate) mod floor;
pub(crate) mod hardening;
pub(crate) mod instructions;
pub(crate) mod io;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod macros;
pub(crate) mod mvcc;
pub(crate) mod pager;
pub(crate) mod soak;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod timetravel;

use crate::row::Row;

/// All rows, in the order in which they run: those of one suite one after the other.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = [
        floor::ROWS,
        io::ROWS,
        pager::ROWS,
        btree::ROWS,
        btree::updates::ROWS,
        btree::matrix::ROWS,
        mvcc::ROWS,
        log::ROWS,
        cache::ROWS,
        store::ROWS,
        store::crash::ROWS,
        timetravel::ROWS,
        stream::ROWS,
        macros::ROWS,
        macros::task_queue::ROWS,
        load::ROWS,
        load::burst::ROWS,
        hardening::ROWS,
        instructions::ROWS,
        soak::ROWS,
    ]
    .concat();
    let mut suites: Vec<&str> = rows.iter().map(Row::suite).collect();
    suites.dedup();
    rows.sort_by_key(|row| suites.iter().position(|suite| *suite == row.suite()));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures;

    #[test]
    fn names_are_unique_and_every_figure_has_its_row() {
        let mut names: Vec<&str> = all().iter().map(Row::short).collect();
        for figure in figures::ALL {
            assert!(
                names.contains(&figure.row),
                "{} names no row: {}",
                figure.id,
                figure.row
            );
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_specification_says_of_every_row_whether_it_is_critical() {
        let spec =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/benchmarks_v0.md");
        let spec = std::fs::read_to_string(spec).unwrap();
        for row in all() {
            let start = format!("| `{}` |", row.name);
            let line = spec.lines().find(|line| line.starts_with(&start));
            let line = line.unwrap_or_else(|| panic!("{} is not in the specification", row.name));
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(columns[3], row.unit, "{}", row.name);
            assert_eq!(
                columns[5] == "yes",
                crate::row::is_critical(row.name),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn the_names_the_specification_gives_are_all_there() {
        let names: Vec<&str> = all().iter().map(|row| row.name).collect();
        for name in [
            "bench/pager/open_close_empty",
            "bench/pager/read_page_random_16k_hot",
            "bench/pager/read_page_random_16k_cold",
            "bench/pager/write_new_page_16k_no_sync",
            "bench/pager/cache_read_multiple_pages",
            "bench/pager/commit_meta_fsync",
            "bench/pager/checksum_verify_16k",
            "bench/btree/build_sequential_insert_1m",
            "bench/btree/point_get_hot_1m",
            "bench/btree/point_get_cold_1m",
            "bench/btree/point_put_update_10pct_hot",
            "bench/btree/range_scan_1k_rows_hot",
            "bench/btree/delete_10pct",
            "bench/mvcc/snapshot_open_close",
            "bench/mvcc/readers_256_point_get_hot",
            "bench/mvcc/writer_commits_with_readers_128",
            "bench/mvcc/conflict_detection_basic",
            "bench/log/append_commit_record",
            "bench/log/replay_into_memtable",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
