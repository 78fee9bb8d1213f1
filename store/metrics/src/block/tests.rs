//! Blocks: round trips, selection, damage in every byte, golden bytes (drawn in
//! docs/formats/metrics-block.md).

use super::{BlockReader, BlockVersion, BlockWriter, Pieces};
use crate::body::{MetricMetadata, MetricType};
use crate::columns::SampleSlice;
use crate::order::write_block_key;
use crate::{Matcher, MetricsError};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use trefoil_model::{
    DeletionVersion, Labels, Millis, ShardId, ShardSet, TenantId, TimeRange, WINDOW_MILLIS, Window,
};
use trefoil_store_blocks::{BlockId, BlockMeta, Manifest, ManifestOptions};
use trefoil_store_pages::{Disk, DiskFile, SimulatedDisk};

const START: Millis = 1_700_006_400_000;

struct Series {
    labels: Labels,
    shard: ShardId,
    samples: Vec<(Millis, f64)>,
}

type Tenants = BTreeMap<TenantId, Vec<Series>>;

fn range() -> TimeRange {
    Window::containing(START).range()
}

fn metadata() -> Vec<(ShardId, MetricMetadata)> {
    let entry = MetricMetadata {
        metric: "up".into(),
        metric_type: MetricType::Gauge,
        help: "whether".into(),
        unit: String::new(),
    };
    vec![(ShardId(3), entry)]
}

/// A block on a simulated disk, with a handle to spoil it.
struct Written {
    manifest: Manifest,
    meta: BlockMeta,
    raw: Arc<dyn DiskFile>,
}

impl Written {
    fn open(&self) -> Result<Arc<BlockReader>, MetricsError> {
        let file = self.manifest.open_file(&self.meta, "data")?;
        Ok(Arc::new(BlockReader::open(self.meta.id, file)?))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.raw.length().unwrap() as usize];
        self.raw.read_at(&mut bytes, 0).unwrap();
        bytes
    }
}

fn block_key(labels: &Labels) -> Vec<u8> {
    let mut key = Vec::new();
    write_block_key(labels.canonical(), &mut key);
    key
}

/// With values in varints, and packed.
const VERSIONS: [BlockVersion; 2] = [
    BlockVersion::new(true, false),
    BlockVersion::new(true, true),
];

fn write(tenants: &Tenants, version: BlockVersion) -> Written {
    let disk = Arc::new(SimulatedDisk::new(1));
    let dir = Path::new("blocks");
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(Arc::clone(&disk) as Arc<dyn Disk>, dir, options).unwrap();
    let id = manifest.reserve_block();
    let file = manifest.create_file(id, "data").unwrap();
    let mut writer = BlockWriter::new(file, range(), 1, version).unwrap();
    for (tenant, series) in tenants {
        writer.begin_tenant(*tenant, DeletionVersion(5)).unwrap();
        let mut order: Vec<&Series> = series.iter().collect();
        order.sort_by_key(|series| block_key(&series.labels));
        for series in order {
            let (times, values): (Vec<_>, Vec<_>) = series.samples.iter().copied().unzip();
            let samples = SampleSlice {
                timestamps: &times,
                values: &values,
                ..SampleSlice::default()
            };
            writer
                .add_series(series.labels.canonical(), series.shard, samples)
                .unwrap();
        }
        writer.add_metadata(&metadata()).unwrap();
    }
    let summary = writer.finish().unwrap();
    let samples: usize = tenants.values().flatten().map(|s| s.samples.len()).sum();
    let found: u64 = summary.tenants.iter().map(|tenant| tenant.samples).sum();
    assert_eq!(found, samples as u64);
    let raw = disk.open(&dir.join(format!("{id}-data"))).unwrap();
    let meta = BlockMeta {
        id,
        signal: trefoil_model::Signal::Metrics,
        window: range(),
        level: 0,
        tenants: Vec::new(),
        shards: ShardSet::all(8),
        time_min: summary.time_min,
        time_max: summary.time_max,
        items: samples as u64,
        files: vec![summary.file],
        note: Vec::new(),
    };
    Written {
        manifest,
        meta,
        raw,
    }
}

fn random_tenants(seed: u64) -> Tenants {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tenants = Tenants::new();
    let times: Vec<Millis> = (0..40).map(|i| START + i * 15_000 + i % 3).collect();
    for tenant in 0..random.random_range(1..4) {
        let mut all: BTreeMap<Labels, Series> = BTreeMap::new();
        for _ in 0..random.random_range(1..400) {
            let metric = format!("m{}", random.random_range(0..5));
            let instance = format!("i{}", random.random_range(0..200));
            let pairs = [
                ("__name__", metric.as_str()),
                ("instance", &instance),
                ("job", "j"),
            ];
            let labels = Labels::from_pairs(pairs[..random.random_range(1..=3)].to_vec());
            let first = random.random_range(0..20);
            let last = random.random_range(first..40);
            let samples = times[first..=last]
                .iter()
                .map(|time| (*time, f64::from(random.random_range(0..100)) / 8.0))
                .collect();
            let shard = ShardId(random.random_range(0..8));
            let series = Series {
                labels: labels.clone(),
                shard,
                samples,
            };
            all.insert(labels, series);
        }
        tenants.insert(TenantId(tenant * 7), all.into_values().collect());
    }
    tenants
}

type Found = BTreeMap<Labels, Vec<(Millis, u64)>>;

fn select(
    written: &Written,
    tenant: TenantId,
    matchers: &[Matcher],
    shards: &ShardSet,
    range: TimeRange,
) -> Result<Found, MetricsError> {
    let block = written.open()?;
    let Some(mut reader) = block.tenant(tenant, Pieces::Read)? else {
        return Ok(Found::new());
    };
    let series = reader.find(matchers, shards)?;
    let mut labels = BTreeMap::new();
    reader.labels(series.iter(), |number, canonical| {
        labels.insert(number, Labels::from_canonical(canonical).unwrap());
    })?;
    let mut found = Found::new();
    reader.samples(series.iter(), range, |number, samples| {
        let (times, values) = (samples.timestamps, samples.values);
        let bits = values.iter().map(|value| value.to_bits());
        found.insert(
            labels[&number].clone(),
            times.iter().copied().zip(bits).collect(),
        );
    })?;
    let names: Vec<_> = reader.all_label_names().map(<[u8]>::to_vec).collect();
    for name in names {
        reader.label_values(&name, &series, |_| {})?;
    }
    assert_eq!(reader.metadata(&ShardSet::all(8))?, metadata());
    Ok(found)
}

fn expect(
    tenants: &Tenants,
    tenant: TenantId,
    wanted: impl Fn(&Series) -> bool,
    range: TimeRange,
) -> Found {
    let series = tenants[&tenant].iter().filter(|series| wanted(series));
    series
        .filter_map(|series| {
            let samples = series
                .samples
                .iter()
                .filter(|(time, _)| range.contains(*time));
            let samples: Vec<_> = samples
                .map(|(time, value)| (*time, value.to_bits()))
                .collect();
            (!samples.is_empty()).then(|| (series.labels.clone(), samples))
        })
        .collect()
}

#[test]
fn what_is_written_is_found() {
    let all_shards = ShardSet::all(8);
    let some_shards: ShardSet = [1, 2, 5].map(ShardId).into_iter().collect();
    for seed in 0..30 {
        let tenants = random_tenants(seed);
        let file = write(&tenants, VERSIONS[seed as usize % 2]);
        let cut = TimeRange {
            start: START + 100_000,
            end: START + 300_000,
        };
        for &tenant in tenants.keys() {
            let found = select(&file, tenant, &[], &all_shards, range()).unwrap();
            assert!(
                found == expect(&tenants, tenant, |_| true, range()),
                "seed {seed}"
            );
            let matchers = [
                Matcher::equal("__name__", "m1"),
                Matcher::regex("instance", "i1.*|").unwrap(),
                Matcher::not_equal("job", "x"),
            ];
            let wanted = |series: &Series| {
                let get = |name| series.labels.get(name).unwrap_or("").as_bytes();
                some_shards.contains(series.shard)
                    && matchers
                        .iter()
                        .all(|matcher| matcher.matches(get(matcher.name())))
            };
            let found = select(&file, tenant, &matchers, &some_shards, cut).unwrap();
            assert!(
                found == expect(&tenants, tenant, wanted, cut),
                "seed {seed}"
            );
        }
        let nobody = select(&file, TenantId(1), &[], &all_shards, range()).unwrap();
        assert!(nobody.is_empty());
    }
}

#[test]
fn damage_is_an_error_or_in_unused_bytes() {
    VERSIONS.into_iter().for_each(damage_every_byte);
}

fn damage_every_byte(version: BlockVersion) {
    let mut tenants = random_tenants(3);
    tenants.retain(|tenant, _| *tenant == TenantId(0));
    let file = write(&tenants, version);
    let right = select(&file, TenantId(0), &[], &ShardSet::all(4), range()).unwrap();
    let length = file.raw.length().unwrap();
    let mut pieces = std::collections::BTreeSet::new();
    for at in 0..length {
        let mut byte = [0];
        file.raw.read_at(&mut byte, at).unwrap();
        file.raw.write_at(&[byte[0] ^ 0x10], at).unwrap();
        match select(&file, TenantId(0), &[], &ShardSet::all(4), range()) {
            Ok(found) => assert!(found == right, "byte {at}"),
            Err(MetricsError::DamagedBlock { block, piece }) => {
                assert_eq!(block, BlockId(1));
                pieces.insert(piece);
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
        file.raw.write_at(&byte, at).unwrap();
    }
    let expected = [
        "data",
        "directory",
        "footer",
        "header",
        "label page",
        "label rows",
        "metadata",
        "shards",
        "timestamps",
        "trailer",
    ];
    assert_eq!(pieces.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_version_is_believed_only_in_a_file_that_is_as_it_was_written() {
    let mut file = write(&random_tenants(3), VERSIONS[1]);
    file.raw.write_at(&[BlockVersion::MAX.0 + 1], 8).unwrap();
    let header = "header";
    assert!(matches!(
        file.open(),
        Err(MetricsError::DamagedBlock { piece, .. }) if piece == header
    ));
    file.meta.files[0].checksum = crc32c::crc32c(&file.bytes());
    assert!(matches!(
        file.open(),
        Err(MetricsError::UnknownBlockVersion { found, .. }) if found == BlockVersion::MAX.0 + 1
    ));
}

#[test]
fn golden_bytes() {
    let times: Vec<Millis> = (0..3).map(|i| START + 1_000 + i * 15_000).collect();
    let series = |value: &str, samples: Vec<(Millis, f64)>| Series {
        labels: Labels::from_pairs([("__name__", "up"), ("job", value)]),
        shard: ShardId(2),
        samples,
    };
    let full = times
        .iter()
        .map(|time| (*time, *time as f64 / 1e3))
        .collect();
    let late = times[1..].iter().map(|time| (*time, 1.0)).collect();
    let tenants = Tenants::from([(TenantId(1), vec![series("a", full), series("b", late)])]);
    let golden = [
        include_str!("golden/block.hex"),
        include_str!("golden/packed_block.hex"),
    ];
    for (version, golden) in VERSIONS.into_iter().zip(golden) {
        let bytes = write(&tenants, version).bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
    }
    assert_eq!(range().end - range().start, WINDOW_MILLIS);
}
