//! Bytes on disk to typed views and back. Does no I/O, knows no threads, caches or clocks.
//!
//! Bytes from disk are never trusted: every decoder returns an error for what it does not understand, never
//! panics, never allocates by an unchecked number. Spec: `spec/file_format_v0.md`, `spec/commit_record_v0.md`.

pub(crate) mod checksum;
pub(crate) mod group;
pub(crate) mod page;
pub(crate) mod record;
