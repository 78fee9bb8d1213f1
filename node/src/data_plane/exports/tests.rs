//! Whole copies through the chunks that peers get, compared with what was copied.

use super::super::tests::history::{SHARDS, Step, content, history};
use super::*;
use std::path::Path;
use trefoil_model::{DeletionVersion, ShardId, TenantId};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::MetricsOptions;
use trefoil_store_pages::SimulatedDisk;

/// Far more chunks than a copy of what is here can have.
const CHUNKS_MAX: u64 = 20_000;

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

    fn write_history(&mut self) {
        for step in history() {
            match step {
                Step::Write(tenant, body) => self.apply(tenant, DeletionVersion(0), &body),
                Step::Flush => drop(self.engine.flush(self.end, None).expect("a flush")),
            }
        }
    }
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
