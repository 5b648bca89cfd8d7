//! See `nshard::fuzz::Target::Page`.
#![no_main]

nshard_fuzz::fuzz!(nshard::fuzz::Target::Page);
