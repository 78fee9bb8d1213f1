//! What is held for how long, by named cases and in random schedules.

mod simulation;

use super::{
    work::{COMPARED_SAMPLES_MAX, TRIES_MAX, TRIES_SOON},
    *,
};
use crate::cluster::replicas::Succession;

const SECOND: Millis = 1000;

/// What a node knows of who is elected.
type Known = dyn Fn(TenantId, &str) -> Option<Elected>;

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
        late: None,
        bytes: bytes - REQUEST_BYTES,
        samples: 1,
        digest: arrived as u64,
        content: arrived,
    }
}

/// A request of a sender that counts by the election of [`succeeded`] at this time.
fn late(arrived: Millis, bytes: usize, at: Millis) -> Request<Millis> {
    Request {
        late: Some(at - 20 * SECOND),
        ..request(arrived, bytes)
    }
}

/// With memory for so many bytes of requests of these senders.
fn held_of(senders: &[&Sender], bytes: usize) -> Held<Millis> {
    let own = senders.iter().map(|sender| sender.held_bytes());
    held(bytes + own.sum::<usize>())
}

/// Bytes of requests.
fn bytes(held: &Held<Millis>) -> usize {
    let own: usize = held.senders.keys().map(Sender::held_bytes).sum();
    held.bytes() - own
}

fn held(bytes_max: usize) -> Held<Millis> {
    Held::new(Rules {
        apart: Duration::from_millis(7500),
        kept: Duration::from_secs(600),
        failover_timeout: Duration::from_secs(30),
        settle: Duration::from_secs(11),
        bytes_max,
        late_bytes_max: bytes_max / LATE_SHARE,
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

impl<T> Held<T> {
    /// Checks that what is counted is what is there.
    fn check_sums(&self) {
        let (mut bytes, mut late_bytes) = (0, 0);
        let mut of_tenants: BTreeMap<TenantId, usize> = BTreeMap::new();
        for (sender, own) in &self.senders {
            let of_changes = || own.changes.iter();
            let of_changes =
                || of_changes().flat_map(|one| one.compared.iter().chain(&one.requests));
            let to_go = || of_changes().chain(&own.waiting).chain(&own.late);
            let in_work = own.changes.iter().flat_map(|one| &one.comparing);
            let all = || to_go().chain(in_work.clone());
            bytes += sender.held_bytes() + all().map(Request::held_bytes).sum::<usize>();
            let late = all().filter(|one| one.late.is_some());
            late_bytes += late.map(Request::held_bytes).sum::<usize>();
            let to_go: usize = to_go().map(Request::bytes_to_go).sum();
            assert_eq!(own.bytes, to_go);
            *of_tenants.entry(sender.tenant).or_default() += to_go;
        }
        of_tenants.retain(|_, bytes| *bytes > 0);
        assert_eq!((self.bytes, self.late_bytes), (bytes, late_bytes));
        assert_eq!(self.of_tenants, of_tenants);
    }
}

/// What was lost for one reason, and nothing for another one.
fn lost(held: &mut Held<Millis>, loss: Loss) -> u64 {
    held.check_sums();
    let mut tally = held.take_tally();
    let samples = tally.lost.remove(&loss).unwrap_or_default();
    assert_eq!(tally, Tally::default());
    samples
}

/// What is stored uncompared for one reason, when nothing was lost.
fn uncompared(held: &mut Held<Millis>, reason: Uncompared) -> u64 {
    let mut tally = held.take_tally();
    let samples = tally.uncompared.remove(&reason).unwrap_or_default();
    assert_eq!(tally, Tally::default());
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
    let mut held = held_of(&[&small, &large, &other], 10_000);
    held.hold(&small, request(1, 1000));
    held.hold(&other, request(2, 4000));
    for arrived in 3..8 {
        held.hold(&large, request(arrived, 1000));
    }
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (10_000, 0));
    held.hold(&small, request(8, 1000));
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (10_000, 1));
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
    assert_eq!(bytes(&held), 6000);
}

#[test]
fn what_a_sender_takes_itself_is_counted_and_senders_of_a_pair_are_bounded() {
    let mut held = held(1 << 20);
    let own = |number: usize| Sender {
        replica: format!("{number:0>200}"),
        ..sender(1, "c")
    };
    for number in 0..REPLICAS_MAX + 1 {
        held.hold(&own(number), request(number as Millis, 1000));
    }
    assert_eq!(held.senders.len(), REPLICAS_MAX);
    assert_eq!(held.bytes(), REPLICAS_MAX * (1000 + SENDER_BYTES + 201));
    assert_eq!(lost(&mut held, Loss::Memory), 1);
    // Others of it, another pair, and what is owed to a sender are held.
    held.hold(&own(0), request(100, 1000));
    held.hold(&sender(1, "d"), request(100, 1000));
    held.hold(&own(REPLICAS_MAX), late(100, 1000, 0));
    assert_eq!(lost(&mut held, Loss::Memory), 0);
    assert_eq!(held.senders.len(), REPLICAS_MAX + 2);
    held.follow(1_000_000, |_, _| None);
    let (key, _) = held.next_to_store(1_000_000).expect("it is owed");
    held.stored(&key, 100);
    assert_eq!((held.bytes(), held.late_bytes), (0, 0));
    assert!(held.senders.is_empty() && held.of_tenants.is_empty());
}

#[test]
fn others_go_for_late_requests_up_to_their_part_of_the_room() {
    let (counting, other) = (sender(1, "late"), sender(2, "c"));
    let mut held = held_of(&[&counting, &other], 10_000);
    for (arrived, bytes) in [(1, 4000), (2, 3000), (3, 2000)] {
        held.hold(&other, request(arrived, bytes));
    }
    let content = || [3000 - REQUEST_BYTES].into_iter();
    let reserved = held.reserve(content()).expect("there is room");
    assert_eq!((reserved, lost(&mut held, Loss::Memory)), (3000, 1));
    assert_eq!(waiting(&held, &other), [2, 3]);
    // Nothing goes for what is refused.
    assert_eq!(held.reserve(content()), None);
    assert_eq!(held.reserve([1_000_000].into_iter()), None);
    assert_eq!(waiting(&held, &other), [2, 3]);
    // Others do not take the room, neither before it is held nor then.
    held.hold(&other, request(4, 3000));
    assert_eq!(lost(&mut held, Loss::Memory), 1);
    held.free(reserved);
    held.hold(&counting, late(5, 3000, 0));
    held.hold(&other, request(6, 20_000));
    assert_eq!(lost(&mut held, Loss::Memory), 3);
    assert!(waiting(&held, &other).is_empty());
    assert_eq!((bytes(&held), held.late_bytes), (3000, 3000));
    assert_eq!(held.reserve(content()), None);
    held.hold(&other, request(7, 7000));
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (10_000, 0));
}

#[test]
fn of_a_change_only_what_is_not_owed_goes() {
    let (own, at) = (sender(1, "c"), 100 * SECOND);
    let mut held = held_of(&[&own], 6000);
    held.hold(&own, late(98 * SECOND, 1000, at));
    held.hold(&own, request(99 * SECOND, 1000));
    held.follow(at, succeeded("b", at));
    for arrived in [101, 102] {
        held.hold(&own, late(arrived * SECOND, 1000, at));
        held.hold(&own, request(arrived * SECOND, 1000));
        held.follow(at, succeeded("b", at));
    }
    held.hold(&own, request(103 * SECOND, 3000));
    assert_eq!(lost(&mut held, Loss::Memory), 3);
    held.hold(&own, request(104 * SECOND, 9000));
    assert_eq!(lost(&mut held, Loss::Memory), 2);
    let (_, requests, _) = due(&mut held, 200 * SECOND).expect("it is due");
    assert_eq!(
        contents(&requests),
        [98, 101, 102].map(|arrived| arrived * SECOND)
    );
}

#[test]
fn what_came_again_is_held_once() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(1, 1000));
    held.hold(&sender, request(1, 1000));
    assert_eq!((bytes(&held), waiting(&held, &sender)), (1000, vec![1]));
    // What is owed does not count as held by what may go.
    held.hold(&sender, late(1, 1000, 0));
    held.hold(&sender, late(1, 1000, 0));
    assert_eq!((bytes(&held), held.late_bytes), (2000, 1000));
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

/// A comparison that is due.
fn due(held: &mut Held<Millis>, now: Millis) -> Option<(JobKey, Vec<Request<Millis>>, Others)> {
    let (key, job) = held.next_comparison(now)?;
    assert_eq!(held.next_comparison(now), None, "one at a time");
    let Job::Compare(requests, others) = job else {
        panic!("{job:?}");
    };
    Some((key, requests, others))
}

/// As [`due`], when there is one: its requests by their contents.
fn contents(requests: &[Request<Millis>]) -> Vec<Millis> {
    requests.iter().map(|request| request.content).collect()
}

#[test]
fn a_change_is_compared_then_stored_and_what_failed_comes_again() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(1, 1000));
    held.hold(&sender, request(2, 1000));
    held.follow(100 * SECOND, elected("b", 99 * SECOND));
    assert!(due(&mut held, 111 * SECOND - 1).is_none());
    let now = 111 * SECOND;
    let (key, _, others) = due(&mut held, now).expect("it is due");
    let expected = Others {
        until: 99 * SECOND - 7_500,
        elected: Millis::MAX,
    };
    assert_eq!(others, expected);
    held.failed(&key, now);
    assert!(due(&mut held, now).is_none());
    let now = now + SECOND;
    let (key, mut requests, _) = due(&mut held, now).expect("it is tried again");
    // What comes while it is compared is another change.
    held.hold(&sender, request(3, 1000));
    held.follow(now, elected("b", 99 * SECOND));
    assert_eq!(requests.remove(0).content, 1);
    held.compared(&key, requests, now);
    assert_eq!(bytes(&held), 2000);
    let (key, requests, others) = due(&mut held, now).expect("the other change is due");
    assert_eq!((contents(&requests), others), (vec![3], expected));
    held.compared(&key, Vec::new(), now);
    // It was due a second before.
    let now = now + millis(GRACE) + 2 * SECOND;
    assert!(held.next_to_store(now - 1).is_none());
    for tries in 0..2 {
        let now = now + tries * SECOND;
        let (key, job) = held.next_to_store(now).expect("it is due");
        assert_eq!(job, Job::Store(request(2, 1000)));
        held.failed(&key, now);
    }
    let (key, _) = held.next_to_store(now + 2 * SECOND).expect("it is due");
    held.stored(&key, 2);
    assert!(held.senders.is_empty() && held.bytes() == 0);
}

#[test]
fn what_goes_for_want_of_room_while_it_is_stored_is_counted_once() {
    let own = sender(1, "c");
    let mut held = held_of(&[&own], 2000);
    held.hold(&own, request(1, 1000));
    held.follow(0, elected("b", 0));
    let (key, ..) = due(&mut held, 11 * SECOND).expect("it is due");
    held.compared(&key, vec![request(1, 1000)], 11 * SECOND);
    let (key, _) = held.next_to_store(41 * SECOND).expect("it is due");
    held.hold(&own, request(2, 2000));
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (2000, 1));
    held.stored(&key, 1);
    assert_eq!(bytes(&held), 2000);
}

#[test]
fn what_is_compared_does_not_go_for_want_of_room() {
    let own = sender(1, "c");
    let mut held = held_of(&[&own], 2000);
    held.hold(&own, request(1, 1000));
    held.follow(0, elected("b", 0));
    let (key, requests, _) = due(&mut held, 11 * SECOND).expect("it is due");
    held.hold(&own, request(2, 1500));
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (1000, 1));
    held.hold(&own, request(3, 500));
    held.compared(&key, requests, 11 * SECOND);
    assert_eq!((bytes(&held), held.of_tenants[&own.tenant]), (1500, 1500));
    held.hold(&own, request(4, 1000));
    assert_eq!((bytes(&held), lost(&mut held, Loss::Memory)), (1500, 1));
    // One whose change goes meanwhile is counted right, too.
    held.follow(12 * SECOND, elected("b", 0));
    let (key, ..) = due(&mut held, 23 * SECOND).expect("it is due");
    held.follow(24 * SECOND, elected("a", 24 * SECOND));
    assert_eq!(lost(&mut held, Loss::Superseded), 2);
    held.compared(&key, Vec::new(), 25 * SECOND);
    assert!(held.bytes() == 0 && held.of_tenants.is_empty() && held.in_work.is_empty());
}

#[test]
fn a_large_change_is_compared_piece_by_piece_and_stored_as_a_whole() {
    let (sender, mut held) = (sender(1, "c"), held(100_000));
    for arrived in 1..=5 {
        let samples = COMPARED_SAMPLES_MAX / 2;
        let request = request(arrived, 1000);
        held.hold(&sender, Request { samples, ..request });
    }
    held.follow(0, elected("b", 0));
    let now = 11 * SECOND;
    for (expected, more) in [(vec![1, 2], 6), (vec![3, 4], 7), (vec![5], 8)] {
        let (key, requests, _) = due(&mut held, now).expect("it is due");
        assert_eq!(contents(&requests), expected);
        // One that failed is done again.
        held.failed(&key, now - SECOND);
        let (key, requests, _) = due(&mut held, now).expect("it is due again");
        assert_eq!(contents(&requests), expected);
        assert!(held.next_to_store(500 * SECOND).is_none());
        // What comes meanwhile is another change.
        held.hold(&sender, request(more, 1000));
        held.follow(now, elected("b", 0));
        held.compared(&key, requests[..1].to_vec(), now);
    }
    let (key, requests, _) = due(&mut held, now).expect("it is due");
    assert_eq!(contents(&requests), [6, 7, 8]);
    held.compared(&key, Vec::new(), now);
    for expected in [1, 3, 5] {
        let (key, job) = held.next_to_store(now + millis(GRACE)).expect("it is due");
        let Job::Store(request) = job else {
            panic!("{job:?}");
        };
        assert_eq!(request.content, expected);
        held.stored(&key, request.digest);
    }
    assert!(held.bytes() == 0 && held.of_tenants.is_empty());
}

#[test]
fn nothing_is_stored_while_comparisons_are_due() {
    let (first, second) = (sender(1, "c"), sender(2, "c"));
    let mut held = held(100_000);
    held.hold(&first, request(1, 1000));
    held.hold(&second, request(2, 1000));
    held.follow(0, elected("b", 0));
    let (key, requests, _) = due(&mut held, 11 * SECOND).expect("it is due");
    held.compared(&key, requests, 11 * SECOND);
    let now = 41 * SECOND;
    assert!(held.next_to_store(now).is_none(), "the other pair is due");
    // One that waits for ever does not hold it up for ever.
    let (key, requests, _) = due(&mut held, now).expect("it is due");
    assert!(held.next_to_store(now + millis(LINE_MAX) - 1).is_none());
    let (stored, _) = held
        .next_to_store(now + millis(LINE_MAX))
        .expect("it is due");
    held.failed(&stored, now);
    // It waited for 30 s, and others may take twice that time more.
    held.compared(&key, requests, now);
    let (stored, _) = held.next_to_store(now + SECOND).expect("it is due");
    assert_eq!(stored.sender, first);
    let waits = now + millis(GRACE) + 60 * SECOND;
    assert!(held.next_to_store(waits - 1).is_none());
    assert!(held.next_to_store(waits).is_some());
}

#[test]
fn a_change_settles_when_its_election_is_decided_not_when_it_is_proposed() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    // It took the metadata plane 8 s.
    held.follow(108 * SECOND, succeeded("b", 100 * SECOND));
    assert!(due(&mut held, 119 * SECOND - 1).is_none());
    assert!(due(&mut held, 119 * SECOND).is_some());
    // What comes later does not wait for it once more.
    held.hold(&sender, late(120 * SECOND, 1000, 100 * SECOND));
    held.follow(120 * SECOND, succeeded("b", 100 * SECOND));
    let own = &held.senders[&sender].changes;
    assert_eq!(own[1].not_before, 130 * SECOND);
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
    held.hold(&sender, late(105 * SECOND, 1000, at));
    held.follow(106 * SECOND, &elected);
    // All nodes compare what came before the change when that has settled, whenever they heard of it.
    assert!(due(&mut held, at + 11 * SECOND - 1).is_none());
    let (key, requests, told) = due(&mut held, at + 11 * SECOND).expect("it is due");
    assert_eq!(contents(&requests), [90 * SECOND, 105 * SECOND]);
    assert_eq!(told, others);
    held.compared(&key, Vec::new(), at + 11 * SECOND);
    for arrived in [112, 121] {
        held.hold(&sender, late(arrived * SECOND, 1000, at));
        held.follow(arrived * SECOND, &elected);
    }
    // Nothing was held of the sender for a moment, so its election was forgotten.
    assert!(due(&mut held, 123 * SECOND - 1).is_none());
    let (_, requests, told) = due(&mut held, 123 * SECOND).expect("it is due");
    assert_eq!(contents(&requests), [112 * SECOND, 121 * SECOND]);
    assert_eq!(told, others);
}

#[test]
fn a_comparison_that_takes_long_has_the_others_wait_longer() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let begun = 111 * SECOND;
    let (key, ..) = due(&mut held, begun).expect("it is due");
    let ended = begun + 7 * SECOND;
    held.compared(&key, vec![request(90 * SECOND, 1000)], ended);
    let stored_from = ended + millis(GRACE) + 14 * SECOND;
    assert!(held.next_to_store(stored_from - 1).is_none());
    assert!(held.next_to_store(stored_from).is_some());
    assert_eq!(lost(&mut held, Loss::ComparedLate), 0);
}

#[test]
fn what_a_late_comparison_leaves_out_is_counted_and_what_is_owed_is_stored() {
    let own = sender(1, "c");
    for (ended, expected) in [(140 * SECOND, 0), (140 * SECOND + 1, 1)] {
        let mut held = held(10_000);
        let at = 100 * SECOND;
        for arrived in [90, 91, 92] {
            held.hold(&own, request(arrived * SECOND, 1000));
        }
        held.hold(&own, late(100 * SECOND, 1000, at));
        held.follow(100 * SECOND, succeeded("b", at));
        let (key, ..) = due(&mut held, 125 * SECOND).expect("it is due");
        held.compared(&key, vec![request(92 * SECOND, 1000)], ended);
        let tally = held.take_tally();
        let told = (
            tally.lost.get(&Loss::ComparedLate).copied(),
            tally.uncompared.get(&Uncompared::ComparedLate).copied(),
        );
        let counted = |samples: u64| (expected > 0).then_some(samples);
        assert_eq!(told, (counted(2), counted(1)));
        assert_eq!(held.late_bytes, expected * 1000);
        assert_eq!(bytes(&held), 1000 + expected * 1000);
    }
}

#[test]
fn what_another_sender_s_election_overtakes_is_not_stored() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    held.follow(100 * SECOND, succeeded("b", 100 * SECOND));
    let (key, ..) = due(&mut held, 111 * SECOND).expect("it is due");
    held.hold(&sender, request(120 * SECOND, 1000));
    held.follow(140 * SECOND, succeeded("a", 140 * SECOND));
    assert_eq!(lost(&mut held, Loss::Superseded), 1);
    // What came when it did not count any more waits, as ever.
    assert_eq!(waiting(&held, &sender), [120 * SECOND]);
    held.compared(&key, vec![request(90 * SECOND, 1000)], 141 * SECOND);
    assert!(held.next_to_store(200 * SECOND).is_none());
    assert_eq!(bytes(&held), 1000);
}

#[test]
fn what_is_owed_to_a_sender_is_stored_whoever_counts() {
    let (own, at) = (sender(1, "c"), 100 * SECOND);
    let other = succeeded("a", 140 * SECOND);
    let anew = succeeded("b", 200 * SECOND);
    let forgone = elected("b", 105 * SECOND);
    let nobody = |_: TenantId, _: &str| None;
    let after: [&Known; 4] = [&other, &anew, &forgone, &nobody];
    for elected in after {
        // In no change yet, in work, and compared.
        for steps in 0..3 {
            let mut held = held(10_000);
            held.hold(&own, request(99 * SECOND, 1000));
            held.hold(&own, late(101 * SECOND, 1000, at));
            let all = [request(99 * SECOND, 1000), late(101 * SECOND, 1000, at)];
            if steps > 0 {
                held.follow(at, succeeded("b", at));
                let (key, requests, _) = due(&mut held, 111 * SECOND).expect("it is due");
                assert_eq!(requests, all);
                if steps == 2 {
                    held.compared(&key, requests, 111 * SECOND);
                }
            }
            held.follow(200 * SECOND, elected);
            let tally = held.take_tally();
            assert_eq!(
                tally.uncompared,
                BTreeMap::from([(Uncompared::Superseded, 1)])
            );
            assert_eq!(tally.lost.get(&Loss::Superseded), (steps > 0).then_some(&1));
            // It is tried for as long as it takes.
            let mut now = 200 * SECOND;
            for _ in 0..2 * TRIES_MAX {
                let (key, job) = held.next_to_store(now).expect("it is due");
                assert!(key.is_owed() && job == Job::Store(all[1].clone()));
                held.failed(&key, now);
                held.follow(now, elected);
                now += 10 * SECOND;
            }
            let (key, _) = held.next_to_store(now).expect("it is due");
            held.stored(&key, all[1].digest);
            assert_eq!((held.late_bytes, held.take_tally()), (0, Tally::default()));
        }
    }
}

#[test]
fn what_is_owed_is_taken_out_at_a_stop() {
    let (own, at) = (sender(1, "c"), 100 * SECOND);
    let mut held = held(10_000);
    held.hold(&own, request(99 * SECOND, 1000));
    held.hold(&own, late(101 * SECOND, 1000, at));
    held.follow(at, succeeded("b", at));
    let (key, requests, _) = due(&mut held, 111 * SECOND).expect("it is due");
    held.hold(&own, late(112 * SECOND, 1000, at));
    let taken = held.take_late();
    let arrived = taken.iter().map(|(sender, request)| {
        assert_eq!(*sender, own);
        request.arrived / SECOND
    });
    assert_eq!(arrived.collect::<Vec<_>>(), [101, 112]);
    assert_eq!(uncompared(&mut held, Uncompared::Stopping), 2);
    assert_eq!((bytes(&held), held.late_bytes), (1000, 0));
    held.compared(&key, requests, 112 * SECOND);
}

#[test]
fn what_two_elections_overtake_unheard_is_not_stored() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    held.hold(&sender, request(90 * SECOND, 1000));
    let first = succeeded("b", 100 * SECOND);
    held.follow(100 * SECOND, &first);
    let (key, ..) = due(&mut held, 111 * SECOND).expect("it is due");
    let left = vec![request(90 * SECOND, 1000)];
    held.compared(&key, left, 111 * SECOND);
    let (key, _) = held.next_to_store(141 * SECOND).expect("it is due");
    held.failed(&key, 141 * SECOND);
    let elected = |of: &Known| of(TenantId(1), "c");
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
    let (key, requests, others) = due(&mut held, 300 * SECOND).expect("it is due");
    assert_eq!(
        (contents(&requests), bytes(&held)),
        (vec![180 * SECOND], 1000)
    );
    assert_eq!(others.until, 180 * SECOND);
    assert!(key.is_of(elected(&again).as_ref()));
}

#[test]
fn what_fails_too_often_is_given_up_but_for_what_is_owed() {
    let (sender, mut held) = (sender(1, "c"), held(10_000));
    let at = 100 * SECOND;
    held.hold(&sender, request(90 * SECOND, 1000));
    held.hold(&sender, late(101 * SECOND, 1000, at));
    held.follow(at, succeeded("b", at));
    let mut now = 111 * SECOND;
    for tries in 1.. {
        let Some((key, ..)) = due(&mut held, now) else {
            assert_eq!(tries - 1, TRIES_MAX);
            break;
        };
        held.failed(&key, now);
        now += match tries {
            ..TRIES_SOON => SECOND,
            _ => 10 * SECOND,
        };
    }
    let tally = held.take_tally();
    assert_eq!(tally.lost, BTreeMap::from([(Loss::NotCompared, 1)]));
    assert_eq!(
        tally.uncompared,
        BTreeMap::from([(Uncompared::NotCompared, 1)])
    );
    let (key, _) = held.next_to_store(now).expect("it is owed");
    held.stored(&key, 101 * SECOND as u64);
    assert!(held.senders.is_empty() && held.bytes() == 0 && held.in_work.is_empty());
    // A success begins anew.
    held.hold(&sender, request(90 * SECOND, 1000));
    held.hold(&sender, request(91 * SECOND, 1000));
    held.follow(at, succeeded("b", at));
    let (key, requests, _) = due(&mut held, now).expect("it is due");
    held.compared(&key, requests, now);
    let mut fail = |times: u32, held: &mut Held<Millis>| {
        for _ in 0..times {
            now += 200 * SECOND;
            let (key, _) = held.next_to_store(now).expect("it is due");
            held.failed(&key, now);
        }
        now += 200 * SECOND;
        now
    };
    let now = fail(TRIES_MAX - 1, &mut held);
    let (key, _) = held.next_to_store(now).expect("it is due");
    held.stored(&key, 90 * SECOND as u64);
    assert_eq!(lost(&mut held, Loss::NotStored), 0);
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
    while let Some((key, requests, _)) = due(&mut held, 111 * SECOND) {
        held.compared(&key, requests, 111 * SECOND);
    }
    let now = 141 * SECOND;
    let begin = |held: &mut Held<Millis>| {
        let begun = std::iter::from_fn(|| held.next_to_store(now));
        begun.map(|(key, _)| key).collect::<Vec<_>>()
    };
    let tenants = |keys: &[JobKey]| -> Vec<u32> {
        let tenants = keys.iter().map(|key| key.sender.tenant.0);
        tenants.collect()
    };
    // Of one tenant two at once, and four of all.
    let first = begin(&mut held);
    assert_eq!(tenants(&first), [busy, busy, other, other]);
    // One that ends makes room, whether there is still something of it or not.
    held.stored(&first[0], 90 * SECOND as u64);
    held.give_up(&first[2], Loss::Unreadable, now);
    assert_eq!(lost(&mut held, Loss::Unreadable), 1);
    let next = begin(&mut held);
    assert_eq!(tenants(&next), [busy, other]);
    held.failed(&next[0], now);
    held.failed(&next[1], now);
    let next = begin(&mut held);
    assert_eq!(tenants(&next), [busy, other]);
}
