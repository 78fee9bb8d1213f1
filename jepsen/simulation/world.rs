//! Everything that the nodes of one simulation share: time, chance, machines, the story, what is being checked.

use crate::{
    bugs::Bug,
    coverage::{Coverage, Seen},
    dice::Dice,
    ledger::Ledger,
    network::Links,
    process::Process,
    registers::Registers,
};
use parking_lot::Mutex;
use std::{
    fmt,
    hash::Hasher,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use trefoil_model::{Millis, NodeId, PlacementTable};
use trefoil_store_pages::SimulatedDisk;

/// Where the wall clocks stand at the beginning, before their offsets: an instant in November 2026, in the middle of a
/// window.
pub(crate) const WALL_START: Millis = 1_795_260_000_000;

/// What one simulation is like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Machines that are there from the beginning.
    pub(crate) founders: usize,
    /// All machines: the later ones join.
    pub(crate) machines: usize,
    /// How many nodes found the cluster.
    pub(crate) expect: usize,
    pub(crate) shards: usize,
    pub(crate) replication: trefoil_shard::Settings,
    pub(crate) snapshot_entries: u64,
    /// Whether writing takes long, so that much is under way at any instant.
    pub(crate) slow_disks: bool,
    /// The mistake that is planted.
    pub(crate) bug: Option<Bug>,
}

/// A machine: what stays when a process ends.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// What its boot clock showed at the beginning.
    boot_offset: Duration,
    /// By how much its wall clock is ahead, milliseconds.
    pub(crate) wall_offset: Millis,
    pub(crate) disk: SimulatedDisk,
    pub(crate) process: Option<Arc<Process>>,
    /// An old copy of the disk.
    pub(crate) backup: Option<Backup>,
    /// Why the data directory must not be used again.
    pub(crate) condemned: Option<String>,
    /// Whether something durable was taken away from it, so that it may refuse to go on.
    pub(crate) damaged: bool,
    /// How often its processes have noticed that a block is damaged.
    pub(crate) damages_noticed: u64,
    /// The node ids that ran here, the newest last.
    pub(crate) nodes: Vec<NodeId>,
}

/// An old copy of a disk.
pub(crate) struct Backup {
    pub(crate) disk: SimulatedDisk,
    /// Where the journal ended then.
    pub(crate) journal_end: u64,
    /// Who owned what then.
    pub(crate) table: Arc<PlacementTable>,
    /// Since when every other node has known more of the journal.
    pub(crate) surpassed_at: Option<Duration>,
}

/// What happened, in order.
struct Story {
    digest: xxhash_rust::xxh3::Xxh3Default,
    /// All of it, or only what is worth telling.
    text: Vec<String>,
    keeps_all: bool,
    lines: u64,
}

/// A simulation.
pub(crate) struct World {
    begun: Instant,
    pub(crate) setup: Setup,
    dice: Mutex<Dice>,
    story: Mutex<Story>,
    machines: Vec<Mutex<Machine>>,
    pub(crate) links: Mutex<Links>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) registers: Mutex<Registers>,
    coverage: Mutex<Coverage>,
    broken: Mutex<Option<String>>,
    clients_rest: AtomicBool,
}

impl World {
    pub(crate) fn new(setup: Setup, dice: Dice, keeps_all: bool) -> Arc<Self> {
        let mut dice = dice;
        let machine = |index: usize, dice: &mut Dice| Machine {
            name: format!("n{}", index + 1),
            address: SocketAddr::from(([10, 0, 0, index as u8 + 1], 9191)),
            boot_offset: dice.millis(1_000, 100_000_000),
            wall_offset: dice.within(0, 40) as Millis - 20,
            disk: SimulatedDisk::new(dice.next()),
            process: None,
            backup: None,
            condemned: None,
            damaged: false,
            damages_noticed: 0,
            nodes: Vec::new(),
        };
        let machines = (0..setup.machines).map(|index| Mutex::new(machine(index, &mut dice)));
        let machines = machines.collect();
        let story = Story {
            digest: xxhash_rust::xxh3::Xxh3Default::new(),
            text: Vec::new(),
            keeps_all,
            lines: 0,
        };
        Arc::new(Self {
            begun: Instant::now(),
            setup,
            dice: Mutex::new(dice),
            story: Mutex::new(story),
            machines,
            links: Mutex::default(),
            ledger: Mutex::default(),
            registers: Mutex::default(),
            coverage: Mutex::default(),
            broken: Mutex::default(),
            clients_rest: AtomicBool::new(false),
        })
    }

    /// Time since the simulation began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A machine's boot clock.
    pub(crate) fn boot(&self, machine: usize) -> Duration {
        self.machines[machine].lock().boot_offset + self.now()
    }

    /// The instant at which a machine's boot clock shows this.
    pub(crate) fn at_boot(&self, machine: usize, boot: Duration) -> Instant {
        let offset = self.machines[machine].lock().boot_offset;
        // Far beyond the end of any simulation.
        let never = Duration::from_secs(1 << 30);
        self.begun + boot.saturating_sub(offset).min(never)
    }

    /// A machine's wall clock.
    pub(crate) fn wall(&self, machine: usize) -> Millis {
        self.true_wall() + self.machines[machine].lock().wall_offset
    }

    /// What a right wall clock shows.
    pub(crate) fn true_wall(&self) -> Millis {
        WALL_START + self.now().as_millis() as Millis
    }

    pub(crate) fn machines(&self) -> std::ops::Range<usize> {
        0..self.machines.len()
    }

    pub(crate) fn machine(&self, index: usize) -> parking_lot::MutexGuard<'_, Machine> {
        self.machines[index].lock()
    }

    /// The process on a machine, if one runs.
    pub(crate) fn process(&self, index: usize) -> Option<Arc<Process>> {
        self.machines[index].lock().process.clone()
    }

    /// All processes that run.
    pub(crate) fn processes(&self) -> Vec<Arc<Process>> {
        self.machines()
            .filter_map(|index| self.process(index))
            .collect()
    }

    /// The machine that listens at an address.
    pub(crate) fn at_address(&self, address: SocketAddr) -> Option<usize> {
        self.machines()
            .find(|index| self.machine(*index).address == address)
    }

    /// Throws the dice.
    pub(crate) fn roll<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.dice.lock())
    }

    /// How long a write and its sync take this time.
    pub(crate) fn disk_pause(&self) -> Duration {
        let slow = self.setup.slow_disks;
        self.roll(|dice| match dice.below(40) {
            _ if slow => dice.millis(5, 60),
            0 => dice.millis(20, 250),
            1..=8 => dice.millis(3, 20),
            _ => dice.millis(1, 4),
        })
    }

    /// Tells something that a reader of the story wants to know.
    pub(crate) fn tell(&self, what: fmt::Arguments<'_>) {
        self.note(what, true);
    }

    /// Tells something that only the comparison of two histories needs.
    pub(crate) fn trace(&self, what: fmt::Arguments<'_>) {
        self.note(what, false);
    }

    fn note(&self, what: fmt::Arguments<'_>, worth_telling: bool) {
        let line = format!("{:>9.3} {what}", self.now().as_secs_f64());
        let mut story = self.story.lock();
        story.digest.write(line.as_bytes());
        story.digest.write(b"\n");
        story.lines += 1;
        if worth_telling || story.keeps_all {
            story.text.push(line);
        }
    }

    /// The story, and a digest of everything that happened.
    pub(crate) fn story(&self) -> (Vec<String>, u64, u64) {
        let story = self.story.lock();
        (story.text.clone(), story.digest.finish(), story.lines)
    }

    /// Counts that something really happened.
    pub(crate) fn saw(&self, what: Seen) {
        self.coverage.lock().note(what);
    }

    /// Counts that something really happened so many times.
    pub(crate) fn saw_times(&self, what: Seen, times: u64) {
        self.coverage.lock().count(what, times);
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.coverage.lock().clone()
    }

    /// A promise was broken. The first one counts.
    pub(crate) fn broken(&self, how: String) {
        self.tell(format_args!("BROKEN: {how}"));
        self.broken.lock().get_or_insert(how);
    }

    /// The first promise that was broken.
    pub(crate) fn first_broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// Whether clients are to stop.
    pub(crate) fn clients_rest(&self) -> bool {
        self.clients_rest.load(Ordering::Relaxed)
    }

    /// Tells the clients to stop.
    pub(crate) fn let_clients_rest(&self) {
        self.clients_rest.store(true, Ordering::Relaxed);
    }

    /// Whether this mistake is planted.
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.setup.bug == Some(bug)
    }
}
