//! What metrics are declared as: kept through flushes, merges and restarts, with samples and without.

use super::*;

#[test]
fn metadata_survives_flush_and_merge() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let entry = crate::MetricMetadata {
        metric: "m0".into(),
        metric_type: crate::MetricType::Counter,
        help: "helps".into(),
        unit: "bytes".into(),
    };
    let labels = series_labels(0);
    for round in 1..=4 {
        let mut writer = BodyWriter::new().unwrap();
        writer.add_metadata(ShardId(1), &entry).unwrap();
        writer
            .add_series(ShardId(1), labels.canonical(), [(START, 1.0)])
            .unwrap();
        let body = writer.finish().unwrap();
        let accepted = ShardSet::all(SHARDS);
        engine
            .apply(round, TenantId(0), DeletionVersion(0), &body, &accepted)
            .unwrap();
        let found = |shards: u16| {
            engine
                .view()
                .metadata(TenantId(0), &ShardSet::all(shards))
                .unwrap()
        };
        assert_eq!(found(2), BTreeSet::from([entry.clone()]));
        assert_eq!(found(1), BTreeSet::new());
        engine.flush(round, None).unwrap();
        assert_eq!(found(2), BTreeSet::from([entry.clone()]));
    }
    engine
        .merge_once(Millis::MIN)
        .unwrap()
        .expect("four blocks of one level");
    let found = engine
        .view()
        .metadata(TenantId(0), &ShardSet::all(2))
        .unwrap();
    assert_eq!(found, BTreeSet::from([entry]));
}

/// Agents declare metrics in requests of their own; a flush may meet nothing else of a tenant.
#[test]
fn metadata_without_samples_survives_flush_merge_and_restart() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let engine = open(&disk);
    let shards = ShardSet::all(SHARDS);
    let apply = |engine: &MetricsEngine, position, tenant, body: &[u8]| {
        let tenant = TenantId(tenant);
        let version = DeletionVersion(0);
        engine
            .apply(position, tenant, version, body, &shards)
            .unwrap();
    };
    let shown = |engine: &MetricsEngine| {
        let view = engine.view();
        let of_tenant = |tenant| {
            let found = view.metadata(TenantId(tenant), &shards).unwrap();
            found
                .into_iter()
                .map(|entry| entry.metric)
                .collect::<Vec<_>>()
        };
        [0, 1, 2].map(of_tenant)
    };
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    // The node has nothing else.
    apply(&engine, 1, 0, &body_at(0, None, &[&declared("a")]));
    engine.flush(1, None).unwrap();
    assert_eq!(shown(&engine), [names(&["a"]), names(&[]), names(&[])]);
    // Another tenant has samples; then the first one does, in an older window.
    apply(&engine, 2, 1, &body_at(1, Some(START), &[&declared("b")]));
    apply(&engine, 3, 0, &body_at(0, None, &[&declared("a2")]));
    apply(&engine, 4, 2, &body_at(0, None, &[&declared("c")]));
    engine.flush(4, None).unwrap();
    let all_of = [names(&["a", "a2"]), names(&["b"]), names(&["c"])];
    assert_eq!(shown(&engine), all_of);
    apply(&engine, 5, 1, &body_at(1, Some(START), &[]));
    engine.flush(5, None).unwrap();
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    assert_eq!(shown(&engine), all_of);

    // What blocks have already makes no new ones.
    let blocks = engine.statistics().blocks;
    apply(&engine, 6, 2, &body_at(0, None, &[&declared("c")]));
    engine.flush(6, None).unwrap();
    assert_eq!(engine.statistics().blocks, blocks);
    drop(engine);
    disk.crash(CrashLoss::Everything);
    let engine = open(&disk);
    assert_eq!(engine.applied_position(), 6);
    assert_eq!(shown(&engine), all_of);
    assert_eq!(engine.view().tenants().len(), 3);
}

/// The samples may all be deleted; what was declared stays.
#[test]
fn metadata_survives_the_samples_that_came_with_it() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let (tenant, shards) = (TenantId(0), ShardSet::all(SHARDS));
    let body = body_at(0, Some(START), &[&declared("a")]);
    engine
        .apply(1, tenant, DeletionVersion(0), &body, &shards)
        .unwrap();
    let deletion = Deletion {
        version: DeletionVersion(1),
        matchers: vec![Matcher::equal("__name__", "m0")],
        range: all(),
    };
    engine.set_deletions(tenant, DeletionVersion(1), vec![deletion]);
    engine.flush(1, None).unwrap();
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let found = engine.view().metadata(tenant, &shards).unwrap();
    assert_eq!(found, BTreeSet::from([declared("a")]));
    assert_eq!(engine.statistics().block_samples, 0);
    let cut_off = Window::containing(START).range().end;
    engine.set_cut_off(tenant, cut_off);
    assert_eq!(engine.enforce_retention().unwrap(), 1);
}

/// A tenant that declares without end fills neither memory nor blocks, and what it writes is flushed.
#[test]
fn declarations_are_bounded() {
    const EACH: usize = 1 << 19;
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let shards = ShardSet::all(SHARDS);
    let labels = series_labels(0);
    let found = |engine: &MetricsEngine| engine.view().metadata(TenantId(0), &shards).unwrap();
    let (mut position, mut dropped) = (0, 0);
    for round in 0..4 {
        for number in 0..40 {
            position += 1;
            let mut writer = BodyWriter::new().unwrap();
            let entry = crate::MetricMetadata {
                metric: format!("m{round}_{number}"),
                metric_type: crate::MetricType::Counter,
                help: "x".repeat(EACH),
                unit: String::new(),
            };
            writer.add_metadata(ShardId(1), &entry).unwrap();
            let sample = [(START + position as Millis, 1.0)];
            writer
                .add_series(ShardId(1), labels.canonical(), sample)
                .unwrap();
            let body = writer.finish().unwrap();
            let applied = engine
                .apply(position, TenantId(0), DeletionVersion(0), &body, &shards)
                .unwrap();
            dropped += applied.declarations_dropped;
        }
        let count = found(&engine).len();
        assert!((40..=64).contains(&count), "{count} after round {round}");
        engine.flush(position, None).unwrap();
    }
    assert_eq!((dropped, engine.statistics().declarations_dropped), (0, 0));
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let newest = |entry: &crate::MetricMetadata| entry.metric.starts_with("m3_");
    let count = found(&engine).iter().filter(|entry| newest(entry)).count();
    assert_eq!(count, 40, "what was declared last stays");
    assert_eq!(
        found(&engine).len(),
        63,
        "each takes a little more than half a MiB"
    );
    let merged = engine.statistics().declarations_dropped;
    assert!(merged > 0, "older ones had no room in the merged block");
    // More than the head takes before it is flushed.
    for number in 0..70 {
        position += 1;
        let mut writer = BodyWriter::new().unwrap();
        let entry = crate::MetricMetadata {
            metric: format!("further{number}"),
            metric_type: crate::MetricType::Counter,
            help: "x".repeat(EACH),
            unit: String::new(),
        };
        writer.add_metadata(ShardId(1), &entry).unwrap();
        let body = writer.finish().unwrap();
        let applied = engine
            .apply(position, TenantId(0), DeletionVersion(0), &body, &shards)
            .unwrap();
        assert_eq!(applied.declarations_dropped, u64::from(number >= 63));
    }
    assert_eq!(engine.statistics().declarations_dropped, merged + 7);
}
