//! What aggregates that are read take of a query's budget, and what is answered in brief.

use super::*;
use std::path::Path;
use trefoil_model::{DeletionVersion, Millis, Resolution, ShardId};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{AggregateOutcome, BodyWriter, MetricsEngine, MetricsOptions};
use trefoil_store_pages::SimulatedDisk;

const TENANT: TenantId = TenantId(1);
const HOUR: Millis = 3_600_000;
/// The beginning of a window.
const START: Millis = 1_700_006_400_000;
const SERIES: usize = 20;
const HOURS: i64 = 12;
/// Buckets of 5 min of each series.
const BUCKETS: usize = 12 * HOURS as usize + 1;

/// Blocks with aggregates of some series with a sample each minute.
fn engine() -> MetricsEngine {
    let disk = Arc::new(SimulatedDisk::new(1));
    let options = ManifestOptions::default();
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), options).expect("a manifest");
    let options = MetricsOptions {
        down_sampling: true,
        ..MetricsOptions::default()
    };
    let engine = MetricsEngine::open(Arc::new(manifest), options).expect("an engine");
    let mut body = BodyWriter::new().expect("a writer");
    for number in 0..SERIES {
        let number = number.to_string();
        let labels = Labels::from_pairs([("__name__", "m"), ("n", number.as_str())]);
        let samples = (0..=HOURS * 60).map(|at| (START + at * 60_000, at as f64));
        body.add_series(ShardId(0), labels.canonical(), samples)
            .expect("it fits");
    }
    let body = body.finish().expect("a body");
    let all = ShardSet::all(1);
    engine
        .apply(1, TENANT, DeletionVersion(0), &body, &all)
        .expect("a body");
    engine.flush(1, None).expect("a flush");
    while engine.merge_once(Millis::MAX).expect("merged").is_some() {}
    let go_on = &mut |_| ControlFlow::Continue(());
    while engine.aggregate_once(Millis::MAX, go_on).expect("made") == AggregateOutcome::Made {}
    engine
}

fn selector() -> Selector {
    Selector {
        matchers: Vec::new(),
        start: START - HOUR + 1,
        end: START + HOURS * HOUR,
        resolution: Some(Resolution::FiveMinutes),
    }
}

/// Reads the aggregates of all series in so many pieces, and says how many series there are.
fn read(engine: &MetricsEngine, budget: &Budget, pieces: usize) -> Result<usize, QueryError> {
    let (view, shards) = (engine.view(), ShardSet::all(1));
    let storage = ViewStorage {
        view: &view,
        tenant: TENANT,
        shards: &shards,
        damaged: Cell::new(None),
        budget,
        meter: Arc::default(),
        brief: None,
    };
    let selector = selector();
    let mut series = 0;
    let mut rows = Vec::new();
    let mut each = |_: &Labels, source: &mut dyn SampleSource| {
        rows.clear();
        assert!(source.aggregates(&mut rows)?);
        assert_eq!(rows.len(), BUCKETS);
        series += 1;
        Ok(())
    };
    for stretch in storage.stretches(&selector, |_, _| pieces)? {
        stretch.select(&selector, &mut each)?;
    }
    if pieces == 1 {
        storage.select(&selector, &mut each)?;
        series /= 2;
    }
    Ok(series)
}

#[test]
fn aggregates_are_held_while_they_are_in_memory() {
    let engine = engine();
    let of_series = BUCKETS * size_of::<Aggregate>() / SAMPLE_BYTES;
    for pieces in [1, 3] {
        let max = 1 << 30;
        let budget = Budget::new(max as u64);
        assert_eq!(read(&engine, &budget, pieces), Ok(SERIES));
        let peak = budget.samples_peak() as usize;
        assert!(peak >= SERIES / pieces * of_series, "{peak}");
        assert_eq!(budget.hold(max), Ok(()), "nothing is held any more");

        // Far from enough for all series at once.
        let max = 5 * of_series;
        let budget = Budget::new(max as u64);
        assert_eq!(read(&engine, &budget, pieces), Ok(SERIES));
        let peak = budget.samples_peak() as usize;
        assert!((of_series..=max).contains(&peak), "{peak}");
        assert_eq!(budget.hold(max), Ok(()));

        // Not enough for one.
        let max = of_series - 1;
        let budget = Budget::new(max as u64);
        let error = read(&engine, &budget, pieces).expect_err("it is too much");
        let text = "query processing would load too many samples into memory in query execution";
        assert_eq!(error.to_string(), text);
        assert_eq!(budget.hold(max), Ok(()));
    }
}

/// The series and samples that a selector finds, with `brief` only if that takes little.
fn select(
    engine: &MetricsEngine,
    selector: &Selector,
    brief: Option<Brief>,
) -> Result<Vec<(Labels, Vec<Millis>)>, QueryError> {
    let (view, shards, budget) = (engine.view(), ShardSet::all(1), Budget::new(1 << 30));
    let storage = ViewStorage {
        view: &view,
        tenant: TENANT,
        shards: &shards,
        damaged: Cell::new(None),
        budget: &budget,
        meter: Arc::default(),
        brief,
    };
    let mut found = Vec::new();
    storage.select(selector, &mut |labels, source| {
        let mut columns = SampleColumns::default();
        source.read(&mut columns)?;
        found.push((labels.clone(), columns.timestamps));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn what_is_not_in_memory_is_not_answered_in_brief() {
    let engine = engine();
    let matching = |op, value: &str| Selector {
        matchers: vec![Matcher::new("n", op, value).expect("a matcher")],
        resolution: None,
        ..selector()
    };
    let brief = |series_max| {
        Some(Brief {
            series_max,
            work_max: u64::MAX,
        })
    };
    let one = matching(MatchOp::Equal, "7");
    let canceled = Err(QueryError::Canceled);
    assert_eq!(
        select(&engine, &one, brief(1)),
        canceled,
        "nobody has read it"
    );
    let found = select(&engine, &one, None);
    assert_eq!(found.as_ref().map(Vec::len), Ok(1));
    assert_eq!(select(&engine, &one, brief(1)), found);
    assert_eq!(
        select(&engine, &one, brief(0)),
        canceled,
        "these are too many"
    );

    let others = [
        matching(MatchOp::NotEqual, "7"),
        matching(MatchOp::Regex, "7.*"),
        matching(MatchOp::Equal, ""),
        Selector {
            resolution: Some(Resolution::FiveMinutes),
            ..one
        },
    ];
    for selector in others {
        assert!(select(&engine, &selector, None).is_ok());
        assert_eq!(
            select(&engine, &selector, brief(100)),
            canceled,
            "{selector:?}"
        );
    }
    let some = matching(MatchOp::Regex, "3|5");
    let found = select(&engine, &some, None);
    assert_eq!(found.as_ref().map(Vec::len), Ok(2));
    assert_eq!(select(&engine, &some, brief(2)), found);
}

#[test]
fn the_newest_samples_keep_their_histograms() {
    let mut columns = SampleColumns {
        timestamps: vec![1, 2, 3],
        values: vec![1.0, 2.0, 3.0],
        ..SampleColumns::default()
    };
    for at in [0, 1] {
        columns.histograms.put(at, Arc::default());
    }
    keep_newest(&mut columns, 9);
    assert_eq!(columns.timestamps, [1, 2, 3]);
    assert!(columns.histograms.at(1).is_some());
    keep_newest(&mut columns, 2);
    assert_eq!(
        (&columns.timestamps[..], &columns.values[..]),
        (&[2, 3][..], &[2.0, 3.0][..])
    );
    assert!(columns.histograms.at(0).is_some() && columns.histograms.at(1).is_none());
    keep_newest(&mut columns, 1);
    assert_eq!(columns.timestamps, [3]);
    assert!(columns.histograms.at(0).is_none());
}
