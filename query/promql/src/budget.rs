//! What one query may use: samples held at once, bytes of results, and time.
//!
//! One budget is shared by everything that works for a query on a node. Loops of evaluators call [`Budget::check`]
//! per series and, where one series may be long, per million samples; those of coordinators at a
//! [pace](crate::pace::Pace). So a canceled query ends within milliseconds.

use crate::QueryError;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Prometheus' default for `--query.max-samples`.
pub const SAMPLES_MAX_DEFAULT: u64 = 50_000_000;

/// Memory that a series, row or group of a result takes beside its labels and values, about.
pub(crate) const ITEM_BYTES: usize = 96;

/// The limits of one query. Clones share the count and the cancellation.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
    /// What a [branch](Budget::branch) and its clones hold of it.
    own: Option<Arc<Held>>,
}

/// What one branch of a budget holds, its own branches included.
#[derive(Debug, Default)]
struct Held {
    samples: AtomicU64,
    bytes: AtomicU64,
    branch_of: Option<Arc<Held>>,
}

struct Shared {
    samples_max: u64,
    held: AtomicU64,
    peak: AtomicU64,
    bytes_max: u64,
    bytes: AtomicU64,
    is_late: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    canceled: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("samples_max", &self.samples_max)
            .field("held", &self.held)
            .field("bytes_max", &self.bytes_max)
            .field("bytes", &self.bytes)
            .field("canceled", &self.canceled)
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `samples_max` samples held at once, without a limit of bytes and without a deadline.
    #[must_use]
    pub fn new(samples_max: u64) -> Self {
        Self::make(samples_max, u64::MAX, None)
    }

    /// A budget of `samples_max` samples held at once and `bytes_max` bytes of results, until `is_late` says that
    /// the time is over.
    ///
    /// `is_late` is asked often, so it should be no more than a look at a clock.
    #[must_use]
    pub fn with_deadline(
        samples_max: u64,
        bytes_max: u64,
        is_late: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::make(samples_max, bytes_max, Some(Box::new(is_late)))
    }

    fn make(
        samples_max: u64,
        bytes_max: u64,
        is_late: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                samples_max,
                held: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                bytes_max,
                bytes: AtomicU64::new(0),
                is_late,
                canceled: AtomicBool::new(false),
            }),
            own: None,
        }
    }

    /// The same budget, which also knows what is held through it alone.
    #[must_use]
    pub fn branch(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            own: Some(Arc::new(Held {
                branch_of: self.own.clone(),
                ..Held::default()
            })),
        }
    }

    /// The branch that this is, and those of which it is a branch.
    fn branches(&self) -> impl Iterator<Item = &Held> {
        let mut next = self.own.as_deref();
        std::iter::from_fn(move || {
            let this = next?;
            next = this.branch_of.as_deref();
            Some(this)
        })
    }

    /// Gives back all that is held through this [branch](Self::branch).
    pub fn release_all(&self) {
        let (samples, bytes) = self.held_here();
        self.release(samples);
        self.release_bytes(bytes);
    }

    /// The samples and bytes that are held through this [branch](Self::branch).
    #[must_use]
    pub fn held_here(&self) -> (usize, usize) {
        let held = |count: &AtomicU64| count.load(Ordering::Relaxed) as usize;
        let own = self.own.as_deref();
        own.map_or((0, 0), |own| (held(&own.samples), held(&own.bytes)))
    }

    /// Whether more is held than the budget allows.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        let shared = &self.shared;
        shared.held.load(Ordering::Relaxed) > shared.samples_max
            || shared.bytes.load(Ordering::Relaxed) > shared.bytes_max
    }

    /// Makes every later [`Budget::check`] fail with [`QueryError::Canceled`].
    pub fn cancel(&self) {
        self.shared.canceled.store(true, Ordering::Relaxed);
    }

    /// Whether the query may go on.
    ///
    /// # Errors
    /// [`QueryError::Canceled`] after [`Budget::cancel`], [`QueryError::Timeout`] behind the deadline.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.shared.canceled.load(Ordering::Relaxed) {
            return Err(QueryError::Canceled);
        }
        match &self.shared.is_late {
            Some(is_late) if is_late() => Err(QueryError::Timeout),
            _ => Ok(()),
        }
    }

    /// Counts `samples` more as held in memory.
    ///
    /// # Errors
    /// [`QueryError::Execution`] with Prometheus' text when that is above the limit.
    pub fn hold(&self, samples: usize) -> Result<(), QueryError> {
        let samples = samples as u64;
        for held in self.branches() {
            held.samples.fetch_add(samples, Ordering::Relaxed);
        }
        let held = self.shared.held.fetch_add(samples, Ordering::Relaxed) + samples;
        self.shared.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.shared.samples_max {
            return Err(QueryError::too_many_samples());
        }
        Ok(())
    }

    /// Counts `samples` as no longer held. Never more than were held.
    pub fn release(&self, samples: usize) {
        for held in self.branches() {
            held.samples.fetch_sub(samples as u64, Ordering::Relaxed);
        }
        self.shared
            .held
            .fetch_sub(samples as u64, Ordering::Relaxed);
    }

    /// Counts `bytes` more of results: labels and values of series, rows and groups, or what of them arrives from
    /// other nodes.
    ///
    /// # Errors
    /// [`QueryError::Execution`] in Prometheus' manner when that is above the limit.
    pub fn hold_bytes(&self, bytes: usize) -> Result<(), QueryError> {
        let bytes = bytes as u64;
        for held in self.branches() {
            held.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let held = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held > self.shared.bytes_max {
            return Err(QueryError::too_many_bytes(self.shared.bytes_max));
        }
        Ok(())
    }

    /// Counts `bytes` as no longer held. Never more than were held.
    pub fn release_bytes(&self, bytes: usize) {
        let bytes = bytes as u64;
        for held in self.branches() {
            held.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many bytes may still be held.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        let held = self.shared.bytes.load(Ordering::Relaxed);
        self.shared.bytes_max.saturating_sub(held)
    }

    /// The largest number of samples that were held at one time.
    #[must_use]
    pub fn samples_peak(&self) -> u64 {
        self.shared.peak.load(Ordering::Relaxed)
    }

    /// The limit of samples held at once.
    #[must_use]
    pub fn samples_max(&self) -> u64 {
        self.shared.samples_max
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(SAMPLES_MAX_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_reached() {
        let budget = Budget::new(10);
        assert_eq!(budget.hold(10), Ok(()));
        assert_eq!(budget.hold(1), Err(QueryError::too_many_samples()));
        budget.release(11);
        assert_eq!(budget.hold(5), Ok(()));
        assert_eq!(budget.samples_peak(), 11);
        assert_eq!(budget.check(), Ok(()));
        budget.clone().cancel();
        assert_eq!(budget.check(), Err(QueryError::Canceled));
        let late = Budget::with_deadline(1, 1, || true);
        assert_eq!(late.check(), Err(QueryError::Timeout));
    }

    #[test]
    fn a_branch_knows_what_it_holds() {
        let budget = Budget::with_deadline(10, 10, || false);
        let (one, other) = (budget.branch(), budget.branch());
        assert_eq!((one.hold(4), other.hold(5)), (Ok(()), Ok(())));
        assert_eq!(one.hold_bytes(3), Ok(()));
        one.release(1);
        assert_eq!((one.held_here(), other.held_here()), ((3, 3), (5, 0)));
        assert!(!budget.is_exceeded());
        assert_eq!(other.hold(3), Err(QueryError::too_many_samples()));
        assert!(budget.is_exceeded());
        other.release(8);
        assert_eq!(budget.hold(7), Ok(()));
        let inner = other.branch();
        assert_eq!(inner.hold_bytes(2), Ok(()));
        assert_eq!((inner.held_here(), other.held_here()), ((0, 2), (0, 2)));
    }

    #[test]
    fn bytes_are_counted_too() {
        let budget = Budget::with_deadline(1, 10, || false);
        assert_eq!(budget.hold_bytes(8), Ok(()));
        assert_eq!(budget.clone().bytes_left(), 2);
        let error = budget.hold_bytes(3).expect_err("11 of 10");
        assert_eq!(
            error.to_string(),
            "query processing would load too much data into memory in query execution: more than 10 bytes of results"
        );
        assert_eq!((error.error_type(), budget.bytes_left()), ("execution", 0));
        budget.release_bytes(4);
        assert_eq!(budget.hold_bytes(3), Ok(()));
    }
}
