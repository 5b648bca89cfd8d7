//! A flag and a role: whoever raises the flag and cannot get the role is seen by whoever gives the role back.
//!
//! The one side raises the flag and then tries to take the role ([`try_take`]); the other gives the role back and then
//! looks at the flag ([`is_raised`]). A fence on each side puts the four in one order: they cannot both miss the other. Spec: HD-022.

use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};

/// Takes the lock of a role if nobody has it. The flag was raised before.
#[inline]
pub(crate) fn try_take<T>(role: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    fence(Ordering::SeqCst);
    role.try_lock()
}

/// Whether the flag is raised. The role was given back before.
#[inline]
pub(crate) fn is_raised(flag: &AtomicBool) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::SeqCst)
}
