//! See `nshard::fuzz::Target::History`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::History);
