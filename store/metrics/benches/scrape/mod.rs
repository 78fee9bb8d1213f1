//! A seeded stand-in for node exporters: counters, gauges and constants with the labels and value shapes
//! that real ones have, scraped every 15 s with millisecond jitter that all series of a target share.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use trefoil_model::{Labels, LabelsBuilder, Millis, ShardId, TenantId, key_hash, shard_of};

/// How a series moves from scrape to scrape.
#[derive(Clone, Copy)]
enum Shape {
    Constant,
    Counter {
        step: u32,
    },
    /// Hundredths, as CPU seconds are.
    Seconds {
        step: u32,
    },
    Pages {
        pages: u32,
    },
    Noise,
}

/// One series and its present value.
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) shard: ShardId,
    pub(crate) target: usize,
    shape: Shape,
    ticks: u64,
    pub(crate) value: f64,
}

/// All targets, between two scrapes.
pub(crate) struct Scraper {
    pub(crate) series: Vec<Series>,
    random: StdRng,
    targets: usize,
    scrapes: i64,
}

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const START: Millis = 1_700_006_400_000;
const INTERVAL: Millis = 15_000;

/// Metric, the label that tells its series apart, the modes of each, how many values the label has, shape.
type Family = (&'static str, &'static str, &'static str, usize, Shape);

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    ("node_cpu_seconds_total", "cpu", "idle iowait irq nice softirq steal system user", 8, Shape::Seconds { step: 200 }),
    ("node_disk_bytes_total", "device", "read written discarded", 6, Shape::Counter { step: 40_960 }),
    ("node_disk_io_time_seconds_total", "device", "io weighted", 6, Shape::Seconds { step: 30 }),
    ("node_network_bytes_total", "device", "receive transmit", 12, Shape::Counter { step: 90_000 }),
    ("node_network_drops_total", "device", "receive transmit compressed fifo frame multicast", 12, Shape::Constant),
    ("node_filesystem_bytes", "mountpoint", "avail free size", 12, Shape::Pages { pages: 400 }),
    ("node_filesystem_info", "mountpoint", "readonly error files", 12, Shape::Constant),
    ("node_memory_bytes", "kind", "active anon buffers cached dirty free mapped slab", 6, Shape::Pages { pages: 2_000 }),
    ("node_vmstat", "field", "a b c d e f", 25, Shape::Counter { step: 300 }),
    ("node_netstat", "field", "a b c d", 25, Shape::Constant),
    ("node_softnet_total", "cpu", "processed dropped squeezed flow received", 8, Shape::Counter { step: 20 }),
    ("node_scrape_collector_duration_seconds", "collector", "x", 45, Shape::Noise),
    ("node_load", "window", "short", 3, Shape::Seconds { step: 3 }),
    ("node_schedstat_seconds_total", "cpu", "running waiting timeslices", 8, Shape::Noise),
];

impl Scraper {
    /// Series of `targets` node exporters, about 690 each, with 10 labels each.
    pub(crate) fn new(targets: usize, seed: u64) -> Self {
        let mut series = Vec::new();
        for target in 0..targets {
            for &(metric, key, modes, count, shape) in FAMILIES {
                for mode in modes.split(' ') {
                    for index in 0..count {
                        series.push(one_series(target, metric, (key, index), mode, shape));
                    }
                }
            }
        }
        let random = StdRng::seed_from_u64(seed);
        Self {
            series,
            random,
            targets,
            scrapes: 0,
        }
    }

    /// Moves to the next scrape: the timestamp of each target.
    pub(crate) fn scrape(&mut self) -> Vec<Millis> {
        let base = START + self.scrapes * INTERVAL;
        self.scrapes += 1;
        for series in &mut self.series {
            step(series, &mut self.random);
        }
        let jitter = |target: usize, random: &mut StdRng| {
            base + (target as i64 * 37) % INTERVAL + random.random_range(0..6)
        };
        (0..self.targets)
            .map(|target| jitter(target, &mut self.random))
            .collect()
    }
}

fn one_series(target: usize, metric: &str, key: (&str, usize), mode: &str, shape: Shape) -> Series {
    let mut builder = LabelsBuilder::new();
    builder
        .set("__name__", metric)
        .set("instance", &format!("node-{target:04}.example.net:9100"))
        .set("job", "node-exporter")
        .set("cluster", "production-eu-1")
        .set("region", "eu-west-1")
        .set("zone", ["a", "b", "c"][target % 3])
        .set("namespace", "monitoring")
        .set("team", ["infra", "search"][target % 2])
        .set("mode", mode)
        .set(key.0, &format!("{}{}", key.0, key.1));
    let labels = builder.build();
    let shard = shard_of(key_hash(TENANT, labels.canonical()), 256);
    let ticks = 1_000 * (target as u64 + 7) + key.1 as u64 * 13;
    Series {
        labels,
        shard,
        target,
        shape,
        ticks,
        value: ticks as f64,
    }
}

fn step(series: &mut Series, random: &mut StdRng) {
    // Half of all counters stand still most of the time.
    let still = series.ticks.is_multiple_of(2) && random.random_bool(0.9);
    match series.shape {
        Shape::Counter { step } if !still => {
            series.ticks += 2 * u64::from(random.random_range(0..step));
            series.value = series.ticks as f64;
        }
        Shape::Seconds { step } if !still => {
            series.ticks += 2 * u64::from(random.random_range(step / 2..=step));
            series.value = series.ticks as f64 / 100.0;
        }
        Shape::Pages { pages } => {
            let change = i64::from(random.random_range(0..=pages)) - i64::from(pages / 2);
            series.ticks = (series.ticks as i64 + change).max(0) as u64;
            series.value = (series.ticks * 4096) as f64;
        }
        Shape::Noise => series.value = random.random_range(0.0001..0.01),
        Shape::Constant | Shape::Counter { .. } | Shape::Seconds { .. } => {}
    }
}
