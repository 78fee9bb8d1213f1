//! Each thing that changes an answer shows at once, though the answer before was kept.

use super::*;

/// What all tests here ask, over the first two windows.
const QUERY: &str = "sum by (y) (count_over_time(gauge[5m]))";

fn grid() -> Grid {
    Grid {
        start: START + 10 * MINUTE,
        end: START + 2 * WINDOW_MILLIS - MINUTE,
        step: MINUTE,
    }
}

fn ask(bench: &Bench) -> String {
    bench.checked(QUERY, grid(), EvalOptions::default())
}

/// Two series over two windows, in blocks, about which was asked.
fn asked() -> Bench {
    let mut bench = Bench::new(1);
    let times = (START..START + 2 * WINDOW_MILLIS).step_by(30_000);
    let samples: Vec<_> = times.map(|time| (time, 1.0)).collect();
    for series in [1, 4] {
        bench.write(series, &samples);
    }
    bench.flush();
    ask(&bench);
    assert!(bench.reuse.statistics().pieces > 4);
    bench
}

/// Asks before and after, and says how many pieces were of use.
fn shows(cause: impl FnOnce(&mut Bench)) {
    let mut bench = asked();
    let before = ask(&bench);
    assert_eq!(bench.reuse.statistics().hits, 2, "at both evaluators");
    cause(&mut bench);
    assert_ne!(ask(&bench), before);
}

#[test]
fn a_late_sample() {
    shows(|bench| bench.write(1, &[(START + 20 * MINUTE + 1, 1.0)]));
}

#[test]
fn a_late_series() {
    shows(|bench| bench.write(7, &[(START + WINDOW_MILLIS + 20 * MINUTE, 1.0)]));
}

#[test]
fn a_late_histogram() {
    shows(|bench| {
        bench.write_as(1, true, &[(START + 20 * MINUTE + 1, 1.0)]);
        bench.apply(false);
    });
}

#[test]
fn a_copy_from_another_owner() {
    shows(|bench| {
        bench.write_as(1, false, &[(START + 20 * MINUTE + 1, 1.0)]);
        bench.apply(true);
    });
}

#[test]
fn a_deletion() {
    shows(|bench| bench.delete("1", START + 20 * MINUTE, START + 40 * MINUTE));
}

#[test]
fn a_clean_up_after_a_deletion() {
    let mut bench = asked();
    let before = ask(&bench);
    bench.delete("1", START + 20 * MINUTE, START + 40 * MINUTE);
    let deleted = ask(&bench);
    bench.merge();
    assert_eq!(ask(&bench), deleted);
    bench.deletions.clear();
    let newest = DeletionVersion(bench.version);
    bench.engine.set_deletions(TENANT, newest, Vec::new());
    assert_eq!(ask(&bench), deleted);
    assert_ne!(deleted, before);
}

#[test]
fn a_cut_off_of_the_tenant() {
    shows(|bench| bench.engine.set_cut_off(TENANT, START + 30 * MINUTE));
}

#[test]
fn a_cut_off_of_a_selector() {
    shows(|bench| bench.cut_off_selected("4", START + 30 * MINUTE));
}

#[test]
fn a_dropped_shard() {
    shows(|bench| {
        let shards = [shard(&labels(1))].into_iter().collect();
        let end = bench.engine.applied_position();
        bench.engine.drop_shards(&shards, end, None).expect("room");
    });
}

#[test]
fn a_retention_that_removes_blocks() {
    shows(|bench| {
        bench.engine.set_cut_off(TENANT, START + WINDOW_MILLIS);
        assert_eq!(bench.engine.enforce_retention().expect("room"), 1);
    });
}

/// Only what a sample changes is worked out again.
#[test]
fn a_window_that_has_not_changed_is_not_worked_out_again() {
    let mut bench = asked();
    let hits = bench.reuse.statistics().hits;
    bench.write(1, &[(START + WINDOW_MILLIS + 20 * MINUTE, 1.0)]);
    ask(&bench);
    assert_eq!(bench.reuse.statistics().hits, hits + 2);
    bench.flush();
    ask(&bench);
    assert_eq!(bench.reuse.statistics().hits, hits + 4);
}

#[test]
fn what_is_kept_of_one_tenant_is_of_no_use_to_another() {
    let bench = asked();
    let view = bench.engine.view();
    let budget = Budget::default();
    let shards = ShardSet::all(SHARDS);
    let storage = ViewStorage {
        view: &view,
        tenant: TenantId(4),
        shards: &shards,
        damaged: Cell::new(None),
        budget: &budget,
        meter: Arc::new(Meter::default()),
        brief: None,
    };
    let question = Asking::Part(Box::new(policy::part(grid())));
    let misses = bench.reuse.statistics().misses;
    let answer = answering::evaluate(&storage, question, &budget, Some(&bench.reuse));
    let answer = answer.expect("an answer");
    assert_eq!(bench.reuse.statistics().misses, misses + 1);
    let empty = encode(&answer).expect("small");
    assert!(empty.len() < 16, "{answer:?}");
}
