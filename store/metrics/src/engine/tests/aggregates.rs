//! Aggregates against samples: whatever is in the head, in small blocks, merged, late, deleted or cut off.

use super::*;
use trefoil_model::{Aggregate, Resolution, aggregate};

/// Per tenant and series, the buckets.
type Buckets = BTreeMap<(TenantId, Labels), Vec<Aggregate>>;

/// What a view gives as aggregates; samples that cannot be are left out.
fn buckets(view: &View, range: TimeRange, resolution: Resolution) -> Buckets {
    let mut found = Buckets::new();
    let shards = ShardSet::all(SHARDS);
    for tenant in view.tenants() {
        let cursor = view.aggregates(tenant, &[], range, &shards, resolution);
        let mut cursor = cursor.unwrap();
        while let Some(series) = cursor.next_series().unwrap() {
            let labels = Labels::from_canonical(series.canonical).unwrap();
            assert!(series.timestamps.is_empty() != series.aggregates.is_empty());
            found.insert((tenant, labels), series.aggregates.to_vec());
        }
    }
    found
}

/// The same from the samples that the view shows.
fn expected(view: &View, range: TimeRange, resolution: Resolution) -> Buckets {
    let of_series = |samples: BTreeMap<Millis, u64>| {
        let mut rows = Vec::new();
        let samples = samples.into_iter().map(|(t, v)| (t, f64::from_bits(v)));
        aggregate(samples, resolution, &mut rows);
        rows
    };
    let shown = shown(view, &[], range, &ShardSet::all(SHARDS));
    let series = shown.into_iter();
    series.map(|(key, found)| (key, of_series(found))).collect()
}

/// `range` is made of whole buckets.
fn check(view: &View, range: TimeRange) {
    for resolution in Resolution::ALL {
        let (found, expected) = (
            buckets(view, range, resolution),
            expected(view, range, resolution),
        );
        assert!(found.keys().eq(expected.keys()));
        for (series, rows) in expected {
            // By their text: NaN is equal to itself there.
            let texts = |rows: &[Aggregate]| rows.iter().map(|row| format!("{row:?}")).collect();
            let (own, rows): (Vec<String>, Vec<String>) = (texts(&found[&series]), texts(&rows));
            let differs = own.iter().zip(&rows).find(|(own, row)| own != row);
            assert_eq!(differs, None, "{series:?} at {resolution:?}");
            assert_eq!(own.len(), rows.len(), "{series:?} at {resolution:?}");
        }
    }
}

fn has_aggregates(engine: &MetricsEngine) -> Vec<bool> {
    let blocks = engine.blocks().into_iter();
    blocks
        .map(|block| block.meta.file("aggregates").is_some())
        .collect()
}

impl Pair {
    /// Integers, so that sums are the same in any order, all over the windows and often at their ends.
    fn write_integers(&mut self) {
        let tenant = TenantId(self.random.random_range(0..2));
        let mut writer = BodyWriter::new().unwrap();
        for number in 0..self.random.random_range(1..8) {
            let labels = series_labels(number);
            let step = [15_000, 60_000, 100_000][self.random.random_range(0..3)];
            let first = START + self.random.random_range(0..3 * WINDOW_MILLIS) / step * step;
            let samples: Vec<_> = (0..self.random.random_range(1..200))
                .map(|at| match self.random.random_range(0..30) {
                    0 => (first + at * step, f64::from_bits(STALE_MARKER_BITS)),
                    1 => (first + at * step, f64::NAN),
                    _ => (
                        first + at * step,
                        f64::from(self.random.random_range(-20..20)),
                    ),
                })
                .collect();
            let shard = shard_of_series(&labels);
            writer
                .add_series(shard, labels.canonical(), samples)
                .unwrap();
        }
        let body = writer.finish().unwrap();
        let end = self.end() + body.len() as u64;
        let version = DeletionVersion(self.deletions.get(&tenant).map_or(0, Vec::len) as u64);
        let parcel = Parcel {
            end,
            tenant,
            version,
            body,
        };
        self.apply(&parcel);
        self.journal.push(parcel);
    }
}

#[test]
fn aggregates_are_those_of_the_samples() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        for _ in 0..40 {
            match pair.random.random_range(0..100) {
                0..45 => pair.write_integers(),
                45..60 => drop(pair.engine.flush(pair.end(), None).unwrap()),
                60..85 => {
                    let closed = START + pair.random.random_range(0..6) * WINDOW_MILLIS;
                    pair.engine.merge_once(closed).unwrap();
                }
                85..88 => pair.crash(),
                88..91 => pair.drop_shards(),
                91..95 => pair.delete(),
                95..97 => pair.cut_off(),
                97..99 => pair.cut_off_selected(),
                _ => drop(pair.engine.enforce_retention().unwrap()),
            }
            if pair.random.random_bool(0.3) {
                let view = pair.engine.view();
                check(&view, all());
                let hour = 3_600_000;
                check(
                    &view,
                    TimeRange {
                        start: START + hour + 1,
                        end: START + 4 * hour + 1,
                    },
                );
            }
        }
        pair.engine.flush(pair.end(), None).unwrap();
        while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
        assert!(has_aggregates(&pair.engine).iter().all(|has| *has));
        check(&pair.engine.view(), all());
    }
}

#[test]
fn only_closed_windows_are_aggregated() {
    let mut pair = Pair::new(1);
    for _ in 0..10 {
        pair.write();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    while pair.engine.merge_once(START).unwrap().is_some() {}
    assert!(!has_aggregates(&pair.engine).contains(&true));
    let closed = START + WINDOW_MILLIS;
    while pair.engine.merge_once(closed).unwrap().is_some() {}
    let has = has_aggregates(&pair.engine);
    assert!(has[0] && !has[1..].contains(&true));
    check(&pair.engine.view(), all());
    // A late sample: the window's samples are read again until they are merged.
    pair.write_integers();
    pair.engine.flush(pair.end(), None).unwrap();
    check(&pair.engine.view(), all());
}
