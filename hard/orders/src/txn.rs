//! The snapshot registry.

#[path = "../../../engine/src/txn/registry.rs"]
pub(crate) mod registry;
