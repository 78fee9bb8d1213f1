//! Schedules of few steps that the random ones meet once in thousands of seeds, or never: holders that follow each other, each of
//! which sees two of three replicas.

use super::*;

/// Where the first delta begins.
const BEGIN: Millis = 1_000_000;

/// The replicas of a step.
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A series, and who adds to it.
struct Script {
    totals: Totals,
    fencing: u64,
    now: Millis,
    replicas: [Samples; REPLICAS],
    /// Where the next holder writes again what it goes on from; where it is seen, unless told otherwise.
    again: Option<[usize; 2]>,
    /// How many deltas the next request counts before its holder dies; all, unless told otherwise.
    counted: Option<usize>,
    /// What comes to light at the end, by replica.
    late: Vec<(usize, Vec<Sample>)>,
    sent: Sent,
    acknowledged: HashSet<Millis>,
}

impl Script {
    fn new() -> Self {
        Self {
            totals: Totals::new(9),
            fencing: 0,
            now: BEGIN,
            replicas: Default::default(),
            again: None,
            counted: None,
            late: Vec::new(),
            sent: Sent::new(),
            acknowledged: HashSet::new(),
        }
    }

    /// One of the deltas of a second each, of a value that tells it.
    fn delta(&mut self, number: Millis) -> Sample {
        let (begin, value) = (BEGIN + number * INTERVAL, f64::from(1 << number));
        self.sent.insert(begin + INTERVAL, (begin, value));
        Sample {
            start: begin,
            ..Sample::float(begin + INTERVAL, value)
        }
    }

    /// The next holder, for whom nothing is in doubt.
    fn steady_holder(&mut self) {
        self.totals = Totals::without_clock_offset(9);
        // Longer ago than any of the deltas.
        self.now = BEGIN - INTERVAL;
        self.next_holder();
        self.now = BEGIN;
    }

    /// The next holder, which may get what others have tried.
    fn holder(&mut self) {
        self.totals = Totals::new(9);
        self.next_holder();
    }

    fn next_holder(&mut self) {
        self.fencing += 1;
        assert!(self.totals.begin(self.fencing, self.present()));
    }

    fn present(&self) -> Now {
        Now {
            boot: Duration::from_millis(self.now as u64),
            time: self.now,
            oldest: Millis::MIN,
        }
    }

    /// A request for the holder, which reads from two replicas if it does not remember the series, and writes what it goes on from
    /// to two of them. What comes of the deltas is at `reaches` at once if it `lands`, or else comes to light there later.
    fn request(&mut self, deltas: &[Millis], sees: [usize; 2], reaches: &[usize], lands: bool) {
        let deltas: Vec<Sample> = deltas.iter().map(|number| self.delta(*number)).collect();
        let (one, now) = (series(0), self.present());
        let ticket = self.totals.ask(&[one]);
        if !self.totals.remembers(one) {
            let from = begin(&deltas) - 1;
            let stored = self.newest(sees, from, deltas.len());
            let kept = self
                .totals
                .keep_found(one, stored, from, DeletionVersion::default(), now);
            assert_eq!(kept, Ok(()));
            assert_eq!(self.totals.recall(one, &deltas, now), Ok(()));
        }
        let again = self.totals.unstored(one).to_vec();
        for replica in self.again.take().unwrap_or(sees) {
            again
                .iter()
                .for_each(|sample| put(&mut self.replicas[replica], sample));
        }
        self.totals.stored(one);
        let counted = self.counted.take().unwrap_or(deltas.len());
        let (mut step, mut refused) = (Step::default(), Vec::new());
        step.deltas_max = counted;
        let taken = (self.totals).take(one, &deltas, now, &mut step, &mut refused);
        assert_eq!((taken, &refused[..]), (Some(counted), &[][..]));
        let made = self.totals.unstored(one).to_vec();
        for replica in reaches {
            match lands {
                true => made
                    .iter()
                    .for_each(|sample| put(&mut self.replicas[*replica], sample)),
                false => self.late.push((*replica, made.clone())),
            }
        }
        if lands && reaches.len() >= 2 && counted == deltas.len() {
            self.totals.stored(one);
            self.acknowledged
                .extend(deltas.iter().map(|delta| delta.time));
        }
        self.totals.end(ticket, &[one]);
    }

    fn newest(&self, sees: [usize; 2], from: Millis, deltas: usize) -> Option<Stored> {
        let mut both = Samples::new();
        for replica in sees {
            for (time, value) in self.replicas[replica].range(from - ZERO_BEFORE_MAX..) {
                put(&mut both, &Sample::float(*time, *value));
            }
        }
        newest_of(&both, from, deltas)
    }

    /// All comes to light, of all replicas or of two of them.
    fn check(mut self) {
        for (replica, samples) in std::mem::take(&mut self.late) {
            samples
                .iter()
                .for_each(|sample| put(&mut self.replicas[replica], sample));
        }
        for lost in 0..=REPLICAS {
            let mut all = Samples::new();
            let left = self
                .replicas
                .iter()
                .enumerate()
                .filter(|(number, _)| *number != lost);
            for (time, value) in left.flat_map(|(_, samples)| samples) {
                put(&mut all, &Sample::float(*time, *value));
            }
            let is_acknowledged = |end| self.acknowledged.contains(&end);
            let checked = check_rises(&all, &self.sent, is_acknowledged);
            assert_eq!(checked, Ok(()), "without {lost}");
        }
    }
}

/// The first holder counts a delta that is acknowledged, and the next one that its sender gives up. Another holder does not see that
/// and begins anew with the third; a further one sees the second and adds the third to it.
fn begun_and_added(script: &mut Script) {
    script.steady_holder();
    script.request(&[0, 1], [A, B], &[A, B, C], true);
    script.request(&[2], [A, B], &[A, B, C], true);
    script.request(&[3], [A, B], &[B], true);
    script.holder();
    script.request(&[4], [A, C], &[A], true);
    script.holder();
    script.request(&[4], [B, C], &[C], false);
}

#[test]
fn a_begin_is_repeated_that_another_holder_has_added() {
    let mut script = Script::new();
    begun_and_added(&mut script);
    script.holder();
    // It sees the begin, and that is what the delta came to at the holder before last.
    script.request(&[4], [A, B], &[A, B], true);
    for next in 5..8 {
        script.request(&[next], [A, B], &[A, B, C], true);
    }
    script.check();
}

#[test]
fn a_begin_is_gone_on_from_that_another_holder_has_added() {
    let mut script = Script::new();
    begun_and_added(&mut script);
    script.holder();
    // The delta that began it is given up as well.
    for next in 5..8 {
        script.request(&[next], [A, B], &[A, B, C], true);
    }
    script.check();
}

#[test]
fn holders_follow_each_other_with_each_delta_behind_such_a_begin() {
    let mut script = Script::new();
    begun_and_added(&mut script);
    for next in 5..9 {
        script.holder();
        script.request(&[next], [A, B], &[A], true);
        script.holder();
        // What the one before it has added to is at this one's minority.
        script.request(&[next], [B, C], &[C], false);
        script.holder();
        script.request(&[next], [A, B], &[A, B], true);
    }
    script.check();
}

#[test]
fn a_first_that_its_holder_went_on_from_is_begun_anew_by_the_next() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0], [A, B], &[A, B, C], true);
    script.request(&[1], [A, B], &[C], false);
    for next in 1..4 {
        script.holder();
        script.request(&[next], [A, B], &[A, B], true);
    }
    script.check();
}

#[test]
fn the_cover_of_a_total_is_written_again_with_it() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0, 1], [A, B], &[A, B, C], true);
    script.request(&[2], [A, B], &[A, B, C], true);
    script.request(&[3], [A, B], &[B], true);
    script.holder();
    // A begin, since the delta before is not seen.
    script.request(&[4], [A, C], &[A], true);
    script.holder();
    script.request(&[4], [B, C], &[C], true);
    script.holder();
    // The begin is not seen, and the total is written where it is; then the replica is lost that had its cover.
    script.again = Some([A, B]);
    script.request(&[5], [B, C], &[A, B], true);
    script.check();
}

#[test]
fn deltas_of_a_request_behind_a_begin_are_repeated() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0, 1], [A, B], &[A, B, C], true);
    script.request(&[2], [A, B], &[B], true);
    script.holder();
    script.request(&[3, 4], [A, C], &[A], true);
    script.holder();
    script.request(&[3, 4], [B, C], &[C], false);
    script.holder();
    script.request(&[3, 4], [A, B], &[A, B], true);
    script.request(&[5, 6], [A, B], &[A, B], true);
    script.holder();
    script.request(&[7, 8], [B, C], &[B, C], true);
    script.check();
}

#[test]
fn a_request_is_begun_as_a_whole_and_added_in_part() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0, 1], [A, B], &[A, B, C], true);
    script.request(&[2], [A, B], &[B], true);
    script.holder();
    script.request(&[3, 4, 5], [A, C], &[A], true);
    script.holder();
    script.counted = Some(1);
    script.request(&[3, 4, 5], [B, C], &[C], false);
    script.check();
}

#[test]
fn several_deltas_behind_a_first_are_begun_anew_by_the_next_holder() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0], [A, B], &[A, B, C], true);
    script.request(&[1, 2, 3], [A, B], &[C], false);
    script.holder();
    script.request(&[1, 2, 3], [A, B], &[A, B], true);
    script.check();
}

#[test]
fn the_covers_of_a_request_are_written_again_with_its_last_total() {
    let mut script = Script::new();
    script.steady_holder();
    script.request(&[0], [A, B], &[A, B, C], true);
    script.request(&[1, 2], [A, B], &[C], true);
    script.holder();
    script.request(&[1, 2], [A, B], &[A], true);
    script.holder();
    // Both are seen, and the replica is lost that has the covers.
    script.again = Some([A, B]);
    script.request(&[3, 4], [A, C], &[A, B], true);
    script.check();
}
