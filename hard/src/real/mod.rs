//! Real processes, real file systems, real faults: what the simulation claims, seen on a kernel.
//!
//! - [`place`]: small file systems of every kind, in images of their own.
//! - [`filesystems`]: processes killed on each of them.
//! - [`full`]: disks that fill up.
//! - [`openers`]: processes that race to open one database.
//! - [`limits`], [`restricted`]: processes that are denied what the engine would like to use.
//! - [`memory`]: processes that run out of memory.
//! - [`fault_fs`], `fuse`: a file system that loses, shortens and refuses.
//! - [`block_log`], [`blocks`]: states that a block device could have been left in.
//!
//! What cannot be had here (rights, tools, file systems) is said in [`Tally::skip`](crate::tally::Tally::skip).
//!
//! - Spec: HD-011 to HD-015, HD-018, HD-024.

pub mod block_log;
pub mod blocks;
pub mod fault_fs;
pub mod filesystems;
pub mod full;
#[cfg(feature = "fuse")]
pub mod fuse;
#[cfg(feature = "fuse")]
pub mod fuse_mount;
pub mod limits;
pub mod memory;
pub mod openers;
pub mod place;
pub mod restricted;
