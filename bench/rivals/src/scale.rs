//! Sizes and durations: whole, quick, or so small that they only show that everything works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{Content, Order};
use crate::generator::{ROW_BYTES, VALUE_BYTES};
use crate::rival::Setup;

/// Bytes of a value in the rows of YCSB: ten fields of 100 bytes, as the paper has it.
const YCSB_VALUE_BYTES: usize = 1000;

/// How large and how long.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scale {
    /// `full`, `quick` or `tiny`.
    pub(crate) name: String,
    /// Rows of the table that fits into memory.
    pub(crate) rows: u64,
    /// Rows of YCSB's table.
    pub(crate) ycsb_rows: u64,
    /// Bytes of cache for each engine.
    pub(crate) cache_bytes: u64,
    /// Bytes of memory in the rows whose data is four times that.
    pub(crate) memory_bytes: u64,
    /// Length of a timed loop.
    pub(crate) seconds: f64,
    /// Length of the row of deletes and overwrites.
    pub(crate) churn_seconds: f64,
    /// Bytes that are committed before the process is killed.
    pub(crate) kill_bytes: u64,
    /// Most operations of a loop: bounds the loops of `tiny`.
    pub(crate) ops_max: u64,
    /// Threads that read: as many as cores.
    pub(crate) readers: usize,
}

impl Scale {
    /// The sizes that figures are quoted from.
    pub(crate) fn full(readers: usize) -> Self {
        Self {
            name: "full".to_owned(),
            rows: 1_000_000,
            ycsb_rows: 250_000,
            cache_bytes: 512 << 20,
            memory_bytes: 128 << 20,
            seconds: 2.0,
            churn_seconds: 60.0,
            kill_bytes: 48 << 20,
            ops_max: u64::MAX,
            readers,
        }
    }

    /// Ten minutes on two cores.
    pub(crate) fn quick(readers: usize) -> Self {
        Self {
            name: "quick".to_owned(),
            rows: 200_000,
            ycsb_rows: 60_000,
            memory_bytes: 72 << 20,
            seconds: 0.25,
            churn_seconds: 4.0,
            kill_bytes: 4 << 20,
            ..Self::full(readers)
        }
    }

    /// So small that it only shows that every row works.
    pub(crate) fn tiny(readers: usize) -> Self {
        Self {
            name: "tiny".to_owned(),
            rows: 1000,
            ycsb_rows: 200,
            cache_bytes: 64 << 20,
            memory_bytes: 72 << 20,
            seconds: 0.01,
            churn_seconds: 0.03,
            kill_bytes: 64 << 10,
            ops_max: 200,
            readers,
        }
    }

    /// The rows of the ordinary groups.
    pub(crate) fn content(&self) -> Content {
        Content::new(self.rows, Order::Rising, VALUE_BYTES)
    }

    /// Rows of four times the memory.
    pub(crate) fn large_content(&self) -> Content {
        let rows = match self.ops_max {
            u64::MAX => 4 * self.memory_bytes / ROW_BYTES,
            _ => 3 * self.rows,
        };
        Content::new(rows, Order::Rising, VALUE_BYTES)
    }

    /// The rows of YCSB.
    pub(crate) fn ycsb_content(&self) -> Content {
        Content::new(self.ycsb_rows, Order::Scattered, YCSB_VALUE_BYTES)
    }

    /// How engines are opened in the ordinary groups.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            cache_bytes: self.cache_bytes,
            memory_bytes: None,
            history: false,
        }
    }

    /// How engines are opened where the data is four times the memory: half of it is cache, the other half is left for what
    /// comes on top of it and for the kernel's cache. Spec: BV-003.
    pub(crate) fn small_setup(&self) -> Setup {
        Setup {
            cache_bytes: self.memory_bytes / 2,
            memory_bytes: Some(self.memory_bytes),
            history: false,
        }
    }
}
