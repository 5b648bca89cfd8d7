//! See `nshard::fuzz::Target::Log`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Log);
