//! A part worked out on several threads: each takes a stretch of the series, as another evaluator would.
//!
//! Threads are for large parts, and for processors that no other part uses: under many queries each has one.

use super::storage::{Stretch, ViewStorage};
use std::{
    panic::resume_unwind,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use trefoil_query_promql::{
    Budget, Part, PartResult, QueryError, evaluate_part, merge, part_selector,
};

/// What a thread is worth, in samples read and values made: a millisecond or two. Starting one takes some ten microseconds.
const WORK_PER_THREAD: u64 = 64 << 10;

/// More do not help: memory is as slow as ever.
const THREADS_MAX: usize = 8;

static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// Threads of the process that work out parts.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Threads that count as busy as long as this lives.
struct Threads(usize);

impl Threads {
    /// As many as are worth it and free, one at least.
    fn take(work: u64) -> Self {
        let free = PROCESSORS.saturating_sub(BUSY.load(Ordering::Relaxed));
        let worth = usize::try_from(work / WORK_PER_THREAD).unwrap_or(THREADS_MAX);
        let count = worth.min(free).clamp(1, THREADS_MAX);
        BUSY.fetch_add(count, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        BUSY.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Works out `part` on the series of `storage`.
///
/// # Errors
/// As for [`evaluate_part`].
pub(super) fn evaluate(
    part: &Part,
    storage: &ViewStorage<'_>,
    budget: &Budget,
) -> Result<PartResult, QueryError> {
    let mut taken = None;
    evaluate_in_pieces(part, storage, budget, |work| {
        taken.insert(Threads::take(work)).0
    })
}

/// The same, where `pieces` says by the work how many threads there are.
pub(super) fn evaluate_in_pieces(
    part: &Part,
    storage: &ViewStorage<'_>,
    budget: &Budget,
    pieces: impl FnOnce(u64) -> usize,
) -> Result<PartResult, QueryError> {
    let Some(selector) = part_selector(part)? else {
        return evaluate_part(part, storage, budget);
    };
    let steps = part.grid.steps() as u64;
    let stretches = storage.stretches(&selector, |series, samples| {
        pieces(series.saturating_mul(steps).saturating_add(samples))
    })?;
    let results = on_threads(stretches, |stretch| {
        let result = evaluate_part(part, stretch, budget);
        (result, stretch.damaged())
    });
    let mut parts = Vec::with_capacity(results.len());
    for (result, damaged) in results {
        if damaged.is_some() {
            storage.damaged.set(damaged);
        }
        parts.push(result);
    }
    merge(parts.into_iter().collect::<Result<_, _>>()?)
}

/// The first stretch on this thread, the others each on one of their own.
fn on_threads<T: Send>(
    stretches: Vec<Stretch<'_>>,
    work: impl Fn(&Stretch<'_>) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    let mut stretches = stretches.into_iter();
    let first = stretches.next();
    thread::scope(|scope| {
        let start = |stretch| scope.spawn(move || work(&stretch));
        let others: Vec<_> = stretches.map(start).collect();
        let mut results: Vec<T> = first.iter().map(work).collect();
        let join = |other: thread::ScopedJoinHandle<'_, T>| {
            other.join().unwrap_or_else(|p| resume_unwind(p))
        };
        results.extend(others.into_iter().map(join));
        results
    })
}
