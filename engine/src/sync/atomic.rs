//! The standard library's atomics, before each operation of which another thread may run.
//!
//! Under a scheduler one thread runs at a time, so all threads see one order of all operations: what it finds are wrong
//! interleavings, not orderings that are too weak. Those are for the models of single parts. Spec: HD-021.

pub(crate) use std::sync::atomic::{Ordering, fence};

use zerocopy::FromZeros;

use super::pause;

macro_rules! atomic {
    ($name:ident, $value:ty $(, $derive:ident)*) => {
        /// As its namesake.
        #[derive(Debug, Default $(, $derive)*)]
        #[repr(transparent)]
        pub(crate) struct $name(std::sync::atomic::$name);

        // Not every type needs every operation.
        #[allow(dead_code, reason = "the same operations for every type")]
        impl $name {
            #[inline]
            pub(crate) const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            #[inline]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                pause();
                self.0.load(order)
            }

            #[inline]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                pause();
                self.0.store(value, order);
            }

            #[inline]
            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                pause();
                self.0.swap(value, order)
            }

            #[inline]
            pub(crate) fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                pause();
                self.0.compare_exchange(from, to, success, failure)
            }

            #[inline]
            pub(crate) fn compare_exchange_weak(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                pause();
                self.0.compare_exchange_weak(from, to, success, failure)
            }
        }
    };
}

macro_rules! number {
    ($name:ident, $value:ty) => {
        atomic!($name, $value, FromZeros);

        #[allow(dead_code, reason = "the same operations for every type")]
        impl $name {
            #[inline]
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                pause();
                self.0.fetch_add(value, order)
            }

            #[inline]
            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                pause();
                self.0.fetch_sub(value, order)
            }

            #[inline]
            pub(crate) fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                pause();
                self.0.fetch_min(value, order)
            }

            #[inline]
            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                pause();
                self.0.fetch_max(value, order)
            }
        }
    };
}

atomic!(AtomicBool, bool);
number!(AtomicU8, u8);
number!(AtomicU16, u16);
number!(AtomicU32, u32);
number!(AtomicU64, u64);
number!(AtomicUsize, usize);
