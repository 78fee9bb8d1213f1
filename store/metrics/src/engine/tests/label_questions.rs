//! Questions about labels against a plain model: in the head, in a block, and over both.

use super::*;
use std::collections::BTreeMap;

const TENANT: TenantId = TenantId(1);

/// Enough for several pages of values and several pieces of label rows.
const SERIES: u32 = 3_000;

fn labels(number: u32) -> Labels {
    let id = format!(
        "{}-id-of-a-series",
        number.wrapping_mul(2_654_435_761) % 100_000
    );
    let kind = format!("k{}", number % 7);
    let zone = format!("é{}", number % 3);
    let mut pairs = vec![("__name__", "m"), ("id", &*id), ("kind", &*kind)];
    if number.is_multiple_of(500) {
        pairs.push(("rare", &kind));
    }
    if number > 1_000 {
        pairs.push(("zone", &zone));
    }
    Labels::from_pairs(pairs)
}

fn apply(engine: &MetricsEngine, series: impl Iterator<Item = u32>, time: Millis) {
    let mut writer = BodyWriter::new().unwrap();
    for number in series {
        let labels = labels(number);
        let shard = shard_of_series(&labels);
        writer
            .add_series(shard, labels.canonical(), [(time, 1.0)])
            .unwrap();
    }
    let body = writer.finish().unwrap();
    let all = ShardSet::all(SHARDS);
    engine
        .apply(1, TENANT, DeletionVersion(0), &body, &all)
        .unwrap();
}

fn questions() -> Vec<Vec<Matcher>> {
    let regex = |name, pattern| Matcher::regex(name, pattern).unwrap();
    let not_regex = |name, pattern| Matcher::not_regex(name, pattern).unwrap();
    let id = |number| labels(number).get("id").unwrap().to_owned();
    let few = format!("{}|{}|none|{}", id(3), id(2_500), id(77));
    vec![
        vec![],
        vec![Matcher::equal("id", &id(5))],
        vec![Matcher::equal("id", "none")],
        vec![Matcher::equal("none", "")],
        vec![Matcher::not_equal("none", "")],
        vec![Matcher::not_equal("id", &id(5))],
        vec![Matcher::equal("zone", "")],
        vec![
            Matcher::not_equal("zone", ""),
            Matcher::not_equal("kind", "k1"),
        ],
        vec![regex("id", &few)],
        vec![not_regex("id", &few)],
        vec![not_regex("id", &format!("{few}|"))],
        vec![regex("id", ".*")],
        vec![regex("id", ".+"), regex("rare", ".+")],
        vec![not_regex("rare", ".+")],
        vec![regex("id", "1.+")],
        vec![not_regex("id", "2.*"), regex("zone", "é1|")],
        vec![regex("id", ".*7.*5.*")],
        vec![regex("id", "[0-9]+5-id.*"), Matcher::equal("kind", "k3")],
        vec![regex("rare", "k[0-4]"), not_regex("id", ".*1.*")],
        vec![Matcher::equal("rare", "k2"), regex("id", "[1-5].*")],
    ]
}

/// Compares all answers of an engine with those that `series` gives.
fn check(engine: &MetricsEngine, series: &[u32], shards: &ShardSet, place: &str) {
    let view = engine.view();
    let series: Vec<Labels> = series.iter().map(|number| labels(*number)).collect();
    for matchers in questions() {
        let fits = |labels: &&Labels| {
            let value = |m: &Matcher| labels.get(m.name()).unwrap_or("").to_owned();
            let mut matchers = matchers.iter();
            shards.contains(shard_of_series(labels))
                && matchers.all(|m| m.matches(value(m).as_bytes()))
        };
        let expected: BTreeSet<&Labels> = series.iter().filter(fits).collect();
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (name, value) in expected.iter().flat_map(|labels| labels.iter()) {
            *counts
                .entry((name.to_owned(), value.to_owned()))
                .or_default() += 1;
        }
        let case = format!("{place}: {matchers:?}");
        let mut found = Vec::new();
        let each = |canonical: &[u8]| {
            found.push(Labels::from_canonical(canonical).unwrap());
            ControlFlow::Continue(())
        };
        view.series(TENANT, &matchers, all(), shards, each).unwrap();
        assert!(found.iter().eq(expected.iter().copied()), "{case}");
        let names = view.label_names(TENANT, &matchers, all(), shards).unwrap();
        let wanted: BTreeSet<&str> = counts.keys().map(|(name, _)| &**name).collect();
        assert!(names.iter().eq(wanted), "{case}");
        for name in ["__name__", "id", "kind", "rare", "zone", "none"] {
            let values = view
                .label_values(TENANT, name, &matchers, all(), shards)
                .unwrap();
            let wanted = counts.keys().filter(|(one, _)| one == name);
            assert!(
                values.iter().eq(wanted.map(|(_, value)| value)),
                "{case} {name}"
            );
        }
        for names in [vec![], vec!["kind".to_owned(), "none".to_owned()]] {
            let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
            let each = |name: &str, value: &str, series| {
                *counted
                    .entry((name.to_owned(), value.to_owned()))
                    .or_default() += series;
                ControlFlow::Continue(())
            };
            // A series that fits two alternatives counts once.
            let twice = [matchers.clone(), matchers.clone()];
            let total = view.count_series(TENANT, &twice, (all(), shards), &names, each, go_on);
            assert_eq!(total.unwrap(), Some(expected.len() as u64), "{case}");
            let is_wanted = |name: &String| names.is_empty() || names.contains(name);
            let wanted = counts.iter().filter(|((name, _), _)| is_wanted(name));
            assert!(counted.iter().eq(wanted), "{case}");
        }
    }
}

/// Engines whose questions look up series one by one, and by the set of those with samples.
fn engines() -> [MetricsEngine; 2] {
    [u64::MAX, 3].map(|series_looked_up_max| {
        let options = MetricsOptions {
            series_looked_up_max,
            ..MetricsOptions::default()
        };
        open_with(&Arc::new(SimulatedDisk::new(1)), options)
    })
}

/// Counting is never ended.
fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn labels_are_found_in_heads_and_blocks() {
    for engine in engines() {
        check_heads_and_blocks(&engine);
    }
}

fn check_heads_and_blocks(engine: &MetricsEngine) {
    let every = ShardSet::all(SHARDS);
    let some: ShardSet = [1, 4, 6].map(ShardId).into_iter().collect();
    let mut series: Vec<u32> = (0..SERIES).collect();
    apply(engine, series.iter().copied(), START);
    for shards in [&every, &some] {
        check(engine, &series, shards, "head");
    }
    engine.flush(1, None).unwrap();
    for shards in [&every, &some] {
        check(engine, &series, shards, "block");
    }
    // The head's index still knows all series; only these have samples since.
    series.extend(SERIES..SERIES + 400);
    apply(
        engine,
        (0..SERIES + 400).filter(|n| n % 3 == 0 || *n >= SERIES),
        START + 1,
    );
    check(engine, &series, &some, "block and head");
    engine.flush(1, None).unwrap();
    check(engine, &series, &every, "two blocks");
    engine.merge_once(Millis::MAX).unwrap();
    check(engine, &series, &every, "merged block");
}

/// A view shows what was there when it was made, although the head's index grows.
#[test]
fn what_came_later_is_in_no_view() {
    for engine in engines() {
        check_what_came_later(&engine);
    }
}

fn check_what_came_later(engine: &MetricsEngine) {
    apply(engine, 0..100, START);
    engine.flush(1, None).unwrap();
    apply(engine, 0..80, START + 1);
    let count = |view: &View| {
        let head_only = TimeRange {
            start: START + 1,
            end: START + 2,
        };
        let every = ShardSet::all(SHARDS);
        let names = ["none".to_owned()];
        let none = |_: &str, _: &str, _| ControlFlow::Continue(());
        let counted =
            view.count_series(TENANT, &[vec![]], (head_only, &every), &names, none, go_on);
        counted.unwrap().unwrap()
    };
    let before = engine.view();
    assert_eq!(count(&before), 80);
    apply(engine, 80..120, START + 1);
    assert_eq!((count(&before), count(&engine.view())), (80, 120));
}

/// All series are others every hour: neither the head nor the blocks of later windows keep what is gone.
#[test]
fn series_that_ended_are_forgotten() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    const LIVE: u32 = 1_000;
    let mut head_series = Vec::new();
    for step in 0..60 {
        // A twentieth of the series ends in each of twenty steps of an hour.
        let first = step * LIVE / 20;
        let time = START + Millis::from(step) * 180_000;
        apply(&engine, first..first + LIVE, time);
        head_series.push(engine.statistics().series_active[&TENANT]);
        engine.flush(1, None).unwrap();
    }
    // A quarter of the index may be idle, and what the flush before the last had seen ended just now.
    let most = head_series.iter().max().unwrap();
    assert!(*most <= 3 * u64::from(LIVE) / 2, "{head_series:?}");
    // Until there is nothing to merge.
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    let view = engine.view();
    let series = |block: &VisibleBlock| {
        let none = |_: &str, _: &str, _| ControlFlow::Continue(());
        let place = (block.meta.window, &ShardSet::all(SHARDS));
        let names = ["none".to_owned()];
        let counted = view.count_series(TENANT, &[vec![]], place, &names, none, go_on);
        counted.unwrap().unwrap()
    };
    let series: Vec<u64> = view.blocks.iter().map(series).collect();
    // Of 3,950 series the first window has those of two hours, the second those of one.
    assert_eq!(series, [2_950, 1_950]);
}

/// Whoever counts can end it, and knows what memory it takes.
#[test]
fn counting_asks_whether_to_go_on() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    apply(&engine, 0..SERIES, START);
    engine.flush(1, None).unwrap();
    apply(&engine, 0..SERIES, START + 1);
    let count = |bytes_max: usize| {
        let (mut bytes, mut values) = (0, 0);
        let each = |_: &str, _: &str, _| {
            values += 1;
            ControlFlow::Continue(())
        };
        let go_on = |more| {
            bytes += more;
            match bytes <= bytes_max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let place = (all(), &ShardSet::all(SHARDS));
        let names = ["id".to_owned()];
        let view = engine.view();
        let counted = view.count_series(TENANT, &[vec![]], place, &names, each, go_on);
        (counted.unwrap(), values, bytes)
    };
    let (series, values, bytes) = count(usize::MAX);
    assert_eq!((series, values), (Some(SERIES.into()), SERIES));
    // Each of the series is told apart by a hash of 8 bytes at least.
    assert!(bytes >= 8 * SERIES as usize, "{bytes}");
    let (_, values, _) = count(bytes - 1);
    assert_eq!(values, 0, "it ended before anything was counted");
}
