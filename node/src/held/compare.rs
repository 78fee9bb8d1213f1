//! What a sender that counts now may add to each series: what is newer than what the senders that counted before have
//! stored there.
//!
//! Nothing in the store says whose a sample is. What is stored up to the time until which others were accepted is another's: what
//! the sender that counts sends from then is held, and stored when all nodes have compared what came before it. (If what is
//! found is its own all the same, because this node is late, something is left out that nobody else has; nothing is mixed.)
//!
//! Behind that time, samples of others are there only if their clocks were wrong. What the sender itself has there came since its
//! election, so it is newer than all that had come before, for it sends each series in order. So what is older than that and is
//! not held here is another's, too.

use super::Others;
use std::collections::HashMap;
use trefoil_model::{Millis, SeriesHash};

/// The series of what is held of one sender, while the store is asked about them.
pub(crate) struct Comparison {
    others: Others,
    series: HashMap<SeriesHash, OfSeries>,
}

#[derive(Default)]
struct OfSeries {
    /// The times of what is held; not sorted, and there may be repeated ones. A few.
    own: Vec<Millis>,
    /// The newest of those that came before the sender was elected.
    newest_before: Option<Millis>,
    /// The newest time that somebody else has stored.
    other: Option<Millis>,
}

impl Comparison {
    pub(crate) fn new(others: Others) -> Self {
        Self {
            others,
            series: HashMap::new(),
        }
    }

    /// Takes note of samples that are held of a series, and that arrived then.
    pub(crate) fn add(
        &mut self,
        series: SeriesHash,
        arrived: Millis,
        times: impl Iterator<Item = Millis>,
    ) {
        let series = self.series.entry(series).or_default();
        let known = series.own.len();
        series.own.extend(times);
        if arrived < self.others.elected {
            let newest = series.own[known..].iter().max().copied();
            series.newest_before = series.newest_before.max(newest);
        }
    }

    /// The first and the last time about which the store has to be asked; nothing when all that is held may be stored.
    pub(crate) fn span(&self) -> Option<(Millis, Millis)> {
        let all = self.series.values().flat_map(|series| &series.own);
        let newest = self.series.values().filter_map(|one| one.newest_before);
        let span = (*all.min()?, newest.fold(self.others.until, Millis::max));
        (span.0 <= span.1).then_some(span)
    }

    /// Takes what is stored of a series, if it is one of these. Times ascend.
    ///
    /// What is held is the sender's own, too, when it is stored since it counts: it had not heard an answer, and sent it again.
    pub(crate) fn found(&mut self, series: SeriesHash, stored: &[Millis]) {
        let Some(series) = self.series.get_mut(&series) else {
            return;
        };
        let until = self.others.until;
        let newest = series
            .newest_before
            .map_or(until, |newest| newest.max(until));
        // Until then the sender did not count. Both senders may have samples of equal times: rules are evaluated at the same ones.
        let is_other =
            |time: &&Millis| **time <= until || (**time <= newest && !series.own.contains(time));
        let other = stored.iter().rev().find(is_other).copied();
        series.other = series.other.max(other);
    }

    /// Whether a sample that is held may be stored; nothing for a series that is not one of these.
    pub(crate) fn may_store(&self, series: SeriesHash, time: Millis) -> Option<bool> {
        let series = self.series.get(&series)?;
        Some(series.other.is_none_or(|other| time > other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: Others = Others {
        until: 25,
        elected: 100,
    };

    /// What may be stored of what is held of one series since before its sender was elected, when what is stored up to 25 is
    /// another's.
    fn left(held: &[Millis], stored: &[Millis]) -> Vec<Millis> {
        left_of(&[(99, held)], stored)
    }

    /// The same of what arrived then.
    fn left_of(held: &[(Millis, &[Millis])], stored: &[Millis]) -> Vec<Millis> {
        let series = SeriesHash(1);
        let mut comparison = Comparison::new(OTHERS);
        for (arrived, times) in held {
            comparison.add(series, *arrived, times.iter().copied());
        }
        comparison.found(series, stored);
        comparison.found(SeriesHash(2), &[1, 100]);
        assert_eq!(comparison.may_store(SeriesHash(2), 1), None);
        let may_store = |time: &Millis| comparison.may_store(series, *time) == Some(true);
        let times = held.iter().flat_map(|(_, times)| times.iter().copied());
        times.filter(may_store).collect()
    }

    #[test]
    fn only_what_is_newer_than_the_other_sender_s_is_left() {
        assert_eq!(left(&[10, 20, 30], &[]), [10, 20, 30]);
        assert_eq!(left(&[10, 20, 30], &[3, 13]), [20, 30]);
        assert_eq!(left(&[10, 20, 30], &[23]), [30]);
        // The sender's own, which came directly since it counts.
        assert_eq!(left(&[10, 20, 30], &[13, 40, 50]), [20, 30]);
        // Its own, sent again because it heard no answer.
        assert_eq!(left(&[10, 20, 30], &[13, 30, 40]), [20, 30]);
        // Both have samples of the same times.
        assert_eq!(left(&[10, 20, 30], &[10, 20]), [30]);
        assert!(left(&[10, 20], &[13, 20]).is_empty());
        assert_eq!(left(&[30, 10, 20], &[13]), [30, 20]);
        // Other nodes hold what is newer, and the other sender has sent more than that.
        assert!(left(&[10], &[3, 23]).is_empty());
        assert_eq!(left(&[10], &[3, 26]), [10]);
        // The other sender's clock is wrong.
        assert_eq!(left(&[30, 40], &[3, 35]), [40]);
    }

    #[test]
    fn what_came_late_is_compared_up_to_when_others_were_accepted() {
        // Between the two the sender's own came to another node.
        assert_eq!(
            left_of(&[(99, &[20][..]), (101, &[60])], &[40, 50]),
            [20, 60]
        );
        assert_eq!(left_of(&[(101, &[20, 60][..])], &[10, 40]), [20, 60]);
        assert_eq!(left_of(&[(101, &[20, 60][..])], &[24, 40]), [60]);
    }

    #[test]
    fn the_span_of_what_is_held() {
        let mut comparison = Comparison::new(OTHERS);
        assert_eq!(comparison.span(), None);
        comparison.add(SeriesHash(3), 101, [26].into_iter());
        assert_eq!(comparison.span(), None, "nothing of others can be there");
        comparison.add(SeriesHash(2), 99, [3].into_iter());
        assert_eq!(comparison.span(), Some((3, 25)));
        comparison.add(SeriesHash(1), 99, [5, 29].into_iter());
        assert_eq!(comparison.span(), Some((3, 29)));
    }
}
