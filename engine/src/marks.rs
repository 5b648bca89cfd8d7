//! Places that hardening runs must have come by.
//!
//! A test that never reaches what it claims to test is worse than none. So the rare places of the engine are marked, and
//! a hardening run fails if one of them was never reached. Spec: HD-009.
//!
//! - Cost: none without the feature `internals`.

macro_rules! marks {
    ($($name:ident: $text:literal,)*) => {
        /// A place. The text says what happened when it was reached.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mark {
            $(#[doc = $text] $name,)*
        }

        /// All of them, in order.
        #[cfg(feature = "internals")]
        const TEXTS: &[&str] = &[$($text),*];
    };
}

marks! {
    CreationRepeated: "a creation that was interrupted was made anew",
    BothSlots: "both meta slots were sound at opening",
    MetaMended: "a copy of a meta page was mended",
    OneSlot: "only one meta slot was sound at opening",
    CleanOpen: "a clean close was believed",
    CleanDoubted: "a clean close was not believed",
    Replayed: "records were replayed",
    TornTail: "the log ended in a torn group",
    TailBehindMeta: "opening refused a log that ends before what meta proves",
    TailBehindGroup: "opening refused a log that a later group proves longer",
    OtherBytesCut: "bytes behind the end of the log were zeroed",
    SegmentsCut: "a segment behind the end of the log was removed",
    LeftoversCleared: "a half-made segment was removed",
    SettledFirst: "what opening found was made durable",
    TailRenewed: "the end of the log was written anew",
    SegmentFilled: "a segment was made by filling",
    SegmentFromSpare: "a segment was made from a spare",
    SegmentRecycled: "a segment became a spare",
    SegmentDropped: "a prepared segment was given back",
    GroupCrossed: "a group went into two segments",
    GroupStreamed: "a large group was streamed",
    LogFull: "a commit was refused for want of log space",
    LogFailed: "a log write failed and halted the writer",
    GroupShared: "a group had more than one waiter",
    ServedOthers: "a batch was applied by another thread than its own",
    ThreadLed: "the log thread wrote a group",
    Throttled: "a commit was slowed down",
    FrozeFull: "a delta was frozen because it was full",
    FrozePassed: "a delta was frozen because cursors had passed over its deleted rows for so long",
    DeltaRenewed: "a delta was full of writes that were taken back, and replaced",
    SliceCut: "a slice ended inside a table",
    RangeCut: "what a range delete ends was read by several slices",
    RangeMerged: "a range delete was merged",
    SubtreeDropped: "a range delete dropped a subtree unread",
    ExtentWritten: "a value was written to pages of its own",
    ExtentRetired: "the pages of such a value were retired",
    RootGrew: "a tree became higher",
    RootShrank: "a tree became lower",
    TreeEmptied: "a tree became empty",
    RunWritten: "superseded versions were kept in a run",
    RunsJoined: "runs of one checkpoint were put together",
    RunsMerged: "runs of history were merged",
    RunDropped: "a run of history was dropped",
    HistoryDamaged: "damage in history stopped the merging of its runs",
    SnapshotMoved: "an open snapshot was moved to history",
    HeldForSnapshot: "pages waited for a snapshot",
    PagesReused: "freed pages were given out again",
    FileTrimmed: "the end of the data file was given back",
    FilePunched: "a hole in the data file was given back",
    CheckpointFull: "a checkpoint met a full disk",
    RoomMade: "a checkpoint on a full disk let go of history that had expired",
    CheckpointFailed: "a checkpoint failed and halted the writer",
    SyncFailed: "a sync of the data file failed",
    MetaUnread: "a meta page that was written did not read back",
    ReadRepeated: "a page was read twice because the first reading was bad",
    PageRefused: "a page was refused",
    PageEvicted: "a page was evicted",
    FramesExhausted: "a page was read outside the cache because all frames were in use",
    ReadJoined: "a thread waited for another's read of a page",
    ReadAhead: "a page was read ahead",
}

#[cfg(feature = "internals")]
mod seen {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Mark, TEXTS};

    static SEEN: [AtomicU64; TEXTS.len()] = [const { AtomicU64::new(0) }; TEXTS.len()];

    /// Notes that a place was reached.
    pub(crate) fn reached(mark: Mark) {
        // Relaxed: a tally.
        if let Some(count) = SEEN.get(mark as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each place was reached in this process.
    pub fn marks() -> Vec<(&'static str, u64)> {
        let count =
            |(text, seen): (&&'static str, &AtomicU64)| (*text, seen.load(Ordering::Relaxed));
        TEXTS.iter().zip(&SEEN).map(count).collect()
    }
}

#[cfg(feature = "internals")]
pub use seen::marks;
#[cfg(feature = "internals")]
pub(crate) use seen::reached;

/// Notes that a place was reached.
#[cfg(not(feature = "internals"))]
#[inline(always)]
pub(crate) fn reached(_: Mark) {}
