//! A sender of deltas, three nodes that hold the lease in turn, and a store of three replicas: seeded schedules of lost answers, requests
//! that overtake each other, pauses, deaths, and writes that come to light long after they were given up.
//!
//! The nodes run what the node runs: what is remembered, and the rules by which deltas are counted. Faults come together: for a
//! while writes reach one replica or none, and then the holder dies. After each schedule, when what was ever written has come to
//! light, or is lost with a replica, every counter has risen within each acknowledged delta by exactly its value, within each other
//! one by its value at most, and nowhere else; but for deltas in front that were not acknowledged, and whose totals are lost.

use super::{
    counter::{Stored, ZERO_BEFORE_MAX, start_of},
    read_back::newest_for,
    totals::{Now, Step, Totals},
    turns::Ticket,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{DeletionVersion, Millis, SeriesHash};

const SCHEDULES: u64 = 1000;
const STEP: Millis = 20;
const SENT_UNTIL: Millis = 120_000;
const SETTLED_AFTER: Millis = 60_000;
const NODES: usize = 3;
const REPLICAS: usize = 3;
const SERIES: u64 = 2;
const INTERVAL: Millis = 1_000;
const TERM: Millis = 2_000;
const WRITE_TIMEOUT: Millis = 4_000;
/// How long the sender waits for an answer.
const ANSWER_TIMEOUT: Millis = 5_000;
/// When a write lands that is lost.
const NEVER: Millis = Millis::MAX;

/// Samples of a series at one replica.
type Samples = BTreeMap<Millis, f64>;

/// Begin and value of what was sent of a series, by its end.
type Sent = BTreeMap<Millis, (Millis, f64)>;

/// What is different between seeds.
struct Sending {
    /// How many requests are under way at the same time.
    at_once: usize,
    /// How long it repeats at most: less than what another holder has tried is in doubt.
    tried_max: Millis,
    /// How many intervals a request may have.
    batch_max: usize,
    /// Whether a request is counted in several steps.
    is_stepwise: bool,
    /// Whether it is silent now and then.
    pauses: bool,
    /// Whether some deltas do not say when they begin.
    omits_starts: bool,
    /// Whether the sender's clock is known to be right, so that little is in doubt after a change of the holder.
    has_clock: bool,
}

struct Node {
    totals: Totals,
    incarnation: u64,
    /// The fencing number that it holds, and until when it uses it.
    held: Option<(u64, Millis)>,
    away_until: Millis,
}

#[derive(Clone, Copy)]
struct Lease {
    node: usize,
    incarnation: u64,
    fencing: u64,
    until: Millis,
}

/// Deltas of each series, ascending by time.
type Batch = Vec<(SeriesHash, Vec<Sample>)>;

struct Request {
    batch: Batch,
    /// When it is tried next, unless the answer comes before.
    next: Millis,
    /// How often it was tried.
    attempts: usize,
    given_up_at: Millis,
}

#[derive(Debug)]
enum Stage {
    Reserve,
    /// What the store had from a time on when it was asked, and when that is known.
    ReadBack(Millis, Vec<(SeriesHash, Option<Stored>)>, Millis),
    /// Something is being written; whether it comes from the last of this request's deltas.
    Storing {
        write: usize,
        is_all: bool,
    },
    Done,
}

/// What a node does for a request.
struct Job {
    request: usize,
    attempt: usize,
    batch: Batch,
    node: usize,
    fencing: u64,
    /// Once it has asked for its series.
    ticket: Option<Ticket>,
    stage: Stage,
    deadline: Millis,
    /// When its client goes away, and everything of it is dropped.
    dropped_at: Millis,
    /// How many deltas of each series were looked at.
    taken: BTreeMap<SeriesHash, usize>,
    refused: HashSet<(SeriesHash, Millis)>,
}

struct Write {
    samples: Batch,
    /// When each replica has it.
    lands: [Millis; REPLICAS],
    has_landed: [bool; REPLICAS],
}

struct World {
    random: StdRng,
    now: Millis,
    sending: Sending,
    nodes: Vec<Node>,
    lease: Option<Lease>,
    fencing: u64,
    replicas: [BTreeMap<SeriesHash, Samples>; REPLICAS],
    writes: Vec<Write>,
    requests: BTreeMap<usize, Request>,
    jobs: Vec<Job>,
    /// From when to when writes hardly reach a majority; the holder may die at the end.
    storm: (Millis, Millis),
    /// Where the sender's next interval of each series begins.
    begins: BTreeMap<SeriesHash, Millis>,
    next_sent: Millis,
    sent: BTreeMap<SeriesHash, Sent>,
    /// By their ends.
    acknowledged: HashSet<(SeriesHash, Millis)>,
    refusals: usize,
    given_up: usize,
    takeovers: usize,
    late: usize,
    interrupted: usize,
}

impl Sending {
    /// Of a node that has just started.
    fn totals(&self) -> Totals {
        match self.has_clock {
            true => Totals::without_clock_offset(9),
            false => Totals::new(9),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let at_once = [1, 4][random.random_range(0..2)];
        let sending = Sending {
            at_once,
            tried_max: if at_once == 1 { 30_000 } else { 7_000 },
            batch_max: [1, 3][random.random_range(0..2)],
            is_stepwise: random.random_bool(0.5),
            pauses: random.random_bool(0.5),
            omits_starts: random.random_bool(0.2),
            has_clock: seed % 4 == 3,
        };
        let node = || Node {
            totals: sending.totals(),
            incarnation: 0,
            held: None,
            away_until: 0,
        };
        let nodes = std::iter::repeat_with(node).take(NODES).collect();
        Self {
            random,
            now: 1_000_000,
            sending,
            nodes,
            lease: None,
            fencing: 0,
            replicas: Default::default(),
            writes: Vec::new(),
            requests: BTreeMap::new(),
            jobs: Vec::new(),
            storm: (1_000_000, 1_000_000),
            begins: (0..SERIES).map(|id| (series(id), 1_000_000)).collect(),
            next_sent: 1_000_000 + INTERVAL,
            sent: BTreeMap::new(),
            acknowledged: HashSet::new(),
            refusals: 0,
            given_up: 0,
            takeovers: 0,
            late: 0,
            interrupted: 0,
        }
    }

    fn run(&mut self) {
        let begun = self.now;
        while self.now < begun + SENT_UNTIL + SETTLED_AFTER {
            self.now += STEP;
            self.land();
            self.change_weather();
            (0..NODES).for_each(|node| self.disturb(node));
            if self.now < begun + SENT_UNTIL {
                self.make_deltas();
            }
            self.try_requests();
            for job in std::mem::take(&mut self.jobs) {
                self.work(job);
            }
        }
        // Everything comes to light that is not lost.
        self.now = NEVER - 1;
        self.land();
    }

    fn present(&self) -> Now {
        Now {
            boot: Duration::from_millis(self.now as u64),
            time: self.now,
            oldest: Millis::MIN,
        }
    }

    fn land(&mut self) {
        for write in &mut self.writes {
            for replica in 0..REPLICAS {
                if write.has_landed[replica] || write.lands[replica] > self.now {
                    continue;
                }
                write.has_landed[replica] = true;
                for (series, samples) in &write.samples {
                    let stored = self.replicas[replica].entry(*series).or_default();
                    samples.iter().for_each(|sample| put(stored, sample));
                }
            }
        }
    }

    fn change_weather(&mut self) {
        if self.now < self.storm.1 {
            return;
        }
        // Requests that overtake each other bear one change of the holder while they are repeated (see the decision).
        let calm_min = match self.sending.at_once {
            1 => 1_000,
            _ => self.sending.tried_max + TERM,
        };
        if let Some(lease) = self.lease
            && self.now < self.storm.1 + STEP
            && self.random.random_bool(0.7)
        {
            self.strike(lease.node);
        }
        let begin = self.now + self.random.random_range(calm_min..calm_min + 11_000);
        self.storm = (begin, begin + self.random.random_range(300..2_500));
    }

    /// Nodes pause, and die, also out of storms.
    fn disturb(&mut self, node: usize) {
        if self.sending.at_once == 1
            && self.now >= self.nodes[node].away_until
            && self.random.random_bool(STEP as f64 / 40_000.0)
        {
            self.strike(node);
        }
    }

    fn strike(&mut self, node: usize) {
        self.nodes[node].away_until = self.now + self.random.random_range(100..6_000);
        if self.random.random_bool(0.6) {
            let incarnation = self.nodes[node].incarnation + 1;
            self.nodes[node].totals = self.sending.totals();
            (self.nodes[node].incarnation, self.nodes[node].held) = (incarnation, None);
            let died = self.jobs.extract_if(.., |job| job.node == node);
            for job in died.collect::<Vec<_>>() {
                self.fail(job.request, job.attempt);
            }
        }
    }

    fn make_deltas(&mut self) {
        let is_busy = self.requests.len() >= self.sending.at_once + 2;
        if self.now < self.next_sent || is_busy {
            return;
        }
        self.next_sent = self.now + self.random.random_range(INTERVAL / 2..INTERVAL * 2);
        let mut batch = Batch::new();
        for id in 0..SERIES {
            if self.random.random_bool(0.1) {
                continue;
            }
            let deltas = self.deltas_of(series(id));
            batch.extend((!deltas.is_empty()).then_some((series(id), deltas)));
        }
        let number = self
            .requests
            .last_key_value()
            .map_or(0, |(last, _)| last + 1);
        let tried = self.random.random_range(2_000..self.sending.tried_max);
        let request = Request {
            batch,
            next: self.now,
            attempts: 0,
            given_up_at: self.now + tried,
        };
        self.requests.insert(number, request);
    }

    /// One or some deltas up to now.
    fn deltas_of(&mut self, series: SeriesHash) -> Vec<Sample> {
        let mut begin = self.begins[&series];
        if self.sending.pauses && self.random.random_bool(0.1) {
            begin += (self.now - begin) / 2;
        }
        let parts = self.random.random_range(1..=self.sending.batch_max) as Millis;
        let mut deltas = Vec::new();
        for part in 1..=parts {
            let time = begin + (self.now - begin) / (parts - part + 1);
            if time <= begin + 2 {
                continue;
            }
            let value = f64::from(self.random.random_range(0..20u8));
            let sent = self.sent.entry(series).or_default();
            sent.insert(time, (begin, value));
            let omits = self.sending.omits_starts && self.random.random_bool(0.3);
            deltas.push(Sample {
                start: if omits { 0 } else { begin },
                ..Sample::float(time, value)
            });
            begin = time;
        }
        self.begins.insert(series, begin);
        deltas
    }

    /// Sends requests, the oldest first or, where several are under way, in any order.
    fn try_requests(&mut self) {
        let now = self.now;
        let before = self.requests.len();
        self.requests.retain(|_, request| now < request.given_up_at);
        self.given_up += before - self.requests.len();
        let first = self.requests.keys().copied();
        for number in first.take(self.sending.at_once).collect::<Vec<_>>() {
            if self.requests[&number].next <= now && self.random.random_bool(0.3) {
                self.ask(number);
            }
        }
    }

    fn ask(&mut self, number: usize) {
        let Some(request) = self.requests.get_mut(&number) else {
            return;
        };
        request.attempts += 1;
        request.next = self.now + ANSWER_TIMEOUT;
        let (attempt, batch) = (request.attempts, request.batch.clone());
        let asked = self.random.random_range(0..NODES);
        let lease = self.lease.filter(|lease| self.now < lease.until);
        let node = lease.map_or(asked, |lease| lease.node);
        let is_away = |node: usize| self.now < self.nodes[node].away_until;
        let reached = !is_away(asked) && !is_away(node);
        let Some(fencing) = reached.then(|| self.hold(node)).flatten() else {
            return self.fail(number, attempt);
        };
        let leaves = self.random.random_bool(0.03);
        self.jobs.push(Job {
            request: number,
            attempt,
            batch,
            node,
            fencing,
            ticket: None,
            stage: Stage::Reserve,
            deadline: self.now + WRITE_TIMEOUT,
            dropped_at: match leaves {
                true => self.now + self.random.random_range(0..500),
                false => Millis::MAX,
            },
            taken: BTreeMap::new(),
            refused: HashSet::new(),
        });
    }

    /// Takes the lease, or renews it.
    fn hold(&mut self, node: usize) -> Option<u64> {
        let own = &mut self.nodes[node];
        let fencing = match self.lease {
            Some(lease) if (lease.node, lease.incarnation) == (node, own.incarnation) => {
                lease.fencing
            }
            Some(lease) if self.now < lease.until => return None,
            _ => {
                self.fencing += 1;
                self.takeovers += 1;
                self.fencing
            }
        };
        own.held = Some((fencing, self.now + TERM * 8 / 10));
        self.lease = Some(Lease {
            node,
            incarnation: own.incarnation,
            fencing,
            until: self.now + TERM,
        });
        Some(fencing)
    }

    /// Does what can be done for a request now.
    fn work(&mut self, mut job: Job) {
        if self.now < self.nodes[job.node].away_until {
            return self.jobs.push(job);
        }
        let is_late = self.now > job.deadline || self.now > job.dropped_at;
        let done = match is_late {
            true => Err(()),
            false => self.advance(&mut job),
        };
        if done.is_ok() && !matches!(job.stage, Stage::Done) {
            return self.jobs.push(job);
        }
        if let Some(ticket) = job.ticket {
            let all: Vec<SeriesHash> = job.batch.iter().map(|(series, _)| *series).collect();
            self.nodes[job.node].totals.end(ticket, &all);
        }
        // An answer may be lost on its way, or nobody waits for it any more.
        let request = self.requests.get(&job.request);
        let is_waited_for = request.is_some_and(|request| request.attempts == job.attempt);
        if done.is_err() || !is_waited_for || self.random.random_bool(0.05) {
            return self.fail(job.request, job.attempt);
        }
        self.requests.remove(&job.request);
        self.refusals += job.refused.len();
        for (series, deltas) in job.batch {
            let counted = deltas.iter().map(|delta| (series, delta.time));
            let counted = counted.filter(|delta| !job.refused.contains(delta));
            self.acknowledged.extend(counted);
        }
    }

    /// One step of a request. `Err`: it has to be sent again.
    fn advance(&mut self, job: &mut Job) -> Result<(), ()> {
        let (now, batch) = (self.present(), job.batch.clone());
        let all: Vec<SeriesHash> = batch.iter().map(|(series, _)| *series).collect();
        let totals = &mut self.nodes[job.node].totals;
        let is_current = totals.begin(job.fencing, now);
        match &job.stage {
            Stage::Reserve => {
                let ticket = *job.ticket.get_or_insert_with(|| totals.ask(&all));
                if is_current && totals.has_turn(ticket, &all) {
                    let mut unknown = batch.clone();
                    unknown.retain(|(one, deltas)| totals.lacks(*one, begin(deltas) - 1));
                    // All of a request are looked for from one time on.
                    let from = unknown.iter().map(|(_, deltas)| begin(deltas) - 1).min();
                    let from = from.unwrap_or(Millis::MAX);
                    let found = unknown.into_iter();
                    let found =
                        found.map(|(one, deltas)| (one, self.newest(one, from, deltas.len())));
                    let found = found.collect();
                    let known = self.now + self.random.random_range(10..300);
                    job.stage = Stage::ReadBack(from, found, known);
                }
                if is_current { Ok(()) } else { Err(()) }
            }
            Stage::ReadBack(.., known) if self.now < *known => Ok(()),
            Stage::ReadBack(..) if !is_current => Err(()),
            Stage::ReadBack(from, found, _) => {
                for (series, stored) in found {
                    // The next try begins with what was found of the others.
                    if self.random.random_bool(0.1) {
                        self.interrupted += 1;
                        return Err(());
                    }
                    let (stored, none) = (stored.clone(), DeletionVersion::default());
                    assert_eq!(totals.keep_found(*series, stored, *from, none, now), Ok(()));
                }
                for (series, deltas) in &batch {
                    if !totals.remembers(*series) {
                        assert_eq!(totals.recall(*series, deltas, now), Ok(()));
                    }
                }
                match self.write_unstored(job.node, &all) {
                    Some(write) => {
                        let is_all = false;
                        job.stage = Stage::Storing { write, is_all };
                        Ok(())
                    }
                    None => self.take(job, &batch),
                }
            }
            Stage::Storing { write, is_all } => {
                let landed = self.writes[*write].has_landed.iter();
                if landed.filter(|landed| **landed).count() < 2 {
                    return Ok(());
                }
                let is_all = *is_all;
                all.iter().for_each(|one| totals.stored(*one));
                match is_all {
                    true => {
                        job.stage = Stage::Done;
                        Ok(())
                    }
                    false if is_current => self.take(job, &batch),
                    false => Err(()),
                }
            }
            Stage::Done => Ok(()),
        }
    }

    /// Counts deltas of a request, a few of each series, while the lease is held, and begins to store what comes of them.
    fn take(&mut self, job: &mut Job, batch: &Batch) -> Result<(), ()> {
        let now = self.present();
        let node = &mut self.nodes[job.node];
        let is_held =
            |(fencing, until): &(u64, Millis)| *fencing == job.fencing && now.time < *until;
        if !node.held.as_ref().is_some_and(is_held) {
            return Err(());
        }
        let mut is_all = true;
        for (series, deltas) in batch {
            let before = *job.taken.entry(*series).or_default();
            let mut taken = before;
            // One by one, to know which are refused.
            let most = match self.sending.is_stepwise {
                true => self.random.random_range(1..=deltas.len()),
                false => deltas.len(),
            };
            for delta in deltas[before..].iter().take(most) {
                let (mut step, mut refused) = (Step::default(), Vec::new());
                let one = std::slice::from_ref(delta);
                let looked_at = node.totals.take(*series, one, now, &mut step, &mut refused);
                assert_eq!(looked_at, Some(1));
                taken += 1;
                if !refused.is_empty() {
                    job.refused.insert((*series, delta.time));
                }
            }
            job.taken.insert(*series, taken);
            is_all &= taken == deltas.len();
        }
        let all: Vec<SeriesHash> = batch.iter().map(|(series, _)| *series).collect();
        job.stage = match self.write_unstored(job.node, &all) {
            Some(write) => Stage::Storing { write, is_all },
            None if is_all => Stage::Done,
            None => return self.take(job, batch),
        };
        Ok(())
    }

    /// Sends what a majority may not have to the replicas.
    fn write_unstored(&mut self, node: usize, all: &[SeriesHash]) -> Option<usize> {
        let totals = &self.nodes[node].totals;
        let unstored = all.iter().map(|one| (*one, totals.unstored(*one).to_vec()));
        let samples: Batch = unstored
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        if samples.is_empty() {
            return None;
        }
        let is_calm = self.now < self.storm.0;
        let kind = self
            .random
            .random_range(if is_calm { 0..100 } else { 80..130 });
        let lucky = self.random.random_range(0..REPLICAS);
        let lands = std::array::from_fn(|replica| {
            let takes = match kind {
                0..85 => self.random.random_range(5..150),
                // A paused node, or a slow disk.
                85..95 => self.random.random_range(0..8_000),
                _ if replica == lucky => self.random.random_range(5..150),
                _ if self.random.random_bool(0.3) => return NEVER,
                _ => self.random.random_range(2_000..100_000),
            };
            self.now + takes
        });
        self.late += usize::from(kind >= 95);
        self.writes.push(Write {
            samples,
            lands,
            has_landed: [false; REPLICAS],
        });
        Some(self.writes.len() - 1)
    }

    /// The newest sample at `from` or later that two replicas have together, and those before, for so many deltas.
    fn newest(&mut self, series: SeriesHash, from: Millis, deltas: usize) -> Option<Stored> {
        let left_out = self.random.random_range(0..REPLICAS);
        let asked = (0..REPLICAS).filter(|replica| *replica != left_out);
        let mut both = Samples::new();
        for (time, value) in asked
            .filter_map(|replica| self.replicas[replica].get(&series))
            .flat_map(|samples| samples.range(from - ZERO_BEFORE_MAX..))
        {
            put(&mut both, &Sample::float(*time, *value));
        }
        newest_of(&both, from, deltas)
    }

    /// The request is sent again.
    fn fail(&mut self, number: usize, attempt: usize) {
        let pause = self.random.random_range(200..2_500);
        if let Some(request) = self.requests.get_mut(&number)
            && request.attempts == attempt
        {
            request.next = self.now + pause;
        }
    }

    fn check(&self, seed: u64) {
        for id in 0..SERIES {
            // All replicas, and what is left when one is lost.
            for lost in 0..=REPLICAS {
                self.check_series(series(id), lost, &format!("seed {seed}, series {id}"));
            }
        }
        let in_order = self.sending.at_once == 1 && self.sending.batch_max == 1;
        let refusals = self.refusals;
        assert!(
            !in_order || refusals == 0,
            "seed {seed}: {refusals} refused"
        );
    }

    fn check_series(&self, series: SeriesHash, lost: usize, name: &str) {
        let mut all = Samples::new();
        let replicas = self.replicas.iter().enumerate();
        for (_, replica) in replicas.filter(|(number, _)| *number != lost) {
            for (time, value) in replica.get(&series).into_iter().flatten() {
                put(&mut all, &Sample::float(*time, *value));
            }
        }
        let sent = self.sent.get(&series);
        let is_acknowledged = |end| self.acknowledged.contains(&(series, end));
        let checked = check_rises(&all, sent.unwrap_or(&Sent::new()), is_acknowledged);
        assert_eq!(checked, Ok(()), "{name}, without {lost}");
    }

    fn sum_of(&self, is_meant: impl Fn(&(SeriesHash, Millis)) -> bool) -> f64 {
        let series = self.sent.iter();
        let all = series.flat_map(|(series, sent)| sent.iter().map(|sent| (*series, sent)));
        let meant = all.filter(|(series, (end, _))| is_meant(&(*series, **end)));
        meant.map(|(_, (_, (_, value)))| value).sum()
    }
}

/// What is found of a series for so many deltas: its newest sample at `from` or later, and those before.
fn newest_of(samples: &Samples, from: Millis, deltas: usize) -> Option<Stored> {
    let newest = samples.iter().rev().take(newest_for(deltas).into());
    let newest = newest.map(|(time, value)| Sample::float(*time, *value));
    let mut newest: Vec<Sample> = newest.collect();
    newest.reverse();
    Stored::of(newest).filter(|stored| stored.time() >= from)
}

fn series(id: u64) -> SeriesHash {
    SeriesHash(u128::from(id))
}

/// Where the first of some deltas begins.
fn begin(deltas: &[Sample]) -> Millis {
    let begins = deltas.iter().map(start_of);
    begins.min().unwrap_or(Millis::MAX)
}

fn number(sample: &Sample) -> f64 {
    match &sample.value {
        SampleValue::Float(value) => *value,
        SampleValue::Histogram(histogram) => histogram.count,
    }
}

/// Whether a counter has risen within each acknowledged delta by its value, within each other one by its value at most, and
/// nowhere else; but for deltas in front that were not acknowledged, and whose totals are lost.
fn check_rises(
    all: &Samples,
    sent: &Sent,
    is_acknowledged: impl Fn(Millis) -> bool,
) -> Result<(), String> {
    let (mut elsewhere, mut owed) = (all.clone(), 0.0);
    for (end, (begin, value)) in sent {
        let within = all.range(begin + 1..=*end);
        for (time, _) in within.clone() {
            elsewhere.remove(time);
        }
        let before = all.range(..=begin).next_back().map_or(0.0, |last| *last.1);
        let mut risen = 0.0;
        within.fold(before, |last, (_, value)| {
            risen += if *value >= last { value - last } else { *value };
            *value
        });
        let least = if is_acknowledged(*end) { *value } else { 0.0 };
        let is_right = (least..=owed + value).contains(&risen);
        // A total behind one that is lost has the rises of both.
        owed = match all.contains_key(end) {
            true => 0.0,
            false => owed + value,
        };
        if !is_right {
            let near: Vec<_> = all
                .range(begin - 5 * INTERVAL..=end + 5 * INTERVAL)
                .collect();
            return Err(format!(
                "{value} from {begin} to {end}, risen by {risen}: {near:?}"
            ));
        }
    }
    match elsewhere.is_empty() {
        true => Ok(()),
        false => Err(format!("outside of all deltas: {elsewhere:?}")),
    }
}

/// Of two values of one time the store keeps the greater.
fn put(stored: &mut Samples, sample: &Sample) {
    let value = number(sample);
    let kept = stored.entry(sample.time).or_insert(value);
    *kept = kept.max(value);
}

#[test]
fn counters_rise_by_what_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let one: Option<u64> = number("TREFOIL_SIM_SEED");
    let count = number("TREFOIL_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let (mut takeovers, mut late, mut given_up, mut refusals, mut interrupted) = (0, 0, 0, 0, 0);
    // Of requests that are counted at once, and in steps, each of which needs a majority.
    let mut sums = [(0.0, 0.0); 2];
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        world.run();
        world.check(seed);
        takeovers += world.takeovers;
        late += world.late;
        given_up += world.given_up;
        refusals += world.refusals;
        interrupted += world.interrupted;
        let (sent, acknowledged) = &mut sums[usize::from(world.sending.is_stepwise)];
        *sent += world.sum_of(|_| true);
        *acknowledged += world.sum_of(|delta| world.acknowledged.contains(delta));
    }
    if one.is_none() {
        // The schedules must have struck.
        let all = (seeds.end - seeds.start) as usize;
        assert!(
            takeovers >= 2 * all
                && late >= 5 * all
                && given_up >= all / 2
                && refusals >= all
                && interrupted >= all / 2,
            "{all} schedules, {takeovers} holders, {late} late, {given_up} given up, {refusals} refused, {interrupted} interrupted"
        );
        for ((sent, acknowledged), least) in sums.into_iter().zip([0.7, 0.6]) {
            let is_enough = acknowledged >= least * sent;
            assert!(is_enough, "{acknowledged} of {sent}, not {least} of it");
        }
    }
}

#[cfg(test)]
mod schedules;
