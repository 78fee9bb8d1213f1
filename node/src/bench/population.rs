//! The targets of the load, their present values, and the encoding of their scrapes into requests.
//!
//! Every target has a generator of its own under the seed, so its values do not depend on how many
//! targets or workers there are. Memory: eight bytes per series, and the encoded requests up to the
//! limit of [`Population::encode`].

use super::{
    BenchMetricsArgs,
    exporter::{SeriesShape, series_of_a_target},
    random::Random,
    wire,
};
use bytes::Bytes;

/// Scrapes come up to this many milliseconds late, as a scheduler makes them.
const JITTER_MS: u64 = 4;

/// One encoded request.
pub(super) struct Request {
    /// Snappy-compressed protobuf.
    pub(super) body: Bytes,
    /// How many samples are inside.
    pub(super) samples: u64,
}

/// A series of every target, its labels encoded up to where `instance` and `job` come.
struct EncodedShape {
    shape: SeriesShape,
    labels_before: Vec<u8>,
    labels_after: Vec<u8>,
}

struct Target {
    /// `instance` and `job`, encoded.
    labels: Vec<u8>,
    /// Milliseconds between the interval's begin and this target's scrape.
    offset_ms: u64,
    random: Random,
    /// The last value of each series, in the order of the shapes; the last target has fewer.
    values: Vec<f64>,
}

/// All targets, and how far their story is told.
pub(super) struct Population {
    shapes: Vec<EncodedShape>,
    targets: Vec<Target>,
    start: i64,
    interval_ms: u64,
    rounds: u64,
    round: u64,
    workers: usize,
    batch_series: u64,
}

impl Population {
    /// The load that `args` describe, with the first scrapes in the interval from `start`.
    pub(super) fn new(args: &BenchMetricsArgs, start: i64) -> Self {
        let shapes: Vec<EncodedShape> =
            series_of_a_target().into_iter().map(encode_shape).collect();
        let mut targets = Vec::new();
        let mut left = args.series;
        while left > 0 {
            let series = left.min(shapes.len() as u64);
            targets.push(new_target(args, targets.len() as u64, series, &shapes));
            left -= series;
        }
        Self {
            shapes,
            targets,
            start,
            interval_ms: args.interval_ms,
            rounds: args.samples,
            round: 0,
            workers: usize::try_from(args.concurrency).unwrap_or(1).max(1),
            batch_series: args.batch_series,
        }
    }

    /// Whether every sample has been encoded.
    pub(super) fn is_finished(&self) -> bool {
        self.round >= self.rounds
    }

    /// Encodes whole rounds (one scrape of every target) until the requests hold `bytes_max` bytes
    /// or the story ends; at least one round. One queue per worker, in order of time.
    pub(super) fn encode(&mut self, bytes_max: u64) -> Vec<Vec<Request>> {
        let mut batches: Vec<Batch> = (0..self.workers).map(|_| Batch::default()).collect();
        let mut bytes = 0u64;
        while !self.is_finished() && bytes < bytes_max {
            self.encode_round(&mut batches);
            bytes = batches.iter().map(|batch| batch.bytes_done).sum();
            self.round += 1;
        }
        batches.into_iter().map(|batch| batch.done).collect()
    }

    fn encode_round(&mut self, batches: &mut [Batch]) {
        let first = self.round == 0;
        let seconds = self.interval_ms as f64 / 1000.0;
        let begin = self.start + (self.round * self.interval_ms) as i64;
        for (place, target) in self.targets.iter_mut().enumerate() {
            let batch = &mut batches[place % self.workers];
            let late = target.offset_ms + target.random.below(JITTER_MS);
            let timestamp = begin + late.min(self.interval_ms - 1) as i64;
            for (value, encoded) in target.values.iter_mut().zip(&self.shapes) {
                if !first {
                    *value = encoded
                        .shape
                        .motion
                        .next(*value, seconds, &mut target.random);
                }
                let labels = [
                    encoded.labels_before.as_slice(),
                    &target.labels,
                    &encoded.labels_after,
                ];
                batch.add(labels, *value, timestamp);
                if batch.samples == self.batch_series {
                    batch.finish();
                }
            }
        }
        for batch in batches {
            batch.finish();
        }
    }
}

fn encode_shape(shape: SeriesShape) -> EncodedShape {
    let (mut labels_before, mut labels_after) = (Vec::new(), Vec::new());
    for (name, value) in &shape.labels {
        let out = match *name < "instance" {
            true => &mut labels_before,
            false => &mut labels_after,
        };
        wire::write_label(out, name, value);
    }
    EncodedShape {
        shape,
        labels_before,
        labels_after,
    }
}

fn new_target(
    args: &BenchMetricsArgs,
    number: u64,
    series: u64,
    shapes: &[EncodedShape],
) -> Target {
    let mut random = Random::new(args.seed, number);
    let mut labels = Vec::new();
    // Loads of different seeds are of different targets, so that they can follow each other.
    let port = 9100 + args.seed % 1000;
    let address = format!(
        "10.{}.{}.{}:{port}",
        number >> 16,
        (number >> 8) & 255,
        number & 255
    );
    wire::write_label(&mut labels, "instance", &address);
    wire::write_label(&mut labels, "job", &format!("node-{}", number % 10));
    let offset_ms = random.below(args.interval_ms);
    let values = shapes
        .iter()
        .take(series as usize)
        .map(|encoded| encoded.shape.motion.first(&mut random))
        .collect();
    Target {
        labels,
        offset_ms,
        random,
        values,
    }
}

/// A worker's requests: the open one, and those that are complete.
#[derive(Default)]
struct Batch {
    open: Vec<u8>,
    samples: u64,
    done: Vec<Request>,
    bytes_done: u64,
}

impl Batch {
    fn add(&mut self, labels: [&[u8]; 3], value: f64, timestamp: i64) {
        wire::write_series(&mut self.open, labels, value, timestamp);
        self.samples += 1;
    }

    fn finish(&mut self) {
        if self.samples == 0 {
            return;
        }
        let body = snap::raw::Encoder::new()
            .compress_vec(&self.open)
            .expect("a request is far below snappy's limit of 4 GiB");
        self.bytes_done += body.len() as u64;
        self.done.push(Request {
            body: Bytes::from(body),
            samples: self.samples,
        });
        self.open.clear();
        self.samples = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: BenchMetricsArgs,
    }

    fn population(arguments: &str) -> Population {
        let line = format!("bench --url http://localhost {arguments}");
        let args = CommandLine::parse_from(line.split(' ')).args;
        Population::new(&args, 1_000_000)
    }

    fn samples(queues: &[Vec<Request>]) -> u64 {
        queues.iter().flatten().map(|request| request.samples).sum()
    }

    #[test]
    fn all_samples_are_encoded_in_bounded_pieces() {
        let arguments = "--series 2000 --samples 5 --concurrency 3 --batch-series 300";
        let mut whole = population(arguments);
        assert_eq!(samples(&whole.encode(u64::MAX)), 10_000);
        assert!(whole.is_finished());
        let mut pieces = population(arguments);
        for _ in 0..5 {
            assert!(!pieces.is_finished());
            assert_eq!(samples(&pieces.encode(1)), 2_000);
        }
        assert!(pieces.is_finished());
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bodies = |arguments: &str| -> Vec<Bytes> {
            let queues = population(arguments).encode(u64::MAX);
            queues
                .into_iter()
                .flatten()
                .map(|request| request.body)
                .collect()
        };
        assert_eq!(
            bodies("--series 900 --samples 2"),
            bodies("--series 900 --samples 2")
        );
        let other = bodies("--series 900 --samples 2 --seed 2");
        assert_ne!(bodies("--series 900 --samples 2"), other);
    }
}
