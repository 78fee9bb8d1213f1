//! Stamps: equal ones promise equal content, so whatever changes a window must change its stamp.

use super::*;
use crate::Stamp;
use trefoil_model::Window;

const TENANT: TenantId = TenantId(0);

/// The windows of [`START`] and behind.
fn window(number: i64) -> Window {
    Window::containing(START + number * WINDOW_MILLIS)
}

fn stamps(view: &View) -> [Option<Stamp>; 3] {
    let stamps = view.stamps(TENANT);
    [0, 1, 2].map(|number| stamps.of(window(number)))
}

/// Writes one sample each to these windows.
fn write(engine: &MetricsEngine, version: u64, times: &[Millis]) {
    let mut writer = BodyWriter::new().unwrap();
    let labels = Labels::from_pairs(vec![("__name__", "up"), ("job", "a")]);
    let samples = times.iter().map(|time| (*time, version as f64));
    let shard = shard_of_series(&labels);
    writer
        .add_series(shard, labels.canonical(), samples)
        .unwrap();
    let body = writer.finish().unwrap();
    let end = engine.applied_position() + 1;
    let all = ShardSet::all(SHARDS);
    engine
        .apply(end, TENANT, DeletionVersion(version), &body, &all)
        .unwrap();
}

/// An engine with a sample in each of the first two windows, in blocks.
fn written(disk: u64) -> MetricsEngine {
    let engine = open(&Arc::new(SimulatedDisk::new(disk)));
    write(&engine, 0, &[START, START + WINDOW_MILLIS]);
    engine.flush(1, None).unwrap();
    engine
}

/// Which of the three windows have another stamp after `change`.
fn changed(engine: &MetricsEngine, change: impl FnOnce(&MetricsEngine)) -> [bool; 3] {
    let before = stamps(&engine.view());
    assert!(before.iter().all(Option::is_some));
    change(engine);
    let after = stamps(&engine.view());
    assert!(after.iter().all(Option::is_some));
    [0, 1, 2].map(|at| before[at] != after[at])
}

/// One of all that can happen while a process runs.
fn change(pair: &mut Pair) {
    match pair.random.random_range(0..20) {
        0..8 => pair.write(),
        8..12 => drop(pair.engine.flush(pair.end(), None).unwrap()),
        12..15 => {
            let closed = START + pair.random.random_range(0..4) * WINDOW_MILLIS;
            pair.engine.merge_once(closed).unwrap();
        }
        15 => pair.drop_shards(),
        16 => pair.delete(),
        17 => pair.cut_off(),
        18 => pair.cut_off_selected(),
        _ => drop(pair.engine.enforce_retention().unwrap()),
    }
}

#[test]
fn equal_stamps_are_of_equal_content() {
    let shards = ShardSet::all(SHARDS);
    let (mut met_again, mut unknown) = (0, 0);
    for seed in 0..8 {
        println!("seed {seed}");
        let mut pair = Pair::new(seed);
        let mut known: BTreeMap<(TenantId, i64), Vec<(Stamp, Shown)>> = BTreeMap::new();
        for _ in 0..60 {
            let view = pair.engine.view();
            change(&mut pair);
            // Of the view from before the step too: it was made of what the engine then had.
            for view in [view, pair.engine.view()] {
                for (tenant, number) in (0..3).flat_map(|t| (0..3).map(move |w| (TenantId(t), w))) {
                    let Some(stamp) = view.stamps(tenant).of(window(number)) else {
                        unknown += 1;
                        continue;
                    };
                    let mut content = shown(&view, &[], window(number).range(), &shards);
                    content.retain(|(of, _), _| *of == tenant);
                    let of_window = known.entry((tenant, number)).or_default();
                    match of_window.iter().find(|(known, _)| *known == stamp) {
                        Some((_, same)) => {
                            met_again += 1;
                            assert_shown(&content, same);
                        }
                        None => of_window.push((stamp, content)),
                    }
                }
            }
        }
    }
    assert!(met_again > 500 && unknown > 5, "{met_again} {unknown}");
}

#[test]
fn samples_change_the_windows_that_they_are_in() {
    let engine = written(1);
    let late = changed(&engine, |engine| write(engine, 0, &[START + 1]));
    assert_eq!(late, [true, false, false]);
    let again = changed(&engine, |engine| write(engine, 0, &[START + 1]));
    assert_eq!(
        again,
        [true, false, false],
        "nobody looks whether it is the same"
    );
    let new = changed(&engine, |engine| {
        write(engine, 0, &[START + 2 * WINDOW_MILLIS]);
    });
    assert_eq!(new, [false, false, true]);
    let view = engine.view();
    let in_blocks = stamps(&view).map(|stamp| stamp.unwrap().is_in_blocks());
    assert_eq!(in_blocks, [false, true, false]);
    write(&engine, 0, &[START + 2]);
    let stale = stamps(&view).map(|stamp| stamp.is_some());
    assert_eq!(stale, [false, true, true], "the older view has less of it");
}

#[test]
fn another_tenant_changes_nothing() {
    let engine = written(2);
    let mut writer = BodyWriter::new().unwrap();
    let labels = Labels::from_pairs(vec![("__name__", "up")]);
    let shard = shard_of_series(&labels);
    writer
        .add_series(shard, labels.canonical(), [(START, 1.0)])
        .unwrap();
    let body = writer.finish().unwrap();
    let change = |engine: &MetricsEngine| {
        let all = ShardSet::all(SHARDS);
        engine
            .apply(2, TenantId(1), DeletionVersion(0), &body, &all)
            .unwrap();
    };
    assert_eq!(changed(&engine, change), [false; 3]);
}

#[test]
fn deletions_and_cut_offs_change_the_windows_that_they_reach() {
    let engine = written(3);
    let delete = |engine: &MetricsEngine| {
        let deletion = Deletion {
            version: DeletionVersion(1),
            matchers: Vec::new(),
            range: TimeRange {
                start: START + WINDOW_MILLIS,
                end: START + WINDOW_MILLIS + 1,
            },
        };
        engine.set_deletions(TENANT, DeletionVersion(1), vec![deletion]);
    };
    assert_eq!(changed(&engine, delete), [false, true, false]);
    let retain = |engine: &MetricsEngine| engine.set_cut_off(TENANT, START);
    assert_eq!(
        changed(&engine, retain),
        [false; 3],
        "it reaches nothing yet"
    );
    let retain = |engine: &MetricsEngine| engine.set_cut_off(TENANT, START + 1);
    assert_eq!(changed(&engine, retain), [true, false, false]);
    let select = |before| {
        move |engine: &MetricsEngine| {
            let selected = SelectedCutOff {
                selector: "{}".into(),
                matchers: Vec::new(),
                before,
            };
            engine.set_selected_cut_offs(TENANT, vec![selected]);
        }
    };
    let first = changed(&engine, select(START + 5));
    assert_eq!(first, [true, false, false]);
    let further = changed(&engine, select(START + WINDOW_MILLIS + 5));
    assert_eq!(further, [true, true, false]);
}

#[test]
fn shards_that_go_and_blocks_that_are_replaced_change_stamps() {
    let engine = written(4);
    let dropped = changed(&engine, |engine| {
        engine.drop_shards(&ShardSet::all(SHARDS), 1, None).unwrap();
    });
    assert_eq!(dropped, [true, true, false]);
    let engine = written(5);
    write(&engine, 0, &[START + 1]);
    let flushed = changed(&engine, |engine| {
        engine.flush(2, None).unwrap();
    });
    assert_eq!(flushed, [true, false, false]);
    let merged = changed(&engine, |engine| {
        engine.merge_once(START + WINDOW_MILLIS).unwrap();
    });
    assert_eq!(merged, [true, false, false]);
}
