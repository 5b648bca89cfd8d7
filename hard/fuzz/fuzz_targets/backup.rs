//! See `nshard::fuzz::Target::Backup`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Backup);
