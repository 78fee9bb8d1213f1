//! When senders are away, and how.

use super::{SCRAPED_UNTIL, SETTLED_AFTER, STEP};
use rand::{RngExt, rngs::StdRng};
use trefoil_model::Millis;

/// A time in which a sender does not send.
#[derive(Clone, Debug)]
pub(super) struct Absence {
    pub(super) from: Millis,
    pub(super) to: Millis,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It does nothing.
    Paused,
    /// It does nothing, and has forgotten everything behind that.
    Dead,
    /// It scrapes, and nobody hears it.
    Cut,
}

impl Absence {
    /// Whether it does nothing.
    pub(super) fn is_dead_at(&self, now: Millis) -> bool {
        self.kind != Kind::Cut && (self.from..self.to).contains(&now)
    }

    pub(super) fn cuts_at(&self, now: Millis) -> bool {
        self.kind == Kind::Cut && (self.from..self.to).contains(&now)
    }

    pub(super) fn forgets_at(&self, now: Millis) -> bool {
        self.kind == Kind::Dead && self.to == now
    }

    /// Whether nothing was scraped in some of this time.
    pub(super) fn misses(&self, from: Millis, to: Millis) -> bool {
        self.kind != Kind::Cut && self.from < to && from < self.to
    }
}

/// When each of the two is away. Restless ones follow on each other so fast that there are gaps; of others at least one scrapes at any
/// time, and is heard within the time that what is held is kept.
pub(super) fn absences(random: &mut StdRng, is_restless: bool) -> [Vec<Absence>; 2] {
    let mut away = [Vec::new(), Vec::new()];
    let steps = |time: Millis| time / STEP * STEP;
    let forever = SCRAPED_UNTIL + SETTLED_AFTER + STEP;
    let mut at = steps(random.random_range(40_000..90_000));
    while at < SCRAPED_UNTIL {
        let one = random.random_range(0..2);
        let kind = match random.random_bool(0.5) {
            true => Kind::Dead,
            false => Kind::Paused,
        };
        let mut add = |who: usize, from: Millis, to: Millis, kind| {
            let (from, to) = (steps(from), steps(to));
            away[who].push(Absence { from, to, kind });
            to
        };
        let end = match random.random_range(0..7) {
            // It comes back before another one is elected, perhaps with what it had not sent.
            0 => add(one, at, at + random.random_range(500..24_000), kind),
            1 => add(one, at, at + random.random_range(24_000..90_000), kind),
            2 => add(one, at, forever, kind),
            3 => add(one, at, at + random.random_range(500..90_000), Kind::Cut),
            // Nobody is heard; who comes back first has what it could not send.
            4 => {
                let to = at + random.random_range(10_000..90_000);
                let spread = |random: &mut StdRng| random.random_range(-5_000..5_000);
                let ends = [to + spread(random), to + spread(random)];
                let begin = at + random.random_range(0..5_000);
                add(one, at, ends[0], Kind::Cut).max(add(1 - one, begin, ends[1], Kind::Cut))
            }
            // The other one dies while this one is cut off, or has just come back.
            _ => {
                let to = at + random.random_range(20_000..80_000);
                let dies = (to + random.random_range(-40_000..5_000)).max(at);
                add(one, at, to, Kind::Cut);
                match random.random_bool(0.5) {
                    true => add(1 - one, dies, forever, kind),
                    false => add(
                        1 - one,
                        dies,
                        to + random.random_range(60_000..90_000),
                        kind,
                    ),
                }
            }
        };
        let pause = match is_restless {
            true => random.random_range(0..40_000),
            false => random.random_range(100_000..140_000),
        };
        at = steps(end + pause);
    }
    away
}
