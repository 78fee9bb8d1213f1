//! Registers: histories that are linearizable, histories that are not, and random ones against a search that tries
//! everything.

use super::build::{At, Build, MS, failed, unknown};
use crate::{
    checker::{Violations, register},
    history::{Action, Operation, Outcome},
};

const KEY: &str = "k";

fn get(build: &mut Build, at: impl Into<At>, value: Option<u64>) {
    let key = KEY.to_owned();
    build.operation(0, at, Action::Get { key }, Outcome::Value(value));
}

fn set(build: &mut Build, at: impl Into<At>, expected: Option<u64>, new: u64, outcome: Outcome) {
    let action = Action::CompareAndSet {
        key: KEY.to_owned(),
        expected,
        new,
    };
    build.operation(1, at, action, outcome);
}

/// A history whose key holds 1 from 10 ms on.
fn one() -> Build {
    let mut build = Build::new("register");
    set(&mut build, (0, 10), None, 1, Outcome::Done);
    build
}

fn judge(build: &Build) -> Violations {
    register::check(&build.history)
}

fn assert_accepted(build: &Build) {
    assert_eq!(judge(build).kept(), []);
}

fn assert_rejected(build: &Build, words: &str) {
    let violations = judge(build);
    assert_eq!(violations.count(), 1);
    let text = &violations.kept()[0].text;
    assert!(text.contains(words), "{text}");
}

#[test]
fn one_thing_after_the_other_is_accepted() {
    let mut build = one();
    get(&mut build, (11, 12), Some(1));
    set(&mut build, (13, 14), Some(1), 2, Outcome::Done);
    set(&mut build, (15, 16), Some(1), 3, Outcome::Mismatch);
    get(&mut build, (17, 18), Some(2));
    assert_accepted(&build);
}

#[test]
fn concurrent_operations_may_have_either_order() {
    let mut build = one();
    set(&mut build, (20, 40), Some(1), 2, Outcome::Done);
    get(&mut build, (20, 40), Some(1));
    get(&mut build, (25, 30), Some(2));
    set(&mut build, (21, 41), Some(2), 1, Outcome::Done);
    get(&mut build, (39, 42), Some(2));
    get(&mut build, (43, 44), Some(1));
    assert_accepted(&build);
}

#[test]
fn a_stale_read_is_rejected() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, Outcome::Done);
    get(&mut build, (30, 40), Some(1));
    assert_accepted(&build);
    get(&mut build, (31, 40), Some(1));
    assert_rejected(
        &build,
        "key k: no order explains line 5 (node-1, 0.031 s to 0.040 s): a read gave 1; every order of what must have come \
         before leaves 2",
    );
}

#[test]
fn an_order_that_other_clients_saw_is_rejected() {
    // Both reads are concurrent with the write, but the second begins after the first is over.
    let mut build = one();
    set(&mut build, (20, 90), Some(1), 2, Outcome::Done);
    get(&mut build, (30, 40), Some(1));
    get(&mut build, (50, 60), Some(2));
    assert_accepted(&build);
    get(&mut build, (70, 80), Some(1));
    assert_rejected(&build, "a read gave 1");
}

#[test]
fn a_lost_update_is_rejected() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, Outcome::Done);
    set(&mut build, (25, 35), Some(2), 3, Outcome::Done);
    assert_accepted(&build);
    get(&mut build, (40, 50), Some(2));
    assert_rejected(&build, "line 5");
}

#[test]
fn one_expectation_that_holds_twice_is_rejected() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, Outcome::Done);
    set(&mut build, (20, 30), Some(1), 3, Outcome::Mismatch);
    assert_accepted(&build);
    set(&mut build, (20, 30), Some(1), 3, Outcome::Done);
    assert_rejected(&build, "where it expected 1 succeeded");
}

#[test]
fn a_value_that_nobody_wrote_is_rejected() {
    let mut build = one();
    get(&mut build, (20, 30), Some(7));
    assert_rejected(&build, "a read gave 7");
}

#[test]
fn a_value_from_the_future_is_rejected() {
    let mut build = one();
    get(&mut build, (20, 30), Some(2));
    set(&mut build, (30, 40), Some(1), 2, Outcome::Done);
    assert_accepted(&build);
    build.history.operations[2].item.invoked += 1;
    assert_rejected(&build, "line 3");
}

#[test]
fn a_wrong_expectation_that_held_is_rejected() {
    let mut build = one();
    set(&mut build, (20, 30), Some(5), 2, Outcome::Done);
    assert_rejected(&build, "setting 2 where it expected 5 succeeded");
    let mut build = one();
    set(&mut build, (20, 30), None, 2, Outcome::Done);
    assert_rejected(&build, "leaves 1");
}

#[test]
fn a_right_expectation_that_did_not_hold_is_rejected() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, Outcome::Mismatch);
    assert_rejected(&build, "setting 2 where it expected 1 found something else");
}

#[test]
fn an_unknown_set_may_happen_late_or_never() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, unknown());
    get(&mut build, (40, 50), Some(1));
    assert_accepted(&build);
    get(&mut build, (60, 70), Some(2));
    assert_accepted(&build);
    get(&mut build, (80, 90), Some(1));
    assert_rejected(&build, "line 6");
}

#[test]
fn an_unknown_set_happens_at_most_once_and_not_before_it_was_sent() {
    let mut build = one();
    set(&mut build, At(20, None), Some(1), 2, unknown());
    get(&mut build, (40, 50), Some(2));
    set(&mut build, (60, 70), Some(2), 1, Outcome::Done);
    assert_accepted(&build);
    get(&mut build, (80, 90), Some(2));
    assert_rejected(&build, "line 6");
    let mut build = one();
    get(&mut build, (12, 19), Some(2));
    set(&mut build, (20, 30), Some(1), 2, unknown());
    assert_rejected(&build, "line 3");
}

#[test]
fn a_set_that_must_have_happened_counts_for_everybody() {
    // The second one's success needs the unknown first one; afterwards nobody may see what was before it.
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, unknown());
    set(&mut build, (40, 50), Some(2), 3, Outcome::Done);
    get(&mut build, (60, 70), Some(3));
    assert_accepted(&build);
    set(&mut build, (80, 90), Some(1), 4, Outcome::Done);
    assert_rejected(&build, "line 6");
}

#[test]
fn a_refused_set_has_no_effect() {
    let mut build = one();
    set(&mut build, (20, 30), Some(1), 2, failed());
    get(&mut build, (40, 50), Some(1));
    assert_accepted(&build);
    get(&mut build, (60, 70), Some(2));
    assert_rejected(&build, "line 5");
}

#[test]
fn keys_do_not_mix() {
    let mut build = one();
    let other = Action::Get {
        key: "other".to_owned(),
    };
    build.operation(0, (20, 30), other.clone(), Outcome::Value(None));
    assert_accepted(&build);
    build.operation(0, (20, 30), other, Outcome::Value(Some(1)));
    assert_rejected(&build, "key other");
}

#[test]
fn a_history_that_is_too_hard_is_undecided_and_fails() {
    let mut build = Build::new("register");
    for number in 0..24 {
        let (expected, new) = (Some(number % 4), (number + 1) % 4);
        set(&mut build, (0, 100), expected, new, Outcome::Done);
    }
    set(&mut build, (0, 100), None, 0, Outcome::Done);
    get(&mut build, (200, 300), Some(9));
    let violations = register::check_within(&build.history, 1_000);
    let text = &violations.kept()[0].text;
    assert!(text.contains("undecided after 1000"), "{text}");
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // Steele, Lea, Flood: splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// What a real register would have answered to clients that are all at work at once.
fn honest(dice: &mut Dice, clients: u64, rounds: u64) -> Build {
    let mut build = Build::new("register");
    let mut state = None;
    let mut free = vec![0; clients as usize];
    let mut next = 0;
    let mut seen: Vec<Option<u64>> = vec![None; clients as usize];
    // Each operation takes effect at `now`, between its begin and its end.
    for now in (1..=rounds).map(|round| round * 10) {
        let client = dice.below(clients) as usize;
        if free[client] >= now {
            continue;
        }
        let begin = now - dice.below(now - free[client]).min(300);
        let end = now + 1 + dice.below(300);
        free[client] = end + 1;
        let lost = dice.below(12) == 0;
        if dice.below(2) == 0 {
            seen[client] = state;
            get(&mut build, (begin, end), state);
            continue;
        }
        let (expected, happens) = (seen[client], !lost || dice.below(2) == 0);
        next += 1;
        let matches = expected == state;
        if matches && happens {
            state = Some(next);
        }
        let outcome = match (lost, matches) {
            (true, _) => unknown(),
            (false, true) => Outcome::Done,
            (false, false) => Outcome::Mismatch,
        };
        set(&mut build, (begin, end), expected, next, outcome);
        seen[client] = state;
    }
    build
}

#[test]
fn long_and_very_concurrent_histories_are_decided() {
    for seed in 0..5 {
        let build = honest(&mut Dice(seed), 25, 20_000);
        assert!(build.history.operations.len() > 5_000);
        assert_accepted(&build);
        // One read that is wrong by one write is found in all of it.
        let mut broken = build;
        let last = broken.history.end() / MS;
        set(
            &mut broken,
            (last + 1, last + 2),
            Some(u64::MAX),
            1,
            Outcome::Done,
        );
        assert_eq!(judge(&broken).count(), 1);
    }
}

/// A few random operations on two values, most of them concurrent.
fn random(dice: &mut Dice) -> Build {
    let mut build = Build::new("register");
    for _ in 0..1 + dice.below(6) {
        let from = dice.below(12);
        let at = (from, from + dice.below(6));
        let value = |dice: &mut Dice| Some(dice.below(3)).filter(|value| *value > 0);
        let held = value(dice);
        match dice.below(5) {
            0 | 1 => get(&mut build, at, held),
            2 => set(&mut build, at, held, 1 + dice.below(2), unknown()),
            3 => set(&mut build, at, held, 1 + dice.below(2), Outcome::Mismatch),
            _ => set(&mut build, at, held, 1 + dice.below(2), Outcome::Done),
        }
    }
    build
}

/// Whether some order of some of the operations explains all of them: tries everything.
fn explains(state: Option<u64>, rest: &[&Operation]) -> bool {
    if rest
        .iter()
        .all(|one| matches!(one.outcome, Outcome::Unknown(_)))
    {
        return true;
    }
    rest.iter().enumerate().any(|(place, one)| {
        let early = rest.iter().any(|other| {
            let known = !matches!(other.outcome, Outcome::Unknown(_));
            known && other.completed.is_some_and(|end| end < one.invoked)
        });
        let after = match (&one.action, &one.outcome) {
            (Action::Get { .. }, Outcome::Value(value)) => (*value == state).then_some(state),
            (Action::CompareAndSet { expected, .. }, Outcome::Mismatch) => {
                (*expected != state).then_some(state)
            }
            (Action::CompareAndSet { expected, new, .. }, _) => {
                (*expected == state).then_some(Some(*new))
            }
            _ => None,
        };
        let mut others = rest.to_vec();
        others.remove(place);
        !early && after.is_some_and(|state| explains(state, &others))
    })
}

#[test]
fn random_histories_are_judged_as_a_search_through_everything_judges_them() {
    let mut dice = Dice(41);
    let mut accepted = 0;
    for number in 0..20_000 {
        let build = random(&mut dice);
        let all: Vec<&Operation> = build
            .history
            .operations
            .iter()
            .map(|one| &one.item)
            .collect();
        let expected = explains(None, &all);
        let judged = judge(&build).count() == 0;
        assert_eq!(
            judged, expected,
            "history {number}: {:#?}",
            build.history.operations
        );
        accepted += u64::from(judged);
    }
    assert!(
        (2_000..18_000).contains(&accepted),
        "{accepted} of 20000 are linearizable"
    );
}
