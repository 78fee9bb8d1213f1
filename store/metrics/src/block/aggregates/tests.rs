//! Aggregates on disk: round trips, damage, golden bytes.

use super::values::{decode, encode};
use super::{AggregatesReader, AggregatesWriter};
use crate::columns::SampleSlice;
use crate::value::{STALE_MARKER_BITS, ValueEncoder};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::path::Path;
use std::sync::Arc;
use trefoil_model::{
    Aggregate, Millis, Resolution, ShardSet, Signal, TenantId, WINDOW_MILLIS, Window, aggregate,
};
use trefoil_store_blocks::{
    BlockFile, BlockFileEntry, BlockId, BlockMeta, Manifest, ManifestOptions,
};
use trefoil_store_pages::{Disk, SimulatedDisk};

const START: Millis = 1_700_006_400_000;
const TENANT: TenantId = TenantId(3);

type Samples = Vec<(Millis, f64)>;

fn of(samples: &[(Millis, f64)], resolution: Resolution) -> Vec<Aggregate> {
    let mut rows = Vec::new();
    aggregate(samples.iter().copied(), resolution, &mut rows);
    rows
}

fn meta(id: BlockId, file: BlockFileEntry) -> BlockMeta {
    BlockMeta {
        id,
        signal: Signal::Metrics,
        window: Window::containing(START).range(),
        level: 1,
        tenants: Vec::new(),
        shards: ShardSet::all(8),
        time_min: START,
        time_max: START,
        items: 1,
        files: vec![file],
        note: Vec::new(),
    }
}

/// The series as a file; those without samples are such that only their samples know.
fn write(series: &[Samples]) -> (BlockId, BlockFile) {
    let disk = Arc::new(SimulatedDisk::new(1)) as Arc<dyn Disk>;
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), options).unwrap();
    let id = manifest.reserve_block();
    let file = manifest.create_file(id, "aggregates").unwrap();
    let mut writer = AggregatesWriter::new(file, START, 1).unwrap();
    writer.begin_tenant(TENANT).unwrap();
    for samples in series {
        let (mut times, mut values): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
        let mut starts = Vec::new();
        if samples.is_empty() {
            (times, values, starts) = (vec![START], vec![1.0], vec![START - 1]);
        }
        let samples = SampleSlice {
            timestamps: &times,
            values: &values,
            starts: &starts,
            histograms: &[],
        };
        writer.add_series(samples).unwrap();
    }
    let file = writer.finish().unwrap();
    let meta = meta(id, file);
    (id, manifest.open_file(&meta, "aggregates").unwrap())
}

fn check(series: &[Samples]) {
    let (id, file) = write(series);
    let reader = Arc::new(AggregatesReader::open(id, file, START).unwrap());
    for resolution in Resolution::ALL {
        let count = series.len() as u32;
        let opened = reader.tenant(TENANT, count, resolution).unwrap();
        let mut opened = opened.expect("every resolution is there");
        let mut found = Vec::new();
        let each = |number, rows: &[Aggregate]| found.push((number, rows.to_vec()));
        opened.read(0..count, each).unwrap();
        assert_eq!(found.len(), series.len());
        for (samples, (number, rows)) in series.iter().zip(&found) {
            let expected = of(samples, resolution);
            // By their text, in which NaN is equal to itself, and bits of zeros as well.
            assert_eq!(format!("{rows:?}"), format!("{expected:?}"), "{number}");
        }
    }
    assert!(reader.tenant(TENANT, 1 << 20, Resolution::OneHour).is_err());
}

fn random_samples(random: &mut StdRng) -> Samples {
    let kind = random.random_range(0..6);
    let step = random.random_range(1_000..200_000);
    let mut value = f64::from(random.random_range(-1_000..1_000));
    let mut time = START + random.random_range(0..step);
    if random.random_bool(0.3) {
        time = START;
    }
    let mut samples = Vec::new();
    while time < START + WINDOW_MILLIS {
        value = match kind {
            0 => value,
            1 => value + f64::from(random.random_range(0..100)),
            2 if random.random_bool(0.1) => 0.0,
            2 => value + f64::from(random.random_range(0..1_000)) / 100.0,
            3 => f64::from(random.random_range(-500..500)) / 1_000.0,
            4 => random.random_range(-1.0..1.0),
            _ => [f64::NAN, f64::INFINITY, -0.0, 1e300][random.random_range(0..4)],
        };
        let stale = random.random_bool(0.02);
        let stored = match stale {
            true => f64::from_bits(STALE_MARKER_BITS),
            false => value,
        };
        samples.push((time, stored));
        let gap = random.random_bool(0.01);
        time += step + if gap { WINDOW_MILLIS / 4 } else { 0 };
    }
    samples
}

#[test]
fn random_series_come_back_to_the_bit() {
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..60 {
        let mut series: Vec<Samples> = Vec::new();
        for _ in 0..random.random_range(1..60) {
            let samples = match random.random_range(0..20) {
                0 => Samples::new(),
                _ => random_samples(&mut random),
            };
            series.push(samples);
        }
        check(&series);
    }
}

#[test]
fn many_series_take_many_pieces() {
    let series: Vec<Samples> = (0..3_000)
        .map(|number: i64| {
            let sample = |at: i64| (START + at * 30_000 + number, (at * number) as f64);
            (0..240).map(sample).collect()
        })
        .collect();
    check(&series);
}

#[test]
fn hostile_values_give_none_or_all() {
    let mut random = StdRng::seed_from_u64(8);
    let mut encoder = ValueEncoder::default();
    for _ in 0..3_000 {
        let samples = random_samples(&mut random);
        let mut rows = of(&samples, Resolution::FiveMinutes);
        let mut bytes = Vec::new();
        encode(&rows, &mut encoder, &mut bytes);
        for _ in 0..8 {
            let mut spoilt = bytes.clone();
            let at = random.random_range(0..spoilt.len());
            spoilt[at] = random.random();
            spoilt.truncate(random.random_range(0..=spoilt.len()));
            // Any answer is right, as long as there is one.
            let _: Option<()> = decode(&spoilt, &mut rows);
        }
    }
}

#[test]
fn spoilt_files_are_noticed() {
    let mut random = StdRng::seed_from_u64(9);
    let series = vec![random_samples(&mut random), random_samples(&mut random)];
    let (id, file) = write(&series);
    let mut bytes = vec![0; file.length() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    for at in 0..bytes.len() {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 0x40;
        assert!(read_all(id, &spoilt).is_err(), "byte {at}");
    }
}

fn read_all(id: BlockId, bytes: &[u8]) -> Result<(), crate::MetricsError> {
    let disk = Arc::new(SimulatedDisk::new(1)) as Arc<dyn Disk>;
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), options).unwrap();
    let file = manifest.write_file(id, "aggregates", bytes).unwrap();
    let meta = meta(id, file);
    let file = manifest.open_file(&meta, "aggregates")?;
    let reader = Arc::new(AggregatesReader::open(id, file, START)?);
    for resolution in Resolution::ALL {
        if let Some(mut opened) = reader.tenant(TENANT, 2, resolution)? {
            opened.read(0..2, |_, _| ())?;
        }
    }
    Ok(())
}

/// Drawn in docs/formats/metrics-block.md.
#[test]
fn golden_bytes() {
    let stale = f64::from_bits(STALE_MARKER_BITS);
    let counter = vec![
        (START, 1.5),
        (START + 10_000, 2.0),
        (START + 20_000, 4.0),
        (START + 30_000, 0.5),
        (START + 40_000, 3.0),
        (START + 310_000, stale),
    ];
    let series = vec![
        counter,
        vec![(START, 7.0), (START + 1, 7.0)],
        vec![(START, stale)],
        Vec::new(),
        vec![(START + 1, 1.0 / 3.0), (START + 2, f64::NAN)],
    ];
    let (_, file) = write(&series);
    let mut bytes = vec![0; file.length() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, include_str!("../golden/aggregates.hex").trim());
}
