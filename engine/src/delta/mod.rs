//! delta.
