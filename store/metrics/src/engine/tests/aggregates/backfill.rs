//! Aggregates for a history that has none.

use super::*;

/// Closed windows, each in a block without aggregates, as from before down-sampling was switched on.
fn history(seed: u64) -> Pair {
    let mut pair = Pair::new(seed);
    for _ in 0..20 {
        pair.write_integers();
        pair.engine.flush(pair.end(), None).unwrap();
    }
    pair.engine = reopened(&pair, false);
    pair.merge_all(Millis::MAX);
    assert!(!has_aggregates(&pair.engine).contains(&true));
    pair.engine = reopened(&pair, true);
    pair
}

fn reopened(pair: &Pair, down_sampling: bool) -> MetricsEngine {
    let disk = Arc::clone(&pair.disk) as Arc<dyn Disk>;
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), options).unwrap();
    let options = MetricsOptions {
        down_sampling,
        ..MetricsOptions::default()
    };
    MetricsEngine::open(Arc::new(manifest), options).unwrap()
}

fn outcome(
    pair: &Pair,
    go_on: &mut dyn FnMut(&MetricsEngine, u64) -> ControlFlow<()>,
) -> AggregateOutcome {
    let engine = &pair.engine;
    let mut go_on = |bytes| go_on(engine, bytes);
    engine.aggregate_once(Millis::MAX, &mut go_on).unwrap()
}

#[test]
fn a_history_is_done_from_its_end_on_and_over_restarts() {
    let mut pair = history(1);
    let windows = pair.engine.blocks().len();
    assert!(windows >= 3);
    let bytes = pair.engine.statistics().block_bytes;
    assert_eq!(pair.engine.merge_once(Millis::MAX).unwrap(), None);
    // Nothing is closed.
    let none = crate::engine::tests::aggregate(&pair.engine, START);
    assert_eq!(none, AggregateOutcome::Nothing);
    assert_eq!(pair.engine.statistics().aggregates_backlog.blocks, 0);
    for done in 1..=windows {
        assert_eq!(
            crate::engine::tests::aggregate(&pair.engine, Millis::MAX),
            AggregateOutcome::Made
        );
        let has = has_aggregates(&pair.engine);
        let (old, new) = has.split_at(windows - done);
        assert!(!old.contains(&true) && !new.contains(&false), "{has:?}");
        let statistics = pair.engine.statistics();
        let backlog = statistics.aggregates_backlog;
        // As it was before that block.
        assert_eq!(backlog.blocks as usize, windows - done + 1);
        assert!(backlog.bytes <= bytes);
        check(&pair.engine.view(), all());
        pair.crash();
    }
    let none = crate::engine::tests::aggregate(&pair.engine, Millis::MAX);
    assert_eq!(none, AggregateOutcome::Nothing);
    assert_eq!(
        pair.engine.statistics().aggregates_backlog,
        AggregatesBacklog::default()
    );
}

#[test]
fn work_that_is_ended_leaves_everything_as_it_was() {
    let pair = history(2);
    let files = pair.disk.files();
    let mut asked = Vec::new();
    let left = outcome(&pair, &mut |_, bytes| {
        asked.push(bytes);
        ControlFlow::Break(())
    });
    assert_eq!((left, asked.len()), (AggregateOutcome::Left, 1));
    assert_eq!(pair.disk.files(), files);
    assert!(!has_aggregates(&pair.engine).contains(&true));
    check(&pair.engine.view(), all());
    assert_eq!(
        outcome(&pair, &mut |_, _| ControlFlow::Continue(())),
        AggregateOutcome::Made
    );
}

/// Nobody waits for it: what happens meanwhile happens at once, and what was made of old samples is thrown away.
#[test]
fn everything_else_goes_on_meanwhile() {
    let erase = |engine: &MetricsEngine| {
        let shards: ShardSet = [ShardId(1)].into_iter().collect();
        engine
            .drop_shards(&shards, engine.applied_position(), None)
            .unwrap();
    };
    let cut = |engine: &MetricsEngine| {
        for tenant in 0..3 {
            engine.set_cut_off(TenantId(tenant), START + 100 * WINDOW_MILLIS);
        }
        assert!(engine.enforce_retention().unwrap() > 0);
    };
    let works: [&dyn Fn(&MetricsEngine); 2] = [&erase, &cut];
    for (at, work) in works.into_iter().enumerate() {
        let pair = history(3 + at as u64);
        let left = outcome(&pair, &mut |engine, _| {
            assert!(!engine.is_merging());
            work(engine);
            ControlFlow::Continue(())
        });
        assert_eq!(left, AggregateOutcome::Left);
        check(&pair.engine.view(), all());
        pair.merge_all(Millis::MAX);
        check(&pair.engine.view(), all());
        pair.engine.enforce_retention().unwrap();
        let names: Vec<String> = pair
            .disk
            .files()
            .iter()
            .map(|(p, _)| p.display().to_string())
            .collect();
        let named: usize = pair
            .engine
            .blocks()
            .iter()
            .map(|block| block.meta.files.len())
            .sum();
        // The manifest's log besides.
        assert_eq!(names.len(), named + 1, "{names:?}");
    }
}

/// A late sample comes while its window's block is aggregated: the new block is right, and so is what is shown of both.
#[test]
fn late_samples_come_meanwhile() {
    for seed in 5..15 {
        let mut pair = history(seed);
        let mut other = Pair::new(seed + 100);
        other.write_integers();
        let parcel = other.journal.pop().unwrap();
        let made = outcome(&pair, &mut |engine, _| {
            let end = pair.end() + 1;
            let accepted = ShardSet::all(SHARDS);
            let version = DeletionVersion(0);
            engine
                .apply(end, parcel.tenant, version, &parcel.body, &accepted)
                .unwrap();
            engine.flush(end, None).unwrap();
            ControlFlow::Continue(())
        });
        assert_eq!(made, AggregateOutcome::Made);
        check(&pair.engine.view(), all());
        pair.merge_all(Millis::MAX);
        assert!(has_aggregates(&pair.engine).iter().all(|has| *has));
        check(&pair.engine.view(), all());
        pair.journal.clear();
    }
}
