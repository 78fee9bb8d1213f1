//! How often a loop asks the budget of its query: behind so many looks at values, not at each of them.
//!
//! Loops over the rows of a query count what they look at; every 64 Ki looks, a millisecond or a few, one of them asks. So a piece
//! of work that would take minutes ends soon behind its deadline, or when nobody waits for it any more.

use crate::{Budget, QueryError};
use std::{cmp::Ordering, ops::Range};

/// Looks at values behind which the budget is asked, and from which work is long: half of a millisecond, about.
pub(crate) const LOOKS_MAX: usize = 64 << 10;

/// What the labels of a row take beside its values, in looks.
pub(crate) const LOOKS_OF_ROW: usize = 32;

/// What a native histogram takes instead of a float, in looks.
pub(crate) const LOOKS_OF_HISTOGRAM: usize = 64;

/// Items that are sorted at once: some ten milliseconds when they are rows by their labels.
const SORTED_AT_ONCE: usize = 16 << 10;

/// Counts looks at values, and asks a budget whether its query may go on.
pub(crate) struct Pace<'b> {
    budget: &'b Budget,
    looks: usize,
}

impl<'b> Pace<'b> {
    /// A count from zero.
    pub(crate) fn new(budget: &'b Budget) -> Self {
        Self { budget, looks: 0 }
    }

    /// Counts what is about to be looked at.
    ///
    /// # Errors
    /// Those of [`Budget::check`], when it is asked.
    #[inline]
    pub(crate) fn look(&mut self, values: usize) -> Result<(), QueryError> {
        self.looks = self.looks.saturating_add(values);
        if self.looks < LOOKS_MAX {
            return Ok(());
        }
        self.looks = 0;
        self.budget.check()
    }

    /// Sorts as [`slice::sort_by`] does.
    ///
    /// # Errors
    /// Those of [`Pace::look`]; the items are in any order then.
    pub(crate) fn sort_by<T>(
        &mut self,
        items: &mut [T],
        compare: impl Fn(&T, &T) -> Ordering,
    ) -> Result<(), QueryError> {
        self.look(items.len())?;
        // What evaluators answer is sorted.
        if items.is_sorted_by(|a, b| compare(a, b).is_le()) {
            return Ok(());
        }
        let mut sorted = SORTED_AT_ONCE;
        loop {
            for stretch in items.chunks_mut(sorted) {
                self.look(stretch.len().saturating_mul(LOOKS_OF_ROW))?;
                // Behind the first round these are two sorted stretches, which the standard library finds and merges.
                stretch.sort_by(&compare);
            }
            if sorted >= items.len() {
                return Ok(());
            }
            sorted = sorted.saturating_mul(2);
        }
    }
}

/// The numbers below `length` in stretches that are looked at without asking in between.
pub(crate) fn stretches(length: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..length).step_by(LOOKS_MAX);
    starts.map(move |start| start..length.min(start + LOOKS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    /// A budget that is late from its `first_late`th answer on, and how often it was asked.
    fn late_from(first_late: usize) -> (Budget, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let is_late = move || counted.fetch_add(1, Relaxed) + 1 >= first_late;
        (Budget::with_deadline(1, 1, is_late), asked)
    }

    #[test]
    fn the_budget_is_asked_behind_so_many_looks() {
        let (budget, asked) = late_from(3);
        let mut pace = Pace::new(&budget);
        let looks = (0..).take_while(|_| pace.look(1).is_ok()).count();
        assert_eq!((looks, asked.load(Relaxed)), (3 * LOOKS_MAX - 1, 3));
        assert_eq!(pace.look(usize::MAX), Err(QueryError::Timeout));
        let all: Vec<Range<usize>> = stretches(LOOKS_MAX + 1).collect();
        assert_eq!(all, [0..LOOKS_MAX, LOOKS_MAX..LOOKS_MAX + 1]);
        assert_eq!(stretches(0).count(), 0);
    }

    #[test]
    fn long_sorting_is_sorting_and_ends_when_it_must() {
        // Far from any order, with equal keys, of which the standard library keeps the order.
        let key = |at: usize| at.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1000;
        for length in [0, 1, 100, SORTED_AT_ONCE + 1, 5 * SORTED_AT_ONCE + 7] {
            let items: Vec<_> = (0..length).map(|at| (key(at), at)).collect();
            let (mut sorted, mut expected) = (items.clone(), items);
            let budget = Budget::new(1);
            let by_key = |a: &(usize, usize), b: &(usize, usize)| a.0.cmp(&b.0);
            let done = Pace::new(&budget).sort_by(&mut sorted, by_key);
            expected.sort_by(by_key);
            assert!(done.is_ok() && sorted == expected, "{length}");
        }
        let (budget, asked) = late_from(2);
        let mut items: Vec<_> = (0..5 * SORTED_AT_ONCE).map(key).collect();
        let done = Pace::new(&budget).sort_by(&mut items, usize::cmp);
        assert_eq!((done, asked.load(Relaxed)), (Err(QueryError::Timeout), 2));
    }
}
