//! The engine against a plain model: random writes in any order, duplicates, conflicts, deletions, dropped shards,
//! flushes, merges, retention and crashes.

mod aggregates;
mod cut_offs;
mod deletions;
mod histograms;
mod known;
mod label_questions;
mod metadata;
mod stamps;
mod walks;

use super::*;
use crate::{BodyWriter, Matcher, STALE_MARKER_BITS, SeriesSamples};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::ops::ControlFlow;
use std::path::Path;
use trefoil_model::{Labels, ShardId, WINDOW_MILLIS};
use trefoil_store_blocks::ManifestOptions;
use trefoil_store_pages::{CrashLoss, Disk, SimulatedDisk};

const START: Millis = 1_700_006_400_000;
const SHARDS: u16 = 8;

/// Per tenant and series: per timestamp and deletion version, the value.
type Content = BTreeMap<(TenantId, Labels), BTreeMap<Millis, Vec<(DeletionVersion, f64)>>>;

/// What a view shows: bits per timestamp.
type Shown = BTreeMap<(TenantId, Labels), BTreeMap<Millis, u64>>;

fn all() -> TimeRange {
    TimeRange {
        start: Millis::MIN,
        end: Millis::MAX,
    }
}

fn series_labels(number: u32) -> Labels {
    let instance = format!("i{}", number % 7);
    let metric = format!("m{}", number % 5);
    let id = format!("{number}");
    let pairs = [
        ("__name__", metric.as_str()),
        ("instance", &instance),
        ("id", &id),
    ];
    Labels::from_pairs(pairs[..2 + (number % 2) as usize].to_vec())
}

fn shard_of_series(labels: &Labels) -> ShardId {
    let hash = trefoil_model::key_hash(TenantId(0), labels.canonical());
    trefoil_model::shard_of(hash, SHARDS)
}

struct Parcel {
    end: u64,
    tenant: TenantId,
    version: DeletionVersion,
    body: Vec<u8>,
}

/// An engine on a simulated disk beside a model of what it must hold.
struct Pair {
    random: StdRng,
    disk: Arc<SimulatedDisk>,
    engine: MetricsEngine,
    journal: Vec<Parcel>,
    content: Content,
    deletions: BTreeMap<TenantId, Vec<Deletion>>,
    cut_offs: BTreeMap<TenantId, Millis>,
    selected: BTreeMap<TenantId, Vec<SelectedCutOff>>,
}

fn open(disk: &Arc<SimulatedDisk>) -> MetricsEngine {
    open_with(disk, MetricsOptions::default())
}

fn open_with(disk: &Arc<SimulatedDisk>, options: MetricsOptions) -> MetricsEngine {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    let (manifest, recovery) =
        Manifest::open(disk, Path::new("blocks"), ManifestOptions::default()).unwrap();
    assert!(recovery.damaged.is_empty());
    let options = MetricsOptions {
        down_sampling: true,
        ..options
    };
    MetricsEngine::open(Arc::new(manifest), options).unwrap()
}

impl Pair {
    fn new(seed: u64) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed));
        let engine = open(&disk);
        if seed % 2 == 1 {
            engine.pack_blocks();
        }
        Self {
            random: StdRng::seed_from_u64(seed),
            engine,
            disk,
            journal: Vec::new(),
            content: Content::new(),
            deletions: BTreeMap::new(),
            cut_offs: BTreeMap::new(),
            selected: BTreeMap::new(),
        }
    }

    fn end(&self) -> u64 {
        self.journal.last().map_or(0, |parcel| parcel.end)
    }

    fn random_value(&mut self) -> f64 {
        match self.random.random_range(0..12) {
            0 => f64::from_bits(STALE_MARKER_BITS),
            1 => f64::NAN,
            2 => self.random.random(),
            _ => f64::from(self.random.random_range(0..5u32)),
        }
    }

    fn write(&mut self) {
        let tenant = TenantId(self.random.random_range(0..3));
        let newest = self.deletions.get(&tenant).map_or(0, |d| d.len() as u64);
        let version = DeletionVersion(self.random.random_range(0..=newest));
        let mut writer = BodyWriter::new().unwrap();
        for _ in 0..self.random.random_range(1..15) {
            let labels = series_labels(self.random.random_range(0..30));
            let mut samples = Vec::new();
            for _ in 0..self.random.random_range(1..6) {
                let window = self.random.random_range(0..3) * WINDOW_MILLIS;
                let time = START + window + self.random.random_range(0..20) * 15_000;
                samples.push((time, self.random_value()));
            }
            let of_series = self.content.entry((tenant, labels.clone())).or_default();
            for (time, value) in &samples {
                of_series.entry(*time).or_default().push((version, *value));
            }
            writer
                .add_series(shard_of_series(&labels), labels.canonical(), samples)
                .unwrap();
        }
        let body = writer.finish().unwrap();
        let end = self.end() + body.len() as u64;
        let parcel = Parcel {
            end,
            tenant,
            version,
            body,
        };
        self.apply(&parcel);
        self.journal.push(parcel);
    }

    fn apply(&self, parcel: &Parcel) {
        let accepted = ShardSet::all(SHARDS);
        self.engine
            .apply(
                parcel.end,
                parcel.tenant,
                parcel.version,
                &parcel.body,
                &accepted,
            )
            .unwrap();
    }

    fn crash(&mut self) {
        self.disk.crash(CrashLoss::Dice);
        self.engine = open(&self.disk);
        // A newer program goes on with the blocks of an older one.
        self.engine.pack_blocks();
        for (tenant, deletions) in &self.deletions {
            let newest = DeletionVersion(deletions.len() as u64);
            (self.engine).set_deletions(*tenant, newest, deletions.clone());
        }
        for (tenant, cut_off) in &self.cut_offs {
            self.engine.set_cut_off(*tenant, *cut_off);
        }
        for (tenant, selected) in &self.selected {
            (self.engine).set_selected_cut_offs(*tenant, selected.clone());
        }
        let flushed = self.engine.applied_position();
        for parcel in self.journal.iter().filter(|parcel| parcel.end > flushed) {
            self.apply(parcel);
        }
    }

    fn drop_shards(&mut self) {
        let shards: ShardSet = [ShardId(self.random.random_range(0..SHARDS))]
            .into_iter()
            .collect();
        self.engine.drop_shards(&shards, self.end(), None).unwrap();
        self.content
            .retain(|(_, labels), _| !shards.contains(shard_of_series(labels)));
    }

    fn delete(&mut self) {
        let tenant = TenantId(self.random.random_range(0..3));
        let deletions = self.deletions.entry(tenant).or_default();
        let start = START + self.random.random_range(0..3) * WINDOW_MILLIS;
        deletions.push(Deletion {
            version: DeletionVersion(deletions.len() as u64 + 1),
            matchers: vec![Matcher::equal(
                "instance",
                &format!("i{}", self.random.random_range(0..7)),
            )],
            range: TimeRange {
                start,
                end: start + self.random.random_range(1..20) * 15_000,
            },
        });
        let newest = DeletionVersion(deletions.len() as u64);
        (self.engine).set_deletions(tenant, newest, deletions.clone());
    }

    fn cut_off(&mut self) {
        let tenant = TenantId(self.random.random_range(0..3));
        let cut_off = START + self.random.random_range(0..30) * 15_000;
        let known = self.cut_offs.entry(tenant).or_insert(cut_off);
        *known = cut_off.max(*known);
        self.engine.set_cut_off(tenant, cut_off);
    }

    fn cut_off_selected(&mut self) {
        let tenant = TenantId(self.random.random_range(0..3));
        let instance = format!("i{}", self.random.random_range(0..7));
        let window = self.random.random_range(0..3) * WINDOW_MILLIS;
        let before = START + window + self.random.random_range(0..30) * 15_000;
        let selected = self.selected.entry(tenant).or_default();
        match selected.iter_mut().find(|one| *one.selector == instance) {
            Some(known) => known.before = before.max(known.before),
            None => selected.push(SelectedCutOff {
                matchers: vec![Matcher::equal("instance", &instance)],
                selector: instance.into(),
                before,
            }),
        }
        (self.engine).set_selected_cut_offs(tenant, selected.clone());
    }

    /// Merges, and makes aggregates, until there is nothing to do.
    fn merge_all(&self, closed_before: Millis) {
        while self.engine.merge_once(closed_before).unwrap().is_some() {}
        while aggregate(&self.engine, closed_before) != AggregateOutcome::Nothing {}
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..50 => self.write(),
            50..70 => drop(self.engine.flush(self.end(), None).unwrap()),
            70..85 => {
                let closed = START + self.random.random_range(0..4) * WINDOW_MILLIS;
                self.engine.merge_once(closed).unwrap();
                aggregate(&self.engine, closed);
            }
            85..90 => self.crash(),
            90..93 => self.drop_shards(),
            93..95 => self.delete(),
            95..97 => self.cut_off(),
            97..99 => self.cut_off_selected(),
            _ => drop(self.engine.enforce_retention().unwrap()),
        }
    }

    /// What must be shown of the series that satisfy `wanted`, inside `range`.
    fn expected(&self, wanted: impl Fn(&Labels) -> bool, range: TimeRange) -> Shown {
        let mut shown = Shown::new();
        for ((tenant, labels), samples) in &self.content {
            if !wanted(labels) {
                continue;
            }
            let cut_off = self.cut_offs.get(tenant).copied().unwrap_or(Millis::MIN);
            let selected = self.selected.get(tenant).into_iter().flatten();
            let deletions = self.deletions.get(tenant).into_iter().flatten();
            let erasing: Vec<Deletion> = deletions
                .cloned()
                .chain(selected.map(SelectedCutOff::deletion))
                .filter(|deletion| deletion.selects(labels.canonical()))
                .collect();
            for (time, values) in samples.range(range.start.max(cut_off)..range.end) {
                let kept = values.iter().filter(|(version, _)| {
                    !erasing
                        .iter()
                        .any(|d| *version < d.version && d.range.contains(*time))
                });
                let value = kept.map(|(_, value)| *value).reduce(crate::prefer);
                if let Some(value) = value {
                    let series = shown.entry((*tenant, labels.clone())).or_default();
                    series.insert(*time, value.to_bits());
                }
            }
        }
        shown
    }

    fn check(&mut self) {
        let view = self.engine.view();
        let shards = ShardSet::all(SHARDS);
        assert_shown(
            &shown(&view, &[], all(), &shards),
            &self.expected(|_| true, all()),
        );
        let some: ShardSet = [0, 1, 2, 3].map(ShardId).into_iter().collect();
        let range = TimeRange {
            start: START + 45_000,
            end: START + WINDOW_MILLIS + 60_000,
        };
        let matchers = [
            Matcher::regex("instance", "i[1-4]").unwrap(),
            Matcher::not_equal("id", "3"),
        ];
        let wanted = |labels: &Labels| {
            let get = |name| labels.get(name).unwrap_or("").as_bytes();
            let matching = matchers
                .iter()
                .all(|matcher| matcher.matches(get(matcher.name())));
            matching && some.contains(shard_of_series(labels))
        };
        assert_shown(
            &shown(&view, &matchers, range, &some),
            &self.expected(wanted, range),
        );
    }
}

fn aggregate(engine: &MetricsEngine, closed_before: Millis) -> AggregateOutcome {
    let go_on = &mut |_| ControlFlow::Continue(());
    engine.aggregate_once(closed_before, go_on).unwrap()
}

fn shown(view: &View, matchers: &[Matcher], range: TimeRange, shards: &ShardSet) -> Shown {
    let mut shown = Shown::new();
    for tenant in view.tenants() {
        let mut previous: Option<Labels> = None;
        let each = |series: SeriesSamples<'_>| {
            let labels = Labels::from_canonical(series.canonical).unwrap();
            assert!(previous.as_ref().is_none_or(|previous| *previous < labels));
            assert!(series.timestamps.is_sorted_by(|a, b| a < b));
            let bits = series.values.iter().map(|value| value.to_bits());
            let samples = series.timestamps.iter().copied().zip(bits).collect();
            shown.insert((tenant, labels.clone()), samples);
            previous = Some(labels);
            ControlFlow::Continue(())
        };
        view.select(tenant, matchers, range, shards, each).unwrap();
        let in_block_order = walks::in_block_order(&walks::Walk {
            view,
            tenant,
            matchers,
            range,
            shards,
        });
        let count = shown.keys().filter(|(of, _)| *of == tenant).count();
        assert_eq!(in_block_order.len(), count);
        for (labels, samples) in in_block_order {
            assert_eq!(shown.get(&(tenant, labels)), Some(&samples));
        }
    }
    shown
}

/// Compares without printing everything.
fn assert_shown(found: &Shown, expected: &Shown) {
    for (series, samples) in expected {
        assert_eq!(found.get(series), Some(samples), "{series:?}");
    }
    let extra = found.keys().find(|series| !expected.contains_key(series));
    assert_eq!(extra, None);
}

#[test]
fn the_engine_shows_what_the_model_holds() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        for _ in 0..60 {
            pair.step();
            if pair.random.random_bool(0.3) {
                pair.check();
            }
        }
        pair.check();
    }
}

#[test]
fn a_view_is_pinned() {
    let mut pair = Pair::new(1);
    (0..5).for_each(|_| pair.write());
    let view = pair.engine.view();
    let before = shown(&view, &[], all(), &ShardSet::all(SHARDS));
    for _ in 0..5 {
        pair.write();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
    pair.drop_shards();
    assert_shown(&shown(&view, &[], all(), &ShardSet::all(SHARDS)), &before);
}

/// The replication core makes views while it may not wait: neither for a body that is being applied nor for queries.
#[test]
fn a_view_waits_for_no_lock_of_the_head() {
    let mut pair = Pair::new(2);
    pair.write();
    pair.write();
    let heads: Vec<TenantHead> = pair.engine.heads.read().tenants.values().cloned().collect();
    assert!(!heads.is_empty());
    let (made, view) = std::sync::mpsc::channel();
    let engine = &pair.engine;
    std::thread::scope(|scope| {
        let locks: Vec<_> = heads
            .iter()
            .map(|head| (head.index.write(), head.samples.write()))
            .collect();
        scope.spawn(move || made.send((engine.view(), engine.head_size())));
        let made = view.recv_timeout(std::time::Duration::from_secs(10));
        drop(locks);
        let (view, (_, samples)) = made.expect("a view is made");
        let found = shown(&view, &[], all(), &ShardSet::all(SHARDS));
        assert!(!found.is_empty() && samples > 0);
    });
    pair.check();
}

#[test]
fn closed_windows_become_one_block_each() {
    let mut pair = Pair::new(2);
    for _ in 0..10 {
        pair.write();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
    pair.write();
    let statistics = pair.engine.statistics();
    let series = statistics.series_active.values().sum();
    assert_eq!(pair.engine.head_size(), (series, statistics.head_samples));
    assert!(statistics.head_samples > 0);
    pair.engine.flush(pair.end(), None).unwrap();
    while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let statistics = pair.engine.statistics();
    assert_eq!(statistics.blocks, 3);
    assert_eq!(statistics.head_samples, 0);
    let expected = pair.expected(|_| true, all());
    let samples: usize = expected.values().map(BTreeMap::len).sum();
    assert_eq!(statistics.block_samples, samples as u64);
}

#[test]
fn digests_do_not_depend_on_layout() {
    for seed in 0..10 {
        let mut pair = Pair::new(seed);
        for _ in 0..40 {
            pair.step();
        }
        let digests = |engine: &MetricsEngine| {
            engine
                .view()
                .digests(None, all(), &ShardSet::all(SHARDS), 7, 3)
                .unwrap()
        };
        let before = digests(&pair.engine);
        let items: u64 = before.values().map(|digest| digest.items).sum();
        let expected = pair.expected(|_| true, all());
        assert_eq!(
            items as usize,
            expected.values().map(BTreeMap::len).sum::<usize>()
        );
        pair.engine.flush(pair.end(), None).unwrap();
        while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
        assert_eq!(digests(&pair.engine), before, "seed {seed}");
        assert_eq!(digests(&pair.engine), before, "remembered");

        for (samples_max, anew) in [(1, true), (3, false), (3, true), (17, true), (9999, false)] {
            let copy = open(&Arc::new(SimulatedDisk::new(seed + 100)));
            copy_all(&pair.engine, &copy, samples_max, anew);
            assert_eq!(digests(&copy), before, "exported, seed {seed}");
        }
    }
}

/// Copies everything, in bodies of at most so many samples; every body when `anew` comes from an export of its own.
fn copy_all(from: &MetricsEngine, to: &MetricsEngine, samples_max: usize, anew: bool) {
    let view = Arc::new(from.view());
    let shards = ShardSet::all(SHARDS);
    let begin = |after| view.export(&shards, all(), samples_max, after).unwrap();
    let mut export = begin(None);
    for position in 1.. {
        assert!(position < 100_000, "the export ends");
        let Some(part) = export.next_body().unwrap() else {
            return;
        };
        assert!(part.samples <= samples_max);
        let (tenant, version) = (part.tenant, part.deletion_version);
        to.apply(position, tenant, version, &part.body, &shards)
            .unwrap();
        if anew {
            export = begin(Some(part.end));
        }
    }
}

#[test]
fn label_questions() {
    let mut pair = Pair::new(3);
    for _ in 0..10 {
        pair.write();
        if pair.random.random_bool(0.4) {
            pair.engine.flush(pair.end(), None).unwrap();
        }
    }
    let view = pair.engine.view();
    let shards: ShardSet = (0..4).map(ShardId).collect();
    let matchers = [Matcher::regex("__name__", "m[0-2]").unwrap()];
    for tenant in view.tenants() {
        let of_tenant: Vec<&Labels> = pair
            .content
            .keys()
            .filter(|(t, labels)| *t == tenant && shards.contains(shard_of_series(labels)))
            .map(|(_, labels)| labels)
            .filter(|labels| matchers[0].matches(labels.metric_name().unwrap().as_bytes()))
            .collect();
        let names: BTreeSet<&str> = of_tenant
            .iter()
            .flat_map(|l| l.iter())
            .map(|(n, _)| n)
            .collect();
        let found = view.label_names(tenant, &matchers, all(), &shards).unwrap();
        assert!(found.iter().map(String::as_str).eq(names));
        let values: BTreeSet<&str> = of_tenant.iter().filter_map(|l| l.get("id")).collect();
        let found = view
            .label_values(tenant, "id", &matchers, all(), &shards)
            .unwrap();
        assert!(found.iter().map(String::as_str).eq(values));
        let mut series = Vec::new();
        let each = |canonical: &[u8]| {
            series.push(Labels::from_canonical(canonical).unwrap());
            ControlFlow::Continue(())
        };
        view.series(tenant, &matchers, all(), &shards, each)
            .unwrap();
        let mut expected: Vec<Labels> = of_tenant.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(series, expected);
    }
}

/// A body of one sample of one series, with what it declares.
fn body_at(number: u32, time: Option<Millis>, declared: &[&crate::MetricMetadata]) -> Vec<u8> {
    let mut writer = BodyWriter::new().unwrap();
    for entry in declared {
        writer.add_metadata(ShardId(1), entry).unwrap();
    }
    let labels = series_labels(number);
    let samples = time.map(|time| (time, 1.0));
    writer
        .add_series(ShardId(1), labels.canonical(), samples)
        .unwrap();
    writer.finish().unwrap()
}

fn declared(metric: &str) -> crate::MetricMetadata {
    crate::MetricMetadata {
        metric: metric.into(),
        metric_type: crate::MetricType::Counter,
        help: "helps".into(),
        unit: "bytes".into(),
    }
}

/// Questions about a time and copies of it are not about what the head has of other times.
#[test]
fn other_times_are_not_listed_and_not_copied() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let (tenant, shards) = (TenantId(0), ShardSet::all(SHARDS));
    let apply = |position, body: &[u8]| {
        let version = DeletionVersion(0);
        engine.apply(position, tenant, version, body, &shards)
    };
    let later = START + 5 * WINDOW_MILLIS;
    apply(1, &body_at(0, Some(START), &[&declared("old")])).unwrap();
    engine.flush(1, None).unwrap();
    apply(2, &body_at(1, Some(later), &[&declared("new")])).unwrap();
    let view = Arc::new(engine.view());
    let listed = |start: Millis| {
        let range = Window::containing(start).range();
        let names = view.label_values(tenant, "__name__", &[], range, &shards);
        let mut series = Vec::new();
        let each = |canonical: &[u8]| {
            let labels = Labels::from_canonical(canonical).unwrap();
            series.push(labels.metric_name().unwrap().to_owned());
            ControlFlow::Continue(())
        };
        view.series(tenant, &[], range, &shards, each).unwrap();
        assert_eq!(names.unwrap(), series);
        let mut export = view.export(&shards, range, 100, None).unwrap();
        let mut copied = BTreeSet::new();
        while let Some(body) = export.next_body().unwrap() {
            let mut reader = BodyReader::new().unwrap();
            let body = reader.open(&body.body).unwrap();
            let entries = body.metadata(&shards).unwrap();
            copied.extend(entries.into_iter().map(|(_, entry)| entry.metric));
        }
        (series, copied.into_iter().collect::<Vec<_>>())
    };
    let expected = |series: &[&str], metadata: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        (owned(series), owned(metadata))
    };
    assert_eq!(listed(START), expected(&["m0"], &["old"]));
    assert_eq!(listed(later), expected(&["m1"], &["new"]));
    assert_eq!(listed(later + WINDOW_MILLIS), expected(&[], &[]));
    engine.set_cut_off(tenant, later + WINDOW_MILLIS);
    let names = engine.view().label_names(tenant, &[], all(), &shards);
    assert_eq!(names.unwrap(), Vec::<String>::new());
}

#[test]
fn a_failed_flush_keeps_everything() {
    let mut pair = Pair::new(5);
    pair.write();
    for nth in 0..4 {
        pair.disk.fail_sync(nth);
        if pair.engine.flush(pair.end(), None).is_err() {
            pair.check();
        }
        pair.write();
        pair.check();
    }
    pair.crash();
    pair.check();
    pair.engine.flush(pair.end(), None).unwrap();
    pair.check();
}

#[test]
fn a_full_disk_leaves_no_files_behind() {
    let mut pair = Pair::new(8);
    pair.write();
    pair.engine.flush(pair.end(), None).unwrap();
    pair.write();
    let used = |disk: &SimulatedDisk| -> (usize, u64) {
        let files = disk.files();
        (files.len(), files.iter().map(|(_, bytes)| bytes).sum())
    };
    let (files, bytes) = used(&pair.disk);
    let mut refused = 0;
    for more in (0..).step_by(500) {
        pair.disk.set_capacity(bytes + more);
        // A larger manifest needs more room the next time; the files are what counts.
        if pair.engine.flush(pair.end(), None).is_ok() {
            break;
        }
        refused += 1;
        assert_eq!(used(&pair.disk).0, files, "{more} bytes of room");
        pair.check();
    }
    assert!(refused > 2);
    pair.check();
}

#[test]
fn the_checkpoint_goes_with_the_blocks() {
    let mut pair = Pair::new(6);
    pair.write();
    pair.engine
        .flush(pair.end(), Some(b"held".to_vec()))
        .unwrap();
    pair.crash();
    assert_eq!(pair.engine.manifest.pin().checkpoint(), b"held");
    assert_eq!(pair.engine.applied_position(), pair.end());
    pair.check();
}

#[test]
fn idle_series_and_tenants_leave_the_head() {
    let mut pair = Pair::new(7);
    let mut write = |tenant: u32, series: std::ops::Range<u32>| {
        let mut writer = BodyWriter::new().unwrap();
        let end = pair.end() + 1;
        for labels in series.map(series_labels) {
            let time = START + end as Millis * 15_000;
            let of_series = pair.content.entry((TenantId(tenant), labels.clone()));
            let version = DeletionVersion(0);
            of_series
                .or_default()
                .entry(time)
                .or_default()
                .push((version, 1.0));
            let shard = shard_of_series(&labels);
            writer
                .add_series(shard, labels.canonical(), [(time, 1.0)])
                .unwrap();
        }
        let parcel = Parcel {
            end,
            tenant: TenantId(tenant),
            version: DeletionVersion(0),
            body: writer.finish().unwrap(),
        };
        let shards = ShardSet::all(SHARDS);
        let Parcel {
            tenant, version, ..
        } = parcel;
        pair.engine
            .apply(end, tenant, version, &parcel.body, &shards)
            .unwrap();
        pair.journal.push(parcel);
        pair.check();
        pair.engine.flush(end, None).unwrap();
        pair.check();
        pair.engine.statistics().series_active
    };
    let active = |series: &[(u32, u64)]| -> BTreeMap<TenantId, u64> {
        series.iter().map(|(t, s)| (TenantId(*t), *s)).collect()
    };
    assert_eq!(write(0, 0..8), active(&[(0, 8)]));
    assert_eq!(
        write(0, 0..4),
        active(&[(0, 8)]),
        "half of them may come back"
    );
    assert_eq!(write(0, 0..3), active(&[(0, 0)]), "most have become idle");
    assert_eq!(write(0, 0..4), active(&[(0, 4)]));
    assert_eq!(
        write(1, 0..2),
        active(&[(1, 2)]),
        "nothing came for the other tenant"
    );
}

#[test]
fn files_of_merged_blocks_go_without_another_commit() {
    let mut pair = Pair::new(8);
    for _ in 0..4 {
        pair.write();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    let view = pair.engine.view();
    while pair.engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let files = |pair: &Pair| {
        let names = pair.disk.list(Path::new("blocks")).unwrap();
        names.iter().filter(|name| name.ends_with("-data")).count() as u64
    };
    pair.engine.enforce_retention().unwrap();
    assert!(
        files(&pair) > pair.engine.statistics().blocks,
        "a view reads them"
    );
    drop(view);
    pair.engine.enforce_retention().unwrap();
    assert_eq!(files(&pair), pair.engine.statistics().blocks);
}

#[test]
fn a_flush_that_another_one_overtook_keeps_the_position() {
    let mut pair = Pair::new(9);
    pair.write();
    let early = pair.end();
    pair.write();
    pair.engine.flush(pair.end(), None).unwrap();
    pair.engine.flush(early, Some(b"held".to_vec())).unwrap();
    assert_eq!(pair.engine.manifest.pin().flushed_to(), pair.end());
    pair.crash();
    pair.check();
}
