//! See `nshard::fuzz::Target::Meta`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Meta);
