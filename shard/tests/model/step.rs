//! What can happen, and what it does: the rules of replication for one shard.
//!
//! An event is one exchange between two nodes or one local event, and is atomic. Pauses, partitions, lost
//! messages and crashes with an intact disk need no events: they are schedules in which something does not
//! happen, or happens late.

use crate::rules::{Bounds, Fault, ImportSkip, Rules};
use crate::state::{
    Items, NODES, Node, NodeSet, Number, Position, ROWS_MAX, Record, Replica, Row, State, Trust,
    Write, node_name,
};
use std::fmt;

/// Most partners that a query needs: one of the old and one of the new owners.
const PARTNERS_MAX: u32 = 2;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The leader begins the change to these owners.
    Begin(NodeSet),
    /// The leader finishes the change: the new owners are the owners.
    Finish,
    /// The leader abandons the change.
    Abandon,
    /// A node learns a configuration from the metadata plane.
    Follow(Node, Number),
    /// A coordinator that knows this configuration (re)tries the write.
    Try(usize, Number),
    /// An owner stores and acknowledges the write.
    Push(usize, Node),
    /// A node catches up with another one in the background.
    CatchUp(Node, Node),
    /// A node copies another one's blocks, although it could still read that one's trimmed journal.
    Copy(Node, Node),
    /// A node flushes its head and trims its journal.
    Trim(Node),
    /// A query arrives at its evaluator and has its barriers with these partners.
    Query(Node, NodeSet),
    /// A node's disk is lost, and the loss is recorded.
    LoseDisk(Node),
    /// A former owner drops its replica.
    Drop(Node),
    /// A crash makes a node forget what it followed (planted).
    Crash(Node),
    /// A barrier about other shards (planted: its position counts for this one).
    OtherShards(Node, Node),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &Node| node_name(*node);
        match self {
            Self::Begin(owners) => write!(f, "begin change to {owners:?}"),
            Self::Finish => write!(f, "finish"),
            Self::Abandon => write!(f, "abandon"),
            Self::Follow(node, number) => write!(f, "{} follows {number}", name(node)),
            Self::Try(write, number) => write!(f, "w{write} is tried under {number}"),
            Self::Push(write, node) => write!(f, "{} acknowledges w{write}", name(node)),
            Self::CatchUp(a, b) => write!(f, "{} catches up with {}", name(a), name(b)),
            Self::Copy(a, b) => write!(f, "{} copies from {}", name(a), name(b)),
            Self::Trim(node) => write!(f, "{} trims", name(node)),
            Self::Query(node, with) => write!(f, "query at {} with {with:?}", name(node)),
            Self::LoseDisk(node) => write!(f, "{} LOSES ITS DISK", name(node)),
            Self::Drop(node) => write!(f, "{} drops its replica", name(node)),
            Self::Crash(node) => write!(f, "{} crashes and forgets", name(node)),
            Self::OtherShards(a, b) => write!(f, "{} and {} share other shards", name(a), name(b)),
        }
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// D1: no node has an acknowledged item any more, although disks were lost one at a time.
    Lost,
    /// D2: an evaluation lacks an item that was acknowledged before the query began.
    Incomplete,
}

/// What became of an event.
pub(crate) enum Outcome {
    /// It cannot happen, is refused, or changes nothing.
    Nothing,
    /// It does not fit into the model's bounded journals.
    Clipped,
    /// It happened.
    Next(Box<State>),
    /// It happened and broke a promise.
    Broken(Violation),
}

/// Every event that bounds allow.
pub(crate) fn events(bounds: &Bounds) -> Vec<Event> {
    let rows = (1 + 2 * bounds.changes.len() + usize::from(bounds.losses)) as Number;
    let mut events = vec![Event::Finish, Event::Abandon];
    events.extend(bounds.changes.iter().map(|owners| Event::Begin(*owners)));
    for write in 0..usize::from(bounds.writes) {
        let tried = |number: &Number| bounds.tries.is_none_or(|tries| tries.contains(number));
        events.extend(
            (0..rows)
                .filter(tried)
                .map(|number| Event::Try(write, number)),
        );
        events.extend((0..NODES).map(|node| Event::Push(write, node)));
    }
    for a in 0..NODES {
        events.extend((1..rows).map(|number| Event::Follow(a, number)));
        events.extend([
            Event::LoseDisk(a),
            Event::Trim(a),
            Event::Drop(a),
            Event::Crash(a),
        ]);
        for b in (0..NODES).filter(|b| *b != a) {
            events.extend([
                Event::CatchUp(a, b),
                Event::Copy(a, b),
                Event::OtherShards(a, b),
            ]);
        }
        let partners = (0..1u8 << NODES).map(NodeSet).filter(|set| !set.has(a));
        let few = partners.filter(|set| (1..=PARTNERS_MAX).contains(&set.len()));
        events.extend(few.map(|set| Event::Query(a, set)));
    }
    events
}

/// Lets an event happen.
pub(crate) fn step(state: &State, event: Event, rules: &Rules, bounds: &Bounds) -> Outcome {
    let mut next = Step {
        state: *state,
        rules,
        bounds,
        clipped: false,
        broken: None,
    };
    let happened = next.apply(event);
    if next.clipped {
        return Outcome::Clipped;
    }
    let broken = next.broken.or_else(|| next.lost());
    next.forget_what_decides_nothing();
    if broken.is_none() && (!happened || next.state == *state) {
        return Outcome::Nothing;
    }
    broken.map_or_else(|| Outcome::Next(Box::new(next.state)), Outcome::Broken)
}

struct Step<'a> {
    state: State,
    rules: &'a Rules,
    bounds: &'a Bounds,
    clipped: bool,
    broken: Option<Violation>,
}

impl Step<'_> {
    /// Applies the event; false if it cannot happen.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Begin(owners) => self.begin(owners),
            Event::Finish => self.finish(),
            Event::Abandon => self.abandon(),
            Event::Follow(node, number) => number <= self.state.last() && self.follow(node, number),
            Event::Try(write, number) => self.try_write(write, number),
            Event::Push(write, node) => self.push(write, node),
            Event::CatchUp(a, b) => self.catch_up(a, b, false),
            Event::Copy(a, b) => self.state.replicas[b].floor > 0 && self.catch_up(a, b, true),
            Event::Trim(node) => self.trim(node),
            Event::Query(node, partners) => self.query(node, partners),
            Event::LoseDisk(node) => self.lose_disk(node),
            Event::Drop(node) => self.drop_replica(node),
            Event::Crash(node) => self.crash(node),
            Event::OtherShards(a, b) => self.other_shards(a, b),
        }
    }

    /// Makes states equal that can only go on equally. Whom a node has caught up with matters to a node that is
    /// Filling, and to a change under way as far as the new owners and the old ones are concerned; it is
    /// void at the next number.
    fn forget_what_decides_nothing(&mut self) {
        for node in 0..NODES {
            let replica = self.state.replicas[node];
            let row = self.state.row(replica.follows);
            let decides = match replica.trust {
                Trust::Amnesiac => row.owners(),
                Trust::Serving | Trust::Joining if row.is_joint() && row.new.has(node) => row.old,
                _ => NodeSet::default(),
            };
            if !self.fault(Fault::EarlyCatchUp) {
                self.replica(node).caught_up_with = replica.caught_up_with.and(decides);
            }
            self.pass_over_what_is_held(node);
        }
    }

    /// Moves a node's positions past records that it would not take. Listing them again would change nothing,
    /// for what a replica holds it does not lose before its positions are void too. A position that stayed
    /// behind a floor would have blocks copied; [`Event::Copy`] stands for that.
    fn pass_over_what_is_held(&mut self, node: Node) {
        for peer in 0..NODES {
            let source = self.state.replicas[peer];
            let Some(position) = self.state.replicas[node].positions[peer] else {
                continue;
            };
            if position.lineage != source.lineage {
                continue;
            }
            let behind = source.journal.behind(position.offset);
            let held = behind
                .take_while(|record| !self.lacks(node, *record))
                .count() as u8;
            let offset = position.offset.max(source.journal.base) + held;
            self.replica(node).positions[peer] = Some(Position { offset, ..position });
        }
    }

    fn fault(&self, fault: Fault) -> bool {
        self.rules.has(fault)
    }

    fn replica(&mut self, node: Node) -> &mut Replica {
        &mut self.state.replicas[node]
    }

    fn present_row(&self) -> Row {
        self.state.row(self.state.last())
    }

    // --- the metadata plane ---

    fn begin(&mut self, owners: NodeSet) -> bool {
        let row = self.present_row();
        let turn = self
            .bounds
            .changes
            .get(usize::from(self.state.changes_begun));
        if row.is_joint() || owners == row.new || turn != Some(&owners) {
            return false;
        }
        self.state.changes_begun += 1;
        let old = if self.fault(Fault::NoJointStep) {
            owners
        } else {
            row.new
        };
        self.state.push_row(Row { old, new: owners });
        true
    }

    /// The new owners have caught up with a majority of the old ones: the same condition as `movement::finish`.
    fn finish(&mut self) -> bool {
        let row = self.present_row();
        let last = self.state.last();
        if !row.is_joint() {
            return false;
        }
        let replicas = &self.state.replicas;
        let serves = |node: &Node| {
            replicas[*node].follows == last && replicas[*node].trust == Trust::Serving
        };
        let has =
            |node: Node, source: Node| node == source || replicas[node].caught_up_with.has(source);
        let sources = row
            .old
            .iter()
            .filter(|source| serves(source) && row.new.iter().all(|node| has(node, *source)));
        let sources = sources.fold(NodeSet::default(), |mut all, node| {
            all.insert(node);
            all
        });
        let ready = row.new.iter().all(|node| serves(&node)) && row.old.has_majority(sources);
        if !ready && !self.fault(Fault::FinishUnchecked) {
            return false;
        }
        self.state.push_row(Row::simple(row.new));
        true
    }

    fn abandon(&mut self) -> bool {
        let row = self.present_row();
        let may = row.is_joint() && self.bounds.abandons;
        if may {
            self.state.push_row(Row::simple(row.old));
        }
        may
    }

    // --- configurations at a node ---

    /// A node follows a higher number. What it had caught up with under the lower one is void.
    fn follow(&mut self, node: Node, number: Number) -> bool {
        let row = self.state.row(number);
        let early = self.fault(Fault::EarlyCatchUp);
        let replica = self.replica(node);
        if number <= replica.follows {
            return false;
        }
        replica.follows = number;
        if !early {
            replica.caught_up_with = NodeSet::default();
        }
        if row.owners().has(node) {
            match replica.trust {
                Trust::None => replica.trust = Trust::Joining,
                Trust::Joining if !row.is_joint() => replica.trust = Trust::Serving,
                _ => {}
            }
        }
        true
    }

    fn drop_replica(&mut self, node: Node) -> bool {
        let replica = self.state.replicas[node];
        let row = self.state.row(replica.follows);
        let follows = |owner: Node| self.state.replicas[owner].follows >= replica.follows;
        let confirmed = row.new.iter().all(follows);
        let leaving = !row.is_joint() && !row.owners().has(node) && replica.trust != Trust::None;
        if !self.bounds.drops || !leaving || !confirmed {
            return false;
        }
        let keeps = self.fault(Fault::DropKeepsPositions);
        let journal = replica.journal.dropped();
        self.state.replicas[node] = Replica {
            follows: replica.follows,
            floor: journal.base,
            journal,
            lineage: replica.lineage + u8::from(self.rules.drop_begins_lineage),
            positions: if keeps {
                replica.positions
            } else {
                Default::default()
            },
            ..Replica::default()
        };
        true
    }

    fn crash(&mut self, node: Node) -> bool {
        let follows = self.state.replicas[node].follows;
        let may = self.fault(Fault::AdoptionNotDurable) && self.state.crashes < self.bounds.crashes;
        if !may || follows == 0 {
            return false;
        }
        self.state.crashes += 1;
        self.replica(node).follows = 0;
        true
    }

    // --- writes ---

    fn try_write(&mut self, write: usize, number: Number) -> bool {
        let last = self.state.last();
        let tried = &mut self.state.writes[write];
        if number > last || tried.acknowledged || tried.number == Some(number) {
            return false;
        }
        tried.number = Some(number);
        tried.holders = NodeSet::default();
        true
    }

    fn push(&mut self, write: usize, node: Node) -> bool {
        let tried = self.state.writes[write];
        let Some(number) = tried.number else {
            return false;
        };
        let row = self.state.row(number);
        let stale = self.state.replicas[node].follows > number;
        let refused = stale && !self.fault(Fault::StalePushTaken);
        if tried.acknowledged || tried.holders.has(node) || !row.owners().has(node) || refused {
            return false;
        }
        self.follow(node, number);
        let copied_is_held = self.fault(Fault::CopiedIsHeld);
        let replica = self.replica(node);
        if replica.trust == Trust::None {
            return false;
        }
        let item = Items::one(write);
        let copied = copied_is_held && item.minus(replica.content()).is_empty();
        if !copied && !item.minus(replica.journal.held()).is_empty() {
            self.append(node, Record::Parcel(item));
        }
        let tried = &mut self.state.writes[write];
        tried.holders.insert(node);
        if row.old.has_majority(tried.holders) && row.new.has_majority(tried.holders) {
            // What the coordinator still knows of it decides nothing any more.
            *tried = Write {
                acknowledged: true,
                ..Write::default()
            };
        }
        true
    }

    fn append(&mut self, node: Node, record: Record) {
        if !self.state.replicas[node].journal.append(record) {
            self.clipped = true;
        }
    }

    fn trim(&mut self, node: Node) -> bool {
        let replica = &mut self.state.replicas[node];
        let end = replica.journal.end();
        if self.state.trims >= self.bounds.trims || replica.floor == end {
            return false;
        }
        self.state.trims += 1;
        replica.floor = end;
        true
    }

    // --- barriers ---

    /// `a` gets everything that `b`'s journal holds: barrier, background barrier and copy are this one
    /// exchange. False if it is refused. `copies`: by blocks, whatever the position.
    fn catch_up(&mut self, a: Node, b: Node, copies: bool) -> bool {
        let number = self.state.replicas[a].follows;
        let owners = self.state.row(number).owners();
        let none = self.state.replicas[a].trust == Trust::None;
        let stale = self.state.replicas[b].follows > number;
        if none || !owners.has(a) || !owners.has(b) {
            return false;
        }
        if stale && !self.fault(Fault::StaleBarrierAnswered) {
            return false;
        }
        if !self.fault(Fault::EarlyCatchUp) {
            self.follow(b, number);
        }
        let source = self.state.replicas[b];
        if source.trust == Trust::None {
            return false;
        }
        match self.list_from(a, &source, b).filter(|_| !copies) {
            Some(offset) => self.fetch(a, &source, offset),
            None => self.copy(a, &source, b),
        }
        let counts = source.trust == Trust::Serving || self.fault(Fault::FillingCounts);
        let replica = self.replica(a);
        replica.positions[b] = Some(source.end());
        if counts {
            replica.caught_up_with.insert(b);
        }
        self.win_trust(a);
        true
    }

    /// From where `b` lists its records to `a`; none if `a` has to copy blocks.
    fn list_from(&self, a: Node, source: &Replica, b: Node) -> Option<u8> {
        let asker = &self.state.replicas[a];
        let position = asker.positions[b]?;
        // One position per peer is at least reset when a node begins to own its first shard.
        let fresh = asker.trust == Trust::Joining
            && asker.content().is_empty()
            && asker.caught_up_with == NodeSet::default();
        if self.fault(Fault::PositionPerPeer) && fresh {
            return None;
        }
        if position.lineage != source.lineage {
            return self.fault(Fault::UnknownRunIsStart).then_some(source.floor);
        }
        if position.offset < source.floor {
            return self
                .fault(Fault::TrimmedAnswersRest)
                .then_some(source.floor);
        }
        Some(position.offset)
    }

    /// `a` takes what it lacks of the records behind a place.
    fn fetch(&mut self, a: Node, source: &Replica, offset: u8) {
        for record in source.journal.behind(offset) {
            if self.lacks(a, record) {
                self.append(a, record);
            }
        }
    }

    /// Whether a node takes a record that a barrier lists.
    fn lacks(&self, node: Node, record: Record) -> bool {
        let asker = &self.state.replicas[node];
        match record {
            Record::Parcel(items) => !items.minus(asker.journal.held()).is_empty(),
            Record::Import {
                source, covered, ..
            } => {
                let has_it = asker.journal.behind(0).any(|own| own == record);
                !has_it && !self.skips(node, usize::from(source), covered)
            }
        }
    }

    /// Whether `a` may pass over a copy of what `source` had up to `covered`.
    fn skips(&self, a: Node, source: Node, covered: Position) -> bool {
        let asker = &self.state.replicas[a];
        let itself = a == source && asker.lineage == covered.lineage;
        let reached = |position: Position| {
            position.lineage == covered.lineage && position.offset >= covered.offset
        };
        let by_position = itself || asker.positions[source].is_some_and(reached);
        match self.rules.import_skip {
            ImportSkip::Never => false,
            ImportSkip::ByPosition => by_position,
            ImportSkip::Always => itself || asker.positions[source].is_some(),
        }
    }

    /// `a` copies all that `b` has, blocks and head, up to the end of `b`'s journal.
    fn copy(&mut self, a: Node, source: &Replica, b: Node) {
        let items = source.content();
        if self.fault(Fault::ImportsUnlisted) || self.fault(Fault::CopiedIsHeld) {
            let replica = self.replica(a);
            replica.unlisted = replica.unlisted.or(items);
        } else if items != self.state.replicas[a].content() {
            // Equal digests are not copied.
            self.append(
                a,
                Record::Import {
                    source: b as u8,
                    covered: source.end(),
                    items,
                },
            );
        }
        if self.rules.inherit_positions {
            for third in (0..NODES).filter(|third| *third != a && *third != b) {
                let present = self.state.replicas[third].lineage;
                let inherited = source.positions[third].filter(|p| p.lineage == present);
                let own = &mut self.state.replicas[a].positions[third];
                let known = own.filter(|position| position.lineage == present);
                *own = inherited.max(known).or(*own);
            }
        }
    }

    /// A Filling replica serves once it has caught up with enough.
    fn win_trust(&mut self, node: Node) {
        let replica = self.state.replicas[node];
        let row = self.state.row(replica.follows);
        let caught = replica.caught_up_with.without(node);
        let one = self.fault(Fault::RefillFromOne) && caught.len() > 0;
        let meets =
            |owners: NodeSet| !owners.has(node) || owners.meets_every_majority(caught) || one;
        let full = match replica.trust {
            Trust::Amnesiac if self.rules.refill_old_only && row.old.has(node) => meets(row.old),
            Trust::Amnesiac => meets(row.old) && meets(row.new),
            Trust::Joining => row.is_joint() && row.old.has_majority(caught),
            Trust::None | Trust::Serving => false,
        };
        if full {
            self.replica(node).trust = Trust::Serving;
        }
    }

    fn other_shards(&mut self, a: Node, b: Node) -> bool {
        let number = self.state.replicas[a].follows;
        let owners = self.state.row(number).owners();
        let shared = owners.has(a) && owners.has(b);
        let planted = self.fault(Fault::PositionPerPeer) && self.bounds.other_shards;
        if !planted || shared || a == b {
            return false;
        }
        let end = self.state.replicas[b].end();
        self.replica(a).positions[b] = Some(end);
        true
    }

    // --- queries ---

    /// A whole query at one moment; it only looks. Nothing is lost by that:
    ///
    /// - What it fetches it could also have fetched by catching up, so no state is reached through it only.
    /// - If it began earlier it would expect less. If it had its later barriers later, its partners would hold
    ///   no less and its expectations would be the same. A partner that could not be met at once but later,
    ///   under the same number, is an amnesiac that was refilled meanwhile; the simulation covers that.
    fn query(&mut self, node: Node, partners: NodeSet) -> bool {
        let number = self.state.replicas[node].follows;
        let row = self.state.row(number);
        let serves = self.state.replicas[node].trust == Trust::Serving && row.owners().has(node);
        let expected = self.state.acknowledged();
        let mut met = partners;
        met.insert(node);
        let new = row.new.meets_every_majority(met) || self.fault(Fault::BarrierOldOnly);
        if expected.is_empty() || !serves || !row.old.meets_every_majority(met) || !new {
            return false;
        }
        let before = self.state;
        let complete = partners.iter().all(|partner| self.meet(row, node, partner))
            && self.state.replicas[node].follows == number;
        let content = self.state.replicas[node].content();
        self.state = before;
        if complete && !self.clipped && !expected.minus(content).is_empty() {
            self.broken = Some(Violation::Incomplete);
            return true;
        }
        self.clipped = false;
        false
    }

    /// A query's barrier with one partner; false if the partner refuses or does not count.
    fn meet(&mut self, row: Row, evaluator: Node, partner: Node) -> bool {
        let trust = self.state.replicas[partner].trust;
        // A new owner that never lost anything counts among the new owners, and only there.
        let joins = matches!(trust, Trust::Joining | Trust::None) && !row.old.has(partner);
        let counts = trust == Trust::Serving || joins || self.fault(Fault::FillingCounts);
        counts && self.catch_up(evaluator, partner, false)
    }

    // --- losses ---

    fn lose_disk(&mut self, node: Node) -> bool {
        let replica = self.state.replicas[node];
        let amnesiac = self
            .state
            .replicas
            .iter()
            .any(|r| r.trust == Trust::Amnesiac);
        let too_many = self.state.losses >= self.bounds.losses;
        if too_many || replica.trust == Trust::None || amnesiac && !self.bounds.losses_overlap {
            return false;
        }
        self.state.losses += 1;
        let owner = self.present_row().owners().has(node);
        if owner && !self.fault(Fault::AmnesiaUnrecorded) {
            self.state.push_row(self.present_row());
        }
        let trust = match owner {
            false => Trust::None,
            true if self.fault(Fault::AmnesiacServes) => Trust::Serving,
            true => Trust::Amnesiac,
        };
        let (follows, lineage) = (self.state.last(), replica.lineage + 1);
        self.state.replicas[node] = Replica {
            follows,
            trust,
            lineage,
            ..Replica::default()
        };
        true
    }

    /// Whether an acknowledged item is nowhere. (Whether it is where it is looked for, queries show.)
    fn lost(&self) -> Option<Violation> {
        let contents = self.state.replicas.iter().map(Replica::content);
        let anywhere = contents.fold(Items::default(), Items::or);
        let gone = !self.state.acknowledged().minus(anywhere).is_empty();
        (gone && !self.bounds.losses_overlap).then_some(Violation::Lost)
    }
}

/// Whether a search within these bounds fits into a state.
pub(crate) fn fits(bounds: &Bounds) -> bool {
    1 + 2 * bounds.changes.len() + usize::from(bounds.losses) <= ROWS_MAX
}
