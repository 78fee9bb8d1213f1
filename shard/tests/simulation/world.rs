//! The simulated cluster: one queue of events in virtual time, a network that loses, repeats, delays and
//! reorders, and the drivers of all nodes. Everything follows from the seed.

use crate::{
    client::{Client, Ticket},
    coverage::{Coverage, Seen},
    dice::Dice,
    node::{SimNode, TENANT},
    plane::{Metadata, Plane},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
    time::Duration,
};
use trefoil_model::{
    DeletionVersion, Incarnation, LineageId, NodeId, OwnerSet, ShardSet, TimeRange, Window,
};
use trefoil_shard::{
    Action, Alarm, CopyAnswerStep, Envelope, Event, Faults, Message, Offset, Proposal, PushOutcome,
    QueryReady, Settings, ShardDigest, movement::MovementSettings,
};

/// How the network treats messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages.
    pub(crate) lost: u64,
    /// Of a thousand messages.
    pub(crate) repeated: u64,
    /// Of a thousand messages: delayed by up to 100 ms, so that others overtake them.
    pub(crate) late: u64,
    /// Of a thousand messages: delivered to another node, whose address was swapped with the receiver's.
    pub(crate) misdelivered: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum What {
    Tick(usize, Incarnation),
    Feed(usize, Incarnation, Event),
    Deliver(usize, Envelope, Message),
    Meet(usize, usize),
    Sync(usize, Incarnation),
    Apply(usize, Incarnation),
    Resolve(usize, Incarnation),
    Metadata(usize, Incarnation, Metadata),
    Propose(NodeId, Proposal),
    Report(NodeId, trefoil_shard::ReplicaReport),
    Lead,
    Client(Ticket),
}

struct Due {
    at: Duration,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (Reverse(self.at), Reverse(self.order)).cmp(&(Reverse(other.at), Reverse(other.order)))
    }
}

/// What a schedule starts with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) nodes: u64,
    /// How many of the nodes own all shards at first.
    pub(crate) owners: u64,
    pub(crate) shards: u16,
    /// Whether nodes compare what they store.
    pub(crate) scrubs: bool,
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    pub(crate) movement: MovementSettings,
    pub(crate) weather: Weather,
}

impl Setup {
    /// Three nodes that own everything, in good weather.
    pub(crate) fn three() -> Self {
        let millis = Duration::from_millis;
        Self {
            nodes: 3,
            owners: 3,
            shards: 4,
            scrubs: true,
            settings: Settings {
                tick: millis(10),
                barrier_interval: millis(100),
                barrier_timeout: millis(60),
                push_grace: millis(3),
                hedge_after: millis(15),
                push_retry: millis(50),
                fetch_retry: millis(50),
                repeat_interval: millis(100),
                export_idle: millis(1500),
                scrub_interval: millis(300),
                deletion_grace: millis(400),
                positions_interval: millis(500),
                ..Settings::default()
            },
            faults: Faults::default(),
            movement: MovementSettings::default(),
            weather: Weather::default(),
        }
    }
}

/// The cluster.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) dice: Dice,
    pub(crate) setup: Setup,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) plane: Plane,
    pub(crate) client: Client,
    pub(crate) weather: Weather,
    /// Directed links that are cut.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that learn nothing from the metadata plane and cannot reach it.
    pub(crate) without_plane: BTreeSet<NodeId>,
    /// Nodes that can speak to the metadata plane but learn nothing.
    pub(crate) deaf: BTreeSet<NodeId>,
    pub(crate) coverage: Coverage,
    /// A node whose disk takes so many milliseconds for every sync.
    pub(crate) slow_disk: Option<(usize, u64)>,
    /// The story ends in a state of which nothing is promised.
    pub(crate) skip_rest: bool,
    /// Whether to print what happens.
    pub(crate) story: bool,
    queue: BinaryHeap<Due>,
    order: u64,
    incarnations: u128,
}

impl World {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
        let lineage = |id: u64| LineageId(1_000_000 + u128::from(id));
        let ids = 1..=setup.nodes;
        let owners: OwnerSet = (1..=setup.owners).map(NodeId).collect();
        let lineages = ids.clone().map(|id| (NodeId(id), lineage(id))).collect();
        let mut world = Self {
            now: Duration::from_millis(1),
            dice: Dice::new(seed),
            nodes: ids
                .map(|id| SimNode::new(NodeId(id), lineage(id)))
                .collect(),
            plane: Plane::new(setup.shards, &owners, lineages, setup.movement.clone()),
            client: Client::default(),
            weather: setup.weather,
            cut: BTreeSet::new(),
            without_plane: BTreeSet::new(),
            deaf: BTreeSet::new(),
            coverage: Coverage::default(),
            story: std::env::var_os("TREFOIL_SIM_SEED").is_some(),
            slow_disk: None,
            skip_rest: false,
            queue: BinaryHeap::new(),
            order: 0,
            incarnations: 0,
            setup,
        };
        for index in 0..world.nodes.len() {
            world.start(index);
        }
        world.after(Duration::from_millis(50), What::Lead);
        world
    }

    pub(crate) fn index(&self, node: NodeId) -> usize {
        node.0 as usize - 1
    }

    pub(crate) fn shards(&self) -> ShardSet {
        ShardSet::all(self.setup.shards)
    }

    pub(crate) fn after(&mut self, delay: Duration, what: What) {
        self.order += 1;
        self.queue.push(Due {
            at: self.now + delay,
            order: self.order,
            what,
        });
    }

    fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.dice.within(from, to))
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while self.queue.peek().is_some_and(|due| due.at <= until) {
            if let Some(due) = self.queue.pop() {
                self.now = due.at;
                self.happen(due.what);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick(index, run) => {
                if self.runs(index, run) && self.nodes[index].tick_at == Some(self.now) {
                    self.nodes[index].tick_at = None;
                    self.feed(index, Event::Tick);
                    self.confirm_deletions(index);
                    if self.nodes[index].paused.is_some() {
                        self.tick_at(index, self.now + self.setup.settings.tick);
                    }
                }
            }
            What::Feed(index, run, event) => {
                if self.runs(index, run) {
                    self.feed(index, event);
                }
            }
            What::Deliver(index, envelope, message) => {
                if self.nodes[index].takes_items || !brings_items(&message) {
                    self.feed(index, Event::Message(envelope, message));
                }
            }
            What::Meet(here, there) => {
                let event = Event::PeerUp {
                    node: self.nodes[there].id,
                    incarnation: self.nodes[there].incarnation,
                };
                self.feed(here, event);
            }
            What::Sync(index, run) => self.sync(index, run),
            What::Apply(index, run) => {
                if self.runs(index, run) && self.nodes[index].paused.is_none() {
                    self.nodes[index].apply_durable();
                    let end = self.nodes[index].applied;
                    self.feed(index, Event::Applied { end });
                }
            }
            What::Resolve(index, run) => {
                if self.runs(index, run) {
                    self.nodes[index].resolve();
                }
            }
            What::Metadata(index, run, metadata) => {
                if self.runs(index, run) {
                    self.learn(index, &metadata);
                }
            }
            What::Propose(node, Proposal::RecordAmnesia { shards, lineage }) => {
                if self.plane.record_amnesia(node, shards.as_ref(), lineage) {
                    self.coverage.note(Seen::AmnesiaRecorded);
                }
                self.publish();
            }
            What::Report(node, report) => {
                self.plane.reports.insert(node, report);
            }
            What::Lead => {
                let (finished, abandoned) = self.plane.lead(self.now);
                self.coverage.count(Seen::MovementFinished, finished);
                self.coverage.count(Seen::MovementAbandoned, abandoned);
                if finished + abandoned > 0 {
                    self.publish();
                }
                for index in 0..self.nodes.len() {
                    self.publish_to(index);
                    self.offer_windows(index);
                }
                self.after(Duration::from_millis(100), What::Lead);
            }
            What::Client(ticket) => self.on_ticket(ticket),
        }
    }

    pub(crate) fn runs(&self, index: usize, run: Incarnation) -> bool {
        self.nodes[index].is_up() && self.nodes[index].incarnation == run
    }

    pub(crate) fn tell(&self, index: usize, what: &str) {
        if self.story {
            println!("{:?} node {} {what}", self.now, index + 1);
        }
    }

    // --- processes ---

    pub(crate) fn start(&mut self, index: usize) {
        if self.nodes[index].is_up() {
            return;
        }
        self.tell(index, "starts");
        self.incarnations += 1;
        let run = Incarnation(self.incarnations << 64 | 0xabc);
        let (settings, faults) = (self.setup.settings.clone(), self.setup.faults);
        let before = self.nodes[index].journal.end;
        let actions = self.nodes[index].start(self.now, run, &settings, faults);
        self.tell_step(index, before, &actions);
        self.act(index, actions);
        // What was marked may have been marked before its loss was durably known.
        for lost in self.nodes[index].manifest.damaged.clone() {
            let (shards, range) = (lost.shards, lost.range);
            self.feed(index, Event::Damaged { shards, range });
        }
        let jitter = self.micros(1, 10_000);
        self.nodes[index].tick_at = None;
        self.tick_at(index, self.now + jitter);
        for other in 0..self.nodes.len() {
            if other != index && self.nodes[other].is_up() {
                self.meet(index, other);
                self.meet(other, index);
            }
        }
        self.publish_to(index);
    }

    /// `here` hears of the run of `there`.
    fn meet(&mut self, here: usize, there: usize) {
        let delay = self.micros(100, 5000);
        self.after(delay, What::Meet(here, there));
    }

    /// The process is killed.
    pub(crate) fn kill(&mut self, index: usize) {
        self.tell(index, "is killed");
        if self.nodes[index].is_up() {
            self.coverage.note(Seen::Kill);
        }
        self.nodes[index].stop(None);
        self.client.forget_node(index);
    }

    /// The power fails: a part of what was not synced is lost.
    pub(crate) fn power_cut(&mut self, index: usize) {
        self.tell(index, "loses power");
        let mut dice = Dice::new(self.dice.next());
        let node = &mut self.nodes[index];
        if node.is_up() {
            self.coverage.note(Seen::PowerCut);
        }
        let end = node.journal.end;
        node.stop(Some(&mut dice));
        if node.journal.end < end {
            self.coverage.note(Seen::UnsyncedTailLost);
        }
        self.client.forget_node(index);
    }

    /// The power fails, and all that was not synced is lost.
    pub(crate) fn power_cut_hard(&mut self, index: usize) {
        self.tell(index, "loses power");
        self.nodes[index].lose_tail();
        self.client.forget_node(index);
    }

    /// The disk is replaced by its backup; the process does not run.
    pub(crate) fn restore(&mut self, index: usize) {
        self.tell(index, "gets an old copy of its disk");
        let node = &mut self.nodes[index];
        if let Some(backup) = node.backup.take() {
            self.coverage.note(Seen::OldCopyRestored);
            node.journal = backup.journal;
            node.manifest = backup.manifest;
        }
    }

    pub(crate) fn wipe(&mut self, index: usize) {
        self.kill(index);
        let lineage = LineageId(u128::from(self.dice.next()));
        self.nodes[index].wipe(lineage);
        self.coverage.note(Seen::DiskLost);
    }

    pub(crate) fn pause(&mut self, index: usize) {
        if self.nodes[index].is_up() {
            self.nodes[index].paused.get_or_insert_default();
            self.coverage.note(Seen::Pause);
        }
    }

    pub(crate) fn resume(&mut self, index: usize) {
        for event in self.nodes[index].paused.take().unwrap_or_default() {
            self.feed(index, event);
        }
        let run = self.nodes[index].incarnation;
        if self.nodes[index].is_up() {
            self.after(Duration::ZERO, What::Apply(index, run));
        }
    }

    pub(crate) fn flush(&mut self, index: usize) {
        if self.nodes[index].paused.is_some() {
            return;
        }
        if let Some(flushed) = self.nodes[index].flush() {
            self.coverage.note(Seen::Flush);
            let (durable, applied) = (self.nodes[index].journal.durable, self.nodes[index].applied);
            self.feed(index, Event::Durable { end: durable });
            self.feed(index, Event::Applied { end: applied });
            self.feed(index, flushed);
        }
    }

    // --- the driver ---

    pub(crate) fn feed(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        if let Some(waiting) = &mut node.paused {
            if !matches!(event, Event::Tick) {
                waiting.push(event);
            }
            return;
        }
        let Some(core) = &mut node.core else {
            return;
        };
        let mut out = Vec::new();
        let told = self.story && !matches!(event, Event::Tick | Event::Applied { .. });
        if told {
            println!("{:?} node {} <- {event:?}", self.now, index + 1);
        }
        let before = node.journal.end;
        core.step(self.now, event, &mut node.journal, &mut out);
        let next_tick = core.next_tick();
        self.tell_step(index, before, &out);
        self.act(index, out);
        self.tick_at(index, next_tick);
    }

    /// The driver wakes then, unless it wakes sooner.
    fn tick_at(&mut self, index: usize, at: Duration) {
        let at = at.max(self.now + Duration::from_micros(1));
        let node = &mut self.nodes[index];
        if node.tick_at.is_none_or(|known| at < known) {
            node.tick_at = Some(at);
            let run = node.incarnation;
            self.after(at - self.now, What::Tick(index, run));
        }
    }

    /// Tells what a step did.
    fn tell_step(&self, index: usize, before: Offset, actions: &[Action]) {
        if !self.story {
            return;
        }
        let records = self.nodes[index].journal.records.iter();
        for (span, record) in records.filter(|(span, _)| span.end > before) {
            println!("    {}: journal {}: {record:?}", index + 1, span.end.0);
        }
        for action in actions {
            println!("    {}: {action:?}", index + 1);
        }
    }

    fn act(&mut self, index: usize, actions: Vec<Action>) {
        let run = self.nodes[index].incarnation;
        // What is noticed while actions are carried out is said to the core behind the last of them.
        let mut noticed = Vec::new();
        for action in actions {
            match action {
                Action::Send(envelope, message) => self.send(envelope, message),
                Action::FinishWrite { request, outcome } => {
                    self.client.finish_write(self.now, request, outcome);
                }
                Action::QueryReady(ready) => noticed.extend(self.evaluate(index, ready)),
                Action::Read { read, records } => {
                    let records = self.nodes[index].read_journal(&records);
                    let delay = self.micros(50, 1000);
                    let event = Event::JournalRead { read, records };
                    self.after(delay, What::Feed(index, run, event));
                }
                Action::OpenExport {
                    export,
                    shards,
                    range,
                } => {
                    let read = (shards.clone(), range.unwrap_or(crate::node::EVER));
                    let event = if self.meets_damage(index, &read.0, read.1) {
                        noticed.push(read);
                        Event::ExportFailed { export }
                    } else {
                        self.nodes[index].pin(export, &shards, range);
                        let covers = self.nodes[index].applied;
                        Event::ExportOpened { export, covers }
                    };
                    self.after(Duration::from_micros(100), What::Feed(index, run, event));
                }
                Action::Export { export, cursor, .. } => self.export(index, export, cursor),
                Action::CloseExport { export } => {
                    self.nodes[index].exports.remove(&export);
                }
                Action::Propose(proposal) => {
                    let node = self.nodes[index].id;
                    if !self.without_plane.contains(&node) {
                        let delay = self.micros(1000, 60_000);
                        self.after(delay, What::Propose(node, proposal));
                    }
                }
                Action::Report(report) => {
                    let node = self.nodes[index].id;
                    if !self.without_plane.contains(&node) && !self.dice.chance(self.weather.lost) {
                        let delay = self.micros(500, 60_000);
                        self.after(delay, What::Report(node, report));
                    }
                }
                Action::RefreshMetadata => self.publish_to(index),
                Action::Trim { below } => {
                    self.coverage.note(Seen::Trim);
                    self.nodes[index].trim(below);
                }
                Action::Digest { id, shards, window } => {
                    self.coverage.note(Seen::WindowScrubbed);
                    let digests = if self.meets_damage(index, &shards, window.range()) {
                        noticed.push((shards, window.range()));
                        Vec::new()
                    } else {
                        self.digests(index, &shards, window)
                    };
                    let event = Event::Digests { id, digests };
                    self.after(Duration::from_micros(200), What::Feed(index, run, event));
                }
                Action::Repaired { .. } => {
                    self.coverage.note(Seen::DamageRepaired);
                    let delay = self.micros(0, 5000);
                    self.after(delay, What::Resolve(index, run));
                }
                Action::Alarm(Alarm::RestoredCopy { .. }) => {
                    self.coverage.note(Seen::OldCopyNoticed);
                }
                Action::Alarm(_) | Action::RoutingChanged(_) => {}
            }
        }
        self.want_sync(index);
        for (shards, range) in noticed {
            self.notice_damage(index, &shards, range);
        }
    }

    fn want_sync(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.syncing.is_none() && node.journal.end > node.journal.durable {
            node.syncing = Some(node.journal.end);
            let run = node.incarnation;
            let delay = match self.slow_disk {
                Some((slow, millis)) if slow == index => Duration::from_millis(millis),
                _ => self.micros(100, 4000),
            };
            self.after(delay, What::Sync(index, run));
        }
    }

    fn sync(&mut self, index: usize, run: Incarnation) {
        if !self.runs(index, run) {
            return;
        }
        let node = &mut self.nodes[index];
        let Some(end) = node.syncing.take() else {
            return;
        };
        node.journal.durable = node.journal.durable.max(end);
        let end = node.journal.durable;
        self.feed(index, Event::Durable { end });
        let delay = self.micros(10, 2000);
        self.after(delay, What::Apply(index, run));
        self.want_sync(index);
    }

    fn export(&mut self, index: usize, export: trefoil_shard::ExportId, cursor: u64) {
        const PIECES: usize = 2;
        let run = self.nodes[index].incarnation;
        let event = match self.nodes[index].exports.get(&export) {
            None => Event::ExportFailed { export },
            Some(pieces) => {
                let from = cursor as usize * PIECES;
                let to = (from + PIECES).min(pieces.len());
                Event::Exported {
                    export,
                    cursor,
                    items: pieces.get(from..to).unwrap_or_default().to_vec(),
                    next: (to < pieces.len()).then_some(cursor + 1),
                }
            }
        };
        let delay = self.micros(100, 3000);
        self.after(delay, What::Feed(index, run, event));
    }

    /// A store offers its windows for scrubbing.
    fn offer_windows(&mut self, index: usize) {
        if self.setup.scrubs {
            let windows = [0, crate::store::WINDOW].map(Window::containing);
            self.feed(index, Event::Windows(windows.to_vec()));
        }
    }

    fn digests(&self, index: usize, shards: &ShardSet, window: Window) -> Vec<ShardDigest> {
        let store = &self.nodes[index].store;
        let mut sums: BTreeMap<_, u128> = shards.iter().map(|shard| (shard, 0)).collect();
        let items: BTreeSet<_> = store.read(shards, window.range()).collect();
        for item in items {
            let sum = sums.entry(item.shard).or_default();
            *sum = sum.wrapping_add(u128::from(Dice::new(u64::from(item.id)).next()));
        }
        let digest = |(shard, digest)| ShardDigest {
            shard,
            digest,
            epoch: self.nodes[index].known_deletion.0,
        };
        sums.into_iter().map(digest).collect()
    }

    /// Tells the core of the unreadable blocks that reading these would meet.
    pub(crate) fn notice_damage(&mut self, index: usize, shards: &ShardSet, range: TimeRange) {
        if self.setup.faults.damage_ignored {
            return;
        }
        while let Some(lost) = self.nodes[index].store.notice(shards, range) {
            let event = Event::Damaged {
                shards: lost.shards.clone(),
                range: lost.range,
            };
            self.coverage.note(Seen::DamageNoticed);
            self.feed(index, event);
            self.nodes[index].mark(lost);
        }
    }

    fn meets_damage(&self, index: usize, shards: &ShardSet, range: TimeRange) -> bool {
        let store = &self.nodes[index].store;
        store.meets_damage(shards, range) && !self.setup.faults.damage_ignored
    }

    /// Evaluates a part. Gives what was read if a block of it is unreadable.
    fn evaluate(&mut self, index: usize, ready: QueryReady) -> Option<(ShardSet, TimeRange)> {
        let range = self.client.range_of(ready.query)?;
        let damaged = self.meets_damage(index, &ready.complete, range);
        let (complete, refused) = match damaged {
            true => (ShardSet::new(), ready.complete.union(&ready.refused)),
            false => (ready.complete.clone(), ready.refused),
        };
        let items = self.nodes[index].store.read(&complete, range);
        let ticket = Ticket::Part {
            query: ready.query,
            evaluator: self.nodes[index].id,
            items: items.collect(),
            complete,
            refused,
        };
        let delay = self.micros(100, 2000);
        self.after(delay, What::Client(ticket));
        damaged.then_some((ready.complete, range))
    }

    // --- the network and the metadata plane ---

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    fn send(&mut self, envelope: Envelope, message: Message) {
        if matches!(&message, Message::PushAck(ack) if ack.outcome == PushOutcome::Outdated) {
            self.coverage.note(Seen::OutdatedPushRefused);
        }
        if self.is_cut(envelope.from, envelope.to) {
            self.coverage.note(Seen::MessageCutOff);
            return;
        }
        if self.dice.chance(self.weather.lost) {
            self.coverage.note(Seen::MessageLost);
            return;
        }
        let mut copies = 1;
        if self.dice.chance(self.weather.repeated) {
            self.coverage.note(Seen::MessageRepeated);
            copies = 2;
        }
        for _ in 0..copies {
            let mut delay = self.micros(100, 2000);
            if self.dice.chance(self.weather.late) {
                self.coverage.note(Seen::MessageLate);
                delay = self.micros(2000, 100_000);
            }
            let mut to = self.index(envelope.to);
            if self.dice.chance(self.weather.misdelivered) {
                self.coverage.note(Seen::MessageMisdelivered);
                to = self.dice.below(self.nodes.len() as u64) as usize;
            }
            self.after(delay, What::Deliver(to, envelope, message.clone()));
        }
    }

    /// Everybody learns the plane's state, each in its time.
    pub(crate) fn publish(&mut self) {
        for index in 0..self.nodes.len() {
            self.publish_to(index);
        }
    }

    pub(crate) fn publish_to(&mut self, index: usize) {
        let node = self.nodes[index].id;
        let unreachable = self.without_plane.contains(&node) || self.deaf.contains(&node);
        if unreachable || !self.nodes[index].is_up() {
            return;
        }
        let slow = if self.dice.chance(100) {
            300_000
        } else {
            20_000
        };
        let delay = self.micros(200, slow);
        let metadata = self.plane.now.clone();
        let run = self.nodes[index].incarnation;
        self.after(delay, What::Metadata(index, run, metadata));
    }

    fn learn(&mut self, index: usize, metadata: &Metadata) {
        if self.nodes[index].paused.is_some() {
            return;
        }
        let newest = DeletionVersion(metadata.classes.len() as u64);
        let node = &mut self.nodes[index];
        node.store.forget(newest, metadata.forgotten);
        node.takes_items = true;
        let confirmed = metadata.confirmed.get(&node.id).copied();
        let confirmed = confirmed.unwrap_or_default().max(metadata.forgotten);
        let deletions = [(TENANT, confirmed)].into();
        let pending = metadata.forgotten < newest;
        self.feed(index, Event::Confirmed { deletions, pending });
        for (number, class) in metadata.classes.iter().enumerate() {
            let version = DeletionVersion(number as u64 + 1);
            if version > metadata.forgotten {
                self.nodes[index].store.learn(version, *class);
            }
            let known = &mut self.nodes[index].known_deletion;
            *known = version.max(*known);
        }
        let event = Event::Metadata {
            table: Arc::clone(&metadata.table),
            deletions: Arc::clone(&metadata.deletions),
        };
        self.feed(index, event);
    }

    fn confirm_deletions(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.paused.is_some() || self.without_plane.contains(&node.id) {
            return;
        }
        let (id, applied) = (node.id, node.applied_deletion());
        if let Some(version) = applied {
            let before = self.plane.now.confirmed.get(&id).copied();
            if self.plane.confirm(id, version) {
                self.coverage.note(Seen::DeletionForgotten);
            }
            if before < Some(version) {
                self.publish();
            }
        }
    }

    pub(crate) fn delete(&mut self, class: u8) {
        self.coverage.note(Seen::Deletion);
        self.plane.delete(TENANT, class);
        self.publish();
    }
}

fn brings_items(message: &Message) -> bool {
    match message {
        Message::Push(_) | Message::FetchAnswer { .. } => true,
        Message::CopyAnswer { step, .. } => matches!(step, CopyAnswerStep::Chunk { .. }),
        _ => false,
    }
}
