//! Every bound of the engine, each with its reason.

/// Bytes of a page unless the database was created with another size. 16 KiB costs nothing in latency against
/// 4 KiB on NVMe and gains scan and write bandwidth, one tree level and a quarter of the mapping metadata.
pub(crate) const PAGE_BYTES_DEFAULT: u32 = 16 * 1024;
/// Smallest page: one device block.
pub(crate) const PAGE_BYTES_MIN: u32 = 4 * 1024;
/// Largest page: offsets inside a page are 16 bits wide.
pub(crate) const PAGE_BYTES_MAX: u32 = 64 * 1024;

/// Unit of log writes: the largest physical block in common use, so no acknowledged block is rewritten.
pub(crate) const LOG_BLOCK_BYTES: usize = 4096;
/// A group is sealed at this size at the latest; up to here its size hardly changes the latency of a log write.
pub(crate) const GROUP_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one log segment file unless the database was created with another size: small, since an idle or
/// closed database keeps two of them, and large enough that a rename is made once in milliseconds of writing. Spec: CR-002.
pub(crate) const SEGMENT_BYTES_DEFAULT: u32 = 4 * 1024 * 1024;
/// Smallest log segment: a few small groups.
pub(crate) const SEGMENT_BYTES_MIN: u32 = 64 * 1024;
/// Largest log segment: what a crash leaves to be filled with zeros.
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// Bytes of a log segment in databases whose meta page does not say it.
pub(crate) const SEGMENT_BYTES_UNSAID: u32 = 16 * 1024 * 1024;

/// Longest key. A page must hold at least two keys and their children.
pub(crate) const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value by default; values beyond a quarter page live in overflow extents.
pub(crate) const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest table name.
pub(crate) const TABLE_NAME_BYTES_MAX: usize = 1024;
/// Longest commit tag.
pub(crate) const TAG_BYTES_MAX: usize = 1024;
/// Largest payload of one commit record: what recovery must be able to hold in memory at once.
pub(crate) const RECORD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Pages written as one contiguous run by a checkpoint: 16 x 16 KiB = 256 KiB, where write bandwidth levels off.
pub(crate) const RUN_PAGES: usize = 16;
/// Most pages a data file can have: 2^32 x 16 KiB = 64 TiB.
pub(crate) const PAGES_MAX: u64 = 1 << 32;
/// Stored ids of transactions and positions in the log are below this, those of generations and tables below
/// [`NARROW_IDS_MAX`]: no database comes near, and what goes on counting from there never overflows.
pub(crate) const IDS_MAX: u64 = 1 << 62;
/// Bound of stored ids of 32 bits.
pub(crate) const NARROW_IDS_MAX: u32 = 1 << 31;

const _: () = assert!(PAGE_BYTES_DEFAULT >= PAGE_BYTES_MIN && PAGE_BYTES_DEFAULT <= PAGE_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_MAX.is_multiple_of(LOG_BLOCK_BYTES));
const _: () = assert!(SEGMENT_BYTES_DEFAULT.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_MIN as usize >= LOG_BLOCK_BYTES);
