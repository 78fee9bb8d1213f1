//! What limits of series see across flushes, copies and restarts.

use super::*;
use crate::ACTIVE_FOR;
use std::time::Duration;
use trefoil_model::SeriesHash;

const TENANT: TenantId = TenantId(1);

/// Writes a sample of each series at a minute, as a client sends it or as a copy.
fn write(engine: &MetricsEngine, series: std::ops::Range<u32>, minute: u64, is_copy: bool) {
    let mut writer = BodyWriter::new().unwrap();
    let end = engine.applied_position() + 1;
    for labels in series.map(series_labels) {
        let shard = shard_of_series(&labels);
        let time = wall(minute) + end as Millis % 1_000;
        writer
            .add_series(shard, labels.canonical(), [(time, 1.0)])
            .unwrap();
    }
    let body = writer.finish().unwrap();
    let (shards, version) = (ShardSet::all(SHARDS), DeletionVersion(0));
    let applied = match is_copy {
        true => engine.apply_copied(end, TENANT, version, &body, &shards),
        false => engine.apply(end, TENANT, version, &body, &shards),
    };
    applied.unwrap();
}

fn wall(minute: u64) -> Millis {
    START + 60_000 * minute as Millis
}

fn at(engine: &MetricsEngine, minute: u64) {
    engine.set_time(Duration::from_secs(60 * minute), wall(minute));
}

fn flush(engine: &MetricsEngine, minute: u64) {
    at(engine, minute);
    engine.flush(engine.applied_position(), None).unwrap();
}

/// The series that are there, and how many are counted.
fn known(engine: &MetricsEngine) -> (Vec<u32>, u64) {
    let known = engine.known_series(TENANT).expect("it was asked about");
    let low = |series: u32| SeriesHash::of(TENANT, series_labels(series).canonical()).0 as u64;
    let present = known.present((0..20).map(low));
    let series = (0..20).filter(|series| present.contains(&low(*series)));
    (series.collect(), known.count(&ShardSet::all(SHARDS)))
}

fn all_of(series: std::ops::Range<u32>) -> (Vec<u32>, u64) {
    let count = u64::from(series.end - series.start);
    (series.collect(), count)
}

#[test]
fn series_that_a_flush_forgets_are_active_for_a_while() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    at(&engine, 0);
    assert!(engine.known_series(TENANT).is_none());
    engine.recall_series(TENANT).unwrap();
    write(&engine, 0..10, 0, false);
    assert_eq!(known(&engine), all_of(0..10));
    flush(&engine, 0);
    // A flush keeps what was written to before the last one.
    for _ in 0..2 {
        write(&engine, 0..1, 1, false);
        flush(&engine, 1);
    }
    let series_in_head = || -> u64 { engine.statistics().series_active.values().sum() };
    assert_eq!(series_in_head(), 0, "the flush gave the index up");
    assert_eq!(known(&engine), all_of(0..10));
    // Those that come back are not counted twice.
    write(&engine, 0..12, 2, false);
    assert_eq!(known(&engine), all_of(0..12));
    let known_series = engine.known_series(TENANT).unwrap();
    let all = ShardSet::all(SHARDS);
    assert_eq!(known_series.count_of_metric(b"m1", &all), 3, "1, 6 and 11");
    assert_eq!(engine.statistics().series_counted, 12);
    flush(&engine, 3);
    flush(&engine, 4);
    let idle = ACTIVE_FOR.as_secs() / 60;
    at(&engine, 2 + idle);
    assert_eq!(
        known(&engine),
        all_of(0..12),
        "a flush saw them at minute 3"
    );
    at(&engine, 3 + idle);
    assert_eq!(known(&engine), (Vec::new(), 0), "nobody sent them");
}

#[test]
fn a_few_idle_series_stop_counting_though_the_head_keeps_them() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    at(&engine, 0);
    engine.recall_series(TENANT).unwrap();
    write(&engine, 0..10, 0, false);
    for minute in 1..30 {
        write(&engine, 0..8, minute, false);
        flush(&engine, minute);
    }
    assert_eq!(engine.statistics().series_active[&TENANT], 10);
    assert_eq!(known(&engine), ((0..10).collect(), 8));
}

#[test]
fn copied_history_does_not_count() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let now = 600;
    at(&engine, now);
    engine.recall_series(TENANT).unwrap();
    write(&engine, 0..10, 0, true);
    write(&engine, 8..12, now - 1, true);
    assert_eq!(known(&engine), ((0..12).collect(), 0));
    flush(&engine, now);
    assert_eq!(known(&engine).1, 4, "those with new samples");
    // A client that sends old samples has its series counted.
    write(&engine, 12..15, 0, false);
    assert_eq!(known(&engine).1, 7);
}

#[test]
fn a_start_recalls_what_was_stored_not_long_ago() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let engine = open(&disk);
    write(&engine, 0..10, 0, false);
    flush(&engine, 0);
    drop(engine);
    let engine = open(&disk);
    let window = WINDOW_MILLIS as u64 / 60_000;
    at(&engine, window + 60);
    write(&engine, 8..12, window + 59, false);
    write(&engine, 12..14, 0, false);
    engine.recall_series(TENANT).unwrap();
    assert_eq!(known(&engine), ((8..14).collect(), 4), "the others are old");
    at(&engine, 0);
    engine.recall_series(TENANT).unwrap();
    assert_eq!(known(&engine), all_of(0..14));
}
