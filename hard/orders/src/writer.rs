//! Waiting and waking, and the hand-over of a role.

#[path = "../../../engine/src/writer/handover.rs"]
pub(crate) mod handover;
#[path = "../../../engine/src/writer/wait.rs"]
pub(crate) mod wait;
