//! Whole copies through the chunks that peers get, compared with what was copied.

use super::*;
use std::{collections::BTreeSet, path::Path};
use trefoil_model::{DeletionVersion, Labels, Millis, ShardId, TenantId, WINDOW_MILLIS};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{BodyWriter, MetricMetadata, MetricType, MetricsOptions};
use trefoil_store_pages::SimulatedDisk;

const SHARDS: u16 = 4;
/// The beginning of a window.
const START: Millis = 1_700_006_400_000;
/// Far more samples than the smallest chunks of these tests have.
const LONG: i64 = 500;
/// Far more chunks than a copy of what is here can have.
const CHUNKS_MAX: u64 = 20_000;

/// A tenant that declares metrics and never sends a sample, before all others.
const DECLARING_FIRST: TenantId = TenantId(0);
/// Tenants with samples and declarations.
const BUSY: [TenantId; 2] = [TenantId(1), TenantId(3)];
/// A tenant that declares metrics and never sends a sample, between others.
const DECLARING: TenantId = TenantId(2);
/// A tenant with samples only.
const QUIET: TenantId = TenantId(4);

fn engine(seed: u64) -> MetricsEngine {
    let disk = Arc::new(SimulatedDisk::new(seed));
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), options).expect("a manifest");
    MetricsEngine::open(Arc::new(manifest), MetricsOptions::default()).expect("an engine")
}

/// Writes to an engine, one record behind the other.
struct Writer {
    engine: MetricsEngine,
    end: u64,
}

impl Writer {
    fn new(seed: u64) -> Self {
        Self {
            engine: engine(seed),
            end: 0,
        }
    }

    fn apply(&mut self, tenant: TenantId, version: DeletionVersion, body: &[u8]) {
        self.end += 1;
        let all = ShardSet::all(SHARDS);
        self.engine
            .apply(self.end, tenant, version, body, &all)
            .expect("the body is sound");
    }

    /// Declares `metrics` metrics, and writes `samples` samples from a time on to each of some series.
    fn write(
        &mut self,
        tenant: TenantId,
        metrics: u16,
        series: &[u16],
        from: Millis,
        samples: i64,
    ) {
        let mut body = BodyWriter::new().expect("a writer");
        for number in 0..metrics {
            let entry = MetricMetadata {
                metric: format!("m{number}"),
                metric_type: MetricType::Gauge,
                help: format!("What m{number} of tenant {} is.", tenant.0),
                unit: String::new(),
            };
            let shard = ShardId(number % SHARDS);
            body.add_metadata(shard, &entry).expect("it fits");
        }
        for number in series {
            let labels = Labels::from_pairs([("__name__", format!("m{number:03}").as_str())]);
            let times = (0..samples).map(|at| (from + at * 1000, f64::from(*number) + at as f64));
            body.add_series(ShardId(number % SHARDS), labels.canonical(), times)
                .expect("it fits");
        }
        self.apply(tenant, DeletionVersion(0), &body.finish().expect("a body"));
    }

    /// Several windows in blocks and in the head; long series first, in between, and last.
    fn write_history(&mut self) {
        for window in 0..3 {
            let from = START + window * WINDOW_MILLIS;
            for tenant in BUSY {
                self.write(tenant, 5, &[0, 7], from, LONG);
                self.write(tenant, 0, &(1..20).collect::<Vec<_>>(), from, 3);
            }
            self.write(QUIET, 0, &[3, 99], from, LONG / (window + 1));
            self.engine.flush(self.end, None).expect("a flush");
        }
        for (metrics, in_a_block) in [(9, true), (11, false)] {
            for tenant in [DECLARING_FIRST, DECLARING] {
                self.write(tenant, metrics, &[], START, 0);
            }
            if in_a_block {
                self.engine.flush(self.end, None).expect("a flush");
            }
        }
        self.write(BUSY[0], 7, &[0, 5, 19], START + 2 * WINDOW_MILLIS, LONG);
        self.write(BUSY[1], 0, &[2], START + 3 * WINDOW_MILLIS, LONG);
    }
}

/// What a copy must have: every item, by its sum, and every declaration.
type Content = (
    Vec<(metrics::DigestKey, metrics::Digest)>,
    Vec<(TenantId, MetricMetadata)>,
);

fn content(engine: &MetricsEngine, shards: &ShardSet) -> Content {
    let view = engine.view();
    let digests = view.digests(None, ALL_TIME, shards, 1, 0);
    let mut declared = Vec::new();
    for tenant in view.tenants() {
        let entries: BTreeSet<_> = view.metadata(tenant, shards).expect("metadata");
        declared.extend(entries.into_iter().map(|entry| (tenant, entry)));
    }
    (digests.expect("digests").into_iter().collect(), declared)
}

/// What a peer gets that asks for this chunk.
fn ask(exports: &Exports, id: ExportId, cursor: u64, bytes_max: usize) -> Option<Event> {
    exports.read(id, cursor, bytes_max).expect("it can be read")
}

/// A receiver of a copy.
struct Receiver {
    export: ExportId,
    copy: Writer,
    cursor: Option<u64>,
}

impl Receiver {
    fn new(exports: &Exports, source: &MetricsEngine, number: u64, shards: &ShardSet) -> Self {
        let export = ExportId(number);
        let opened = exports.open(source, export, shards.clone(), None);
        assert!(matches!(opened, Event::ExportOpened { .. }));
        Self {
            export,
            copy: Writer::new(number),
            cursor: Some(0),
        }
    }

    /// Gets a chunk; whether there is another one.
    fn step(&mut self, exports: &Exports, bytes_max: usize) -> bool {
        let Some(asked) = self.cursor else {
            return false;
        };
        assert!(asked < CHUNKS_MAX, "the copy ends");
        let answer = ask(exports, self.export, asked, bytes_max);
        let Some(Event::Exported { items, next, .. }) = answer else {
            panic!("a chunk, not {answer:?}");
        };
        for item in items {
            self.copy.apply(item.tenant, item.deletion, &item.body);
        }
        self.cursor = next;
        next.is_some()
    }
}

#[test]
fn a_copy_of_many_chunks_has_everything() {
    let mut source = Writer::new(1);
    source.write_history();
    let exports = Exports::default();
    let some: ShardSet = [ShardId(0), ShardId(3)].into_iter().collect();
    for (number, shards) in (10..).zip([ShardSet::all(SHARDS), some]) {
        for bytes_max in [64, 256, 4096, 1 << 20] {
            let mut receiver = Receiver::new(&exports, &source.engine, number, &shards);
            let mut chunks = 1;
            while receiver.step(&exports, bytes_max) {
                chunks += 1;
            }
            let copied = content(&receiver.copy.engine, &ShardSet::all(SHARDS));
            assert!(copied == content(&source.engine, &shards), "{bytes_max}");
            assert!(bytes_max > 256 || chunks > 50, "{chunks} chunks");
            exports.close(receiver.export);
        }
    }
}

/// More receivers than walks are kept for: each goes on where it was.
#[test]
fn copies_beside_each_other_have_everything() {
    let mut source = Writer::new(1);
    source.write_history();
    let exports = Exports::default();
    let shards = ShardSet::all(SHARDS);
    let receiver = |number| Receiver::new(&exports, &source.engine, number, &shards);
    let mut receivers: Vec<_> = (0..WALKS_MAX as u64 + 2).map(receiver).collect();
    let expected = content(&source.engine, &shards);
    while receivers
        .iter_mut()
        .fold(false, |more, one| one.step(&exports, 1024) | more)
    {
        let has_walk = |export: &&Arc<Export>| export.reading.lock().walk.is_some();
        let walks = exports.open.lock().values().filter(has_walk).count();
        assert!(walks <= WALKS_MAX);
    }
    for receiver in receivers {
        assert!(content(&receiver.copy.engine, &shards) == expected);
        exports.close(receiver.export);
    }
    assert!(exports.open.lock().is_empty() && exports.walking.lock().is_empty());
}

/// What is asked for again is the same; what is being read is not read twice.
#[test]
fn a_chunk_that_is_asked_for_again_is_the_same() {
    let mut source = Writer::new(1);
    source.write_history();
    let exports = Exports::default();
    let id = ExportId(1);
    exports.open(&source.engine, id, ShardSet::all(SHARDS), None);
    let first = ask(&exports, id, 0, 512);
    assert_eq!(ask(&exports, id, 0, 512), first);
    let second = ask(&exports, id, 1, 512);
    assert_ne!(second, first);
    assert_eq!(ask(&exports, id, 1, 512), second);
    assert_eq!(ask(&exports, id, 0, 512), None, "nobody waits for it");

    let pinned = exports.open.lock().get(&id).cloned().expect("it is open");
    let reading = pinned.reading.lock();
    assert_eq!(ask(&exports, id, 2, 512), None, "it is being read");
    drop(reading);
    assert!(ask(&exports, id, 2, 512).is_some());
    let failed = Some(Event::ExportFailed { export: id });
    assert_eq!(ask(&exports, id, 9, 512), failed);
    exports.close(id);
    assert_eq!(ask(&exports, id, 2, 512), failed);
}
