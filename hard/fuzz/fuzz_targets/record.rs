//! See `nshard::fuzz::Target::Record`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Record);
