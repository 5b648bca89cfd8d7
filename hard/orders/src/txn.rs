//! The snapshot registry, and waiting for the next commit.

#[path = "../../../engine/src/txn/bell.rs"]
pub(crate) mod bell;
#[path = "../../../engine/src/txn/registry.rs"]
pub(crate) mod registry;
