//! What one writer lets grow behind a lock, with its length beside the lock.
//!
//! The writer holds the lock for a whole body, and readers for a batch of series or for one of their [`Steps`]. Whoever only
//! has to know how long something is, to pin it, waits for none of them. A length never shrinks.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Work of a reader after which a writer that waits is let in: some thousand values or series looked at take a
/// millisecond at most.
const STEP_WORK: usize = 4_096;

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

    /// For a reader that takes long.
    pub(crate) fn steps(&self) -> Steps<'_, T> {
        Steps {
            content: self.content.read(),
            work: 0,
        }
    }

    /// Whether a writer has the lock or waits for it.
    #[cfg(test)]
    pub(crate) fn has_writer(&self) -> bool {
        self.content.is_locked_exclusive()
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

/// A reader that lets a waiting writer in between its steps. What it reads may have grown then, and have moved: it keeps
/// numbers across steps, no references.
pub(crate) struct Steps<'a, T> {
    content: RwLockReadGuard<'a, T>,
    work: usize,
}

impl<T> Deref for Steps<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T> Steps<'_, T> {
    /// Says what was done since the last call, in values or series that were looked at. Here a step may end.
    #[inline]
    pub(crate) fn worked(&mut self, work: usize) {
        self.work += work;
        if self.work >= STEP_WORK {
            self.work = 0;
            RwLockReadGuard::bump(&mut self.content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_let_in_between_steps() {
        let growing = Growing::new(0);
        std::thread::scope(|scope| {
            let mut reader = growing.steps();
            scope.spawn(|| *growing.write() += 1);
            while !growing.has_writer() {
                std::thread::yield_now();
            }
            reader.worked(STEP_WORK - 1);
            assert_eq!(*reader, 0, "the step goes on");
            reader.worked(1);
            assert_eq!(*reader, 1);
        });
    }
}
