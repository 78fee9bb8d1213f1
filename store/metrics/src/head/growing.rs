//! What one writer lets grow behind a lock, with its length beside the lock.
//!
//! The writer holds the lock for a whole body, and readers for a batch of series. Whoever only has to know how long
//! something is, to pin it, waits for none of them. A length never shrinks.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A value that grows, and how long it was when its length was last published.
pub(crate) struct Growing<T> {
    content: RwLock<T>,
    length: AtomicU32,
    weight: AtomicU64,
}

impl<T> Growing<T> {
    /// Something of length 0.
    pub(crate) fn new(content: T) -> Self {
        Self {
            content: RwLock::new(content),
            length: AtomicU32::new(0),
            weight: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.content.read()
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.content.write()
    }

    /// Says how long the content is; by its writer, while it has the lock.
    pub(crate) fn publish(&self, length: u32) {
        self.length.store(length, Ordering::Release);
    }

    /// Says how much memory the content takes, in units of its own; as [`Growing::publish`].
    pub(crate) fn publish_weight(&self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// The weight that was published last.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The length that was published last. Everything that was published before it is visible, too.
    pub(crate) fn length(&self) -> u32 {
        self.length.load(Ordering::Acquire)
    }
}
