//! See `nshard::fuzz::Target::Database`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Database);
