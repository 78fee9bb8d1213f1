//! Sets of numbers as disjoint ranges: what a writer's hundreds of thousands of elements cost is the number of
//! gaps between them.

use std::collections::BTreeMap;

/// A set of numbers. Ranges are inclusive, disjoint and never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Last number by first number.
    lasts: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `first..=last`; how many of these numbers are new.
    pub(crate) fn insert(&mut self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let new = self.missing(first, last).map(count).sum();
        let (mut from, mut to) = (first, last);
        // What touches the range grows into it: at most one begins before it.
        let before = self.lasts.range(..first).next_back();
        if let Some((&begin, &end)) = before
            && end >= first - 1
        {
            from = begin;
            to = to.max(end);
        }
        let touching: Vec<(u64, u64)> = self
            .lasts
            .range(first..=last.saturating_add(1))
            .map(|(&begin, &end)| (begin, end))
            .collect();
        for (begin, end) in touching {
            self.lasts.remove(&begin);
            to = to.max(end);
        }
        self.lasts.insert(from, to);
        new
    }

    /// Takes `first..=last` out; how many of these numbers were in the set.
    pub(crate) fn remove(&mut self, first: u64, last: u64) -> u64 {
        let parts: Vec<(u64, u64)> = self.within(first, last).collect();
        let begin = self.lasts.range(..first).next_back();
        let begin = begin.map(|(&begin, &end)| (begin, end));
        for &(from, to) in &parts {
            let whole = self.lasts.remove(&from);
            // Of a range that begins before, or ends behind, a piece stays.
            let end = whole.or(begin.map(|(_, end)| end)).unwrap_or(to);
            if end > to {
                self.lasts.insert(to + 1, end);
            }
            if let Some((begin, _)) = begin.filter(|_| whole.is_none()) {
                self.lasts.insert(begin, from - 1);
            }
        }
        parts.into_iter().map(count).sum()
    }

    /// The parts of `first..=last` that are in the set, ascending.
    pub(crate) fn within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let before = self.lasts.range(..first).next_back();
        let inside = (first <= last).then(|| self.lasts.range(first..=last));
        before
            .into_iter()
            .chain(inside.into_iter().flatten())
            .map(move |(&begin, &end)| (begin.max(first), end.min(last)))
            .filter(|(begin, end)| begin <= end)
    }

    /// The parts of `first..=last` that are not in the set, ascending.
    pub(crate) fn missing(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        gaps(first, last, self.within(first, last))
    }

    /// How many numbers it has.
    pub(crate) fn count(&self) -> u64 {
        self.lasts
            .iter()
            .map(|(&first, &last)| count((first, last)))
            .sum()
    }
}

/// How many numbers an inclusive range has; all of them are one less than `u64` can count.
pub(crate) fn count((first, last): (u64, u64)) -> u64 {
    (last - first).saturating_add(1)
}

/// What ascending, disjoint ranges leave of `first..=last`.
pub(crate) fn gaps(
    first: u64,
    last: u64,
    covered: impl Iterator<Item = (u64, u64)>,
) -> impl Iterator<Item = (u64, u64)> {
    // None once the highest number there is has been covered.
    let mut next = Some(first);
    let ends = covered.map(Some).chain([None]);
    ends.filter_map(move |range| {
        let from = next.filter(|from| *from <= last)?;
        let Some((begin, end)) = range else {
            next = None;
            return Some((from, last));
        };
        next = end.max(from.saturating_sub(1)).checked_add(1);
        (begin > from).then(|| (from, last.min(begin - 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for &(first, last) in of {
            ranges.insert(first, last);
        }
        ranges
    }

    #[test]
    fn neighbours_become_one_and_only_new_numbers_count() {
        let mut set = ranges(&[(3, 4), (8, 9), (0, 0)]);
        assert_eq!(set.insert(5, 7), 3);
        assert_eq!(set, ranges(&[(0, 0), (3, 9)]));
        assert_eq!(set.insert(1, 12), 5);
        assert_eq!(set.insert(2, 3), 0);
        assert_eq!(set.insert(9, 2), 0);
        assert_eq!((set.clone(), set.count()), (ranges(&[(0, 12)]), 13));
        assert_eq!(set.insert(u64::MAX, u64::MAX), 1);
        assert_eq!(set.insert(20, u64::MAX - 1), u64::MAX - 20);
    }

    #[test]
    fn what_is_taken_out_leaves_pieces() {
        let mut set = ranges(&[(0, 9), (20, 29), (40, 49)]);
        assert_eq!(set.remove(5, 6), 2);
        assert_eq!(set, ranges(&[(0, 4), (7, 9), (20, 29), (40, 49)]));
        assert_eq!(set.remove(9, 44), 1 + 10 + 5);
        assert_eq!(set, ranges(&[(0, 4), (7, 8), (45, 49)]));
        assert_eq!((set.remove(10, 44), set.remove(0, 4)), (0, 5));
        assert_eq!(set, ranges(&[(7, 8), (45, 49)]));
    }

    #[test]
    fn parts_and_gaps_are_cut_at_the_asked_ends() {
        let set = ranges(&[(2, 5), (8, 8), (11, 20)]);
        let within: Vec<_> = set.within(4, 12).collect();
        assert_eq!(within, [(4, 5), (8, 8), (11, 12)]);
        let missing: Vec<_> = set.missing(0, 12).collect();
        assert_eq!(missing, [(0, 1), (6, 7), (9, 10)]);
        assert_eq!(set.missing(12, 13).count(), 0);
        assert_eq!(set.missing(21, 21).collect::<Vec<_>>(), [(21, 21)]);
        assert_eq!(set.within(9, 3).count(), 0);
        let high = ranges(&[(u64::MAX - 1, u64::MAX)]);
        let before = high.missing(0, u64::MAX).collect::<Vec<_>>();
        assert_eq!(before, [(0, u64::MAX - 2)]);
    }
}
