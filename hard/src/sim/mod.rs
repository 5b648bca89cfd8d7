//! The engine on a simulated disk: one run told as a story, and what a crash at any of its events leaves.
//!
//! - [`setup`]: how a seed opens its database.
//! - [`script`]: what a seed does, and how a failure is said again.
//! - [`faults`]: what goes wrong with the disk meanwhile.
//! - [`oracle`] and [`allow`]: what a crash or a fault may and may not have taken, at every event.
//! - [`story`]: random work on the engine, kept as a trace and notes for the oracle.
//! - [`verify`]: opens what is left, holds everything in it against the oracle.
//! - [`storm`]: crashes at the events of a story, and again while recovering.
//! - [`scope`]: every short sequence of operations, crashed everywhere.
//! - [`nth`]: every operation of the disk made to fail, in every way.
//! - [`pins`]: values kept at once, of more pages than the cache has frames.
//! - [`rot`]: bits that flip at rest.
//! - [`restored`]: backups restored onto disks that lose power or fail.
//! - [`paths`]: the engine led where the model of the protocol went.
//! - [`shrink`]: makes a failure small.
//!
//! One seed decides everything: work, sizes, faults, crash points, what survives. Clock, ids and threads are not the
//! machine's. Spec: HD-007.

pub mod allow;
pub mod faults;
pub mod nth;
pub mod oracle;
pub mod paths;
pub mod pins;
mod places;
pub mod restored;
pub mod rot;
pub mod scope;
pub mod script;
pub mod setup;
pub mod shrink;
pub mod storm;
pub mod story;
pub mod stream;
pub mod verify;
