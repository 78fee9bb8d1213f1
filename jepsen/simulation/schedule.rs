//! The schedule of a seed: nodes form a cluster, clients work while things go wrong, then everything is repaired and the
//! promises are checked.

use crate::{
    checks, clients,
    coverage::Seen,
    dice::Dice,
    network::Weather,
    trouble::{Chances, Troubles},
    world::{Setup, World},
};
use std::{sync::Arc, time::Duration};
use trefoil_store_pages::CrashLoss;

/// How long a cluster may take to form, disturbed and not.
const FORMING_DISTURBED: Duration = Duration::from_secs(8);
const FORMING: Duration = Duration::from_secs(60);
/// How long the disturbed part of a schedule lasts, at least and at most, in milliseconds.
const DISTURBED_MS: (u64, u64) = (12_000, 22_000);

/// What a seed is about: few kinds of trouble, but those often.
struct Plan {
    setup: Setup,
    weather: Weather,
    chances: Chances,
    /// Whether nodes crash and are cut off while they form the cluster.
    forms_in_trouble: bool,
    /// Whether two groups of founders that share one node see each other one after the other.
    overlaps: bool,
    /// Whether nothing goes wrong at all.
    quiet: bool,
}

impl Plan {
    fn new(bug: Option<crate::bugs::Bug>, dice: &mut Dice) -> Self {
        let quiet = dice.chance(30);
        let forms_in_trouble = !quiet && dice.chance(200);
        let founders = if forms_in_trouble {
            dice.pick(&[3, 5, 5])
        } else {
            3
        };
        let millis = Duration::from_millis;
        let replication = trefoil_shard::Settings {
            journal_bytes_max: dice.pick(&[8 << 10, 64 << 10, 1 << 20]),
            listed_max: dice.pick(&[3, 1000]),
            scrub_interval: millis(dice.within(800, 3_000)),
            copy_bytes_per_second: dice.pick(&[8 << 10, 1 << 20]),
            chunk_bytes_max: dice.pick(&[256, 64 << 10]),
            ..trefoil_shard::Settings::default()
        };
        let setup = Setup {
            founders,
            machines: founders.max(4),
            expect: 3,
            shards: dice.pick(&[2, 4, 8]),
            replication,
            snapshot_entries: dice.pick(&[16, 64, 4096]),
            slow_disks: dice.chance(250),
            bug,
        };
        let weather = match quiet {
            true => Weather::default(),
            false => Weather {
                lost: dice.pick(&[0, 0, 10, 60]),
                repeated: dice.pick(&[0, 20, 100]),
                late: dice.pick(&[0, 10, 80]),
            },
        };
        Self {
            setup,
            weather,
            chances: if quiet {
                Chances::none()
            } else {
                Chances::draw(dice)
            },
            forms_in_trouble,
            overlaps: founders == 5 && dice.chance(500),
            quiet,
        }
    }
}

/// Runs the schedule of a seed in a world of its own.
///
/// # Errors
/// Which promise was broken, and how.
pub(crate) async fn run(
    seed: u64,
    bug: Option<crate::bugs::Bug>,
    keeps_all: bool,
) -> (Arc<World>, Result<(), String>) {
    let mut dice = Dice::new(seed);
    let plan = Plan::new(bug, &mut dice);
    let world = World::new(plan.setup.clone(), dice, keeps_all);
    let result = play(&world, &plan).await;
    (world, result)
}

async fn play(world: &Arc<World>, plan: &Plan) -> Result<(), String> {
    world.tell(format_args!(
        "{:?} {:?} {:?}",
        plan.setup, plan.weather, plan.chances
    ));
    form(world, plan).await?;
    clients::start(world);
    let mut troubles = Troubles::new(plan.chances.clone());
    world.links.lock().weather = plan.weather;
    let disturbed = world.roll(|dice| dice.millis(DISTURBED_MS.0, DISTURBED_MS.1));
    let until = world.now() + disturbed;
    while world.now() < until && world.first_broken().is_none() {
        let pause = world.roll(|dice| dice.millis(30, 300));
        tokio::time::sleep(pause).await;
        troubles.strike(world).await;
    }
    if let Some(how) = world.first_broken() {
        return Err(how);
    }
    troubles.repair(world).await;
    checks::at_rest(world).await
}

/// Starts the founders and waits until they are a cluster with a placement.
async fn form(world: &Arc<World>, plan: &Plan) -> Result<(), String> {
    if plan.forms_in_trouble {
        world.links.lock().weather = plan.weather;
    }
    if plan.overlaps {
        overlap(world).await;
    }
    for index in 0..world.setup.founders {
        let pause = world.roll(|dice| dice.millis(0, 600));
        tokio::time::sleep(pause).await;
        world.start(index);
    }
    if plan.forms_in_trouble && !plan.overlaps {
        disturb_forming(world).await;
    }
    await_cluster(world).await?;
    if plan.quiet {
        world.tell(format_args!("nothing will go wrong"));
    }
    Ok(())
}

/// Starts the founders, undisturbed, and waits until they are a cluster with a placement.
///
/// # Errors
/// When they do not become one.
pub(crate) async fn form_in_peace(world: &Arc<World>) -> Result<(), String> {
    for index in 0..world.setup.founders {
        world.start(index);
    }
    await_cluster(world).await
}

async fn await_cluster(world: &Arc<World>) -> Result<(), String> {
    let until = world.now() + FORMING;
    while !checks::has_begun(world) {
        if let Some(how) = world.first_broken() {
            return Err(how);
        }
        if checks::founding_is_stuck(world) {
            // Allowed: promises were lost in a way that only an operator may resolve.
            world.tell(format_args!("the founding is stuck"));
            return Err(checks::STUCK.to_owned());
        }
        if world.now() >= until {
            return Err(format!(
                "the nodes do not form a cluster: {}",
                checks::reasons(world)
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.tell(format_args!("the cluster has begun"));
    Ok(())
}

/// Three nodes begin to found a cluster. As soon as one of them has promised itself, one of the three is restarted, with
/// what it wrote and not with what it did not, and meets two others instead.
async fn overlap(world: &Arc<World>) {
    world.saw(Seen::FoundingsOverlap);
    for index in 0..3 {
        world.start(index);
    }
    let until = world.now() + FORMING_DISTURBED;
    let promised = |index: &usize| {
        let process = world.process(*index);
        process.is_some_and(|process| {
            process
                .metadata
                .get()
                .is_some_and(|m| m.cluster().is_some())
        })
    };
    let wanted = world.roll(|dice| dice.within(1, 4)) as usize;
    while (0..3).filter(promised).count() < wanted && world.now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let shared = world.roll(|dice| dice.below(3)) as usize;
    let far = |a: usize, b: usize| a < 3 && a != shared && (b >= 3 || b == shared);
    {
        let mut links = world.links.lock();
        for a in world.machines() {
            for b in world.machines() {
                if far(a, b) || far(b, a) {
                    links.cut.insert((a, b));
                }
            }
        }
    }
    world.tell(format_args!(
        "machine {} loses power and meets the others",
        shared + 1
    ));
    world.crash(shared, CrashLoss::Everything);
    for index in [shared, 3, 4] {
        world.start(index);
    }
    let lasts = world.roll(|dice| dice.millis(3_000, 9_000));
    tokio::time::sleep(lasts).await;
    world.links.lock().cut.clear();
}

/// Crashes and partitions while nodes promise.
async fn disturb_forming(world: &Arc<World>) {
    let until = world.now() + FORMING_DISTURBED;
    while world.now() < until && world.first_broken().is_none() {
        let (pause, kind) = world.roll(|dice| (dice.millis(20, 700), dice.below(5)));
        tokio::time::sleep(pause).await;
        let founders = world.setup.founders as u64;
        let index = world.roll(|dice| dice.below(founders)) as usize;
        match kind {
            0 => world.links.lock().cut.clear(),
            1 | 2 => {
                // The nodes see each other in two overlapping groups.
                world.saw(Seen::PartitionBridge);
                let mut links = world.links.lock();
                links.cut.clear();
                for a in 0..world.setup.founders {
                    for b in 0..world.setup.founders {
                        if (a < index && b > index) || (a > index && b < index) {
                            links.cut.insert((a, b));
                        }
                    }
                }
            }
            3 => {
                world.saw(Seen::CrashWhileForming);
                world.tell(format_args!("machine {} loses power", index + 1));
                world.crash(index, CrashLoss::Dice);
                let pause = world.roll(|dice| dice.millis(10, 400));
                tokio::time::sleep(pause).await;
                world.start(index);
            }
            _ => {}
        }
    }
    world.links.lock().cut.clear();
    for index in 0..world.setup.founders {
        world.start(index);
    }
}
