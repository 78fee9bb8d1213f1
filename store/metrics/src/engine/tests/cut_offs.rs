//! Cut-offs of selectors: hidden at once, gone from the disk when a whole block is behind them.

use super::*;
use trefoil_model::Resolution;

const TENANT: TenantId = TenantId(0);
/// In the first window; some samples of [`written`] are behind it.
const INSIDE: Millis = START + 90_000;

/// An engine with four series of two jobs, in three windows.
fn written(disk: u64) -> MetricsEngine {
    let engine = open(&Arc::new(SimulatedDisk::new(disk)));
    let mut writer = BodyWriter::new().unwrap();
    for (job, id) in [("debug", "1"), ("debug", "2"), ("web", "1"), ("web", "2")] {
        let labels = Labels::from_pairs(vec![("__name__", "up"), ("job", job), ("id", id)]);
        let samples: Vec<(Millis, f64)> = (0..3)
            .flat_map(|window| (0..10).map(move |step| window * WINDOW_MILLIS + step * 15_000))
            .map(|after| (START + after, 1.0))
            .collect();
        writer
            .add_series(shard_of_series(&labels), labels.canonical(), samples)
            .unwrap();
    }
    let body = writer.finish().unwrap();
    let shards = ShardSet::all(SHARDS);
    engine
        .apply(1, TENANT, DeletionVersion(0), &body, &shards)
        .unwrap();
    engine
}

fn cut(engine: &MetricsEngine, before: Millis) {
    let cut_off = SelectedCutOff {
        selector: "{job=\"debug\"}".into(),
        matchers: vec![Matcher::equal("job", "debug")],
        before,
    };
    engine.set_selected_cut_offs(TENANT, vec![cut_off]);
}

fn samples(engine: &MetricsEngine) -> usize {
    let found = shown(&engine.view(), &[], all(), &ShardSet::all(SHARDS));
    found.values().map(BTreeMap::len).sum()
}

fn merge_all(engine: &MetricsEngine) -> usize {
    let mut merges = 0;
    while engine.merge_once(Millis::MAX).unwrap().is_some() {
        merges += 1;
    }
    while aggregate(engine, Millis::MAX) == AggregateOutcome::Made {
        merges += 1;
    }
    merges
}

#[test]
fn what_is_behind_a_cut_off_is_hidden_and_then_removed_window_by_window() {
    let engine = written(1);
    assert_eq!(samples(&engine), 120);
    cut(&engine, INSIDE);
    assert_eq!(samples(&engine), 120 - 2 * 6, "hidden in the head");
    engine.flush(1, None).unwrap();
    assert_eq!(samples(&engine), 120 - 2 * 6);
    assert_eq!(engine.statistics().block_samples, 108, "not written again");
    assert_eq!(merge_all(&engine), 3, "each block gets its aggregates");
    assert_eq!(merge_all(&engine), 0, "no block is wholly behind it");

    // The first window lies behind it, the second in part.
    cut(&engine, INSIDE + WINDOW_MILLIS);
    assert_eq!(samples(&engine), 120 - 2 * 16);
    assert_eq!(merge_all(&engine), 1);
    assert_eq!(engine.statistics().block_samples, 100);
    assert_eq!(samples(&engine), 120 - 2 * 16);
    assert_eq!(merge_all(&engine), 0, "it is rewritten once");
}

#[test]
fn digests_are_equal_before_and_after_the_removal() {
    let (merged, hidden) = (written(1), written(2));
    let digests = |engine: &MetricsEngine| {
        let view = engine.view();
        view.digests(None, all(), &ShardSet::all(SHARDS), 7, 0)
            .unwrap()
    };
    for engine in [&merged, &hidden] {
        engine.flush(1, None).unwrap();
        merge_all(engine);
        // Remembered, and not valid any more behind the cut-off.
        assert_eq!(digests(engine).values().map(|d| d.items).sum::<u64>(), 120);
        cut(engine, INSIDE + WINDOW_MILLIS);
    }
    assert_eq!(merge_all(&merged), 1);
    assert_eq!(digests(&merged), digests(&hidden));
    let items: u64 = digests(&hidden).values().map(|digest| digest.items).sum();
    assert_eq!(items, 120 - 2 * 16);
}

#[test]
fn aggregates_leave_out_what_is_behind_a_cut_off() {
    let engine = written(1);
    let count = |engine: &MetricsEngine| {
        let shards = ShardSet::all(SHARDS);
        let view = engine.view();
        let cursor = view.aggregates(TENANT, &[], all(), &shards, Resolution::FiveMinutes);
        let mut cursor = cursor.unwrap();
        let mut count = 0;
        while let Some(series) = cursor.next_series().unwrap() {
            count += series.aggregates.iter().map(|row| row.count).sum::<u64>();
        }
        count
    };
    engine.flush(1, None).unwrap();
    assert_eq!((merge_all(&engine), count(&engine)), (3, 120));
    // The files of the first window and of the second still have all.
    cut(&engine, INSIDE + WINDOW_MILLIS);
    assert_eq!(count(&engine), 120 - 2 * 16);
    assert_eq!((merge_all(&engine), count(&engine)), (1, 120 - 2 * 16));
}

#[test]
fn series_whose_time_is_over_are_not_listed() {
    let engine = written(1);
    engine.flush(1, None).unwrap();
    cut(&engine, INSIDE + 2 * WINDOW_MILLIS);
    let of_first = TimeRange {
        start: START,
        end: START + WINDOW_MILLIS,
    };
    let values = |range: TimeRange| {
        let view = engine.view();
        view.label_values(TENANT, "job", &[], range, &ShardSet::all(SHARDS))
            .unwrap()
    };
    let mut series = 0;
    let each = |_: &[u8]| {
        series += 1;
        ControlFlow::Continue(())
    };
    let shards = ShardSet::all(SHARDS);
    engine
        .view()
        .series(TENANT, &[], of_first, &shards, each)
        .unwrap();
    assert_eq!((values(of_first), series), (vec!["web".to_owned()], 2));
    assert_eq!(values(all()), ["debug", "web"]);
}
