//! See `nshard::fuzz::Target::Group`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Group);
