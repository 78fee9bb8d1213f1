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
use trefoil_model::{Millis, SeriesHash};

/// What is held of one sender and is about to be compared.
pub(crate) struct Gathered {
    others: Others,
    samples: Vec<Sample>,
}

/// The series of what is held of one sender, while the store is asked about them.
pub(crate) struct Comparison {
    others: Others,
    /// Ascending by series; a few of each, and there may be repeated ones.
    samples: Vec<Sample>,
    /// Each series of these once, ascending.
    series: Vec<OfSeries>,
}

/// A sample that is held. Flat, for there are many.
struct Sample {
    series: SeriesHash,
    time: Millis,
    /// Whether it came before the sender was elected.
    is_before: bool,
}

struct OfSeries {
    /// The place of its first sample.
    first: u32,
    /// The newest of those that came before the sender was elected; before all times when there is none.
    newest_before: Millis,
    /// The newest time that somebody else has stored; before all times when there is none.
    other: Millis,
}

impl Gathered {
    /// With room for so many samples.
    pub(crate) fn new(others: Others, samples: usize) -> Self {
        Self {
            others,
            samples: Vec::with_capacity(samples),
        }
    }

    /// Takes note of samples that are held of a series, and that arrived then.
    pub(crate) fn add(
        &mut self,
        series: SeriesHash,
        arrived: Millis,
        times: impl Iterator<Item = Millis>,
    ) {
        let is_before = arrived < self.others.elected;
        self.samples.extend(times.map(|time| Sample {
            series,
            time,
            is_before,
        }));
    }

    /// All are there.
    pub(crate) fn into_comparison(self) -> Comparison {
        let mut samples = self.samples;
        samples.sort_unstable_by_key(|sample| sample.series);
        let mut series = Vec::new();
        let mut first = 0;
        for own in samples.chunk_by(|one, next| one.series == next.series) {
            let before = own.iter().filter(|sample| sample.is_before);
            series.push(OfSeries {
                first,
                newest_before: before.map(|one| one.time).max().unwrap_or(Millis::MIN),
                other: Millis::MIN,
            });
            first += own.len() as u32;
        }
        Comparison {
            others: self.others,
            samples,
            series,
        }
    }
}

impl Comparison {
    /// The first and the last time about which the store has to be asked; nothing when all that is held may be stored.
    pub(crate) fn span(&self) -> Option<(Millis, Millis)> {
        let oldest = self.samples.iter().map(|sample| sample.time).min()?;
        let newest = self.series.iter().map(|series| series.newest_before);
        let newest = newest.fold(self.others.until, Millis::max);
        (oldest <= newest).then_some((oldest, newest))
    }

    /// Takes what is stored of a series, if it is one of these. Times ascend.
    ///
    /// What is held is the sender's own, too, when it is stored since it counts: it had not heard an answer, and sent it again.
    pub(crate) fn found(&mut self, series: SeriesHash, stored: &[Millis]) {
        let Some(place) = self.place(series) else {
            return;
        };
        let until = self.others.until;
        let newest = self.series[place].newest_before.max(until);
        // Until then the sender did not count. Both senders may have samples of equal times: rules are evaluated at the same ones.
        let is_other =
            |time: &&Millis| **time <= until || (**time <= newest && !self.holds(place, **time));
        let other = stored.iter().rev().find(is_other).copied();
        let known = &mut self.series[place].other;
        *known = other.map_or(*known, |other| other.max(*known));
    }

    /// Whether a sample that is held may be stored; nothing for a series that is not one of these.
    pub(crate) fn may_store(&self, series: SeriesHash, time: Millis) -> Option<bool> {
        let place = self.place(series)?;
        Some(time > self.series[place].other)
    }

    fn place(&self, series: SeriesHash) -> Option<usize> {
        let hash_of = |one: &OfSeries| self.samples[one.first as usize].series;
        self.series.binary_search_by_key(&series, hash_of).ok()
    }

    /// Whether a sample of the series at a place is held.
    fn holds(&self, place: usize, time: Millis) -> bool {
        let end = self.series.get(place + 1).map(|next| next.first as usize);
        let own = self.series[place].first as usize..end.unwrap_or(self.samples.len());
        self.samples[own].iter().any(|sample| sample.time == time)
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
        let mut gathered = Gathered::new(OTHERS, 0);
        gathered.add(SeriesHash(3), 0, [100].into_iter());
        for (arrived, times) in held {
            gathered.add(series, *arrived, times.iter().copied());
        }
        gathered.add(SeriesHash(0), 0, [200].into_iter());
        let mut comparison = gathered.into_comparison();
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
        let late: (u128, Millis, &[Millis]) = (3, 101, &[26]);
        let span = |held: &[(u128, Millis, &[Millis])]| {
            let mut gathered = Gathered::new(OTHERS, 1);
            for (series, arrived, times) in held {
                gathered.add(SeriesHash(*series), *arrived, times.iter().copied());
            }
            gathered.into_comparison().span()
        };
        assert_eq!(span(&[]), None);
        assert_eq!(span(&[late]), None, "nothing of others can be there");
        assert_eq!(span(&[late, (2, 99, &[3])]), Some((3, 25)));
        assert_eq!(
            span(&[late, (2, 99, &[3]), (1, 99, &[5, 29])]),
            Some((3, 29))
        );
    }
}
