//! What is held for how long, by named cases and in random schedules.

mod simulation;

use super::*;

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
        })
    }
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
    assert_eq!((held.bytes(), held.take_dropped()), (10_000, 0));
    held.hold(&small, request(8, 1000));
    assert_eq!((held.bytes(), held.take_dropped()), (10_000, 1));
    assert_eq!(held.take_dropped(), 0);
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
    held.follow(111 * SECOND, elected("a", 40 * SECOND));
    assert_eq!(waiting(&held, &sender), all[2..]);
    held.follow(200 * SECOND, |_, _| None);
    assert_eq!((held.bytes(), held.take_dropped()), (0, 0));
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
    let Job::Compare(mut requests, others_until) = job else {
        panic!("{job:?}");
    };
    assert_eq!(others_until, 99 * SECOND - 7_500);
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
    assert_eq!(job, Job::Compare(vec![request(3, 1000)], 91_500));
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
    let (key, _) = held.next_to_store(30 * SECOND).expect("it is due");
    held.hold(&sender, request(2, 2000));
    assert_eq!((held.bytes(), held.take_dropped()), (2000, 1));
    held.stored(&key, 1);
    assert_eq!(held.bytes(), 2000);
}
