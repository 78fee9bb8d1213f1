//! Aggregates against samples: whatever is in the head, in small blocks, merged, late, deleted or cut off.

use super::*;
use trefoil_model::{Aggregate, Resolution, aggregate};

mod backfill;

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
                    if pair.random.random_bool(0.5) {
                        super::aggregate(&pair.engine, closed);
                    }
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
        pair.merge_all(Millis::MAX);
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
    pair.merge_all(START);
    assert!(!has_aggregates(&pair.engine).contains(&true));
    let closed = START + WINDOW_MILLIS;
    pair.merge_all(closed);
    let has = has_aggregates(&pair.engine);
    assert!(has[0] && !has[1..].contains(&true));
    check(&pair.engine.view(), all());
    // A late sample: the window's samples are read again until they are merged.
    pair.write_integers();
    pair.engine.flush(pair.end(), None).unwrap();
    check(&pair.engine.view(), all());
}

/// The paths of all files of aggregates.
fn files(pair: &Pair) -> Vec<(std::path::PathBuf, u64)> {
    let files = pair.disk.files().into_iter();
    let is_wanted = |path: &Path| path.to_string_lossy().ends_with("-aggregates");
    files.filter(|(path, _)| is_wanted(path)).collect()
}

/// Closed windows, all in blocks with aggregates.
fn aggregated(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    for _ in 0..12 {
        pair.write_integers();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    pair.merge_all(Millis::MAX);
    assert!(has_aggregates(&pair.engine).iter().all(|has| *has));
    pair
}

/// Merges until nothing is to be done, and says which blocks have been rewritten.
fn rewritten(pair: &Pair) -> BTreeSet<BlockId> {
    let ids = || -> BTreeSet<BlockId> {
        let blocks = pair.engine.blocks().into_iter();
        blocks.map(|block| block.meta.id).collect()
    };
    let before = ids();
    pair.merge_all(Millis::MAX);
    before.difference(&ids()).copied().collect()
}

#[test]
fn samples_answer_for_damaged_aggregates_until_they_are_made_anew() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut pair = aggregated(seed);
        let files = files(&pair);
        let (path, length) = &files[pair.random.random_range(0..files.len())];
        let view = pair.engine.view();
        let byte = pair.random.random_range(0..*length);
        match seed % 3 {
            0 => assert!(pair.disk.flip_bit(path, byte, 3)),
            1 => pair.disk.make_unreadable(path, byte),
            _ => pair.disk.remove(path).unwrap(),
        }
        check(&view, all());
        check(&pair.engine.view(), all());
        let statistics = pair.engine.statistics();
        let counts = (
            statistics.aggregates_damaged,
            statistics.aggregates_repaired,
        );
        // Tenants without anything in the piece never read it.
        let [(block, why)] = &pair.engine.lost_aggregates()[..] else {
            panic!("{counts:?}");
        };
        println!("{why}");
        assert_eq!(counts, (1, 0));
        assert!(path.to_string_lossy().contains(&block.to_string()));
        assert!(pair.engine.lost_aggregates().is_empty(), "told once");
        assert_eq!(rewritten(&pair), BTreeSet::from([*block]));
        let statistics = pair.engine.statistics();
        assert_eq!(statistics.aggregates_repaired, 1);
        check(&pair.engine.view(), all());
        assert_eq!(pair.engine.statistics().aggregates_damaged, 1);
        assert!(has_aggregates(&pair.engine).iter().all(|has| *has));
    }
}

#[test]
fn aggregates_that_are_gone_at_a_start_are_made_anew() {
    for (seed, is_wanted) in [(1, true), (2, false)] {
        let mut pair = aggregated(seed);
        let [(path, _), ..] = &files(&pair)[..] else {
            panic!("there are aggregates");
        };
        pair.disk.remove(path).unwrap();
        let disk = Arc::clone(&pair.disk) as Arc<dyn Disk>;
        let options = ManifestOptions {
            derived_files: DERIVED_FILES,
            ..ManifestOptions::default()
        };
        let (manifest, recovery) = Manifest::open(disk, Path::new("blocks"), options).unwrap();
        assert!(recovery.damaged.is_empty() && recovery.derived_lost.len() == 1);
        let options = MetricsOptions {
            down_sampling: is_wanted,
            ..MetricsOptions::default()
        };
        pair.engine = MetricsEngine::open(Arc::new(manifest), options).unwrap();
        for (block, why) in recovery.derived_lost {
            pair.engine.lose_aggregates(block, &why);
            pair.engine.lose_aggregates(block, &why);
        }
        check(&pair.engine.view(), all());
        assert_eq!(pair.engine.lost_aggregates().len(), 1);
        assert_eq!(rewritten(&pair).len(), 1);
        // What the manifest names is there in either case.
        let lacking = has_aggregates(&pair.engine)
            .iter()
            .filter(|has| !**has)
            .count();
        assert_eq!(lacking, usize::from(!is_wanted));
        check(&pair.engine.view(), all());
        assert_eq!(pair.engine.statistics().aggregates_damaged, 1);
    }
}

/// Batches of any size give the same, and hold no more than they are told to, one series' aggregates apart.
#[test]
fn batches_are_bounded() {
    let pair = aggregated(3);
    let view = pair.engine.view();
    let shards = ShardSet::all(SHARDS);
    let count = pair.engine.statistics().aggregates_selectors;
    let walk = |samples: u64| {
        let (mut rows, mut peak, mut largest) = (Vec::new(), 0, 0);
        let tenant = TenantId(1);
        let cursor = view.aggregates(tenant, &[], all(), &shards, Resolution::FiveMinutes);
        let mut cursor = cursor.unwrap();
        cursor.hold_at_most(samples);
        while cursor.advance().unwrap() {
            peak = peak.max(cursor.aggregates_bytes());
            let mut own = Vec::new();
            cursor.swap_aggregates(&mut own);
            largest = largest.max(size_of_val(&own[..]));
            rows.push(format!("{own:?}"));
        }
        (rows, peak, largest)
    };
    let (expected, all_at_once, largest) = walk(u64::MAX);
    for samples in [1, 100, 1_000, 10_000] {
        let (rows, peak, _) = walk(samples);
        assert_eq!(rows, expected);
        let bound = (samples as usize * 16).max(largest);
        // What is kept of shapes is a quarter more.
        assert!(peak <= bound * 5 / 4, "{samples}: {peak}, {largest}");
        assert!(samples > 100 || peak < all_at_once);
    }
    let statistics = pair.engine.statistics();
    assert_eq!(statistics.aggregates_selectors, count + 5);
    let bytes: u64 = files(&pair).iter().map(|(_, length)| length).sum();
    assert_eq!(statistics.aggregates_bytes, bytes);
}
