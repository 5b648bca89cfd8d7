//! See `nshard::fuzz::Target::Node`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Node);
