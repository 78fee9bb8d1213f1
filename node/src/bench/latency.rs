//! Durations of requests in buckets of at most 3 % width: constant memory, any number of requests.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: usize = 32;
/// Powers of two of microseconds: up to 2^36 us, 19 hours.
const POWERS: usize = 36;

/// Counts of durations. Quantiles are the upper ends of their buckets.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; STEPS * POWERS],
            total: 0,
            longest: Duration::ZERO,
        }
    }

    /// Counts one duration.
    pub(super) fn record(&mut self, duration: Duration) {
        self.counts[bucket(duration)] += 1;
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    /// Adds the counts of `other`.
    pub(super) fn absorb(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.longest = self.longest.max(other.longest);
    }

    /// The duration that a share of `quantile` (0 to 1) of the requests did not exceed, in
    /// milliseconds; 0 without requests.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return (upper_end_us(place) / 1000.0).min(self.longest_ms());
            }
        }
        0.0
    }

    /// The longest duration, in milliseconds.
    pub(super) fn longest_ms(&self) -> f64 {
        self.longest.as_secs_f64() * 1000.0
    }
}

/// The bucket of a duration: its power of two, and the next five bits below the leading one.
fn bucket(duration: Duration) -> usize {
    let us = u64::try_from(duration.as_micros())
        .unwrap_or(u64::MAX)
        .max(STEPS as u64);
    let power = us.ilog2() as usize;
    let step = (us >> (power - 5)) as usize - STEPS;
    ((power - 5) * STEPS + step).min(STEPS * POWERS - 1)
}

fn upper_end_us(bucket: usize) -> f64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    (STEPS + step + 1) as f64 * (1u64 << power) as f64
}

#[test]
fn quantiles_are_near_the_truth() {
    let mut latencies = Latencies::new();
    for ms in 1..=1000 {
        latencies.record(Duration::from_millis(ms));
    }
    for (quantile, truth) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
        let found = latencies.quantile_ms(quantile);
        assert!(
            (found / truth - 1.0f64).abs() < 0.04,
            "{quantile}: {found} for {truth}"
        );
    }
    assert_eq!(Latencies::new().quantile_ms(0.5), 0.0);
    latencies.record(Duration::from_secs(1_000_000));
    assert_eq!(latencies.longest_ms(), 1e9);
}
