//! What must be true of the store behind a schedule.

use super::{BATCH_MAX, INTERVAL, LATE, LATE_SERIES, SCRAPED_UNTIL, SERIES, STRAY_SERIES, World};
use crate::held::Loss;
use trefoil_model::Millis;

impl World {
    /// Whether no gap may be there.
    pub(super) fn is_whole(&self) -> bool {
        // What was left out may be what nobody else has. Strange times are no loss.
        !self.has_lost && !self.plan.is_restless && self.lost.is_empty()
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
        let is_told =
            |(time, who): &&(Millis, usize)| self.acknowledged.contains(&((series, *time), *who));
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
