//! Reuse of answers: what a part came to at past times is kept, and not worked out again while nothing of it has changed.
//!
//! ```text
//! times of a part   |--------stretch--------|--------stretch--------|--------stretch------
//! kept                  [ piece with stamp ]|[ piece with stamp    ]|
//! worked out        |--|                                            |--------| new pieces
//! ```
//! A piece is the answer to one question (tenant, shards, part but for its first and last time) at the times of an aligned
//! stretch, or at some of them that follow each other. It is kept with the stamp of all windows that it depends on, and used on a
//! view of which these windows have the same stamp, so nobody has to be told when something changes. What is missing is worked
//! out in runs, each as one part, and an answer for which nothing was found is worked out as it always was. Where pieces do not
//! make an answer, or working out a run fails, the whole is worked out: errors and remarks are those that it then has.
//!
//! Everything is in memory and bounded in bytes; what was used longest ago goes first. This knows parts, pieces and stamps, not
//! engines: who asks says what a window's stamp is and how a part is worked out.

mod pieces;
mod quiet;
mod stretches;
#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use pieces::{Kept, Pieces, Question};
use quiet::Quiet;
use std::{
    cell::RefCell,
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use stretches::{Stretch, stretches};
use trefoil_model::{ShardSet, TenantId, TimeRange, Window};
use trefoil_query_promql::{
    Budget, Divided, Part, PartResult, Piece, QueryError, Worked as PartWorked, join,
};
use trefoil_store_metrics::{COMPARED_WITHIN, Stamp};

/// The least work for which an answer is kept, in samples read and values made: a millisecond or two, some ten times what it takes
/// to look for pieces and to put them together.
const WORK_MIN: u64 = 64 << 10;
/// An answer that takes a larger share of the memory is not kept: it would drive out those of many others.
const SHARE_MAX: usize = 4;
/// Runs that are worked out one by one; rather than more of them, everything between the first and the last is.
const RUNS_MAX: usize = 4;
/// Windows on which one answer may depend, two years of them. Telling each one's stamp takes about a microsecond.
const WINDOWS_MAX: i64 = 8_760;
/// How long a window that is not wholly in blocks must have been the same before pieces that depend on it are kept.
const QUIET: Duration = Duration::from_secs(5);

/// The answers that a node keeps.
pub(crate) struct Reuse {
    pieces: Mutex<Pieces>,
    quiet: Mutex<Quiet>,
    bytes_max: usize,
    work_min: u64,
    quiet_for: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The numbers of a [`Reuse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReuseStatistics {
    /// Parts for which something was found, since the start.
    pub(crate) hits: u64,
    /// Parts that can be divided for which nothing was found.
    pub(crate) misses: u64,
    /// Pieces that are kept.
    pub(crate) pieces: usize,
    /// The memory that they take, about.
    pub(crate) bytes: usize,
}

/// Whose samples a part is about.
pub(crate) struct Asked<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) shards: &'a ShardSet,
    /// What is asked about these samples in a window, on one view.
    pub(crate) stamp: &'a dyn Fn(Window) -> Option<Stamp>,
}

/// What working out a part gave.
pub(crate) struct Worked {
    pub(crate) answer: PartWorked,
    /// Samples read and values made, about.
    pub(crate) work: u64,
    /// Nothing turned out to be unreadable.
    pub(crate) is_sound: bool,
}

/// Works out a part; the ends of stretches are those of pieces in which the answer may be kept.
type Work<'a> = dyn Fn(&Part, &[usize], &Budget) -> Result<Worked, QueryError> + 'a;

impl Reuse {
    /// Keeps nothing yet, and later so many bytes; 0: never anything.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            pieces: Mutex::default(),
            quiet: Mutex::default(),
            bytes_max,
            work_min: WORK_MIN,
            quiet_for: QUIET,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The same, for tests: it keeps whatever can be kept, at once.
    #[cfg(test)]
    pub(crate) fn eager(bytes_max: usize) -> Self {
        Self {
            work_min: 0,
            quiet_for: Duration::ZERO,
            ..Self::new(bytes_max)
        }
    }

    /// What is kept and how it was used.
    pub(crate) fn statistics(&self) -> ReuseStatistics {
        let (pieces, bytes) = self.pieces.lock().size();
        ReuseStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            pieces,
            bytes,
        }
    }

    /// The answer to a part: what `work` makes of it, with as little work as what is kept allows.
    ///
    /// # Errors
    /// Those of `work` for the whole part.
    pub(crate) fn evaluate(
        &self,
        part: &Part,
        asked: &Asked<'_>,
        budget: &Budget,
        work: &Work<'_>,
    ) -> Result<PartResult, QueryError> {
        let whole = || work(part, &[], budget).map(|worked| worked.answer.result);
        // Errors are those of the evaluation.
        let Ok(Some(divided)) = Divided::of(part) else {
            return whole();
        };
        let steps = part.grid.steps();
        let is_near = |reach: TimeRange| windows_in(reach) <= WINDOWS_MAX;
        if self.bytes_max == 0 || !divided.reach(0..steps).is_ok_and(is_near) {
            return whole();
        }
        let turn = Turn {
            reuse: self,
            stretches: stretches(part.grid),
            question: Arc::new(Question {
                tenant: asked.tenant,
                shards: asked.shards.clone(),
                part: divided.key(),
            }),
            divided,
            part,
            stamp: asked.stamp,
            stamps: RefCell::default(),
        };
        let found = turn.find();
        let used = found.iter().flatten().count();
        if used == 0 {
            let worked = work(part, &turn.ends(0..turn.stretches.len()), budget)?;
            self.misses.fetch_add(1, Ordering::Relaxed);
            turn.keep(&worked, 0..turn.stretches.len());
            return Ok(worked.answer.result);
        }
        match turn.put_together(found, budget, work) {
            Ok(Some(result)) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Ok(result)
            }
            Err(error @ (QueryError::Canceled | QueryError::Timeout | QueryError::Damaged(_))) => {
                Err(error)
            }
            Ok(None) | Err(_) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                whole()
            }
        }
    }
}

/// How many windows a range touches.
fn windows_in(range: TimeRange) -> i64 {
    let first = Window::containing(range.start).start();
    let length = Window::containing(0).range().end;
    range.end.saturating_sub(first) / length + 1
}

/// One part on one view.
struct Turn<'a> {
    reuse: &'a Reuse,
    part: &'a Part,
    divided: Divided,
    question: Arc<Question>,
    stretches: Vec<Stretch>,
    stamp: &'a dyn Fn(Window) -> Option<Stamp>,
    /// Stamps of the view, as far as they were asked for.
    stamps: RefCell<HashMap<Window, Option<Stamp>>>,
}

/// A piece that is used, and which of its times.
type Found = (Arc<Kept>, Range<usize>);

impl Turn<'_> {
    /// For each stretch a piece that has all of its times on this view. Takes away those that are of another state.
    fn find(&self) -> Vec<Option<Found>> {
        let numbers = self.stretches.iter().map(|stretch| stretch.number);
        let candidates = self.reuse.pieces.lock().take_up(&self.question, numbers);
        let mut stale = Vec::new();
        let found = candidates.into_iter().zip(&self.stretches);
        let found = found
            .map(|(kept, stretch)| {
                let kept = kept?;
                if self.stamp_of(kept.windows) != Some(kept.stamp) {
                    stale.push((stretch.number, kept));
                    return None;
                }
                let wanted = self.wanted_of(&kept, &stretch.steps)?;
                Some((kept, wanted))
            })
            .collect();
        if !stale.is_empty() {
            self.reuse.pieces.lock().remove(&self.question, &stale);
        }
        found
    }

    /// Which times of a piece a stretch wants, if it has all of them and can be had without the others.
    fn wanted_of(&self, kept: &Kept, steps: &Range<usize>) -> Option<Range<usize>> {
        let grid = self.part.grid;
        let before = grid.at(steps.start).checked_sub(kept.start)? / grid.step;
        let start = usize::try_from(before).ok()?;
        let wanted = start..start + steps.len();
        let all = kept.piece.steps();
        let is_had = wanted.end <= all && (wanted.len() == all || !kept.piece.is_remarked_upon());
        is_had.then_some(wanted)
    }

    /// The stamp of several windows, the last one included; `None` when one of them cannot be told.
    fn stamp_of(&self, (first, last): (Window, Window)) -> Option<Stamp> {
        let mut stamps = self.stamps.borrow_mut();
        let mut one = |window: Window| {
            let known = stamps.entry(window);
            *known.or_insert_with(|| {
                let stamp = (self.stamp)(window)?;
                let mut quiet = self.reuse.quiet.lock();
                quiet.see(self.question.tenant, window, stamp, Instant::now());
                Some(stamp)
            })
        };
        let all: Option<Vec<Stamp>> = windows(first, last).map(&mut one).collect();
        all.map(Stamp::of_all)
    }

    /// Whether none of these windows gets samples at present.
    fn are_quiet(&self, (first, last): (Window, Window)) -> bool {
        let (quiet, now) = (self.reuse.quiet.lock(), Instant::now());
        let is_quiet = |window| match self.stamps.borrow().get(&window).copied().flatten() {
            Some(stamp) if stamp.is_in_blocks() => true,
            Some(_) => {
                let since = quiet.since(self.question.tenant, window);
                since.is_some_and(|since| now.duration_since(since) >= self.reuse.quiet_for)
            }
            None => false,
        };
        windows(first, last).all(is_quiet)
    }

    /// Where stretches end, in times behind the begin of the first of them.
    fn ends(&self, of: Range<usize>) -> Vec<usize> {
        let start = self.stretches[of.start].steps.start;
        let ends = self.stretches[of].iter();
        ends.map(|stretch| stretch.steps.end - start).collect()
    }

    /// Keeps an answer for some of the stretches, as far as it can be of use.
    fn keep(&self, worked: &Worked, of: Range<usize>) {
        let reuse = self.reuse;
        let answer = &worked.answer;
        if !worked.is_sound
            || worked.work < reuse.work_min
            || !answer.is_divisible()
            || answer.bytes() > reuse.bytes_max / SHARE_MAX
        {
            return;
        }
        let begin = self.stretches[of.start].steps.start;
        for (at, stretch) in self.stretches[of].iter().enumerate() {
            let steps = stretch.steps.start - begin..stretch.steps.end - begin;
            let Ok(reach) = self.divided.reach(stretch.steps.clone()) else {
                continue;
            };
            let touched = (
                // Histograms are compared with what is before them.
                Window::containing(reach.start.saturating_sub(COMPARED_WITHIN)),
                Window::containing(reach.end.saturating_sub(1)),
            );
            let Some(stamp) = self.stamp_of(touched) else {
                continue;
            };
            if !self.are_quiet(touched) {
                continue;
            }
            let kept = Kept {
                start: self.part.grid.at(stretch.steps.start),
                windows: touched,
                stamp,
                piece: answer.piece(at, steps),
            };
            let mut pieces = reuse.pieces.lock();
            pieces.insert(&self.question, stretch.number, kept, reuse.bytes_max);
        }
    }

    /// The stretches of which nothing was found, in runs.
    fn missing(&self, found: &[Option<Found>]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (at, found) in found.iter().enumerate() {
            match runs.last_mut() {
                _ if found.is_some() => {}
                Some(run) if run.end == at => run.end = at + 1,
                _ => runs.push(at..at + 1),
            }
        }
        if runs.len() > RUNS_MAX
            && let Some(last) = runs.pop()
        {
            runs.truncate(1);
            runs.iter_mut().for_each(|first| first.end = last.end);
        }
        runs
    }

    /// Works out what is missing and puts everything together. `None`: the pieces do not make an answer. Holds as much of the
    /// budget as the answer does, or nothing if there is none.
    fn put_together(
        &self,
        found: Vec<Option<Found>>,
        budget: &Budget,
        work: &Work<'_>,
    ) -> Result<Option<PartResult>, QueryError> {
        let branch = budget.branch();
        let result = self.join(found, &branch, work);
        branch.release_all();
        let Some(result) = result? else {
            self.reuse.pieces.lock().forget(&self.question);
            return Ok(None);
        };
        budget.check()?;
        match result.hold(self.part.output, &branch) {
            Ok(()) => Ok(Some(result)),
            Err(error) => {
                branch.release_all();
                Err(error)
            }
        }
    }

    fn join(
        &self,
        found: Vec<Option<Found>>,
        budget: &Budget,
        work: &Work<'_>,
    ) -> Result<Option<PartResult>, QueryError> {
        let mut runs: Vec<(Range<usize>, Piece)> = Vec::new();
        for of in self.missing(&found) {
            let (first, last) = (&self.stretches[of.start], &self.stretches[of.end - 1]);
            let steps = first.steps.start..last.steps.end;
            let part = self.divided.at(steps.clone());
            let worked = work(&part, &self.ends(of.clone()), budget)?;
            if !worked.answer.is_divisible() {
                return Ok(None);
            }
            self.keep(&worked, of.clone());
            runs.push((of, worked.answer.into_piece(steps.len())));
        }
        let mut pieces: Vec<(&Piece, Range<usize>)> = Vec::new();
        let mut runs = runs.iter().peekable();
        let mut at = 0;
        while at < self.stretches.len() {
            match runs.next_if(|(of, _)| of.start == at) {
                Some((of, piece)) => {
                    pieces.push((piece, 0..piece.steps()));
                    at = of.end;
                }
                None => {
                    let Some((kept, wanted)) = &found[at] else {
                        return Ok(None);
                    };
                    pieces.push((&kept.piece, wanted.clone()));
                    at += 1;
                }
            }
        }
        // What was worked out goes into the answer, which holds what it takes itself.
        budget.release_all();
        join(&pieces, self.part.grid.steps(), self.part.output, budget)
    }
}

/// All windows from the first to the last.
fn windows(first: Window, last: Window) -> impl Iterator<Item = Window> {
    let next = move |window: &Window| {
        let next = Window::containing(window.range().end);
        (*window < next && *window < last).then_some(next)
    };
    std::iter::successors(Some(first), next)
}
