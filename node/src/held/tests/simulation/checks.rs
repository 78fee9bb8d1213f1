//! What must be true of the store behind a schedule.

use super::{
    BATCH_MAX, INTERVAL, LATE, LATE_SERIES, SCRAPED_UNTIL, SERIES, STRAY_SERIES, Sample, World,
    Write,
};
use crate::held::Loss;
use trefoil_model::Millis;

impl World {
    /// Whether no gap may be there.
    pub(super) fn is_whole(&self) -> bool {
        // What was left out may be what nobody else has. Strange times are no loss.
        let is_lossless = self.lost.is_empty() && self.left.is_empty();
        !self.has_lost && !self.plan.is_restless && is_lossless
    }

    /// Samples in the store that were only in writes that were not acknowledged.
    pub(super) fn in_limbo(&self) -> usize {
        let all = self.stored.iter().flat_map(|(series, samples)| {
            let samples = samples.iter();
            samples.map(move |(time, who)| ((*series, *time), *who))
        });
        all.filter(|sample| !self.acknowledged.contains(sample))
            .count()
    }

    pub(super) fn check(&self, seed: u64) {
        let mut elected = Vec::new();
        for (_, election) in &self.elections {
            if elected.last() != Some(&election.replica) {
                elected.push(election.replica.clone());
            }
        }
        // Of each lane one request is under way when its sender is not heard any more.
        let absences: usize = self.sources.iter().map(|source| source.away.len()).sum();
        let limbo_max = 2 * BATCH_MAX * absences;
        assert!(self.in_limbo() <= limbo_max, "seed {seed}");
        let expected = [Loss::Memory, Loss::ComparedLate, Loss::Superseded];
        let is_expected = |loss: &Loss| expected.contains(loss);
        assert!(self.lost.keys().all(is_expected), "seed {seed}");
        for series in 0..SERIES {
            self.check_series(seed, series, elected.len());
        }
        self.check_late(seed);
    }

    /// What a sender that counts sent late is there, unless the other sender was there in its series.
    fn check_late(&self, seed: u64) {
        if self.has_unrecorded {
            return;
        }
        for (node, (series, time), source) in &self.late {
            if self.is_held((*series, *time)) {
                continue;
            }
            let Some(stored) = self.stored.get(series) else {
                panic!("seed {seed}: nothing of series {series}");
            };
            let mut behind = stored.range(*time..);
            let is_there = stored.contains_key(time) || behind.any(|(_, who)| who != source);
            assert!(
                is_there,
                "seed {seed}: {time} of series {series}, sent late to {node}, is gone: {stored:?}\n{:?}\n{:?}, {:?}",
                self.elections, self.lost, self.left
            );
        }
    }

    /// Whether a node has a sample still: one that was away for long, or just before the end.
    fn is_held(&self, sample: Sample) -> bool {
        let senders = self
            .nodes
            .iter()
            .flat_map(|node| node.held.senders.values());
        let mut requests = senders.flat_map(|own| {
            let of_changes = own.changes.iter();
            let of_changes = of_changes.flat_map(|one| {
                one.compared
                    .iter()
                    .chain(&one.comparing)
                    .chain(&one.requests)
            });
            of_changes.chain(&own.late)
        });
        let is_in_flight = |write: &Write| write.batch.contains(&sample);
        requests.any(|request| request.content.contains(&sample))
            || self.in_flight.iter().any(is_in_flight)
    }

    fn check_series(&self, seed: u64, series: u32, elected: usize) {
        assert_ne!(series, STRAY_SERIES);
        let late = if series == LATE_SERIES { LATE } else { 0 };
        let samples: Vec<(Millis, usize)> = self.stored[&series]
            .iter()
            .map(|(at, who)| (*at, *who))
            .collect();
        let story = || {
            format!(
                "seed {seed}, series {series}: {samples:?}\n{:?}\n{:?}\n{:?}",
                self.elections, self.sources[0].away, self.sources[1].away
            )
        };
        // Of what is stored without being compared that is said.
        let is_told = |(time, who): &&(Millis, usize)| {
            let sample = ((series, *time), *who);
            self.acknowledged.contains(&sample) && !self.uncompared.contains(&sample)
        };
        let told: Vec<_> = samples.iter().filter(is_told).collect();
        let runs = told.chunk_by(|one, next| one.1 == next.1).count();
        assert!(runs <= elected, "interleaved: {}", story());
        if !self.is_whole() {
            return;
        }
        let newest = samples.last().expect("some samples").0;
        assert!(
            newest >= SCRAPED_UNTIL - late,
            "the end is missing: {}",
            story()
        );
        for pair in samples.windows(2) {
            let ((from, one), (to, other)) = (pair[0], pair[1]);
            if from >= SCRAPED_UNTIL - late {
                break;
            }
            let mut away = self.sources[one].away.iter();
            let is_own = one == other && away.any(|one| one.misses(from + late, to + late));
            assert!(
                to - from <= INTERVAL || is_own,
                "a gap at {from}: {}",
                story()
            );
        }
    }
}
