//! What is kept, for how long, and what it costs: over answers that are made up.

use super::*;
use std::sync::atomic::AtomicUsize;
use trefoil_query_promql::{MemoryStorage, PartOutput, Span, evaluate_part_in};

const QUERY: &str = "sum by (y) (count_over_time(gauge[5m]))";

/// The query of these tests.
pub(super) fn part(grid: Grid) -> Part {
    Part {
        query: QUERY.to_owned(),
        node: Span::new(0, QUERY.len()),
        output: PartOutput::Groups,
        grid,
        query_grid: grid,
        bindings: Vec::new(),
        options: EvalOptions::default(),
        samples_max: 1_000_000,
    }
}

/// So many minutes from so many minutes behind the start.
fn minutes(from: i64, count: i64) -> Grid {
    Grid {
        start: START + from * MINUTE,
        end: START + (from + count - 1) * MINUTE,
        step: MINUTE,
    }
}

/// Series in memory, and what is made of them.
struct Store {
    series: MemoryStorage,
    stamp: Option<Stamp>,
    /// Times that were worked out.
    steps: AtomicUsize,
    runs: AtomicUsize,
}

fn stamps() -> [Stamp; 2] {
    let mut bench = Bench::new(1);
    let stamp = |bench: &Bench| {
        let view = bench.engine.view();
        view.stamps(TENANT).of(Window::containing(START))
    };
    let in_blocks = stamp(&bench).expect("nothing is changing");
    bench.write(1, &[(START, 1.0)]);
    let in_head = stamp(&bench).expect("nothing is changing");
    assert!(in_blocks.is_in_blocks() && !in_head.is_in_blocks());
    [in_blocks, in_head]
}

impl Store {
    fn new() -> Self {
        let mut series = MemoryStorage::default();
        for number in [1, 4] {
            for time in (START..START + SPAN).step_by(30_000) {
                series.insert(&labels(number), time, 1.0);
            }
        }
        Self {
            series,
            stamp: Some(stamps()[0]),
            steps: AtomicUsize::new(0),
            runs: AtomicUsize::new(0),
        }
    }

    fn work(&self, part: &Part, ends: &[usize], budget: &Budget) -> Result<Worked, QueryError> {
        self.steps.fetch_add(part.grid.steps(), Ordering::Relaxed);
        self.runs.fetch_add(1, Ordering::Relaxed);
        let answer = evaluate_part_in(part, ends, &self.series, budget)?;
        Ok(Worked {
            answer,
            work: 1_000,
            is_sound: true,
        })
    }

    fn ask_with(
        &self,
        reuse: &Reuse,
        grid: Grid,
        budget: &Budget,
        work: &Work<'_>,
    ) -> Result<PartResult, QueryError> {
        let asked = Asked {
            tenant: TENANT,
            shards: &ShardSet::all(SHARDS),
            stamp: &|_| self.stamp,
        };
        reuse.evaluate(&part(grid), &asked, budget, work)
    }

    /// Asks, and says how many times were worked out.
    fn ask(&self, reuse: &Reuse, grid: Grid) -> usize {
        let before = self.steps.load(Ordering::Relaxed);
        let work = |part: &Part, ends: &[usize], budget: &Budget| self.work(part, ends, budget);
        let answer = self.ask_with(reuse, grid, &Budget::default(), &work);
        let answer = answer.expect("an answer");
        let worked = self.steps.load(Ordering::Relaxed) - before;
        let cold = self.work(&part(grid), &[], &Budget::default());
        let cold = cold.expect("an answer").answer.result;
        let bytes = |result| encode(&Answer::Part(result)).expect("small");
        assert_eq!(bytes(answer), bytes(cold));
        worked
    }
}

#[test]
fn a_range_that_moves_costs_its_new_times() {
    let (store, reuse) = (Store::new(), Reuse::eager(ROOM));
    assert_eq!(store.ask(&reuse, minutes(40, 120)), 120);
    assert_eq!(store.ask(&reuse, minutes(40, 120)), 0, "the same");
    assert_eq!(store.ask(&reuse, minutes(45, 100)), 0, "less");
    // The last stretch had 10 of its times, and 6 more are wanted.
    assert_eq!(store.ask(&reuse, minutes(46, 120)), 16, "moved");
    assert_eq!(store.ask(&reuse, minutes(46, 120)), 0);
    // A stretch of which too little is known at the left.
    assert_eq!(store.ask(&reuse, minutes(31, 120)), 29);
    assert_eq!(store.ask(&reuse, minutes(30, 120)), 30);
    let statistics = reuse.statistics();
    assert_eq!((statistics.hits, statistics.misses), (6, 1));
    assert!(statistics.pieces == 5 && statistics.bytes > 5 * 200);
}

#[test]
fn many_holes_are_worked_out_as_one() {
    let (store, reuse) = (Store::new(), Reuse::eager(ROOM));
    for stretch in [1, 3, 5, 7, 9] {
        store.ask(&reuse, minutes(30 * stretch, 30));
    }
    store.runs.store(0, Ordering::Relaxed);
    // Four holes, and then five.
    let steps = store.ask(&reuse, minutes(30, 270));
    assert_eq!((steps, store.runs.load(Ordering::Relaxed)), (120, 5));
    let reuse = Reuse::eager(ROOM);
    for stretch in [1, 3, 5, 7, 9] {
        store.ask(&reuse, minutes(30 * stretch, 30));
    }
    store.runs.store(0, Ordering::Relaxed);
    let steps = store.ask(&reuse, minutes(0, 300));
    assert_eq!((steps, store.runs.load(Ordering::Relaxed)), (270, 2));
}

#[test]
fn nothing_is_kept_without_room_or_for_little_work() {
    let store = Store::new();
    let grid = minutes(0, 90);
    let none = Reuse::new(0);
    let cheap = Reuse::new(ROOM);
    let small = Reuse::eager(10_000);
    for reuse in [&none, &cheap, &small] {
        assert_eq!(store.ask(reuse, grid), 90);
        assert_eq!(store.ask(reuse, grid), 90);
        assert_eq!(reuse.statistics().pieces, 0);
    }
    assert_eq!(none.statistics().misses, 0, "it is not even looked for");
    assert_eq!(cheap.statistics().misses, 2);
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let store = Store::new();
    let reuse = Reuse::eager(ROOM);
    store.ask(&reuse, minutes(0, 30));
    let one = reuse.statistics().bytes;
    let reuse = Reuse::eager(5 * one);
    for stretch in [0, 1, 2, 3, 4, 0, 5, 6, 7] {
        store.ask(&reuse, minutes(30 * stretch, 30));
        assert!(reuse.statistics().bytes <= 5 * one);
    }
    assert_eq!(store.ask(&reuse, minutes(0, 30)), 0, "it was used again");
    assert_eq!(store.ask(&reuse, minutes(30, 30)), 30);
    let mut pieces = reuse.pieces.lock();
    let questions: Vec<_> = pieces.questions().cloned().collect();
    questions.iter().for_each(|one| pieces.forget(one));
    assert_eq!(pieces.size(), (0, 0), "nothing is left of what was counted");
}

#[test]
fn a_window_that_changes_keeps_nothing() {
    let mut store = Store::new();
    let [_, in_head] = stamps();
    let grid = minutes(0, 90);
    let patient = Reuse {
        quiet_for: Duration::from_secs(3_600),
        ..Reuse::eager(ROOM)
    };
    store.stamp = Some(in_head);
    for _ in 0..2 {
        assert_eq!(store.ask(&patient, grid), 90, "it may get more");
    }
    let reuse = Reuse::eager(ROOM);
    assert_eq!(store.ask(&reuse, grid), 90);
    assert_eq!(store.ask(&reuse, grid), 0, "it is quiet");
    store.stamp = None;
    assert_eq!(store.ask(&reuse, grid), 90, "it is changing");
    assert_eq!(reuse.statistics().pieces, 0);
    assert_eq!(store.ask(&reuse, grid), 90);
}

#[test]
fn what_met_damage_is_not_kept() {
    let (store, reuse) = (Store::new(), Reuse::eager(ROOM));
    let damaged = |part: &Part, ends: &[usize], budget: &Budget| {
        let worked = store.work(part, ends, budget)?;
        Ok(Worked {
            is_sound: false,
            ..worked
        })
    };
    let grid = minutes(0, 90);
    let answer = store.ask_with(&reuse, grid, &Budget::default(), &damaged);
    assert!(answer.is_ok() && reuse.statistics().pieces == 0);
    store.ask(&reuse, minutes(0, 60));
    let pieces = reuse.statistics().pieces;
    let answer = store.ask_with(&reuse, grid, &Budget::default(), &damaged);
    assert!(answer.is_ok() && reuse.statistics().pieces == pieces);
    let unreadable = |_: &Part, _: &[usize], _: &Budget| Err(QueryError::Damaged("a block".into()));
    let answer = store.ask_with(&reuse, grid, &Budget::default(), &unreadable);
    assert_eq!(answer, Err(QueryError::Damaged("a block".into())));
}

/// The limits speak as if everything had been worked out, with the same words.
#[test]
fn the_budget_is_that_of_the_whole() {
    let (store, reuse) = (Store::new(), Reuse::eager(ROOM));
    let work = |part: &Part, ends: &[usize], budget: &Budget| store.work(part, ends, budget);
    let grid = minutes(0, 120);
    let cold = Budget::new(1_000_000).branch();
    store.work(&part(grid), &[], &cold).expect("room");
    store.ask(&reuse, minutes(0, 90));
    for _ in 0..2 {
        let warm = Budget::new(1_000_000).branch();
        let answer = store.ask_with(&reuse, grid, &warm, &work);
        answer.expect("room");
        assert_eq!(warm.held_here(), cold.held_here());
    }
    for budget in [
        || Budget::new(100),
        || Budget::with_deadline(1_000_000, 500, || false),
    ] {
        let error = store.work(&part(grid), &[], &budget()).err();
        assert!(error.is_some());
        let warm = budget();
        let answer = store.ask_with(&reuse, grid, &warm, &work);
        assert_eq!(answer.err(), error);
    }
    let late = Budget::with_deadline(1_000_000, 1_000_000, || true);
    let answer = store.ask_with(&reuse, grid, &late, &work);
    assert_eq!(answer, Err(QueryError::Timeout));
}
