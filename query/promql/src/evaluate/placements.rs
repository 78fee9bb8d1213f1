//! Where the windows of rates lie among the timestamps of a series, and what increases in them are multiplied by.
//!
//! It depends on no value, and series that are scraped together have the same timestamps: it is worked out once for all of them that
//! follow each other. Counters that began or were reset in the range are another matter.

use super::context::Reference;
use crate::{
    Grid,
    functions::window::{Extent, Reach},
    row::ABSENT,
};
use trefoil_model::Millis;

/// Windows and samples that are worth keeping, which is less than two megabytes.
const WINDOWS_MAX: usize = 1 << 14;
const SAMPLES_MAX: usize = 1 << 16;

/// Which windows, and whether per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The times at whose references the windows end.
    pub(crate) grid: Grid,
    pub(crate) reference: Reference,
    /// The length of the windows.
    pub(crate) range_ms: Millis,
    /// Rates instead of increases.
    pub(crate) per_second: bool,
}

/// The windows of the series that was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Placements {
    of: Option<Wanted>,
    timestamps: Vec<Millis>,
    placements: Vec<Placement>,
}

/// A window that ends at one time of the grid.
#[derive(Clone, Copy, Debug)]
struct Placement {
    /// The index of its first sample.
    from: usize,
    /// The index of its last sample; not behind `from` where there are less than two.
    last: usize,
    reach: Reach,
    /// What the reach makes of it where nothing limits it.
    factor: f64,
}

impl Placements {
    /// Whether so much is worth keeping.
    pub(crate) fn take(grid: Grid, samples: usize) -> bool {
        grid.steps() <= WINDOWS_MAX && samples <= SAMPLES_MAX
    }

    /// Appends the rates or increases of a counter that is never reset to `into`, one for each time of the grid.
    pub(crate) fn rates(
        &mut self,
        wanted: Wanted,
        timestamps: &[Millis],
        values: &[f64],
        into: &mut Vec<f64>,
    ) {
        if self.of != Some(wanted) || self.timestamps != timestamps {
            self.place(wanted, timestamps);
        }
        let per_second = wanted.per_second;
        into.extend(self.placements.iter().map(|placement| {
            let Placement {
                from,
                last,
                reach,
                factor,
            } = placement;
            if last <= from {
                return ABSENT;
            }
            let first = values[*from];
            let increase = values[*last] - first;
            match reach.is_limited_by(first, increase) {
                true => increase * reach.limited_by(first, increase).factor(per_second),
                false => increase * factor,
            }
        }));
    }

    fn place(&mut self, wanted: Wanted, timestamps: &[Millis]) {
        self.of = Some(wanted);
        self.timestamps.clear();
        self.timestamps.extend_from_slice(timestamps);
        self.placements.clear();
        let (mut from, mut behind) = (0, 0);
        self.placements.extend(wanted.grid.times().map(|time| {
            let end = wanted.reference.time(time);
            let start = end.saturating_sub(wanted.range_ms);
            while timestamps.get(behind).is_some_and(|t| *t <= end) {
                behind += 1;
            }
            while from < behind && timestamps[from] <= start {
                from += 1;
            }
            let last = behind.saturating_sub(1);
            if last <= from {
                return Placement {
                    from,
                    last: from,
                    reach: Reach::default(),
                    factor: 0.0,
                };
            }
            let reach = Reach::of(&Extent {
                first: timestamps[from],
                last: timestamps[last],
                gaps: last - from,
                start,
                end,
            });
            Placement {
                from,
                last,
                reach,
                factor: reach.factor(wanted.per_second),
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::window::{Window, extrapolated};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const INTERVAL: Millis = 15_000;

    /// Timestamps with jitter and gaps.
    fn timestamps(random: &mut StdRng) -> Vec<Millis> {
        let begin = random.random_range(0..20 * INTERVAL);
        let mut timestamps = Vec::new();
        for scrape in 0..random.random_range(0..60) {
            if random.random_bool(0.9) {
                timestamps.push(begin + scrape * INTERVAL + random.random_range(0..2_000));
            }
        }
        timestamps
    }

    /// A counter that begins at zero, near to it or far from it.
    fn counter(length: usize, random: &mut StdRng) -> Vec<f64> {
        let mut value = [0.0, 3.0, 1e6][random.random_range(0..3)];
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(value);
            value += f64::from(random.random_range(0..3_u8)) * 0.5;
        }
        values
    }

    fn any_windows(random: &mut StdRng) -> Wanted {
        Wanted {
            grid: Grid {
                start: random.random_range(0..20 * INTERVAL),
                end: 80 * INTERVAL,
                step: random.random_range(1_000..5 * INTERVAL),
            },
            reference: Reference {
                at: random.random_bool(0.1).then_some(40 * INTERVAL),
                offset: random.random_range(-2..2) * INTERVAL,
            },
            range_ms: random.random_range(1..20) * INTERVAL,
            per_second: random.random_bool(0.5),
        }
    }

    fn one_by_one(wanted: Wanted, timestamps: &[Millis], values: &[f64]) -> Vec<u64> {
        let rates = wanted.grid.times().map(|time| {
            let end = wanted.reference.time(time);
            let start = end - wanted.range_ms;
            let from = timestamps.partition_point(|t| *t <= start);
            let to = timestamps.partition_point(|t| *t <= end);
            let window = Window {
                timestamps: &timestamps[from..to],
                values: &values[from..to],
                start,
                end,
                time,
                parameters: [0.0, 0.0],
                before_resets: &[],
                start_timestamps: &[],
            };
            let rate = (from < to).then(|| extrapolated(&window, true, wanted.per_second));
            rate.flatten().unwrap_or(ABSENT).to_bits()
        });
        rates.collect()
    }

    #[test]
    fn series_in_turn_have_the_rates_of_each_window() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut placements = Placements::default();
            let mut times = Vec::new();
            let mut kept = None;
            for series in 0..20 {
                if series % 4 == 0 {
                    times = timestamps(&mut random);
                }
                if random.random_bool(0.3) {
                    kept = None;
                }
                let wanted = *kept.get_or_insert_with(|| any_windows(&mut random));
                let values = counter(times.len(), &mut random);
                let mut rates = Vec::new();
                placements.rates(wanted, &times, &values, &mut rates);
                let found: Vec<u64> = rates.iter().map(|rate| rate.to_bits()).collect();
                assert!(
                    found == one_by_one(wanted, &times, &values),
                    "seed {seed}, series {series}"
                );
            }
        }
    }
}
