//! Every row, by suite. One file a suite; one function a row, of the row's name.

pub(crate) mod btree;
pub(crate) mod floor;
pub(crate) mod log;
pub(crate) mod mvcc;
pub(crate) mod pager;
pub(crate) mod store;

use crate::row::Row;

/// All rows, in the order in which they run.
pub(crate) fn all() -> Vec<Row> {
    [
        floor::ROWS,
        pager::ROWS,
        btree::ROWS,
        mvcc::ROWS,
        log::ROWS,
        store::ROWS,
    ]
    .concat()
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
    fn the_names_the_specification_gives_are_all_there() {
        let names: Vec<&str> = all().iter().map(|row| row.name).collect();
        for name in [
            "bench/pager/open_close_empty",
            "bench/pager/read_page_random_16k_hot",
            "bench/pager/read_page_random_16k_cold",
            "bench/pager/commit_meta_fsync",
            "bench/pager/checksum_verify_16k",
            "bench/btree/build_sequential_insert_1m",
            "bench/btree/point_get_hot_1m",
            "bench/btree/point_get_cold_1m",
            "bench/btree/range_scan_1k_rows_hot",
            "bench/mvcc/snapshot_open_close",
            "bench/mvcc/readers_256_point_get_hot",
            "bench/mvcc/writer_commits_with_readers_128",
            "bench/log/append_commit_record",
            "bench/log/replay_into_memtable",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
