//! Two senders, three nodes behind a load balancer, one store: seeded schedules of deaths, pauses and restarts.
//!
//! The nodes run what the node runs: the decision about a sender, what is held, and the comparison. Requests take time, answers
//! get lost, elections reach nodes late, nodes pause and restart, and the store cannot be reached for a while. After each
//! schedule every series has one run of each sender for each election, and no gap beyond the interval of scrapes, unless a
//! node has lost what it held.

use crate::{
    cluster::replicas::{Decision, Elected, decide},
    config::PairSettings,
    held::{GRACE, Held, Job, JobKey, Request, Rules, Sender, compare::Comparison},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use trefoil_model::{Millis, SeriesHash, TenantId};

const SCHEDULES: u64 = 300;
const STEP: Millis = 50;
/// What is scraped up to here is looked at when everything has settled.
const SCRAPED_UNTIL: Millis = 400_000;
const SETTLED_AFTER: Millis = 90_000;
const NODES: usize = 3;
const SERIES: u32 = 4;
const WRITE_TIMEOUT: Millis = 3_000;
const INTERVAL: Millis = 10_000;
const NAMES: [&str; 2] = ["a", "b"];

type Sample = (u32, Millis);
type Batch = Vec<Sample>;

struct Node {
    held: Held<Batch>,
    /// How far its clock is off.
    skew: Millis,
    /// How long it takes to hear of elections.
    lag: Millis,
    /// Elections that it has heard of.
    heard: usize,
    away_until: Millis,
    /// Until when it does not reach the metadata plane.
    cut_until: Millis,
    comparing: Vec<(Millis, JobKey, Vec<Request<Batch>>, Millis)>,
    storing: Option<(Millis, JobKey, Request<Batch>)>,
}

/// A part of a sender's series, which it sends in order.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Sample>,
    /// What is being sent, until when, and whether the answer comes.
    sending: Option<(Batch, Millis, bool)>,
    next: Millis,
}

struct Source {
    lanes: [Lane; 2],
    offsets: [Millis; SERIES as usize],
    /// From when to when it does nothing, and whether it has forgotten everything behind that.
    away: Vec<(Millis, Millis, bool)>,
}

struct World {
    random: StdRng,
    now: Millis,
    settings: PairSettings,
    /// When each was written, and what.
    elections: Vec<(Millis, Elected)>,
    nodes: Vec<Node>,
    sources: [Source; 2],
    /// On its way into the store.
    in_flight: Vec<(Millis, usize, Batch)>,
    stored: BTreeMap<u32, BTreeMap<Millis, usize>>,
    store_away: (Millis, Millis),
    /// Whether nodes restart, and are away for so long that they compare too late.
    may_lose: bool,
    /// Whether one did.
    has_lost: bool,
    released: usize,
}

impl Node {
    fn new(settings: &PairSettings, random: &mut StdRng) -> Self {
        let rules = Rules {
            apart: settings.apart(),
            failover_timeout: settings.failover_timeout,
            settle: Duration::from_millis(WRITE_TIMEOUT as u64 + 1000),
            bytes_max: 1 << 20,
        };
        Self {
            held: Held::new(rules),
            skew: random.random_range(-100..=100),
            lag: random.random_range(0..2_000),
            heard: 0,
            away_until: 0,
            cut_until: 0,
            comparing: Vec::new(),
            storing: None,
        }
    }
}

impl Source {
    fn is_away(&self, now: Millis) -> bool {
        self.away
            .iter()
            .any(|(from, to, _)| (*from..*to).contains(&now))
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = PairSettings {
            accepted: true,
            ..PairSettings::default()
        };
        let nodes = (0..NODES)
            .map(|_| Node::new(&settings, &mut random))
            .collect();
        let sources = absences(&mut random).map(|away| Source {
            lanes: <[Lane; 2]>::default(),
            offsets: std::array::from_fn(|_| random.random_range(0..INTERVAL)),
            away,
        });
        let from = random.random_range(50_000..SCRAPED_UNTIL);
        let length = match random.random_bool(0.3) {
            true => random.random_range(1_000..5_000),
            false => 0,
        };
        Self {
            random,
            now: 0,
            settings,
            elections: Vec::new(),
            nodes,
            sources,
            in_flight: Vec::new(),
            stored: BTreeMap::new(),
            store_away: (from, from + length),
            may_lose: seed.is_multiple_of(4),
            has_lost: false,
            released: 0,
        }
    }

    fn run(&mut self) {
        while self.now < SCRAPED_UNTIL + SETTLED_AFTER {
            self.now += STEP;
            self.land();
            (0..2).for_each(|source| self.send(source));
            (0..NODES).for_each(|node| self.tick(node));
        }
    }

    fn land(&mut self) {
        let now = self.now;
        let landed = self.in_flight.extract_if(.., |(at, _, _)| *at <= now);
        for (_, source, batch) in landed.collect::<Vec<_>>() {
            self.put(source, &batch);
        }
    }

    fn put(&mut self, source: usize, batch: &[Sample]) {
        for (series, time) in batch {
            self.stored
                .entry(*series)
                .or_default()
                .insert(*time, source);
        }
    }

    /// Scrapes and sends.
    fn send(&mut self, source: usize) {
        let own = &mut self.sources[source];
        let restarts = |(_, to, forgets): &(Millis, Millis, bool)| *forgets && *to == self.now;
        if own.away.iter().any(restarts) {
            own.lanes = <[Lane; 2]>::default();
        }
        if own.is_away(self.now) {
            return;
        }
        for series in 0..SERIES {
            let time = self.now - (self.now - own.offsets[series as usize]).rem_euclid(INTERVAL);
            if time > self.now - STEP {
                own.lanes[series as usize % 2]
                    .queue
                    .push_back((series, time));
            }
        }
        for lane in 0..2 {
            self.send_lane(source, lane);
        }
    }

    fn send_lane(&mut self, source: usize, lane: usize) {
        let now = self.now;
        let own = &mut self.sources[source].lanes[lane];
        match &own.sending {
            Some((_, until, _)) if now < *until => return,
            Some((_, _, true)) => own.sending = None,
            _ => {}
        }
        if own.sending.is_none() {
            if own.queue.is_empty() || now < own.next {
                return;
            }
            let batch = own.queue.drain(..).collect();
            own.sending = Some((batch, now, false));
            own.next = now + self.random.random_range(500..3_000);
        }
        let Some((batch, _, _)) = own.sending.clone() else {
            return;
        };
        let node = self.random.random_range(0..NODES);
        let taken = match now < self.nodes[node].away_until {
            true => None,
            false => self.take(node, source, &batch),
        };
        // An answer that is lost has the sender send the same again.
        let is_heard = taken.is_some() && !self.random.random_bool(0.03);
        let until = taken.unwrap_or(now) + if is_heard { 0 } else { 500 };
        self.sources[source].lanes[lane].sending = Some((batch, until, is_heard));
    }

    /// What a node does with a request: when it answers, if it does with success.
    fn take(&mut self, node: usize, source: usize, batch: &Batch) -> Option<Millis> {
        for _ in 0..4 {
            let known = self.nodes[node].heard;
            let present = known.checked_sub(1).map(|last| &self.elections[last].1);
            let by_clock = self.now + self.nodes[node].skew;
            let decision = decide(present, NAMES[source], by_clock, &self.settings);
            if decision == Decision::Hold {
                self.hold(node, source, batch);
                return Some(self.now);
            }
            let is_cut = self.now < self.nodes[node].cut_until;
            if is_cut && decision == Decision::Elect {
                return None;
            }
            let is_newest = !is_cut && known == self.elections.len();
            if is_newest && decision != Decision::Accept {
                let replica = NAMES[source].to_owned();
                let heard = by_clock;
                self.elections.push((self.now, Elected { replica, heard }));
                self.nodes[node].heard = self.elections.len();
            }
            if is_newest || decision != Decision::Elect {
                let takes = match self.random.random_bool(0.05) {
                    true => self.random.random_range(200..WRITE_TIMEOUT),
                    false => self.random.random_range(0..200),
                };
                let landed = self.now + takes;
                self.in_flight.push((landed, source, batch.clone()));
                return Some(landed);
            }
            self.nodes[node].heard = self.elections.len();
        }
        None
    }

    fn hold(&mut self, node: usize, source: usize, batch: &Batch) {
        let text = format!("{batch:?}");
        let request = Request {
            arrived: self.now + self.nodes[node].skew,
            bytes: 100,
            samples: batch.len() as u64,
            digest: trefoil_model::key_hash(TenantId(0), text.as_bytes()),
            content: batch.clone(),
        };
        self.nodes[node].held.hold(&sender(source), request);
    }

    fn tick(&mut self, node: usize) {
        self.disturb(node);
        let (now, own) = (self.now, &mut self.nodes[node]);
        if now < own.away_until {
            return;
        }
        while let Some((written, _)) = self.elections.get(own.heard) {
            if *written + own.lag > now || now < own.cut_until {
                break;
            }
            own.heard += 1;
        }
        let elected = own
            .heard
            .checked_sub(1)
            .map(|last| self.elections[last].1.clone());
        let by_clock = now + own.skew;
        own.held.follow(by_clock, |_, _| elected.clone());
        if let Some((key, Job::Compare(requests, until))) = own.held.next_comparison(by_clock) {
            let ends = now + self.random.random_range(50..1_500);
            own.comparing.push((ends, key, requests, until));
        }
        let ended = own.comparing.extract_if(.., |(ends, ..)| *ends <= now);
        for (_, key, requests, until) in ended.collect::<Vec<_>>() {
            match (self.store_away.0..self.store_away.1).contains(&now) {
                true => own.held.failed(&key, by_clock),
                false => {
                    let left = compare(&self.stored, requests, until);
                    own.held.compared(&key, left, by_clock);
                }
            }
        }
        self.store(node, by_clock);
    }

    fn store(&mut self, node: usize, by_clock: Millis) {
        let (now, own) = (self.now, &mut self.nodes[node]);
        if own.storing.is_none()
            && let Some((key, Job::Store(request))) = own.held.next_to_store(by_clock)
        {
            let ends = now + self.random.random_range(20..500);
            own.storing = Some((ends, key, request));
        }
        let Some((_, key, request)) = own.storing.take_if(|(ends, _, _)| *ends <= now) else {
            return;
        };
        if (self.store_away.0..self.store_away.1).contains(&now) {
            return own.held.failed(&key, by_clock);
        }
        own.held.stored(&key, request.digest);
        self.released += request.content.len();
        let source = NAMES.iter().position(|name| *name == key.sender.replica);
        self.put(source.expect("a sender"), &request.content);
    }

    /// Pauses or restarts a node now and then.
    fn disturb(&mut self, node: usize) {
        let is_cut = self.now < self.nodes[node].cut_until;
        if !is_cut && self.random.random_bool(STEP as f64 / 200_000.0) {
            self.has_lost |= self.may_lose;
            let length = match self.may_lose {
                true => self.random.random_range(4_000..40_000),
                false => self.random.random_range(500..4_000),
            };
            self.nodes[node].cut_until = self.now + length;
        }
        if self.now < self.nodes[node].away_until
            || !self.random.random_bool(STEP as f64 / 150_000.0)
        {
            return;
        }
        let kind = self.random.random_range(0..10);
        let away = match kind + if self.may_lose { 0 } else { 2 } {
            0 => {
                self.has_lost = true;
                self.nodes[node] = Node::new(&self.settings, &mut self.random);
                self.random.random_range(500..20_000)
            }
            1 => {
                self.has_lost = true;
                self.random
                    .random_range(GRACE.as_millis() as Millis..60_000)
            }
            _ => self.random.random_range(100..5_000),
        };
        self.nodes[node].away_until = self.now + away;
    }

    fn check(&self, seed: u64) {
        let mut elected = Vec::new();
        for (_, election) in &self.elections {
            if elected.last() != Some(&election.replica) {
                elected.push(election.replica.clone());
            }
        }
        assert_eq!(self.stored.len(), SERIES as usize, "seed {seed}");
        for (series, samples) in &self.stored {
            let samples: Vec<(Millis, usize)> =
                samples.iter().map(|(at, who)| (*at, *who)).collect();
            let runs = samples.chunk_by(|one, next| one.1 == next.1).count();
            let story = || {
                format!(
                    "seed {seed}, series {series}: {samples:?}\n{:?}",
                    self.elections
                )
            };
            assert!(runs <= elected.len(), "interleaved: {}", story());
            if self.has_lost {
                continue;
            }
            let newest = samples.last().expect("some samples").0;
            assert!(newest >= SCRAPED_UNTIL, "the end is missing: {}", story());
            for pair in samples.windows(2) {
                let ((from, one), (to, other)) = (pair[0], pair[1]);
                if from >= SCRAPED_UNTIL {
                    break;
                }
                let is_own = one == other
                    && (self.sources[one].away.iter()).any(|away| away.0 < to && from < away.1);
                assert!(
                    to - from <= INTERVAL || is_own,
                    "a gap at {from}: {}",
                    story()
                );
            }
        }
    }
}

/// When each of the two is away: never both within the time that a change takes.
fn absences(random: &mut StdRng) -> [Vec<(Millis, Millis, bool)>; 2] {
    let mut away = [Vec::new(), Vec::new()];
    let mut at = random.random_range(40_000..90_000) / STEP * STEP;
    while at < SCRAPED_UNTIL {
        let length = match random.random_range(0..3) {
            // It comes back before another one is elected, perhaps with what it had not sent.
            0 => random.random_range(500..24_000),
            1 => random.random_range(24_000..90_000),
            _ => SCRAPED_UNTIL + SETTLED_AFTER,
        };
        let length = length / STEP * STEP;
        away[random.random_range(0..2)].push((at, at + length, random.random_bool(0.5)));
        at += length + random.random_range(80_000..120_000) / STEP * STEP;
    }
    away
}

fn compare(
    stored: &BTreeMap<u32, BTreeMap<Millis, usize>>,
    mut requests: Vec<Request<Batch>>,
    others_until: Millis,
) -> Vec<Request<Batch>> {
    let hash = |series: u32| SeriesHash(u128::from(series));
    let mut comparison = Comparison::new(others_until);
    for (series, time) in requests.iter().flat_map(|request| &request.content) {
        comparison.add(hash(*series), [*time].into_iter());
    }
    for (series, samples) in stored {
        let times: Vec<Millis> = samples.keys().copied().collect();
        comparison.found(hash(*series), &times);
    }
    for request in &mut requests {
        let may_store = |(series, time): &Sample| comparison.may_store(hash(*series), *time);
        request
            .content
            .retain(|sample| may_store(sample) == Some(true));
    }
    requests.retain(|request| !request.content.is_empty());
    requests
}

fn sender(source: usize) -> Sender {
    Sender {
        tenant: TenantId(1),
        pair: "pair".to_owned(),
        replica: NAMES[source].to_owned(),
    }
}

#[test]
fn a_change_leaves_no_gap_and_no_mixture() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let one: Option<u64> = number("TREFOIL_SIM_SEED");
    let count = number("TREFOIL_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let (mut released, mut changes, mut whole) = (0, 0, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        world.run();
        world.check(seed);
        released += world.released;
        let of = |pair: &&[(Millis, Elected)]| pair[0].1.replica != pair[1].1.replica;
        changes += world.elections.windows(2).filter(of).count();
        whole += usize::from(!world.has_lost && world.released > 0);
    }
    if one.is_none() {
        // The schedules must have struck.
        let all = (seeds.end - seeds.start) as usize;
        assert!(
            changes >= all / 2 && released >= 5 * changes && whole >= all / 3,
            "{all} schedules, {changes} changes, {released} samples released, {whole} whole"
        );
    }
}
