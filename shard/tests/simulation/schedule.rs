//! Random schedules: clients at work while things go wrong, then everything is repaired and the promises
//! are checked.

use crate::{
    coverage::{Coverage, Seen},
    node::{Backup, EVER},
    world::{Setup, Weather, World},
};
use std::{collections::BTreeSet, time::Duration};
use trefoil_model::{LineageId, NodeId, OwnerSet, ShardId, ShardSet, TimeRange};
use trefoil_shard::{Faults, movement::MovementFaults};

/// How long the disturbed part of a schedule lasts, in milliseconds.
const DISTURBED_MS: u64 = 1200;

/// Runs the schedule of a seed.
///
/// # Errors
/// Which promise was broken, and how.
pub(crate) fn run(seed: u64, faults: Faults, movement: MovementFaults) -> Result<Coverage, String> {
    let mut schedule = Schedule::new(seed, faults, movement);
    schedule.disturb();
    schedule.world.check_rest()?;
    let world = &schedule.world;
    let mut coverage = world.coverage.clone();
    coverage.count(Seen::WriteHeld, world.client.acknowledged);
    coverage.count(Seen::WriteUnavailable, world.client.unavailable);
    coverage.count(Seen::QueryComplete, world.client.answered);
    coverage.count(Seen::QueryRefused, world.client.partial);
    for node in &world.nodes {
        coverage.count(Seen::ReplicaEnded, node.ended);
        if let Some(status) = node.core.as_ref().map(|core| core.status()) {
            coverage.count(Seen::ReplicaCopied, status.copies);
            coverage.count(Seen::ParcelFetched, status.fetched_parcels);
            coverage.count(Seen::OutdatedShardCopied, status.outdated);
        }
    }
    Ok(coverage)
}

struct Schedule {
    world: World,
    /// How likely which kind of trouble is in this schedule, per thousand turns.
    trouble: [u64; TROUBLES],
    /// The node that lost something and has not got it back.
    lossy: Option<Lossy>,
}

/// A node that lost something.
struct Lossy {
    index: usize,
    /// The lineages of what it lost all of; they are gone when its loss is recorded.
    lineages: BTreeSet<LineageId>,
}

const TROUBLES: usize = 11;

impl Schedule {
    fn new(seed: u64, faults: Faults, movement: MovementFaults) -> Self {
        let mut setup = Setup::three();
        setup.faults = faults;
        setup.movement.faults = movement;
        let mut dice = crate::dice::Dice::new(seed ^ 0xfeed);
        setup.nodes = dice.within(3, 6);
        setup.owners = match dice.below(10) {
            0 => 1,
            1 => 2,
            _ => 3,
        };
        setup.shards = 1 << dice.below(3);
        setup.settings.listed_max = if dice.chance(200) { 3 } else { 1000 };
        setup.settings.journal_bytes_max = if dice.chance(400) { 60 } else { 1 << 20 };
        setup.settings.held_max = if dice.chance(100) { 4 } else { 1000 };
        setup.settings.window_pushes_max = if dice.chance(100) { 4 } else { 1000 };
        setup.scrubs = dice.chance(500);
        setup.weather = Weather {
            lost: [0, 0, 20, 150][dice.below(4) as usize],
            repeated: [0, 30, 150][dice.below(3) as usize],
            late: [0, 20, 200][dice.below(3) as usize],
            misdelivered: [0, 0, 0, 30][dice.below(4) as usize],
        };
        let mut trouble = [0; TROUBLES];
        for chance in &mut trouble {
            // Most schedules have few kinds of trouble, but those often.
            *chance = [0, 0, 15, 60][dice.below(4) as usize];
        }
        Self {
            world: World::new(setup, seed),
            trouble,
            lossy: None,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.world.dice.below(end as u64) as usize
    }

    fn some_node(&mut self) -> usize {
        self.below(self.world.nodes.len())
    }

    fn disturb(&mut self) {
        self.world.run(60);
        let until = self.world.now + Duration::from_millis(DISTURBED_MS);
        while self.world.now < until && self.world.client.broken.is_none() {
            let pause = self.world.dice.within(1, 25);
            self.world.run(pause);
            self.clients();
            for kind in 0..TROUBLES {
                if self.world.dice.chance(self.trouble[kind]) {
                    self.trouble(kind);
                }
            }
            self.notice_recovery();
        }
    }

    fn clients(&mut self) {
        if self.world.dice.chance(600) {
            let index = self.some_node();
            let mut shards: ShardSet = self.world.shards();
            for shard in self.world.shards().iter() {
                if self.world.dice.chance(500) && shards.len() > 1 {
                    shards.remove(shard);
                }
            }
            let timeout = self.world.dice.within(20, 500);
            self.world.write(index, &shards, timeout);
        }
        if self.world.dice.chance(250) {
            let index = self.some_node();
            let range = self.some_range();
            self.world.query(index, range);
        }
        if self.world.dice.chance(60) {
            let index = self.some_node();
            self.world.flush(index);
        }
    }

    fn some_range(&mut self) -> TimeRange {
        let window = crate::store::WINDOW;
        match self.below(3) {
            0 => EVER,
            half => TimeRange {
                start: (half as i64 - 1) * window,
                end: half as i64 * window,
            },
        }
    }

    fn trouble(&mut self, kind: usize) {
        let index = self.some_node();
        match kind {
            0 => {
                self.world.kill(index);
                self.restart_later(index);
            }
            1 => {
                let all = self.world.dice.chance(150);
                if all {
                    self.world.coverage.note(Seen::PowerCutOfAll);
                }
                for at in 0..self.world.nodes.len() {
                    if at == index || all {
                        self.world.power_cut(at);
                        self.restart_later(at);
                    }
                }
            }
            2 => {
                self.world.pause(index);
            }
            3 => {
                if let Some(at) = self
                    .world
                    .nodes
                    .iter()
                    .position(|node| node.paused.is_some())
                {
                    self.world.resume(at);
                }
                self.restart_later(index);
            }
            4 => self.partition(),
            5 => self.lose_disk(index),
            6 => self.damage_block(index),
            7 => self.restore_backup(index),
            8 => self.change_owners(),
            9 => {
                if self.world.plane.now.classes.len() < 3 {
                    let class = self.below(3) as u8;
                    self.world.delete(class);
                }
            }
            _ => {
                let id = self.world.nodes[index].id;
                if !self.world.without_plane.remove(&id) {
                    self.world.without_plane.insert(id);
                    self.world.coverage.note(Seen::CutOffFromPlane);
                }
            }
        }
    }

    /// Processes come back soon, most of the time.
    fn restart_later(&mut self, index: usize) {
        if self.world.dice.chance(700) {
            let pause = self.world.dice.within(1, 40);
            self.world.run(pause);
            self.world.start(index);
        }
    }

    fn partition(&mut self) {
        if self.world.dice.chance(400) {
            self.world.cut.clear();
            return;
        }
        let one = self.some_node();
        let one_way = self.world.dice.chance(200);
        let here = self.world.nodes[one].id;
        for at in 0..self.world.nodes.len() {
            let there = self.world.nodes[at].id;
            if at != one && self.world.dice.chance(600) {
                self.world.cut.insert((here, there));
                self.world.coverage.note(Seen::Partition);
                if !one_way {
                    self.world.cut.insert((there, here));
                }
            }
        }
    }

    /// Only one node at a time may have lost something, and only while every shard has a second owner: that is what
    /// is promised. A shard with one owner may move to a node whose loss nobody has noticed.
    fn may_lose(&self) -> bool {
        let mut rows = self.world.plane.now.table.shards.iter();
        let sole = rows.any(|entry| {
            let configuration = &entry.configuration;
            configuration.old.len() < 2 || configuration.new.len() < 2
        });
        self.lossy.is_none() && !sole
    }

    fn lose_disk(&mut self, index: usize) {
        if !self.may_lose() {
            return;
        }
        self.lossy = Some(self.losing(index));
        // A block may hold what only a lost page of the journal spoke of, and peers have never heard of. Comparing
        // finds it; without that, what remains must become equal by the protocol alone.
        if self.world.dice.chance(600) || !self.world.setup.scrubs {
            self.world.wipe(index);
        } else {
            self.world.kill(index);
            self.damage_journal(index);
        }
        self.restart_later(index);
    }

    fn damage_journal(&mut self, index: usize) {
        let mut dice = crate::dice::Dice::new(self.world.dice.next());
        let node = &mut self.world.nodes[index];
        let records = node.journal.records.len();
        if dice.chance(300) && node.lose_end(&mut dice) {
            self.world.coverage.note(Seen::JournalEndLost);
        } else if records > 0 {
            node.lose_page(dice.below(records as u64) as usize);
            self.world.coverage.note(Seen::JournalPageLost);
        }
    }

    fn damage_block(&mut self, index: usize) {
        if self.may_lose() && self.world.nodes[index].is_up() {
            let which = self.some_node();
            if self.world.nodes[index].damage_block(which) {
                let lineages = BTreeSet::new();
                self.lossy = Some(Lossy { index, lineages });
                self.world.coverage.note(Seen::BlockDamaged);
            }
        }
    }

    /// An old copy of a disk comes back. Noticing that is best effort, so it is only tried where it is sure:
    /// every co-owner durably knows better, no owner evaluates without asking another (of two owners, each has
    /// everything), and the copy does not speak of other owners.
    fn restore_backup(&mut self, index: usize) {
        let Some(backup) = &self.world.nodes[index].backup else {
            let table = self.world.plane.now.table.clone();
            self.world.nodes[index].take_backup(table);
            return;
        };
        if !self.may_lose() || !self.known_further(index, backup) {
            return;
        }
        let lossy = self.losing(index);
        self.world.kill(index);
        self.world.restore(index);
        self.lossy = Some(lossy);
        self.world.start(index);
    }

    fn known_further(&self, index: usize, backup: &Backup) -> bool {
        let node = self.world.nodes[index].id;
        let end = backup.journal.end;
        let knows = |peer: NodeId, shard: ShardId| {
            let peer = &self.world.nodes[self.world.index(peer)];
            peer.durable_position(node, shard)
                .is_some_and(|at| at > end)
        };
        let mut rows = self.world.plane.now.table.iter();
        rows.all(|(shard, entry)| {
            let configuration = &entry.configuration;
            let then = backup.table.get(shard).map(|entry| &entry.configuration);
            let same =
                then.is_some_and(|c| c.old == configuration.old && c.new == configuration.new);
            let asks = configuration.old.len() > 2 && configuration.new.len() > 2;
            let owners = configuration.all_owners();
            let mut peers = owners.iter().filter(|peer| *peer != node);
            same && (!owners.contains(node) || asks && peers.all(|peer| knows(peer, shard)))
        })
    }

    fn change_owners(&mut self) {
        let shard = ShardId(self.below(usize::from(self.world.setup.shards)) as u16);
        if self.world.dice.chance(150) {
            if self.world.plane.abandon_change(shard) {
                self.world.coverage.note(Seen::MovementAbandoned);
            }
            self.world.publish();
            return;
        }
        let present = match self.world.plane.now.table.get(shard) {
            Some(entry) => entry.configuration.new.len(),
            None => return,
        };
        let count = (present + self.below(2)).min(3);
        let mut owners = BTreeSet::new();
        while owners.len() < count {
            owners.insert(NodeId(self.some_node() as u64 + 1));
        }
        let owners: OwnerSet = owners.into_iter().collect();
        // Shards that move together, often.
        let together = self.world.dice.chance(500);
        for other in self.world.shards().iter() {
            if (other == shard || together) && self.world.plane.begin_change(other, owners.clone())
            {
                self.world.coverage.note(Seen::MovementBegun);
            }
        }
        self.world.publish();
    }

    /// Looks whether the node that lost something has everything back.
    fn notice_recovery(&mut self) {
        let Some(lossy) = &self.lossy else {
            return;
        };
        let present = self.lineages(lossy.index);
        let (index, recorded) = (lossy.index, present.is_disjoint(&lossy.lineages));
        if !recorded || !self.world.is_whole(index) {
            return;
        }
        if self.world.nodes[index].would_lose_again() {
            // A driver that found damage flushes as soon as it can.
            self.world.flush(index);
        } else {
            self.lossy = None;
        }
    }

    fn losing(&self, index: usize) -> Lossy {
        let lineages = self.lineages(index);
        Lossy { index, lineages }
    }

    /// The lineages of a node's replicas, as the plane has them.
    fn lineages(&self, index: usize) -> BTreeSet<LineageId> {
        let node = self.world.nodes[index].id;
        let rows = self.world.plane.now.table.shards.iter();
        let records = rows.filter_map(|entry| entry.owners.get(&node));
        records.map(|record| record.lineage).collect()
    }
}
