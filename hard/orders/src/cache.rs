//! Epochs, and what is known of a frame.

#[path = "../../../engine/src/cache/epoch.rs"]
pub(crate) mod epoch;
#[path = "../../../engine/src/cache/frame.rs"]
pub(crate) mod frame;

pub(crate) use frame_access::{Frame, link, unlink};

/// What the models need of a frame: most of it is for the cache alone.
mod frame_access {
    use super::frame::FrameMeta;
    use crate::ids::PageId;
    use crate::sync::atomic::Ordering;

    /// A frame.
    pub(crate) struct Frame(FrameMeta);

    impl Frame {
        pub(crate) fn new() -> Self {
            Self(FrameMeta::new())
        }

        pub(crate) fn holds(&self, id: PageId) -> bool {
            self.0.holds(id)
        }

        /// As `Arena::pin`.
        pub(crate) fn pin(&self) {
            self.0.pins.fetch_add(1, Ordering::Relaxed);
        }

        /// As the drop of a `FramePin`.
        pub(crate) fn unpin(&self) {
            self.0.pins.fetch_sub(1, Ordering::Release);
        }

        /// As `Arena::reclaim`: whether the frame is free, once the epoch has passed.
        pub(crate) fn is_unpinned(&self) -> bool {
            self.0.pins.load(Ordering::Acquire) == 0
        }
    }

    pub(crate) fn link(frame: &Frame, id: PageId) {
        frame.0.link(id);
    }

    pub(crate) fn unlink(frame: &Frame, id: PageId) -> bool {
        frame.0.unlink(id)
    }
}
