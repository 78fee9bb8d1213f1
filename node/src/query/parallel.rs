//! A part worked out on several threads: each takes a stretch of the series, as another evaluator would.
//!
//! Threads are for large parts, and for processors that no other part uses: under many queries each has one.

use super::storage::{Brief, Damaged, Stretch, ViewStorage};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use trefoil_query_promql::{
    Budget, Grid, Part, PartBody, PartResult, QueryError, Selector, Worked, evaluate_part_in,
    part_selector,
};

/// What a thread is worth, in samples read and values made: a quarter of a millisecond. Waking one takes some ten microseconds.
const WORK_PER_THREAD: u64 = 16 << 10;

/// A look at a sample in one of its windows costs so much less than reading it.
const LOOKS_PER_SAMPLE: u64 = 4;

/// Bounds what one part may take; more were not tried.
const THREADS_MAX: usize = 8;

static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// Threads that wait for stretches, one less than processors; none if the system has none to give.
static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let builder = ThreadPoolBuilder::new().num_threads(PROCESSORS.saturating_sub(1).max(1));
    builder.thread_name(|_| "part".to_owned()).build().ok()
});

/// Threads of the process that work out parts.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Threads that count as busy as long as this lives.
struct Threads(usize);

impl Threads {
    /// As many as are worth it and free, one at least.
    fn take(work: u64) -> Self {
        let worth = usize::try_from(work / WORK_PER_THREAD).unwrap_or(THREADS_MAX);
        let mut count = 1;
        let taken = BUSY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy| {
            let free = PROCESSORS.saturating_sub(busy);
            count = worth.min(free).clamp(1, THREADS_MAX);
            Some(busy + count)
        });
        debug_assert!(taken.is_ok(), "it is always updated");
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
    evaluate_in(part, &[], storage, budget).map(|(worked, _)| worked.result)
}

/// The same for an answer that is to be kept in stretches of its times, which end at `ends`, and about how much work it was: samples
/// read and values made.
///
/// # Errors
/// As for [`evaluate_part_in`].
pub(super) fn evaluate_in(
    part: &Part,
    ends: &[usize],
    storage: &ViewStorage<'_>,
    budget: &Budget,
) -> Result<(Worked, u64), QueryError> {
    let (mut taken, mut all) = (None, 0);
    let worked = evaluate_in_pieces(part, ends, storage, budget, |work| {
        all = work;
        taken.insert(Threads::take(work)).0
    })?;
    Ok((worked, all))
}

/// The same, where `pieces` says by the work how many threads there are.
pub(super) fn evaluate_in_pieces(
    part: &Part,
    ends: &[usize],
    storage: &ViewStorage<'_>,
    budget: &Budget,
    pieces: impl FnOnce(u64) -> usize,
) -> Result<Worked, QueryError> {
    budget.check()?;
    let (selector, inner_steps) = match (part_selector(part)?, storage.brief) {
        (Some(read), _) => read,
        (None, None) => return evaluate_part_in(part, ends, storage, budget),
        // What does not go series by series is not known to be little.
        (None, Some(_)) => return Err(QueryError::Canceled),
    };
    let steps = part.grid.steps() as u64;
    let (mut work, mut read) = (0, 0);
    let stretches = storage.stretches(&selector, |series, samples| {
        read = samples;
        work = series.saturating_mul(steps).saturating_add(samples);
        pieces(work)
    })?;
    let looks = read.saturating_mul(windows_of_a_sample(&selector, part.grid)) / LOOKS_PER_SAMPLE;
    let is_little = |brief: Brief| inner_steps == 0 && work.saturating_add(looks) <= brief.work_max;
    if !storage.brief.is_none_or(is_little) {
        return Err(QueryError::Canceled);
    }
    let fetched = storage.meter.fetched();
    let pieces = on_threads(stretches, |stretch| {
        let branch = budget.branch();
        let result = evaluate_part_in(part, ends, stretch, &branch);
        if result.is_err() {
            stretch.give_up();
        }
        Piece {
            result,
            damaged: stretch.damaged(),
            branch,
        }
    });
    if let Some(damaged) = pieces.iter().find_map(|piece| piece.damaged) {
        storage.damaged.set(Some(damaged));
    }
    let is_whole = pieces.len() == 1;
    let in_vain = |piece: &Piece| matches!(piece.result, Err(QueryError::Canceled));
    if let Some(failed) = pieces.iter().position(|p| p.result.is_err() && !in_vain(p)) {
        // Groups that several pieces have took memory several times: in one piece they may fit.
        if !is_whole && budget.is_exceeded() && storage.damaged.get().is_none() {
            release(budget, pieces.iter().map(|piece| &piece.branch), (1, 1));
            storage.meter.go_back(fetched);
            return evaluate_part_in(part, ends, storage, budget);
        }
        return pieces
            .into_iter()
            .nth(failed)
            .map_or_else(|| Err(QueryError::Canceled), |piece| piece.result);
    }
    join(pieces, budget)
}

/// In how many of a range's windows a sample lies, about: functions may look at it in each.
fn windows_of_a_sample(selector: &Selector, grid: Grid) -> u64 {
    if grid.steps() <= 1 {
        return 1;
    }
    let reach = selector.end.saturating_sub(selector.start);
    let range = reach.saturating_sub(grid.end.saturating_sub(grid.start));
    u64::try_from(range / grid.step.max(1)).unwrap_or(0).max(1)
}

/// What came of one stretch.
struct Piece {
    result: Result<Worked, QueryError>,
    damaged: Option<Damaged>,
    /// Through which the result holds what it takes.
    branch: Budget,
}

/// The whole of all pieces, which holds what one piece would.
fn join(pieces: Vec<Piece>, budget: &Budget) -> Result<Worked, QueryError> {
    let (mut results, mut branches) = (Vec::new(), Vec::new());
    for piece in pieces {
        results.push(piece.result?);
        branches.push(piece.branch);
    }
    let before: usize = results.iter().map(groups_of).sum();
    let merged = Worked::merge(results, budget)?;
    let surplus = before - groups_of(&merged);
    release(budget, &branches, (surplus, before.max(1)));
    Ok(merged)
}

/// How many groups an answer has; one that is no list of groups has none.
fn groups_of(worked: &Worked) -> usize {
    match &worked.result.body {
        PartBody::Groups(groups) => groups.len(),
        PartBody::Rows(_) | PartBody::Samples(_) => 0,
    }
}

/// Gives back so many of so many parts of what is held through the branches.
fn release<'a>(
    budget: &Budget,
    branches: impl IntoIterator<Item = &'a Budget>,
    (parts, of_parts): (usize, usize),
) {
    let share = |held: usize| (held as u128 * parts as u128 / of_parts as u128) as usize;
    let (mut samples, mut bytes) = (0, 0);
    for branch in branches {
        let held = branch.held_here();
        (samples, bytes) = (samples + held.0, bytes + held.1);
    }
    budget.release(share(samples));
    budget.release_bytes(share(bytes));
}

/// The first stretch on this thread, the others on those of the pool.
fn on_threads<T: Send>(
    stretches: Vec<Stretch<'_>>,
    work: impl Fn(&Stretch<'_>) -> T + Sync,
) -> Vec<T> {
    let mut tasks: Vec<_> = stretches
        .into_iter()
        .map(|s| (Mutex::new(s), None))
        .collect();
    let (work, pool) = (&work, POOL.as_ref().filter(|_| tasks.len() > 1));
    let run = |(stretch, result): &mut (Mutex<Stretch<'_>>, Option<T>)| {
        *result = Some(work(stretch.get_mut()));
    };
    match (pool, tasks.split_first_mut()) {
        (Some(pool), Some((first, others))) => pool.in_place_scope(|scope| {
            for other in others {
                scope.spawn(move |_| run(other));
            }
            run(first);
        }),
        _ => tasks.iter_mut().for_each(run),
    }
    tasks.into_iter().filter_map(|(_, result)| result).collect()
}
