//! Two senders, three nodes behind a load balancer, one store: seeded schedules of deaths, pauses and restarts.
//!
//! The nodes run what the node runs: the decision about a sender, what is held, and the comparison. Requests take time, answers
//! get lost, elections reach nodes late, nodes pause and restart, the store cannot be reached for a while, comparisons take
//! long, elections are decided late. Senders die, are cut off and come back with what they could not send, one of their series is
//! always late, and they send samples of strange times. A write may come to light that was never acknowledged. After each schedule every
//! series has one run of each sender for each election, but for such writes and what was told to be stored without a comparison, and no
//! gap beyond the interval of scrapes, unless a node has died with what it held or has counted a loss. What a sender that counts sent
//! late is there, unless the other one was there in its series.

mod checks;
mod faults;

use crate::{
    cluster::replicas::{Decision, Elected, decide},
    config::PairSettings,
    held::{
        GRACE, Held, Job, JobKey, Loss, Others, Request, Rules, Sender, Uncompared,
        compare::Gathered,
    },
};
use faults::{Absence, absences};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use trefoil_model::{Millis, SeriesHash, TenantId};

const SCHEDULES: u64 = 300;
const STEP: Millis = 50;
/// What is scraped up to here is looked at when everything has settled.
const SCRAPED_UNTIL: Millis = 400_000;
const SETTLED_AFTER: Millis = 250_000;
const NODES: usize = 3;
const SERIES: u32 = 5;
/// The series whose samples are older than their scrapes, by this much.
const LATE_SERIES: u32 = 4;
const LATE: Millis = 45_000;
/// A series of samples of strange times, which are not looked at.
const STRAY_SERIES: u32 = 99;
/// Samples of a request.
const BATCH_MAX: usize = 6;
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
    comparing: Vec<(Millis, JobKey, Vec<Request<Batch>>, Others)>,
    storing: Vec<(Millis, JobKey, Request<Batch>)>,
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
    away: Vec<Absence>,
}

/// On its way into the store.
struct Write {
    lands: Millis,
    source: usize,
    batch: Batch,
    /// Whether its sender is told of success.
    is_acknowledged: bool,
}

/// An election that is being decided.
struct Proposal {
    decided: Millis,
    /// The elections before it.
    version: usize,
    node: usize,
    elected: Elected,
}

/// What kind of schedule it is.
#[derive(Clone, Copy)]
struct Plan {
    /// Whether nodes restart, and are away for so long that they compare too late.
    may_lose: bool,
    /// Whether there is too little memory.
    is_tight: bool,
    /// Whether the first node has room for one late request only, so that it stores others as they come while nodes compare.
    is_narrow: bool,
    /// Whether comparisons take long.
    is_slow: bool,
    /// Whether senders change again before what is held is stored. With `may_lose` they change back while nodes do not reach the
    /// metadata plane.
    is_restless: bool,
    /// Whether writes come to light later that were not acknowledged.
    has_limbo: bool,
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
    in_flight: Vec<Write>,
    stored: BTreeMap<u32, BTreeMap<Millis, usize>>,
    /// What was stored of which source by a write that was acknowledged.
    acknowledged: BTreeSet<(Sample, usize)>,
    /// What was stored, or is to be, without being compared.
    uncompared: BTreeSet<(Sample, usize)>,
    /// What senders that count sent late to which node.
    late: Vec<(usize, Sample, usize)>,
    /// Up to which time samples are late by an election since which they are not compared any more.
    forgone_until: Millis,
    /// Whether something was stored without being compared though that could not be recorded.
    has_unrecorded: bool,
    proposed: Option<Proposal>,
    /// Elections that took long to decide.
    slow_elections: usize,
    store_away: (Millis, Millis),
    plan: Plan,
    /// Whether a node has died with what it held, or was away for too long.
    has_lost: bool,
    lost: BTreeMap<Loss, u64>,
    left: BTreeMap<Uncompared, u64>,
    /// Samples left out because their times are strange.
    strays: u64,
    released: usize,
    /// Samples of senders that count which were held.
    behind: usize,
}

impl Plan {
    fn of(seed: u64) -> Self {
        Self {
            may_lose: seed.is_multiple_of(4),
            is_tight: seed % 16 == 3,
            is_narrow: seed % 16 == 11,
            is_slow: seed % 3 == 1 || seed % 16 == 11,
            is_restless: matches!(seed % 8, 4 | 5),
            has_limbo: seed % 6 == 2,
        }
    }
}

impl Plan {
    fn of_node(self, node: usize) -> Self {
        let is_narrow = self.is_narrow && node == 0;
        Self { is_narrow, ..self }
    }
}

impl Node {
    fn new(settings: &PairSettings, plan: Plan, random: &mut StdRng) -> Self {
        let bytes_max = match (plan.is_tight, plan.is_narrow) {
            (true, _) => 5000,
            (_, true) => 900,
            _ => 1 << 20,
        };
        let rules = Rules {
            apart: settings.apart(),
            kept: settings.kept(),
            failover_timeout: settings.failover_timeout,
            settle: Duration::from_millis(WRITE_TIMEOUT as u64 + 1000),
            bytes_max,
            late_bytes_max: bytes_max / crate::held::LATE_SHARE,
        };
        Self {
            held: Held::new(rules),
            skew: random.random_range(-100..=100),
            lag: random.random_range(0..6_000),
            heard: 0,
            away_until: 0,
            cut_until: 0,
            comparing: Vec::new(),
            storing: Vec::new(),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = PairSettings {
            accepted: true,
            ..PairSettings::default()
        };
        let plan = Plan::of(seed);
        let nodes = (0..NODES)
            .map(|node| Node::new(&settings, plan.of_node(node), &mut random))
            .collect();
        let sources = absences(&mut random, plan.is_restless).map(|away| Source {
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
            acknowledged: BTreeSet::new(),
            uncompared: BTreeSet::new(),
            late: Vec::new(),
            forgone_until: Millis::MIN,
            has_unrecorded: false,
            proposed: None,
            slow_elections: 0,
            store_away: (from, from + length),
            plan,
            has_lost: false,
            lost: BTreeMap::new(),
            left: BTreeMap::new(),
            strays: 0,
            released: 0,
            behind: 0,
        }
    }

    fn run(&mut self) {
        while self.now < SCRAPED_UNTIL + SETTLED_AFTER {
            self.now += STEP;
            self.land();
            self.decide_proposal();
            (0..2).for_each(|source| self.send(source));
            (0..NODES).for_each(|node| self.tick(node));
        }
    }

    fn land(&mut self) {
        let now = self.now;
        let landed = self.in_flight.extract_if(.., |write| write.lands <= now);
        for write in landed.collect::<Vec<_>>() {
            self.put(write.source, &write.batch, write.is_acknowledged);
        }
    }

    /// What is proposed becomes so, if nobody else has written between.
    fn decide_proposal(&mut self) {
        let now = self.now;
        let Some(proposal) = self.proposed.take_if(|one| one.decided <= now) else {
            return;
        };
        if proposal.version == self.elections.len() {
            self.elections.push((now, proposal.elected));
            self.nodes[proposal.node].heard = self.elections.len();
            self.slow_elections += 1;
        }
    }

    fn put(&mut self, source: usize, batch: &[Sample], is_acknowledged: bool) {
        if is_acknowledged {
            let samples = batch.iter().map(|sample| (*sample, source));
            self.acknowledged.extend(samples);
        }
        for (series, time) in batch {
            self.stored
                .entry(*series)
                .or_default()
                .insert(*time, source);
        }
    }

    /// Scrapes and sends.
    fn send(&mut self, source: usize) {
        let now = self.now;
        let own = &mut self.sources[source];
        if own.away.iter().any(|absence| absence.forgets_at(now)) {
            own.lanes = <[Lane; 2]>::default();
        }
        if own.away.iter().any(|absence| absence.is_dead_at(now)) {
            return;
        }
        for series in 0..SERIES {
            let time = now - (now - own.offsets[series as usize]).rem_euclid(INTERVAL);
            if time > now - STEP {
                let late = if series == LATE_SERIES { LATE } else { 0 };
                let queue = &mut own.lanes[series as usize % 2].queue;
                queue.push_back((series, time - late));
            }
        }
        if self.random.random_bool(STEP as f64 / 20_000.0) {
            let times = [now - 7_200_000, now + 300_000];
            let time = times[self.random.random_range(0..2)];
            own.lanes[0].queue.push_back((STRAY_SERIES, time));
        }
        for lane in 0..2 {
            self.send_lane(source, lane);
        }
    }

    fn send_lane(&mut self, source: usize, lane: usize) {
        let now = self.now;
        let is_cut = self.sources[source].away.iter().any(|one| one.cuts_at(now));
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
            let count = own.queue.len().min(BATCH_MAX);
            let batch = own.queue.drain(..count).collect();
            own.sending = Some((batch, now, false));
            own.next = now + self.random.random_range(500..3_000);
        }
        let Some((batch, _, _)) = own.sending.clone() else {
            return;
        };
        let node = self.random.random_range(0..NODES);
        let taken = match is_cut || now < self.nodes[node].away_until {
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
            let until = present.map_or(Millis::MIN, Elected::others_until);
            let next = Elected::follow(present, NAMES[source], by_clock, &self.settings);
            if decision == Decision::Hold {
                self.hold(node, source, batch, self.around(by_clock), None);
                return Some(self.now);
            }
            let is_cut = self.now < self.nodes[node].cut_until;
            let is_slow = self.proposed.is_some();
            if (is_cut || is_slow) && decision == Decision::Elect {
                return None;
            }
            let is_newest = !is_cut && !is_slow && known == self.elections.len();
            if is_newest && decision == Decision::Elect && self.random.random_bool(0.2) {
                self.proposed = Some(Proposal {
                    decided: self.now + self.random.random_range(500..8_000),
                    version: known,
                    node,
                    elected: next,
                });
                return None;
            }
            let until = match decision {
                Decision::Elect => next.others_until(),
                _ => until,
            };
            if is_newest && decision != Decision::Accept {
                self.elections.push((self.now, next));
                self.nodes[node].heard = self.elections.len();
            }
            if is_newest || decision != Decision::Elect {
                return self.accept(node, source, batch, until);
            }
            self.nodes[node].heard = self.elections.len();
        }
        None
    }

    /// Stores what is behind the time until which others were accepted, and holds the rest.
    fn accept(
        &mut self,
        node: usize,
        source: usize,
        batch: &Batch,
        until: Millis,
    ) -> Option<Millis> {
        let takes = match self.random.random_bool(0.05) {
            true => self.random.random_range(200..WRITE_TIMEOUT),
            false => self.random.random_range(0..200),
        };
        let mut away = self.sources[source].away.iter();
        let is_last = away.any(|one| (one.from - 500..one.from).contains(&self.now));
        let likely = if is_last { 0.7 } else { 0.03 };
        let is_in_limbo = self.plan.has_limbo && self.random.random_bool(likely);
        let lands = match is_in_limbo {
            true => self.now + self.random.random_range(100..60_000),
            false => self.now + takes,
        };
        let kept = self.settings.kept().as_millis() as Millis;
        let is_late = |(_, time): &Sample| *time <= until && *time >= until - kept;
        let (mut late, mut direct): (Batch, Batch) = batch.iter().copied().partition(is_late);
        let wanted = (!late.is_empty()).then_some(100);
        let held = &mut self.nodes[node].held;
        match held.reserve(wanted.into_iter()) {
            Some(reserved) => held.free(reserved),
            // What cannot be held is stored as it comes, when that is recorded.
            None => {
                self.forgo(node, source, until);
                direct.append(&mut late);
            }
        }
        let forgone = direct
            .iter()
            .filter(|(_, time)| *time <= self.forgone_until);
        self.uncompared
            .extend(forgone.map(|sample| (*sample, source)));
        self.in_flight.push(Write {
            lands,
            source,
            batch: direct,
            is_acknowledged: !is_in_limbo,
        });
        if is_in_limbo {
            return None;
        }
        if !late.is_empty() {
            self.behind += late.len();
            let sent = late.iter().map(|sample| (node, *sample, source));
            self.late.extend(sent);
            self.hold(node, source, &late, (until - kept, until), Some(until));
        }
        Some(lands)
    }

    /// Records that what a sender that counts sends late is stored as it comes.
    fn forgo(&mut self, node: usize, source: usize, until: Millis) {
        self.forgone_until = self.forgone_until.max(until);
        *self.left.entry(Uncompared::Memory).or_default() += 1;
        if self.now < self.nodes[node].cut_until || self.proposed.is_some() {
            self.has_unrecorded = true;
            return;
        }
        let newest = self.elections.last().map(|(_, elected)| elected.clone());
        if let Some(forgone) = newest.and_then(|newest| newest.forgoing(NAMES[source])) {
            self.elections.push((self.now, forgone));
        }
        self.nodes[node].heard = self.elections.len();
    }

    /// The times of which a request that comes now may have samples, to be held.
    fn around(&self, now: Millis) -> (Millis, Millis) {
        let millis = |duration: Duration| duration.as_millis() as Millis;
        (
            now - millis(self.settings.kept()),
            now + millis(self.settings.ahead()),
        )
    }

    fn hold(
        &mut self,
        node: usize,
        source: usize,
        batch: &Batch,
        (from, to): (Millis, Millis),
        late: Option<Millis>,
    ) {
        let is_near = |(_, time): &&Sample| (from..=to).contains(time);
        let content: Batch = batch.iter().filter(is_near).copied().collect();
        let strays = batch.iter().filter(|sample| !is_near(sample));
        for (series, _) in strays {
            assert_eq!(*series, STRAY_SERIES, "only strange times are left out");
            self.strays += 1;
        }
        if content.is_empty() {
            return;
        }
        let text = format!("{content:?}");
        let request = Request {
            arrived: self.now + self.nodes[node].skew,
            late,
            bytes: 100,
            samples: content.len() as u64,
            digest: trefoil_model::key_hash(TenantId(0), text.as_bytes()),
            content,
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
        while let Some((key, Job::Compare(requests, others))) = own.held.next_comparison(by_clock) {
            let takes = match self.plan.is_slow {
                true => self.random.random_range(2_000..6_000),
                false => self.random.random_range(50..1_500),
            };
            own.comparing.push((now + takes, key, requests, others));
        }
        let ended = own.comparing.extract_if(.., |(ends, ..)| *ends <= now);
        for (_, key, requests, others) in ended.collect::<Vec<_>>() {
            // It asks the metadata plane, as it is now, whether it still counts.
            let counts = key.is_of(self.elections.last().map(|(_, elected)| elected));
            let is_away = (self.store_away.0..self.store_away.1).contains(&now);
            if !counts || now < own.cut_until || is_away {
                own.held.failed(&key, by_clock);
                continue;
            }
            let source = NAMES.iter().position(|name| *name == key.sender.replica);
            let source = source.expect("a sender");
            let late: Batch = samples_of(requests.iter().filter(|one| one.late.is_some()));
            let left = compare(&self.stored, requests, others);
            let known = samples_of(left.iter());
            own.held.compared(&key, left, by_clock);
            let tally = own.held.take_tally();
            if tally.uncompared.contains_key(&Uncompared::ComparedLate) {
                let left_out = late.into_iter().filter(|sample| !known.contains(sample));
                self.uncompared
                    .extend(left_out.map(|sample| (sample, source)));
            }
            count(&mut self.lost, tally.lost);
            count(&mut self.left, tally.uncompared);
        }
        self.store(node, by_clock);
        if now % 1000 == 0 {
            self.nodes[node].held.check_sums();
        }
        let tally = self.nodes[node].held.take_tally();
        count(&mut self.lost, tally.lost);
        count(&mut self.left, tally.uncompared);
    }

    fn store(&mut self, node: usize, by_clock: Millis) {
        let (now, own) = (self.now, &mut self.nodes[node]);
        while let Some((key, Job::Store(request))) = own.held.next_to_store(by_clock) {
            // It asks the metadata plane, as it is now, who counts.
            let counts = key.is_of(self.elections.last().map(|(_, elected)| elected));
            let may_store = key.is_owed() || (counts && now >= own.cut_until);
            let is_away = (self.store_away.0..self.store_away.1).contains(&now);
            if !may_store || is_away {
                own.held.failed(&key, by_clock);
                continue;
            }
            let takes = match self.random.random_bool(0.05) {
                true => self.random.random_range(500..WRITE_TIMEOUT),
                false => self.random.random_range(20..500),
            };
            // It is on its way, whatever becomes of the node.
            let source = NAMES.iter().position(|name| *name == key.sender.replica);
            let source = source.expect("a sender");
            if key.is_owed() {
                let samples = request.content.iter().map(|sample| (*sample, source));
                self.uncompared.extend(samples);
            }
            self.in_flight.push(Write {
                lands: now + takes,
                source,
                batch: request.content.clone(),
                is_acknowledged: true,
            });
            own.storing.push((now + takes, key, request));
        }
        let ended = own.storing.extract_if(.., |(ends, ..)| *ends <= now);
        for (_, key, request) in ended.collect::<Vec<_>>() {
            own.held.stored(&key, request.digest);
            self.released += request.content.len();
        }
    }

    /// Pauses or restarts a node now and then.
    fn disturb(&mut self, node: usize) {
        let is_cut = self.now < self.nodes[node].cut_until;
        let changes_back = self.plan.may_lose && self.plan.is_restless;
        let distance = if changes_back { 100_000.0 } else { 200_000.0 };
        if !is_cut && self.random.random_bool(STEP as f64 / distance) {
            self.has_lost |= self.plan.may_lose;
            let length = match self.plan.may_lose {
                true if changes_back => self.random.random_range(40_000..160_000),
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
        let away = match kind + if self.plan.may_lose { 0 } else { 2 } {
            0 => {
                self.has_lost = true;
                let plan = self.plan.of_node(node);
                self.nodes[node] = Node::new(&self.settings, plan, &mut self.random);
                self.late.retain(|(of, ..)| *of != node);
                self.random.random_range(500..20_000)
            }
            1 => {
                self.has_lost = true;
                self.random
                    .random_range(GRACE.as_millis() as Millis..90_000)
            }
            _ => self.random.random_range(100..5_000),
        };
        self.nodes[node].away_until = self.now + away;
    }
}

fn samples_of<'a>(requests: impl Iterator<Item = &'a Request<Batch>>) -> Batch {
    requests
        .flat_map(|request| request.content.iter().copied())
        .collect()
}

fn count<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (reason, samples) in more {
        *all.entry(reason).or_default() += samples;
    }
}

fn compare(
    stored: &BTreeMap<u32, BTreeMap<Millis, usize>>,
    mut requests: Vec<Request<Batch>>,
    others: Others,
) -> Vec<Request<Batch>> {
    let hash = |series: u32| SeriesHash(u128::from(series));
    let mut gathered = Gathered::new(others, 0);
    for request in &requests {
        for (series, time) in &request.content {
            gathered.add(hash(*series), request.arrived, [*time].into_iter());
        }
    }
    let mut comparison = gathered.into_comparison();
    if let Some((from, to)) = comparison.span() {
        assert!(from > -900_000 && to < 900_000, "about {from} to {to}");
        for (series, samples) in stored {
            let times: Vec<Millis> = samples.range(from..=to).map(|(time, _)| *time).collect();
            comparison.found(hash(*series), &times);
        }
    }
    for request in &mut requests {
        let may_store = |(series, time): &Sample| comparison.may_store(hash(*series), *time);
        request
            .content
            .retain(|sample| may_store(sample) == Some(true));
        request.samples = request.content.len() as u64;
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

/// What all schedules together have come to.
#[derive(Debug, Default)]
struct Struck {
    changes: usize,
    released: usize,
    /// Schedules that have released something, and may not have a gap.
    whole: usize,
    behind: usize,
    strays: u64,
    in_limbo: usize,
    slow_elections: usize,
    late: usize,
    lost: BTreeMap<Loss, u64>,
    left: BTreeMap<Uncompared, u64>,
}

fn run(seed: u64, struck: &mut Struck) {
    let mut world = World::new(seed);
    world.run();
    world.check(seed);
    struck.released += world.released;
    let of = |pair: &&[(Millis, Elected)]| pair[0].1.replica != pair[1].1.replica;
    struck.changes += world.elections.windows(2).filter(of).count();
    struck.whole += usize::from(world.is_whole() && world.released > 0);
    struck.behind += world.behind;
    struck.strays += world.strays;
    struck.in_limbo += world.in_limbo();
    struck.slow_elections += world.slow_elections;
    struck.late += world.late.len();
    count(&mut struck.lost, world.lost);
    count(&mut struck.left, world.left);
}

#[test]
fn a_change_leaves_no_gap_and_no_mixture() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let one: Option<u64> = number("TREFOIL_SIM_SEED");
    let count = number("TREFOIL_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let mut struck = Struck::default();
    for seed in seeds.clone() {
        run(seed, &mut struck);
    }
    println!("{struck:?}");
    if one.is_none() {
        // The schedules must have struck.
        let all = (seeds.end - seeds.start) as usize;
        let has_lost = |loss| struck.lost.contains_key(&loss);
        let has_left = |reason| struck.left.contains_key(&reason);
        assert!(
            struck.changes >= all
                && struck.released >= 5 * struck.changes
                && struck.whole >= all / 4
                && struck.behind >= struck.changes
                && struck.strays >= all as u64
                && struck.in_limbo > 0
                && has_lost(Loss::Memory)
                && has_lost(Loss::ComparedLate)
                && has_lost(Loss::Superseded)
                && struck.slow_elections >= all / 10
                && struck.late >= all
                && has_left(Uncompared::Memory)
                && has_left(Uncompared::ComparedLate)
                && has_left(Uncompared::Superseded),
            "{all} schedules: {struck:?}"
        );
    }
}
