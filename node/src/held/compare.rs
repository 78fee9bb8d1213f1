//! What a sender that counts now may add to each series: what is newer than what the senders that counted before have
//! stored there.
//!
//! Nothing in the store says whose a sample is. Of the sender that counts now it has only what came since its election, which
//! is newer than everything that was held of that series anywhere, for it sends each series in order. So what is stored at or before
//! the newest time that is held here is another's, and so is all that is older than its requests can have been when it
//! was elected. Between the two nothing of another sender can be, or it would have been heard later.

use std::collections::HashMap;
use trefoil_model::{Millis, SeriesHash};

/// The series of what is held of one sender, while the store is asked about them.
pub(crate) struct Comparison {
    /// What is stored up to this time is another's if it is not held here.
    others_until: Millis,
    series: HashMap<SeriesHash, OfSeries>,
}

#[derive(Default)]
struct OfSeries {
    /// The times of what is held; not sorted, and there may be repeated ones. A few.
    own: Vec<Millis>,
    /// The newest time that somebody else has stored.
    other: Option<Millis>,
}

impl Comparison {
    pub(crate) fn new(others_until: Millis) -> Self {
        Self {
            others_until,
            series: HashMap::new(),
        }
    }

    /// Takes note of samples that are held of a series.
    pub(crate) fn add(&mut self, series: SeriesHash, times: impl Iterator<Item = Millis>) {
        self.series.entry(series).or_default().own.extend(times);
    }

    /// The first and the last time about which the store has to be asked; nothing when nothing is held.
    pub(crate) fn span(&self) -> Option<(Millis, Millis)> {
        let all = || self.series.values().flat_map(|series| &series.own);
        Some((*all().min()?, self.others_until.max(*all().max()?)))
    }

    /// Takes what is stored of a series, if it is one of these. Times ascend.
    ///
    /// What is held is the sender's own, too, when it is stored since it counts: it had not heard an answer, and sent it again.
    pub(crate) fn found(&mut self, series: SeriesHash, stored: &[Millis]) {
        let Some(series) = self.series.get_mut(&series) else {
            return;
        };
        let newest = series.own.iter().fold(self.others_until, |a, b| a.max(*b));
        let until = self.others_until;
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

    /// What may be stored of what is held of one series, when what is stored up to 25 is another's.
    fn left(held: &[Millis], stored: &[Millis]) -> Vec<Millis> {
        let series = SeriesHash(1);
        let mut comparison = Comparison::new(25);
        comparison.add(series, held.iter().copied());
        comparison.found(series, stored);
        comparison.found(SeriesHash(2), &[1, 100]);
        assert_eq!(comparison.may_store(SeriesHash(2), 1), None);
        let may_store = |time: &Millis| comparison.may_store(series, *time) == Some(true);
        held.iter().copied().filter(may_store).collect()
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
    }

    #[test]
    fn the_span_of_what_is_held() {
        let mut comparison = Comparison::new(7);
        assert_eq!(comparison.span(), None);
        comparison.add(SeriesHash(2), [3].into_iter());
        assert_eq!(comparison.span(), Some((3, 7)));
        comparison.add(SeriesHash(1), [5, 9].into_iter());
        assert_eq!(comparison.span(), Some((3, 9)));
    }
}
