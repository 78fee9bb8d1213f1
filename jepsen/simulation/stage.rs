//! What a named schedule is told with: a cluster of one shard with roles, and everything that can be done to it.
//!
//! `A`, `B` and `C` own the shard, `C` leads if one of them does; `D` and `E` are the others. Nothing happens that the
//! story does not say: no clients work, nothing is scrubbed, no message is lost.

use crate::{
    checks, clients,
    coverage::Seen,
    dice::Dice,
    network::{Class, Links},
    plane::Plane,
    process::{DIRECTORY, Process},
    world::{WALL_START, World},
};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use trefoil_model::{NodeId, OwnerSet, ShardEntry, ShardId};
use trefoil_raft::{Command, ConfigurationChange};
use trefoil_shard::WriteOutcome;
use trefoil_store_pages::CrashLoss;

/// Whether a story went as its promises say; if not, how.
pub(crate) type Told = Result<(), String>;

/// A role in a story.
pub(crate) type Role = usize;
pub(crate) const A: Role = 0;
pub(crate) const B: Role = 1;
pub(crate) const C: Role = 2;
pub(crate) const D: Role = 3;
pub(crate) const E: Role = 4;

/// The only shard.
const SHARD: ShardId = ShardId(0);
/// How long a story waits for what it says will happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// A cluster with its roles.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    /// The machine of each role.
    cast: Vec<usize>,
}

impl Stage {
    /// Gives the roles of a cluster that is whole.
    ///
    /// # Errors
    /// When the cluster does not become whole.
    pub(crate) async fn new(world: &Arc<World>) -> Result<Self, String> {
        let mut stage = Self {
            world: world.clone(),
            cast: world.machines().collect(),
        };
        for index in world.machines() {
            world.start(index);
        }
        let voters = if world.setup.machines < 5 { 3 } else { 5 };
        let all_run = |stage: &Self| {
            let members = stage.world.processes().into_iter();
            let ready = members.filter(|process| process.plane.get().is_some());
            ready.count() == stage.world.machines().len()
                && stage.voters() == voters
                && checks::is_whole(&stage.world)
        };
        stage.until("the cluster is whole", all_run).await?;
        let leader = checks::leader(world);
        let owners = stage.entry().map(|entry| entry.configuration.new);
        let owners = owners.unwrap_or_default();
        let owns = |index: &usize| {
            let node = world.process(*index).and_then(|process| process.node());
            node.is_some_and(|node| owners.contains(node))
        };
        stage
            .cast
            .sort_by_key(|index| (!owns(index), Some(*index) == leader));
        Ok(stage)
    }

    /// The process of a role, which runs.
    pub(crate) fn process(&self, role: Role) -> Result<Arc<Process>, String> {
        let process = self.world.process(self.cast[role]);
        process.ok_or_else(|| format!("the process of role {role} has ended"))
    }

    /// How many vote, by the word of those who know least.
    fn voters(&self) -> usize {
        let processes = self.world.processes().into_iter();
        let voters = processes.filter_map(|process| {
            let metadata = process.metadata.get()?;
            Some(metadata.status().voters.len())
        });
        voters.min().unwrap_or(0)
    }

    fn node(&self, role: Role) -> Option<NodeId> {
        self.world.machine(self.cast[role]).nodes.last().copied()
    }

    /// What a role's replication says of itself.
    pub(crate) fn plane(&self, role: Role) -> Option<Arc<Plane>> {
        self.world.process(self.cast[role])?.plane.get().cloned()
    }

    /// Whether a role's replica is trusted.
    pub(crate) fn serves(&self, role: Role) -> bool {
        let plane = self.plane(role);
        plane.is_some_and(|plane| plane.status().serving.contains(SHARD))
    }

    /// Below it a role's journal is not referred to any more.
    pub(crate) fn journal_floor(&self, role: Role) -> u64 {
        let status = self.plane(role).map(|plane| plane.status());
        status.map_or(0, |status| status.journal_floor.0)
    }

    /// How far a role covers another's journal.
    pub(crate) fn position_in_journal_of(&self, role: Role, other: Role) -> Option<u64> {
        let position = self.plane(role)?.position_at(self.node(other)?, SHARD)?;
        Some(position.0)
    }

    /// The shard's row as this role knows it.
    pub(crate) fn entry_at(&self, role: Role) -> Option<ShardEntry> {
        let process = self.world.process(self.cast[role])?;
        let state = process.metadata.get()?.state();
        state.placement().get(SHARD).cloned()
    }

    /// The newest row that anybody knows.
    pub(crate) fn entry(&self) -> Option<ShardEntry> {
        let rows = (0..self.cast.len()).filter_map(|role| self.entry_at(role));
        rows.max_by_key(|entry| entry.configuration.number)
    }

    pub(crate) fn is_joint(&self) -> bool {
        self.entry()
            .is_some_and(|entry| entry.configuration.is_joint())
    }

    /// Lets time pass.
    pub(crate) async fn run(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Lets time pass until something holds.
    ///
    /// # Errors
    /// When it does not come to hold, or a promise is broken meanwhile.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Told {
        let deadline = self.world.now() + PATIENCE;
        while !holds(self) {
            if let Some(how) = self.world.first_broken() {
                return Err(how);
            }
            if self.world.now() >= deadline {
                return Err(format!("the story waits in vain until {what}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Stops messages of a class between these and those, both ways.
    pub(crate) fn mute(&self, class: Class, these: &[Role], those: &[Role]) {
        let mut links = self.world.links.lock();
        for (here, there) in pairs(these, those) {
            let (here, there) = (self.cast[here], self.cast[there]);
            links
                .muted
                .extend([(class, here, there), (class, there, here)]);
        }
    }

    /// Stops the replication between these and those, both ways.
    pub(crate) fn part(&self, these: &[Role], those: &[Role]) {
        self.mute(Class::Replication, these, those);
    }

    /// Stops the replication one way only.
    pub(crate) fn part_one_way(&self, from: Role, to: Role) {
        let way = (Class::Replication, self.cast[from], self.cast[to]);
        self.world.links.lock().muted.insert(way);
    }

    /// The replication goes on between these two.
    pub(crate) fn join(&self, here: Role, there: Role) {
        let (here, there) = (self.cast[here], self.cast[there]);
        let mut links = self.world.links.lock();
        links.muted.remove(&(Class::Replication, here, there));
        links.muted.remove(&(Class::Replication, there, here));
    }

    /// Everything from one role comes later at another one.
    pub(crate) fn slow_down(&self, from: Role, to: Role, by: Duration) {
        let way = (self.cast[from], self.cast[to]);
        self.world.links.lock().slow.insert(way, by);
    }

    /// This role hears nothing of the metadata plane.
    pub(crate) fn deafen(&self, role: Role) {
        let others: Vec<Role> = (0..self.cast.len()).collect();
        self.mute(Class::Metadata, &[role], &others);
    }

    /// All ways carry everything again.
    pub(crate) fn join_all(&self) {
        *self.world.links.lock() = Links::default();
    }

    /// Writes a few samples through a role. Says whether they were acknowledged.
    ///
    /// # Errors
    /// When the role's process does not run.
    pub(crate) async fn write(&self, role: Role, timeout_ms: u64) -> Result<bool, String> {
        let process = self.process(role)?;
        Ok(put(process, self.items(), timeout_ms).await)
    }

    /// Begins to write through a role; it is acknowledged when it can be.
    ///
    /// # Errors
    /// When the role's process does not run.
    pub(crate) fn begin_write(&self, role: Role, timeout_ms: u64) -> Told {
        let process = self.process(role)?;
        drop(tokio::spawn(put(process, self.items(), timeout_ms)));
        Ok(())
    }

    /// Writes through a role, which must be acknowledged.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) async fn write_held(&self, role: Role) -> Told {
        match self.write(role, 2_000).await? {
            true => Ok(()),
            false => Err("a write that the story needs is not acknowledged".to_owned()),
        }
    }

    fn items(&self) -> Vec<usize> {
        let world = &self.world;
        let first = world.roll(|dice| dice.below(1024));
        let mut ledger = world.ledger.lock();
        let at = WALL_START + ledger.sent() as i64;
        (first..first + 3)
            .map(|series| ledger.send(series, at))
            .collect()
    }

    /// Asks roles in turn, each as an evaluator by itself, for so long; what they say is checked.
    ///
    /// # Errors
    /// What a complete answer lacked.
    pub(crate) async fn ask(&self, roles: &[Role], millis: u64) -> Told {
        let until = self.world.now() + Duration::from_millis(millis);
        while self.world.now() < until {
            for role in roles {
                if let Some(process) = self.world.process(self.cast[*role]) {
                    clients::query_directly(&process, clients::EVER).await;
                }
            }
            if let Some(how) = self.world.first_broken() {
                return Err(how);
            }
            self.run(50).await;
        }
        Ok(())
    }

    /// Ends a role's process; everything that it wrote is there.
    pub(crate) fn kill(&self, role: Role) {
        self.world.tell(format_args!("role {role} is killed"));
        self.world.crash(self.cast[role], CrashLoss::Nothing);
    }

    /// The power of a role goes while it writes a group of records.
    pub(crate) fn tear_commit(&self, role: Role) {
        crate::trouble::tear_commit(&self.world, self.cast[role]);
    }

    /// Starts a role's process.
    pub(crate) fn begin_start(&self, role: Role) {
        self.world.start(self.cast[role]);
    }

    /// Starts a role's process and waits until its data plane is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start(&self, role: Role) -> Told {
        self.begin_start(role);
        self.until("a node is up", |stage| stage.plane(role).is_some())
            .await
    }

    /// Takes a role's process and all items and numbers that it had, but not its identity and metadata.
    ///
    /// # Errors
    /// When it had none.
    pub(crate) fn lose_data(&self, role: Role) -> Told {
        self.kill(role);
        let world = &self.world;
        world.saw(Seen::DataLost);
        match crate::trouble::remove_data(world, self.cast[role]) {
            true => Ok(()),
            false => Err("there is nothing to lose".to_owned()),
        }
    }

    /// Takes a role's process and its whole disk: whoever starts there is a new node.
    pub(crate) fn lose_disk(&self, role: Role) {
        self.kill(role);
        self.world.saw(Seen::DiskLost);
        crate::trouble::wipe(&self.world, self.cast[role]);
    }

    /// A bit of a role's only block is flipped, where the samples are.
    ///
    /// # Errors
    /// When it has no block.
    pub(crate) fn damage_block(&self, role: Role) -> Told {
        let index = self.cast[role];
        let block = |path: &str| path.ends_with("-data");
        let directory = Path::new(DIRECTORY).join("blocks");
        let file = crate::trouble::flip(&self.world, index, &directory, block);
        let file = file.ok_or("there is no block yet")?;
        let world = &self.world;
        world.tell(format_args!("role {role} has a damaged file {file}"));
        world.saw(Seen::BlockDamaged);
        world.machine(index).damaged = true;
        Ok(())
    }

    /// A copy of a role's disk as it is now.
    pub(crate) fn copy_disk(&self, role: Role) -> trefoil_store_pages::SimulatedDisk {
        let seed = self.world.roll(Dice::next);
        self.world.machine(self.cast[role]).disk.copy(seed)
    }

    /// Puts an old copy of its disk under a role whose process does not run.
    pub(crate) fn restore_disk(&self, role: Role, disk: trefoil_store_pages::SimulatedDisk) {
        self.world.saw(Seen::OldCopyRestored);
        let mut machine = self.world.machine(self.cast[role]);
        machine.disk = disk;
        machine.damaged = true;
    }

    /// Begins to move the shard to these roles; the leader finishes it in its own time.
    ///
    /// # Errors
    /// When the metadata plane does not take it.
    pub(crate) async fn begin_move(&self, roles: &[Role]) -> Told {
        let Some(entry) = self.entry() else {
            return Err("there is no placement".to_owned());
        };
        let new: OwnerSet = roles.iter().filter_map(|role| self.node(*role)).collect();
        let change = ConfigurationChange {
            shard: SHARD,
            expected: entry.configuration.number,
            old: entry.configuration.new,
            new,
        };
        let command = Command::SetConfigurations {
            changes: vec![change],
        };
        let leader = checks::leader(&self.world).and_then(|index| self.world.process(index));
        let leader = leader.ok_or("nobody leads")?;
        let metadata = leader.metadata.get().ok_or("the leader has ended")?;
        let done = metadata.propose(command).await;
        done.map(drop)
            .map_err(|error| format!("the move is refused: {error}"))
    }

    /// Moves the shard to these roles and waits until the change has ended.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn move_to(&self, roles: &[Role]) -> Told {
        self.begin_move(roles).await?;
        let wanted: BTreeSet<NodeId> = roles.iter().filter_map(|role| self.node(*role)).collect();
        let there = |stage: &Self| {
            let entry = stage.entry();
            entry.is_some_and(|entry| {
                let owners: BTreeSet<NodeId> = entry.configuration.new.iter().collect();
                !entry.configuration.is_joint() && owners == wanted
            })
        };
        self.until("the shard has moved", there).await
    }
}

async fn put(process: Arc<Process>, items: Vec<usize>, timeout_ms: u64) -> bool {
    let timeout = Duration::from_millis(timeout_ms);
    let held = clients::write_through(&process, &items, timeout).await;
    let (world, name) = (&process.world, process.name());
    world.tell(format_args!("{name} took {items:?}: {held:?}"));
    let held = held == Some(WriteOutcome::Held) && process.is_alive();
    if held {
        world.saw(Seen::WriteHeld);
        world.ledger.lock().acknowledge(&items);
    }
    held
}

fn pairs<'a>(these: &'a [Role], those: &'a [Role]) -> impl Iterator<Item = (Role, Role)> + 'a {
    let all = these
        .iter()
        .flat_map(|here| those.iter().map(|there| (*here, *there)));
    all.filter(|(here, there)| here != there)
}
