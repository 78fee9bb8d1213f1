//! What is held for how long, by named cases and in random schedules.

mod simulation;

use super::*;
use crate::cluster::replicas::Succession;

const SECOND: Millis = 1000;

fn sender(tenant: u32, pair: &str) -> Sender {
    Sender {
        tenant: TenantId(tenant),
        pair: pair.to_owned(),
        replica: "b".to_owned(),
    }
}

fn request(arrived: Millis, bytes: usize) -> Request<Millis> {
    Request {
        arrived,
        bytes: bytes - REQUEST_BYTES,
        samples: 1,
        digest: arrived as u64,
        content: arrived,
    }
}

fn held(bytes_max: usize) -> Held<Millis> {
    Held::new(Rules {
        apart: Duration::from_millis(7500),
        kept: Duration::from_secs(600),
        failover_timeout: Duration::from_secs(30),
        settle: Duration::from_secs(11),
        bytes_max,
    })
}

fn elected(replica: &str, heard: Millis) -> impl Fn(TenantId, &str) -> Option<Elected> {
    let replica = replica.to_owned();
    move |_, _| {
        Some(Elected {
            replica: replica.clone(),
            heard,
            succession: None,
        })
    }
}

/// As [`elected`], when that was recorded.
fn succeeded(replica: &str, at: Millis) -> impl Fn(TenantId, &str) -> Option<Elected> {
    let replica = replica.to_owned();
    let others_until = at - 20 * SECOND;
    move |_, _| {
        Some(Elected {
            replica: replica.clone(),
            heard: at + 5 * SECOND,
            succession: Some(Succession { at, others_until }),
        })
    }
}

/// What was lost for one reason, and nothing for another one.
fn lost(held: &mut Held<Millis>, loss: Loss) -> u64 {
    let mut lost = held.take_lost();
    let samples = lost.remove(&loss).unwrap_or_default();
    assert!(lost.is_empty(), "{lost:?}");
    samples
}

/// When each request that waits arrived.
fn waiting(held: &Held<Millis>, sender: &Sender) -> Vec<Millis> {
    let own = held.senders.get(sender);
    own.map_or(Vec::new(), |own| {
        own.waiting.iter().map(|request| request.content).collect()
    })
}

#[test]
fn the_largest_loses_its_oldest_when_there_is_no_room() {
    let (small, large, other) = (sender(1, "small"), sender(1, "large"), sender(2, "c"));
    let mut held = held(10_000);
    held.hold(&small, request(1, 1000));
    held.hold(&other, request(2, 4000));
    for arrived in 3..8 {
        held.hold(&large, request(arrived, 1000));
    }
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (10_000, 0));
    held.hold(&small, request(8, 1000));
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (10_000, 1));
    assert_eq!(lost(&mut held, Loss::Memory), 0);
    assert_eq!(waiting(&held, &large), [4, 5, 6, 7]);
    assert_eq!(waiting(&held, &small), [1, 8]);
    assert_eq!(waiting(&held, &other), [2]);
    // The other tenant becomes the largest.
    held.hold(&other, request(9, 4000));
    assert_eq!(waiting(&held, &other), [9]);
    // One that is larger than everything does not stay.
    held.hold(&other, request(10, 20_000));
    assert!(waiting(&held, &other).is_empty());
    assert_eq!(waiting(&held, &large), [4, 5, 6, 7]);
    assert_eq!(held.bytes(), 6000);
}

#[test]
fn room_is_kept_for_what_is_about_to_be_held() {
    let (late, other) = (sender(1, "late"), sender(2, "c"));
    let mut held = held(10_000);
    held.hold(&other, request(1, 4000));
    held.hold(&other, request(2, 3000));
    let content = 2000 - REQUEST_BYTES;
    let reserved = held.reserve([content].into_iter()).expect("there is room");
    assert_eq!(reserved, 2000);
    // Nothing goes for what is refused.
    assert_eq!(held.reserve([content].into_iter()), None);
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (7000, 0));
    // Others do not take the room.
    held.hold(&other, request(3, 1001));
    assert_eq!(lost(&mut held, Loss::Memory), 1);
    assert_eq!(waiting(&held, &other), [2, 3]);
    held.free(reserved);
    held.hold(&late, request(4, 2000));
    assert_eq!(waiting(&held, &late), [4]);
    held.hold(&other, request(5, 3999));
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (10_000, 0));
}

#[test]
fn what_came_again_is_held_once() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(1, 1000));
    held.hold(&sender, request(1, 1000));
    assert_eq!((held.bytes(), waiting(&held, &sender)), (1000, vec![1]));
}

#[test]
fn what_the_other_sender_has_sent_is_not_kept() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    for arrived in [0, 10, 20, 30, 40] {
        held.hold(&sender, request(arrived * SECOND, 1000));
    }
    held.follow(40 * SECOND, elected("a", 40 * SECOND));
    let all: Vec<_> = [10, 20, 30, 40].map(|at| at * SECOND).into();
    assert_eq!(waiting(&held, &sender), all);
    // Nobody is heard any more: it may be needed for a while.
    held.follow(99 * SECOND, elected("a", 40 * SECOND));
    assert_eq!(waiting(&held, &sender), all);
    held.follow(599 * SECOND, elected("a", 40 * SECOND));
    assert_eq!(waiting(&held, &sender), all);
    held.follow(111 * SECOND, elected("a", 60 * SECOND));
    assert_eq!(waiting(&held, &sender), all[2..]);
    held.follow(639 * SECOND, |_, _| None);
    assert_eq!(waiting(&held, &sender), all[3..]);
    held.follow(641 * SECOND, |_, _| None);
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (0, 0));
    assert!(held.senders.is_empty() && held.of_tenants.is_empty());
}

#[test]
fn a_change_is_compared_then_stored_and_what_failed_comes_again() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(1, 1000));
    held.hold(&sender, request(2, 1000));
    held.follow(100 * SECOND, elected("b", 99 * SECOND));
    assert!(held.next_comparison(110 * SECOND - 1).is_none());
    let now = 110 * SECOND;
    let (key, job) = held.next_comparison(now).expect("it is due");
    let Job::Compare(mut requests, others) = job else {
        panic!("{job:?}");
    };
    let expected = Others {
        until: 99 * SECOND - 7_500,
        elected: Millis::MAX,
    };
    assert_eq!(others, expected);
    assert!(held.next_comparison(now).is_none(), "it is in work");
    held.failed(&key, now);
    assert!(held.next_comparison(now).is_none());
    let now = now + SECOND;
    assert!(held.next_comparison(now).is_some());
    // What comes while it is compared is another change.
    held.hold(&sender, request(3, 1000));
    held.follow(now, elected("b", 99 * SECOND));
    assert_eq!(requests.remove(0).content, 1);
    held.compared(&key, requests, now);
    assert_eq!(held.bytes(), 2000);
    assert!(held.next_to_store(now + millis(GRACE) - 1).is_none());
    let now = now + millis(GRACE);
    for _ in 0..2 {
        let (key, job) = held.next_to_store(now + SECOND).expect("it is due");
        assert_eq!(job, Job::Store(request(2, 1000)));
        held.failed(&key, now);
    }
    let (key, _) = held.next_to_store(now + SECOND).expect("it is due");
    held.stored(&key, 2);
    assert_eq!(held.bytes(), 1000);
    let (key, job) = held.next_comparison(now).expect("the other change is due");
    assert_eq!(job, Job::Compare(vec![request(3, 1000)], expected));
    held.compared(&key, Vec::new(), now);
    assert!(held.senders.is_empty() && held.bytes() == 0);
}

#[test]
fn what_goes_for_want_of_room_while_it_is_stored_is_counted_once() {
    let (sender, mut held) = (sender(1, "c"), held(2000));
    held.hold(&sender, request(1, 1000));
    held.follow(0, elected("b", 0));
    let (key, _) = held.next_comparison(11 * SECOND).expect("it is due");
    held.compared(&key, vec![request(1, 1000)], 11 * SECOND);
    let (key, _) = held.next_to_store(40 * SECOND).expect("it is due");
    held.hold(&sender, request(2, 2000));
    assert_eq!((held.bytes(), lost(&mut held, Loss::Memory)), (2000, 1));
    held.stored(&key, 1);
    assert_eq!(held.bytes(), 2000);
}

/// Comparisons that are due, each with the content of its requests.
fn due(held: &mut Held<Millis>, now: Millis) -> Vec<(JobKey, Vec<Millis>, Others)> {
    let mut due = Vec::new();
    while let Some((key, job)) = held.next_comparison(now) {
        let Job::Compare(requests, others) = job else {
            panic!("{job:?}");
        };
        let contents = requests.iter().map(|request| request.content);
        due.push((key, contents.collect(), others));
    }
    due
}

#[test]
fn what_comes_from_before_the_change_is_compared_some_seconds_of_it_at_once() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    let (at, elected) = (100 * SECOND, succeeded("b", 100 * SECOND));
    let others = Others {
        until: 80 * SECOND,
        elected: 99 * SECOND,
    };
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(at, &elected);
    held.hold(&sender, request(105 * SECOND, 1000));
    held.follow(106 * SECOND, &elected);
    // All nodes compare what came before the change when that has settled, whenever they heard of it.
    assert!(due(&mut held, at + 11 * SECOND - 1).is_empty());
    let first = due(&mut held, at + 11 * SECOND);
    assert_eq!(first[0].1, [90 * SECOND, 105 * SECOND]);
    assert_eq!(first[0].2, others);
    for arrived in [112, 121] {
        held.hold(&sender, request(arrived * SECOND, 1000));
        held.follow(arrived * SECOND, &elected);
    }
    assert!(due(&mut held, 122 * SECOND - 1).is_empty());
    let next = due(&mut held, 122 * SECOND);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].1, [112 * SECOND, 121 * SECOND]);
    assert_eq!(next[0].2, others);
}

#[test]
fn a_comparison_that_takes_long_has_the_others_wait_longer() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let begun = 111 * SECOND;
    let (key, ..) = due(&mut held, begun).remove(0);
    let ended = begun + 7 * SECOND;
    held.compared(&key, vec![request(90 * SECOND, 1000)], ended);
    let stored_from = ended + millis(GRACE) + 14 * SECOND;
    assert!(held.next_to_store(stored_from - 1).is_none());
    assert!(held.next_to_store(stored_from).is_some());
    assert!(held.take_lost().is_empty());
}

#[test]
fn what_a_late_comparison_leaves_out_is_counted() {
    let own = sender(1, "c");
    for (ended, expected) in [(130 * SECOND, 0), (130 * SECOND + 1, 2)] {
        let mut held = held(10_000);
        for arrived in [90, 91, 92] {
            held.hold(&own, request(arrived * SECOND, 1000));
        }
        held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
        let (key, ..) = due(&mut held, 125 * SECOND).remove(0);
        held.compared(&key, vec![request(92 * SECOND, 1000)], ended);
        assert_eq!(lost(&mut held, Loss::ComparedLate), expected);
    }
}

#[test]
fn what_another_sender_s_election_overtakes_is_not_stored() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let (key, ..) = due(&mut held, 111 * SECOND).remove(0);
    held.hold(&sender, request(120 * SECOND, 1000));
    held.follow(140 * SECOND, succeeded("a", 140 * SECOND));
    assert_eq!(lost(&mut held, Loss::Superseded), 1);
    // What came when it did not count any more waits, as ever.
    assert_eq!(waiting(&held, &sender), [120 * SECOND]);
    held.compared(&key, vec![request(90 * SECOND, 1000)], 141 * SECOND);
    assert!(held.next_to_store(200 * SECOND).is_none());
    assert_eq!(held.bytes(), 1000);
}

#[test]
fn what_two_elections_overtake_unheard_is_not_stored() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    let first = succeeded("b", 100 * SECOND);
    held.follow(100 * SECOND, &first);
    let (key, ..) = due(&mut held, 111 * SECOND).remove(0);
    let left = vec![request(90 * SECOND, 1000)];
    held.compared(&key, left, 111 * SECOND);
    let (key, _) = held.next_to_store(131 * SECOND).expect("it is due");
    held.failed(&key, 131 * SECOND);
    let elected = |of: &dyn Fn(TenantId, &str) -> Option<Elected>| of(TenantId(1), "c");
    assert!(key.is_of(elected(&first).as_ref()) && !key.is_of(None));
    // This node was cut off while the other one counted.
    held.hold(&sender, request(180 * SECOND, 1000));
    let again = succeeded("b", 200 * SECOND);
    assert!(!key.is_of(elected(&again).as_ref()));
    assert!(!key.is_of(elected(&succeeded("a", 100 * SECOND)).as_ref()));
    held.follow(200 * SECOND, &again);
    assert_eq!(lost(&mut held, Loss::Superseded), 1);
    assert!(held.next_to_store(300 * SECOND).is_none());
    // What came when it did not count is of the new election.
    let next = due(&mut held, 300 * SECOND);
    assert_eq!((next.len(), held.bytes()), (1, 1000));
    assert_eq!(next[0].1, [180 * SECOND]);
    assert_eq!(next[0].2.until, 180 * SECOND);
    assert!(next[0].0.is_of(elected(&again).as_ref()));
}

#[test]
fn what_fails_too_often_is_given_up() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let mut now = 111 * SECOND;
    for tries in 1.. {
        let Some((key, ..)) = due(&mut held, now).pop() else {
            assert_eq!(tries - 1, TRIES_MAX);
            break;
        };
        held.failed(&key, now);
        now += match tries {
            ..TRIES_SOON => SECOND,
            _ => 10 * SECOND,
        };
    }
    assert_eq!(lost(&mut held, Loss::NotCompared), 1);
    assert!(held.senders.is_empty() && held.bytes() == 0 && held.in_work.is_empty());
    // A success begins anew.
    held.hold(&sender, request(90 * SECOND, 1000));
    held.hold(&sender, request(91 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let (key, ..) = due(&mut held, now).remove(0);
    let all = [90, 91].map(|arrived| request(arrived * SECOND, 1000));
    held.compared(&key, all.into(), now);
    let mut fail = |times: u32, held: &mut Held<Millis>| {
        for _ in 0..times {
            now += 100 * SECOND;
            let (key, _) = held.next_to_store(now).expect("it is due");
            held.failed(&key, now);
        }
        now += 100 * SECOND;
        now
    };
    let now = fail(TRIES_MAX - 1, &mut held);
    let (key, _) = held.next_to_store(now).expect("it is due");
    held.stored(&key, 90 * SECOND as u64);
    let lost_late = held.take_lost();
    assert!(!lost_late.contains_key(&Loss::NotStored), "{lost_late:?}");
    fail(TRIES_MAX, &mut held);
    assert_eq!(lost(&mut held, Loss::NotStored), 1);
    assert_eq!(held.bytes(), 0);
}

#[test]
fn a_slow_tenant_does_not_hold_others_up() {
    let mut held = held(100_000);
    let (busy, other) = (1, 2);
    for pair in ["c", "d", "e", "f"] {
        for tenant in [busy, other, 3] {
            held.hold(&sender(tenant, pair), request(90 * SECOND, 1000));
        }
    }
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let now = 111 * SECOND;
    // Of one tenant two at once, and four of all.
    let first = due(&mut held, now);
    let tenants = first.iter().map(|(key, ..)| key.sender.tenant.0);
    assert_eq!(tenants.collect::<Vec<_>>(), [busy, busy, other, other]);
    // One that ends makes room, whether there is still something of it or not.
    held.compared(&first[0].0, Vec::new(), now);
    held.give_up(&first[2].0, Loss::Unreadable);
    assert_eq!(lost(&mut held, Loss::Unreadable), 1);
    let next = due(&mut held, now);
    let tenants = next.iter().map(|(key, ..)| key.sender.tenant.0);
    assert_eq!(tenants.collect::<Vec<_>>(), [busy, other]);
    held.failed(&next[0].0, now);
    held.failed(&next[1].0, now);
    let next = due(&mut held, now);
    let tenants = next.iter().map(|(key, ..)| key.sender.tenant.0);
    assert_eq!(tenants.collect::<Vec<_>>(), [busy, other]);
}
