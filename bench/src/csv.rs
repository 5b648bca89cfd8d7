//! Results as comma-separated values: one line for each row and repeat.

use crate::results::{Io, Record};

/// The first line.
pub(crate) const HEADER: &str = "row,repeat,ops_per_sec,p50_ns,p95_ns,p99_ns,p99_9_ns,max_ns,allocs_per_op,fsyncs_per_txn,bytes_written,bytes_read\n";

/// A result's line. What a row does not have is empty; no name holds a comma.
pub(crate) fn line(record: &Record) -> String {
    let results = &record.results;
    let latency = results.latency_ns;
    let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    let bytes = |of: fn(&Io) -> u64| {
        let io = results.io.as_ref();
        io.map_or(String::new(), |io| of(io).to_string())
    };
    format!(
        "{},{},{},{},{},{},{},{},{},{},{},{}\n",
        record.short(),
        record.repeat,
        results.ops_per_sec,
        latency.p50,
        latency.p95,
        latency.p99,
        latency.p99_9,
        latency.max,
        optional(results.allocs_per_op),
        optional(results.fsyncs_per_txn),
        bytes(|io| io.bytes_written),
        bytes(|io| io.bytes_read),
    )
}
