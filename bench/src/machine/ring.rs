//! What the kernel grants of `io_uring`, found out by asking for it.

use io_uring::{Builder, IoUring};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::System;

/// What was asked for and granted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Ring {
    /// `deferred`, `cooperative` or `plain`: the fastest kind of ring that the engine can have; `refused`: none.
    pub(crate) mode: String,
    /// Why a ring was refused.
    pub(crate) refused: Option<String>,
    /// `kernel.io_uring_disabled`: 0 for all, 1 for privileged processes, 2 for nobody.
    pub(crate) disabled: Option<u32>,
    /// Setup flags that were granted, each alone or with the one it needs.
    pub(crate) setup_flags: Vec<String>,
}

impl Ring {
    /// Makes a small ring of each kind and drops it again.
    pub(crate) fn probe(system: &System) -> Self {
        let disabled = system
            .text("/proc/sys/kernel/io_uring_disabled")
            .and_then(|number| number.parse().ok());
        let plain: std::io::Result<IoUring> = IoUring::builder().build(8);
        let mut flags = Vec::new();
        let mut granted = |name: &str, set: fn(&mut Builder) -> &mut Builder| {
            let made = set(&mut IoUring::builder()).build(8).is_ok();
            if made {
                flags.push(name.to_owned());
            }
            made
        };
        let mut mode = "refused";
        if plain.is_ok() {
            mode = "plain";
            granted("SUBMIT_ALL", |ring| ring.setup_submit_all());
            granted("SQPOLL", |ring| ring.setup_sqpoll(1));
            if granted("COOP_TASKRUN", |ring| ring.setup_coop_taskrun()) {
                mode = "cooperative";
            }
            granted("SINGLE_ISSUER", |ring| ring.setup_single_issuer());
            if granted("DEFER_TASKRUN", |ring| {
                ring.setup_single_issuer().setup_defer_taskrun()
            }) {
                mode = "deferred";
            }
        }
        Self {
            mode: mode.to_owned(),
            refused: plain.err().map(|error| error.to_string()),
            disabled,
            setup_flags: flags,
        }
    }
}
