//! What goes wrong, how often, and how it is made good again.
//!
//! Only one machine at a time may have lost something that was durable, and only while everything else is whole: that is
//! what is promised. Kills, power cuts, partitions and slow or failing disks may come together as they like.

use crate::{
    checks,
    coverage::Seen,
    dice::Dice,
    process::{DIRECTORY, Process},
    world::{Backup, World},
};
use std::{path::Path, sync::Arc, time::Duration};
use trefoil_raft::Command;
use trefoil_store_pages::{CrashLoss, Disk as _, PAGE_BYTES, SimulatedDisk};

/// What a node knows of another's journal is durable after this time.
const POSITIONS_NOTED: Duration = Duration::from_secs(3);

/// The kinds of trouble.
const KINDS: [Kind; 18] = [
    Kind::Kill,
    Kind::KillLeader,
    Kind::PowerCut,
    Kind::PowerCutOfAll,
    Kind::TornCommit,
    Kind::Partition,
    Kind::SlowLink,
    Kind::FailSync,
    Kind::FillDisk,
    Kind::LoseDisk,
    Kind::LoseData,
    Kind::DamageJournal,
    Kind::DamageMetadata,
    Kind::DamageBlock,
    Kind::RestoreCopy,
    Kind::JumpClock,
    Kind::Members,
    Kind::Tangle,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    KillLeader,
    PowerCut,
    PowerCutOfAll,
    TornCommit,
    Partition,
    SlowLink,
    FailSync,
    FillDisk,
    LoseDisk,
    LoseData,
    DamageJournal,
    DamageMetadata,
    DamageBlock,
    RestoreCopy,
    JumpClock,
    Members,
    Tangle,
}

/// How likely each kind of trouble is at each turn, per thousand.
#[derive(Clone, Debug)]
pub(crate) struct Chances([u64; KINDS.len()]);

impl Chances {
    pub(crate) fn none() -> Self {
        Self([0; KINDS.len()])
    }

    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut chances = Self::none();
        for chance in &mut chances.0 {
            *chance = dice.pick(&[0, 0, 8, 30]);
        }
        // Each takes seconds.
        if let Some(tangle) = chances.0.last_mut() {
            *tangle = dice.pick(&[0, 30, 100]);
        }
        chances
    }
}

/// The troubles of one schedule.
pub(crate) struct Troubles {
    chances: Chances,
    /// The machine that lost something and has not got it back, with how often it must have noticed a damaged
    /// block before.
    lossy: Option<(usize, u64)>,
    /// Machines whose processes come back then.
    restarts: Vec<(Duration, usize)>,
    /// Machines whose disks have room again then.
    full: Vec<(Duration, usize)>,
    /// When the ways are whole again.
    healed_at: Option<Duration>,
}

impl Troubles {
    pub(crate) fn new(chances: Chances) -> Self {
        Self {
            chances,
            lossy: None,
            restarts: Vec::new(),
            full: Vec::new(),
            healed_at: None,
        }
    }

    /// One turn: things go wrong, and things that went wrong are over.
    pub(crate) async fn strike(&mut self, world: &Arc<World>) {
        self.recover(world);
        for (at, kind) in KINDS.into_iter().enumerate() {
            let chance = self.chances.0[at];
            if world.roll(|dice| dice.chance(chance)) {
                self.trouble(world, kind).await;
            }
        }
    }

    /// Everything is made good: processes run, ways carry, what was lost for good has been replaced.
    pub(crate) async fn repair(&mut self, world: &Arc<World>) {
        world.tell(format_args!("everything is repaired"));
        *world.links.lock() = crate::network::Links::default();
        for index in world.machines() {
            world.machine(index).disk.stop_failing();
            world.machine(index).disk.set_capacity(u64::MAX);
        }
        self.restarts.clear();
        for index in world.machines() {
            if world.machine(index).condemned.is_some() {
                wipe(world, index);
            }
            // A machine that was never added stays away.
            if index < world.setup.founders || !world.machine(index).nodes.is_empty() {
                world.start(index);
            }
        }
    }

    pub(crate) fn recover(&mut self, world: &Arc<World>) {
        let now = world.now();
        if self.healed_at.is_some_and(|at| at <= now) {
            self.healed_at = None;
            let mut links = world.links.lock();
            links.cut.clear();
            links.slow.clear();
            drop(links);
            world.tell(format_args!("the network is whole"));
        }
        for (_, index) in self.full.extract_if(.., |(at, _)| *at <= now) {
            world.tell(format_args!("machine {} has room again", index + 1));
            world.machine(index).disk.set_capacity(u64::MAX);
        }
        let due: Vec<usize> = self
            .restarts
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, index)| *index)
            .collect();
        self.restarts.retain(|(at, _)| *at > now);
        for index in due {
            world.start(index);
        }
        self.tend(world);
        self.restore_copies(world);
        if let Some((index, noticed)) = self.lossy
            && world.machine(index).damages_noticed >= noticed
            && checks::is_whole(world)
        {
            world.tell(format_args!("machine {} has everything back", index + 1));
            self.lossy = None;
        }
    }

    /// Processes that ended by themselves come back, and what must not be used again is replaced.
    fn tend(&mut self, world: &Arc<World>) {
        for index in world.machines() {
            let machine = world.machine(index);
            let waits = self.restarts.iter().any(|(_, waiting)| *waiting == index);
            let idle = machine.process.is_none() && !machine.nodes.is_empty() && !waits;
            let condemned = machine.condemned.is_some();
            drop(machine);
            if !idle {
                continue;
            }
            if condemned {
                self.lossy = Some((index, 0));
                wipe(world, index);
            }
            self.restart_later(world, index);
        }
    }

    /// A machine that waits to be started is started soon.
    pub(crate) fn soon(&mut self, world: &World, index: usize) {
        let at = world.now() + world.roll(|dice| dice.millis(1, 300));
        for (due, waiting) in &mut self.restarts {
            if *waiting == index {
                *due = at.min(*due);
            }
        }
    }

    fn restart_later(&mut self, world: &World, index: usize) {
        let pause = world.roll(|dice| match dice.below(4) {
            0 => dice.millis(1_000, 6_000),
            _ => dice.millis(10, 1_000),
        });
        self.restarts.push((world.now() + pause, index));
    }

    async fn trouble(&mut self, world: &Arc<World>, kind: Kind) {
        let index = world.roll(|dice| dice.below(world.machines().len() as u64)) as usize;
        match kind {
            Kind::Partition => return self.partition(world),
            Kind::SlowLink => return self.slow(world),
            Kind::JumpClock => return jump_clock(world, index),
            Kind::Tangle => return Box::pin(self.tangle(world)).await,
            Kind::PowerCutOfAll => return self.cut_all_power(world),
            Kind::KillLeader => {
                if let Some(leader) = checks::leader(world) {
                    world.saw(Seen::LeaderKilled);
                    self.stop(world, leader, CrashLoss::Nothing);
                }
                return;
            }
            _ => {}
        }
        if kind == Kind::Members {
            return self.change_members(world).await;
        }
        if let Some(process) = world.process(index) {
            self.strike_at(world, &process, kind).await;
        }
    }

    /// Something happens to the machine of a process.
    pub(crate) async fn strike_at(
        &mut self,
        world: &Arc<World>,
        process: &Arc<Process>,
        kind: Kind,
    ) {
        let index = process.machine;
        match kind {
            Kind::Members => self.change_members(world).await,
            Kind::Kill => {
                world.saw(Seen::Kill);
                self.stop(world, index, CrashLoss::Nothing);
            }
            Kind::PowerCut => {
                world.saw(Seen::PowerCut);
                self.stop(world, index, some_loss(world));
            }
            Kind::TornCommit => {
                tear_commit(world, index);
                self.restart_later(world, index);
            }
            Kind::FailSync => {
                let nth = world.roll(|dice| dice.within(1, 4));
                world.tell(format_args!("{} will fail sync {nth}", process.name()));
                world.saw(Seen::SyncFailed);
                world.machine(index).disk.fail_sync(nth);
            }
            Kind::FillDisk => {
                let lasts = world.roll(|dice| dice.millis(200, 5_000));
                world.tell(format_args!("the disk of {} is full", process.name()));
                world.saw(Seen::DiskFull);
                world.machine(index).disk.set_capacity(0);
                self.full.push((world.now() + lasts, index));
            }
            Kind::RestoreCopy => self.copy(world, process),
            _ => self.lose(world, process, kind),
        }
    }

    fn stop(&mut self, world: &World, index: usize, loss: CrashLoss) {
        world.tell(format_args!(
            "machine {} stops: unsynced work meets {loss:?}",
            index + 1
        ));
        world.crash(index, loss);
        self.restart_later(world, index);
    }

    fn cut_all_power(&mut self, world: &World) {
        world.saw(Seen::PowerCutOfAll);
        let loss = some_loss(world);
        for index in world.machines() {
            if world.process(index).is_some() {
                self.stop(world, index, loss);
            }
        }
    }

    fn partition(&mut self, world: &World) {
        let count = world.machines().len();
        let (shape, one, other, lasts) = world.roll(|dice| {
            let one = dice.below(count as u64) as usize;
            let other = dice.below(count as u64) as usize;
            (dice.below(5), one, other, dice.millis(300, 6_000))
        });
        let mut links = world.links.lock();
        links.cut.clear();
        let ways = world
            .machines()
            .flat_map(|a| world.machines().map(move |b| (a, b)));
        let cut = |a: usize, b: usize| match shape {
            0 => a == one || b == one,
            1 => a == one && b == other,
            2 => (a < count / 2) != (b < count / 2),
            3 => (a < one && b > one) || (a > one && b < one),
            // Everybody hears only the next one.
            _ => (a + 1) % count != b && (b + 1) % count != a,
        };
        links
            .cut
            .extend(ways.filter(|(a, b)| a != b && cut(*a, *b)));
        drop(links);
        world.saw(match shape {
            0 => Seen::PartitionMinority,
            1 => Seen::PartitionOneWay,
            2 => Seen::PartitionHalves,
            3 => Seen::PartitionBridge,
            _ => Seen::PartitionRing,
        });
        world.tell(format_args!(
            "a partition of shape {shape} around machine {}",
            one + 1
        ));
        self.healed_at = Some(world.now() + lasts);
    }

    fn slow(&mut self, world: &World) {
        let count = world.machines().len() as u64;
        let (from, to, by, lasts) = world.roll(|dice| {
            let (from, to) = (dice.below(count) as usize, dice.below(count) as usize);
            (from, to, dice.millis(20, 400), dice.millis(500, 6_000))
        });
        if from != to {
            world.saw(Seen::SlowLink);
            world.tell(format_args!(
                "machine {} reaches {} late by {by:?}",
                from + 1,
                to + 1
            ));
            world.links.lock().slow.insert((from, to), by);
            self.healed_at = Some(world.now() + lasts);
        }
    }

    /// Something that was durable is gone.
    fn lose(&mut self, world: &World, process: &Process, kind: Kind) {
        let index = process.machine;
        if self.lossy.is_some() || !checks::is_whole(world) {
            return;
        }
        let name = process.name();
        let directory = Path::new(DIRECTORY);
        let damaged = match kind {
            Kind::LoseDisk => {
                world.tell(format_args!("{name} loses its disk"));
                world.saw(Seen::DiskLost);
                world.crash(index, CrashLoss::Nothing);
                wipe(world, index);
                self.lossy = Some((index, 0));
                return self.restart_later(world, index);
            }
            Kind::LoseData => {
                world.tell(format_args!("{name} loses its journal and blocks"));
                world.crash(index, CrashLoss::Nothing);
                self.restart_later(world, index);
                let lost = remove_data(world, index);
                lost.then(|| ("data".to_owned(), Seen::DataLost))
            }
            Kind::DamageBlock => {
                let block = |path: &str| !path.contains("manifest");
                let found = flip(world, index, &directory.join("blocks"), block);
                found.map(|name| match name.ends_with("-aggregates") {
                    true => (name, Seen::AggregatesDamaged),
                    false => (name, Seen::BlockDamaged),
                })
            }
            Kind::DamageJournal => {
                world.crash(index, CrashLoss::Nothing);
                self.restart_later(world, index);
                let newest = newest_segment(world, index);
                let sealed = |path: &str| path.ends_with(".segment") && *path != *newest;
                let found = flip(world, index, &directory.join("journal"), sealed);
                found.map(|name| (name, Seen::JournalDamaged))
            }
            _ => {
                world.crash(index, CrashLoss::Nothing);
                self.restart_later(world, index);
                let found = flip(world, index, &directory.join("meta"), |_| true);
                found.map(|name| (name, Seen::MetadataDamaged))
            }
        };
        if let Some((file, seen)) = damaged {
            world.tell(format_args!("a bit of {name}'s {file} is flipped"));
            world.saw(seen);
            if seen == Seen::AggregatesDamaged {
                // They are made again from the samples, which are whole.
                return;
            }
            world.machine(index).damaged = true;
            // A start reads the whole journal and all metadata; a block is found when it is read.
            let unnoticed = u64::from(seen == Seen::BlockDamaged);
            self.lossy = Some((index, world.machine(index).damages_noticed + unnoticed));
        }
    }

    /// Copies a node's disk, which will come back.
    fn copy(&self, world: &World, process: &Process) {
        let (Some(plane), Some(metadata)) = (process.plane.get(), process.metadata.get()) else {
            return;
        };
        let seed = world.roll(Dice::next);
        let mut machine = world.machine(process.machine);
        machine.backup = Some(Backup {
            disk: machine.disk.copy(seed),
            journal_end: plane.journal.durable_end(),
            table: metadata.state().placement().clone(),
            surpassed_at: None,
        });
    }

    /// Old copies of disks come back. Noticing that is best effort, so it is only tried where it is sure: every other
    /// node knows more of the journal, and has all of the metadata.
    fn restore_copies(&mut self, world: &World) {
        for index in world.machines() {
            let Some(mut backup) = world.machine(index).backup.take() else {
                continue;
            };
            let process = world.process(index);
            let surpassed = self.lossy.is_none()
                && process.as_ref().is_some_and(|process| {
                    checks::is_whole(world) && checks::copy_is_surpassed(world, process, &backup)
                });
            let since = *backup.surpassed_at.get_or_insert(world.now());
            if !surpassed || world.now() < since + POSITIONS_NOTED {
                backup.surpassed_at = surpassed.then_some(since);
                world.machine(index).backup = Some(backup);
                continue;
            }
            world.tell(format_args!(
                "machine {} gets an old copy of its disk",
                index + 1
            ));
            world.saw(Seen::OldCopyRestored);
            world.crash(index, CrashLoss::Nothing);
            let mut machine = world.machine(index);
            machine.disk = backup.disk;
            machine.disk.set_capacity(u64::MAX);
            machine.damaged = true;
            drop(machine);
            self.lossy = Some((index, 0));
            self.restart_later(world, index);
        }
    }

    /// A machine joins, or a member is drained.
    async fn change_members(&mut self, world: &Arc<World>) {
        let spare = world
            .machines()
            .find(|index| world.machine(*index).nodes.is_empty());
        if let Some(spare) = spare {
            world.tell(format_args!("machine {} is added", spare + 1));
            world.saw(Seen::NodeAdded);
            world.start(spare);
            return;
        }
        if self.lossy.is_some() || !checks::is_whole(world) {
            return;
        }
        let Some(process) = world.processes().into_iter().next() else {
            return;
        };
        let Some(metadata) = process.metadata.get() else {
            return;
        };
        let state = metadata.state();
        let draining = state
            .members()
            .find(|member| member.state == trefoil_raft::MemberState::Draining)
            .map(|member| member.node);
        let some = world.roll(|dice| dice.below(world.machines().len() as u64)) as usize;
        let node = draining.or_else(|| world.process(some).and_then(|process| process.node()));
        let Some(node) = node else {
            return;
        };
        let draining = draining.is_none();
        world.tell(format_args!("node {node} is to be drained: {draining}"));
        let command = Command::SetDraining { node, draining };
        // An operator would try again; the schedule goes on.
        let asked = tokio::time::timeout(Duration::from_secs(1), metadata.propose(command)).await;
        if asked.is_ok_and(|answer| answer.is_ok()) {
            world.saw(Seen::NodeDrained);
        }
    }
}

/// The power goes while a machine writes a group of records.
pub(crate) fn tear_commit(world: &World, index: usize) {
    let process = world.process(index);
    if let Some(plane) = process.and_then(|process| process.plane.get().cloned()) {
        // The write is on its way, its sync does not come to an end.
        world.machine(index).disk.fail_sync(1);
        if plane.journal.commit_now().is_err() {
            world.saw(Seen::CommitTorn);
        }
    }
    world.saw(Seen::PowerCut);
    world.tell(format_args!("machine {} tears a commit", index + 1));
    world.crash(index, CrashLoss::Dice);
}

fn some_loss(world: &World) -> CrashLoss {
    world.roll(|dice| dice.pick(&[CrashLoss::Everything, CrashLoss::Dice, CrashLoss::Dice]))
}

fn jump_clock(world: &World, index: usize) {
    let jump = world.roll(|dice| dice.pick(&[-7_200_000, -30_000, 30_000, 7_200_000]));
    world.tell(format_args!(
        "the clock of machine {} jumps by {jump} ms",
        index + 1
    ));
    world.saw(Seen::ClockJumped);
    // The next one takes this one back, so that most clocks are right.
    for other in world.machines() {
        let mut machine = world.machine(other);
        machine.wall_offset = if other == index { jump } else { 0 };
    }
}

/// A machine gets an empty disk.
pub(crate) fn wipe(world: &World, index: usize) {
    let seed = world.roll(Dice::next);
    let mut machine = world.machine(index);
    machine.disk = SimulatedDisk::new(seed);
    machine.condemned = None;
    machine.damaged = false;
    machine.backup = None;
}

/// The items and numbers of a machine without a process are gone; its identity and metadata stay. Says whether there
/// was anything.
pub(crate) fn remove_data(world: &World, index: usize) -> bool {
    let mut machine = world.machine(index);
    machine.damaged = true;
    let disk = machine.disk.clone();
    drop(machine);
    let data = ["journal", "blocks"].map(|name| Path::new(DIRECTORY).join(name));
    let files = disk.files().into_iter().map(|(path, _)| path);
    let files = files.filter(|path| data.iter().any(|directory| path.starts_with(directory)));
    let removed = files.filter(|path| disk.remove(path).is_ok()).count();
    let synced = data
        .iter()
        .all(|directory| disk.sync_dir(directory).is_ok());
    removed > 0 && synced
}

/// The file of the journal that is being written.
fn newest_segment(world: &World, index: usize) -> String {
    let files = world.machine(index).disk.files().into_iter();
    let names = files.map(|(path, _)| path.display().to_string());
    let segments = names.filter(|name| name.ends_with(".segment"));
    segments.max().unwrap_or_default()
}

/// Flips a bit of some file below a directory that is wanted, and says of which.
pub(crate) fn flip(
    world: &World,
    index: usize,
    below: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Option<String> {
    let disk = world.machine(index).disk.clone();
    let files = disk.files();
    // Damage of the last group of a log cannot be told from a torn end; that of its header can.
    let within = |path: &str, length: u64| match path.contains("raft-log") {
        true => length.min(PAGE_BYTES as u64),
        // Most of a preallocated file says nothing yet.
        false => length.min(16 << 10),
    };
    let files: Vec<_> = files
        .into_iter()
        .filter(|(path, _)| path.starts_with(below))
        .map(|(path, length)| (path.display().to_string(), length))
        .filter(|(path, length)| within(path, *length) > 0 && wanted(path))
        .collect();
    if files.is_empty() {
        return None;
    }
    let (which, at, bit) = world.roll(|dice| {
        let which = dice.below(files.len() as u64) as usize;
        let used = within(&files[which].0, files[which].1);
        (which, dice.below(used), dice.below(8) as u8)
    });
    let (path, _) = &files[which];
    disk.flip_bit(Path::new(path), at, bit)
        .then(|| path.clone())
}
