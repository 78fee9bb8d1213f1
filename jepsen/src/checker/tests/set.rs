//! Lost, phantom and missing elements.

use super::build::{At, Build, MS, failed, unknown};
use crate::{
    checker::{
        Span,
        set::{self, Sighting},
    },
    history::Outcome,
};

/// Adds 0 to 9, one each 10 ms, all acknowledged after 5 ms.
fn ten() -> Build {
    let mut build = Build::new("set");
    for number in 0..10 {
        let at = number * 10;
        build.add(number, (at, at + 5), Outcome::Done);
    }
    build
}

fn span(from: u64, to: u64) -> Span {
    Span {
        from: from * MS,
        to: to * MS,
    }
}

fn sighting(from: u64, to: u64, elements: u64) -> Sighting {
    let span = span(from, to);
    Sighting { span, elements }
}

fn assert_accepted(build: &Build) {
    assert_eq!(set::check(&build.history).violations.kept(), []);
}

/// Every violation with its words, in their order.
fn assert_rejected(build: &Build, words: &[&str]) {
    let violations = set::check(&build.history).violations;
    let texts: Vec<_> = violations.kept().iter().map(|v| v.text.as_str()).collect();
    assert_eq!(texts.len(), words.len(), "{texts:#?}");
    for (text, words) in texts.iter().zip(words) {
        assert!(text.contains(words), "{texts:#?}");
    }
}

#[test]
fn answers_with_all_that_was_acknowledged_before_they_were_asked_for_are_accepted() {
    let mut build = ten();
    // 5 is acknowledged at 55, while the question is under way, and 6 is begun at 60.
    build.read(1, (52, 70), (0, 9), &[(0, 4)]);
    build.read(2, (52, 70), (0, 9), &[(0, 6)]);
    build.read(2, (52, 70), (2, 3), &[(2, 3)]);
    build.last_reads((200, 210), 9, &[(0, 9)]);
    assert_accepted(&build);
}

#[test]
fn an_answer_without_an_acknowledged_element_is_silently_incomplete() {
    let mut build = ten();
    build.read(1, (56, 60), (0, 9), &[(0, 3), (5, 5)]);
    build.last_reads((200, 210), 9, &[(0, 9)]);
    assert_rejected(
        &build,
        &["line 12 (node-2, writer w, asked for at 0.056 s) lacks 1 acknowledged elements"],
    );
    let found = set::check(&build.history);
    assert_eq!(found.incomplete_silent, [span(56, 60)]);
    assert_eq!(found.lost, []);
}

#[test]
fn elements_outside_of_the_asked_range_are_not_missed() {
    let mut build = ten();
    build.read(1, (100, 110), (3, 5), &[(3, 5)]);
    build.last_reads((200, 210), 9, &[(0, 9)]);
    assert_accepted(&build);
    build.read(1, (100, 110), (3, 6), &[(3, 5)]);
    assert_rejected(&build, &["number 6 is missing"]);
}

#[test]
fn an_answer_that_declares_itself_incomplete_may_lack_anything_but_invents_nothing() {
    let mut build = ten();
    build.last_reads((200, 210), 9, &[(0, 9)]);
    build
        .read(1, (100, 110), (0, 9), &[(2, 3)])
        .declared_incomplete = true;
    assert_accepted(&build);
    assert_eq!(set::check(&build.history).incomplete_declared.len(), 1);
    build
        .read(1, (100, 110), (0, 19), &[(12, 13)])
        .declared_incomplete = true;
    assert_rejected(&build, &["has 2 elements that were not begun"]);
}

#[test]
fn elements_that_were_not_begun_are_phantoms() {
    let mut build = ten();
    build.read(1, (20, 30), (0, 9), &[(0, 3)]);
    build.last_reads((200, 210), 9, &[(0, 9)]);
    assert_accepted(&build);
    build.read(1, (20, 29), (0, 9), &[(0, 3)]);
    assert_rejected(&build, &["the first is number 3"]);
    build.read(1, (300, 310), (0, 99), &[(0, 9), (50, 59)]);
    build.read(1, (320, 330), (0, 99), &[(0, 9), (50, 60)]);
    let phantom = set::check(&build.history).phantom;
    assert_eq!(
        phantom,
        [
            sighting(20, 29, 1),
            sighting(300, 310, 10),
            sighting(320, 330, 1)
        ]
    );
}

#[test]
fn a_writer_that_nobody_heard_of_is_a_phantom() {
    let mut build = Build::new("set");
    build.read(0, (0, 10), (0, 9), &[(0, 0)]);
    assert_rejected(&build, &["has 1 elements that were not begun"]);
}

#[test]
fn parts_of_elements_are_accepted_only_before_their_acknowledgement() {
    let mut build = ten();
    build.add(10, (110, 120), failed());
    build.add(11, At(120, None), unknown());
    build.last_reads((200, 210), 11, &[(0, 9)]);
    build.read(1, (96, 130), (0, 11), &[(0, 9)]).partial = vec![10, 11];
    build.read(1, (91, 95), (0, 9), &[(0, 8)]).partial = vec![9];
    assert_accepted(&build);
    build.read(1, (96, 99), (0, 9), &[(0, 8)]).partial = vec![9];
    assert_rejected(
        &build,
        &["number 9 is there in part, acknowledged at 0.095 s (line 11)"],
    );
    let mut build = ten();
    build.last_reads((200, 210), 9, &[(0, 9)]);
    build.read(1, (56, 58), (0, 9), &[(0, 5)]).partial = vec![8];
    assert_rejected(&build, &["the first is number 8"]);
}

#[test]
fn unacknowledged_elements_may_be_there_or_not_and_come_and_go() {
    for outcome in [failed(), unknown()] {
        let mut build = ten();
        build.add(10, (100, 110), outcome);
        build.read(1, (120, 130), (0, 10), &[(0, 10)]);
        build.last_reads((200, 210), 10, &[(0, 9)]);
        assert_accepted(&build);
    }
}

#[test]
fn strange_samples_are_rejected() {
    let mut build = ten();
    build.last_reads((200, 210), 9, &[(0, 9)]);
    let found = build.read(0, (300, 310), (0, 9), &[(0, 9)]);
    found.strange = vec!["value 7 at the time of 8".to_owned()];
    assert_rejected(&build, &["strange samples: value 7 at the time of 8"]);
    assert_eq!(set::check(&build.history).phantom, [sighting(300, 310, 1)]);
}

#[test]
fn an_element_that_was_sent_again_counts_from_its_first_acknowledgement() {
    let mut build = Build::new("set");
    build.add(0, (0, 10), unknown());
    build.add(0, (20, 30), Outcome::Done);
    build.add(0, (40, 50), unknown());
    build.read(0, (5, 15), (0, 0), &[(0, 0)]);
    build.read(0, (30, 35), (0, 0), &[]);
    build.last_reads((60, 70), 0, &[(0, 0)]);
    assert_accepted(&build);
    build.read(0, (31, 35), (0, 0), &[]);
    assert_rejected(
        &build,
        &["number 0 is missing, acknowledged at 0.030 s (line 3)"],
    );
}

#[test]
fn an_element_that_last_answers_lack_is_lost_where_it_was_first_missing() {
    let mut build = ten();
    build.read(1, (120, 130), (0, 9), &[(0, 9)]);
    build.read(1, (140, 150), (0, 9), &[(0, 4), (7, 9)]);
    build.read(0, (200, 210), (0, 9), &[(0, 9)]);
    build.read(1, (200, 210), (0, 9), &[(0, 3), (6, 9)]);
    build.read(2, (200, 210), (0, 9), &[(0, 9)]);
    let found = set::check(&build.history);
    assert_eq!(found.lost, [sighting(140, 150, 1), sighting(200, 210, 1)]);
    assert_eq!(found.incomplete_silent.len(), 2);
    let lost = found.violations.kept().last().expect("a violation");
    let words = "2 acknowledged elements of writer w are lost";
    assert!(lost.text.contains(words), "{}", lost.text);
}

#[test]
fn a_node_without_a_complete_last_answer_is_rejected() {
    let mut build = ten();
    build.fault("kill-one", &[0], (10, 150));
    build.read(0, (200, 210), (0, 9), &[(0, 9)]);
    build.read(1, (200, 210), (0, 9), &[(0, 9)]);
    let without = "node-3 gave no complete last answer with elements 0 to 9";
    assert_rejected(&build, &[without]);
    // Too early: a write, or a fault, was not over.
    build.read(2, (94, 99), (0, 9), &[(0, 9)]);
    build.read(2, (149, 199), (0, 9), &[(0, 9)]);
    assert_rejected(&build, &[without]);
    build
        .read(2, (200, 210), (0, 9), &[(0, 9)])
        .declared_incomplete = true;
    assert_rejected(&build, &[without]);
    build.read(2, (200, 210), (0, 4), &[(0, 4)]);
    assert_rejected(&build, &["elements 5 to 9"]);
    build.read(2, (210, 220), (5, 9), &[(5, 9)]);
    assert_accepted(&build);
}

#[test]
fn long_ranges_cost_their_gaps() {
    let mut build = Build::new("set");
    let adds = 200_000;
    for number in 0..adds {
        build.add(number, (number, number + 1), Outcome::Done);
    }
    for read in 0..5_000 {
        build.read(
            0,
            (adds + read, adds + read + 1),
            (0, adds - 1),
            &[(0, adds - 1)],
        );
    }
    build.last_reads((adds * 2, adds * 2 + 1), adds - 1, &[(0, adds - 1)]);
    let found = set::check(&build.history);
    assert_eq!(found.violations.count(), 0);
}
