//! Which request works on which series: first come, first served.
//!
//! A request asks for all its series at once and works when it is the first at each of them, so no two wait for each other.
//! Who waits for one series keeps its place at the others as well: a large request is not overtaken for ever by small ones.
//!
//! Pure: whoever frees a series tells those that wait.

use std::collections::{HashMap, VecDeque};
use trefoil_model::SeriesHash;

/// Who asked for series; ascending in the order of asking.
pub(crate) type Ticket = u64;

/// The requests that work on series, or wait for them.
#[derive(Default)]
pub(crate) struct Turns {
    last: Ticket,
    queues: HashMap<SeriesHash, Queue>,
}

/// The requests at one series.
struct Queue {
    first: Ticket,
    /// Ascending; without memory as long as nobody waits.
    behind: VecDeque<Ticket>,
}

impl Turns {
    /// Asks for these series, each given once.
    pub(crate) fn ask(&mut self, series: &[SeriesHash]) -> Ticket {
        self.last += 1;
        let ticket = self.last;
        for one in series {
            let queue = self.queues.entry(*one);
            let wait = |queue: &mut Queue| queue.behind.push_back(ticket);
            queue.and_modify(wait).or_insert(Queue {
                first: ticket,
                behind: VecDeque::new(),
            });
        }
        ticket
    }

    /// Whether it is the turn of who asked for these series.
    pub(crate) fn has_come(&self, ticket: Ticket, series: &[SeriesHash]) -> bool {
        let is_first = |one| self.queues.get(one).is_some_and(|q| q.first == ticket);
        series.iter().all(is_first)
    }

    /// Ends what was asked for, whether it was its turn or not.
    pub(crate) fn end(&mut self, ticket: Ticket, series: &[SeriesHash]) {
        for one in series {
            let Some(queue) = self.queues.get_mut(one) else {
                continue;
            };
            if queue.first != ticket {
                queue.behind.retain(|other| *other != ticket);
                continue;
            }
            match queue.behind.pop_front() {
                Some(next) => queue.first = next,
                None => {
                    self.queues.remove(one);
                }
            }
        }
    }

    /// Whether somebody works on a series, or waits for it.
    pub(crate) fn wants(&self, series: SeriesHash) -> bool {
        self.queues.contains_key(&series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SeriesHash = SeriesHash(1);
    const B: SeriesHash = SeriesHash(2);
    const C: SeriesHash = SeriesHash(3);

    #[test]
    fn one_request_works_on_a_series_and_others_follow_in_order() {
        let mut turns = Turns::default();
        let first = turns.ask(&[A]);
        let both = turns.ask(&[B, A]);
        let small = turns.ask(&[B]);
        let other = turns.ask(&[C]);
        assert!(turns.has_come(first, &[A]) && turns.has_come(other, &[C]));
        assert!(!turns.has_come(both, &[B, A]));
        assert!(!turns.has_come(small, &[B]), "it came later");
        turns.end(first, &[A]);
        assert!(turns.has_come(both, &[B, A]) && !turns.has_come(small, &[B]));
        turns.end(both, &[B, A]);
        assert!(turns.has_come(small, &[B]) && !turns.wants(A));
        turns.end(small, &[B]);
        turns.end(other, &[C]);
        assert!(turns.queues.is_empty());
    }

    #[test]
    fn who_goes_away_while_it_waits_holds_nobody_up() {
        let mut turns = Turns::default();
        let [first, gone, last] = [(); 3].map(|()| turns.ask(&[A, B]));
        turns.end(gone, &[A, B]);
        assert!(turns.has_come(first, &[A, B]) && !turns.has_come(last, &[A, B]));
        turns.end(first, &[A, B]);
        assert!(turns.has_come(last, &[A, B]));
    }
}
