//! The process's domain, and what each thread keeps of it.

use std::cell::Cell;
use std::marker::PhantomData;

use super::{Domain, Slot};

/// The domain of every cache in the process.
pub(crate) static DOMAIN: Domain = Domain::new();

thread_local! {
    static LOCAL: Local = const { Local { slot: Cell::new(None), depth: Cell::new(0) } };
    /// Apart from [`LOCAL`], so that entering does not check whether a destructor was registered or has run.
    static AT_EXIT: AtExit = const { AtExit };
}

struct Local {
    slot: Cell<Option<&'static Slot>>,
    depth: Cell<u32>,
}

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        if LOCAL.with(|local| local.depth.get()) == 0
            && let Some(slot) = LOCAL.with(|local| local.slot.take())
        {
            slot.unregister();
        }
    }
}

#[cold]
fn register(local: &Local) -> &'static Slot {
    let slot = DOMAIN.register();
    local.slot.set(Some(slot));
    // Fails only when another thread-local's destructor enters after ours: that one slot is not given back.
    let _too_late = AT_EXIT.try_with(|_| ());
    slot
}

/// Enters the process's domain.
#[inline]
pub(crate) fn enter() -> Guard {
    LOCAL.with(|local| {
        let depth = local.depth.get();
        if depth == 0 {
            let slot = local.slot.get().unwrap_or_else(|| register(local));
            DOMAIN.announce(slot);
        }
        local.depth.set(depth + 1);
    });
    Guard {
        of_this_thread: PhantomData,
    }
}

/// True while the calling thread holds a guard.
pub(crate) fn inside() -> bool {
    LOCAL.with(|local| local.depth.get() > 0)
}

/// What the domain knows of a thread, for threads that share one of the system's by turns.
#[cfg(feature = "internals")]
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<&'static Slot>, u32);

#[cfg(feature = "internals")]
impl Turn {
    /// Makes the calling thread take the slot that it keeps for life.
    pub(crate) fn settle() {
        drop(enter());
    }

    /// Exchanges it with what the calling thread has.
    pub(crate) fn swap(&mut self) {
        LOCAL.with(|local| {
            self.0 = local.slot.replace(self.0);
            self.1 = local.depth.replace(self.1);
        });
    }
}

#[cfg(feature = "internals")]
impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(slot), 0) = (self.0, self.1) {
            slot.unregister();
        }
    }
}

/// While it lives, no frame that was resident since its making is reused. Stays on its thread.
#[derive(Debug)]
pub(crate) struct Guard {
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        LOCAL.with(|local| {
            let depth = local.depth.get() - 1;
            local.depth.set(depth);
            if depth == 0
                && let Some(slot) = local.slot.get()
            {
                slot.withdraw();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_guards_leave_with_the_outermost() {
        std::thread::spawn(|| {
            assert!(!inside());
            let outer = enter();
            let inner = enter();
            drop(outer);
            assert!(inside());
            assert!(DOMAIN.min_active() <= DOMAIN.stamp());
            drop(inner);
            assert!(!inside());
        })
        .join()
        .unwrap();
    }
}
